"""The head at work: one thread, one loop, everything that the other processes say or do comes in here.

Rules
-----
* The loop waits for ZeroMQ's descriptor (edge-triggered: the inbox is read until it is dry before each wait), the
  listener for life lines, the life lines, the fork server and the next timer. It never waits inside a handler.
* Handlers put messages into the outbox; after each turn the machines are asked what follows (`Leases.schedule`), and
  then every peer gets its messages in one envelope.
* A handler that fails costs its message, not the head: the error is logged, and answered if there is a request id.
* Requests may come twice; the answer to a request is kept for a while and given again.
* Private session: the end of its driver is the end of the session. Shared: of that job.

The parts: `head_members` (what is known of a process), `head_lines` (life lines), `head_ends` (how processes and the
session end), `head_workers` (how workers are started), `head_leases` (scheduler and worker pool), `head_gcs` (tables,
nodes, jobs, queries), `head_memory` (the accounts of the object store).
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from miniray.messages import control, placement, state, tasks
from miniray.messages.envelope import Envelope, Message
from miniray.messages.objects import Address, SegmentsOrphaned
from miniray.messages.reconnect import Rejoin
from miniray.messages.startup import HeadReady
from miniray.processes.head_actors import Actors
from miniray.processes.head_durable import storage_of
from miniray.processes.head_ends import Ends
from miniray.processes.head_environments import Environments
from miniray.processes.head_gcs import NODE_IP, Gcs
from miniray.processes.head_leases import Leases
from miniray.processes.head_lines import LifeLines
from miniray.processes.head_members import Member
from miniray.processes.head_memory import Memory
from miniray.processes.head_memory_monitor import MemoryMonitor
from miniray.processes.head_placement import Placement
from miniray.processes.head_recovery import Recovery
from miniray.processes.head_reports import Reports
from miniray.processes.head_startup import Startup
from miniray.processes.head_workers import WorkerStarter
from miniray.processes.trace import install_trace
from miniray.system import session as sessions
from miniray.system.fork_server_connection import ForkServerConnection, exec_fork_server
from miniray.system.sockets import LoopbackTransport, ZmqTransport

#: envelopes handled in one turn before the machines are asked
_AT_ONCE = 256
_KEPT_REPLIES = 128
#: ... when requests may be sent again that an earlier head has answered
_KEPT_AFTER_A_RESTART = 2000


class Head:
    """The one object of the head process; `run` returns when the session has ended and nothing of it is left."""

    def __init__(self, startup: Startup, fork_server: ForkServerConnection) -> None:
        config = startup.config
        self.startup = startup
        self.config = config
        self.now = time.monotonic()
        self.members: dict[bytes, Member] = {}
        self.dead: OrderedDict[bytes, control.WorkerDied] = OrderedDict()
        self.transport = self._make_transport()
        self.transport.epoch = startup.epoch
        install_trace(self.transport, "head")
        startup.address = self.transport.address
        self.stopping = ""
        self.running = True
        self._peers: dict[bytes, Address] = {}
        self._refused: set[bytes] = set()
        self._outbox: dict[bytes, list[Message]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._kept_replies = _KEPT_REPLIES if config.epoch == 1 else _KEPT_AFTER_A_RESTART
        self._replies: OrderedDict[tuple[bytes, int], Message] = OrderedDict()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self.starter = self._make_starter(fork_server)
        self.environments = self._make_environments()
        self._wake_read, self._wake_write = os.pipe()
        self._from_threads: deque[Callable[[], None]] = deque()
        self.lines = LifeLines(self)
        self.ends = Ends(self)
        self.gcs: Gcs = Gcs(self)
        self.memory: Memory = Memory(self)
        self.reports: Reports = Reports(self)
        self.leases: Leases = Leases(self)
        self.placement: Placement = Placement(self)
        self.actors: Actors = Actors(self, NODE_IP)
        self.recovery = Recovery(self)
        self.memory_monitor = MemoryMonitor(self)
        self._messages: dict[type, Callable[[bytes, Any], None]] = {
            control.Hello: self._on_hello,
            control.Goodbye: self._on_goodbye,
            control.RegisterDriver: self._on_register_driver,
            control.RegisterWorker: self._on_register_worker,
            control.WatchWorker: self.on_watch,
            Rejoin: self.recovery.on_rejoin,
            control.StopSession: self._on_stop,
            control.LeaseDemand: self.leases.on_demand,
            control.ReturnLease: self.leases.on_return,
            control.WorkerBlocked: self.leases.on_blocked,
            control.ReserveMemory: self.memory.on_reserve,
            control.ReleaseMemory: self.memory.on_release,
            control.TablePut: self.gcs.on_put,
            control.TableGet: self.gcs.on_get,
            control.TableDelete: self.gcs.on_delete,
            control.TableScan: self.gcs.on_scan,
            control.Query: self.gcs.on_query,
            control.Subscribe: self.gcs.on_subscribe,
            control.Unsubscribe: self.gcs.on_unsubscribe,
            control.PublishedHandled: self.gcs.on_published_handled,
            control.WatchTable: self.gcs.durable.on_watch_table,
            control.ChangesHandled: self.gcs.durable.on_changes_handled,
            control.StopWatching: self.gcs.durable.on_stop_watching,
            control.CollectGarbage: self._on_collect_garbage,
            control.AddNode: self.gcs.on_add_node,
            control.RemoveNode: self.gcs.on_remove_node,
            state.TaskEvents: self.reports.on_task_events,
            state.StateReport: self.reports.on_report,
            control.CreateActor: self.actors.on_create,
            control.ActorOutOfScope: self.actors.on_out_of_scope,
            control.KillActor: self.actors.on_kill,
            control.WatchActor: self.actors.on_watch,
            placement.CreatePlacementGroup: self.placement.on_create,
            placement.RemovePlacementGroup: self.placement.on_remove,
            placement.WaitPlacementGroup: self.placement.on_wait,
            tasks.TaskReply: self.actors.on_reply,
            SegmentsOrphaned: self.memory.on_orphaned,
        }

    # -- what is different in local mode (`local_head`) --------------------------------------------------------------

    def _make_transport(self) -> ZmqTransport | LoopbackTransport:
        startup, config = self.startup, self.config
        return ZmqTransport(
            startup.head_id,
            startup.socket_dir or None,
            startup.socket_name,
            kind="head",
            version=config.version,
            token=config.token,
        )

    def _make_starter(self, fork_server: ForkServerConnection) -> WorkerStarter:
        return WorkerStarter(
            self,
            fork_server,
            lambda: exec_fork_server(self.startup.fork_server_config()),
            lambda: self.ends.stop("its fork server dies again and again; see head.err"),
        )

    def _make_environments(self) -> Environments:
        return Environments(self, NODE_IP)

    def _listen(self) -> None:
        """Take the signals, and the calls of those that join."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.watch(self._wake_read, self._drain_wake)
        self.watch(self.startup.listener.fileno(), self.lines.accept)

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Announce the head, and serve until the session ends."""
        self._open()
        while self.running:
            try:
                self._turn()
            except Exception:
                self.log_exception()
        self._end()

    def _open(self) -> None:
        startup = self.startup
        self._listen()
        self.watch(self.transport.fileno(), lambda: None)
        self.starter.open()
        self._open_tables()
        self.gcs.open_head_node()
        self.leases.open(startup.prestarted)
        self._announce()

    def _announce(self) -> None:
        """Tell who started this head, and those who look for one, that it is there."""
        startup, config = self.startup, self.config
        if config.driver_id:
            driver = Member(config.driver_id, "driver", startup.node_id, time.time())
            self.members[config.driver_id] = driver
            self.lines.take(driver, startup.line)
        sessions.write_registry(self.session_info())
        ready = HeadReady(
            self.transport.address,
            startup.epoch,
            os.getpid(),
            startup.port,
            startup.node_id,
            startup.lifeline,
            [request.key for request in startup.prestarted],
        )
        try:
            startup.line.sendall(msgspec.json.encode(ready) + b"\n")
        except OSError:
            pass  # nobody waits for it any more; a private head will see the end of file
        if config.guarded:
            startup.line.setblocking(False)
            self.watch(startup.line.fileno(), self.lines.on_guard)
        elif not config.driver_id:
            startup.line.close()

    def _open_tables(self) -> None:
        """The durable path, where there is to be one, and what an earlier head has left there."""
        config = self.config
        if not config.reconnect_s and not config.storage:
            return
        stored = None
        if config.epoch > 1 or config.storage:
            from miniray.system.durable_log import load  # for a head that has a past

            stored = load(storage_of(config.session_dir, config.storage))
        if stored is not None:
            self.gcs.tables.restore(stored.rows, stored.sequence)
            self.gcs.durable.open(stored)
            self.recovery.begin(stored, same_session=config.epoch > 1)
        else:
            self.gcs.durable.open()

    def session_info(self) -> sessions.SessionInfo:
        """What the registry file says."""
        startup, config = self.startup, self.config
        return sessions.SessionInfo(
            session_name=config.session_name,
            directory=config.session_dir,
            store=config.store_dir,
            token=config.token,
            pid=os.getpid(),
            address=self.transport.address,
            lifeline=startup.lifeline,
            epoch=startup.epoch,
            version=config.version,
            port=startup.port,
            private=config.private,
            start_time=startup.start_time,
            transport=config.transport,
            node_id=startup.node_id,
            reconnect_s=config.reconnect_s,
        )

    def _turn(self) -> None:
        transport = self.transport
        handled = 0
        while handled < _AT_ONCE and transport.pending():
            handled += 1
            try:
                envelope = transport.receive_nowait()
            except msgspec.DecodeError as error:
                print(f"head: dropped a frame that is no envelope: {error}", file=sys.stderr, flush=True)
                continue
            if envelope is not None:
                self._handle(envelope)
        self.now = time.monotonic()
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        self.leases.schedule()
        self.gcs.flush()
        self.flush()
        if not self.running or transport.pending():
            wait = 0
        else:
            until = [at for at in (self.leases.wake_at, self._timers[0][0] if self._timers else None) if at is not None]
            wait = -1 if not until else max(0, int((min(until) - time.monotonic()) * 1000) + 1)
        for fd, _ in self._poll.poll(wait):
            handler = self._handlers.get(fd)
            if handler is not None:
                self.now = time.monotonic()
                handler()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor is readable."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run the action once the clock shows `when`."""
        heapq.heappush(self._timers, (when, next(self._numbers), action))

    def log_exception(self) -> None:
        """A handler failed: say so in the log."""
        import traceback  # only then

        traceback.print_exc()
        sys.stderr.flush()

    def wake(self) -> None:
        """Make the loop turn. Callable from any thread."""
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            pass  # it is awake

    def _drain_wake(self) -> None:
        os.read(self._wake_read, 4096)
        while self._from_threads:
            self._from_threads.popleft()()

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run the action in the loop. Callable from any thread; the rest of the head is not."""
        self._from_threads.append(action)
        self.wake()

    def _on_sigterm(self, number: int, frame: object) -> None:
        self.ends.stop("the head was terminated")

    # -- messages --------------------------------------------------------------------------------------------------

    def _handle(self, envelope: Envelope) -> None:
        sender = envelope.sender
        for message in envelope.messages:
            if sender in self._refused and not isinstance(message, control.RegisterDriver):
                continue
            handler = self._messages.get(type(message))
            if handler is None:
                print(f"head: nobody here handles {type(message).__name__}", file=sys.stderr, flush=True)
                continue
            request_id = getattr(message, "request_id", 0)
            if request_id > 0 and (sender, request_id) in self._replies:
                self.post(sender, self._replies[(sender, request_id)])
                continue
            self.now = time.monotonic()
            try:
                handler(sender, message)
            except Exception as error:
                self.log_exception()
                if request_id > 0:
                    self.reply(sender, request_id, f"{type(error).__name__}: {error}", "RaySystemError")

    def post(self, worker_id: bytes, message: Message) -> None:
        """Send it at the end of this turn; to somebody without a known inbox it goes nowhere."""
        self._outbox.setdefault(worker_id, []).append(message)

    def reply(self, worker_id: bytes, request_id: int, value: Any = None, error: str = "") -> None:
        """Answer a request."""
        if request_id > 0:
            self.answer(worker_id, request_id, control.Reply(request_id, value, error))

    def answer(self, worker_id: bytes, request_id: int, message: Message) -> None:
        """Answer a request, and keep the answer in case that it is asked again."""
        self.keep_answer(worker_id, request_id, message)
        self.post(worker_id, message)

    def keep_answer(self, worker_id: bytes, request_id: int, message: Message) -> None:
        """This was answered; the next one who asks gets the same."""
        self._replies[(worker_id, request_id)] = message
        if len(self._replies) > self._kept_replies:
            self._replies.popitem(last=False)

    def flush(self) -> None:
        """Send each peer what there is for it."""
        if self._outbox:
            outbox, self._outbox = self._outbox, {}
            for worker_id, messages in outbox.items():
                address = self._peers.get(worker_id)
                if address is not None:
                    self.transport.send(address, messages)

    def forget(self, worker_id: bytes) -> None:
        """That process is gone: nothing is sent there any more."""
        self._peers.pop(worker_id, None)
        self._outbox.pop(worker_id, None)
        self.transport.forget(worker_id)

    def _on_hello(self, sender: bytes, message: control.Hello) -> None:
        self._peers[sender] = message.address
        if message.version != self.config.version:
            self._refused.add(sender)

    def _on_goodbye(self, sender: bytes, message: control.Goodbye) -> None:
        member = self.members.get(sender)
        if member is not None and not member.dead:
            member.goodbye = message.reason or "it left in good order"
            if member.kind == "worker":
                self.leases.on_leaving(sender)
        elif member is None and self._peers.pop(sender, None) is not None:
            # It asked something and went (`control_client`).
            self.transport.forget(sender)

    def _on_register_driver(self, sender: bytes, message: control.RegisterDriver) -> None:
        error = ""
        if sender in self._refused:
            error = (
                f"Version mismatch: this session runs miniray {self.config.version}, and the driver another version. "
                "Use the same version in both."
            )
        elif self.stopping:
            error = f"This session is ending: {self.stopping}."
        if error:
            refusal = control.DriverRegistered(message.request_id, b"", b"", "", {}, error)
            self.answer(sender, message.request_id, refusal)
            return
        driver = self.members.get(sender)
        if driver is None:  # its life line comes on another road
            driver = self.members[sender] = Member(sender, "driver", self.startup.node_id, time.time())
        driver.pid = message.pid
        driver.address = self._peers.get(sender)
        driver.registered = True
        self.gcs.durable.answer(sender, message.request_id, self.gcs.register_job(driver, message))

    def _on_register_worker(self, sender: bytes, message: control.RegisterWorker) -> None:
        worker = self.members.get(sender)
        if worker is None or worker.kind != "worker":
            self._peers[sender] = message.address
            self.post(sender, control.Exit("the head does not know this worker", force=True))
            return
        self._peers[sender] = worker.address = message.address
        worker.pid = message.pid
        worker.registered = True
        worker.out_file = worker.out_file.format(pid=message.pid)
        worker.err_file = worker.err_file.format(pid=message.pid)
        if self.stopping:
            self.post(sender, control.Exit(self.stopping))
        self.leases.on_registered(worker)
        self.gcs.put_worker(worker)

    def on_watch(self, sender: bytes, message: control.WatchWorker) -> None:
        """Somebody wants to know when a process dies."""
        member = self.members.get(message.worker_id)
        if member is not None and not member.dead:
            member.watchers.add(sender)
            return
        notice = self.dead.get(message.worker_id)
        if notice is None:
            notice = control.WorkerDied(
                message.worker_id, b"", 0, False, "SYSTEM_ERROR", "No process of this session has that id."
            )
        self.post(sender, notice)

    def _on_collect_garbage(self, sender: bytes, message: control.CollectGarbage) -> None:
        for worker_id in self.members:
            self.post(worker_id, message)

    def _on_stop(self, sender: bytes, message: control.StopSession) -> None:
        self.reply(sender, message.request_id, True)
        self.flush()
        self.ends.stop("the driver ended the session" if sender == self.config.driver_id else "it was stopped")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for member in self.members.values():
            if member.orphan:
                self.ends.kill(member, self.stopping)
        self.environments.end()
        self.starter.end()
        self.gcs.durable.close(feed=bool(self.config.storage))
        self.startup.leave_storage()
        sessions.remove_session(self.config.session_dir, self.config.store_dir)
