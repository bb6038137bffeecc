"""The core worker: what every driver and worker consists of.

It connects the state machines to the transport: one lock, one reactor, one table of objects, one table of pending
tasks. The parts stand in files of their own: `object_plane` (put, get, wait, borrowing), `task_plane` (submission,
leases, retries, cancellation), `head_client` (requests to the head); a worker adds an `executor`. This file holds
what they share: the outgoing mail and the dispatch of what comes in.

Outgoing mail: `post` puts a message into the outbox of its peer. An urgent one goes out at once, together with what
piled up before it; the rest leaves when the leader is about to block, or when 64 have piled up. So the first call to
an idle worker waits for nothing, and what follows while it is busy goes out in batches, without any timer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from miniray.messages import control, state, tasks
from miniray.messages.envelope import Envelope, Message
from miniray.messages.objects import Address
from miniray.processes.actor_plane import ActorPlane
from miniray.processes.call_arguments import CallArguments
from miniray.processes.function_exports import FunctionExports
from miniray.processes.generator_plane import GeneratorPlane
from miniray.processes.head_client import HeadClient
from miniray.processes.object_freeing import ObjectFreeing
from miniray.processes.object_messages import ObjectMessages
from miniray.processes.object_plane import ObjectPlane
from miniray.processes.object_recovery import ObjectRecovery
from miniray.processes.reactor import Reactor, Waiter
from miniray.processes.state_reports import StateReports
from miniray.processes.task_events import TaskEventBuffer
from miniray.processes.task_plane import TaskPlane
from miniray.system.sockets import Transport

#: Messages that may pile up for a peer before they go out anyway.
BATCH = 64
#: Seconds between the two looks at a dry inbox after which the news of a crash takes effect.
DRY_INTERVAL = 0.005
_KEPT_DEAD = 1000


class Outbox:
    """What waits to be sent to one peer."""

    __slots__ = ("address", "listed", "messages")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.messages: list[Message] = []
        self.listed = False


class CoreWorker:
    """One process's part in the session.

    Args:
        transport: bound already.
        head: where the head is.
        node_id: the virtual node this process belongs to.
        job_id: the job; a worker learns it with its first task.
        store_dir: the directory of the session's shared memory.
        mode: "driver" or "worker".
        session: plain data about the session (names, directories, addresses), as `DriverRegistered.session`.
    """

    def __init__(
        self,
        transport: Transport,
        head: Address,
        *,
        node_id: bytes,
        job_id: bytes,
        store_dir: str,
        mode: str,
        session: dict[str, Any],
    ) -> None:
        self.transport = transport
        self.address = transport.address
        self.worker_id = transport.address.worker_id
        self.head = head
        self.node_id = node_id
        self.job_id = job_id
        self.namespace = ""
        self.mode = mode
        self.session = session
        self.store_dir = store_dir
        self.pid = os.getpid()
        self.number = self.pid  #: its own among the core workers of this machine; in local mode no process id
        self.node_ip: str = session.get("node_ip", "127.0.0.1")
        self.lock: Any = threading.RLock()
        self.reactor = Reactor(transport, self.lock, self._handle, self.settle)
        self.wait_watch: Any = None  #: local mode: who wants to know of waits (`local_deadlock`)
        self.closed = False
        self.head_lost = ""
        self.head_away = False  #: it is gone, and another one may come (`head_link`)
        self.leaving: Waiter | None = None  #: the driver has told its head to stop, and waits for that
        self.main_context: Any = None
        self.job_config: dict[str, Any] = {}
        self.runtime_env = ""  #: of this worker, or of the driver's job: JSON, "" for none
        self._outboxes: dict[bytes, Outbox] = {}
        self._dirty: list[Outbox] = []
        self._peers: dict[bytes, control.Hello] = {}
        self._deaths: dict[bytes, list[Callable[[], None]]] = {}
        self._watched: set[bytes] = set()
        self._departed: dict[bytes, None] = {}  #: they said Goodbye, lately
        self.dead: dict[bytes, control.WorkerDied] = {}  #: the latest; of others the head will tell again
        self.after_batch: dict[Any, Callable[[Any], None]] = {}  #: what to look at once the envelope is handled
        self._handlers: dict[type, Callable[[bytes, Any], None]] = {}
        self.head_client = HeadClient(self)
        self.objects = ObjectPlane(self)
        self.objects.messages = ObjectMessages(self, self.objects)
        self.objects.recovery = ObjectRecovery(self)
        self.objects.freeing = ObjectFreeing(self)
        self.exports = FunctionExports(self)
        self.arguments = CallArguments(self)
        self.tasks = TaskPlane(self)
        self.actors = ActorPlane(self)
        self.generators = GeneratorPlane(self)
        self.events = TaskEventBuffer(self)
        self.reports = StateReports(self)
        self.executor: Any = None
        self.actor: Any = None  #: the actor that lives in this worker
        self.on_log_lines: Callable[[tasks.LogLines], None] | None = None
        self.on_last_words: Callable[[control.WorkerDied, str], None] | None = None
        self.on_warning: Callable[[control.Warn], None] | None = None
        self.add_handlers(
            {
                tasks.TaskReply: self.tasks.on_reply,
                tasks.TasksReturned: self.tasks.on_tasks_returned,
                tasks.RequestCancel: self.tasks.on_request_cancel,
                tasks.ReleasePins: self.arguments.on_release_pins,
                control.LeaseGranted: self.tasks.on_lease_granted,
                control.LeaseRefused: self.tasks.on_lease_refused,
                control.RevokeLease: self.tasks.on_revoke_lease,
                control.TrimMemory: self.objects.memory.on_trim,
                control.Reply: self.head_client.on_reply,
                control.DriverRegistered: self.head_client.on_reply,
                control.Published: self.head_client.on_published,
                control.TableChanges: self.head_client.on_changes,
                control.Hello: self._on_hello,
                control.Goodbye: self._on_goodbye,
                control.WorkerDied: self._on_worker_died,
                control.Warn: self._on_warn,
                control.CollectGarbage: self._on_collect_garbage,
                tasks.LogLines: self._on_log_lines,
                state.ReportState: self.reports.on_report_state,
            }
        )

    # -- mail out --------------------------------------------------------------------------------------------------

    def post(self, peer: Address, message: Message, urgent: bool = False) -> None:
        """Put a message into the outbox of a peer (under the lock). `urgent`: send it, and what waits before it,
        now.
        """
        box = self._outboxes.get(peer.worker_id)
        if box is None:
            box = self._outboxes[peer.worker_id] = Outbox(peer)
        messages = box.messages
        messages.append(message)
        if urgent or len(messages) >= BATCH:
            box.messages = []
            self.transport.send(peer, messages)
        elif not box.listed:
            box.listed = True
            self._dirty.append(box)

    def flush(self) -> None:
        """Send everything that piled up (under the lock)."""
        dirty = self._dirty
        if dirty:
            self._dirty = []
            for box in dirty:
                box.listed = False
                if box.messages:
                    messages, box.messages = box.messages, []
                    self.transport.send(box.address, messages)

    def post_to_head(self, message: Message) -> None:
        """Send a message to the head at once (under the lock, or from a single thread)."""
        with self.lock:
            self.post(self.head, message, True)

    def owns_anything(self) -> bool:
        """Whether somebody still needs an object, a task or an actor of this process (under the lock)."""
        if self.tasks.pending or self.actors.calls:
            return True
        return any(entry.owner is None and entry.in_use() for entry in self.objects.entries.values())

    def settle(self) -> bool:
        """Before the leader blocks: process released refs, send what piled up. Returns whether refs were released."""
        lately = self.objects.drain()
        if self._dirty:
            self.flush()
        executor = self.executor
        if executor is not None:
            executor.settle()
            if self._dirty:
                self.flush()
        return lately

    # -- mail in ---------------------------------------------------------------------------------------------------

    def add_handlers(self, handlers: dict[type, Callable[[bytes, Any], None]]) -> None:
        """What a worker (or an actor's caller) handles besides."""
        self._handlers.update(handlers)

    def _handle(self, envelope: Envelope) -> None:
        sender = envelope.sender
        if envelope.epoch < self.transport.epoch and sender == self.head.worker_id:
            return  # of a head that is gone: what it granted is not known to the new one
        handlers = self._handlers
        for message in envelope.messages:
            handlers[type(message)](sender, message)
        if self.after_batch:
            todo = self.after_batch
            self.after_batch = {}
            for item, action in todo.items():
                action(item)

    def _on_hello(self, sender: bytes, message: control.Hello) -> None:
        self._peers[sender] = message

    def peer(self, worker_id: bytes) -> Address | None:
        """The address of a process that has said Hello."""
        hello = self._peers.get(worker_id)
        return hello.address if hello is not None else None

    def _on_collect_garbage(self, sender: bytes, message: control.CollectGarbage) -> None:
        import gc  # only then

        # Finalizers are user code: neither under the lock nor in the thread that leads.
        threading.Thread(target=gc.collect, name="miniray-gc", daemon=True).start()

    def _on_warn(self, sender: bytes, message: control.Warn) -> None:
        if self.on_warning is not None:
            self.on_warning(message)

    def _on_log_lines(self, sender: bytes, message: tasks.LogLines) -> None:
        if self.on_log_lines is not None:
            self.on_log_lines(message)

    # -- death of others -------------------------------------------------------------------------------------------

    def watch(self, worker_id: bytes) -> None:
        """Ask the head to tell us when that process dies (once per process)."""
        if worker_id not in self._watched and worker_id != self.head.worker_id:
            self._watched.add(worker_id)
            self.post(self.head, control.WatchWorker(worker_id), True)

    def _on_goodbye(self, sender: bytes, message: control.Goodbye) -> None:
        # Everything the peer had to say came before this. The head's notice, which says why, may come later.
        self.forget(sender)
        self._departed[sender] = None
        if len(self._departed) > _KEPT_DEAD:
            del self._departed[next(iter(self._departed))]
        if self.actor is not None:
            self.actor.caller_left(sender)

    def _on_worker_died(self, sender: bytes, message: control.WorkerDied) -> None:
        worker_id = message.worker_id
        if worker_id in self.dead:
            return
        self.after_last_words(worker_id, lambda: self._bury(message))

    def forget(self, worker_id: bytes) -> None:
        """A process is gone, and its last words were handled (under the lock): nothing is kept for it any more.

        Of an actor that was only called, nobody but the actor's state tells.
        """
        self.transport.forget(worker_id)
        self._peers.pop(worker_id, None)
        box = self._outboxes.pop(worker_id, None)
        if box is not None:
            box.messages = []
        self.arguments.worker_died(worker_id)
        self.objects.memory.writer_left(worker_id)

    def awaits_last_words(self, worker_id: bytes) -> bool:
        """Whether something waits until all that this dead process had sent was handled."""
        return worker_id in self._deaths

    def after_last_words(self, worker_id: bytes, action: Callable[[], None]) -> None:
        """Do something about the death of a process (under the lock), after everything it had sent was handled.

        The news came from the head; replies of the dead process come on another connection and may still be under
        way. They have all been read when it said Goodbye, or when the inbox was found dry twice.
        """
        actions = self._deaths.get(worker_id)
        if actions is not None:
            actions.append(action)
        elif worker_id in self._departed:
            action()  # it said Goodbye, and nothing comes after that
        else:  # also when nothing has come from it yet: its first words may be its last
            self._deaths[worker_id] = [action]
            self.reactor.call_later(DRY_INTERVAL, lambda: self._look_for_last_words(worker_id, 0))

    def _look_for_last_words(self, worker_id: bytes, dry: int) -> None:
        dry = 0 if self.transport.pending() else dry + 1
        if dry < 2:
            self.reactor.call_later(DRY_INTERVAL, lambda: self._look_for_last_words(worker_id, dry))
            return
        for action in self._deaths.pop(worker_id):
            action()

    def _bury(self, message: control.WorkerDied) -> None:
        worker_id = message.worker_id
        self.dead[worker_id] = message
        if len(self.dead) > _KEPT_DEAD:
            del self.dead[next(iter(self.dead))]
        self._departed.pop(worker_id, None)
        if self.on_last_words is not None and message.log_files and not message.expected:
            task = self.tasks.pending.get(message.last_begun[:24])
            self.on_last_words(message, task.push.name if task is not None else "")
        self._watched.discard(worker_id)
        self.forget(worker_id)
        self.tasks.on_worker_died(message)
        self.objects.on_process_died(message)
        if self.executor is not None:
            self.executor.on_process_died(worker_id)

    def lose_head(self, reason: str) -> None:
        """The head is gone: every wait that needs it ends with an error. Callable from any thread."""
        with self.lock:
            if self.leaving is not None:
                self.leaving.finish()
                self.transport.wake()
                return
            if self.head_lost or self.closed:
                return
            self.head_lost = reason
            self.head_client.fail_all(reason)
            self.tasks.fail_all(reason)
            self.actors.fail_all(reason)
            self.objects.fail_all(reason)
        self.transport.wake()

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self, reason: str = "", goodbye: bool = True) -> None:
        """Leave: flush, say Goodbye, stop the threads, give back the memory."""
        with self.lock:
            if self.closed:
                return
            self.events.flush()
            self.closed = True
            if goodbye and not self.head_lost:
                # A worker that is still ours when we are gone would be taken for busy, and killed.
                self.tasks.submission.give_back_all()
                self.settle()
        self.reactor.close()
        self.objects.close()
        self.transport.close(reason, goodbye and not self.head_lost)
