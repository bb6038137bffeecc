"""Under Ray's name ``ray._private.worker``: the functions of the top level, and `global_worker`."""

from __future__ import annotations

from typing import Any

import miniray
from miniray._private.global_worker import SCRIPT_MODE, WORKER_MODE, Worker, global_worker
from miniray.actor import get_actor, kill
from miniray.api import cancel, get, get_gpu_ids, init, is_initialized, put, remote, shutdown, wait
from miniray.init_context import BaseContext, RayContext

__all__ = [
    "RESTORE_WORKER_MODE",
    "SCRIPT_MODE",
    "SPILL_WORKER_MODE",
    "WORKER_MODE",
    "BaseContext",
    "RayContext",
    "Worker",
    "cancel",
    "disconnect",
    "get",
    "get_actor",
    "get_dashboard_url",
    "get_gpu_ids",
    "global_worker",
    "init",
    "is_initialized",
    "kill",
    "put",
    "remote",
    "shutdown",
    "wait",
]

SPILL_WORKER_MODE = 2
RESTORE_WORKER_MODE = 3
RAY_JOB_CONFIG_JSON_ENV_VAR = "RAY_JOB_CONFIG_JSON_ENV_VAR"
RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR = "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC"

#: Libraries put functions here that Ray calls after `init`; miniray calls none.
_post_init_hooks: list[Any] = []


def get_dashboard_url() -> str:
    """Where the dashboard is, "" without one."""
    node = global_worker.node
    return node.webui_url if node is not None else ""


def disconnect(exiting_interpreter: bool = False) -> None:
    """Leave the session."""
    shutdown(_exiting_interpreter=exiting_interpreter)


def print_worker_logs(data: dict[str, Any], print_file: Any) -> None:
    """Print lines of a worker as the driver does."""
    for line in data.get("lines", ()):
        name = data.get("actor_name") or data.get("task_name") or ""
        prefix = f"({name} pid={data.get('pid')}) " if name else f"(pid={data.get('pid')}) "
        print(prefix + line, file=print_file)


def __getattr__(name: str) -> Any:
    if name == "_global_node":
        return global_worker.node
    if hasattr(miniray, name) and not name.startswith("_"):
        return getattr(miniray, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
