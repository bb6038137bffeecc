"""Where the fork server of a session waits for another head, when the one it had is gone.

The session directory then has a socket, ``k/forks``, on which a new head finds it, and a file, ``patience``, whose lock
says that the session is not dead although nobody holds the head's lock; the file names the process that waits.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable

SOCKET = os.path.join("k", "forks")
LOCK = "patience"


class WaitingRoom:
    """The fork server's side. Made before the head can die, so that a new one never comes too early.

    Args:
        session_dir: the directory of the session.
        patience: seconds to wait.
    """

    def __init__(self, session_dir: str, patience: float) -> None:
        import fcntl  # not there on Windows, where no session outlives its head

        self._patience = patience
        path = os.path.join(session_dir, SOCKET)
        try:
            os.unlink(path)  # of a fork server that died
        except FileNotFoundError:
            pass
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(4)
        self._lock = os.open(os.path.join(session_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, b"%d" % os.getpid())

    def wait(self, wake: int, on_wake: Callable[[], None], is_over: Callable[[], bool]) -> socket.socket | None:
        """The connection of the next head; None: none came in time, or it is over.

        Args:
            wake: a descriptor; `on_wake` is called whenever it is readable.
        """
        deadline = time.monotonic() + self._patience
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while not is_over() and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(int(left * 1000) + 1):
                if fd == wake:
                    on_wake()
                else:
                    return self._listener.accept()[0]
        return None

    def close(self) -> None:
        """In a child: it does not wait."""
        self._listener.close()
        os.close(self._lock)


def find_fork_server(session_dir: str) -> socket.socket | None:
    """A new head's side: a connection to the fork server that waits, None if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.path.join(session_dir, SOCKET))
    except OSError:
        connection.close()
        return None
    return connection


def who_waits(session_dir: str) -> int | None:
    """The process that waits there for another head, None if nobody does."""
    import fcntl

    try:
        fd = os.open(os.path.join(session_dir, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.read(fd, 20)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None
