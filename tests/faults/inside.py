"""What the scripts of fault tests use on their inside: who the processes of the session are, and how to wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import psutil
import zmq

from miniray import api
from miniray.processes import current
from miniray.system.sockets import ZmqTransport
from tests.waiting import wait_for

__all__ = [
    "appended",
    "hand_over_mail",
    "head_pid",
    "is_gone",
    "note",
    "server_pid",
    "session_name",
    "store_bytes",
    "store_files",
    "wait_for",
    "worker_pids",
]


def head_pid() -> int:
    """The head of the session that this driver has started."""
    assert api._session is not None and api._session.head is not None
    return api._session.head.pid


def server_pid() -> int:
    """The fork server."""
    (server,) = psutil.Process(head_pid()).children()
    return server.pid


def worker_pids() -> list[int]:
    """The workers that are alive."""
    return [process.pid for process in psutil.Process(server_pid()).children()]


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or it is a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def session_name() -> str:
    """The name of the session."""
    assert api._session is not None
    return api._session.paths.session_name


def hand_over_mail() -> None:
    """Return once all that this process has sent is with the kernel: its connections are closed behind it."""
    core = current.core_or_none()
    assert core is not None and isinstance(core.transport, ZmqTransport)
    transport = core.transport
    with transport._lock:
        sockets = [transport._peers.pop(worker_id) for worker_id in list(transport._peers)]
        monitors = [socket.get_monitor_socket(zmq.EVENT_MONITOR_STOPPED) for socket in sockets]
        for socket in sockets:
            socket.close(linger=10_000)
    for monitor in monitors:
        monitor.recv_multipart()


def store_files() -> list[str]:
    """The segments of the session's object store."""
    assert api._session is not None
    store = api._session.paths.store
    return [os.path.join(store, name) for name in os.listdir(store) if not name.startswith(".")]


def store_bytes(which: Callable[[str], bool] = lambda path: True) -> int:
    """The memory that they take, or those of a kind."""
    total = 0
    for path in filter(which, store_files()):
        try:
            total += os.stat(path).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def note(path: str, text: object) -> None:
    """Append a line, whole, whatever happens to this process a moment later."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def appended(path: str) -> Iterable[str]:
    """The lines of that file."""
    try:
        with open(path) as file:
            return file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
