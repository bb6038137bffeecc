"""The conversation with the head: registration, tables, leases, resources, nodes, life and death.

Requests carry a `request_id` of the sender's and are answered by one message with the same number; they may be sent
again after a reconnect, and the head answers a repeated one without doing it twice.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from miniray.messages.durable import Change
from miniray.messages.objects import Address
from miniray.messages.tasks import FunctionExport, TaskPush, WorkerAddress


class Hello(Struct, array_like=True, tag=40):
    """Any process to any other, first on each new connection: who I am, where my inbox is, which version I speak."""

    address: Address
    version: str
    kind: str  #: "driver", "worker" or "head"
    pid: int


class Goodbye(Struct, array_like=True, tag=41):
    """Any process to any other, last on a connection: I leave in good order, nothing of mine is on its way any more."""

    worker_id: bytes
    reason: str = ""


class RegisterDriver(Struct, array_like=True, tag=42):
    """Driver to head: open a job for me."""

    request_id: int
    pid: int
    entrypoint: str
    namespace: str
    config: dict[
        str, Any
    ]  #: cwd, sys_path, script_dir, argv0, runtime_env, log_to_driver, metadata, strict, ... (plain data)
    session_resources: dict[str, int] | None = None


class DriverRegistered(Struct, array_like=True, tag=43):
    """Head to driver: the answer to `RegisterDriver`."""

    request_id: int
    job_id: bytes
    node_id: bytes
    namespace: str
    session: dict[str, Any]  #: session_name, session_dir, gcs_address, node_ip, store_dir, temp dir, ... (plain data)
    error: str = ""


class RegisterWorker(Struct, array_like=True, tag=44):
    """Worker to head: my inbox is bound, I can be leased."""

    address: Address
    pid: int
    node_id: bytes


class LeaseSpec(Struct, array_like=True, frozen=True, gc=False):
    """What a lease must offer; part of `LeaseDemand`. Quantities are in units of 1/10000."""

    resources: dict[str, int]
    job_id: bytes
    runtime_env: str = ""  #: canonical JSON, "" for none
    strategy: bytes = b""  #: msgpack of the scheduling strategy, b"" for DEFAULT
    label_selector: dict[str, str] = {}
    placement_group_id: bytes = b""
    bundle_index: int = -1
    name: str = ""  #: for messages about infeasible demand
    fallback_selectors: list[dict[str, str]] = []  #: label selectors for when no node with the first one has room
    retriable: bool = True  #: its tasks run again (its actor restarts) when their worker is killed for want of memory


class LeaseDemand(Struct, array_like=True, tag=45):
    """Owner to head: I want `count` more leases of this class (absolute: replaces what I said before; 0 withdraws)."""

    class_id: int  #: the owner's number for this scheduling class
    spec: LeaseSpec | None  #: None: same as before
    count: int
    depth: int = 0  #: nesting depth of the tasks that wait: deeper ones go first
    owner_node: bytes = b""  #: where it is to run if there is room: the owner's, or where large arguments lie
    forget: bool = False  #: this number is void, until a spec comes with it again


class LeaseGranted(Struct, array_like=True, tag=46):
    """Head to owner: this worker is yours until you return it. `accelerator_ids` are the devices that go with it."""

    class_id: int
    lease_id: int
    worker: WorkerAddress
    accelerator_ids: dict[str, list[str]] | None = None


class LeaseRefused(Struct, array_like=True, tag=47):
    """Head to owner: this class can never be served: `error` names an exception of `miniray.exceptions`, `message`
    its text.
    """

    class_id: int
    error: str
    message: str


class RevokeLease(Struct, array_like=True, tag=48):
    """Head to owner: others wait; give this lease back after its current task."""

    lease_id: int


class ReturnLease(Struct, array_like=True, tag=49):
    """Owner to head: I need this worker no more; `worker_exiting`: it said that it leaves (max_calls)."""

    lease_id: int
    worker_exiting: bool = False


class WorkerBlocked(Struct, array_like=True, tag=50):
    """Worker to head: my task waits in `get`: its CPUs are free until `WorkerUnblocked`."""

    blocked: bool


class ReserveMemory(Struct, array_like=True, tag=51):
    """Any process to head: may I fill so many more bytes of the object store of my node? Answered by `Reply`.

    `patient`: when there is no room, others are asked first to give back what they do not need.
    """

    request_id: int
    node_id: bytes
    size: int
    patient: bool = False


class ReleaseMemory(Struct, array_like=True, tag=52):
    """Any process to head: so many bytes of my reservation go back. `trimmed`: that was all, in answer to the
    `TrimMemory` with that token.
    """

    node_id: bytes
    size: int
    trimmed: int = 0


class TrimMemory(Struct, array_like=True, tag=76):
    """Head to a process that has reserved memory: others need it, give back what serves no object (`ReleaseMemory`).

    `spill`: if those are fewer bytes than this, move objects to disk besides.
    """

    token: int
    spill: int = 0


class TablePut(Struct, array_like=True, tag=53):
    """Any process to head: write a row and publish it. `table` is a `TablePrefix` number. Answered by `Reply` (True:
    the key was new) if request_id > 0; where there is a durable path, once the row would survive the head.
    """

    request_id: int
    table: int
    key: bytes
    value: bytes
    namespace: bytes = b""
    overwrite: bool = True
    publish: bool = True
    sync: bool = False  #: answered only once it is on the disk


class TableGet(Struct, array_like=True, tag=54):
    """Any process to head: read one row; `wait` holds the answer back until the row exists. Answered by `Reply`
    (bytes or None).
    """

    request_id: int
    table: int
    key: bytes
    namespace: bytes = b""
    wait: bool = False


class TableDelete(Struct, array_like=True, tag=55):
    """Any process to head: delete a row, or all rows whose key begins with `key`. Answered by `Reply` (the number
    deleted).
    """

    request_id: int
    table: int
    key: bytes
    namespace: bytes = b""
    by_prefix: bool = False


class TableScan(Struct, array_like=True, tag=56):
    """Any process to head: all rows whose key begins with `prefix`. Answered by `Reply` (list of [key, value], or of
    keys).
    """

    request_id: int
    table: int
    prefix: bytes = b""
    namespace: bytes = b""
    keys_only: bool = False
    limit: int = 0


class Query(Struct, array_like=True, tag=57):
    """Any process to head: a question about the session by name ("nodes", "cluster_resources",
    "available_resources", "jobs", "status", ...). Answered by `Reply` (plain data).
    """

    request_id: int
    what: str
    arguments: dict[str, Any] = {}


class Reply(Struct, array_like=True, tag=58):
    """Head to the asker: the answer to a request; `error` names an exception of `miniray.exceptions` (or a built-in
    one), `value` its text then.
    """

    request_id: int
    value: Any = None
    error: str = ""


class Subscribe(Struct, array_like=True, tag=59):
    """Any process to head: send me `Published` for this channel (a `TablePubsub` number) and key (None: all keys).
    `acknowledges`: I say `PublishedHandled` after each batch, and get the next one then.
    """

    channel: int
    key: bytes | None = None
    acknowledges: bool = False


class Unsubscribe(Struct, array_like=True, tag=60):
    """Any process to head: no longer."""

    channel: int
    key: bytes | None = None


class Published(Struct, array_like=True, tag=61):
    """Head to subscriber: an event of a channel. `sequence` counts per channel, so that a gap is seen."""

    channel: int
    key: bytes
    sequence: int
    value: bytes


class PublishedHandled(Struct, array_like=True, tag=120):
    """Subscriber to head: I have handled what you sent me; what has piled up meanwhile may follow."""


class WatchTable(Struct, array_like=True, tag=121):
    """Any process to head: send me `TableChanges` of this table, of rows whose key begins with `prefix`, once they
    are persisted. Answered by `Reply` (the number after which it begins).

    `since`: the first change comes after this number; None: after the cursor of a durable consumer, else from now on.
    """

    request_id: int
    consumer: str  #: a name of the sender's; of the session, if it is durable
    table: int
    since: int | None = None
    prefix: bytes = b""
    namespace: bytes | None = None  #: None: of all
    limit: int = 10_000
    policy: str = "spill"
    every: int = 10
    durable: bool = False  #: the head keeps its cursor, also over restarts


class TableChanges(Struct, array_like=True, tag=122):
    """Head to watcher: what happened, in order. The next ones follow after `ChangesHandled`."""

    consumer: str
    changes: list[Change]
    dropped: int  #: so far


class ChangesHandled(Struct, array_like=True, tag=123):
    """Watcher to head: I have done with all changes up to this number."""

    consumer: str
    sequence: int


class StopWatching(Struct, array_like=True, tag=124):
    """Watcher to head: no more of it. A durable consumer's cursor stays."""

    consumer: str


