"""What a worker is told when it is started: by the fork server as an argument, by the spawn fallback through a pipe."""

from __future__ import annotations

from msgspec import Struct

from miniray.messages.objects import Address


class WorkerConfig(Struct, frozen=True):
    """Everything a new worker needs to reach its head; ``miniray.processes.worker.main`` takes one."""

    session_name: str
    session_dir: str
    socket_dir: str  #: where the ipc socket of its inbox goes; "" over TCP
    log_dir: str
    spill_dir: str
    store_dir: str  #: shared memory of the session
    worker_id: bytes
    node_id: bytes
    head: Address
    lifeline: str  #: for `system.lifeline.connect`
    transport: str  #: "ipc" or "tcp"
    start_method: str  #: "fork" or "spawn"
    token: bytes
    version: str
    epoch: int
    out_file: str  #: file descriptors 1 and 2 are these already
    err_file: str
    node_ip: str = "127.0.0.1"
    reconnect_s: float = 0.0  #: seconds to wait for another head when this one is gone
    runtime_env: str = ""  #: the environment it is for, JSON
    working_dir: str = ""  #: where it runs; "": in the driver's
    import_path: list[str] = []  #: to import from before all else
    oom_retries: int = -1  #: how often its tasks run again when their worker was killed for want of memory
    disk_threshold: float = 1.0  #: nothing is spilled to a disk that is fuller than this share
