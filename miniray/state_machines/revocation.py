"""Which leases are taken back for those who wait (rule 2 of `scheduler`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from miniray.state_machines.resources import CPU

if TYPE_CHECKING:
    from miniray.state_machines.lease_record import Claim, Lease
    from miniray.state_machines.node_choice import Candidate
    from miniray.state_machines.placement import Group, PlacementGroups

#: seconds that a lease is held before it is revoked only to take turns
QUANTUM = 0.3
#: leases revoked in one go for one claim, and for all; the next pass goes on
_AT_ONCE = 16
_AT_ONCE_IN_ALL = 64


class Plan:
    """The leases and resources as they will be when all that is revoked has been given back.

    Args:
        leases: all there are; some are revoked already.
        running_by_job: job -> running leases.
        wake: is told when a quantum ends.
    """

    def __init__(
        self,
        leases: Iterable[Lease],
        running_by_job: Mapping[bytes, int],
        now: float,
        wake: Callable[[float], None],
    ) -> None:
        self.victims: list[Lease] = []
        #: where the bundles of the groups that wait would go
        self.groups: dict[bytes, dict[int, Candidate]] = {}
        self._now = now
        self._wake = wake
        self._job = dict(running_by_job)
        self._claim: dict[tuple[bytes, int], int] = {}
        self._free: dict[bytes, dict[str, int]] = {}
        self._potential: dict[bytes, dict[str, int]] = {}
        self._held: dict[bytes, list[Lease]] = {}
        self._revocable: dict[bytes, list[Lease]] = {}
        #: what decides whether a claim may take anything, of those that found nothing: a thousand claims that wait
        #: alike cost one search
        self._hopeless: set[object] = set()
        for lease in leases:
            if lease.revocable:
                self._revocable.setdefault(lease.pool.key, []).append(lease)
            if lease.revoked:
                self._release(lease)
            elif lease.revocable and lease.worker_id and not lease.blocked:
                self._held.setdefault(lease.pool.key, []).append(lease)

    def potential(self, pool: Candidate) -> dict[str, int]:
        """What the pool would have to give if all its revocable leases were back."""
        units = self._potential.get(pool.key)
        if units is not None:
            return units
        units = self._potential[pool.key] = dict(pool.resources.available)
        for lease in self._revocable.get(pool.key, ()):
            for name, quantity in lease.allocation.resources.items():
                if not (lease.blocked and name == CPU):
                    units[name] += quantity
        return units

    def serve_group(self, group: Group, groups: PlacementGroups, nodes: Mapping[bytes, Candidate]) -> None:
        """Make room for a placement group that waits, if revocable leases are all that is in its way."""
        chosen = groups.plan(group, {node_id: self.potential(node) for node_id, node in nodes.items()})
        if chosen is None:
            return
        self.groups[group.group_id] = chosen
        for bundle in group.missing():
            pool = chosen[bundle.index]
            held = self._held.get(pool.key, [])
            # The youngest go first: they have the least to lose.
            for lease in sorted(held, key=lambda lease: lease.placed_at, reverse=True):
                if self._helps(lease, bundle.resources):
                    held.remove(lease)
                    self._release(lease)
                    self.victims.append(lease)
            free = self._free_of(pool)
            for name, units in bundle.resources.items():
                free[name] = free.get(name, 0) - units

    def serve_all(self, claims: Iterable[Claim], kept_at: Callable[[Any], Iterable[bytes]]) -> None:
        """Make room for these claims, in this order; `kept_at`: the pools where something is reserved for one."""
        for claim in claims:
            kept = claim.need.keys.intersection(kept_at(claim.key))
            pools = [pool for pool in claim.need.pools if pool.key in kept] if kept else claim.need.pools
            for _ in range(min(claim.count, _AT_ONCE)):
                if not self._serve_one(claim, pools, kept):
                    break
            if len(self.victims) >= _AT_ONCE_IN_ALL:
                break

    def _serve_one(self, claim: Claim, pools: list[Candidate], kept: frozenset[bytes]) -> bool:
        demand = claim.spec.resources
        job_id = claim.spec.job_id
        alike = (job_id, claim.depth, self._running(claim), self._job.get(job_id), claim.need.key, kept)
        if alike in self._hopeless:
            return False
        for pool in pools:
            if self._has_room(pool, demand):
                self._take(pool, claim)
                return True
        for pool in pools:
            chosen = self._victims_in(pool, claim)
            if chosen:
                for lease in chosen:
                    self._held[pool.key].remove(lease)
                self.victims += chosen
                self._take(pool, claim)
                return True
        self._hopeless.add(alike)
        return False

    def _victims_in(self, pool: Candidate, claim: Claim) -> list[Lease]:
        """Leases whose return makes room for one more of this claim; none if that does not suffice."""
        chosen: list[Lease] = []
        # Richest claims first, and of one claim the lease that was held longest.
        candidates = sorted(
            self._held.get(pool.key, ()),
            key=lambda lease: (-self._running(lease.claim), lease.placed_at),
        )
        for lease in candidates:
            if lease.claim is not claim and self._helps(lease, claim.spec.resources) and self._may_take(claim, lease):
                self._release(lease)
                chosen.append(lease)
                if self._has_room(pool, claim.spec.resources):
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

    def _free_of(self, pool: Candidate) -> dict[str, int]:
        free = self._free.get(pool.key)
        if free is None:
            free = self._free[pool.key] = dict(pool.resources.available)
        return free

    def _has_room(self, pool: Candidate, demand: Mapping[str, int]) -> bool:
        free = self._free_of(pool)
        return all(free.get(name, 0) >= quantity for name, quantity in demand.items() if quantity > 0)

    def _helps(self, lease: Lease, demand: Mapping[str, int]) -> bool:
        """Whether it holds something that its pool has too little of for this."""
        free = self._free_of(lease.pool)
        return any(free[name] < demand.get(name, 0) for name in lease.allocation.resources)

    def _take(self, pool: Candidate, claim: Claim) -> None:
        free = self._free_of(pool)
        for name, quantity in claim.spec.resources.items():
            if quantity > 0:
                free[name] -= quantity
        self._count(claim, 1)

    def _release(self, lease: Lease, sign: int = 1) -> None:
        free = self._free_of(lease.pool)
        for name, quantity in lease.allocation.resources.items():
            if not (lease.blocked and name == CPU):
                free[name] += sign * quantity
        if not lease.blocked:
            self._count(lease.claim, -sign)

    def _count(self, claim: Claim, step: int) -> None:
        self._claim[claim.key] = self._claim.get(claim.key, 0) + step
        self._job[claim.spec.job_id] = self._job.get(claim.spec.job_id, 0) + step
