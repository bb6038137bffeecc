"""What a new head makes of what the processes of the old one tell, in whatever order they come."""

from types import SimpleNamespace

import pytest

from miniray.messages.control import LeaseSpec, WorkerBlocked
from miniray.messages.objects import Address
from miniray.messages.reconnect import HeldLease, Rejoin
from miniray.processes.head_leases import Leases
from miniray.processes.head_members import Member
from miniray.processes.head_recovery import Recovery

OWNER, WORKER, NODE, JOB = b"owner", b"worker", b"node", b"\1\0\0\0"
CPU = LeaseSpec({"CPU": 10000}, JOB)


class Head(SimpleNamespace):
    """A head with leases, and with nothing else."""

    def __init__(self):
        super().__init__(
            now=0.0, stopping="", startup=SimpleNamespace(num_cpus=1, epoch=2, head_id=b"head", node_id=NODE)
        )
        self.members = {OWNER: Member(OWNER, "driver", NODE, 0.0), WORKER: Member(WORKER, "worker", NODE, 0.0)}
        self.dead = {}
        self.memory = SimpleNamespace(adopt=lambda member, reserved: None)
        self.gcs = SimpleNamespace(put_worker=lambda member: None)
        self.actors = SimpleNamespace(resume=lambda told, addresses, present: None)
        self.leases = Leases(self)
        self.recovery = Recovery(self)
        self.recovery.is_going_on, self.recovery._until = True, 30.0
        self.leases.add_node(NODE, {"CPU": 10000}, {}, 1)

    def answer(self, sender, request_id, message):
        pass

    def call_at(self, when, action):
        pass

    def rejoin(self, sender, **fields):
        kind = self.members[sender].kind
        leases = [HeldLease(1, 7, WORKER, NODE)] if kind == "driver" else []
        message = Rejoin(1, kind, Address(sender, ""), 1, NODE, JOB, leases, {1: CPU}, 0, busy=True, **fields)
        self.recovery.on_rejoin(sender, message)


@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("owner_is_first", [True, False])
def test_a_worker_that_blocks_or_goes_on_while_others_come_back_is_taken_for_what_it_is(blocked, owner_is_first):
    head = Head()
    if owner_is_first:
        head.rejoin(OWNER)
    head.rejoin(WORKER, blocked=not blocked)
    head.leases.on_blocked(WORKER, WorkerBlocked(blocked))
    if not owner_is_first:
        head.rejoin(OWNER)
    head.recovery._finish()
    assert head.leases.lease_of(WORKER).blocked is blocked
