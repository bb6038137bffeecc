"""The fork server: a process without threads that forks warm workers, reaps them, and ends them when the head is gone.

It has imported everything that a worker needs, so that a worker is there after a fork (some milliseconds instead of a
tenth of a second), and shares its memory. It is forked from the head before that has a thread or a ZeroMQ context; when
it dies, the head execs a new one, and the workers of the old one live on.

Rules
-----
* It never starts a thread; modules that do at import (numpy's OpenBLAS) are told not to by the environment.
* Children are `multiprocessing` processes of the fork context. Each becomes a session of its own, has its log files as
  descriptors 1 and 2, ``/dev/null`` as 0, no other descriptor of this process, and fresh random numbers.
* `gc.freeze` before the fork keeps the collector from touching, and so copying, the pages of what was imported.
* When a child has ended, however, what is left of its process group is killed: what tasks have started ends with their
  worker, as in Ray.
* One JSON line per message on a socket pair (`messages.startup`). Its end of file is the head's death: all children
  are killed with their process groups, and then `on_death` removes the session's directories.
* In a session that may outlive its head, that comes `patience` seconds later: meanwhile a new head may connect to the
  socket ``forks`` in the session's directory. It is told of all children, and goes on where the old one was. The lock
  on the file ``patience`` keeps others from sweeping the session as long as somebody waits.
* With start method "spawn" the same process execs a fresh interpreter for every worker instead, for platforms and
  programs that do not survive a fork. What `multiprocessing` has for that imports the user's ``__main__``.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages.startup import (
    ChildrenTold,
    EndForkServer,
    ForkServerConfig,
    FromForkServer,
    ProcessExited,
    ProcessStarted,
    SignalProcess,
    SpawnProcess,
    ToForkServer,
)
from miniray.system import blas_threads, process_title
from miniray.system.limits import raise_file_limit
from miniray.system.session import remove_session
from miniray.system.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

#: ends of children that a new head is told of
_KEPT_EXITS = 1000

_REFERENCE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_decode_request = msgspec.json.Decoder(ToForkServer).decode
_encode = msgspec.json.Encoder().encode


class ForkServer:
    """The server's side; `serve` returns when the head is gone.

    Args:
        connection: the socket to the head.
        preload: modules to import, after those that hold the targets; missing ones are skipped.
        start_method: "fork" or "spawn".
        on_death: called when the head is gone and all children are dead.
        waiting_room: where a new head may find it when this one is gone; None: nobody will come.
        outlives_head: without a waiting room: children are not killed when the head is gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        preload: list[str],
        start_method: str,
        on_death: Callable[[], None],
        waiting_room: WaitingRoom | None = None,
        outlives_head: bool = False,
    ) -> None:
        self._outlives_head = outlives_head
        self._connection = connection
        self._waiting_room = waiting_room
        self._exited: deque[ProcessExited] = deque(maxlen=_KEPT_EXITS)
        self._ending = False
        self._preload = preload
        self._fork = start_method == "fork"
        self._on_death = on_death
        self._pids: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._processes: dict[int, BaseProcess] = {}
        self._buffer = b""
        self._frozen = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def serve(self, first: list[SpawnProcess]) -> None:
        """Start `first`, then do what the head says until it is gone."""
        process_title.set_title("miniray: fork server")
        process_title.set_name("miniray-forks")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._waiting_room is not None:
            # `stop --force` may be faster than the news that the head is gone: the session ends in good order anyway.
            signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "_ending", True))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._import(self._preload)
        for request in first:
            self._start(request)
        try:
            while True:
                poll = select.poll()
                poll.register(self._connection, select.POLLIN)
                poll.register(self._wake_read, select.POLLIN)
                while self._step(poll):
                    pass
                if self._ending or not self._await_head():
                    break
        finally:
            self._kill_children()
            self._on_death()

    def _await_head(self) -> bool:
        """The head is gone: wait for the next one. False: none came in time."""
        room = self._waiting_room
        if room is None:
            if self._outlives_head:
                self._outlive()
            return False
        connection = room.wait(self._wake_read, self._reap_and_drain, lambda: self._ending)
        if connection is None:
            return False
        self._connection.close()
        self._connection = connection
        self._buffer = b""
        for key, pid in self._pids.items():
            self._report(ProcessStarted(key, pid))
        for message in self._exited:
            self._report(message)
        self._report(ChildrenTold())
        return True

    def _outlive(self) -> None:
        """Stay until the last child has ended. They wait for a new head by themselves, and it has others made."""
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "_ending", True))
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        self._reap()
        while self._pids and not self._ending:
            poll.poll()
            self._reap_and_drain()

    def _reap_and_drain(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        self._reap()

    def _step(self, poll: select.poll) -> bool:
        for fd, _ in poll.poll():
            if fd == self._wake_read:
                self._reap_and_drain()
            else:
                try:
                    data = self._connection.recv(1 << 16)
                except ConnectionError:
                    return False
                if not data:
                    return False
                *lines, self._buffer = (self._buffer + data).split(b"\n")
                for line in lines:
                    self._handle(_decode_request(line))
        return not self._ending

    def _handle(self, request: ToForkServer) -> None:
        if isinstance(request, SpawnProcess):
            self._start(request)
        elif isinstance(request, SignalProcess):
            pid = self._pids.get(request.key)
            if pid is not None:
                # Not reaped yet, so the number cannot be somebody else's.
                os.kill(pid, request.signal)
        elif isinstance(request, EndForkServer):
            self._ending = True
        else:
            self._import(request.modules)

    def _import(self, modules: list[str]) -> None:
        if not self._fork:
            return
        # A BLAS that starts threads at import would make every fork unsafe; children set the number themselves.
        saved = {name: os.environ.get(name) for name in blas_threads.VARIABLES}
        os.environ.update(dict.fromkeys(blas_threads.VARIABLES, "1"))
        try:
            for module in modules:
                try:
                    __import__(module)
                except Exception as error:
                    print(f"fork server: cannot preload {module}: {error!r}", file=sys.stderr, flush=True)
        finally:
            for name, value in saved.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        self._frozen = False

    # -- children --------------------------------------------------------------------------------------------------

    def _start(self, request: SpawnProcess) -> None:
        try:
            pid = self._fork_child(request) if self._fork and not request.fresh else exec_child(request)
        except OSError as error:
            self._report(ProcessExited(request.key, 0, 0, f"cannot start a process: {error}"))
            return
        self._pids[request.key] = pid
        self._keys[pid] = request.key
        self._report(ProcessStarted(request.key, pid))

    def _fork_child(self, request: SpawnProcess) -> int:
        # The fork server alone needs it, and after the head is on its way.
        import gc
        import multiprocessing

        if not self._frozen:
            gc.disable()
            gc.freeze()
            self._frozen = True
        sys.stdout.flush()
        sys.stderr.flush()
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._run_child, args=(request,), name=f"worker-{request.key.hex()[:8]}")
        process.start()
        assert process.pid is not None
        # It is reaped here, and multiprocessing must not do it behind our back when it starts the next one.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        self._processes[process.pid] = process
        return process.pid

    def _run_child(self, request: SpawnProcess) -> None:
        import gc

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in (self._connection.detach(), self._wake_read, self._wake_write):
            os.close(fd)
        if self._waiting_room is not None:
            self._waiting_room.close()
        for process in self._processes.values():
            # The pipes between this process's siblings and the fork server.
            for fd in getattr(getattr(process._popen, "finalizer", None), "_args", ()):  # type: ignore[attr-defined]
                os.close(fd)
        self._processes.clear()
        gc.enable()
        numpy_random: Any = sys.modules.get("numpy.random")
        if numpy_random is not None:  # the random module does this by itself
            numpy_random.seed()
        run_child(request)

    def _reap(self) -> None:
        while True:
            try:
                if hasattr(os, "waitid"):  # macOS has it since 3.13
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if ended is None:
                        return
                    # Not reaped yet, so the number is still its own.
                    _kill_group(ended.si_pid)
                    pid, status = os.waitpid(ended.si_pid, 0)
                else:
                    pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._processes.pop(pid, None)
            if process is not None:
                popen: Any = process._popen  # type: ignore[attr-defined]
                popen.returncode = os.waitstatus_to_exitcode(status)
                process.close()
            key = self._keys.pop(pid, None)
            if key is not None:
                del self._pids[key]
                exited = ProcessExited(key, pid, os.waitstatus_to_exitcode(status))
                self._exited.append(exited)
                self._report(exited)

    def _report(self, message: FromForkServer) -> None:
        try:
            self._connection.sendall(_encode(message) + b"\n")
        except OSError:
            pass  # the head is gone: the loop will see it

    def _kill_children(self) -> None:
        for pid in self._keys:
            for kill in (os.killpg, os.kill):
                try:
                    kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        for pid in self._keys:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # nothing is left of it


