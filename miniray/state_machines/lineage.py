"""How a lost object is made again: which finished tasks are remembered, and which of them run once more.

The rules
---------
* The owner of a task's returns remembers the task, as a *record*, while one of its returns that lie in shared memory
  is in scope, or is an argument of another task that is remembered. Small returns live in the owner's memory and cannot
  be lost alone, so a task that has no others leaves no record.
* An argument of a remembered task that nobody holds any more gives its memory back, but its entry stays, *lost*, with
  the way to make it again. So a chain of tasks can be repeated from its beginning, however little of it is held. An
  argument that cannot be made again (it was `put`) keeps its memory for as long as a remembered task needs it.
* When a copy is lost, its task runs again, after those that make its lost arguments. Each run costs a retry. Without a
  record, or without a retry left, the object is given up, with a reason that says why. One run makes all returns of the
  task that are lost.
* Records are bounded by bytes: the oldest go first, and their objects cannot be made again from then on.

What `put` has stored has no task, and cannot be made again. Ray does the same in ``task_manager.cc`` and
``object_recovery_manager.cc``.

The machine is called under the core worker's lock. It answers with effects, and with the entries that are not needed
any more, which the reference counter then looks at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from miniray.state_machines.reference_counter import ObjectEntry

#: Bytes of all records, Ray's default.
LIMIT = 1 << 30
#: Bytes that a record takes besides the arguments it holds.
RECORD_SIZE = 1000

# Why an object cannot be made again: the last words of Ray's error codes.
MAX_ATTEMPTS_EXCEEDED = "MAX_ATTEMPTS_EXCEEDED"
LINEAGE_EVICTED = "LINEAGE_EVICTED"
PUT = "PUT"
RETRIES_DISABLED = "RETRIES_DISABLED"


class Record:
    """A finished task that can run again."""

    __slots__ = ("arguments", "awaited", "inputs", "outputs", "running", "size", "task")

    def __init__(self, task: Any, inputs: list[ObjectEntry], arguments: Any, size: int) -> None:
        self.task = task  #: has `retries_left` (-1: for ever)
        self.inputs = inputs  #: the entries that its arguments refer to
        self.arguments = arguments  #: opaque here: what the runtime needs to fill them in again
        self.size = size
        self.outputs: dict[bytes, ObjectEntry] = {}  #: its returns that are in the table
        self.awaited: list[ObjectEntry] = []  #: those that the present run is to make
        self.running = False


class Link:
    """What lineage knows of one object: the slot `ObjectEntry.lineage`."""

    __slots__ = ("lost", "made_by", "needed_by", "reason")

    def __init__(self) -> None:
        self.made_by: Record | None = None
        self.reason = PUT  #: why there is no record
        self.needed_by = 0  #: records that have it among their inputs
        self.lost = False  #: there is no copy of it, and nothing is done about that yet


class Rerun(NamedTuple):
    """Run the task of this record again."""

    record: Record


class GiveUp(NamedTuple):
    """This object cannot be made again."""

    entry: ObjectEntry
    reason: str


Effect = Rerun | GiveUp


class Lineage:
    """The records of one owner.

    Args:
        limit: bytes that all records may take.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.used = 0
        self.records: OrderedDict[bytes, Record] = OrderedDict()

    # -- remembering -----------------------------------------------------------------------------------------------

    def keep(
        self,
        task_id: bytes,
        task: Any,
        outputs: Iterable[ObjectEntry],
        inputs: list[ObjectEntry],
        arguments: Any,
        size: int,
        attempts: int,
    ) -> list[ObjectEntry]:
        """A task has finished, and `outputs` of it lie in shared memory. Returns entries that are needed no more.

        A task that has run again already has its record; it may have made more than before.
        """
        record = self.records.get(task_id)
        if record is None:
            if task.retries_left == 0:
                reason = MAX_ATTEMPTS_EXCEEDED if attempts else RETRIES_DISABLED
                for entry in outputs:
                    _link(entry).reason = reason
                return []
            record = self.records[task_id] = Record(task, inputs, arguments, size + RECORD_SIZE)
            self.used += record.size
            for entry in inputs:
                _link(entry).needed_by += 1
        for entry in outputs:
            _link(entry).made_by = record
            record.outputs[entry.object_id] = entry
        return self._evict() if self.used > self.limit else []

    def _evict(self) -> list[ObjectEntry]:
        free: list[ObjectEntry] = []
        for task_id, record in list(self.records.items()):
            if self.used <= self.limit:
                break
            if not record.running:
                for entry in record.outputs.values():
                    link = _link(entry)
                    link.made_by, link.reason = None, LINEAGE_EVICTED
                free += self._drop(task_id, record)
        return free

    def _drop(self, task_id: bytes, record: Record) -> list[ObjectEntry]:
        del self.records[task_id]
        self.used -= record.size
        free = []
        for entry in record.inputs:
            link = _link(entry)
            link.needed_by -= 1
            if not link.needed_by:
                free.append(entry)
        return free

    def left(self, entry: ObjectEntry) -> list[ObjectEntry]:
        """An object has left the table. Returns entries that are needed no more."""
        link = entry.lineage
        record = link.made_by if link is not None else None
        if record is None:
            return []
        record.outputs.pop(entry.object_id, None)
        if record.outputs or record.running:
            return []
        return self._drop(entry.object_id[:24], record)

    # -- making again ----------------------------------------------------------------------------------------------

    def lost(self, entries: Iterable[ObjectEntry]) -> list[Effect]:
        """The copies of these objects are gone, and somebody wants them."""
        work = list(entries)
        for entry in work:
            _link(entry).lost = True
        work.reverse()
        effects: list[Effect] = []
        while work:
            entry = work.pop()
            link = _link(entry)
            if not link.lost:
                continue
            link.lost = False
            record = link.made_by
            if record is None:
                effects.append(GiveUp(entry, link.reason))
            elif record.running:
                record.awaited.append(entry)
            elif record.task.retries_left == 0:
                effects.append(GiveUp(entry, MAX_ATTEMPTS_EXCEEDED))
            else:
                if record.task.retries_left > 0:
                    record.task.retries_left -= 1
                record.running = True
                record.awaited.append(entry)
                work += [item for item in record.inputs if _link(item).lost]
                effects.append(Rerun(record))
        return effects

    def ended(self, task_id: bytes) -> tuple[list[ObjectEntry], list[ObjectEntry]]:
        """A run is over, and what it made is in place. Returns the objects that it was to make, of which some may be
        missing still, and the entries that may be needed no more.
        """
        record = self.records.get(task_id)
        if record is None or not record.running:
            return [], []
        record.running = False
        awaited, record.awaited = record.awaited, []
        # What was made may have lost its last ref meanwhile.
        return awaited, awaited if record.outputs else [*awaited, *self._drop(task_id, record)]


def _link(entry: ObjectEntry) -> Link:
    link: Link | None = entry.lineage
    if link is None:
        link = entry.lineage = Link()
    return link
