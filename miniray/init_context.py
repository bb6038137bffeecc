"""What `init` does with its parameters, what it says, and what it returns."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from miniray import init_options, options
from miniray.messages.startup import HeadConfig
from miniray.processes import current
from miniray.processes.driver import connect, job_config
from miniray.system import user_log
from miniray.system.ray_settings import spilling_directory
from miniray.system.session import environment_address, find_session
from miniray.version import __version__

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.runtime_env import RuntimeEnv


class Session(Protocol):
    """What `start_session` starts or joins."""

    core: CoreWorker
    row: dict[str, Any]

    def disconnect(self, exiting: bool = False) -> None:
        """Leave it, and end it if it is this driver's own."""


def check_first(given: dict[str, Any]) -> None:
    """What `init` looks at before it asks whether there is a session already: names, logging, `local_mode`.

    Raises:
        RuntimeError: an unknown parameter; local mode in strict mode, as Ray has it no more.
        ValueError, TypeError: there is no such logging level.
    """
    init_options.check_names(given)
    if given.get("configure_logging", True):
        user_log.configure(given.get("logging_level", "info"), given.get("logging_format"))
    if given.get("local_mode") and options.strict_mode():
        raise RuntimeError(
            "`local_mode` is no longer supported. For interactive debugging consider using the Ray distributed "
            "debugger."
        )


def start_session(given: dict[str, Any]) -> Session:
    """Check the parameters of `init`, then join or start a session.

    Raises:
        as `init`.
    """
    values = init_options.check_init_options(given)
    _check_isolation(values)
    job, env = _job(values), _runtime_env(values)
    address = _address(values["address"])
    local = _is_local(values["local_mode"], address)
    info = None if local else find_session(address)
    if info is not None:
        user_log.say(user_log.INFO, f"Connecting to existing Ray cluster at address: {info.gcs_address}...", caller=3)
        _check_joining(values)
    take_along = None if env is None else lambda folder: _take_along(env, folder)
    session: Session
    if local:
        from miniray.processes.local_mode import connect_local  # the head and all: 40 ms that few programs pay

        session = connect_local(_head_config(values), job, take_along)
    else:
        session = connect(info, _head_config(values), job, take_along)
    if values["logging_config"] is not None:
        from miniray.processes import structured_logging  # imports logging

        structured_logging.apply(values["logging_config"])
    line = "Started a local Ray instance." if info is None else "Connected to Ray cluster."
    user_log.say(user_log.INFO, line, caller=3)
    return session


def _is_local(local_mode: Any, address: str | None) -> bool:
    """Whether the session is to live in this process; the environment may ask for it where the program starts one."""
    starts_one = not address or address in ("local", "auto")
    if local_mode and not starts_one:
        raise ValueError(f"local_mode=True starts a session in this process: it cannot join the one at {address!r}.")
    return starts_one and (bool(local_mode) or options.means_yes(os.environ.get("MINIRAY_LOCAL_MODE", "")))


def say_again() -> None:
    """`init` was called in a session."""
    user_log.say(user_log.INFO, "Calling ray.init() again after it has already been called.", caller=3)


def _address(address: str | None) -> str | None:
    """The address that holds: the given one, unless the environment has one and the given one leaves it open."""
    if not address or address == "auto":
        variable, named = environment_address()
        if named and named != address:
            line = f"Using address {named} set in the environment variable {variable}"
            user_log.say(user_log.INFO, line, caller=4)
            return named
    elif options.strict_mode() and address != "local" and ":" not in address:
        raise ValueError(f"Invalid address format: {address}")
    return address


def _head_config(values: dict[str, Any]) -> HeadConfig:
    config = HeadConfig(
        version=__version__,
        transport=os.environ.get("MINIRAY_TRANSPORT", "ipc"),
        start_method=os.environ.get("MINIRAY_START_METHOD", "fork" if hasattr(os, "fork") else "spawn"),
        num_cpus=values["num_cpus"],
        num_gpus=values["num_gpus"],
        memory=values["memory"] or values["_memory"],
        object_store_memory=values["object_store_memory"],
        resources=values["resources"] or {},
        labels=values["labels"] or {},
        preload=["numpy"] if "numpy" in sys.modules else [],
        session_dir=values["_temp_dir"] or "",
        system_config=values["_system_config"] or {},
    )
    config.spill_to = spilling_directory(config.system_config, values["object_spilling_directory"])
    quantities = dict(config.resources)
    for name, quantity in (("CPU", config.num_cpus), ("GPU", config.num_gpus)):
        if quantity is not None:
            quantities[name] = quantity
    init_options.check_node_resources(quantities)
    if config.object_store_memory is not None and config.memory is None:
        from miniray.system.machine import check_memory  # few programs say how large the store is to be

        check_memory(config.object_store_memory)
    return config


#: Parameters that describe a session which is to be started, and Ray's names for them in its refusal.
_NOT_WHEN_JOINING = (
    (("num_cpus", "num_gpus"), "num_cpus and num_gpus"),
    (("resources",), "resources"),
    (("labels",), "labels"),
    (("object_store_memory",), "object_store_memory"),
    (("memory",), "memory"),
    (("_system_config",), "_system_config"),
    (("_enable_object_reconstruction",), "_enable_object_reconstruction"),
)


def _check_joining(values: dict[str, Any]) -> None:
    for names, text in _NOT_WHEN_JOINING:
        if any(values[name] is not None and values[name] is not False for name in names):
            raise ValueError(f"When connecting to an existing cluster, {text} must not be provided.")
    if values["_node_name"] is not None:
        raise ValueError("_node_name cannot be configured when connecting to an existing cluster.")


