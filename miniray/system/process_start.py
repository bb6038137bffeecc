"""Starting the head: what `multiprocessing` cannot do.

* The head is to be a fresh interpreter (the driver may have threads, a ZeroMQ context, CUDA, ...), in a session of its
  own (Ctrl-C reaches the driver alone), with a life line at a known descriptor, and with padding in its argv, because
  the process titles of the head and of all workers that are forked from it are written over that memory
  (`system.process_title`).
* multiprocessing's forkserver imports the user's ``__main__`` again and runs scripts without a guard twice; its
  resource tracker unlinks shared memory that is still in use (before 3.13).
* `posix_spawn` costs a millisecond less than `subprocess`, whose import alone takes longer.

The child gets the life line as descriptor 3 and the lock of the session as descriptor 4; its first line of input is a
`HeadConfig`, its answer a `HeadReady` or a `HeadFailed`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from miniray.messages.startup import HeadConfig, HeadFailed, HeadReady
from miniray.system.lifeline import close_in_forked_children
from miniray.system.session import SessionPaths

LIFELINE_FD = 3
LOCK_FD = 4
#: room for the longest process title; longer ones are cut
TITLE_SPACE = 512

_BOOTSTRAP = (
    "import sys;sys.path[:1]=[];interpreter_path=list(sys.path);sys.path[:0]={first!r};"
    "from {module} import {function};sys.path+=[p for p in {path!r} if p not in sys.path];{function}()"
)
#: for another interpreter, whose own packages go first
_BOOTSTRAP_ELSEWHERE = (
    "import sys;sys.path[:1]=[];interpreter_path=list(sys.path);elsewhere=True;"
    "sys.path+=[p for p in {path!r} if p not in sys.path];from {module} import {function};{function}()"
)


class HeadProcess:
    """A head that this process started. `lifeline` is this process's life line to it."""

    def __init__(self, pid: int, lifeline: socket.socket, paths: SessionPaths) -> None:
        self.pid = pid
        self.lifeline = lifeline
        self._paths = paths
        self._ready: HeadReady | None = None

    def wait_ready(self, timeout: float = 60.0) -> HeadReady:
        """Wait until the head's inbox is bound, and say where. Nothing else is ever read from the life line before
        that.

        Raises:
            RuntimeError: the head ended, could not start, or took longer than `timeout` seconds; with the end of its
                log.
        """
        if self._ready is None:
            try:
                self._ready = self._read_answer(timeout)
            except BaseException:
                self.lifeline.close()
                raise
        return self._ready

    def _read_answer(self, timeout: float) -> HeadReady:
        line = b""
        self.lifeline.settimeout(timeout)
        try:
            while not line.endswith(b"\n"):
                data = self.lifeline.recv(65536)
                if not data:
                    raise ConnectionError
                line += data
        except TimeoutError:
            raise RuntimeError(
                f"The head process (pid {self.pid}) did not answer within {timeout} s.{self._log_tail()}"
            )
        except ConnectionError:
            raise RuntimeError(f"The head process (pid {self.pid}) ended while it started.{self._log_tail()}")
        self.lifeline.settimeout(None)
        if line.startswith(b'{"error"'):
            raise RuntimeError(msgspec.json.decode(line, type=HeadFailed).error)
        return msgspec.json.decode(line, type=HeadReady)

    def _log_tail(self) -> str:
        try:
            with open(os.path.join(self._paths.logs, "head.err"), encoding="utf-8", errors="replace") as file:
                text = file.read()[-4000:].strip()
        except OSError:
            text = ""
        return f" Its log ends with:\n{text}" if text else ""

    def wait_exit(self, timeout: float) -> bool:
        """Wait until the process is gone, and reap it. False: it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        delay = 0.0005
        while True:
            try:
                pid, _ = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(delay)
            delay = min(delay * 2, 0.02)

    def kill(self) -> None:
        """End it without mercy; the fork server removes what it leaves."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def start_head(paths: SessionPaths, config: HeadConfig) -> HeadProcess:
    """Start the head of this session. Returns at once: import something, then `wait_ready`.

    The lock of the session is the head's from now on (`paths.lock_fd` is closed here).

    Raises:
        RuntimeError: this interpreter does not know its executable.
        OSError: the process cannot be made.
    """
    config.session_dir = paths.directory
    config.session_name = paths.session_name
    config.store_dir = paths.store
    config.token = paths.token
    mine, theirs = socket.socketpair()
    try:
        descriptors = {LIFELINE_FD: theirs.fileno()}
        if paths.lock_fd >= 0:
            descriptors[LOCK_FD] = paths.lock_fd
        logs = os.path.join(paths.logs, "head.out"), os.path.join(paths.logs, "head.err")
        pid = spawn(python_command("miniray.processes.head", "main"), descriptors, *logs)
        mine.sendall(msgspec.json.encode(config) + b"\n")
    except BaseException:
        mine.close()
        raise
    finally:
        theirs.close()
        if paths.lock_fd >= 0:
            os.close(paths.lock_fd)
            paths.lock_fd = -1
    close_in_forked_children(mine)
    return HeadProcess(pid, mine, paths)


