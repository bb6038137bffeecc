"""Local mode: a worker as a thread of the driver's process.

It is the same core worker and executor; only what belongs to a process as a whole is left alone: the working
directory, `sys.argv`, the output (which is printed as it comes), environment variables, exit handlers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from miniray.messages import control
from miniray.messages.objects import Address
from miniray.processes import current
from miniray.processes.core_worker import CoreWorker
from miniray.processes.executor import Executor
from miniray.processes.local_host import ThreadHost, WorkerKilled, raise_in_thread
from miniray.processes.trace import install_trace
from miniray.system.sockets import LoopbackTransport
from miniray.version import __version__

#: The exit code of a worker that was killed, as of a process: minus SIGKILL.
KILLED = -9


class LocalOutput:
    """A worker's output in local mode: nobody has to relay it."""

    dirty = False
    name = ""
    actor = ""

    def relay(self, name: str = "") -> None:
        """It is printed already."""

    def watch(self, name: str) -> None:
        """It is printed at once."""


class LocalWorker:
    """One worker. It starts at once.

    Args:
        worker_id: who it is.
        number: its own, in place of a process id.
        make_core: makes its core worker on the transport that it is given.
        registry: the transports of the session.
        ended: called once nobody hears of it any more, by whatever thread knows.
        watch: what hears of its waits.
    """

    def __init__(
        self,
        worker_id: bytes,
        number: int,
        make_core: Callable[[LoopbackTransport], CoreWorker],
        registry: dict[bytes, LoopbackTransport],
        ended: Callable[[LocalWorker], None],
        watch: Any,
    ) -> None:
        self._watch = watch
        self.worker_id = worker_id
        self.exit_code = 0
        self._number = number
        self._make_core = make_core
        self._registry = registry
        self._ended = ended
        self._killed = False
        self.starting = True  #: the head has not heard of it yet
        self._prodding = threading.Lock()
        self._prodded: int | None = None  #: the thread that may get an exception now: user code may run there
        self.core: CoreWorker | None = None
        self._thread = threading.Thread(target=self._run, name="miniray-worker", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End it at once: it says nothing more, and hears nothing. Callable from any thread."""
        if self._killed or not self._thread.is_alive():
            return
        self._killed = True
        self.exit_code = KILLED
        core = self.core
        if core is not None:
            core.closed = True
            core.transport.close(goodbye=False)
            core.reactor.abandon()
        self._prod()
        self._ended(self)

    def _prod(self) -> None:
        with self._prodding:
            if self._prodded is not None and self._prodded != threading.get_ident():
                raise_in_thread(self._prodded, WorkerKilled)

    def join(self, timeout: float) -> bool:
        """Wait for the thread. Returns whether it has ended."""
        left = timeout
        while self._thread.is_alive() and left > 0:
            # What the user's code has caught, it gets again.
            self._thread.join(min(left, 0.1))
            left -= 0.1
            if self._killed:
                self._prod()
        return not self._thread.is_alive()

    # -- in its thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self.starting = False
            if not self._killed:
                self._ended(self)

    def _work(self) -> None:
        transport = LoopbackTransport(self.worker_id, self._registry, kind="worker", version=__version__)
        install_trace(transport, "worker")
        core = self._make_core(transport)
        core.number = self._number
        core.wait_watch = self._watch
        self.core = core
        core.main_context = current.TaskContext(os.urandom(24), "", 0)
        current.enter(core)
        executor = Executor(core, LocalOutput(), ThreadHost(self.kill))  # type: ignore[arg-type]
        core.reactor.on_idle = executor.idle
        executor.runner.adopt_job = lambda job_id: _adopt_job(core, job_id)
        core.reactor.start_standby(lambda: current.enter(core))
        core.post_to_head(control.RegisterWorker(core.address, self._number, core.node_id))
        self.starting = False
        reason = ""
        try:
            with self._prodding:
                self._prodded = threading.get_ident()
            if not self._killed:
                reason = executor.run()
            if core.actor is not None and not self._killed:
                core.actor.shut_down()
        except WorkerKilled:
            pass
        self._stay_undisturbed()
        self._leave(core, executor, reason)

    def _stay_undisturbed(self) -> None:
        """From here on no exception comes from outside: what follows must not be torn."""
        for _ in range(10):  # the exception comes where a loop goes round, if not before
            try:
                with self._prodding:
                    self._prodded = None
            except WorkerKilled:
                pass

    def _leave(self, core: CoreWorker, executor: Executor, reason: str) -> None:
        """Objects stay behind for the node; threads that the actor has, end."""
        store = core.objects.memory.opened
        if store is not None:
            store.hand_over()
        if core.actor is not None:
            core.actor.stop_groups()
        if self._killed:
            core.closed = True
            core.transport.close(goodbye=False)
            core.reactor.close()
            core.objects.close()
        else:
            with core.lock:
                executor.events.flush()
            core.close(reason)
        executor.close()


def _adopt_job(core: CoreWorker, job_id: bytes) -> None:
    """The first task of a job has come. The process looks like its driver already."""
    row: dict[str, Any] = core.head_client.request(lambda number: control.Query(number, "job", {"job_id": job_id}))
    core.job_id = job_id
    core.tasks.use_job(job_id)
    core.namespace = row["namespace"]
    core.job_config = row["config"]


def worker_core(
    transport: LoopbackTransport,
    *,
    head: Address,
    node_id: bytes,
    store_dir: str,
    session: dict[str, Any],
    runtime_env: str,
) -> CoreWorker:
    """The core worker of a worker in local mode."""
    core = CoreWorker(
        transport, head, node_id=node_id, job_id=b"\0\0\0\0", store_dir=store_dir, mode="worker", session=dict(session)
    )
    core.runtime_env = runtime_env
    return core
