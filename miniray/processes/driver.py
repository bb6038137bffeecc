"""The driver's part of a session: find or start a head, register a job, and leave nothing behind.

`connect` does the least that must happen before it returns. It starts the head first of all, and imports what the
driver itself needs while the head starts; workers are forked in the background meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray.messages.startup import HeadConfig, HeadReady
from miniray.processes import current
from miniray.system import session as sessions
from miniray.system import user_log
from miniray.system.process_start import HeadProcess, start_head
from miniray.version import __version__

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.driver_output import DriverOutput
    from miniray.processes.head_link import HeadLink

#: Seconds that a shutdown waits for the head to be gone before it is killed.
SHUTDOWN_TIMEOUT = 5.0

_numbers = iter(range(1 << 62))


class DriverSession:
    """A driver that is connected to a head."""

    def __init__(
        self,
        core: CoreWorker,
        paths: sessions.SessionPaths,
        head: HeadProcess | None,
        link: HeadLink,
        output: DriverOutput,
        row: dict[str, Any],
    ) -> None:
        self.core = core
        self.paths = paths
        self.head = head
        self.row = row
        self._link = link
        self._output = output

    def disconnect(self, exiting: bool = False) -> None:
        """Leave the session; end it when this driver started it (unless it is shared). Safe to call twice."""
        core = self.core
        if core.closed:
            return
        from miniray.messages.control import StopSession
        from miniray.processes.reactor import Waiter

        head = self.head
        core.reactor.restore_sigint()
        if head is not None and not core.head_lost:
            # Until the head hangs up, what workers printed may still arrive.
            with core.lock:
                core.leaving = Waiter()
                core.settle()
                core.post(core.head, StopSession(0), True)
            core.reactor.wait(core.leaving, time.monotonic() + SHUTDOWN_TIMEOUT)
            core.close(goodbye=False)
        else:
            core.close("driver exit")
        self._link.close()
        self._output.stop()
        if head is not None:
            if not head.wait_exit(SHUTDOWN_TIMEOUT):
                head.kill()
                head.wait_exit(SHUTDOWN_TIMEOUT)
            sessions.remove_session(self.paths.directory, self.paths.store)


def connect(
    info: sessions.SessionInfo | None,
    head_config: HeadConfig,
    job: dict[str, Any],
    take_along: Callable[[str], dict[str, Any]] | None = None,
) -> DriverSession:
    """Join a running session, or start a private one.

    Args:
        info: the session to join, as `system.session.find_session` found it; None starts one.
        head_config: how a head that has to be started is to be.
        job: namespace, config (plain data that workers and tables get).
        take_along: puts what the job's runtime environment needs into the session's directory, and returns the
            environment; None: it has none.

    Raises:
        whatever `take_along` raises.
        RuntimeError: the head could not start, or speaks another version.
    """
    worker_id = os.urandom(28)
    head: HeadProcess | None = None
    ready: HeadReady | None = None
    if info is None:
        capacity = head_config.object_store_memory or sessions.LEAST_CAPACITY
        paths = sessions.create_session(head_config_root(head_config), capacity=capacity, spill_to=head_config.spill_to)
        if paths.warning:
            user_log.say(user_log.WARNING, paths.warning)
        head_config.driver_id = worker_id
        if "MINIRAY_TRACE" in os.environ:
            from miniray.processes.trace import prepare_trace

            prepare_trace()
        head = start_head(paths, head_config)
    elif info.version != __version__:
        raise RuntimeError(
            f"Version mismatch: the session at {info.gcs_address} runs miniray {info.version}, this process is miniray "
            f"{__version__}. Use the same version in both."
        )
    else:
        paths = info.paths
    # What follows is imported while the head starts.
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.driver_output import DriverOutput
    from miniray.processes.head_link import HeadLink
    from miniray.processes.trace import install_trace
    from miniray.system import lifeline
    from miniray.system.limits import raise_file_limit
    from miniray.system.sockets import ZmqTransport

    raise_file_limit()
    transport_kind = info.transport if info is not None else head_config.transport
    transport = ZmqTransport(
        worker_id,
        paths.sockets if transport_kind == "ipc" else None,
        f"d{os.getpid()}-{next(_numbers)}",
        kind="driver",
        version=__version__,
        token=paths.token,
    )
    install_trace(transport, "driver")
    try:
        if take_along is not None:
            job["config"]["runtime_env"] = take_along(paths.directory)
        if head is not None:
            ready = head.wait_ready()
            head_address, epoch, node_id = ready.address, ready.epoch, ready.node_id
            line = head.lifeline
        else:
            assert info is not None
            head_address, epoch, node_id = info.address, info.epoch, info.node_id
            line = lifeline.connect(info.lifeline, worker_id, paths.token)
    except BaseException:
        transport.close(goodbye=False)
        if head is not None:
            head.lifeline.close()
            head.kill()
            head.wait_exit(SHUTDOWN_TIMEOUT)
            sessions.remove_session(paths.directory, paths.store)
        raise
    transport.epoch = epoch
    core = CoreWorker(
        transport,
        head_address,
        node_id=node_id,
        job_id=b"\0\0\0\0",
        store_dir=paths.store,
        mode="driver",
        session={"session_name": paths.session_name, "session_dir": paths.directory, "log_dir": paths.logs},
    )
    output = DriverOutput()
    core.on_log_lines = output.lines
    core.on_warning = output.warning
    if job["config"].get("log_to_driver", True):
        core.on_last_words = output.last_words

    def head_gone(reason: str) -> None:
        core.lose_head(
            reason
            or "The head process of this session is gone (it was killed or it crashed), and the session with it. "
            "Call shutdown() and init() to start another one."
        )
        if head is not None:
            sessions.remove_session(paths.directory, paths.store)

    link = HeadLink(
        core,
        line,
        session_dir=paths.directory,
        reconnect_s=info.reconnect_s if info is not None else 0.0,
        on_lost=head_gone,
    )
    try:
        row = register(core, job)
    except BaseException:
        core.close(goodbye=False)
        link.close()
        output.stop()
        if head is not None:
            head.kill()
            head.wait_exit(SHUTDOWN_TIMEOUT)
            sessions.remove_session(paths.directory, paths.store)
        raise
    core.reactor.defer_sigint()
    core.reactor.start_standby()
    current.set_core(core)
    watch_forks()
    return DriverSession(core, paths, head, link, output, row)


def register(core: CoreWorker, job: dict[str, Any]) -> dict[str, Any]:
    """Make this driver known to its head, and take over what the head answers.

    Args:
        job: as of `connect`.

    Returns:
        What the session says of itself.

    Raises:
        RuntimeError: the head refuses.
    """
    from miniray.ids import driver_task_id
    from miniray.messages import control

    registered: control.DriverRegistered = core.head_client.ask(
        lambda number: control.RegisterDriver(number, os.getpid(), job["entrypoint"], job["namespace"], job["config"])
    )
    if registered.error:
        raise RuntimeError(registered.error)
    core.job_id = registered.job_id
    core.node_id = registered.node_id
    core.namespace = registered.namespace
    core.session.update(registered.session)
    core.node_ip = core.session.get("node_ip", "127.0.0.1")
    core.job_config = job["config"]
    core.runtime_env = _serialized_runtime_env(job)
    core.tasks.use_job(registered.job_id)
    core.main_context = current.TaskContext(driver_task_id(registered.job_id), "", 0)
    return {**registered.session, "node_id": registered.node_id.hex()}


def _serialized_runtime_env(job: dict[str, Any]) -> str:
    """The runtime environment of a job as it travels: JSON, "" for none."""
    runtime_env = job["config"].get("runtime_env")
    if not runtime_env:
        return ""
    import json  # few drivers have one

    return json.dumps(runtime_env, sort_keys=True)


def head_config_root(config: HeadConfig) -> str | None:
    """Where the session directory goes: the head's config knows when the user said where."""
    return config.session_dir or None


_watching_forks = False


def watch_forks() -> None:
    """A process that the user forks must not use the session's sockets and locks: it gets a clear error instead."""
    global _watching_forks
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    core = current.core_or_none()
    if core is not None:
        core.reactor.deep = False
        core.transport._closed = True  # type: ignore[attr-defined]
        core.closed = True
        if signal.getsignal(signal.SIGINT) == core.reactor._on_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        current.set_core(None)
        current.forked = True


def job_config(namespace: str | None, **extra: Any) -> dict[str, Any]:
    """What workers have to know of this driver."""
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]
    argv = getattr(sys, "argv", None) or [""]
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    config: dict[str, Any] = {
        "cwd": os.getcwd(),
        "sys_path": path,
        "argv0": argv[0],
        "script_dir": os.path.dirname(os.path.abspath(script)) if script else "",
        "start_time": time.time(),
        "threads": threading.active_count(),
    }
    config.update(extra)
    return {"namespace": namespace or "", "entrypoint": " ".join([sys.executable, *argv]), "config": config}
