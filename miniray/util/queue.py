"""`util.queue`: a first-in, first-out queue that tasks, actors and drivers share. It lives in an actor.

As https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.queue.Queue.html, with two differences:

* Nobody takes an item with him. A `get` that is cancelled (asyncio, `ray.cancel`, Ctrl-C), or whose process is killed
  while it waits, leaves its item in the queue, where Ray's queue loses it; a `put` that is cancelled while it waits
  is off the queue. (Of a process that is killed in the instant after a `get`, the item may come again.)
* `get(timeout=0)` takes an item that is there, as the standard library's queue does; Ray's never gets one.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable
from typing import Any

import miniray
from miniray.actor import kill, method
from miniray.exceptions import RayError
from miniray.util.tickets import confirm, draw_ticket, withdraw
from miniray.util.waiting_line import Ticket

__all__ = ["Empty", "Full", "Queue"]

#: How many calls may wait in the queue's actor at once. Ray has 1,000: with so many getters, no put comes through.
_MAX_CALLS = 1_000_000
_OUTLET = 0


class Empty(queue.Empty):
    """There is no item (in time)."""


class Full(queue.Full):
    """There is no room (in time)."""


class Queue:
    """A queue of at most `maxsize` items.

    Args:
        maxsize: 0 or less: any number of items.
        actor_options: options of the actor that holds the items, as `num_cpus`, `name`, `max_concurrency`.

    Attributes:
        actor: the handle of that actor; None after `shutdown`.

    Queues can be passed to tasks and actors. The items are lost with the actor.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        options = {"max_concurrency": _MAX_CALLS, **(actor_options or {})}
        self.maxsize = maxsize
        self.actor: Any = miniray.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """The number of items."""
        return miniray.get(self.actor.qsize.remote())  # type: ignore[no-any-return]

    def qsize(self) -> int:
        """The number of items."""
        return self.size()

    def empty(self) -> bool:
        """Whether there are no items."""
        return miniray.get(self.actor.empty.remote())  # type: ignore[no-any-return]

    def full(self) -> bool:
        """Whether there are `maxsize` items."""
        return miniray.get(self.actor.full.remote())  # type: ignore[no-any-return]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in.

        Args:
            item: any value that can be serialized. Of an `ObjectRef`, its value.
            block: wait for room.
            timeout: seconds to wait at most; None: for ever.

        Raises:
            Full: there is no room (in time).
            ValueError: `timeout` is negative.
        """
        actor = self.actor
        limit = _checked(block, timeout)
        ticket = draw_ticket()
        try:
            done = miniray.get(actor.put_with_ticket.remote(item, ticket, limit, block))
        except BaseException as error:
            _interrupted(actor, ticket, error)
            raise
        if not done:
            raise Full

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `put`; to be awaited. When cancelled, the item is not put."""
        actor = self.actor
        limit = _checked(block, timeout)
        ticket = draw_ticket()
        try:
            done = await actor.put_with_ticket.remote(item, ticket, limit, block)
        except BaseException as error:
            _interrupted(actor, ticket, error)
            raise
        if not done:
            raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item.

        Args:
            block: wait for one.
            timeout: seconds to wait at most; None: for ever.

        Raises:
            Empty: there is no item (in time).
            ValueError: `timeout` is negative.
        """
        actor = self.actor
        limit = _checked(block, timeout)
        ticket = draw_ticket()
        try:
            items = miniray.get(actor.get_with_ticket.remote(ticket, limit, block))
            if items:
                confirm(actor, ticket)
        except BaseException as error:
            _interrupted(actor, ticket, error)
            raise
        if not items:
            raise Empty
        return items[0]

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `get`; to be awaited. When cancelled, it takes no item."""
        actor = self.actor
        limit = _checked(block, timeout)
        ticket = draw_ticket()
        try:
            items = await actor.get_with_ticket.remote(ticket, limit, block)
            if items:
                confirm(actor, ticket)
        except BaseException as error:
            _interrupted(actor, ticket, error)
            raise
        if not items:
            raise Empty
        return items[0]

    def put_nowait(self, item: Any) -> None:
        """As ``put(item, block=False)``.

        Raises:
            Full: there is no room.
        """
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Put all of these items in, in order and side by side, or none of them.

        Args:
            items: a collection that can be serialized, and has a length.

        Raises:
            Full: there is no room for all of them.
            TypeError: not an iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        miniray.get(self.actor.put_nowait_batch.remote(items))

    def get_nowait(self) -> Any:
        """As ``get(block=False)``.

        Raises:
            Empty: there is no item.
        """
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, or none.

        Raises:
            Empty: there are not so many items.
            TypeError, ValueError: not a number, or a negative one.
        """
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        return miniray.get(self.actor.get_nowait_batch.remote(num_items))  # type: ignore[no-any-return]

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor. Those who wait get an `ActorDiedError`.

        Args:
            force: kill it at once.
            grace_period_s: without `force`: seconds until it is killed nevertheless.
        """
        if self.actor:
            if force:
                kill(self.actor, no_restart=True)
            else:
                _, running = miniray.wait([self.actor.__ray_terminate__.remote()], timeout=grace_period_s)
                if running:
                    kill(self.actor, no_restart=True)
        self.actor = None


