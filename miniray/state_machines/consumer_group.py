"""A consumer group: members share one stream, and each event goes to one of them, once.

Rules
-----
1. Events with the same key go to the same member as long as it has one of them that is not acknowledged; so the order
   holds for each key. A key that nobody is busy with goes to the member with the least to do.
2. A member gets the next batch after it acknowledged the last one. What it has not acknowledged when it leaves goes to
   the others, in the old order: at least once then, because nobody knows how far it was.
3. At most `limit` events wait; beyond that the oldest of those that were not handed out is dropped and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from msgspec import Struct

Item = TypeVar("Item")


class Assigned(Struct, Generic[Item]):
    """An event on its way to a member."""

    sequence: int
    key: object
    item: Item


class Member(Generic[Item]):
    """What waits for a member, and what it has got and not acknowledged."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[int, Assigned[Item]] = OrderedDict()
        self.handed_out: OrderedDict[int, Assigned[Item]] = OrderedDict()

    def load(self) -> int:
        return len(self.waiting) + len(self.handed_out)


class ConsumerGroup(Generic[Item]):
    """The members of a group, and who gets what.

    Args:
        limit: how many events may wait in all.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self.members: dict[str, Member[Item]] = {}
        self.offered = 0
        self.dropped = 0
        self.done = 0
        self._owner_of: dict[object, tuple[str, int]] = {}  #: key -> member, and how many events of the key it has
        self._homeless: OrderedDict[int, Assigned[Item]] = OrderedDict()

    def join(self, member: str) -> None:
        """A member is there (again)."""
        if member in self.members:
            self.leave(member)
        self.members[member] = Member()
        homeless, self._homeless = self._homeless, OrderedDict()
        for event in homeless.values():
            self._assign(event)

    def leave(self, member: str) -> None:
        """A member is gone: others get what it had."""
        gone = self.members.pop(member, None)
        if gone is None:
            return
        events = sorted([*gone.handed_out.values(), *gone.waiting.values()], key=lambda event: event.sequence)
        for event in events:
            self._owner_of.pop(event.key, None)
        for event in events:
            self._assign(event)
        if events:  # they are older than some of what waits there
            for member_left in self.members.values():
                member_left.waiting = OrderedDict(sorted(member_left.waiting.items()))

    def offer(self, sequence: int, key: object, item: Item) -> str | None:
        """An event of the stream; who gets it. None: nobody is there yet, it waits."""
        self.offered += 1
        member = self._assign(Assigned(sequence, key, item))
        if self.queued() > self.limit:
            self._drop_oldest()
        return member

    def _assign(self, event: Assigned[Item]) -> str | None:
        if not self.members:
            self._homeless[event.sequence] = event
            return None
        name, count = self._owner_of.get(event.key, ("", 0))
        if not count:
            name = min(self.members, key=lambda member: self.members[member].load())
        self._owner_of[event.key] = (name, count + 1)
        self.members[name].waiting[event.sequence] = event
        return name

    def _drop_oldest(self) -> None:
        queues = [self._homeless, *(member.waiting for member in self.members.values())]
        oldest = min((queue for queue in queues if queue), key=lambda queue: next(iter(queue)), default=None)
        if oldest is not None:
            _, event = oldest.popitem(last=False)
            self._release(event.key)
            self.dropped += 1

    def _release(self, key: object) -> None:
        name, count = self._owner_of.get(key, ("", 0))
        if count > 1:
            self._owner_of[key] = (name, count - 1)
        else:
            self._owner_of.pop(key, None)

    def take(self, member: str, most: int) -> list[Assigned[Item]]:
        """The next batch for a member; empty while it has one that is not acknowledged."""
        mine = self.members[member]
        if mine.handed_out:
            return []
        for _ in range(min(most, len(mine.waiting))):
            sequence, event = mine.waiting.popitem(last=False)
            mine.handed_out[sequence] = event
        return list(mine.handed_out.values())

    def acknowledge(self, member: str, sequence: int | None = None) -> None:
        """A member is done with all that it got up to this number (None: with all)."""
        handed_out = self.members[member].handed_out
        while handed_out and (sequence is None or next(iter(handed_out)) <= sequence):
            _, event = handed_out.popitem(last=False)
            self._release(event.key)
            self.done += 1

    def queued(self) -> int:
        """How many events wait to be handed out."""
        return len(self._homeless) + sum(len(member.waiting) for member in self.members.values())

    def acknowledged(self) -> int | None:
        """The cursor of the group: all events up to this number are done with. None: all that were offered."""
        waiting = [*self._homeless]
        for member in self.members.values():
            waiting += [next(iter(queue)) for queue in (member.waiting, member.handed_out) if queue]
        return min(waiting) - 1 if waiting else None
