"""`util.channel`: channels between tasks, actors and drivers, with two kinds of ends, and a close that is counted.

* `channel`: many senders, many receivers; each item reaches one receiver. Items of one sender stay in order.
* `oneshot`: one item, once.
* `broadcast`: each item reaches every receiver; the slowest holds the senders up, so that none misses any.
* `watch`: the latest value; receivers see changes, and may skip some.

    tx, rx = channel(capacity=100)
    producers = [produce.remote(tx, n) for n in range(4)]
    tx.close()                # the producers' copies are left
    for item in rx:           # ends when all senders are closed, gone or dead, and all items were taken
        ...

Ends can be passed to tasks and actors, and stored anywhere; every copy counts, copies under way too. An end is closed
by `close`, by leaving its `with` block, when it is garbage collected, and with its process, however that dies.
Receivers that wait are woken then, get what is left, and then `Closed`. Senders get `Closed` once no receiver is left.

A batch is one step: its items stand side by side, or it is not sent. A receive that is cancelled or whose process is
killed while it waits takes no item with it (`waiting_line` has the rules); of a process that is killed in the instant
after it received, the items may come again. Items of more than 100 KiB stay in shared memory and travel as refs, not
through the channel's actor; they are owned by the process that sent them, and are lost with it if it ends before they
are received.

The model is Rust's `tokio::sync`; Ray has no such thing.
"""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import miniray
from miniray.actor import get_actor, kill
from miniray.exceptions import RayActorError, RayError
from miniray.processes.other_engine import other_engine
from miniray.system.serialization import deserialize, serialize
from miniray.util.channel_actor import RECEIVER, SENDER, ItemChannelActor, WatchChannelActor
from miniray.util.named_actors import list_named_actors
from miniray.util.tickets import confirm, draw_ticket, withdraw

__all__ = [
    "ChannelError",
    "Closed",
    "Empty",
    "Full",
    "Receiver",
    "Sender",
    "Timeout",
    "WatchReceiver",
    "broadcast",
    "channel",
    "delete_channel",
    "get_channel",
    "list_channels",
    "oneshot",
    "watch",
]

_NAME_PREFIX = "_miniray_channel:"
_MAX_CALLS = 1_000_000
_INLINE_BYTES = 100 * 1024
#: Values of these types travel as they are; all others in a pair of a code and a content.
_AS_IS = frozenset({type(None), bool, int, float})
_PACKED, _STORED, _NESTED = 0, 1, 2


class ChannelError(Exception):
    """What the errors of channels have in common."""


class Empty(ChannelError, queue.Empty):
    """`try_recv`: no item is there now."""


class Full(ChannelError, queue.Full):
    """`try_send`: there is no room now."""


class Closed(ChannelError):
    """Nobody is left at the other side (and all items were taken), or this end was closed."""


class Timeout(ChannelError, TimeoutError):
    """The time was over first."""


def _pack(item: Any) -> Any:
    if type(item) in _AS_IS:
        return item
    serialized = serialize(item, what=lambda: f"the item {item!r}")
    if serialized.total_size > _INLINE_BYTES:
        return _STORED, miniray.put(item)
    if serialized.contained:
        return _NESTED, item
    return _PACKED, (serialized.kind, serialized.to_bytes())


def _unpack(packed: Any) -> Any:
    if type(packed) is not tuple:
        return packed
    code, content = packed
    if code == _PACKED:
        return deserialize(*content)
    return miniray.get(content) if code == _STORED else content