def _check_isolation(values: dict[str, Any]) -> None:
    if values["enable_resource_isolation"]:
        return
    for name in ("cgroup_path", "system_reserved_cpu", "system_reserved_memory"):
        if values[name] is not None:
            raise ValueError(
                f"{name} cannot be set when resource isolation is not enabled. Set enable_resource_isolation to True "
                "if you're using ray.init or use the --enable-resource-isolation flag if you're using the ray cli."
            )


def _job(values: dict[str, Any]) -> dict[str, Any]:
    """What is to be known of this driver: its namespace, and the plain data that its workers get."""
    given = values["job_config"]
    namespace, extra = values["namespace"], {}
    if given is not None:
        namespace = namespace or given.ray_namespace
        options.check_namespace(namespace)
        extra["metadata"] = dict(given.metadata)
        extra["default_actor_lifetime"] = given.default_actor_lifetime
    log_to_driver = values["log_to_driver"]
    if log_to_driver is None:
        log_to_driver = os.environ.get("RAY_LOG_TO_DRIVER", "1").lower() not in ("0", "false")
    job = job_config(
        namespace,
        log_to_driver=bool(log_to_driver),
        task_timeout_s=values["task_timeout_s"],
        strict=options.strict_mode(),
        as_ray=_is_ray(),
        **extra,
    )
    if given is not None:
        code_search_path = [*map(str, given.code_search_path)]
        job["config"]["sys_path"] = [*code_search_path, *job["config"]["sys_path"]]
        if code_search_path:
            job["config"]["code_search_path"] = code_search_path
    if values["logging_config"] is not None:
        job["config"]["logging_config"] = values["logging_config"].to_dict()
    return job


def _is_ray() -> bool:
    """Whether ``import ray`` gives miniray here, so that it has to in the workers, too."""
    alias = sys.modules.get("miniray.system.import_alias")
    return alias is not None and alias.is_installed()


def _runtime_env(values: dict[str, Any]) -> RuntimeEnv | None:
    """The runtime environment of the job, checked; None: it has none."""
    given = values["job_config"]
    runtime_env = values["runtime_env"] or (given.runtime_env if given is not None else None)
    if not runtime_env:
        return None
    from miniray.runtime_env.packages import job_environment  # few drivers have one

    return job_environment(runtime_env)


def _take_along(env: RuntimeEnv, session_dir: str) -> dict[str, Any]:
    from miniray.runtime_env.packages import take_along

    return take_along(env, session_dir).to_dict()


# ---- what `init` returns ----


class BaseContext:
    """What `init` returns."""

    def disconnect(self) -> None:
        """Leave the session."""
        raise NotImplementedError

    def __enter__(self) -> BaseContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()


_warned: set[str] = set()


def _warn_once(text: str, category: type[Warning]) -> None:
    if text[:9] not in _warned:
        _warned.add(text[:9])
        warnings.warn(text, category, stacklevel=3)


class RayContext(BaseContext):
    """The session that `init` joined or started. Usable in ``with``: at the end the process leaves the session.

    Attributes:
        address_info: addresses, directories and the node's id, by name.
        dashboard_url: "" without a dashboard.
        python_version, ray_version, ray_commit: what runs here.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.init.html
    """

    def __init__(self, row: dict[str, Any], leave: Callable[[], None]) -> None:
        self._leave = leave
        self.dashboard_url = row["webui_url"]
        self.python_version = "{}.{}.{}".format(*sys.version_info[:3])
        self.ray_version = __version__
        self.ray_commit = f"miniray-{__version__}"
        self.address_info: dict[str, Any] = {name: row[name] for name in _ADDRESS_INFO}

    def disconnect(self) -> None:
        """Leave the session, as `shutdown` does."""
        self._leave()

    # The context was a dictionary once, and still reads like one.

    def __getitem__(self, key: str) -> Any:
        _warn_once(
            f'Accessing values through ctx["{key}"] is deprecated. Use ctx.address_info["{key}"] instead.',
            DeprecationWarning,
        )
        return self.address_info[key]

    def __len__(self) -> int:
        _warn_once("len(ctx) is deprecated. Use len(ctx.address_info) instead.", UserWarning)
        return len(self.address_info)

    def __contains__(self, key: object) -> bool:
        return key in self.address_info

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dictionary."""
        return self.address_info.get(key, default)

    def keys(self) -> Any:
        """As of a dictionary."""
        return self.address_info.keys()

    def values(self) -> Any:
        """As of a dictionary."""
        return self.address_info.values()

    def items(self) -> Any:
        """As of a dictionary."""
        return self.address_info.items()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RayContext):
            return NotImplemented
        return repr(self) == repr(other) and self.address_info == other.address_info

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"RayContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, ray_commit={self.ray_commit!r})"
        )


_ADDRESS_INFO = (
    "node_ip_address",
    "redis_address",
    "object_store_address",
    "raylet_socket_name",
    "webui_url",
    "session_dir",
    "session_name",
    "metrics_export_port",
    "gcs_address",
    "address",
    "dashboard_agent_listen_port",
    "node_id",
)


def context_of_worker() -> RayContext:
    """What `init` returns in a task or actor, which has a session already and cannot leave it."""
    from miniray.messages.control import Query

    core = current.core_or_none()
    assert core is not None
    row = dict(core.head_client.request(lambda number: Query(number, "session")))
    row["node_id"] = core.node_id.hex()
    return RayContext(row, lambda: None)
