"""Several core workers in one process, with a network that delivers what, when and in which order the test says.

The core workers, their planes, executors and machines are the real ones; the transport and the head are not. Between
two processes order is kept, between different pairs it is not: as with real sockets. Nothing happens by itself: a
test delivers one envelope, lets one worker run one task, grants one lease, kills one process. `drain` does all that
is left to do.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec

from miniray.exceptions import RayError
from miniray.messages.control import Hello, LeaseDemand, LeaseGranted, LeaseSpec, ReturnLease, WatchWorker, WorkerDied
from miniray.messages.envelope import Envelope, Message
from miniray.messages.objects import KIND_ERROR, Address
from miniray.messages.tasks import WorkerAddress
from miniray.processes import current
from miniray.processes.core_worker import CoreWorker
from miniray.processes.executor import Executor
from miniray.processes.task_plane import TaskBinding
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.system import task_record

HEAD = Address(b"H" * 28, "head")
NODE = b"N" * 28
JOB = b"\x01\0\0\0"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


class _Transport:
    """One process's end of the simulated network."""

    def __init__(self, world: World, worker_id: bytes) -> None:
        self.address = Address(worker_id, worker_id.decode())
        self.epoch = 0
        self.trace = None
        self._world = world
        self._greeted: set[bytes] = set()
        self._forgotten: set[bytes] = set()

    def send(self, peer: Address, messages: list[Message]) -> None:
        me = self.address.worker_id
        if peer.worker_id in self._forgotten or me in self._world.dead or peer.worker_id in self._world.dead:
            return
        if peer.worker_id not in self._greeted:
            self._greeted.add(peer.worker_id)
            self._world.post(me, peer.worker_id, [Hello(self.address, "1", "worker", 0)])
        self._world.post(me, peer.worker_id, messages)

    def receive(self, timeout: float | None) -> Envelope | None:
        raise AssertionError("nobody waits in a simulation")

    def pending(self) -> bool:
        me = self.address.worker_id
        return any(frames for (_, target), frames in self._world.channels.items() if target == me)

    def wake(self) -> None: ...

    def forget(self, worker_id: bytes) -> None:
        self._forgotten.add(worker_id)

    def close(self, reason: str = "", goodbye: bool = True) -> None: ...


class _Output:
    """A worker's output: it prints nothing."""

    dirty = False
    name = ""

    def relay(self, name: str = "") -> None: ...
    def watch(self, name: str) -> None: ...


class _Record:
    """What a worker began last, without a file."""

    last = b""

    def begin(self, task_id: bytes, attempt: int) -> None:
        self.last = task_record.entry(task_id, attempt)