class _End:
    """One end of a channel: a handle of the actor, and the token that counts.

    Attributes:
        capacity: of the channel, in items; None: any number.
        kind: "mpmc", "oneshot", "broadcast" or "watch".
    """

    def __init__(self, actor: Any, opened: tuple[list[Any], str, int, int]) -> None:
        (self._token,), self.kind, capacity, self._place = opened
        self.capacity = capacity or None
        self._actor = actor

    @property
    def closed(self) -> bool:
        """Whether this very end was closed."""
        return self._token is None

    def close(self) -> None:
        """Count this end no more. Again: no effect."""
        self._token = self._actor = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def stats(self) -> dict[str, Any]:
        """What is going on: size, items sent and received, who waits, which sides are open."""
        return self._ask("stats")  # type: ignore[no-any-return]

    def _copy(self, place: int | None = None) -> Any:
        self._open_actor()
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _open_actor(self) -> Any:
        if self._actor is None:
            raise Closed("This end was closed.")
        return self._actor

    def _ask(self, method: str, *args: Any) -> Any:
        """A call that cannot wait."""
        try:
            return miniray.get(getattr(self._open_actor(), method).remote(*args))
        except RayActorError as error:
            raise Closed("The channel was deleted, or its actor died.") from error

    def _call(self, method: str, *args: Any) -> Any:
        """A call that may wait, and that can be withdrawn."""
        actor = self._open_actor()
        ticket = draw_ticket()
        try:
            return self._confirmed(actor, ticket, miniray.get(getattr(actor, method).remote(ticket, *args)))
        except BaseException as error:
            _failed(actor, ticket, error)
            raise

    async def _call_async(self, method: str, *args: Any) -> Any:
        actor = self._open_actor()
        ticket = draw_ticket()
        try:
            return self._confirmed(actor, ticket, await getattr(actor, method).remote(ticket, *args))
        except BaseException as error:
            _failed(actor, ticket, error)
            raise

    def _confirmed(self, actor: Any, ticket: Any, result: Any) -> Any:
        return result


def _failed(actor: Any, ticket: Any, error: BaseException) -> None:
    """A call that may wait has failed, or was interrupted: then what it does in the actor is not wanted any more."""
    if isinstance(error, RayActorError):
        raise Closed("The channel was deleted, or its actor died.") from error
    if not isinstance(error, RayError):
        withdraw(actor, ticket)


class Sender(_End):
    """The end of a channel that items go in at. Made by `channel` and its like."""

    def clone(self) -> Sender:
        """Another sender of the same channel, to be closed on its own."""
        return self._copy()  # type: ignore[no-any-return]

    def subscribe(self) -> Receiver | WatchReceiver:
        """A new receiver. That of a broadcast gets all that is sent from now on."""
        return _receiver(self._open_actor(), self._ask("open", RECEIVER))

    def send(self, item: Any, timeout: float | None = None) -> None:
        """Send an item; wait for room, at most `timeout` seconds.

        Raises:
            Closed: no receiver is left.
            Timeout: there was no room in time.
        """
        self.send_batch([item], timeout)

    async def send_async(self, item: Any, timeout: float | None = None) -> None:
        """As `send`, to be awaited; when cancelled, the item is not sent."""
        await self.send_batch_async([item], timeout)

    def try_send(self, item: Any) -> None:
        """Send an item if there is room.

        Raises:
            Closed: no receiver is left.
            Full: there is no room.
        """
        self.try_send_batch([item])

    def send_batch(self, items: Iterable[Any], timeout: float | None = None) -> None:
        """Send all of these items, side by side; wait for room for all of them.

        Raises:
            Closed, Timeout: as `send`; then none was sent.
            ValueError: more items than the channel's capacity.
        """
        packed = self._packed(items)
        if packed:
            self._sent(self._call("send", packed, timeout), Timeout)

    async def send_batch_async(self, items: Iterable[Any], timeout: float | None = None) -> None:
        """As `send_batch`, to be awaited; when cancelled, no item is sent."""
        packed = self._packed(items)
        if packed:
            self._sent(await self._call_async("send", packed, timeout), Timeout)

    def try_send_batch(self, items: Iterable[Any]) -> None:
        """Send all of these items if there is room for all of them.

        Raises:
            Closed, Full, ValueError: none was sent.
        """
        packed = self._packed(items)
        if packed:
            self._sent(self._call("send", packed, 0), Full)

    def _packed(self, items: Iterable[Any]) -> list[Any]:
        self._open_actor()
        packed = [_pack(item) for item in items]
        if self.capacity is not None and len(packed) > self.capacity:
            raise ValueError(f"A batch of {len(packed)} items never fits a channel of capacity {self.capacity}.")
        return packed

    def _sent(self, done: bool | None, late: type[ChannelError]) -> None:
        if done is None:
            raise Closed("No receiver is left.")
        if not done:
            raise late(f"There is no room: the channel holds {self.capacity} items.")
        if self.kind == "oneshot":
            self.close()


