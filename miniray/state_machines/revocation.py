"""Which leases are taken back for those who wait (rule 2 of `scheduler`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from miniray.state_machines import node_choice
from miniray.state_machines.resources import CPU

if TYPE_CHECKING:
    from miniray.state_machines.node_choice import Candidate
    from miniray.state_machines.scheduler import Claim, Lease

#: seconds that a lease is held before it is revoked only to take turns
QUANTUM = 0.3
#: leases revoked in one go for one claim, and for all; the next pass goes on
_AT_ONCE = 16
_AT_ONCE_IN_ALL = 64


def choose_victims(
    waiting: Iterable[Claim],
    nodes: Mapping[bytes, Candidate],
    leases: Iterable[Lease],
    running_by_job: Mapping[bytes, int],
    now: float,
    wake: Callable[[float], None],
) -> list[Lease]:
    """The leases to revoke, given what is revoked already; `wake` is told when a quantum ends."""
    plan = _Plan(nodes, leases, running_by_job, now, wake)
    for claim in waiting:
        plan.serve(claim)
        if len(plan.victims) >= _AT_ONCE_IN_ALL:
            break
    return plan.victims


class _Plan:
    """The leases and resources as they will be when all that is revoked has been given back."""

    def __init__(
        self,
        nodes: Mapping[bytes, Candidate],
        leases: Iterable[Lease],
        running_by_job: Mapping[bytes, int],
        now: float,
        wake: Callable[[float], None],
    ) -> None:
        self.victims: list[Lease] = []
        self._nodes = nodes
        self._now = now
        self._wake = wake
        self._job = dict(running_by_job)
        self._claim: dict[tuple[bytes, int], int] = {}
        self._free = {node_id: dict(node.resources.available) for node_id, node in nodes.items()}
        self._held: dict[bytes, list[Lease]] = {node_id: [] for node_id in nodes}
        #: what decides whether a claim may take anything, of those that found nothing: a thousand claims that wait
        #: alike cost one search
        self._hopeless: set[object] = set()
        for lease in leases:
            if lease.revoked:
                self._release(lease)
            elif lease.revocable and lease.worker_id and not lease.blocked:
                self._held[lease.node_id].append(lease)

    def serve(self, claim: Claim) -> None:
        for _ in range(min(claim.count, _AT_ONCE)):
            if not self._serve_one(claim):
                return

    def _serve_one(self, claim: Claim) -> bool:
        demand = claim.spec.resources
        able = node_choice.eligible(list(self._nodes.values()), demand, claim.strategy)
        for node in able:
            if self._has_room(node.node_id, demand):
                self._take(node.node_id, claim)
                return True
        job_id = claim.spec.job_id
        situation = (job_id, claim.depth, self._running(claim), self._job.get(job_id), claim.spec.strategy)
        alike = (*situation, tuple(sorted(demand.items())))
        if alike in self._hopeless:
            return False
        for node in able:
            chosen = self._victims_on(node.node_id, claim)
            if chosen:
                for lease in chosen:
                    self._held[node.node_id].remove(lease)
                self.victims += chosen
                self._take(node.node_id, claim)
                return True
        self._hopeless.add(alike)
        return False

    def _victims_on(self, node_id: bytes, claim: Claim) -> list[Lease]:
        """Leases whose return makes room for one more of this claim; none if that does not suffice."""
        chosen: list[Lease] = []
        # Richest claims first, and of one claim the lease that was held longest.
        candidates = sorted(
            self._held[node_id],
            key=lambda lease: (-self._running(lease.claim), lease.placed_at),
        )
        for lease in candidates:
            if lease.claim is not claim and self._may_take(claim, lease):
                self._release(lease)
                chosen.append(lease)
                if self._has_room(node_id, claim.spec.resources):
                    return chosen
        for lease in chosen:
            self._release(lease, -1)
        return []

    def _may_take(self, claim: Claim, lease: Lease) -> bool:
        other = lease.claim
        if claim.spec.job_id == other.spec.job_id:
            if claim.depth != other.depth:
                return claim.depth > other.depth
            mine, theirs = self._running(claim), self._running(other)
        else:
            mine = self._job.get(claim.spec.job_id, 0)
            theirs = self._job.get(other.spec.job_id, 0)
        if theirs > mine + 1:
            return True
        if mine > 0 or theirs < 1:
            return False
        quantum_ends = lease.placed_at + QUANTUM
        if self._now >= quantum_ends:
            return True
        self._wake(quantum_ends)
        return False

    def _running(self, claim: Claim) -> int:
        return claim.running + self._claim.get(claim.key, 0)

    def _has_room(self, node_id: bytes, demand: Mapping[str, int]) -> bool:
        free = self._free[node_id]
        return all(free.get(name, 0) >= quantity for name, quantity in demand.items() if quantity > 0)

    def _take(self, node_id: bytes, claim: Claim) -> None:
        free = self._free[node_id]
        for name, quantity in claim.spec.resources.items():
            if quantity > 0:
                free[name] -= quantity
        self._count(claim, 1)

    def _release(self, lease: Lease, sign: int = 1) -> None:
        free = self._free[lease.node_id]
        for name, quantity in lease.allocation.resources.items():
            if not (lease.blocked and name == CPU):
                free[name] += sign * quantity
        if not lease.blocked:
            self._count(lease.claim, -sign)

    def _count(self, claim: Claim, step: int) -> None:
        self._claim[claim.key] = self._claim.get(claim.key, 0) + step
        self._job[claim.spec.job_id] = self._job.get(claim.spec.job_id, 0) + step
