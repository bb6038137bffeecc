"""What processes are told when they are started: not ZeroMQ messages, but lines on the life line and the fork server's
pipe.

`HeadConfig` goes from the starter to the head as the first line of its life line, `HeadReady` (or `HeadFailed`) comes
back. The `Spawn...` structs are the conversation of head and fork server: one JSON line each.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from miniray.messages.objects import Address


class HeadConfig(Struct, omit_defaults=True):
    """Starter to head: what to be. Memory in bytes; None: Ray's default. `driver_id`: whose life line this is, b"" for
    nobody's.
    """

    version: str
    driver_id: bytes = b""
    private: bool = True  #: ends with its driver; else it survives its drivers
    guarded: bool = False  #: shared, and ends with the process that started it (`cluster_utils.Cluster`)
    transport: str = "ipc"
    start_method: str = "fork"
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    object_store_memory: int | None = None
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    port: int = 0  #: the TCP port to own; 0: any
    port_required: bool = False  #: a busy port is an error, and not a reason to take another one
    prestart: int = -1  #: workers to fork at once; -1: one per CPU, two at most
    preload: list[str] = []  #: modules the fork server imports, besides what every worker needs
    namespace: str = ""
    storage: str = ""  #: a directory for the tables that outlives the session
    reconnect_s: float = 0.0  #: seconds that drivers and workers wait for a new head when this one is gone; 0: none
    epoch: int = 1  #: counts the heads of this session
    head_id: bytes = b""  #: of the head whose place this one takes
    node_id: bytes = b""
    system_config: dict[str, Any] = {}  #: `_system_config` of `init`: plain data
    spill_to: str = ""  #: where objects are spilled to; "": the session's directory
    worker_target: str = "miniray.processes.worker:main"  #: what a worker process runs; tests put one of their own
    # Filled in by `start_head`:
    session_dir: str = ""
    session_name: str = ""
    store_dir: str = ""
    token: bytes = b""


class HeadReady(Struct, omit_defaults=True):
    """Head to starter: my inbox is bound. `lifeline` is where other drivers connect theirs."""

    address: Address
    epoch: int
    pid: int
    port: int
    node_id: bytes
    lifeline: str
    workers: list[bytes] = []


class HeadFailed(Struct):
    """Head to starter: I cannot start, and this is why."""

    error: str


class ForkServerConfig(Struct):
    """Head to a fork server that was exec'd, first line: what to import, how to start, what to remove at the end."""

    preload: list[str]
    start_method: str
    session_dir: str  #: "": the session does not end with this one, which serves one runtime environment
    store_dir: str
    patience: float = 0.0  #: seconds to wait for another head when this one is gone


class EnvironmentRequest(Struct, omit_defaults=True):
    """Head to a set-up process, first line: make this runtime environment."""

    runtime_env: str  #: JSON
    session_dir: str
    cache_dir: str  #: where virtual environments are kept over sessions
    as_ray: bool = False  #: a plugin's ``import ray`` is to give miniray


class EnvironmentPlan(Struct, omit_defaults=True):
    """How the workers of a runtime environment are started; a set-up process to the head, its only line.

    `error`: there is no such environment, and why.
    """

    env: dict[str, str] = {}
    working_dir: str = ""
    import_path: list[str] = []
    command: str = ""  #: a shell command that stands for Python; "": forked as ever
    prefix: str = ""  #: what the shell runs before it, with ``&&`` at its end
    lock: str = ""  #: a file to hold a shared lock on, as long as workers of it may be started
    error: str = ""


class SpawnProcess(Struct, tag=True, omit_defaults=True):
    """Head to fork server: fork a process that calls ``target(payload)`` ("module:function") with these logs and
    variables.
    """

    key: bytes  #: the worker id
    target: str
    payload: bytes
    title: str
    out: str
    err: str
    env: dict[str, str] = {}  #: ``${NAME}`` in a value stands for what that variable is before
    fresh: bool = False  #: not forked: a variable among these counts only when an interpreter starts


class SignalProcess(Struct, tag=True):
    """Head to fork server: send this signal to the process, if it still runs."""

    key: bytes
    signal: int


class PreloadModules(Struct, tag=True):
    """Head to fork server: import these before the next fork; a module that is missing is skipped."""

    modules: list[str]


class EndForkServer(Struct, tag=True):
    """Head to fork server: the session ends. Kill what is left, and do not wait for another head."""


class ProcessStarted(Struct, tag=True):
    """Fork server to head: forked."""

    key: bytes
    pid: int


class ProcessExited(Struct, tag=True):
    """Fork server to head: reaped. `exit_code` as in multiprocessing: minus the signal when one ended it. pid 0: never
    started, see `error`.
    """

    key: bytes
    pid: int
    exit_code: int
    error: str = ""


class ChildrenTold(Struct, tag=True):
    """Fork server to a new head, after `ProcessStarted` for all that run, and the last `ProcessExited`."""


ToForkServer = SpawnProcess | SignalProcess | PreloadModules | EndForkServer
FromForkServer = ProcessStarted | ProcessExited | ChildrenTold
