"""A waiting line inside an async actor: timeouts, cancellation, deaths.

The rules are those of `waiting_line`; here are the loop and the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from miniray.util.process_watch import ProcessWatch
from miniray.util.waiting_line import Ticket, WaitingLine


class LineService:
    """A `WaitingLine` with coroutines. One per actor; all of it runs on the actor's loop."""

    def __init__(self, capacity: int) -> None:
        self._watch = ProcessWatch(self._process_died)
        self.line: WaitingLine[Any] = WaitingLine(capacity, self._watch.alive)
        self._own_numbers = count(1)

    def own_ticket(self) -> Ticket:
        """A ticket for a caller that has drawn none; it can only withdraw by being cancelled."""
        return 0, next(self._own_numbers)

    def _process_died(self, pid: int) -> None:
        self.line.process_died(pid)

    async def put(self, items: Sequence[Any], ticket: Ticket, timeout: float | None) -> bool | None:
        """Put items in, wait for room. True: done; False: time is over; None: refused, as nobody can take them."""
        line = self.line
        if line.output_ended:
            return None
        if line.put(items, ticket):
            return True
        if timeout is not None and timeout <= 0:
            return False
        done: bool | None = await self._park(
            lambda wake: line.park_put(items, ticket, wake), ticket, timeout, False, {True: True, False: None}
        )
        return done

    async def take(self, key: int, most: int, ticket: Ticket, timeout: float | None) -> list[Any] | None:
        """Take up to `most` items, wait for the first: none when time is over, None at the end of input.

        Who gets any has to confirm.
        """
        line = self.line
        if key not in line.outlets:
            return None
        if ticket[0]:
            self._watch.watch(ticket[0])
        items = line.take(key, most, ticket)
        if items:
            return items
        if line.ended(key):
            return None
        if timeout is not None and timeout <= 0:
            return items
        taken: list[Any] | None = await self._park(
            lambda wake: line.park_take(key, most, ticket, wake), ticket, timeout, items, None
        )
        return taken

    async def _park(
        self,
        park: Callable[[Callable[[Any], bool]], None],
        ticket: Ticket,
        timeout: float | None,
        late: Any,
        translate: dict[Any, Any] | None,
    ) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def wake(result: Any) -> bool:
            if future.done():
                return False
            future.set_result(result if translate is None else translate[result])
            return True

        def expire() -> None:
            if not future.done():
                self.line.withdraw(ticket)
                if not future.done():
                    future.set_result(late)

        park(wake)
        timer = None if timeout is None else loop.call_later(timeout, expire)
        try:
            return await future
        except asyncio.CancelledError:
            self.line.withdraw(ticket)
            raise
        finally:
            if timer is not None:
                timer.cancel()