class Process:
    """A driver and worker in one: a core worker, an executor, and the refs that its program holds in variables."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.worker_id = f"worker-{index}".ljust(28, "-").encode()
        self.core = CoreWorker(
            _Transport(world, self.worker_id),
            HEAD,
            node_id=NODE,
            job_id=JOB,
            store_dir="",
            mode="worker",
            session={},
        )
        self.core.main_context = current.TaskContext(self.worker_id[:24], "", 0)
        self.record = _Record()
        with mock.patch("miniray.processes.executor.TaskRecord", lambda directory, worker_id: self.record):
            self.executor = Executor(self.core, _Output())  # type: ignore[arg-type]
        self.refs: list[ObjectRef[Any]] = []

    # -- what its program does ---------------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef[Any]:
        with self.world.acting(self):
            return self.core.objects.put(value)

    def submit(self, program: Program, nested: list[Any], *top: ObjectRef[Any], num_returns: int = 1) -> list[Any]:
        """Call `run_program` as a remote function, with refs inside a list and as arguments of their own."""
        tasks = self.core.tasks
        with self.world.acting(self):
            export = self.core.exports.export(b"run_program", run_program, what="run_program", kind="remote function")
            scheduling_class = tasks.submission.scheduling_class("class", LeaseSpec({}, JOB))
            binding = TaskBinding(export, "run_program", "run_program", num_returns, 0, scheduling_class, b"")
            return tasks.submit(binding, (program, nested, *top), {})

    def get(self, ref: ObjectRef[Any]) -> Any:
        """The value if it is here; else ask for it and return None. Errors are returned."""
        objects = self.core.objects
        with self.world.acting(self):
            if ref._entry.payload is None:
                with self.core.lock:
                    objects.request_values([ref._entry])
                return None
            try:
                return objects.waiting.get_one(ref, 0)
            except RayError as error:
                return error.with_traceback(None)

    # -- what its threads do -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        with self.world.acting(self), self.core.lock:
            self.core.settle()

    def run_one_task(self) -> bool:
        """Run the first task that was pushed here, if there is one."""
        queue = self.executor.queue
        if not queue:
            return False
        owner, push = queue.popleft()
        with self.world.acting(self):
            self.executor.execute(owner, push)
        return True

    def run_timers(self) -> bool:
        """Run the timers that are set now, as if enough time had passed."""
        timers = self.core.reactor._timers
        due, timers[:] = [timer for _, _, timer in sorted(timers)], []
        with self.world.acting(self), self.core.lock:
            for timer in due:
                if not timer.cancelled:
                    timer.callback()
        return bool(due)

    def entry_of(self, object_id: bytes) -> ObjectEntry | None:
        return self.core.objects.entries.get(object_id)

    def leftovers(self) -> list[str]:
        """What the tables still hold; nothing when no object is left."""
        counter, tasks = self.core.objects.counter, self.core.tasks
        tables = {
            "objects": counter.objects,
            "acks": counter._acks,
            "tickets": counter._tickets,
            "borrowers": {who: ids for who, ids in counter._borrowed_by.items() if ids},
            "owners": {who: ids for who, ids in counter._borrowed_from.items() if ids},
            "pending tasks": tasks.pending,
            "kept pins": self.core.arguments.kept,
            "return pins": self.executor.runner._return_pins,
            "leases": tasks.submission.leases,
            "released": list(self.core.objects._released),
        }
        return [f"{self.index}: {name}: {table}" for name, table in tables.items() if table]


class World:
    """The processes, the network between them, and the head."""

    def __init__(self, processes: int) -> None:
        self.channels: dict[tuple[bytes, bytes], deque[bytes]] = {}
        self.dead: set[bytes] = set()
        self.demands: dict[tuple[bytes, int], int] = {}
        self.leases: dict[int, tuple[bytes, bytes]] = {}  #: number -> (owner, worker)
        self.watchers: dict[bytes, set[bytes]] = {}
        self.tainted: set[bytes] = set()  #: objects whose protection a death may have taken away
        self._lease_numbers = 0
        self.processes = [Process(self, index) for index in range(processes)]
        self.by_id = {process.worker_id: process for process in self.processes}

    @property
    def living(self) -> list[Process]:
        return [process for process in self.processes if process.worker_id not in self.dead]

    @contextlib.contextmanager
    def acting(self, process: Process) -> Iterator[None]:
        """What happens inside is done by that process."""
        global _acting
        before, _acting = _acting, process
        token = current.core_override.set(process.core)
        try:
            yield
        finally:
            current.core_override.reset(token)
            _acting = before

    # -- the network -------------------------------------------------------------------------------------------------

    def post(self, sender: bytes, receiver: bytes, messages: list[Message]) -> None:
        self.channels.setdefault((sender, receiver), deque()).append(_encode(Envelope(sender, 0, messages)))

    def busy_channels(self) -> list[tuple[bytes, bytes]]:
        return [pair for pair, frames in self.channels.items() if frames]

    def deliver(self, pair: tuple[bytes, bytes]) -> None:
        """The receiver handles the first envelope that is under way from the sender."""
        envelope = _decode(self.channels[pair].popleft())
        if pair[1] == HEAD.worker_id:
            for message in envelope.messages:
                self._head(pair[0], message)
            return
        receiver = self.by_id[pair[1]]
        if receiver.worker_id not in self.dead:
            with self.acting(receiver), receiver.core.lock:
                receiver.core._handle(envelope)

    # -- the head ------------------------------------------------------------------------------------------------------

    def _head(self, sender: bytes, message: Message) -> None:
        if isinstance(message, LeaseDemand):
            self.demands[sender, message.class_id] = message.count
        elif isinstance(message, ReturnLease):
            self.leases.pop(message.lease_id, None)
        elif isinstance(message, WatchWorker):
            if message.worker_id in self.dead:
                self._tell_death(sender, message.worker_id)
            else:
                self.watchers.setdefault(message.worker_id, set()).add(sender)

    def _tell_death(self, watcher: bytes, worker_id: bytes) -> None:
        last = self.by_id[worker_id].record.last
        news = WorkerDied(worker_id, NODE, 0, False, "SYSTEM_ERROR", "killed", last_begun=last)
        self.post(HEAD.worker_id, watcher, [news])

    def open_demands(self) -> list[tuple[bytes, int]]:
        return [who for who, count in self.demands.items() if count and who[0] not in self.dead]

    def grant(self, demand: tuple[bytes, int], choice: int) -> None:
        """Give the demander one of the workers that it has not got."""
        owner, class_id = demand
        taken = {worker for who, worker in self.leases.values() if who == owner}
        free = [p for p in self.living if p.worker_id != owner and p.worker_id not in taken]
        if not free:
            return
        worker = free[choice % len(free)]
        self.demands[demand] -= 1
        self._lease_numbers += 1
        self.leases[self._lease_numbers] = (owner, worker.worker_id)
        address = WorkerAddress(worker.core.address, NODE, 0)
        self.post(HEAD.worker_id, owner, [LeaseGranted(class_id, self._lease_numbers, address)])

    def kill(self, process: Process, arriving: float) -> None:
        """The process dies. Of what it had sent to each peer, the first part (0 to 1) still arrives."""
        for entry in process.core.objects.entries.values():
            self.tainted.add(entry.object_id)
        known = {object_id for other in self.processes for object_id in other.core.objects.entries}
        for pair, frames in self.channels.items():
            if process.worker_id in pair:
                self.tainted.update(object_id for object_id in known if any(object_id in frame for frame in frames))
        self._taint_what_is_inside()
        self.dead.add(process.worker_id)
        process.refs.clear()
        for pair, frames in self.channels.items():
            if pair[1] == process.worker_id:
                frames.clear()
            elif pair[0] == process.worker_id:
                for _ in range(len(frames) - int(arriving * len(frames))):
                    frames.pop()
        self.leases = {number: lease for number, lease in self.leases.items() if process.worker_id not in lease}
        for watcher in self.watchers.pop(process.worker_id, ()):
            if watcher not in self.dead:
                self._tell_death(watcher, process.worker_id)

    def _taint_what_is_inside(self) -> None:
        work = list(self.tainted)
        while work:
            object_id = work.pop()
            for process in self.processes:
                entry = process.entry_of(object_id)
                for item in (
                    entry.payload.contained if entry is not None and entry.payload is not None else None
                ) or ():
                    if item.object_id not in self.tainted:
                        self.tainted.add(item.object_id)
                        work.append(item.object_id)

    # -- all that is left to do --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Deliver, run, grant and wait until nothing moves any more."""
        for _ in range(100_000):
            moved = False
            for process in self.living:
                process.settle()
                moved |= process.run_one_task()
            for pair in self.busy_channels():
                self.deliver(pair)
                moved = True
            for demand in self.open_demands():
                before = self._lease_numbers
                self.grant(demand, self._lease_numbers)
                moved |= self._lease_numbers > before
            if not moved:
                moved = sum(process.run_timers() for process in self.living) > 0
            if not moved and not self.busy_channels():
                return
        raise AssertionError("the processes never come to rest")

    def close(self) -> None:
        """End the threads that the processes have started."""
        for process in self.processes:
            process.core.objects.close()

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check_that_nothing_was_freed_early(self) -> None:
        """Each object that a program holds a ref of is in its owner's table, and so is all that it contains."""
        work = [(process, ref._entry) for process in self.living for ref in process.refs]
        seen = set()
        while work:
            process, entry = work.pop()
            if entry.object_id in seen or entry.object_id in self.tainted:
                continue
            seen.add(entry.object_id)
            owner = process if entry.owner is None else self.by_id[entry.owner.worker_id]
            if owner.worker_id in self.dead:
                continue
            owned = owner.entry_of(entry.object_id)
            assert owned is not None and owned.owner is None, f"freed early: {entry!r}, held by {process.index}"
            payload = owned.payload
            if payload is not None:
                assert payload.kind != KIND_ERROR or self.dead, f"freed early, as this error says: {entry!r}"
                work += [(owner, inner) for inner in owned.contained or ()]

    def check_that_nothing_is_left(self) -> None:
        """Once the programs hold nothing and all is quiet, the tables are empty."""
        for process in self.processes:
            process.refs.clear()
        try:
            self.drain()
        finally:
            self.close()
        left = [line for process in self.living for line in process.leftovers()]
        assert not left, "leaked:\n  " + "\n  ".join(left)