class WorkerDied(Struct, array_like=True, tag=62):
    """Head to everybody who leased, owns, borrows from or watches that process: it is gone.

    `expected`: it said Goodbye. Otherwise the notice takes effect once the inbox was read dry twice: replies of the
    dead may still come.
    """

    worker_id: bytes
    node_id: bytes
    pid: int
    expected: bool
    exit_type: str  #: Ray's WorkerExitType: INTENDED_USER_EXIT, SYSTEM_ERROR, ...
    detail: str  #: for the error's text
    node_died: bool = False
    exit_signal: int = 0  #: the signal that ended it, 0: none
    exit_code: int | None = None
    log_files: list[str] = []
    out_of_memory: bool = False
    last_begun: bytes = b""  #: the task (and attempt) that it began last, see `system.task_record`; b"": not known


class WatchWorker(Struct, array_like=True, tag=63):
    """Any process to head: tell me by `WorkerDied` when this process dies (at once, if it already did)."""

    worker_id: bytes


class NodeDied(Struct, array_like=True, tag=77):
    """Head to everybody: this node is gone, its processes (each has a `WorkerDied` of its own) and its objects."""

    node_id: bytes


class CollectGarbage(Struct, array_like=True, tag=78):
    """Any process to head, and head to everybody: run Python's garbage collector, soon and in the background."""