def _checked(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


def _interrupted(actor: Any, ticket: Ticket, error: BaseException) -> None:
    """A call ended with an error. If that did not come from the actor, what it does there is not wanted any more."""
    if not isinstance(error, RayError):
        withdraw(actor, ticket)


class _QueueActor:
    """Holds the items. Has Ray's methods, for those who call `Queue.actor`, and others that take tickets."""

    def __init__(self, maxsize: int) -> None:
        from miniray.util.line_service import LineService  # imports asyncio, which only the actor needs

        self.maxsize = maxsize
        self._service = LineService(maxsize)
        self._line = self._service.line
        self._line.add_outlet()

    def qsize(self) -> int:
        return self._line.size()

    def empty(self) -> bool:
        return not self._line.size()

    def full(self) -> bool:
        return 0 < self.maxsize <= self._line.size()

    async def put_with_ticket(self, item: Any, ticket: Ticket, timeout: float | None, block: bool) -> bool:
        done = await self._service.put([item], ticket, timeout)
        if not done and block:
            raise Full
        return bool(done)

    async def get_with_ticket(self, ticket: Ticket, timeout: float | None, block: bool) -> Any:
        items = await self._service.take(_OUTLET, 1, ticket, timeout)
        if not items and block:
            raise Empty
        return items

    @method(num_returns=0)
    def confirm(self, ticket: Ticket) -> None:
        self._line.confirm(ticket)

    @method(num_returns=0)
    def withdraw(self, ticket: Ticket) -> None:
        self._line.withdraw(ticket)

    async def put(self, item: Any, timeout: float | None = None) -> None:
        if not await self._service.put([item], self._service.own_ticket(), timeout):
            raise Full

    async def get(self, timeout: float | None = None) -> Any:
        ticket = self._service.own_ticket()
        items = await self._service.take(_OUTLET, 1, ticket, timeout)
        self._line.confirm(ticket)
        if not items:
            raise Empty
        return items[0]

    def put_nowait(self, item: Any) -> None:
        if not self._line.put([item], self._service.own_ticket()):
            from asyncio import QueueFull  # loaded with the actor's loop

            raise QueueFull

    def put_nowait_batch(self, items: Any) -> None:
        number = len(items)
        if not self._line.put(list(items), self._service.own_ticket()):
            raise Full(f"Cannot add {number} items to queue of size {self._line.size()} and maxsize {self.maxsize}.")

    def get_nowait(self) -> Any:
        ticket = self._service.own_ticket()
        items = self._line.take(_OUTLET, 1, ticket)
        self._line.confirm(ticket)
        if not items:
            from asyncio import QueueEmpty  # loaded with the actor's loop

            raise QueueEmpty
        return items[0]

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self._line.size():
            raise Empty(f"Cannot get {num_items} items from queue of size {self._line.size()}.")
        ticket = self._service.own_ticket()
        items = self._line.take(_OUTLET, num_items, ticket)
        self._line.confirm(ticket)
        return items