class Receiver(_End):
    """The end of a channel that items come out at. Made by `channel` and its like. Iterating ends when it is closed."""

    def clone(self) -> Receiver:
        """Another receiver, to be closed on its own. It shares the items, but those of a broadcast: it gets all that
        this one has still to get, and what comes later.
        """
        if self.kind == "broadcast":
            return Receiver(self._open_actor(), self._ask("open", RECEIVER, self._place))
        return self._copy()  # type: ignore[no-any-return]

    def recv(self, timeout: float | None = None) -> Any:
        """The next item; waits for it, at most `timeout` seconds.

        Raises:
            Closed: no sender is left, and all items were taken.
            Timeout: there was none in time.
        """
        return self.recv_batch(1, timeout)[0]

    async def recv_async(self, timeout: float | None = None) -> Any:
        """As `recv`, to be awaited; when cancelled, it takes no item."""
        return (await self.recv_batch_async(1, timeout))[0]

    def try_recv(self) -> Any:
        """The next item, if it is there.

        Raises:
            Closed: no sender is left, and all items were taken.
            Empty: there is none.
        """
        return self.try_recv_batch(1)[0]

    def recv_batch(self, max_items: int, timeout: float | None = None) -> list[Any]:
        """The next items: at least one, at most `max_items`; waits for the first only.

        Raises:
            Closed, Timeout: as `recv`.
        """
        return _received(self._call("receive", self._place, _positive(max_items), timeout), Timeout)

    async def recv_batch_async(self, max_items: int, timeout: float | None = None) -> list[Any]:
        """As `recv_batch`, to be awaited; when cancelled, it takes no item."""
        return _received(await self._call_async("receive", self._place, _positive(max_items), timeout), Timeout)

    def try_recv_batch(self, max_items: int) -> list[Any]:
        """The items that are there, at least one, at most `max_items`.

        Raises:
            Closed, Empty: as `try_recv`.
        """
        return _received(self._call("receive", self._place, _positive(max_items), 0), Empty)

    def _confirmed(self, actor: Any, ticket: Any, result: Any) -> Any:
        if result:
            confirm(actor, ticket)
        return result

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.recv()
        except Closed:
            raise StopIteration from None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.recv_async()
        except Closed:
            raise StopAsyncIteration from None


class WatchReceiver(_End):
    """The receiving end of a `watch` channel. It remembers which value it has seen. Iterating gives each new one."""

    def clone(self) -> WatchReceiver:
        """Another receiver, which has seen the same."""
        return self._copy()  # type: ignore[no-any-return]

    def get(self) -> Any:
        """The latest value, at once; it counts as seen."""
        self._place, packed = self._ask("latest")
        return _unpack(packed)

    def recv(self, timeout: float | None = None) -> Any:
        """The latest value that was not seen yet; waits for one, at most `timeout` seconds.

        Raises:
            Closed: no sender is left, and the latest value was seen.
            Timeout: nothing new came in time.
        """
        return self._changed(self._call("newer", self._place, timeout), Timeout)

    async def recv_async(self, timeout: float | None = None) -> Any:
        """As `recv`, to be awaited."""
        return self._changed(await self._call_async("newer", self._place, timeout), Timeout)

    def try_recv(self) -> Any:
        """The latest value, if it was not seen yet.

        Raises:
            Closed: no sender is left, and the latest value was seen.
            Empty: it was seen.
        """
        return self._changed(self._call("newer", self._place, 0), Empty)

    def _changed(self, result: Any, late: type[ChannelError]) -> Any:
        if result is True:
            raise Closed("No sender is left.")
        if result is False:
            raise late("Nothing new.")
        self._place, packed = result
        return _unpack(packed)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.recv()
        except Closed:
            raise StopIteration from None


def _received(items: list[Any] | None, late: type[ChannelError]) -> list[Any]:
    if items is None:
        raise Closed("No sender is left, and all items were taken.")
    if not items:
        raise late("There is no item.")
    return [_unpack(item) for item in items]


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"The number of items must be at least 1, not {number}.")
    return number


# ---- making and finding ----


