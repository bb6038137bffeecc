"""The functions at the top of the package: init, shutdown, remote, get, put, wait, cancel, nodes, ...

They check what the user gave, in Ray's words, and hand it to the current core worker.
"""

from __future__ import annotations

import atexit
import os
from _thread import RLock  # threading itself is not needed to import miniray
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from miniray import options as option_table
from miniray.exceptions import RaySystemError
from miniray.processes import auto_init, current, other_engine
from miniray.processes.auto_init import require_core
from miniray.processes.other_engine import handed_over
from miniray.refs import ObjectRef, RefGenerator
from miniray.remote_function import RemoteFunction, check_runtime_env

if TYPE_CHECKING:
    from miniray.init_context import RayContext, Session

_id_of = attrgetter("_id")
_session: Session | None = None
_context: RayContext | None = None
#: Held while a session is started or ended.
_lock = RLock()
_exit_hook_of = 0  #: the process that has an exit hook: a forked child needs its own
_inherited: list[Any] = []  #: what a forked child must neither use nor finalize


# ---- the session ----


def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | str | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: int | str = "info",
    logging_format: str | None = None,
    logging_config: Any = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: Any = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    proxy_server_url: str | None = None,
    **kwargs: Any,
) -> RayContext:
    """Connect to a running session, or start one.

    Without an address: the session of ``RAY_ADDRESS`` or ``MINIRAY_ADDRESS``, else this user's newest running head
    (`miniray start --head`, or a `Cluster`), else a new private session that ends with this process.

    Args:
        address: "local" (always a new one), "auto" (there must be one), a session's name, "127.0.0.1:PORT" or
            "ray://127.0.0.1:PORT".
        num_cpus: how many CPUs the session has; by default those of this machine. So many tasks run at once.
        num_gpus: how many GPUs; by default none.
        resources: custom resources, name to quantity.
        labels: labels of the node.
        object_store_memory: bytes of shared memory for objects (extension: "2GiB").
        local_mode: everything in this process, in threads: for debuggers, coverage and monkeypatching (extension; the
            environment variable ``MINIRAY_LOCAL_MODE=1`` asks for it, too).
        ignore_reinit_error: a second `init` is no error.
        logging_level: of the logger "miniray".
        log_to_driver: print what workers print (default True).
        namespace: where this job's named actors live; by default a namespace of its own.
        job_config: a `miniray.job_config.JobConfig`.
        logging_format: of the same logger.
        logging_config: a `LoggingConfig` for driver and workers.
        runtime_env: a dictionary or a `miniray.runtime_env.RuntimeEnv`.
        configure_logging: whether logging_level and logging_format have an effect.
        include_dashboard, dashboard_host, dashboard_port, enable_resource_isolation, cgroup_path,
            system_reserved_cpu, system_reserved_memory, proxy_server_url: as Ray.
        **kwargs: Ray's underscore parameters, and extensions: `memory` (bytes); ``engine="ray"``, which hands this and
            all further calls to the real Ray (the environment variable ``MINIRAY_ENGINE=ray`` does so, too).

    Returns:
        A context with the session's addresses; ``with miniray.init(): ...`` shuts down at the end.

    Raises:
        RuntimeError: `init` was called already; an unknown parameter.
        ConnectionError: there is no session at that address.
        ValueError, TypeError: a parameter of the wrong type or range.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.init.html
    """
    given = dict(locals())
    given.update(given.pop("kwargs"))
    if current._core is None and (kwargs.get("engine") or "MINIRAY_ENGINE" in os.environ or other_engine.engine):
        started = _start_elsewhere(given)
        if started is not None:
            return started  # type: ignore[no-any-return]
    from miniray import init_context  # only who starts a session pays for it

    global _session, _context
    with _lock:
        init_context.check_first(given)
        if is_initialized():
            if not ignore_reinit_error:
                raise RuntimeError(
                    "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
                    "'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'."
                )
            init_context.say_again()
            return _context if _context is not None else init_context.context_of_worker()
        shutdown()  # of a session that is lost
        session = _session = init_context.start_session(given)
        _context = init_context.RayContext(session.row, lambda: _leave(session))
        _at_exit_and_fork()
        return _context


def _start_elsewhere(given: dict[str, Any]) -> Any:
    """Start another engine if one is asked for; its context, or None."""
    named = given.pop("engine", None)
    if named is not None and option_table.strict_mode():
        raise RuntimeError("Unknown keyword argument(s): engine")
    if other_engine.engine is None and other_engine.chosen(named) != "ray":
        return None
    if is_initialized() and other_engine.engine is None:
        return None  # in local mode, which says so itself
    from inspect import signature

    from miniray import ray_engine  # imports Ray

    defaults = {name: parameter.default for name, parameter in signature(init).parameters.items()}
    return ray_engine.start({name: value for name, value in given.items() if value != defaults.get(name)})


