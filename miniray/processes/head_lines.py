"""Life lines at the head: a stream from each process, whose end of file is the death of that process.

A line comes in by the listener, with a greeting that says whose it is (`system.lifeline`). What follows from the end
of one depends on who it was: a private session ends with its driver; a worker's exit status is waited for.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from miniray.processes.head_members import STATUS_WITHIN, Member
from miniray.system.lifeline import Greeting, is_at_end

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds that the life line of somebody who was taken for dead stays open
_FAREWELL = 5.0


class LifeLines:
    """The life lines of one head."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def accept(self) -> None:
        """Somebody joins."""
        head = self._head
        while True:
            try:
                line, _ = head.startup.listener.accept()
            except BlockingIOError:
                return
            token = b"" if head.startup.socket_dir else head.config.token
            greeting = Greeting(line, token)
            head.watch(line.fileno(), lambda greeting=greeting: self._greet(greeting))  # type: ignore[misc]
            self._greet(greeting)

    def _greet(self, greeting: Greeting) -> None:
        head = self._head
        line = greeting.line
        try:
            worker_id = greeting.read()
        except OSError:
            head.unwatch(line.fileno())
            line.close()
            return
        if worker_id is None:
            return
        head.unwatch(line.fileno())
        member = head.members.get(worker_id)
        if member is None and worker_id not in head.dead:  # a driver that joins
            member = head.members[worker_id] = Member(worker_id, "driver", head.startup.node_id, time.time())
        if member is None and head.startup.epoch > 1:
            # Taken for dead. It is told so in answer to its `Rejoin`, which comes on another road.
            head.call_at(head.now + _FAREWELL, line.close)
            return
        if member is None or member.dead or member.line is not None:
            line.close()
            return
        self.take(member, line)

    def take(self, member: Member, line: socket.socket) -> None:
        """This is the line of that process: from now on its end is seen."""
        line.setblocking(False)
        member.line = line
        self._head.watch(line.fileno(), lambda: self._on_line(member))

    def _on_line(self, member: Member) -> None:
        head = self._head
        if member.line is None or not is_at_end(member.line):
            return
        self.hang_up(member)
        if member.kind == "driver":
            if head.config.private and member.worker_id == head.config.driver_id:
                head.ends.stop("its driver is gone")
            else:
                head.ends.settle(member)
        elif member.orphan or member.exit_code is not None:
            head.ends.settle(member)
        else:
            head.call_at(head.now + STATUS_WITHIN, lambda: head.ends.settle(member))

    def on_guard(self) -> None:
        """Something on the line of the process that started this head, and that guards it."""
        head = self._head
        if is_at_end(head.startup.line):
            head.unwatch(head.startup.line.fileno())
            head.ends.stop("the process that started it is gone")

    def hang_up(self, member: Member) -> None:
        """Close its line."""
        if member.line is not None:
            self._head.unwatch(member.line.fileno())
            member.line.close()
            member.line = None
