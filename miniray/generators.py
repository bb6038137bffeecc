"""ObjectRefGenerator: the refs of a task that yields.

Source: https://docs.ray.io/en/latest/ray-core/ray-generator.html
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from miniray.options import strict_mode
from miniray.refs import ObjectRef, RefGenerator

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.generator_plane import Stream


class ObjectRefGenerator(RefGenerator):
    """Iterates over the refs of what a remote generator yields, while it runs; sync (`for`) and async (`async for`).

    An exception in the task becomes the last ref; then the iteration ends. Not picklable.
    """

    __module__ = "miniray"  # where users know it

    def __init__(self, core: CoreWorker, stream: Stream, ref: ObjectRef[Any]) -> None:
        self._core = core
        self._stream = stream
        self._generator_ref = ref
        self._exhausted = False

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        return self

    def __next__(self) -> ObjectRef[Any]:
        """The ref of the next item; waits until it exists.

        Raises:
            StopIteration: there are no more.
        """
        ref = self._take(None)
        assert ref is not None
        return ref

    def _take(self, timeout: float | None) -> ObjectRef[Any] | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        plane = self._core.generators
        while True:
            ref = plane.take(self._stream)
            if ref is not None:
                return ref
            if 0 <= self._stream.total <= self._stream.position:
                self._exhausted = True
                raise StopIteration
            if self._core.closed or self._core.head_lost:
                self._exhausted = True
                raise StopIteration
            if deadline is not None and time.monotonic() >= deadline:
                return None
            plane.wait(self._stream, deadline)

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[Any]:
        """As `next`, but at most `timeout_s` seconds; the nil ref when the time is over.

        Raises:
            StopIteration: there are no more.
        """
        ref = self._take(timeout_s)
        return ObjectRef.nil() if ref is None else ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[Any]]:
        return self

    async def __anext__(self) -> ObjectRef[Any]:
        """The ref of the next item, awaited.

        Raises:
            StopAsyncIteration: there are no more.
        """
        import asyncio  # the caller has imported it already

        loop = asyncio.get_running_loop()
        while True:
            try:
                ref = self._take(0.0)
            except StopIteration:
                raise StopAsyncIteration from None
            if ref is not None:
                return ref
            arrived = loop.create_future()

            def wake(arrived: asyncio.Future[None] = arrived) -> None:
                loop.call_soon_threadsafe(_complete, arrived)

            self._core.generators.when_ready(self._stream, wake)
            await arrived

    def completed(self) -> ObjectRef[Any]:
        """A ref that is ready once the generator has ended."""
        return self._generator_ref

    def next_ready(self) -> bool:
        """Whether the next item is there."""
        return self._stream.position in self._stream.items

    def is_finished(self) -> bool:
        """Whether the iteration has ended: the last `next` said so."""
        return self._exhausted

    def close(self) -> None:
        """Take no more items: those that were not taken are let go, and the task runs on without back-pressure.

        Raises:
            NotImplementedError: in strict mode, as in Ray.
        """
        if strict_mode():
            raise _unsupported("close")
        with self._core.lock:
            self._core.generators.drop(self._stream)
            self._stream.total = self._stream.position

    def send(self, value: Any) -> Any:
        """Not for generators that run elsewhere.

        Raises:
            NotImplementedError: always, here and in the methods below.
        """
        raise _unsupported("send")

    def throw(self, value: Any) -> Any:
        """See `send`."""
        raise _unsupported("throw")

    async def asend(self, value: Any) -> Any:
        """See `send`."""
        raise _unsupported("asend")

    async def athrow(self, value: Any) -> Any:
        """See `send`."""
        raise _unsupported("athrow")

    async def aclose(self) -> None:
        """See `send`."""
        raise _unsupported("aclose")

    def __del__(self) -> None:
        try:
            self._core.objects.released(self._stream)
        except AttributeError:
            pass

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "You cannot return or pass a generator to other task. Serializing a ObjectRefGenerator is not allowed."
        )


def _unsupported(name: str) -> NotImplementedError:
    return NotImplementedError(f"`gen.{name}` is not supported.")


def _complete(future: Any) -> None:
    if not future.done():
        future.set_result(None)
