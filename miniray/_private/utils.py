"""Small functions that libraries and test suites take from ``ray._private.utils``."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniray._common.utils import (
    binary_to_hex,
    decode,
    env_bool,
    env_float,
    env_integer,
    get_or_create_event_loop,
    get_system_memory,
    hex_to_binary,
    import_attr,
    load_class,
    run_background_task,
)
from miniray._private.absent import absent_functions
from miniray.ids import TaskID
from miniray.refs import ObjectRef
from miniray.system import machine
from miniray.system.import_alias import RAY_VERSION

__all__ = [
    "binary_to_hex",
    "decode",
    "env_bool",
    "env_float",
    "env_integer",
    "get_num_cpus",
    "get_or_create_event_loop",
    "get_system_memory",
    "hex_to_binary",
    "import_attr",
    "load_class",
    "run_background_task",
]


def get_num_cpus(override_docker_cpu_warning: bool = False, truncate: bool = True) -> float:
    """How many CPUs a session gets when nothing is said."""
    return machine.cpu_count()


def get_user() -> str:
    """The name of the user."""
    return getpass.getuser()


def get_used_memory() -> int:
    """Bytes of memory in use, of this machine or of this container."""
    from miniray.system.memory_usage import memory_usage  # only for this

    return memory_usage().used


def estimate_available_memory() -> int:
    """Bytes of memory that are free."""
    return machine.free_memory()


def get_shared_memory_bytes() -> int:
    """The size of /dev/shm in bytes."""
    status = os.statvfs("/dev/shm")
    return status.f_frsize * status.f_blocks


def is_main_thread() -> bool:
    """Whether this is the main thread."""
    return threading.current_thread() is threading.main_thread()


def ensure_str(s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Text, from text or bytes."""
    return s if isinstance(s, str) else s.decode(encoding, errors)


def binary_to_object_ref(binary_object_ref: bytes) -> ObjectRef[Any]:
    """The ref with this id, which belongs to no session."""
    return ObjectRef(binary_object_ref)


def binary_to_task_id(binary_task_id: bytes) -> TaskID:
    """The id with these bytes."""
    return TaskID(binary_task_id)


def format_error_message(exception_message: str, task_exception: bool = False) -> str:
    """The text of an error; of a task's, without the lines of the traceback that are not the user's."""
    lines = exception_message.split("\n")
    if task_exception:
        lines = lines[:1] + lines[3:]
    return "\n".join(lines)


def split_address(address: str) -> tuple[str, str]:
    """Scheme and the rest of ``scheme://rest``.

    Raises:
        ValueError: there is no ``://``.
    """
    if "://" not in address:
        raise ValueError("Address must contain '://'")
    scheme, _, rest = address.partition("://")
    return scheme, rest


def compute_version_info() -> tuple[str, str]:
    """The versions of Ray and of Python."""
    return RAY_VERSION, ".".join(map(str, sys.version_info[:3]))


def get_ray_doc_version() -> str:
    """The version as Ray's documentation has it in its addresses."""
    return f"releases-{RAY_VERSION}"


def check_version_info(
    cluster_metadata: dict[str, str],
    this_process_address: str,
    raise_on_mismatch: bool = True,
    python_version_match_level: str | None = None,
) -> None:
    """RuntimeError unless a cluster's versions are this process's."""
    ray, python = compute_version_info()
    there = cluster_metadata["ray_version"], cluster_metadata["python_version"]
    if there == (ray, python):
        return
    text = (
        f"Version mismatch: The cluster was started with:\n    Ray: {there[0]}\n    Python: {there[1]}\n"
        f"This process on {this_process_address} was started with:\n    Ray: {ray}\n    Python: {python}\n"
    )
    if raise_on_mismatch:
        raise RuntimeError(text)


def validate_namespace(namespace: Any) -> None:
    """TypeError for what is no string, ValueError for an empty one."""
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def validate_actor_state_name(actor_state_name: str | None) -> None:
    """ValueError for what is no state of an actor."""
    names = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")
    if actor_state_name is not None and actor_state_name not in names:
        raise ValueError(
            f'"{actor_state_name}" is not a valid actor state name, it must be one of the following: '
            '"DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", or "DEAD"'
        )