@handed_over
def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """Leave the session, and end it with its processes and memory if this process started it. Without one: nothing.

    Args:
        wait_for_processes: has no effect: `shutdown` always waits until the processes that `init` started are gone.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.shutdown.html
    """
    global _session, _context
    if current.in_local_worker():
        return  # as in any worker: the session is its driver's
    with _lock:
        session, _session, _context = _session, None, None
        if session is None:
            return
        try:
            session.disconnect(_exiting_interpreter)
        finally:
            if current.core_or_none() is session.core:
                current.set_core(None)


def _leave(session: Session) -> None:
    if _session is session:
        shutdown()


def _at_exit_and_fork() -> None:
    global _exit_hook_of
    if _exit_hook_of == 0 and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    if _exit_hook_of != os.getpid():
        _exit_hook_of = os.getpid()
        atexit.register(_at_exit, os.getpid())


def _at_exit(pid: int) -> None:
    if os.getpid() == pid:
        shutdown(_exiting_interpreter=True)


def _after_fork() -> None:
    global _lock, _session, _context
    _lock = RLock()  # another thread may have held it
    _inherited.append((_session, _context))
    _session = _context = None


@handed_over
def is_initialized() -> bool:
    """Whether this process is connected to a session.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.is_initialized.html
    """
    core = current.core_or_none()
    return core is not None and not core.closed


# ---- remote ----


