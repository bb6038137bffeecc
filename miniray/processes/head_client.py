"""Requests to the head, and what it publishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages import control
from miniray.messages.envelope import Message
from miniray.processes.reactor import Waiter
from miniray.processes.table_watch import TableWatch

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class _Request(Waiter):
    __slots__ = ("answer", "failure", "message", "number")

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.message: Message | None = None  #: in case that another head has to be asked
        self.answer: Any = None
        self.failure = ""


class _Later(_Request):
    """Nobody waits: the answer is passed on."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[Any], None]) -> None:
        super().__init__()
        self._callback = callback

    def finish(self) -> None:
        self._callback(self.answer)


class HeadClient:
    """Asks the head, and waits for the answer in the calling thread."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._numbers = count(1)
        self._requests: dict[int, _Request] = {}
        self._subscriptions: list[tuple[int, bytes | None]] = []
        self._subscribers: dict[int, list[Callable[[control.Published], None]]] = {}
        self.watches: dict[str, TableWatch] = {}

    def request(self, make: Callable[[int], Message], timeout: float | None = 30.0) -> Any:
        """Send `make(request_id)` and return the answer.

        Raises:
            RaySystemError: the head is gone, or did not answer within `timeout` seconds.
            the error that the head names.
        """
        answer = self.ask(make, timeout)
        if isinstance(answer, control.Reply):
            if answer.error:
                raise error_named(answer.error, answer.value)
            return answer.value
        return answer

    def ask(self, make: Callable[[int], Message], timeout: float | None = 30.0) -> Any:
        """Like `request`, but returns the whole answering message."""
        core = self._core
        waiter = _Request()
        number = self._post(make, waiter)
        try:
            while True:
                heads = core.transport.epoch
                core.reactor.wait(waiter, None if timeout is None else time.monotonic() + timeout)
                # While there is no head the time stands still: `HeadLink` ends it.
                if waiter.done or core.closed or not (core.head_away or core.transport.epoch > heads):
                    break
        finally:
            with core.lock:
                self._requests.pop(number, None)
        if waiter.failure:
            raise exceptions.RaySystemError(waiter.failure)
        if not waiter.done:
            if core.closed:
                raise exceptions.RaySystemError("The session was shut down while this call waited for its head.")
            raise exceptions.RaySystemError(
                f"The head of the session did not answer within {timeout:g} s. Look at its log in "
                f"{core.session.get('log_dir', 'the session directory')}."
            )
        return waiter.answer

    def ask_within(self, make: Callable[[int], Message], timeout: float) -> Any:
        """Like `ask`, but None if there is no answer within so many seconds: the question may be one of waiting."""
        return self.await_answer(self.begin(make), timeout)

    def begin(self, make: Callable[[int], Message]) -> _Request:
        """Ask now. Who wants the answer calls `await_answer`; nobody has to."""
        waiter = _Request()
        self._post(make, waiter)
        return waiter

    def await_answer(self, waiter: _Request, timeout: float) -> Any:
        """The answer to what was asked, None if there is none within so many seconds: nobody waits for it then."""
        core = self._core
        core.reactor.wait(waiter, time.monotonic() + timeout)
        with core.lock:
            self._requests.pop(waiter.number, None)
        if waiter.failure or core.closed:
            raise exceptions.RaySystemError(waiter.failure or "The session was shut down.")
        return waiter.answer

    def ask_later(self, make: Callable[[int], Message], callback: Callable[[Any], None]) -> None:
        """Send `make(request_id)`; the callback gets the answer, or None if the head is lost, under the lock."""
        self._post(make, _Later(callback))

    def _post(self, make: Callable[[int], Message], waiter: _Request) -> int:
        core = self._core
        number = next(self._numbers)
        with core.lock:
            if core.head_lost or core.closed:
                raise exceptions.RaySystemError(core.head_lost or "This session was shut down.")
            self._requests[number] = waiter
            waiter.number = number
            waiter.message = make(number)
            core.post(core.head, waiter.message, True)
        return number

    def on_reply(self, sender: bytes, message: Any) -> None:
        """An answer came."""
        waiter = self._requests.pop(message.request_id, None)
        if waiter is not None:
            waiter.answer = message
            waiter.finish()

    def subscribe(self, channel: int, key: bytes | None, callback: Callable[[control.Published], None]) -> None:
        """Call `callback` (under the lock) with every event of the channel."""
        with self._core.lock:
            self._subscribers.setdefault(channel, []).append(callback)
            self._subscriptions.append((channel, key))
            self._core.post(self._core.head, control.Subscribe(channel, key, True), True)

    def unsubscribe(self, channel: int, callback: Callable[[control.Published], None]) -> None:
        """No longer; the head is told when nobody here listens to the channel any more."""
        core = self._core
        with core.lock:
            callbacks = self._subscribers[channel]
            callbacks.remove(callback)
            if not callbacks:
                self._subscriptions = [wanted for wanted in self._subscriptions if wanted[0] != channel]
                if not core.closed and not core.head_lost:
                    core.post(core.head, control.Unsubscribe(channel), True)

    def watch(self, table: int, **settings: Any) -> TableWatch:
        """The changes of a table, once they are persisted; the settings are those of `TableWatch`."""
        return TableWatch(self._core, table, **settings)

    def on_changes(self, sender: bytes, message: control.TableChanges) -> None:
        """Changes of a table that is watched."""
        watch = self.watches.get(message.consumer)
        if watch is not None:
            watch.on_changes(message)

    def on_published(self, sender: bytes, message: control.Published) -> None:
        """An event of a channel came."""
        self._core.after_batch[self] = HeadClient._handled
        for callback in self._subscribers.get(message.channel, ()):
            callback(message)

    def _handled(self) -> None:
        self._core.post(self._core.head, control.PublishedHandled(), True)

    def told_again(self) -> list[Message]:
        """What a new head has to be told: who wants to hear what, and what is not answered (under the lock)."""
        messages: list[Message] = [
            control.Subscribe(channel, key, True) for channel, key in dict.fromkeys(self._subscriptions)
        ]
        for watch in self.watches.values():
            messages += watch.again()
        messages += [waiter.message for waiter in self._requests.values() if waiter.message is not None]
        return messages

    def fail_all(self, reason: str) -> None:
        """The head is gone: whoever waits for an answer gets an error."""
        for waiter in self._requests.values():
            waiter.failure = reason
            waiter.finish()
        for watch in self.watches.values():
            watch.lost_head()


def error_named(name: str, text: Any) -> BaseException:
    """The exception that an answer of the head names: one of `miniray.exceptions`, or a built-in one."""
    import builtins  # only on the error path

    kind = getattr(exceptions, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind(text)
    return exceptions.RaySystemError(f"{name}: {text}")