#: What a simulated task does: a list of "keep", "put", "put nothing", "call", "forget", "return".
Program = tuple[str, ...]

_acting: Process | None = None


def refs_in(value: Any) -> list[ObjectRef[Any]]:
    """The refs in a value made of lists."""
    if isinstance(value, ObjectRef):
        return [value]
    if isinstance(value, list):
        return [ref for item in value for ref in refs_in(item)]
    return []


def run_program(program: Program, nested: list[Any], *top: Any) -> Any:
    """The remote function: does what `program` says with the refs it was given."""
    process = _acting
    assert process is not None
    pool = refs_in(nested) + refs_in(list(top))
    result = None
    for step in program:
        if step == "keep":
            process.refs += pool
        elif step == "put":
            pool.append(process.core.objects.put(list(pool)))
        elif step == "put nothing":
            pool.append(process.core.objects.put(None))
        elif step == "call":
            pool += process.submit(("keep", "return"), list(pool))
        elif step == "call with value" and pool:
            pool += process.submit(("keep", "put", "return"), [], pool[-1])
        elif step == "forget":
            process.refs.clear()
        elif step == "return":
            result = list(pool)
        elif step == "return one" and pool:
            result = pool[-1]
    return result


__all__ = ["HEAD", "Process", "Program", "World", "refs_in", "run_program"]
