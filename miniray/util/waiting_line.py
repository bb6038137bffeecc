"""Who waits for which item: the machine behind `util.queue` and `util.channel`. Pure: no clock, no loop, no process.

A *line* has one way in and one or more *outlets*. A queue and an mpmc channel have one outlet, which all takers
share; a broadcast has one per subscription, and every item goes to each of them.

The rules
---------
* Items leave an outlet in the order in which they came in. Takers that wait are served in the order they came, and so
  are putters; nobody overtakes who waits.
* A put of several items is one step: all of them enter, side by side, or none does.
* **An item is not gone when it is handed over.** Every take and put carries a ticket of its caller. `withdraw(ticket)`
  undoes it: who waits is taken off the line; items handed out go back to where they came from; items put in that
  nobody has taken yet come out again. `confirm(ticket)` ends that: the caller has the items in its hands.
* If the process of a taker dies before it has confirmed (`process_died`, or `alive` says so at the moment of the
  hand-over), it took nothing with it: its items go back, before all that came later and is still there. What a dead
  putter put stays.
* When no putter can come any more (`end_input`), takers get what is left, and then None. What was handed over and is
  not confirmed counts as left: it may come back. When no taker can come any more (`end_output`), putters are refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Process id and a number of that process's own: one for every call.
Ticket = tuple[int, int]
#: Called with the items taken, or None at the end of input. False: the taker is gone, and takes nothing.
WakeTaker = Callable[[Any], bool]
#: Called with True when the items are in, False when they are refused.
WakePutter = Callable[[bool], bool]


class _Slot(Generic[T]):
    __slots__ = ("item", "number", "ticket")

    def __init__(self, number: int, item: T, ticket: Ticket) -> None:
        self.number = number
        self.item = item
        self.ticket = ticket


class _Taker:
    __slots__ = ("most", "wake")

    def __init__(self, most: int, wake: WakeTaker) -> None:
        self.most = most
        self.wake = wake


class Outlet(Generic[T]):
    """One queue of items, who waits for them, and who has got some that he has not confirmed."""

    __slots__ = ("items", "takers", "unconfirmed")

    def __init__(self) -> None:
        self.items: deque[_Slot[T]] = deque()
        self.takers: dict[Ticket, _Taker] = {}  #: while there are some, there are no items
        self.unconfirmed: dict[Ticket, list[_Slot[T]]] = {}


class WaitingLine(Generic[T]):
    """A line of at most `capacity` items per outlet (0 or less: any number).

    Args:
        capacity: in items.
        alive: whether the process with this id still lives.
    """

    def __init__(self, capacity: int, alive: Callable[[int], bool]) -> None:
        self.capacity = capacity
        self.outlets: dict[int, Outlet[T]] = {}
        self.accepted = 0  #: items that came in
        self.returned = 0  #: items that were handed out and came back
        self.input_ended = False
        self.output_ended = False
        self.putters: dict[Ticket, tuple[Sequence[T], WakePutter]] = {}
        self._alive = alive
        self._numbers = count()
        self._keys = count()

    def add_outlet(self, like: int | None = None) -> int:
        """A new outlet, for items from now on and for those that are now in the outlet `like`. Returns its key."""
        key = next(self._keys)
        outlet = self.outlets[key] = Outlet()
        if like is not None and like in self.outlets:
            outlet.items.extend(self.outlets[like].items)
        return key

    def remove_outlet(self, key: int) -> None:
        """An outlet is gone, with all that was in it: it holds up no putter any more."""
        if self.outlets.pop(key, None) is not None:
            self._admit()

    def size(self) -> int:
        """The number of items in the fullest outlet."""
        return max((len(outlet.items) for outlet in self.outlets.values()), default=0)

    def has_room(self, number: int) -> bool:
        """Whether so many items would fit now."""
        return self.capacity <= 0 or self.size() + number <= self.capacity

    # -- putting -----------------------------------------------------------------------------------------------------

    def put(self, items: Sequence[T], ticket: Ticket) -> bool:
        """Put all items in. False: no room, or others wait already; then nothing was done."""
        if self.putters or not self.has_room(len(items)):
            return False
        self._enter(items, ticket)
        return True

    def park_put(self, items: Sequence[T], ticket: Ticket, wake: WakePutter) -> None:
        """Wait for room; `wake` tells."""
        if self.output_ended:
            wake(False)
        else:
            self.putters[ticket] = (items, wake)

    def _enter(self, items: Sequence[T], ticket: Ticket) -> None:
        self.accepted += len(items)
        outlets = list(self.outlets.values())
        for item in items:
            number = next(self._numbers)
            for outlet in outlets:
                outlet.items.append(_Slot(number, item, ticket))
        for outlet in outlets:
            self._serve(outlet)

    def _admit(self) -> None:
        """Let putters in for whom there is room now."""
        while self.putters:
            ticket, (items, wake) = next(iter(self.putters.items()))
            if not self.has_room(len(items)):
                return
            del self.putters[ticket]
            if wake(True):
                self._enter(items, ticket)

    # -- taking ------------------------------------------------------------------------------------------------------

    def take(self, key: int, most: int, ticket: Ticket) -> list[T]:
        """Take up to `most` items that are there; an empty list when there are none."""
        outlet = self.outlets[key]
        if not outlet.items:
            return []
        slots = self._pop(outlet, most)
        outlet.unconfirmed[ticket] = slots
        self._admit()
        return [slot.item for slot in slots]

    def park_take(self, key: int, most: int, ticket: Ticket, wake: WakeTaker) -> None:
        """Wait for items; `wake` tells."""
        outlet = self.outlets[key]
        outlet.takers[ticket] = _Taker(most, wake)
        self._serve(outlet)

    def ended(self, key: int) -> bool:
        """Whether this outlet will never have an item again."""
        outlet = self.outlets.get(key)
        return outlet is None or (self.input_ended and not (outlet.items or self.putters or outlet.unconfirmed))

    def _pop(self, outlet: Outlet[T], most: int) -> list[_Slot[T]]:
        items = outlet.items
        return [items.popleft() for _ in range(min(most, len(items)))]

    def _serve(self, outlet: Outlet[T]) -> None:
        """Hand items to those who wait, as long as there are both; tell all who wait when it is over."""
        took = False
        takers = outlet.takers
        while takers and outlet.items:
            ticket = next(iter(takers))
            taker = takers.pop(ticket)
            if ticket[0] and not self._alive(ticket[0]):
                continue
            slots = self._pop(outlet, taker.most)
            if taker.wake([slot.item for slot in slots]):
                outlet.unconfirmed[ticket] = slots
                took = True
            else:
                outlet.items.extendleft(reversed(slots))
        if took and self.putters:
            self._admit()
        if takers and self.input_ended and not (outlet.items or self.putters or outlet.unconfirmed):
            outlet.takers = {}
            for taker in takers.values():
                taker.wake(None)

    # -- second thoughts -----------------------------------------------------------------------------------------------

    def confirm(self, ticket: Ticket) -> None:
        """The taker has its items in its hands."""
        for outlet in self.outlets.values():
            if outlet.unconfirmed.pop(ticket, None) is not None and self.input_ended:
                self._serve(outlet)

    def withdraw(self, ticket: Ticket) -> None:
        """Undo a take or a put, as far as it can be undone."""
        if self.putters.pop(ticket, None) is not None:
            self._admit()
            for outlet in list(self.outlets.values()):
                self._serve(outlet)
            return
        withdrawn = 0
        for outlet in list(self.outlets.values()):
            if outlet.takers.pop(ticket, None) is not None:
                continue
            slots = outlet.unconfirmed.pop(ticket, None)
            if slots is not None:
                self._give_back(outlet, slots)
                continue
            kept = deque(slot for slot in outlet.items if slot.ticket != ticket)
            withdrawn = max(withdrawn, len(outlet.items) - len(kept))
            outlet.items = kept
        self.accepted -= withdrawn
        self._admit()

    def process_died(self, pid: int) -> None:
        """A process is gone: it waits for nothing, and what it has not confirmed goes back."""
        for outlet in list(self.outlets.values()):
            for ticket in [ticket for ticket in outlet.takers if ticket[0] == pid]:
                del outlet.takers[ticket]
            for ticket in [ticket for ticket in outlet.unconfirmed if ticket[0] == pid]:
                self._give_back(outlet, outlet.unconfirmed.pop(ticket))

    def _give_back(self, outlet: Outlet[T], slots: list[_Slot[T]]) -> None:
        self.returned += len(slots)
        outlet.items = deque(sorted([*slots, *outlet.items], key=lambda slot: slot.number))
        self._serve(outlet)

    # -- the ends ------------------------------------------------------------------------------------------------------

    def end_input(self) -> None:
        """No putter is left, and none will come."""
        self.input_ended = True
        for outlet in self.outlets.values():
            self._serve(outlet)

    def end_output(self) -> None:
        """No taker is left, and none will come."""
        self.output_ended = True
        putters, self.putters = self.putters, {}
        for _items, wake in putters.values():
            wake(False)
