"""The head's side of the fork server: start it, talk to it, notice its death."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from miniray.messages.startup import ForkServerConfig, FromForkServer, SpawnProcess, ToForkServer
from miniray.system.fork_server import ForkServer, end_of
from miniray.system.process_start import python_command, spawn

_decode = msgspec.json.Decoder(FromForkServer).decode
_encode = msgspec.json.Encoder().encode


class ForkServerConnection:
    """A running fork server. `fileno` is readable when `read` has something to say.

    The number of processes that are being started at once must stay bounded (the worker pool does that): `send` blocks
    when a few hundred requests are on their way.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self.pid = pid
        self._buffer = b""

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, request: ToForkServer) -> None:
        """Ask for something. To a dead fork server it goes nowhere; `read` tells that it is dead."""
        try:
            self._connection.sendall(_encode(request) + b"\n")
        except OSError:
            pass

    def read(self) -> list[FromForkServer] | None:
        """What it said since last time; None: it is dead. Does not block."""
        messages: list[FromForkServer] = []
        while True:
            try:
                data = self._connection.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            except OSError:
                return messages or None
            if not data:
                return messages or None
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            messages += [_decode(line) for line in lines]

    def close(self) -> None:
        """Hang up, which makes it kill its children and end; and reap it if it is a zombie already."""
        self._connection.close()
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def wait(self) -> None:
        """Wait until it is gone (after `close`)."""
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


def fork_server(
    config: ForkServerConfig, first: list[SpawnProcess], in_child: Callable[[], None]
) -> ForkServerConnection:
    """Fork one from this process, which must not have threads yet.

    Args:
        first: processes that it starts at once.
        in_child: called there first, to close what is the head's alone.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            in_child()
            ForkServer(theirs, config.preload, config.start_method, end_of(config)).serve(first)
            status = 0
        except BaseException:
            import traceback  # only for the log of one that failed

            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    return ForkServerConnection(ours, pid)


def exec_fork_server(config: ForkServerConfig) -> ForkServerConnection:
    """Exec a new one from a process with threads, in place of one that died."""
    ours, theirs = socket.socketpair()
    try:
        pid = spawn(python_command("miniray.system.fork_server", "main"), {3: theirs.fileno()})
        ours.sendall(_encode(config) + b"\n")
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ForkServerConnection(ours, pid)
