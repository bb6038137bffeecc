"""What the durable path writes and hands back: not ZeroMQ messages, but frames of the journal on disk.

The head writes a `Record` for every write to a table; after its death the next head reads them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from miniray.messages.tasks import WorkerAddress


class Record(Struct, array_like=True, gc=False):
    """Head to journal: this row was written (`value` None: deleted), the `sequence`-th write of this session.

    `sender`, `request_id` and `answer`: the request that it answers, so that a request which is sent again to the next
    head is not carried out twice. `is_change`: False for a row that was there when the journal was opened.
    """

    sequence: int
    table: int
    namespace: bytes
    key: bytes
    value: bytes | None
    sender: bytes = b""
    request_id: int = 0
    answer: Any = None
    is_change: bool = True


class Change(Struct, array_like=True, gc=False):
    """Journal to head, and head to the watchers of a table: what happened to a row."""

    sequence: int
    table: int
    namespace: bytes
    key: bytes
    value: bytes | None


class ActorRecord(Struct, array_like=True):
    """Head to journal: where an actor is in its life; its `ActorSpec` stands in another row."""

    state: str
    incarnation: int
    process: WorkerAddress | None
    pid: int
    node_id: bytes
    was_alive: bool
    ending: dict[str, Any] | None
    restart: bool
    cause: dict[str, Any] | None
    error: bytes | None


class GroupRecord(Struct, array_like=True):
    """Head to journal: where the bundles of a placement group are; its `PlacementGroupSpec` goes with it."""

    state: str
    bundles: list[tuple[bytes, dict[str, list[tuple[int, int]]]]]  #: of each: its node (b"": none), and the devices
    created_at: float
    reserved_at: float


class Stored(Struct):
    """Journal to head at start: all that was kept."""

    rows: list[tuple[int, bytes, bytes, bytes]]  #: table, namespace, key, value; in the order of their first write
    answers: list[tuple[bytes, int, Any]]  #: sender, request id, answer; the newest ones
    sequence: int  #: of the last write
