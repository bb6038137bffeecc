"""The hook of a runtime environment, which each worker calls before its first task.

It travels in an environment variable, so that tasks and actors with environments of their own inherit it, as in Ray: an
import path, or the name under which the session keeps a pickled function.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from typing import Any

HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
_FUNCTION = "ray_runtime_env_func::"


class SetupHookError(Exception):
    """The hook is missing, or raised."""


def save_hook(session_dir: str, pickled: bytes) -> str:
    """Keep a function for the workers of this session; what `HOOK_VARIABLE` is to say."""
    name = hashlib.sha256(pickled).hexdigest()
    folder = os.path.join(session_dir, "runtime_resources", "hooks")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    building = os.path.join(folder, f".{name}-{os.getpid()}")
    with open(building, "wb") as file:
        file.write(pickled)
    os.rename(building, os.path.join(folder, name))
    return _FUNCTION + name


def run_hook(named: str, session_dir: str) -> None:
    """Call the hook.

    Raises:
        SetupHookError: with its traceback.
    """
    import traceback  # only jobs with a hook come here

    try:
        _load(named, session_dir)()
    except BaseException:
        if named.startswith(_FUNCTION):
            text = "Failed to execute the setup hook method. Function name:None"
        else:
            text = (
                f"Failed to execute the setup hook method, {named} from ``ray.init(runtime_env="
                f"{{'worker_process_setup_hook': {named}}})``. Please make sure the given module exists and is "
                "available from ray workers. For more details, see the error trace below."
            )
        raise SetupHookError(f"{text}\n{traceback.format_exc()}") from None


def _load(named: str, session_dir: str) -> Callable[[], Any]:
    if named.startswith(_FUNCTION):
        with open(os.path.join(session_dir, "runtime_resources", "hooks", named[len(_FUNCTION) :]), "rb") as file:
            return pickle.load(file)  # type: ignore[no-any-return]
    import importlib

    module, separator, function = named.replace(":", ".").rpartition(".")
    if not separator:
        raise ValueError(f"{named} does not name a function: it has to be module.function")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
