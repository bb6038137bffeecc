"""The head process: how it starts. (What it does then: `head_shell`.)

The order saves time and makes the fork safe. First the configuration, then the listener for life lines (so that forked
workers find it), then the imports that workers share, then the fork server, while there is no thread and no ZeroMQ
context; it goes on importing and forks the first workers while this process binds its inbox and becomes the head.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from miniray.messages.startup import HeadConfig, HeadFailed
from miniray.processes.head_startup import Startup
from miniray.system import process_title
from miniray.system.fork_server_connection import (
    ForkServerConnection,
    adopt_fork_server,
    exec_fork_server,
    fork_server,
)
from miniray.system.limits import raise_file_limit
from miniray.system.process_start import LIFELINE_FD, LOCK_FD


def main() -> None:
    """The first thing in the process that `system.process_start.start_head` execs."""
    try:
        os.setsid()
    except PermissionError:
        pass  # posix_spawn has done it
    limit = raise_file_limit()
    # What the driver had open without the close-on-exec flag is not for us, nor for our workers.
    os.closerange(LOCK_FD + 1, min(limit or 1024, 65536))
    line = socket.socket(fileno=LIFELINE_FD)
    os.set_inheritable(LIFELINE_FD, False)
    try:
        os.set_inheritable(LOCK_FD, False)
    except OSError:
        pass  # started without a lock
    config = _read_config(line)
    if config is None:
        return
    process_title.set_title(f"miniray: head {config.session_name}")
    process_title.set_name("miniray-head")
    try:
        startup = Startup(config, line)
        server = _start_fork_server(startup)
    except Exception as error:
        line.sendall(msgspec.json.encode(HeadFailed(f"The head process cannot start: {error}")) + b"\n")
        raise
    # ZeroMQ contexts have threads: only after the fork.
    from miniray.processes.head_shell import Head

    head = Head(startup, server)
    head.run()
    # Nothing is left to be done, and interpreters take their time to end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _read_config(line: socket.socket) -> HeadConfig | None:
    data = b""
    while not data.endswith(b"\n"):
        chunk = line.recv(1 << 16)
        if not chunk:
            return None
        data += chunk
    return msgspec.json.decode(data, type=HeadConfig)


def _start_fork_server(startup: Startup) -> ForkServerConnection:
    config = startup.config
    if config.epoch > 1:
        waiting = adopt_fork_server(config.session_dir)
        if waiting is not None:
            return waiting
    if config.start_method != "fork" or not hasattr(os, "fork"):
        return exec_fork_server(startup.fork_server_config())
    # Shared by this process and all workers, so imported before they part.
    import miniray.system.sockets  # noqa: F401

    if startup.socket_dir:  # else this head has no address yet
        startup.prestarted = [startup.worker(os.urandom(28), startup.node_id) for _ in range(startup.prestart)]

    def in_child() -> None:
        startup.line.close()
        startup.leave_storage()
        startup.listener.close()
        startup.port_holder.close()
        try:
            os.close(LOCK_FD)
        except OSError:
            pass

    return fork_server(startup.fork_server_config(), startup.prestarted, in_child)
