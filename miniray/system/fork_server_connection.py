"""The head's side of the fork server: start it, talk to it, notice its death."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import msgspec

from miniray.messages.startup import EnvironmentPlan, ForkServerConfig, FromForkServer, SpawnProcess, ToForkServer
from miniray.system.fork_server import ForkServer, end_of, waiting_room_of
from miniray.system.process_start import command_elsewhere, python_command, spawn
from miniray.system.waiting_room import find_fork_server, who_waits

_decode = msgspec.json.Decoder(FromForkServer).decode
_encode = msgspec.json.Encoder().encode
#: seconds that a fork server which is no child of this process has to end
_ADOPTED_ENDS_WITHIN = 3.0


class ForkServerConnection:
    """A running fork server. `fileno` is readable when `read` has something to say.

    The number of processes that are being started at once must stay bounded (the worker pool does that): `send` blocks
    when a few hundred requests are on their way.
    """

    def __init__(self, connection: socket.socket, pid: int, is_child: bool = True) -> None:
        self._connection = connection
        self.pid = pid
        self.is_child = is_child  #: else it was started by an earlier head
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
            deadline = time.monotonic() + _ADOPTED_ENDS_WITHIN
            while not self.is_child and _exists(self.pid) and time.monotonic() < deadline:
                time.sleep(0.005)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def adopt_fork_server(session_dir: str) -> ForkServerConnection | None:
    """The fork server of a head that died, if it waits for another one."""
    import struct

    connection = find_fork_server(session_dir)
    if connection is None:
        return None
    pid = 0
    if hasattr(socket, "SO_PEERCRED"):
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return ForkServerConnection(connection, pid or who_waits(session_dir) or 0, is_child=False)


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
            room = waiting_room_of(config)
            ForkServer(theirs, config.preload, config.start_method, end_of(config), room).serve(first)
            status = 0
        except BaseException:
            import traceback  # only for the log of one that failed

            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    return ForkServerConnection(ours, pid)


def exec_fork_server(
    config: ForkServerConfig, plan: EnvironmentPlan | None = None, err: str = ""
) -> ForkServerConnection:
    """Exec a new one from a process with threads: in place of one that died, or for another interpreter.

    Args:
        plan: names the interpreter; None: this one.
        err: a file for its errors, "" for those of this process.
    """
    ours, theirs = socket.socketpair()
    module, function = "miniray.system.fork_server", "main"
    try:
        if plan is None:
            argv = python_command(module, function)
        else:
            argv = command_elsewhere(plan.prefix, plan.command, plan.working_dir, module, function)
        pid = spawn(argv, {3: theirs.fileno()}, err=err)
        ours.sendall(_encode(config) + b"\n")
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ForkServerConnection(ours, pid)
