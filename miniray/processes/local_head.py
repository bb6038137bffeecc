"""Local mode: the head in a thread of the driver's process, and workers as threads beside it.

It is the same head. Its inbox is a queue instead of a socket, it takes no signals and nobody can join it, and instead
of a fork server it starts threads. The end of a worker is known when its thread ends; there are no life lines.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from miniray.messages.objects import Address
from miniray.messages.startup import EnvironmentPlan, HeadConfig
from miniray.processes.head_environments import Environments
from miniray.processes.head_gcs import NODE_IP
from miniray.processes.head_members import Member
from miniray.processes.head_shell import Head
from miniray.processes.head_startup import Startup
from miniray.processes.head_workers import WorkerStarter
from miniray.system import machine, user_log
from miniray.system.session import SessionPaths
from miniray.system.sockets import LoopbackTransport

if TYPE_CHECKING:
    from miniray.processes.local_worker import LocalWorker

#: Seconds that threads have to end when the session does.
THREADS_END_WITHIN = 2.0
_ENVIRONMENTS = (
    "In local mode all tasks and actors run in this process: the variables, working directory and packages of runtime "
    "environments are not set."
)
#: No process has a higher number: from here on workers that are none are counted.
HIGHEST_PID = 1 << 22


class LocalStartup(Startup):
    """What the head is told in local mode: there is nothing to be opened."""

    def __init__(self, config: HeadConfig, paths: SessionPaths) -> None:
        self.config = config
        self.paths = paths
        self.head_id = os.urandom(28)
        self.node_id = os.urandom(28)
        self.epoch = 1
        self.start_time = time.time()
        self.num_cpus = float(machine.cpu_count()) if config.num_cpus is None else config.num_cpus
        self.socket_dir = ""
        self.socket_name = "head"
        self.lifeline = ""
        self.address = Address(self.head_id, f"loopback://{self.head_id.hex()}")
        self.port = 0
        self.prestart, self.prestarted = 0, []


class LocalHead(Head):
    """The head as a thread. `ready` is set once it can be written to.

    Args:
        startup: who it is.
        registry: the transports of this session.
        make_worker: makes and starts a worker: called with (worker id, node id, its number, its runtime environment,
            what to call at its end).
        ended: called when the head is at its end.
    """

    def __init__(
        self,
        startup: LocalStartup,
        registry: dict[bytes, LoopbackTransport],
        make_worker: Callable[[bytes, bytes, int, str, Callable[[LocalWorker], None]], LocalWorker],
        ended: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._make_worker = make_worker
        self._ended_callback = ended
        self.local_workers: LocalWorkers
        self.ready = threading.Event()
        self._been_round = True
        super().__init__(startup, None)  # type: ignore[arg-type]
        self.memory_monitor.interval = 0.0  # there is no process to be killed but this one
        self.thread = threading.Thread(target=self._serve, name="miniray-head", daemon=True)

    def _make_transport(self) -> Any:
        return LoopbackTransport(self.startup.head_id, self._registry, kind="head", version=self.config.version)

    def _make_starter(self, fork_server: Any) -> WorkerStarter:
        self.local_workers = LocalWorkers(self, self._make_worker)
        return self.local_workers

    def _make_environments(self) -> Environments:
        return LocalEnvironments(self, NODE_IP)

    def _listen(self) -> None:
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.watch(self._wake_read, self._drain_wake)

    def _announce(self) -> None:
        config = self.config
        self.members[config.driver_id] = Member(config.driver_id, "driver", self.startup.node_id, time.time())
        self.ready.set()

    def _serve(self) -> None:
        try:
            self.run()
        finally:
            self._ended_callback()

    def call_from_outside(self, action: Callable[[], None]) -> None:
        """Let the head's thread do that."""
        try:
            self.call_soon(action)
        except OSError:
            pass  # it is at its end

    def has_been_round(self) -> bool:
        """Whether it has come to its wishes from outside since this was asked last. For one thread."""
        answer, self._been_round = self._been_round, False
        self.call_from_outside(self._note_round)
        return answer

    def _note_round(self) -> None:
        self._been_round = True

    def close(self) -> None:
        """Once its thread and all others that may write to it have ended."""
        self.transport.close(goodbye=False)
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.local_workers.workers.clear()


class LocalEnvironments(Environments):
    """Of an environment a thread can have its packages only: their places go to the end of the import path."""

    def __init__(self, head: LocalHead, node_ip: str) -> None:
        super().__init__(head, node_ip)
        self._added: list[str] = []

    def _set_up(self, runtime_env: str, timeout: float) -> None:
        self._finish(
            runtime_env,
            EnvironmentPlan(error="This runtime environment needs processes, and in local mode there are none."),
        )

    def _finish(self, runtime_env: str, plan: EnvironmentPlan) -> None:
        places = [place for place in plan.import_path if place not in sys.path]
        sys.path += places
        self._added += places
        super()._finish(runtime_env, plan)

    def end(self) -> None:
        super().end()
        for place in self._added:
            if place in sys.path:
                sys.path.remove(place)


class LocalWorkers(WorkerStarter):
    """Starts threads, and notices their ends."""

    def __init__(
        self,
        head: LocalHead,
        make_worker: Callable[[bytes, bytes, int, str, Callable[[LocalWorker], None]], LocalWorker],
    ) -> None:
        self._local_head = head
        self._head = head
        self._make_worker = make_worker
        self._number = HIGHEST_PID
        self.workers: dict[bytes, LocalWorker] = {}  #: those whose threads run; killed ones may still be among them
        self._told = False

    def open(self) -> None:
        pass

    def start(self, node_id: bytes, runtime_env: str = "", plan: EnvironmentPlan | None = None) -> Member:
        if plan is not None and (plan.env or plan.working_dir or plan.import_path or plan.command) and not self._told:
            self._told = True
            user_log.say(user_log.WARNING, _ENVIRONMENTS)
        for killed in [worker for worker in self.workers.values() if worker.exit_code and worker.join(0.0)]:
            del self.workers[killed.worker_id]
        worker_id = os.urandom(28)
        self._number += 1
        member = self.expect(worker_id, node_id, "", "")
        self.workers[worker_id] = self._make_worker(worker_id, node_id, self._number, runtime_env, self._thread_ended)
        return member

    def kill(self, member: Member) -> None:
        worker = self.workers.get(member.worker_id)
        if worker is not None:
            worker.kill()

    def _thread_ended(self, worker: LocalWorker) -> None:
        """Called by the worker's thread, or by whoever kills it: then the thread itself may take longer."""
        self._local_head.call_from_outside(partial(self._settle, worker))

    def _settle(self, worker: LocalWorker) -> None:
        member = self._head.members.get(worker.worker_id)
        if member is not None and member.exit_code is None:
            if not worker.exit_code:
                del self.workers[worker.worker_id]
            member.exit_code = worker.exit_code
            self._head.ends.settle(member)

    def end(self) -> None:
        """The session ends: kill what has not left, and wait for the threads."""
        for worker in self.workers.values():
            worker.kill()
        deadline = time.monotonic() + THREADS_END_WITHIN
        for worker in self.workers.values():
            worker.join(max(0.0, deadline - time.monotonic()))