def remote(*args: Any, **kwargs: Any) -> Any:
    """Make a function a remote function, or a class an actor class.

    ``@remote`` or ``@remote(num_cpus=2, ...)``. A remote function is called with ``f.remote(...)``, which returns an
    `ObjectRef` at once.

    Raises:
        TypeError: what is decorated is neither function nor class; an option has the wrong type.
        ValueError: an unknown option, or one out of range.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.remote.html
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make_remote(args[0], {})
    option_table.check_remote_arguments(args, kwargs)

    def decorate(target: Any) -> Any:
        return _make_remote(target, kwargs)

    return decorate


def _make_remote(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, type):
        from miniray.actor import make_actor_class

        return make_actor_class(target, options)
    option_table.check_remote_target(target)
    return RemoteFunction(target, check_runtime_env(option_table.validate_task_options(options, in_options=False)))


# ---- objects ----


def get(object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """The value of a ref, or the list of values of a list of refs; waits for them.

    Args:
        object_refs: one ref, or a list of refs.
        timeout: seconds; None waits for ever, 0 takes what is there.

    Raises:
        GetTimeoutError: not all were ready in time.
        RayTaskError: the task raised; the error is an instance of the task's exception type, too.
        RayError: another error of the runtime.
        TypeError, ValueError: not a ref, or not a list of refs.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.get.html
    """
    core = current._core
    if core is None or core.closed or current.core_override.get() is not None:
        other = other_engine.other_engine()
        if other is not None:
            return other.get(object_refs, timeout=timeout)
        core = require_core()
    if core.actor is not None:
        core.actor.warn_of_blocking("get")
    if type(object_refs) is ObjectRef:
        if timeout is not None:
            timeout = _checked_timeout(timeout)
        return core.objects.waiting.get_one(object_refs, timeout)
    if isinstance(object_refs, ObjectRef):
        return core.objects.waiting.get_one(object_refs, _checked_timeout(timeout))
    if isinstance(object_refs, RefGenerator):
        return object_refs
    if not isinstance(object_refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must either be an ObjectRef or "
            "a list of ObjectRefs. "
        )
    for ref in object_refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"Attempting to call `get` on the value {ref}, which is not an ray.ObjectRef.")
    return core.objects.waiting.get(object_refs, _checked_timeout(timeout))


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"The 'timeout' argument must be a number of seconds or None. Received {timeout!r}")
    # Ray takes -1 for "no timeout" here.
    return None if timeout < 0 else float(timeout)


def put(value: Any, *, _owner: Any = None, _tensor_transport: Any = None) -> ObjectRef[Any]:
    """Store a value and return its ref. Values of more than 100 KiB go into shared memory, and are read from there
    without a copy.

    Raises:
        TypeError: the value is a ref, or cannot be serialized.
        ValueError: an `_owner` was given, which Ray has no more.
        ObjectStoreFullError: there is no room for it.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.put.html
    """
    core = current._core
    if core is None or core.closed or current.core_override.get() is not None:
        other = other_engine.other_engine()
        if other is not None:
            return other.put(value)  # type: ignore[no-any-return]
        core = require_core()
    if _owner is not None:
        raise ValueError("The experimental `_owner` argument to `ray.put` has been removed in Ray 2.56.")
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do this, you can wrap the "
            "ray.ObjectRef in a list and call 'put' on it."
        )
    return core.objects.put(value)


def wait(
    ray_waitables: Sequence[ObjectRef[Any]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Wait until `num_returns` of the refs are ready, or the time is over.

    Args:
        ray_waitables: a list of different refs.
        num_returns: how many to wait for; `ready` has at most so many.
        timeout: seconds; None waits for ever, 0 looks only.
        fetch_local: has no effect on one machine.

    Returns:
        The ready ones and the others, both in the order given.

    Raises:
        TypeError: not a list of refs.
        ValueError: duplicates, or `num_returns` out of range.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.wait.html
    """
    if current._core is None:
        other = other_engine.other_engine()
        if other is not None:
            return other.wait(  # type: ignore[no-any-return]
                ray_waitables, num_returns=num_returns, timeout=timeout, fetch_local=fetch_local
            )
    core = require_core()
    if core.actor is not None:
        core.actor.warn_of_blocking("wait")
    if isinstance(ray_waitables, (ObjectRef, RefGenerator)):
        raise TypeError(
            "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a single ray.ObjectRef or "
            f"ray.ObjectRefGenerator {ray_waitables}"
        )
    if not isinstance(ray_waitables, list):
        raise TypeError(f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got {type(ray_waitables)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    if not ray_waitables:
        return [], []
    only_refs = [*map(type, ray_waitables)].count(ObjectRef) == len(ray_waitables)
    if only_refs:  # the usual case, without a line of Python per ref
        distinct = len({*map(_id_of, ray_waitables)})
    else:
        for ref in ray_waitables:
            if not isinstance(ref, (ObjectRef, RefGenerator)):
                raise TypeError(
                    "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got list containing "
                    f"{type(ref)}"
                )
        distinct = len(set(ray_waitables))
    if distinct != len(ray_waitables):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(ray_waitables):
        raise ValueError("num_returns cannot be greater than the number of ray_waitables provided to ray.wait.")
    return core.objects.waiting.wait(ray_waitables, num_returns, timeout, only_refs)


@handed_over
def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that makes this object. No effect when it is done.

    Args:
        ray_waitable: a ref.
        force: kill the worker process instead of raising KeyboardInterrupt in it.
        recursive: also cancel the tasks that it has submitted.

    Raises:
        TypeError: not a ref.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.cancel.html
    """
    core = require_core()
    if isinstance(ray_waitable, RefGenerator):
        ray_waitable = ray_waitable._generator_ref
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            f"ray.cancel() only supported for object refs. For actors, try ray.kill(). Got: {type(ray_waitable)}."
        )
    core.tasks.cancel(ray_waitable, force, recursive)


# ---- what the session looks like ----


def _query(what: str, **arguments: Any) -> Any:
    from miniray.messages.control import Query

    core = current.core_or_none()
    if core is None or core.closed:
        if current.forked:
            require_core()  # says why not
        # These do not start a session, in Ray neither.
        raise RaySystemError("Ray has not been started yet. Trying to use state API before ray.init() has been called.")
    return core.head_client.request(lambda number: Query(number, what, arguments))


@handed_over
def nodes() -> list[dict[str, Any]]:
    """One row per virtual node, dead ones included, with Ray's keys.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.nodes.html
    """
    return _query("nodes")  # type: ignore[no-any-return]


@handed_over
def cluster_resources() -> dict[str, float]:
    """The resources of all living nodes together, by name.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.cluster_resources.html
    """
    return _query("cluster_resources")  # type: ignore[no-any-return]


@handed_over
def available_resources() -> dict[str, float]:
    """What of the resources is free now; what is used up is absent.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.available_resources.html
    """
    return _query("available_resources")  # type: ignore[no-any-return]


@handed_over
def get_gpu_ids() -> list[Any]:
    """The ids of the GPUs that the current task or actor may use; as numbers where they are numbers.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.get_gpu_ids.html
    """
    core = require_core()
    ids = (current.task_context.get() or core.main_context).accelerator_ids.get("GPU", [])
    return [int(identifier) if identifier.isdigit() else identifier for identifier in ids]


@handed_over
def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """When which task ran in which worker, in the format of Chrome's trace viewer (and of Perfetto).

    Args:
        filename: where to write it as JSON; None: it is returned.

    Raises:
        RuntimeError: there is no session.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.timeline.html
    """
    from miniray.chrome_trace import chrome_trace  # few programs ask

    if not is_initialized():
        raise RuntimeError("Ray has not been started yet. Timeline requires Ray to be initialized first.")
    events = chrome_trace(_query("task_reports")["events"], require_core().node_ip)
    if filename is None:
        return events
    import json

    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None


def _auto_start() -> None:
    with _lock:
        if not is_initialized():  # another thread may have been first
            init()


def _load_ray() -> Any:
    from miniray import ray_engine  # imports Ray

    return ray_engine.load()


auto_init.start = _auto_start
other_engine.load = _load_ray
