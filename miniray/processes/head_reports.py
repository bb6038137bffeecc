"""What the head asks of all processes when somebody wants to know what is going on, and the log of ended tasks.

A question by name (`Query` for one of `REPORTED`) goes to every process that is registered; the answer goes back when
all have told, or died, or after `PATIENCE`: a process that does not answer (it is stopped, or holds the interpreter
lock) is named in the answer, and delays nobody for longer. Rows go through the head as they are.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from miniray.messages.control import Query, Reply
from miniray.messages.state import ReportState, StateReport, TaskEvents
from miniray.processes.head_members import Member
from miniray.state_machines.task_event_log import TaskEventLog
from miniray.system.ray_settings import KEPT_TASK_EVENTS, setting

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds that a process may take to tell
PATIENCE = 1.0
#: query -> what the processes are asked for
REPORTED = {"task_reports": "tasks", "object_reports": "objects", "actor_reports": "actors"}
_LIMIT = 10_000


class _Inquiry:
    """One question that was passed on."""

    def __init__(self, sender: bytes, request_id: int, what: str, events: int | None, waiting: set[bytes]) -> None:
        self.sender = sender
        self.request_id = request_id
        self.what = what
        self.events = events  #: of the log, at most
        self.waiting = waiting
        self.reports: list[list[Any]] = []


class Reports:
    """The questions that are under way, and the newest task events."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._numbers = count(1)
        self._inquiries: dict[int, _Inquiry] = {}
        self.log: TaskEventLog[Raw] = TaskEventLog(setting(head.config.system_config, *KEPT_TASK_EVENTS))

    def on_task_events(self, sender: bytes, message: TaskEvents) -> None:
        """Kept as they are."""
        self.log.add(message.count, message.events)

    def ask(self, sender: bytes, message: Query) -> None:
        """Pass a question on to all processes."""
        head = self._head
        what = REPORTED[message.what]
        asked = {
            member.worker_id
            for member in head.members.values()
            if member.registered and not member.dead and member.address is not None
        }
        number = next(self._numbers)
        self._inquiries[number] = _Inquiry(sender, message.request_id, what, message.arguments.get("events"), asked)
        limit = int(message.arguments.get("limit", _LIMIT))
        for worker_id in asked:
            head.post(worker_id, ReportState(number, what, limit))
        if asked:
            head.call_at(head.now + PATIENCE, lambda: self._answer(number))
        else:
            self._answer(number)

    def on_report(self, sender: bytes, message: StateReport) -> None:
        """A process has told."""
        inquiry = self._inquiries.get(message.number)
        if inquiry is None or sender not in inquiry.waiting:
            return
        inquiry.waiting.discard(sender)
        inquiry.reports.append([sender, message.rows, message.total])
        if not inquiry.waiting:
            self._answer(message.number)

    def on_died(self, member: Member) -> None:
        """A process tells nothing any more."""
        for number, inquiry in list(self._inquiries.items()):
            inquiry.waiting.discard(member.worker_id)
            if not inquiry.waiting:
                self._answer(number)

    def _answer(self, number: int) -> None:
        inquiry = self._inquiries.pop(number, None)
        if inquiry is None:
            return
        value: dict[str, Any] = {"reports": inquiry.reports, "missing": list(inquiry.waiting)}
        if inquiry.what == "tasks":
            value["events"] = self.log.batches(inquiry.events)
            value["kept"] = self.log.kept
            value["dropped"] = self.log.dropped
        # Not kept for a repeated request, as other answers are: who asks again is told how it is then.
        self._head.post(inquiry.sender, Reply(inquiry.request_id, value))
