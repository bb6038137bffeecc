"""A head that takes the place of one that died: what it does before it serves.

1. The tables come from the journal: nodes, jobs, actors, key-values. From the rows of workers and jobs follows who
   should still be there: each is *awaited*.
2. The fork server of the old head, if it lives, tells which of its children run and which have ended.
3. Every process that notices the new head sends `Rejoin`: its leases, its actor, its reserved memory.
4. Nothing is scheduled until all who are awaited have come or are known to be dead, or until `WITHIN` is over: leases
   that nobody has told of yet must not be given to others. Whoever did not come by then is dead, as far as the session
   is concerned; if it comes later, it is told so.
5. Then workers that nobody claims are idle, or, if they are at work, work for somebody who is gone, and are killed;
   actors are compared with what their processes told (`actor_recovery`); and scheduling begins.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages import control
from miniray.messages.durable import ActorRecord, Stored
from miniray.messages.objects import Address
from miniray.messages.reconnect import HeldLease, Rejoin, Rejoined
from miniray.messages.tasks import WorkerAddress
from miniray.processes.head_members import Member
from miniray.state_machines.table_prefix import TablePrefix

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: seconds that processes have to come back, and those that are stopped (Ctrl-Z, a debugger)
WITHIN = 30.0
WITHIN_IF_STOPPED = 2.0
#: seconds between two looks at who is gone
_LOOK = 0.05

_decode = msgspec.msgpack.decode


class Recovery:
    """Who is awaited, and what those who came have told."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.is_going_on = False
        self._awaited: set[bytes] = set()
        self._children: set[bytes] | None = None  #: that the old fork server has told of; None: not all yet
        self._told: dict[bytes, Rejoin] = {}
        self._until = 0.0

    # -- from the tables -------------------------------------------------------------------------------------------

    def begin(self, stored: Stored, *, same_session: bool) -> None:
        """Put back what the old head had written down.

        Args:
            same_session: its processes may still be there. Else only the tables have outlived it.
        """
        head = self._head
        head.gcs.restore(same_session=same_session)
        head.leases.scheduler.number_leases_from(head.startup.epoch << 32)
        for sender, request_id, answer in stored.answers:
            head.keep_answer(sender, request_id, control.Reply(request_id, answer))
        if same_session:
            for row in self._rows(TablePrefix.WORKERS):
                self._restore_worker(row)
            for row in head.gcs.jobs.values():
                if not row["is_dead"] and row["driver"]:
                    self._restore_driver(row)
        head.placement.restore()
        head.actors.restore((record, _decode(value, type=ActorRecord)) for record, value in self._actor_rows())
        self.is_going_on = True
        self._until = head.now + WITHIN
        if head.starter.server_is_new or not same_session:
            self.children_told()
        head.call_at(head.now, self._look)

    def _rows(self, table: TablePrefix) -> list[dict[str, Any]]:
        return [_decode(value) for _, value in self._head.gcs.tables.scan(table)]

    def _actor_rows(self) -> list[tuple[control.ActorSpec, bytes]]:
        tables = self._head.gcs.tables
        rows = []
        for actor_id, value in tables.scan(TablePrefix.ACTOR_TASK_SPEC):
            record = tables.get(TablePrefix.DIRECT_ACTOR, actor_id)
            if record is not None:
                rows.append((_decode(value, type=control.ActorSpec), record))
        return rows

    def _restore_worker(self, row: dict[str, Any]) -> None:
        head = self._head
        worker_id = row["worker_id"]
        if not row["alive"]:
            head.dead[worker_id] = control.WorkerDied(
                worker_id,
                row["node_id"],
                row["pid"],
                False,
                row.get("exit_type", "SYSTEM_ERROR"),
                row.get("exit_detail", ""),
                log_files=row["log_files"],
            )
            return
        member = self._await(worker_id, "worker", row["node_id"], row["start_time_ms"] / 1000, row["pid"])
        member.job_id = row["job_id"]
        member.out_file, member.err_file = row["log_files"]
        member.runtime_env = row.get("runtime_env", "")
        if row["address"]:
            member.address = Address(*row["address"])

    def _restore_driver(self, row: dict[str, Any]) -> None:
        worker_id, endpoint = row["driver"]
        member = self._await(worker_id, "driver", self._head.startup.node_id, row["start_time"], row["pid"])
        member.address = Address(worker_id, endpoint)
        member.job_id = row["job_id"]

    def _await(self, worker_id: bytes, kind: str, node_id: bytes, start_time: float, pid: int) -> Member:
        member = Member(worker_id, kind, node_id, start_time)
        member.pid = pid
        self._head.members[worker_id] = member
        self._awaited.add(worker_id)
        return member

    # -- from the fork server --------------------------------------------------------------------------------------

    def child(self, worker_id: bytes, pid: int) -> Member:
        """The old fork server has such a child."""
        member = self._head.members.get(worker_id)
        if member is None:  # it had not registered yet
            member = self._await(worker_id, "worker", self._head.startup.node_id, 0.0, pid)
        member.is_child = True
        return member

    def children_told(self) -> None:
        """That were all. The other workers are nobody's children any more."""
        for worker_id in self._awaited:
            member = self._head.members.get(worker_id)
            if member is not None and member.kind == "worker" and not member.is_child:
                member.orphan = True
        self._children = set()

    # -- from the processes ----------------------------------------------------------------------------------------

    def on_rejoin(self, sender: bytes, message: Rejoin) -> None:
        """A process of the session is here."""
        head = self._head
        member = head.members.get(sender)
        if member is None and message.kind == "driver" and sender not in head.dead and not any(message.job_id):
            # Its registration is still to come.
            member = head.members[sender] = Member(sender, "driver", head.startup.node_id, 0.0)
        if member is None or member.dead or member.settling or member.kind != message.kind or sender in self._told:
            self._refuse(sender, message)
            return
        member.address, member.pid = message.address, message.pid
        member.registered = True
        if any(message.job_id):
            member.job_id = message.job_id
        head.memory.adopt(member, message.reserved)
        for held in message.leases:
            self._adopt_lease(sender, held, message.specs[held.class_id])
        if member.kind == "worker":
            head.gcs.put_worker(member)
        self._told[sender] = message
        self._awaited.discard(sender)
        head.answer(sender, message.request_id, Rejoined(message.request_id))
        if not self._awaited:
            self._look()

    def on_blocked(self, sender: bytes, blocked: bool) -> None:
        """A worker has gone on since it told of itself; who holds it may not have told yet."""
        told = self._told.get(sender)
        if told is not None:
            told.blocked = blocked

    def _refuse(self, sender: bytes, message: Rejoin) -> None:
        head = self._head
        head.transport.release(sender)  # it was taken for dead
        if message.kind == "worker":
            head.post(sender, control.Exit("the head does not know this worker", force=True))
            return
        text = (
            "The head of this session was replaced, and this driver did not come back in time: its job was ended. Call "
            "shutdown() and init() to start anew."
        )
        head.post(sender, Rejoined(message.request_id, text))

    def _adopt_lease(self, owner: bytes, held: HeldLease, spec: control.LeaseSpec) -> None:
        head = self._head
        worker = head.members.get(held.worker_id)
        if worker is None or worker.dead or worker.kind != "worker":
            head.on_watch(owner, control.WatchWorker(held.worker_id))  # tells that it is dead
            return
        head.leases.adopt(owner, held, spec, worker)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        head = self._head
        if not self.is_going_on or head.stopping:
            return
        over = head.now >= self._until
        stopped_too = head.now >= self._until - WITHIN + WITHIN_IF_STOPPED
        for worker_id in list(self._awaited):
            member = head.members.get(worker_id)
            if member is None or member.dead:
                self._awaited.discard(worker_id)
                continue
            late = over or (stopped_too and _is_stopped(member.pid))
            if member.line is None and (late or (not member.is_child and not _exists(member.pid))):
                if late:
                    print(f"head: {member.kind} {member.pid} did not come back", file=sys.stderr, flush=True)
                    head.ends.kill(member, "it did not come back to the new head in time")
                head.ends.settle(member)
        if (not self._awaited and self._children is not None) or over:
            self._finish()
        else:
            head.call_at(head.now + _LOOK, self._look)

    def _finish(self) -> None:
        head = self._head
        self.is_going_on = False
        addresses = {}
        for worker_id, told in self._told.items():
            member = head.members.get(worker_id)
            if member is None or member.kind != "worker" or member.address is None:
                continue
            addresses[worker_id] = WorkerAddress(member.address, member.node_id, member.pid)
            if told.busy and head.leases.lease_of(worker_id) is None:
                head.ends.kill(member, "the owner of its task is gone")
        present = [worker_id for worker_id, member in head.members.items() if not member.dead]
        told_actors = {
            worker_id: (told.actor_id, told.actor_created)
            for worker_id, told in self._told.items()
            if worker_id in addresses
        }
        head.actors.resume(told_actors, addresses, set(present))
        for worker_id, told in self._told.items():
            member = head.members.get(worker_id)
            if worker_id in addresses and member is not None:
                head.leases.adopt_worker(member, blocked=told.blocked)
        self._told.clear()
        head.leases.changed()


def _is_stopped(pid: int) -> bool:
    import psutil  # only for those who do not come back soon

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid > 0
