"""``ray.worker``: the old name of ``ray._private.worker``, which some libraries still use."""

from miniray._private.worker import (
    SCRIPT_MODE,
    WORKER_MODE,
    Worker,
    cancel,
    get,
    get_actor,
    get_gpu_ids,
    global_worker,
    init,
    is_initialized,
    kill,
    put,
    remote,
    shutdown,
    wait,
)

__all__ = [
    "SCRIPT_MODE",
    "WORKER_MODE",
    "Worker",
    "cancel",
    "get",
    "get_actor",
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
