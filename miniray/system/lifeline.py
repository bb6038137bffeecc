"""Life lines: one stream between each process and the head, whose end of file is death, both ways.

The kernel closes a stream however its process ends, so nobody needs heartbeats to notice. Nothing is said on it after
the greeting: the process connects, says who it is, and from then on a readable life line means that the other side is
gone. Over TCP (where there are no ipc sockets) the greeting carries the token of the session.

An address is the path of an AF_UNIX socket, or ``tcp://127.0.0.1:PORT``.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable

WORKER_ID_SIZE = 28

_own_lines: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def close_in_forked_children(line: socket.socket) -> None:
    """A process that the user forks must not keep this process's life line open after it died."""
    if not _own_lines and hasattr(os, "register_at_fork"):
        _register()
    _own_lines.add(line)


_registered = False


def _register() -> None:
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_close_own_lines)


def _close_own_lines() -> None:
    for line in list(_own_lines):
        line.close()
    _own_lines.clear()


def connect(address: str, worker_id: bytes, token: bytes = b"", timeout: float = 10.0) -> socket.socket:
    """Open this process's life line to the head, and say who it is.

    Raises:
        ConnectionError: nobody listens there.
    """
    if address.startswith("tcp://"):
        host, port = address[len("tcp://") :].rsplit(":", 1)
        line = socket.create_connection((host, int(port)), timeout)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = token + worker_id
    else:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(timeout)
        try:
            line.connect(address)
        except FileNotFoundError as error:
            line.close()
            raise ConnectionRefusedError(f"no head listens at {address}") from error
        except BaseException:
            line.close()
            raise
        greeting = worker_id
    line.sendall(greeting)
    line.settimeout(None)
    close_in_forked_children(line)
    return line


def listen(directory: str | None, epoch: int = 1) -> tuple[socket.socket, str]:
    """The head's side: a non-blocking listener in this directory (None: loopback TCP), and its address. `epoch`: which
    head of the session it is.
    """
    if directory is not None:
        path = os.path.join(directory, "life" if epoch == 1 else f"life{epoch}")
        if epoch > 1 and os.path.exists(path):
            os.unlink(path)  # of a head that died before it was known
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        address = path
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.listen(1024)
    listener.setblocking(False)
    return listener, address


class Greeting:
    """The head's side of a connection that has not yet said who it is."""

    __slots__ = ("_received", "_token", "line")

    def __init__(self, line: socket.socket, token: bytes) -> None:
        line.setblocking(False)
        self.line = line
        self._token = token
        self._received = b""

    def read(self) -> bytes | None:
        """What came so far: None while it is not all here, the worker id once it is.

        Raises:
            ConnectionError: the other side left, or its token is wrong; close the line.
        """
        size = len(self._token) + WORKER_ID_SIZE
        try:
            data = self.line.recv(size - len(self._received))
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionAbortedError("left before it said who it is")
        self._received += data
        if len(self._received) < size:
            return None
        if self._token:
            import hmac  # takes 2 ms, and is needed over TCP only

            if not hmac.compare_digest(self._received[: len(self._token)], self._token):
                raise ConnectionRefusedError("wrong token")
        return self._received[len(self._token) :]


def is_at_end(line: socket.socket) -> bool:
    """Whether the other side of a readable life line is gone (anything it may have said is dropped)."""
    try:
        while data := line.recv(4096, socket.MSG_DONTWAIT):
            del data
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    return True


class LifelineWatcher:
    """A daemon thread, blocked in `recv`, that calls back once when the head is gone. Costs no CPU.

    Args:
        line: this process's life line; the watcher owns it from now on.
        on_eof: called in the watcher's thread, never after `close`.
    """

    def __init__(self, line: socket.socket, on_eof: Callable[[], None]) -> None:
        self._line = line
        self._on_eof = on_eof
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="miniray-lifeline", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        import signal  # C code; the module itself is imported in every process anyway

        # Python runs handlers in the main thread; a blocked recv here would only delay the wake-up of that one.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while self._line.recv(4096):
                pass
        except OSError:
            pass
        if not self._closed:
            self._on_eof()

    def close(self) -> None:
        """Hang up: the head sees the end of this process's life. Callable from any thread, also from the callback."""
        self._closed = True
        try:
            self._line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        self._line.close()