def parse_pg_formatted_resources_to_original(pg_formatted_resources: dict[str, float]) -> dict[str, float]:
    """Resources of a placement group's bundles under their plain names."""
    plain: dict[str, float] = {}
    for name, quantity in pg_formatted_resources.items():
        before, group, _ = name.partition("_group_")
        if before == "bundle":
            continue
        plain[before if group else name] = quantity
    return plain


def get_entrypoint_name() -> str:
    """The command line of this process."""
    import psutil  # only for this

    return " ".join(psutil.Process().cmdline())


def check_oversized_function(pickled: bytes, name: str, obj_type: str, worker: Any) -> None:
    """ValueError for a pickled function or class of 100 MB or more."""
    limit = 100_000_000
    if len(pickled) >= limit:
        raise ValueError(
            f"The {obj_type} {name} is too large ({len(pickled) // (1024 * 1024)} MiB > "
            f"FUNCTION_SIZE_ERROR_THRESHOLD={limit // (1024 * 1024)} MiB). Check that its definition is not implicitly "
            "capturing a large array or other object in scope. Tip: use ray.put() to put large objects in the Ray "
            "object store."
        )


def get_directory_size_bytes(path: str | Path = ".") -> int:
    """The sizes of all files under a folder together, in bytes."""
    return sum(file.stat().st_size for file in Path(path).glob("**/*") if file.is_file())


def get_runtime_env_info(runtime_env: Any, *, is_job_runtime_env: bool = False, serialize: bool = False) -> Any:
    """A runtime environment as it travels: JSON here."""
    return runtime_env.serialize() if serialize else runtime_env


def parse_runtime_env_for_task_or_actor(runtime_env: Any) -> Any:
    """A dictionary as a `RuntimeEnv`, as the options of tasks and actors take it; None stays None."""
    from miniray.runtime_env.inheritance import own_environment

    return None if runtime_env is None else own_environment(runtime_env)


def set_sigterm_handler(sigterm_handler: Callable[..., Any]) -> None:
    """Call this function on SIGTERM."""
    signal.signal(signal.SIGTERM, sigterm_handler)


def set_omp_num_threads_if_unset() -> bool:
    """Whether OMP_NUM_THREADS was set here: miniray sets it in its workers."""
    return False


def try_to_create_directory(directory_path: str) -> None:
    """Make a folder unless it is there."""
    os.makedirs(os.path.expanduser(directory_path), exist_ok=True)


def try_to_symlink(symlink_path: str, target_path: str) -> None:
    """Make a symbolic link in place of one that is there."""
    link = os.path.expanduser(symlink_path)
    if os.path.islink(link):
        os.remove(link)
    try:
        os.symlink(os.path.expanduser(target_path), link)
    except OSError:
        pass


def publish_error_to_driver(error_type: str, message: str, gcs_client: Any = None, job_id: Any = None) -> None:
    """Ray shows this text at the driver; here it goes to standard error, which reaches the driver."""
    print(f"{error_type}: {message}", file=sys.stderr)


def push_error_to_driver(worker: Any, error_type: str, message: str, job_id: Any = None) -> None:
    """The same."""
    publish_error_to_driver(error_type, message)


class DeferSigint:
    """A context in which Ctrl-C waits until its end (in the main thread)."""

    def __init__(self) -> None:
        self._pending: list[tuple[Any, ...]] = []
        self._before: Any = None

    @classmethod
    def create_if_main_thread(cls) -> Any:
        """It, or an empty context in other threads."""
        import contextlib

        return cls() if is_main_thread() else contextlib.nullcontext()

    def __enter__(self) -> DeferSigint:
        self._before = signal.signal(signal.SIGINT, lambda *given: self._pending.append(given))
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        if self._pending and callable(self._before):
            self._before(*self._pending[0])


__getattr__ = absent_functions(
    "ray._private.utils",
    "detect_fate_sharing_support set_kill_on_parent_death_linux set_kill_child_on_death_win32 get_conda_bin_executable "
    "get_conda_env_dir internal_kv_get_with_retry internal_kv_put_with_retry internal_kv_list_with_retry open_log "
    "get_wheel_filename get_master_wheel_url get_release_wheel_url read_ray_address write_ray_address "
    "resolve_object_store_memory parse_resources_json parse_metadata_json get_visible_accelerator_ids "
    "set_visible_accelerator_ids reset_visible_accelerator_env_vars update_envs get_cgroup_used_memory",
)