def run_child(request: SpawnProcess) -> None:
    """In the new process: what makes it a worker, then its target."""
    try:
        os.setsid()
    except PermissionError:
        pass  # it was exec'd as one
    redirect_output(request.out, request.err)
    os.environ.update(expanded(request.env))
    blas_threads.variable_is_ours = "OMP_NUM_THREADS" not in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if os.environ["OMP_NUM_THREADS"] != "1" and os.environ["OMP_NUM_THREADS"].isdigit():
        blas_threads.set_threads(int(os.environ["OMP_NUM_THREADS"]))
    process_title.set_title(request.title)
    process_title.set_name(request.title)
    module, _, function = request.target.partition(":")
    __import__(module)
    getattr(sys.modules[module], function)(request.payload)


def expanded(variables: dict[str, str]) -> dict[str, str]:
    """Environment variables, one after the other, with what ``${NAME}`` and ``$NAME`` in them stand for then.

    As in Ray, what is not set is "" in braces, and stays as it stands without.
    """
    result: dict[str, str] = {}

    def value_of(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        missing = found[0] if found[1] else ""
        return result.get(name, os.environ.get(name, missing))

    for name, value in variables.items():
        result[name] = _REFERENCE.sub(value_of, value) if "$" in value else value
    return result


def redirect_output(out: str, err: str) -> None:
    """Descriptors 1 and 2 become these files ("{pid}" in the name stands for this process), 0 becomes ``/dev/null``."""
    for target, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out.format(pid=os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, err.format(pid=os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        fd = os.open(path, flags, 0o600)
        os.dup2(fd, target)
        if fd != target:
            os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def main() -> None:
    """The first thing in a fork server that was exec'd, in place of one that died: its socket is descriptor 3."""
    connection = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    # What its parent had open without the close-on-exec flag is not for it, nor for its children.
    os.closerange(4, min(raise_file_limit() or 1024, 65536))
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return
        line += byte
    config = msgspec.json.decode(line, type=ForkServerConfig)
    room = waiting_room_of(config)
    outlives = bool(config.patience and not config.session_dir)
    ForkServer(connection, config.preload, config.start_method, end_of(config), room, outlives).serve([])


def waiting_room_of(config: ForkServerConfig) -> WaitingRoom | None:
    """Where this fork server waits for another head, if it is to."""
    return WaitingRoom(config.session_dir, config.patience) if config.patience and config.session_dir else None


def end_of(config: ForkServerConfig) -> Callable[[], None]:
    """What a fork server does when the head is gone: nobody else is left to remove the directories."""
    return lambda: remove_session(config.session_dir, config.store_dir) if config.session_dir else None


# ---- start method "spawn" ----


def exec_child(request: SpawnProcess) -> int:
    """Start a fresh interpreter that does `run_child(request)`; its pid."""
    from miniray.system.process_start import python_command, spawn  # the head needs neither

    read, write = os.pipe()
    try:
        environment = {**os.environ, **expanded(request.env)} if request.fresh else None
        pid = spawn(python_command("miniray.system.fork_server", "exec_main"), {3: read}, environment=environment)
        data = _encode(request)
        while data:
            data = data[os.write(write, data) :]
        return pid
    finally:
        os.close(read)
        os.close(write)


def exec_main() -> None:
    """The first thing in an exec'd worker."""
    data = b""
    while chunk := os.read(3, 1 << 16):
        data += chunk
    os.close(3)
    request = msgspec.json.decode(data, type=ToForkServer)
    assert isinstance(request, SpawnProcess)
    if request.fresh:
        request.env = {}  # they were there from the beginning
    run_child(request)