def channel(
    capacity: int = 10000, unbounded: bool = False, name: str | None = None, namespace: str | None = None
) -> tuple[Sender, Receiver]:
    """A channel with many senders and many receivers.

    Args:
        capacity: how many items it holds; senders wait then.
        unbounded: senders never wait.
        name: under which any process finds it with `get_channel`, as long as any end is open anywhere.
        namespace: of the name; None: that of this job.

    Raises:
        ValueError: the name is taken, or a capacity below 1.
    """
    return _make("mpmc", 0 if unbounded else _checked(capacity), name, namespace)


def oneshot() -> tuple[Sender, Receiver]:
    """A channel for one item: the sender closes with it."""
    return _make("oneshot", 1, None, None)


def broadcast(capacity: int = 10000, name: str | None = None, namespace: str | None = None) -> tuple[Sender, Receiver]:
    """A channel whose items reach each receiver that was there (`Sender.subscribe`, `clone`) when they were sent.

    Args:
        capacity: how many items wait for each receiver; then senders wait for the slowest.
        name, namespace: as for `channel`; `get_channel` makes a new receiver.
    """
    return _make("broadcast", _checked(capacity), name, namespace)


def watch(initial: Any, name: str | None = None, namespace: str | None = None) -> tuple[Sender, WatchReceiver]:
    """A channel that keeps the latest value only.

    Args:
        initial: the first value, which counts as seen.
        name, namespace: as for `channel`.
    """
    actor = _start(WatchChannelActor, name, namespace, _pack(initial), name or "")
    return _open(actor)  # type: ignore[return-value]


def get_channel(name: str, namespace: str | None = None) -> tuple[Sender, Receiver | WatchReceiver]:
    """A new pair of ends of a named channel; close the one that is not needed.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        return _open(get_actor(_NAME_PREFIX + name, namespace))
    except (ValueError, RayActorError):
        raise ValueError(f"There is no channel named {name!r}.") from None


def list_channels(all_namespaces: bool = False) -> list[Any]:
    """The names of all named channels of this namespace, or ``{"name", "namespace"}`` of all namespaces."""
    start = len(_NAME_PREFIX)
    rows = [row for row in list_named_actors(True) if row["name"].startswith(_NAME_PREFIX)]
    if all_namespaces:
        return [{"name": row["name"][start:], "namespace": row["namespace"]} for row in rows]
    names = list_named_actors()
    return [name[start:] for name in names if name.startswith(_NAME_PREFIX)]


def delete_channel(name: str, namespace: str | None = None) -> None:
    """End a named channel with all that is in it. Whoever uses it gets `Closed`.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        actor = get_actor(_NAME_PREFIX + name, namespace)
        miniray.get(actor.close.remote())
        kill(actor)
    except (ValueError, RayActorError):
        raise ValueError(f"There is no channel named {name!r}.") from None


def _checked(capacity: int) -> int:
    if capacity < 1:
        raise ValueError(f"The capacity must be at least 1, not {capacity}; unbounded=True has no limit.")
    return capacity


def _make(kind: str, capacity: int, name: str | None, namespace: str | None) -> tuple[Sender, Receiver]:
    return _open(_start(ItemChannelActor, name, namespace, kind, capacity, name or ""))  # type: ignore[return-value]


def _start(cls: type, name: str | None, namespace: str | None, *args: Any) -> Any:
    if other_engine() is not None:
        raise NotImplementedError(
            "Channels end when their last sender or receiver anywhere is gone, which only miniray's own engine can "
            "tell: engine='ray' has none. Use miniray.util.queue.Queue."
        )
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": _MAX_CALLS}
    if name is not None:
        # Detached, as those who find it by its name do not keep it alive; it ends itself with its last end.
        options.update(name=_NAME_PREFIX + name, namespace=namespace, lifetime="detached")
    try:
        return miniray.remote(cls).options(**options).remote(*args)
    except ValueError as error:
        if name is not None and "already taken" in str(error):
            raise ValueError(f"There is a channel named {name!r} already.") from None
        raise


def _receiver(actor: Any, opened: tuple[list[Any], str, int, int]) -> Receiver | WatchReceiver:
    return (WatchReceiver if opened[1] == "watch" else Receiver)(actor, opened)


def _open(actor: Any) -> tuple[Sender, Receiver | WatchReceiver]:
    opened = miniray.get([actor.open.remote(SENDER), actor.open.remote(RECEIVER)])
    return Sender(actor, opened[0]), _receiver(actor, opened[1])