class Exit(Struct, array_like=True, tag=64):
    """Head (or a worker's owner) to worker: leave; `force`: without finishing, atexit handlers or flush; `drain`: not
    before nobody needs the objects that it owns.
    """

    reason: str
    force: bool = False
    drain: bool = False


class AddNode(Struct, array_like=True, tag=65):
    """`Cluster.add_node` to head: one more virtual node. Answered by `Reply` (the node's row)."""

    request_id: int
    resources: dict[str, int]
    labels: dict[str, str] = {}
    object_store_memory: int = 0
    name: str = ""


class RemoveNode(Struct, array_like=True, tag=66):
    """`Cluster.remove_node` to head: kill this node's processes, lose its objects. Answered by `Reply`."""

    request_id: int
    node_id: bytes
    graceful: bool = False


class StopSession(Struct, array_like=True, tag=67):
    """Driver of a private session, or `miniray stop`, to head: end everything. Answered by `Reply` before the head
    goes, if request_id > 0.
    """

    request_id: int
    force: bool = False


class Warn(Struct, array_like=True, tag=69):
    """Head to driver: a line for the user (infeasible demand, a worker that died unexpectedly, ...)."""

    message: str
    level: int = 30


# ---- actors ----

#: `ActorState.state`, Ray's five
DEPENDENCIES_UNREADY = "DEPENDENCIES_UNREADY"
PENDING_CREATION = "PENDING_CREATION"
ALIVE = "ALIVE"
RESTARTING = "RESTARTING"
DEAD = "DEAD"


class ActorSpec(Struct, array_like=True):
    """All that the head needs to create an actor, and to create it again; part of `CreateActor`."""

    actor_id: bytes
    job_id: bytes
    owner: Address
    class_name: str
    name: str  #: "" for an unnamed one
    namespace: str
    detached: bool
    max_restarts: int  #: -1: for ever
    placement: LeaseSpec  #: what must be free for it to start
    resources: dict[str, int]  #: what it holds while it lives, units of 1/10000
    export: FunctionExport
    creation: TaskPush
    descriptor: bytes  #: what another process needs to make a handle, opaque to the head
    get_if_exists: bool = False
    qualified_name: str = ""  #: of the class, for the state API


class CreateActor(Struct, array_like=True, tag=70):
    """Owner to head: create this actor. Answered by `Reply` if request_id > 0.

    The value is None, or for `get_if_exists` [actor_id, owner's worker id and endpoint, descriptor] of the one that
    has the name; error ValueError: the name is taken.
    """

    request_id: int
    spec: ActorSpec


class ActorOutOfScope(Struct, array_like=True, tag=71):
    """Owner to head: no handle is left anywhere: let the actor end once the calls that were sent to it have run."""

    actor_id: bytes


class KillActor(Struct, array_like=True, tag=72):
    """Any process to head: kill the actor's process. Answered by `Reply` (False: there is no such actor) if
    request_id > 0.
    """

    request_id: int
    actor_id: bytes
    no_restart: bool


class WatchActor(Struct, array_like=True, tag=73):
    """Any process to head: send me `ActorState` now and whenever it changes; `watch=False`: no longer."""

    actor_id: bytes
    watch: bool = True


class ActorState(Struct, array_like=True, tag=74):
    """Head to the owner and to those who watch: where the actor is, or why it is dead.

    `incarnation` counts its processes from 0; sequence numbers of calls begin anew with each. `cause` is plain data,
    for `miniray.death_causes`. `error` is the pickled error of a constructor that raised.
    """

    actor_id: bytes
    state: str
    incarnation: int
    worker: WorkerAddress | None = None
    cause: dict[str, Any] | None = None
    error: bytes | None = None


class ExitActor(Struct, array_like=True, tag=75):
    """Head to the actor's worker: end in good order once the queued calls have run (out of scope), `reason` says
    why.
    """

    actor_id: bytes
    reason: str
    interrupt: bool = False  #: not after the queued calls, but now: the running one is interrupted
