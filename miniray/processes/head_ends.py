"""How processes end: by themselves, asked to leave, killed; and all of them, when the session does.

A process that is dead is buried once: everybody who watches it is told, and then each part of the head. Who may have
left in good order gets the time for its last words. Where coverage is measured, workers save before they die.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from miniray.messages import control
from miniray.processes.head_members import DRY_AGAIN, Member
from miniray.system import worker_coverage
from miniray.system.ray_settings import KEPT_DEAD_WORKERS, setting
from miniray.system.task_record import take_record

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds that workers have to leave when the session ends
GRACE = 0.2
#: seconds that a worker which is measured has to save, before it is killed
SAVE_GRACE = 0.5
#: and, when the session ends, those that are leaving in good order
LEAVE_GRACE = 3.0


class Ends:
    """The ends of the processes of one session, and its own."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._kept_dead = setting(head.config.system_config, *KEPT_DEAD_WORKERS)
        self._latest_end = 0.0
        #: workers save before they are killed; in local mode there is nothing but the driver, which measures itself
        self._measured = worker_coverage.is_wanted() and bool(head.startup.lifeline)

    # -- of a process ------------------------------------------------------------------------------------------------

    def settle(self, member: Member) -> None:
        """It is dead. Give what it said last the time to arrive, if it may have left in good order."""
        if member.dead or member.settling:
            return
        if member.goodbye is None and not member.node_died and (member.exit_code in (0, None)):
            member.settling = True
            head = self._head
            head.call_at(head.now + DRY_AGAIN, lambda: self._bury(member))
        else:
            self._bury(member)

    def _bury(self, member: Member) -> None:
        head = self._head
        if member.dead:
            return
        member.dead = True
        worker_id = member.worker_id
        head.lines.hang_up(member)
        notice = member.died()
        notice.last_begun = take_record(head.config.store_dir, worker_id)
        head.dead[worker_id] = notice
        while len(head.dead) > self._kept_dead:
            head.gcs.forget_worker(head.dead.popitem(last=False)[0])
        # Before it is forgotten: who else is to be told depends on what it held.
        audience = set(member.watchers)
        audience |= head.leases.on_died(member)
        audience.discard(worker_id)
        for other in audience:
            head.post(other, notice)
        head.actors.on_died(member, notice)
        head.memory.on_died(member)
        head.memory_monitor.on_died(member.worker_id)
        head.gcs.on_died(member)
        head.reports.on_died(member)
        del head.members[worker_id]
        for other_member in head.members.values():
            other_member.watchers.discard(worker_id)
        head.forget(worker_id)
        if head.stopping:
            self._end_if_empty()

    def kill(self, member: Member, reason: str) -> None:
        """End a worker at once."""
        head = self._head
        member.dismissed = member.dismissed or reason
        if self._measured and member.registered and not member.asked_to_die:
            # What was measured there is to be saved: it kills itself. Who cannot is killed all the same.
            member.asked_to_die = True
            head.post(member.worker_id, control.Exit(reason, force=True))
            head.call_at(head.now + SAVE_GRACE, lambda: self._kill_unless_leaving(member, reason))
            return
        if member.orphan:
            # Nobody has reaped it while its life line is open, so the number is still its own.
            if member.pid and member.line is not None:
                try:
                    os.kill(member.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        else:
            (member.starter or head.starter).kill(member)

    def dismiss(self, member: Member, reason: str, *, grace: float = GRACE, drain: bool = False) -> None:
        """Ask a worker to leave, and end it if it does not within `grace` seconds (0: it may take its time)."""
        head = self._head
        member.dismissed = member.dismissed or reason
        head.post(member.worker_id, control.Exit(reason, drain=drain))
        if grace:
            head.call_at(head.now + grace, lambda: None if member.dead else self.kill(member, reason))

    # -- of the session --------------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """End the session: workers leave, or are killed a moment later; then the directories go, then this process."""
        head = self._head
        if head.stopping:
            return
        head.stopping = reason
        for member in head.members.values():
            if member.kind == "worker":
                self.dismiss(member, reason, grace=0)
        head.flush()
        if self._measured:
            self._latest_end = head.now + LEAVE_GRACE
            head.call_at(head.now + GRACE, self._kill_the_rest)
            head.call_at(head.now + GRACE + SAVE_GRACE, self._finish_when_left)
        else:
            head.call_at(head.now + GRACE, self._finish)
        self._end_if_empty()

    def _kill_the_rest(self) -> None:
        for member in list(self._head.members.values()):
            if member.kind == "worker":
                self.kill(member, self._head.stopping)

    def _kill_unless_leaving(self, member: Member, reason: str) -> None:
        if not member.dead and (member.goodbye is None or not self._head.stopping):
            self.kill(member, reason)

    def _finish_when_left(self) -> None:
        head = self._head
        # Who said Goodbye is about to save, on a busy machine a little later.
        leaving = any(member.kind == "worker" and member.goodbye is not None for member in head.members.values())
        if leaving and head.running and head.now < self._latest_end:
            head.call_at(head.now + GRACE, self._finish_when_left)
        else:
            self._finish()

    def _end_if_empty(self) -> None:
        # A worker that has not registered cannot be told, and has nothing to finish.
        if not any(member.kind == "worker" and member.registered for member in self._head.members.values()):
            self._finish()

    def _finish(self) -> None:
        self._head.running = False
