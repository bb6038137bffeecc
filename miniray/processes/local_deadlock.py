"""Local mode sees every wait of a session, so it can say which of them will never end (`state_machines.deadlock`).

A thread looks a few times a second, while anybody waits without a time limit. It collects who waits for what: tasks and
the driver for objects, calls for their turn at an actor, tasks for arguments, tasks and actors for resources. What is
the same at `LOOKS` looks in a row, and can never end, ends with `DeadlockError` in one of those that wait.

It errs on the side of silence. Whatever may have another cause to go on counts as going on: a wait with a timeout, a
coroutine that awaits something else than a ref, an event loop with a timer, a thread of the user's (daemons too, but
those of debuggers and notebooks, which are there before the session). What waits for resources is stuck only if nothing
in the whole session goes on: no task, no start of a worker, and the head has no work either.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from miniray.exceptions import RaySystemError
from miniray.messages.control import PENDING_CREATION
from miniray.messages.tasks import NORMAL_TASK, TaskPush
from miniray.processes import current
from miniray.state_machines.deadlock import Need, Node, Waiting, chain, describe, stuck
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.resources import from_units
from miniray.state_machines.task_submission import QUEUED, WAITING

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.reactor import Waiter

#: Seconds between two looks, and how many have to see the same.
INTERVAL = 0.2
LOOKS = 3
#: How the names of the runtime's threads begin.
OWN_THREADS = "miniray-"


class DeadlockError(RaySystemError):
    """miniray's own, in local mode: this wait would never end; the text says why."""

    def __init__(self, story: str) -> None:
        super().__init__(story)
        self.story = story

    def __str__(self) -> str:
        return f"Deadlock: this program waits for itself, and would do so for ever.\n{self.story}"

    def __reduce__(self) -> tuple[Any, ...]:
        return DeadlockError, (self.story,)


class WaitRecord:
    """Somebody waits for objects, without a time limit."""

    __slots__ = ("core", "end", "entries", "error", "looks", "node", "required")

    def __init__(self, core: CoreWorker, entries: list[ObjectEntry], required: int) -> None:
        self.core = core
        context = current.task_context.get()
        self.node: Node = context.task_id if context is not None else ("thread", threading.get_ident())
        self.entries = entries
        self.required = required
        self.looks = 0
        self.error: DeadlockError | None = None
        self.end: Callable[[], None] = lambda: None


class WaitWatch:
    """The waits of one session, and the thread that looks at them.

    Args:
        cores: gives the core workers that live now, the driver's first.
        busy: whether the head has something to do, or a worker starts.
    """

    def __init__(self, cores: Callable[[], list[CoreWorker]], busy: Callable[[], bool]) -> None:
        self._cores = cores
        self._busy = busy
        self._records: dict[int, WaitRecord] = {}
        self._anybody = threading.Event()
        self._hungry: set[Node] = set()  #: at the last look
        #: daemons that have nothing to do with this session
        self._strangers = weakref.WeakSet(thread for thread in threading.enumerate() if thread.daemon)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="miniray-deadlocks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The session is over."""
        self._stopped.set()
        self._anybody.set()
        self._thread.join()

    # -- called by those that wait -----------------------------------------------------------------------------------

    def begin(self, core: CoreWorker, entries: list[ObjectEntry], required: int, waiter: Waiter) -> WaitRecord:
        """A thread begins to wait."""
        record = WaitRecord(core, entries, required)

        def end() -> None:
            with core.lock:
                waiter.finish()
            core.transport.wake()

        record.end = end
        self._enter(record)
        return record

    def finish(self, record: WaitRecord) -> None:
        """It waits no more.

        Raises:
            DeadlockError: it would have waited for ever.
        """
        self._records.pop(id(record), None)
        if record.error is not None:
            raise record.error

    def begin_await(self, core: CoreWorker, entry: ObjectEntry, future: Any) -> None:
        """A coroutine begins to await an object."""
        if current.task_context.get() is None:
            return  # the driver's: what else it awaits cannot be seen
        record = WaitRecord(core, [entry], 1)
        loop = future.get_loop()

        def fail() -> None:
            if not future.done():
                future.set_exception(record.error)

        record.end = lambda: loop.call_soon_threadsafe(fail)
        self._enter(record)
        future.add_done_callback(lambda _: self._records.pop(id(record), None))

    def _enter(self, record: WaitRecord) -> None:
        self._records[id(record)] = record
        self._anybody.set()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._anybody.wait()
            if self._stopped.wait(INTERVAL):
                return
            if not self._records:
                self._anybody.clear()
                if self._records:  # one came in between
                    self._anybody.set()
                continue
            try:
                self._look()
            except (RuntimeError, AttributeError, KeyError):
                pass  # a table changed under the look: there is another one

    def _look(self) -> None:
        records = list(self._records.values())
        snapshot = _Snapshot(self._cores(), records, self._strangers)
        waiting = snapshot.waiting
        left = stuck(waiting)
        # Short tasks may never be seen running: as long as others wait for a worker than before, there are some.
        hungry = snapshot.hungry
        if hungry & left and (hungry != self._hungry or self._busy()):
            left = set()
        self._hungry = hungry
        dead = [record for record in records if record.node in left]
        for record in records:
            record.looks = record.looks + 1 if record.node in left else 0
        if any(record.looks == LOOKS - 1 for record in dead):
            gc.collect()  # cycles of garbage may hold handles, and with them resources
        ripe = [record for record in dead if record.looks >= LOOKS and record.error is None]
        if not ripe:
            return
        victim = self._victim(waiting, ripe)
        victim.looks = 0
        steps, back_to = chain(waiting, victim.node)
        victim.error = DeadlockError(describe(waiting, steps, back_to))
        victim.end()

    @staticmethod
    def _victim(waiting: dict[Node, Waiting], ripe: list[WaitRecord]) -> WaitRecord:
        """One in the cycle; if there is none, the one next to the dead end."""
        by_node = {record.node: record for record in ripe}
        steps, back_to = chain(waiting, ripe[0].node)
        nodes = [node for node, _ in steps]
        around = nodes[back_to:] if back_to >= 0 else nodes[::-1]
        return next((by_node[node] for node in around if node in by_node), ripe[0])


