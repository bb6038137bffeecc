"""The worker's side of a generator task: mail each item as it is yielded, wait when the owner is too far behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from miniray.messages import tasks
from miniray.messages.objects import KIND_ERROR, Address, Payload
from miniray.messages.tasks import GeneratorItem, TaskExtras, TaskPush, TaskReply
from miniray.processes.reactor import Waiter
from miniray.refs import DynamicObjectRefGenerator, ObjectRef
from miniray.system.serialization import serialize

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.task_runner import TaskRunner


class GeneratorRun:
    """One generator task that runs here."""

    def __init__(self, runner: GeneratorRunner, owner: Address, push: TaskPush, extras: TaskExtras) -> None:
        self._runner = runner
        self._core = runner.core
        self.owner = owner
        self.push = push
        self.extras = extras
        self.limit = (
            extras.generator_backpressure if extras.generator == "streaming" else -1
        )  # of "dynamic" nobody takes
        self.count = 0
        self.consumed = 0
        self.unlimited = self.limit <= 0
        self.waiter: Any = None

    def send(self, value: Any) -> None:
        """Mail an item.

        Raises:
            whatever pickling raises.
        """
        payload, inner = self._core.objects.to_payload(serialize(value), owned=False)
        if inner:
            with self._core.lock:
                self._runner.pin(self.push.task_id, self.owner, inner)
        self._post(payload)

    def send_error(self, payload: Payload) -> None:
        """Mail an error: it is the last item."""
        self._post(payload)

    def _post(self, payload: Payload) -> None:
        message = GeneratorItem(self.push.task_id, self.count, payload, attempt=self.push.attempt)
        self.count += 1
        with self._core.lock:
            self._core.post(self.owner, message, True)

    def must_wait(self) -> bool:
        """Whether the owner has to take items before the next one is made."""
        return not self.unlimited and self.count - self.consumed >= self.limit

    def end(self) -> None:
        """Say how many items there were."""
        with self._core.lock:
            self._core.post(self.owner, GeneratorItem(self.push.task_id, self.count, None, self.count))


class GeneratorRunner:
    """The generator tasks that run in this worker."""

    def __init__(self, core: CoreWorker, tasks_: TaskRunner) -> None:
        self.core = core
        self._task_runner = tasks_
        self._runs: dict[bytes, GeneratorRun] = {}
        core.add_handlers({tasks.GeneratorCredit: self.on_credit})

    def pin(self, task_id: bytes, owner: Address, inner: list[Any]) -> None:
        """Items that hold refs pin them until the task's reply is acknowledged (under the lock)."""
        self._task_runner.add_return_pins(task_id, owner, inner)

    def on_credit(self, sender: bytes, message: tasks.GeneratorCredit) -> None:
        """The owner has taken items, or wants no more."""
        run = self._runs.get(message.task_id)
        if run is None:
            return
        if message.consumed < 0:
            run.unlimited = True
        run.consumed = max(run.consumed, message.consumed)
        if run.waiter is not None and not run.must_wait():
            run.waiter()

    # -- plain generators ------------------------------------------------------------------------------------------

    def run(self, owner: Address, push: TaskPush, extras: TaskExtras, items: Iterator[Any]) -> TaskReply:
        """Run a generator to its end; its errors become items, too.

        Raises:
            KeyboardInterrupt, SystemExit: as the generator does.
        """
        run = self._runs[push.task_id] = GeneratorRun(self, owner, push, extras)
        try:
            while True:
                if run.must_wait():
                    self._wait(run)
                value = next(items)
                run.send(value)
                del value
        except StopIteration:
            return self._finished(run)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            return self._failed(run, error)
        finally:
            self._runs.pop(push.task_id, None)

    def _wait(self, run: GeneratorRun) -> None:
        waiter = Waiter()
        with self.core.lock:
            if not run.must_wait():
                return
            run.waiter = waiter.finish
        self.core.reactor.wait(waiter)
        run.waiter = None

    # -- async generators --------------------------------------------------------------------------------------------

    async def run_async(
        self, owner: Address, push: TaskPush, extras: TaskExtras, items: AsyncIterator[Any]
    ) -> TaskReply:
        """The same for an async generator, on its actor's event loop."""
        run = self._runs[push.task_id] = GeneratorRun(self, owner, push, extras)
        try:
            while True:
                if run.must_wait():
                    await self._wait_async(run)
                value = await items.__anext__()
                run.send(value)
                del value
        except StopAsyncIteration:
            return self._finished(run)
        except Exception as error:
            return self._failed(run, error)
        finally:
            self._runs.pop(push.task_id, None)

    async def _wait_async(self, run: GeneratorRun) -> None:
        import asyncio  # loaded with the loop

        loop = asyncio.get_running_loop()
        taken = asyncio.Event()
        with self.core.lock:
            if not run.must_wait():
                return
            run.waiter = lambda: loop.call_soon_threadsafe(taken.set)
        await taken.wait()
        run.waiter = None

    # -- the end -----------------------------------------------------------------------------------------------------

    def _finished(self, run: GeneratorRun) -> TaskReply:
        push = run.push
        run.end()
        value = DynamicObjectRefGenerator(self._refs(run)) if run.extras.generator == "dynamic" else None
        return self._task_runner.succeeded(run.owner, push, value)

    def _refs(self, run: GeneratorRun) -> list[ObjectRef[Any]]:
        """Those of all items."""
        ids = [run.push.task_id + (index + 2).to_bytes(4, "little") for index in range(run.count)]
        return [self.core.objects.restore(object_id, run.owner) for object_id in ids]

    def _failed(self, run: GeneratorRun, error: BaseException) -> TaskReply:
        reply = self._task_runner.failed(run.push, run.extras, error)
        if reply.retryable:
            return reply  # the owner knows whether retries are left; if not, the error becomes the last item there
        payload = reply.returns[0]
        assert payload.kind == KIND_ERROR
        run.send_error(payload)
        return self._finished(run)
