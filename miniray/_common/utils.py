"""Small functions that libraries and test suites take from ``ray._common.utils``."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import random
import string
import tempfile
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

_background: set[asyncio.Task[Any]] = set()


def env_integer(key: str, default: int) -> int:
    """An environment variable as an integer; `default` when it is unset or none."""
    try:
        return int(os.environ[key])
    except (KeyError, ValueError):
        return default


def env_float(key: str, default: float) -> float:
    """An environment variable as a float; `default` when it is unset or none."""
    try:
        return float(os.environ[key])
    except (KeyError, ValueError):
        return default


def env_bool(key: str, default: bool) -> bool:
    """Whether an environment variable is "1" or "true"; `default` when it is unset."""
    value = os.environ.get(key)
    return default if value is None else value.lower() in ("1", "true")


def binary_to_hex(identifier: bytes) -> str:
    """An id's bytes as hexadecimal digits."""
    return identifier.hex()


def hex_to_binary(hex_identifier: str) -> bytes:
    """The bytes of an id in hexadecimal digits."""
    return bytes.fromhex(hex_identifier)


def decode(byte_str: Any, allow_none: bool = False, encode_type: str = "utf-8") -> str:
    """Bytes as text; "" for None if that is allowed.

    Raises:
        ValueError: not bytes.
    """
    if byte_str is None and allow_none:
        return ""
    if not isinstance(byte_str, bytes):
        raise ValueError(f"The argument {byte_str} must be a bytes object.")
    return byte_str.decode(encode_type)


def import_module_and_attr(full_path: str, *, reload_module: bool = False) -> tuple[Any, Any]:
    """The module and the attribute that ``module:name`` or ``module.name`` stands for."""
    if full_path is None:
        raise TypeError("import path cannot be None")
    module_name, _, name = full_path.partition(":") if ":" in full_path else full_path.rpartition(".")
    module = importlib.import_module(module_name)
    if reload_module:
        importlib.reload(module)
    return module, getattr(module, name)


def import_attr(full_path: str, *, reload_module: bool = False) -> Any:
    """The attribute that ``module:name`` or ``module.name`` stands for."""
    return import_module_and_attr(full_path, reload_module=reload_module)[1]


def load_class(path: str) -> Any:
    """The class that ``module.name`` stands for.

    Raises:
        ValueError: there is no dot in it.
    """
    if "." not in path:
        raise ValueError("You need to pass a valid path like mymodule.provider_class")
    return import_attr(path)


def get_or_create_event_loop() -> asyncio.AbstractEventLoop:
    """The running event loop; else this thread's, which is made when there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    with warnings.catch_warnings():
        # Where the main thread has none, Python 3.12 and 3.13 make one and warn of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            loop = asyncio.get_event_loop()
            if not loop.is_closed():
                return loop
        except RuntimeError:
            pass
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def run_background_task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task on the running loop, and hold it until it is done."""
    task = get_or_create_event_loop().create_task(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


def get_random_alphanumeric_string(length: int) -> str:
    """Lower-case letters and digits, at random."""
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=length))


def get_call_location(back: int = 1) -> str:
    """``file:line`` of the caller, `back` frames further out."""
    frame: Any = inspect.currentframe()
    for _ in range(back + 1):
        frame = frame.f_back
        if frame is None:
            return "UNKNOWN"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def get_function_args(callable: Callable[..., Any]) -> list[str]:
    """The names of the parameters."""
    return list(inspect.signature(callable).parameters)


def get_default_system_temp_dir() -> str:
    """The folder for temporary files."""
    return tempfile.gettempdir()


def get_default_ray_temp_dir() -> str:
    """The folder under which the sessions of this user lie."""
    from miniray.system.session import session_root

    return session_root()


def try_to_create_directory(directory_path: str) -> None:
    """Make a folder unless it is there."""
    os.makedirs(os.path.expanduser(directory_path), exist_ok=True)


def get_system_memory(*args: Any, **kwargs: Any) -> int:
    """Bytes of memory that this machine, or this container, has."""
    from miniray.system.memory_usage import memory_usage  # only for this

    return memory_usage().total


def resources_from_ray_options(options_dict: dict[str, Any]) -> dict[str, Any]:
    """The resources that the options of a task or an actor ask for, by name.

    Raises:
        ValueError: CPUs, GPUs or memory among the custom ones.
    """
    resources = dict(options_dict.get("resources") or {})
    if "CPU" in resources or "GPU" in resources:
        raise ValueError("The resources dictionary must not contain the key 'CPU' or 'GPU'")
    if "memory" in resources or "object_store_memory" in resources:
        raise ValueError("The resources dictionary must not contain the key 'memory' or 'object_store_memory'")
    for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if options_dict.get(option) is not None:
            resources[name] = int(options_dict[option]) if option == "memory" else options_dict[option]
    if options_dict.get("accelerator_type") is not None:
        resources[f"accelerator_type:{options_dict['accelerator_type']}"] = 0.001
    return resources


def reset_ray_address(temp_dir: str | None = None) -> None:
    """Ray forgets the address of the newest cluster; here a session that has ended is not found anyway."""