class _Snapshot:
    """Who waits for what, as of now. Each core worker is looked at under its lock, one after the other."""

    def __init__(
        self, cores: list[CoreWorker], records: list[WaitRecord], strangers: Iterable[threading.Thread]
    ) -> None:
        self.waiting: dict[Node, Waiting] = {}
        self._cores = cores
        self._idle: set[threading.Thread] = set(strangers)  #: threads that do nothing but what is seen of them
        self._names: dict[Node, str] = {}
        self._running: set[Node] = set()
        self._hungry: list[tuple[Node, dict[str, int]]] = []  #: who waits for resources
        self._actors: list[str] = []
        self._ready: set[bytes] = set()
        for core in cores:
            with core.lock:
                self._look_at_worker(core)
                self._look_at_owner(core)
        for core in cores:
            with core.lock:
                self._look_at_arguments(core)
        self._take_records(records)
        self._feed_the_hungry()

    @property
    def hungry(self) -> set[Node]:
        """Who waits for resources."""
        return {node for node, _ in self._hungry}

    # -- what runs, and what waits for its turn ------------------------------------------------------------------------

    def _look_at_worker(self, core: CoreWorker) -> None:
        executor = core.executor
        if executor is None:
            return
        actor = executor.actor
        running = executor.running
        if running is not None:
            self._running.add(running.task_id)
            self._names[running.task_id] = _label(running)
        if actor is None:
            return
        self._actors.append(actor.class_name)
        self._running.update(actor.contexts)
        for group in actor._groups.values():
            self._idle.update(group.threads)
        if running is not None:
            for _, push in executor.queue:
                need = Need(f"its turn, which {_label(running)} has", (running.task_id,))
                self._wait(push.task_id, _label(push), [need])
        if actor.contexts:
            for task_id, (_, push) in actor.queued.items():
                holders = ", ".join(dict.fromkeys(self._names.get(other, "another call") for other in actor.contexts))
                need = Need(f"one of the turns that {holders} have", tuple(actor.contexts))
                self._wait(task_id, _label(push), [need])

    def _wait(self, node: Node, who: str, needs: list[Need], required: int | None = None) -> None:
        self._names[node] = who
        self.waiting[node] = Waiting(who, len(needs) if required is None else required, tuple(needs))

    # -- what was asked for, and has not begun -------------------------------------------------------------------------

    def _look_at_owner(self, core: CoreWorker) -> None:
        self._ready.update(
            entry.object_id
            for entry in core.objects.entries.values()
            if entry.owner is None and entry.payload is not None
        )
        for task_id, task in core.tasks.pending.items():
            self._names[task_id] = _label(task.push)
            if task.state == QUEUED:
                self._hungry.append((task_id, task.scheduling_class.spec.resources))
        for task_id, call in core.actors.calls.items():
            self._names.setdefault(task_id, _label(call.push))
        for owned in core.actors.owned.values():
            creation = owned.spec.creation.task_id
            self._names[creation] = _label(owned.spec.creation)
            client = core.actors.clients.get(owned.actor_id)
            if client is not None and client.state == PENDING_CREATION and not owned.unready:
                self._hungry.append((creation, owned.spec.placement.resources))

    def _look_at_arguments(self, core: CoreWorker) -> None:
        for task_id, task in core.tasks.pending.items():
            if task.state == WAITING and task.arguments:
                self._wait(task_id, self._names[task_id], list(self._needs(entry for _, entry in task.arguments)))
        for task_id, call in core.actors.calls.items():
            client = call.client
            if call.unready and call.arguments:
                self._wait(task_id, self._names[task_id], list(self._needs(entry for _, entry in call.arguments)))
            elif not call.sent and client.state == PENDING_CREATION:
                creation = client.actor_id and self._creation_of(client.actor_id)
                if creation:
                    self._wait(task_id, self._names[task_id], [Need(self._names[creation], (creation,))])
            elif not call.sent and client.ordered and client.queue and client.queue[0] is not call:
                first = client.queue[0].push
                self._wait(task_id, self._names[task_id], [Need(f"{_label(first)}, called before", (first.task_id,))])
        for owned in core.actors.owned.values():
            if owned.unready:
                creation = owned.spec.creation.task_id
                self._wait(creation, self._names[creation], list(self._needs(entry for _, entry in owned.refs)))

    def _creation_of(self, actor_id: bytes) -> bytes | None:
        for core in self._cores:
            owned = core.actors.owned.get(actor_id)
            if owned is not None:
                return owned.spec.creation.task_id
        return None

    def _needs(self, entries: Any) -> Iterator[Need]:
        """The objects that are not there, with those that make them; one whose maker is not known may come."""
        for entry in entries:
            object_id = entry.object_id
            if entry.payload is not None or object_id in self._ready:
                continue
            maker = object_id[:24]
            if maker in self._names:
                yield Need(f"ObjectRef({object_id.hex()[:16]}...), the result of {self._names[maker]}", (maker,))
            else:
                yield Need(f"ObjectRef({object_id.hex()[:16]}...)", (("unknown", maker),))

    # -- those that wait for objects -----------------------------------------------------------------------------------

    def _take_records(self, records: list[WaitRecord]) -> None:
        awaiting: dict[Node, list[WaitRecord]] = {}
        for record in records:
            awaiting.setdefault(record.node, []).append(record)
        for core in self._cores:
            actor = core.actor
            if actor is not None and actor.is_async and not self._only_awaits_refs(actor, awaiting):
                for task_id in actor.contexts:
                    awaiting.pop(task_id, None)
        for node, group in awaiting.items():
            missing = [entry for record in group for entry in record.entries if entry.payload is None]
            needs = list(self._needs(missing))
            there = len(missing) - len(needs)
            required = 1 if len(group) > 1 else group[0].required - there
            who = self._names.get(node) or "The driver"
            if required > 0 and needs:
                self._wait(node, who, needs, required)

    @staticmethod
    def _only_awaits_refs(actor: Any, awaiting: dict[Node, list[WaitRecord]]) -> bool:
        loops = [group.loop for group in actor._groups.values() if hasattr(group, "loop")]
        return all(task_id in awaiting for task_id in actor.contexts) and not any(loop._scheduled for loop in loops)

    def _feed_the_hungry(self) -> None:
        everybody: set[Node] = set(self._running)
        threads = (thread for thread in threading.enumerate() if thread not in self._idle)
        everybody.update(("thread", thread.ident) for thread in threads if not thread.name.startswith(OWN_THREADS))
        everybody.update(node for node in self.waiting)
        for node, resources in self._hungry:
            if node in self._running:
                continue
            wanted = ", ".join(f"{quantity:g} {name}" for name, quantity in from_units(resources).items())
            holders = f" (actors that live: {', '.join(self._actors)})" if self._actors else ""
            targets = tuple(everybody - {node})
            self._wait(
                node, self._names[node], [Need(f"a free worker with {wanted or 'no resources'}{holders}", targets)]
            )


def _label(push: TaskPush) -> str:
    """A task or call in words; calls of several actors of one class are told apart."""
    of_actor = "" if push.kind == NORMAL_TASK else f" of the actor {push.task_id[8:24].hex()[:8]}"
    return f"{push.name}(){of_actor}"
