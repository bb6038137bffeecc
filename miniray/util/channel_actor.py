"""The actors that hold the items of channels. Users meet `util.channel`, never these.

Who can still send, and who receive, is counted with **tokens**: objects that the channel's actor owns and whose refs
the ends hold. An end that is copied, passed to a task or stored in another object takes its token along; the
reference counting of refs does the rest, for ends under way and for those of dead processes, too. When the last ref
of a token is gone, its owner is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import miniray
from miniray.actor import exit_actor, method
from miniray.util.waiting_line import Ticket

if TYPE_CHECKING:
    import asyncio

SENDER = "sender"
RECEIVER = "receiver"


class _Tokens:
    """The tokens of one actor.

    Args:
        leave: end the actor when no end is left: nobody can find it, or nobody should.
    """

    def __init__(self, leave: bool) -> None:
        self.counts = {SENDER: 0, RECEIVER: 0}
        self._leave = leave

    def issue(self, side: str, freed: Callable[[], None]) -> Any:
        """A new token; `freed` is called on the loop when it is the last of its side that is gone."""
        from asyncio import get_running_loop  # only the actor needs it, and not who makes it

        loop = get_running_loop()
        token = miniray.put(side)
        self.counts[side] += 1
        token._core.when_freed(token, partial(_on_loop, loop, partial(self._gone, side, freed)))  # type: ignore[union-attr]
        return token

    def _gone(self, side: str, freed: Callable[[], None]) -> None:
        self.counts[side] -= 1
        freed()
        if self._leave and not any(self.counts.values()):
            try:
                exit_actor()
            except SystemExit:
                pass  # raised to leave the method; there is none


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop is closed: the actor is leaving


class ItemChannelActor:
    """Holds the items of an mpmc, oneshot or broadcast channel.

    Args:
        kind: "mpmc", "oneshot" or "broadcast".
        capacity: in items; 0: any number.
        name: "" without one.
    """

    def __init__(self, kind: str, capacity: int, name: str) -> None:
        from miniray.util.line_service import LineService  # imports asyncio

        self._kind = kind
        self._name = name
        self._service = LineService(capacity)
        self._line = self._service.line
        self._tokens = _Tokens(bool(name))
        self._shared = kind != "broadcast"
        if self._shared:
            self._line.add_outlet()
        self._received = 0

    async def open(self, side: str, like: int | None = None) -> tuple[list[Any], str, int, int]:
        """A token (in a list, as it is to stay a ref), the kind, the capacity, and the outlet to take from."""
        outlet = 0
        if side == SENDER:
            token = self._tokens.issue(side, self._sender_gone)
        else:
            if not self._shared:
                outlet = self._line.add_outlet(like)
            token = self._tokens.issue(side, partial(self._receiver_gone, outlet))
        return [token], self._kind, self._line.capacity, outlet

    def _sender_gone(self) -> None:
        if not self._tokens.counts[SENDER]:
            self._line.end_input()

    def _receiver_gone(self, outlet: int) -> None:
        if not self._shared:
            self._line.remove_outlet(outlet)
        elif not self._tokens.counts[RECEIVER]:
            self._line.end_output()

    async def send(self, ticket: Ticket, items: Sequence[Any], timeout: float | None) -> bool | None:
        return await self._service.put(items, ticket, timeout)

    async def receive(self, ticket: Ticket, outlet: int, most: int, timeout: float | None) -> list[Any] | None:
        items = await self._service.take(outlet, most, ticket, timeout)
        self._received += len(items or ())
        return items

    @method(num_returns=0)
    def confirm(self, ticket: Ticket) -> None:
        self._line.confirm(ticket)

    @method(num_returns=0)
    def withdraw(self, ticket: Ticket) -> None:
        self._line.withdraw(ticket)

    def close(self) -> None:
        """Tell all who wait that it is over, whatever is left."""
        for outlet in self._line.outlets.values():
            outlet.items.clear()
            outlet.unconfirmed.clear()
        self._line.end_output()
        self._line.end_input()

    def stats(self) -> dict[str, Any]:
        outlets = self._line.outlets.values()
        return {
            "name": self._name or None,
            "kind": self._kind,
            "capacity": self._line.capacity or None,
            "size": self._line.size(),
            "sent": self._line.accepted,
            "received": self._received - self._line.returned,
            "waiting_senders": len(self._line.putters),
            "waiting_receivers": sum(len(outlet.takers) for outlet in outlets),
            "senders_open": self._tokens.counts[SENDER] > 0,
            "receivers_open": self._tokens.counts[RECEIVER] > 0,
        }


class WatchChannelActor:
    """Holds the latest value of a watch channel."""

    def __init__(self, value: Any, name: str) -> None:
        self._name = name
        self._value = value
        self._version = 0
        self._tokens = _Tokens(bool(name))
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

    async def open(self, side: str, like: int | None = None) -> tuple[list[Any], str, int, int]:
        """As `ItemChannelActor.open`; in place of the outlet, the version that a new receiver has seen."""
        token = self._tokens.issue(side, self._wake if side == SENDER else _nothing)
        return [token], "watch", 1, self._version

    def _wake(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def send(self, ticket: Ticket, items: Sequence[Any], timeout: float | None) -> bool | None:
        if not self._tokens.counts[RECEIVER]:
            return None
        self._value = items[-1]
        self._version += 1
        self._wake()
        return True

    async def latest(self) -> tuple[int, Any]:
        return self._version, self._value

    async def newer(self, ticket: Ticket, seen: int, timeout: float | None) -> tuple[int, Any] | bool:
        """The version and value after `seen`. False: time is over; True: there will be none."""
        import asyncio  # loaded with the actor's loop

        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while self._version == seen:
            if not self._tokens.counts[SENDER]:
                return True
            if deadline is not None and loop.time() >= deadline:
                return False
            self._waiting[ticket] = future = loop.create_future()
            try:
                await asyncio.wait_for(future, None if deadline is None else deadline - loop.time())
            except asyncio.TimeoutError:
                pass
            finally:
                self._waiting.pop(ticket, None)
        return self._version, self._value

    @method(num_returns=0)
    def withdraw(self, ticket: Ticket) -> None:
        future = self._waiting.pop(ticket, None)
        if future is not None:
            future.cancel()

    def close(self) -> None:
        """Tell all who wait that it is over."""
        self._tokens.counts[SENDER] = 0
        self._wake()

    def stats(self) -> dict[str, Any]:
        return {
            "name": self._name or None,
            "kind": "watch",
            "capacity": 1,
            "size": 1,
            "sent": self._version,
            "waiting_receivers": len(self._waiting),
            "senders_open": self._tokens.counts[SENDER] > 0,
            "receivers_open": self._tokens.counts[RECEIVER] > 0,
        }


def _nothing() -> None:
    pass
