"""What owners and workers say about tasks and actor calls.

The submitter of a task owns its returns. It gets a lease on a worker from the head, then pushes tasks to that worker
directly. A push to an actor carries a sequence number per (caller, actor incarnation); the receiver executes in that
order. Fields that only some tasks use have defaults and stand last.
"""

from __future__ import annotations

from msgspec import Struct

from miniray.messages.objects import Address, Payload

#: `TaskPush.kind`
NORMAL_TASK = 0
ACTOR_CREATION_TASK = 1
ACTOR_TASK = 2

#: `TaskReply.status`
FINISHED = 0  #: `returns` hold the values
FAILED = 1  #: the task raised: every return holds the error; retried when `retryable`
REFUSED = 2  #: the task never started here (cancelled, worker leaving, function missing): see `error`
CANCELLED = 3


class RefArgument(Struct, array_like=True, gc=False):
    """A top-level ObjectRef argument with its value; part of `TaskPush`. `key` is the position (int) or the keyword
    (str).
    """

    key: int | str
    object_id: bytes
    payload: Payload
    owner: Address | None = None  #: None: who pushes the task


class FunctionExport(Struct, array_like=True, tag=20):
    """Owner to worker, before the first push that needs it: a pickled function or class, found under `function_id`
    from now on.

    `token` is the RemoteFunction's own id, which lets a worker that calls the function again pass on these very bytes;
    `sys_path` is the exporter's import path at that moment.
    """

    function_id: bytes
    token: bytes
    payload: Payload
    sys_path: list[str]
    job_id: bytes
    actor_class: str = ""  #: the name of a class


class TaskPush(Struct, array_like=True, tag=21):
    """Owner to worker: run this. `sequence_number` counts per caller and actor (0 for normal tasks, which have no
    order).
    """

    task_id: bytes
    kind: int
    function_id: bytes
    job_id: bytes
    arguments: Payload | None  #: pickled (args, kwargs); None: no arguments
    num_returns: int
    name: str
    sequence_number: int = 0
    client_processed_up_to: int = -1
    attempt: int = 0
    depth: int = 0
    parent_task_id: bytes = b""
    lease_id: int = 0
    ref_arguments: list[RefArgument] | None = None
    method: str = ""
    options: bytes = b""  #: rarely used settings, msgpack of `TaskExtras`
    deadline: float = 0.0  #: seconds since the epoch; 0: none
    created: float = 0.0  #: when it was submitted, seconds since the epoch


class TaskExtras(Struct, array_like=True, omit_defaults=True):
    """Rarely used settings of a task; part of `TaskPush.options`, so that the common push stays small."""

    retry_exceptions: bool = False
    retry_exception_types: bytes = b""  #: pickled tuple of exception types, when retry_exceptions was a list
    max_calls: int = 0
    resources: dict[str, int] | None = None  #: units of 1/10000; None: a plain task's one CPU
    accelerator_ids: dict[str, list[str]] = {}
    placement_group_id: bytes = b""
    concurrency_group: str = ""
    max_concurrency: int = 0  #: (creation) 0: by the kind of actor
    concurrency_groups: dict[str, int] = {}  #: (creation)
    out_of_order: bool = False  #: (creation)
    actor_name: str = ""  #: (creation)
    generator: str = ""  #: "streaming" or "dynamic"
    generator_backpressure: int = -1
    trace: bytes = b""
    timeout: float = 0.0  #: seconds that the task may run; 0: no limit
    captures_children: bool = False  #: what it submits runs in its placement group
    task_events: bool = True  #: the state API and the timeline show it (of an actor: all its calls)


class TaskReply(Struct, array_like=True, tag=22):
    """Worker to owner: a pushed task is done. `duration` is the seconds it ran, from which the owner learns how many
    to send ahead.
    """

    task_id: bytes
    status: int
    returns: list[Payload]
    duration: float
    retryable: bool = False
    attempt: int = 0
    kept: list[bytes] | None = None  #: borrowed refs whose pins the owner must hold until `ReleasePins`
    unacknowledged: bool = False  #: `returns` contain refs which the worker pins until `AcknowledgeReplies`
    worker_exiting: bool = False  #: the worker leaves after this one (max_calls, exit)
    error: str = ""


class StealTasks(Struct, array_like=True, tag=23):
    """Owner to worker: give back up to `count` of my pushed tasks that have not started, last ones first."""

    count: int


class TasksReturned(Struct, array_like=True, tag=24):
    """Worker to owner: these pushed tasks did not start and will not start here (stolen, or the worker blocked in
    `get`).
    """

    task_ids: list[bytes]
    blocked: bool


class CancelTask(Struct, array_like=True, tag=25):
    """Owner to worker: stop this task: drop it if queued, interrupt it if it runs, exit if `force`."""

    task_id: bytes
    force: bool
    recursive: bool


class RequestCancel(Struct, array_like=True, tag=26):
    """Borrower to owner: cancel the task that makes this object."""

    object_id: bytes
    force: bool
    recursive: bool


class ReleasePins(Struct, array_like=True, tag=27):
    """Worker to owner: the refs kept from this task's arguments are registered with their owners; unpin them."""

    task_id: bytes


class AcknowledgeReplies(Struct, array_like=True, tag=28):
    """Owner to worker: the refs inside the returns of these tasks are registered; unpin them."""

    task_ids: list[bytes]


class SkipSequence(Struct, array_like=True, tag=29):
    """Caller to actor: no call will come under this sequence number (cancelled, or its dependency failed)."""

    actor_id: bytes
    sequence_number: int
    client_processed_up_to: int = -1


class LogLines(Struct, array_like=True, tag=30):
    """Worker to its job's driver: lines that were printed there. `name` is the task's or actor's for the prefix.

    `offset`: how far its log file has been told with this, from where on the driver reads what a dead worker left.
    """

    name: str
    pid: int
    stderr: bool
    lines: list[str]
    actor_repr: str = ""
    offset: int = 0


class GeneratorItem(Struct, array_like=True, tag=31):
    """Worker to owner: the generator task yielded item number `index`; `total` >= 0 says that it ended with so many."""

    task_id: bytes
    index: int
    payload: Payload | None
    total: int = -1
    attempt: int = 0


class GeneratorCredit(Struct, array_like=True, tag=32):
    """Owner to worker: items up to `consumed` were taken, for back-pressure; -1: nobody wants more."""

    task_id: bytes
    consumed: int


class WorkerAddress(Struct, array_like=True, gc=False):
    """A leased worker; part of `control.LeaseGranted`."""

    address: Address
    node_id: bytes
    pid: int
