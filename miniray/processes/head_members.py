"""The processes of a session, as the head knows them: who they are, where their inbox is, and how they ended.

A worker's end is known from two sides that come in any order: the end of file of its life line, and its exit status
from the fork server. A notice of death goes out when both are there, or when the second one does not come in time; and,
after an orderly exit, when the inbox was read dry twice, because the `Goodbye` travels on another road than the end of
file.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from miniray.messages.control import WorkerDied
from miniray.messages.objects import Address

if TYPE_CHECKING:
    from miniray.processes.head_workers import WorkerStarter

#: seconds that the exit status may come later than the end of file
STATUS_WITHIN = 0.2
#: seconds between the two times that the inbox is read dry
DRY_AGAIN = 0.005

INTENDED_SYSTEM_EXIT = "INTENDED_SYSTEM_EXIT"
INTENDED_USER_EXIT = "INTENDED_USER_EXIT"
SYSTEM_ERROR = "SYSTEM_ERROR"
NODE_DIED = "NODE_DIED"
NODE_OUT_OF_MEMORY = "NODE_OUT_OF_MEMORY"
_EXIT_TYPES = (INTENDED_USER_EXIT, INTENDED_SYSTEM_EXIT, "USER_ERROR", NODE_OUT_OF_MEMORY, SYSTEM_ERROR, NODE_DIED)


class Member:
    """A driver or worker of the session."""

    __slots__ = (
        "address",
        "dead",
        "asked_to_die",
        "dismissed",
        "err_file",
        "exit_code",
        "goodbye",
        "is_child",
        "job_id",
        "kind",
        "line",
        "node_died",
        "node_id",
        "orphan",
        "out_of_memory",
        "out_file",
        "pid",
        "registered",
        "reserved",
        "runtime_env",
        "settling",
        "start_time",
        "starter",
        "watchers",
        "worker_id",
    )

    def __init__(self, worker_id: bytes, kind: str, node_id: bytes, start_time: float) -> None:
        self.worker_id = worker_id
        self.kind = kind
        self.node_id = node_id
        self.start_time = start_time
        self.address: Address | None = None
        self.pid = 0
        self.job_id = b""
        self.line: socket.socket | None = None
        self.registered = False
        self.out_file = ""
        self.err_file = ""
        self.goodbye: str | None = None  #: the reason it gave when it left in good order
        self.asked_to_die = False  #: it is to save what was measured in it, and kill itself
        self.dismissed = ""  #: why the head told it to leave
        self.exit_code: int | None = None
        self.orphan = False  #: its fork server is dead: nobody reaps it
        self.node_died = False
        self.out_of_memory = ""  #: the report, when it was killed for want of memory
        self.settling = False
        self.dead = False
        self.watchers: set[bytes] = set()
        self.is_child = False  #: of the fork server of an earlier head
        self.runtime_env = ""
        self.reserved = 0  #: bytes of the object store
        self.starter: WorkerStarter | None = None  #: whose child it is; None for drivers

    def died(self) -> WorkerDied:
        """The notice of its death."""
        code = self.exit_code
        exit_type, detail = self._cause()
        return WorkerDied(
            worker_id=self.worker_id,
            node_id=self.node_id,
            pid=self.pid,
            expected=self.goodbye is not None,
            exit_type=exit_type,
            detail=detail,
            node_died=self.node_died,
            out_of_memory=bool(self.out_of_memory) and self.goodbye is None,
            exit_signal=-code if code is not None and code < 0 else 0,
            exit_code=code,
            log_files=[path for path in (self.out_file, self.err_file) if path],
        )

    def _cause(self) -> tuple[str, str]:
        if self.goodbye is not None:
            for exit_type in _EXIT_TYPES:
                if self.goodbye.startswith(exit_type):
                    return exit_type, self.goodbye[len(exit_type) :].lstrip(": ") or "It left in good order."
            if self.dismissed:
                return INTENDED_SYSTEM_EXIT, f"It was asked to leave: {self.dismissed}."
            return INTENDED_USER_EXIT, self.goodbye or "It left in good order."
        if self.node_died:
            return NODE_DIED, "Its node was removed."
        if self.out_of_memory:
            return NODE_OUT_OF_MEMORY, self.out_of_memory
        if self.dismissed:
            return INTENDED_SYSTEM_EXIT, f"It was ended by the head: {self.dismissed}."
        who = f"The {self.kind} process (pid {self.pid})"
        code = self.exit_code
        if code is None:
            return SYSTEM_ERROR, f"{who} is gone; how it ended is not known."
        if code < 0:
            return SYSTEM_ERROR, f"{who} was killed by {signal_name(-code)}."
        return SYSTEM_ERROR, f"{who} exited with status {code} without saying so."

    def row(self) -> dict[str, Any]:
        """Plain data for the table of workers and for queries."""
        return {
            "worker_id": self.worker_id,
            "kind": self.kind,
            "node_id": self.node_id,
            "job_id": self.job_id,
            "pid": self.pid,
            "address": [self.address.worker_id, self.address.endpoint] if self.address else None,
            "alive": not self.dead,
            "start_time_ms": int(self.start_time * 1000),
            "log_files": [self.out_file, self.err_file],
            "runtime_env": self.runtime_env,
        }

    def log_tail(self) -> str:
        """The end of what it wrote to standard error."""
        try:
            with open(self.err_file, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""


def signal_name(number: int) -> str:
    """The name of a signal, as in ``kill -l``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
