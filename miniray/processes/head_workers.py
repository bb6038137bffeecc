"""How the head has workers started: its fork server, and the next one when that dies.

Workers of a dead fork server live on as orphans: nobody reaps them, so how they end is not known, and the head signals
them itself. Those that had not registered yet are given up, and started again if anybody waits for them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from miniray.messages.startup import (
    ChildrenTold,
    EndForkServer,
    EnvironmentPlan,
    ProcessExited,
    ProcessStarted,
    SignalProcess,
)
from miniray.processes.head_members import Member
from miniray.system.fork_server_connection import ForkServerConnection

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: a fork server that dies more often than this within so many seconds is not started again
_DEATHS = 3
_SECONDS = 10.0
_NO_ENVIRONMENT = EnvironmentPlan()


class WorkerStarter:
    """A fork server, as the head uses it.

    Args:
        launch: starts another one when it is dead.
        hopeless: called when it dies again and again.
    """

    def __init__(
        self,
        head: Head,
        server: ForkServerConnection,
        launch: Callable[[], ForkServerConnection],
        hopeless: Callable[[], None],
    ) -> None:
        self._head = head
        self._server = server
        self._launch = launch
        self._hopeless = hopeless
        self._deaths: list[float] = []

    @property
    def server_is_new(self) -> bool:
        """Whether this head has started it, and not an earlier one."""
        return self._server.is_child

    def open(self) -> None:
        """Listen to it."""
        self._head.watch(self._server.fileno(), self._on_readable)

    def end(self) -> None:
        """Hang up, which makes it kill its children, and wait until it has."""
        self._head.unwatch(self._server.fileno())
        self._server.send(EndForkServer())
        self._server.close()
        self._server.wait()

    def start(self, node_id: bytes, runtime_env: str = "", plan: EnvironmentPlan = _NO_ENVIRONMENT) -> Member:
        """Have a worker forked; it will register itself."""
        request = self._head.startup.worker(os.urandom(28), node_id, runtime_env, plan)
        member = self.expect(request.key, node_id, request.out, request.err)
        self._server.send(request)
        return member

    def expect(self, worker_id: bytes, node_id: bytes, out: str, err: str) -> Member:
        """A worker is being started."""
        member = Member(worker_id, "worker", node_id, time.time())
        member.out_file, member.err_file = out, err
        member.starter = self
        self._head.members[worker_id] = member
        return member

    def kill(self, member: Member) -> None:
        """Kill a child of the fork server."""
        self._server.send(SignalProcess(member.worker_id, signal.SIGKILL))

    def _on_readable(self) -> None:
        messages = self._server.read()
        if messages is None:
            self._replace()
            return
        for message in messages:
            if isinstance(message, ChildrenTold):
                self._head.recovery.children_told()
                continue
            if isinstance(message, ProcessStarted) and self._head.recovery.is_going_on:
                self._head.recovery.child(message.key, message.pid)
            member = self._head.members.get(message.key)
            if member is None:
                continue
            if isinstance(message, ProcessStarted):
                member.pid = message.pid
                member.out_file = member.out_file.format(pid=message.pid)
                member.err_file = member.err_file.format(pid=message.pid)
            elif isinstance(message, ProcessExited):
                member.exit_code = message.exit_code
                if message.error:
                    print(f"head: {message.error}", file=sys.stderr, flush=True)
                self._head.ends.settle(member)

    def _replace(self) -> None:
        head = self._head
        # It hung up, so it is dying. It is our child and not reaped yet, so the number is its own.
        if self._server.is_child:
            try:
                os.kill(self._server.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.end()
        if head.stopping:
            return
        now = head.now
        self._deaths = [at for at in self._deaths if now - at < _SECONDS] + [now]
        hopeless = len(self._deaths) > _DEATHS
        if not hopeless:
            print("head: the fork server is gone, starting another one", file=sys.stderr, flush=True)
            self._server = self._launch()
            self.open()
        for member in [member for member in head.members.values() if self._is_parent_of(member)]:
            member.orphan = True
            if not member.registered:
                # Whether it was forked at all is not known.
                if member.line is not None:
                    head.ends.kill(member, "its fork server died while it started")
                head.leases.on_lost(member.worker_id)
                head.ends.settle(member)
        if hopeless:
            self._hopeless()

    def _is_parent_of(self, member: Member) -> bool:
        if member.kind != "worker" or member.orphan:
            return False
        # Those of an earlier head are children of the fork server that it has left.
        return (member.starter or self._head.starter) is self