def python_command(module: str, function: str) -> list[str]:
    """The argv that calls a function of this very miniray: same interpreter, flags and import path; and padding."""
    if not sys.executable:
        raise RuntimeError("miniray cannot start its processes: sys.executable is not set")
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    if getattr(sys.modules.get("__main__"), "elsewhere", False):
        code = _BOOTSTRAP_ELSEWHERE.format(path=path, module=module, function=function)
    else:
        code = _BOOTSTRAP.format(first=[package_parent], path=path, module=module, function=function)
    return [sys.executable, *interpreter_flags(), "-c", code.ljust(TITLE_SPACE)]


def command_elsewhere(prefix: str, command: str, directory: str, module: str, function: str) -> list[str]:
    """The argv that calls a function of miniray in another interpreter.

    Args:
        prefix: what the shell runs before it, with ``&&`` at its end, or "".
        command: a shell command that takes the arguments of Python.
        directory: where the command runs, "" for here.
    """
    import site

    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [package_parent, *site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    code = _BOOTSTRAP_ELSEWHERE.format(path=path, module=module, function=function)
    script = f'cd "$0" && {prefix} exec {command} "$@"'
    return ["/bin/sh", "-c", script, directory or ".", *interpreter_flags(), "-c", code.ljust(TITLE_SPACE)]


def interpreter_path() -> list[str]:
    """What the import path of this process was before anybody added to it; [] in a driver."""
    return list(getattr(sys.modules.get("__main__"), "interpreter_path", ()))


def interpreter_flags() -> list[str]:
    """The flags of this interpreter that change what code means."""
    flags = sys.flags
    arguments = ["-O"] * flags.optimize
    for name, letter in (
        ("dont_write_bytecode", "B"),
        ("no_user_site", "s"),
        ("no_site", "S"),
        ("ignore_environment", "E"),
    ):
        if getattr(flags, name):
            arguments.append("-" + letter)
    if flags.utf8_mode:
        arguments += ["-X", "utf8"]
    return arguments


def spawn(
    argv: list[str],
    descriptors: dict[int, int],
    out: str = "",
    err: str = "",
    *,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Exec a process in a session of its own, with default signal handling; its pid.

    Args:
        descriptors: number in the child -> descriptor here; all others with the close-on-exec flag are closed.
        out, err: files for its output (appended); "": as here. Its input is ``/dev/null``.
        environment: its variables; None: as here.
    """
    import fcntl

    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    for target, path in ((1, out), (2, err)):
        if path:
            actions.append((os.POSIX_SPAWN_OPEN, target, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handled = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE]
    # Copies above the numbers they are to get: dup2 of a descriptor onto itself would leave it to be closed by exec.
    spare: list[int] = []
    try:
        for target, fd in descriptors.items():
            copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
            spare.append(copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        if environment is None:
            environment = os.environ
        try:
            return os.posix_spawn(
                argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=handled
            )
        except NotImplementedError:  # no POSIX_SPAWN_SETSID here: the process calls setsid itself, a moment later
            return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsigmask=[], setsigdef=handled)
    finally:
        for copy in spare:
            os.close(copy)
