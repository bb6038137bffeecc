"""Where the calls of a concurrent actor run: thread pools, and event loops in threads of their own, one per
concurrency group.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from miniray.messages.objects import Address
from miniray.messages.tasks import TaskPush
from miniray.processes import current

if TYPE_CHECKING:
    import asyncio

    from miniray.processes.core_worker import CoreWorker

#: Seconds that cancelled coroutines have for their ends when an actor ends and its process lives on.
LAST_WORDS = 0.2

Call = tuple[Address, TaskPush]


class Group(Protocol):
    """One concurrency group."""

    threads: list[threading.Thread]  #: that it has started

    def submit(self, call: Call) -> None:
        """Run a call when there is room (called under the core worker's lock; must not block)."""

    def stop(self) -> None:
        """End its threads. A process that ends need not do that."""


class ThreadGroup:
    """`size` threads that take calls from one queue; they start with the first calls and stay, with their thread-
    locals.
    """

    def __init__(self, core: CoreWorker, name: str, size: int, run: Callable[[Call], None]) -> None:
        self._core = core
        self._name = name
        self._size = size
        self._run = run
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self._idle = 0

    def submit(self, call: Call) -> None:
        """Queue a call."""
        self._queue.put(call)
        if self._idle == 0 and len(self.threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self.threads)}", daemon=True)
            self.threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads, each after the call that it runs."""
        for _ in self.threads:
            self._queue.put(None)

    def _work(self) -> None:
        current.enter(self._core)
        while True:
            self._idle += 1
            call = self._queue.get()
            self._idle -= 1
            if call is None:
                return
            self._run(call)
            del call


class EventLoopGroup:
    """An event loop in a thread of its own, with at most `size` calls at once, begun in the order they came."""

    def __init__(
        self,
        core: CoreWorker,
        name: str,
        size: int,
        run: Callable[[Call, EventLoopGroup], Coroutine[Any, Any, None]],
        flush: Callable[[], None],
    ) -> None:
        import asyncio  # 40 ms: only async actors pay

        self._core = core
        self._context = contextvars.Context()
        self._context.run(current.enter, core)
        self._size = size
        self._run = run
        self._flush = flush
        self._waiting: deque[Call] = deque()
        self._scheduled = False
        self._flush_scheduled = False
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self.loop = asyncio.new_event_loop()
        shown = "default" if name == "_default" else name
        self.threads = [threading.Thread(target=self._serve, name=f"AsyncIO Thread: {shown}", daemon=True)]
        self.threads[0].start()

    def _serve(self) -> None:
        import asyncio

        current.enter(self._core)
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def run_and_wait(self, function: Callable[[], None], context: current.TaskContext | None) -> None:
        """Run a plain function on the loop, and wait; raises what it raises."""
        import asyncio

        async def call() -> None:
            current.task_context.set(context)
            function()

        asyncio.run_coroutine_threadsafe(call(), self.loop).result()

    def alone(self) -> bool:
        """Whether the call that asks is the only one: its reply need not wait for others."""
        return len(self._tasks) == 1 and not self._waiting

    def submit(self, call: Call) -> None:
        """Queue a call: one wake-up of the loop serves all that came since the last one."""
        self._waiting.append(call)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._scheduled = False
        waiting = self._waiting
        while waiting and len(self._tasks) < self._size:
            call = waiting.popleft()
            task_id = call[1].task_id
            # A context of its own: calls do not see each other's variables.
            task = self._context.copy().run(self.loop.create_task, self._run(call, self))
            self._tasks[task_id] = task
            task.add_done_callback(partial(self._done, task_id))

    def _done(self, task_id: bytes, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task_id, None)
        if self._waiting:
            self._start()
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def stop(self) -> None:
        """End the loop, and what runs on it. Not for its own thread."""
        import asyncio

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LAST_WORDS) if tasks else None
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)

    def cancel(self, task_id: bytes) -> None:
        """Cancel a running call."""
        task = self._tasks.get(task_id)
        if task is not None:
            self.loop.call_soon_threadsafe(task.cancel)
