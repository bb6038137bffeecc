"""The head's part in runtime environments: have them made, remember how their workers are started, and hang up when
nobody uses them.

What is only environment variables, or a package that the session has, is clear at once. Everything else (downloads,
virtual environments, plugins) is made by a set-up process (`runtime_env.setup_process`), so that the head never waits;
it ends with the head, and after the time that the environment allows. An environment with an interpreter of its own has
a fork server of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages.startup import EnvironmentPlan, EnvironmentRequest
from miniray.processes.head_members import Member
from miniray.processes.head_workers import WorkerStarter
from miniray.system.fork_server_connection import ForkServerConnection, exec_fork_server
from miniray.system.process_start import python_command, spawn

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds; Ray's default for the set-up, and how long it remembers a failure
SETUP_TIMEOUT = 600.0
_REMEMBER_FAILURE = 10.0
#: bytes of all packages of a session, beyond which unused ones go
PACKAGES_LIMIT = 10 << 30
_decode_plan = msgspec.json.Decoder(EnvironmentPlan).decode


class _SetUp:
    """A set-up process at work."""

    def __init__(self, connection: socket.socket, pid: int, log: str) -> None:
        self.connection = connection
        self.pid = pid
        self.log = log
        self.answer = b""


class _Environment:
    """An environment that is ready."""

    def __init__(self, plan: EnvironmentPlan, lock: int, starter: WorkerStarter | None) -> None:
        self.plan = plan
        self.lock = lock  #: descriptor, -1: none
        self.starter = starter

    def unlock(self) -> None:
        """Its virtual environment may go, as far as it is ours to say."""
        if self.lock >= 0:
            os.close(self.lock)


class Environments:
    """All runtime environments of a session. They are named by their JSON.

    Args:
        node_ip: for the texts of errors.
    """

    def __init__(self, head: Head, node_ip: str) -> None:
        self._head = head
        self._node_ip = node_ip
        self._ready: dict[str, _Environment] = {}
        self._at_work: dict[str, _SetUp] = {}
        self._failures: dict[str, tuple[float, str]] = {}

    # -- making them ---------------------------------------------------------------------------------------------------

    def prepare(self, runtime_env: str) -> None:
        """Make it; `Leases.prepared` or `Leases.unprepared` hears of the end."""
        head = self._head
        failure = self._failures.get(runtime_env)
        if failure is not None and head.now - failure[0] < _REMEMBER_FAILURE:
            head.leases.unprepared(runtime_env, failure[1])
            return
        # Here and below: a session without environments does not pay for these imports.
        from miniray.processes.environment_plan import CONFIGURATION, immediate_plan
        from miniray.system.package_store import PackageStore

        fields: dict[str, Any] = msgspec.json.decode(runtime_env)
        plan = immediate_plan(fields, PackageStore(head.config.session_dir))
        if plan is not None:
            self._finish(runtime_env, plan)
            return
        timeout = float((fields.get(CONFIGURATION) or {}).get("setup_timeout_seconds") or SETUP_TIMEOUT)
        try:
            self._set_up(runtime_env, timeout)
        except OSError as error:
            self._fail(runtime_env, f"Its set-up cannot be started: {error}")

    def _set_up(self, runtime_env: str, timeout: float) -> None:
        from miniray.system import environment_cache

        head = self._head
        name = _short_name(runtime_env)
        log = os.path.join(head.startup.paths.logs, f"runtime_env_setup-{name}.log")
        as_ray = any(job["config"].get("as_ray") for job in head.gcs.jobs.values() if not job["is_dead"])
        request = EnvironmentRequest(runtime_env, head.config.session_dir, environment_cache.directory(), as_ray)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = python_command("miniray.runtime_env.setup_process", "main")
                pid = spawn(command, {3: theirs.fileno()}, log, log)
            except BaseException:
                ours.close()
                raise
        try:
            ours.sendall(msgspec.json.encode(request) + b"\n")
        except ConnectionError:
            pass  # it is gone already, which its end of file will tell
        ours.setblocking(False)
        work = self._at_work[runtime_env] = _SetUp(ours, pid, log)
        head.watch(ours.fileno(), lambda: self._on_readable(runtime_env, work))
        if timeout > 0:
            head.call_at(head.now + timeout, lambda: self._on_overdue(runtime_env, work, timeout))

    def _on_readable(self, runtime_env: str, work: _SetUp) -> None:
        try:
            data = work.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        work.answer += data
        if data and not work.answer.endswith(b"\n"):
            return
        if work.answer.endswith(b"\n"):
            plan = _decode_plan(work.answer)
        else:
            plan = EnvironmentPlan(error=f"The process that sets it up is gone. Its log ends with:\n{_tail(work.log)}")
        # The set-up process holds its lock until it is hung up on.
        self._finish(runtime_env, plan)
        self._hang_up(runtime_env, work)

    def _on_overdue(self, runtime_env: str, work: _SetUp, timeout: float) -> None:
        if self._at_work.get(runtime_env) is not work:
            return
        text = (
            f"Failed to install runtime_env within the timeout of {timeout:.0f} seconds. Consider increasing the "
            "timeout in the runtime_env config. For example: \n"
            '    runtime_env={"config": {"setup_timeout_seconds": 1800}, ...}\n'
            f"If not provided, the default timeout is {SETUP_TIMEOUT:.0f} seconds."
        )
        self._hang_up(runtime_env, work)
        self._finish(runtime_env, EnvironmentPlan(error=text))

    def _hang_up(self, runtime_env: str, work: _SetUp) -> None:
        del self._at_work[runtime_env]
        self._head.unwatch(work.connection.fileno())
        work.connection.close()
        # It is our child and not reaped yet, so the number is its own, and that of its group.
        for kill in (os.killpg, os.kill):
            try:
                kill(work.pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            os.waitpid(work.pid, 0)
        except ChildProcessError:
            pass

    def _finish(self, runtime_env: str, plan: EnvironmentPlan) -> None:
        head = self._head
        if plan.error:
            self._fail(runtime_env, plan.error)
            return
        lock = -1
        try:
            lock = _lock(plan.lock) if plan.lock else -1
            starter = self._own_starter(runtime_env, plan)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            self._fail(runtime_env, f"It is made, and cannot be used: {error}")
            return
        self._failures.pop(runtime_env, None)
        self._ready[runtime_env] = _Environment(plan, lock, starter)
        head.leases.prepared(runtime_env)

    def _fail(self, runtime_env: str, text: str) -> None:
        head = self._head
        text = f"[Node {self._node_ip}] {text}"
        for name in [name for name, (at, _) in self._failures.items() if head.now - at >= _REMEMBER_FAILURE]:
            del self._failures[name]
        self._failures[runtime_env] = (head.now, text)
        head.leases.unprepared(runtime_env, text)

    # -- using them ----------------------------------------------------------------------------------------------------

    def start(self, node_id: bytes, runtime_env: str) -> Member:
        """Start a worker of an environment that is ready, or of none ("")."""
        head = self._head
        if not runtime_env:
            return head.starter.start(node_id)
        environment = self._ready[runtime_env]
        return (environment.starter or head.starter).start(node_id, runtime_env, environment.plan)

    def forget(self, runtime_env: str) -> None:
        """No worker of it is left, and nobody asks for one."""
        environment = self._ready.pop(runtime_env, None)
        if environment is not None:
            if environment.starter is not None:
                environment.starter.end()
            environment.unlock()

    def on_job_finished(self, runtime_env: dict[str, Any]) -> None:
        """A job with this environment is over: its packages may be in nobody's way any more."""
        from miniray.processes.environment_plan import packages_of
        from miniray.system.package_store import PackageStore

        if not packages_of(runtime_env):
            return
        head = self._head
        store = PackageStore(head.config.session_dir)
        needed = [msgspec.json.decode(name) for name in (*self._ready, *self._at_work)]
        needed += [job["config"].get("runtime_env") or {} for job in head.gcs.jobs.values() if not job["is_dead"]]
        keep = {store.path(uri, kind) for fields in needed for uri, kind in packages_of(fields)}
        # Not in the head's own thread: large packages take their time.
        threading.Thread(target=store.shrink, args=(keep, _packages_limit()), daemon=True).start()

    def end(self) -> None:
        """The session ends."""
        for runtime_env, work in list(self._at_work.items()):
            self._hang_up(runtime_env, work)
        for runtime_env in list(self._ready):
            self.forget(runtime_env)

    def _own_starter(self, runtime_env: str, plan: EnvironmentPlan) -> WorkerStarter | None:
        if not plan.command:
            return None
        startup = self._head.startup
        name = _short_name(runtime_env)
        err = os.path.join(startup.paths.logs, f"runtime_env_processes-{name}.err")

        def launch() -> ForkServerConnection:
            return exec_fork_server(startup.environment_fork_server_config(), plan, err)

        def hopeless() -> None:
            self._ready.pop(runtime_env).unlock()  # its starter has ended already
            text = f"The Python of this environment ({plan.command}) does not run miniray."
            self._fail(runtime_env, f"{text} It wrote:\n{_tail(err)}")

        starter = WorkerStarter(self._head, launch(), launch, hopeless)
        starter.open()
        return starter


def _lock(path: str) -> int:
    """Use a virtual environment, as long as the descriptor is open. Does not wait: its set-up process uses it, too."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _packages_limit() -> int:
    """Bytes, as in Ray."""
    try:
        return int(float(os.environ["RAY_RUNTIME_ENV_WORKING_DIR_CACHE_SIZE_GB"]) * (1 << 30))
    except (KeyError, ValueError):
        return PACKAGES_LIMIT


def _short_name(runtime_env: str) -> str:
    import hashlib

    return hashlib.sha256(runtime_env.encode()).hexdigest()[:16]


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
