"""Local mode: a whole session in one process, so that breakpoints, debuggers, coverage, monkeypatch and plain
tracebacks reach into tasks and actors.

It is the same protocol. The head (`local_head`) and each worker (`local_worker`) are threads; their transports are
queues (`system.sockets.LoopbackTransport`); messages, arguments and results are encoded and decoded as between
processes, so that order, ownership, copies and errors are what they are there. What is different: what belongs to a
process as a whole (global variables of modules, environment, working directory, exit) is shared by all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from miniray.messages import control
from miniray.messages.startup import HeadConfig
from miniray.processes import current, local_host, local_objects
from miniray.processes.core_worker import CoreWorker
from miniray.processes.driver import register, watch_forks
from miniray.processes.driver_output import DriverOutput
from miniray.processes.local_deadlock import WaitWatch
from miniray.processes.local_head import LocalHead, LocalStartup
from miniray.processes.local_worker import LocalWorker, worker_core
from miniray.processes.reactor import Waiter
from miniray.processes.trace import install_trace
from miniray.system import session as sessions
from miniray.system import user_log
from miniray.system.sockets import LoopbackTransport
from miniray.version import __version__

#: Seconds that the head has to start, and to end.
WITHIN = 5.0


class LocalSession:
    """A driver, its head and its workers in this process."""

    def __init__(self, core: CoreWorker, head: LocalHead, output: DriverOutput, row: dict[str, Any]) -> None:
        self.core = core
        self.row = row
        self._head = head
        self._output = output

    def disconnect(self, exiting: bool = False) -> None:
        """End the session. Safe to call twice."""
        core, head = self.core, self._head
        if core.closed:
            return
        core.reactor.restore_sigint()
        if not core.head_lost:
            with core.lock:
                core.leaving = Waiter()
                core.settle()
                core.post(core.head, control.StopSession(0), True)
            core.reactor.wait(core.leaving, time.monotonic() + WITHIN)
        head.thread.join(WITHIN)
        core.close(goodbye=False)
        self._output.stop()
        core.wait_watch.stop()
        head.close()
        local_host.restore_sleep()
        local_objects.forget_all()
        if head.startup.paths.lock_fd >= 0:
            os.close(head.startup.paths.lock_fd)


def connect_local(
    head_config: HeadConfig, job: dict[str, Any], take_along: Callable[[str], dict[str, Any]] | None = None
) -> LocalSession:
    """Start a session in this process.

    Args:
        head_config: how the head is to be.
        job: namespace, config (plain data that workers and tables get).
        take_along: as of `driver.connect`.

    Raises:
        whatever `take_along` raises.
        RuntimeError: the head could not start, or refuses.
    """
    worker_id = os.urandom(28)
    capacity = head_config.object_store_memory or sessions.LEAST_CAPACITY
    paths = sessions.create_session(head_config.session_dir or None, capacity=capacity, spill_to=head_config.spill_to)
    if paths.warning:
        user_log.say(user_log.WARNING, paths.warning)
    if take_along is not None:
        try:
            job["config"]["runtime_env"] = take_along(paths.directory)
        except BaseException:
            sessions.remove_session(paths.directory, paths.store)
            if paths.lock_fd >= 0:
                os.close(paths.lock_fd)
            raise
    head_config.driver_id = worker_id
    head_config.session_dir, head_config.session_name = paths.directory, paths.session_name
    head_config.store_dir, head_config.token = paths.store, paths.token
    startup = LocalStartup(head_config, paths)
    registry: dict[bytes, LoopbackTransport] = {}
    session: dict[str, Any] = {
        "session_name": paths.session_name,
        "session_dir": paths.directory,
        "log_dir": paths.logs,
        "spill_dir": paths.spill,
        "disk_threshold": startup.disk_threshold,
    }

    def make_worker(
        worker_id: bytes, node_id: bytes, number: int, runtime_env: str, ended: Callable[[LocalWorker], None]
    ) -> LocalWorker:
        make_core = partial(
            worker_core,
            head=startup.address,
            node_id=node_id,
            store_dir=paths.store,
            session=session,
            runtime_env=runtime_env,
        )
        return LocalWorker(worker_id, number, make_core, registry, ended, core.wait_watch)

    transport = LoopbackTransport(worker_id, registry, kind="driver", version=__version__)
    install_trace(transport, "driver")
    transport.epoch = startup.epoch
    core = CoreWorker(
        transport,
        startup.address,
        node_id=startup.node_id,
        job_id=b"\0\0\0\0",
        store_dir=paths.store,
        mode="driver",
        session=dict(session),
    )
    head = LocalHead(startup, registry, make_worker, partial(core.lose_head, "The head of this session has ended."))
    output = DriverOutput()
    core.on_warning = output.warning
    local_host.replace_sleep()

    def cores() -> list[CoreWorker]:
        workers = [worker.core for worker in list(head.local_workers.workers.values())]
        return [core, *(one for one in workers if one is not None and not one.closed)]

    def busy() -> bool:
        workers = list(head.local_workers.workers.values())
        return not head.has_been_round() or any(worker.starting for worker in workers)

    core.wait_watch = WaitWatch(cores, busy)
    head.thread.start()
    session_of_driver = LocalSession(core, head, output, {})
    try:
        head.ready.wait(WITHIN)
        session_of_driver.row = register(core, job)
    except BaseException:
        session_of_driver.disconnect()
        raise
    core.reactor.defer_sigint()
    core.reactor.start_standby()
    current.set_core(core, alone=False)
    watch_forks()
    return session_of_driver
