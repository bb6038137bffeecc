"""Who gets a worker next: demands of owners on one side, the resources of nodes on the other.

Terms: a *claim* is what one owner wants of one scheduling class (`LeaseDemand`: so many more leases). A *need* is what
claims want that do not differ for the scheduler (`node_choice`). A *lease* holds resources of a *pool* (a node, or a
bundle of a placement group); it is *placed* when the resources are taken, and *granted* when the worker pool has found
a worker for it. Blocked leases (their worker waits in `get`) hold no CPU, and do not count as running.

Rules
-----
1. Among jobs, the one with the fewest running leases is served first; inside a job the deepest tasks (their parents
   wait for them), then the claim with the fewest leases, then whoever waited longest (`waiting_claims`). A claim that
   does not fit is passed over; it stops nobody.
2. While a claim waits, leases are *revoked* (given back after the current task): from shallower claims of its job; from
   whoever has at least two more than it; and, so that one CPU can serve two, from anybody who has held one for
   `revocation.QUANTUM` while the claim has none. Never more of them than would serve those who wait. For a placement
   group that waits, any.
3. A demand is absolute: what was placed but not granted yet counts towards it, and a smaller demand takes it back.
4. A claim that no node could ever serve waits, and its job is told after `INFEASIBLE_AFTER`, then rarely. What can
   never be served in the future either (a hard affinity to a dead node, a removed group) is refused.
5. Actors are placed where `spec.resources` would fit in an empty node, and hold `held` from then on: Ray's rule of one
   CPU to be placed and none to live, so that more actors than CPUs start, also while all CPUs are busy. They are not
   revoked, and do not count as running.
6. Tasks that need nothing (num_cpus=0) are let in slowly beyond a cap per node (`slow_admission`).
7. A large demand that smaller ones overtake gets a *reservation* (`reservation`): what comes back to a pool is kept for
   it. Ray has none, and its large demands starve.

What a pass costs: a need that found no room is not looked at again before something is given back, so that thousands
of claims that wait do not slow one that fits. Rules 2 and 7 look at all of them, and so do that the more rarely the
more there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count as counter

from miniray.messages.control import LeaseSpec
from miniray.state_machines.lease_record import (
    Claim,
    ClaimKey,
    Effect,
    Infeasible,
    Lease,
    Place,
    Refuse,
    Revoke,
    Withdraw,
)
from miniray.state_machines.node_choice import UNSCHEDULABLE, Candidate, Need
from miniray.state_machines.placement import REMOVED, PlacementGroups
from miniray.state_machines.placement import Effect as GroupEffect
from miniray.state_machines.reservation import Reservations
from miniray.state_machines.resources import CPU, UNIT, NodeResources
from miniray.state_machines.revocation import Plan
from miniray.state_machines.slow_admission import SlowAdmission
from miniray.state_machines.waiting_claims import Rank, WaitingClaims

INFEASIBLE_AFTER = 1.0
INFEASIBLE_AGAIN = 60.0
#: seconds that the news of a placement group may take longer than its handle
UNKNOWN_FOR = 1.0
#: seconds between two looks at all claims that wait and all leases, for each of them, when they are many
_LOOK_INTERVAL = 40e-6
_MANY = 100

GROUP_REMOVED = "The placement group corresponding to this task has been removed."


class Scheduler:
    """Claims, leases, nodes and placement groups. Call `schedule` after anything changed, and at `wake_at`."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Candidate] = {}
        self.groups = PlacementGroups(self.nodes)
        self.claims: dict[ClaimKey, Claim] = {}
        self.leases: dict[int, Lease] = {}
        self.wake_at: float | None = None
        self.reservations = Reservations()
        self._waiting = WaitingClaims()
        self._numbers = counter(1)
        self._turn = 0
        self._topology = 0  #: changes with the nodes
        self._freed: set[bytes] = set()  #: pools where something was given back since the last pass
        self._all_freed = False  #: or more has changed than that
        self._groups_due = True  #: something was given back to a node since the groups that wait were tried
        self._look_at = 0.0  #: not before this are all that wait looked at again
        self._slow = SlowAdmission()

    # -- nodes and groups ------------------------------------------------------------------------------------------

    def add_node(self, node_id: bytes, resources: dict[str, int], labels: dict[str, str]) -> None:
        """A node joins."""
        self._topology += 1
        self._all_freed = self._groups_due = True
        self.nodes[node_id] = Candidate(node_id, NodeResources(resources), labels, 0)
        self._slow.add_node(node_id, resources.get(CPU, 0) // UNIT)

    def remove_node(self, node_id: bytes, now: float = 0.0) -> tuple[list[Lease], list[GroupEffect]]:
        """A node is gone, and its leases with it; those without a worker are demanded again."""
        self._topology += 1
        self._all_freed = self._groups_due = True
        lost = [lease for lease in self.leases.values() if lease.node_id == node_id]
        for lease in lost:
            self.end(lease.lease_id)
            if not lease.worker_id:
                self._want(lease.claim, lease.claim.count + 1, lease.placed_at)
        del self.nodes[node_id]
        self._slow.remove_node(node_id)
        self.reservations.pools_gone([node_id])
        return lost, self.groups.node_gone(node_id, now)

    def remove_group(self, group_id: bytes) -> tuple[list[Lease], list[Effect], list[GroupEffect]]:
        """A placement group is ended. Its leases whose workers are to be killed; the claims on it are refused in the
        next pass.
        """
        pools, group_effects = self.groups.remove(group_id)
        self._all_freed = self._groups_due = True
        lost: list[Lease] = []
        effects: list[Effect] = []
        if pools:
            keys = {pool.key for pool in pools}
            for lease in [lease for lease in self.leases.values() if lease.pool.key in keys]:
                self.end(lease.lease_id)
                if lease.worker_id:
                    lost.append(lease)
                else:
                    effects.append(Withdraw(lease.lease_id))
                    self._want(lease.claim, lease.claim.count + 1, lease.placed_at)
            self.reservations.pools_gone(keys)
        self.reservations.drop(group_id)
        return lost, effects, group_effects

    # -- demands ---------------------------------------------------------------------------------------------------

    def demand(
        self,
        owner: bytes,
        class_id: int,
        spec: LeaseSpec | None,
        count: int,
        now: float,
        *,
        depth: int = 0,
        owner_node: bytes = b"",
        held: dict[str, int] | None = None,
    ) -> list[Effect]:
        """An owner says how many more leases it wants. `spec` None: as before. `held`: for an actor, see rule 5.

        Raises:
            KeyError: there is no "before".
        """
        claim = self.claims.get((owner, class_id))
        if claim is None:
            if spec is None:
                raise KeyError((owner, class_id))
            claim = Claim(owner, class_id, spec, self._waiting.use_need(spec, held), held)
            self.claims[claim.key] = claim
        claim.depth = depth
        claim.owner_node = owner_node
        effects: list[Effect] = []
        while claim.waiting > count:
            lease_id = next(iter(claim.placed))
            self.end(lease_id)
            effects.append(Withdraw(lease_id))
        self._want(claim, count - claim.waiting, now)
        return effects

    def _want(self, claim: Claim, count: int, now: float) -> None:
        claim.count = count
        if count:
            self._waiting.add(claim, now, self._turn)
        else:
            self._waiting.remove(claim)
            self._keep_nothing_for(claim, now)

    def _keep_nothing_for(self, claim: Claim, now: float) -> None:
        if self.reservations.drop(claim.key):  # others may have room now: a pass follows at once
            self._all_freed = self._groups_due = True
            self._wake(now)

    def _drop(self, claim: Claim) -> None:
        """This claim will not come back."""
        self._want(claim, 0, 0.0)
        if self.claims.pop(claim.key, None) is not None:
            self._waiting.leave_need(claim.need)

    def withdraw(self, owner: bytes, class_id: int) -> list[Effect]:
        """A demand is void, and its number will not be used again. Leases that are granted stay."""
        claim = self.claims.get((owner, class_id))
        if claim is None:
            return []
        effects = self.demand(owner, class_id, None, 0, 0.0)
        self._drop(claim)
        return effects

    def refuse(self, lease_id: int) -> Claim | None:
        """No worker can be started for this lease: its claim is dropped, and whoever owns it is to be told."""
        lease = self.end(lease_id)
        if lease is None:
            return None
        self._want(lease.claim, 0, 0.0)
        return lease.claim

    # -- leases ----------------------------------------------------------------------------------------------------

    def granted(self, lease_id: int, worker_id: bytes) -> Lease | None:
        """The pool found a worker. None: the lease was withdrawn meanwhile."""
        lease = self.leases.get(lease_id)
        if lease is not None and not lease.worker_id:
            lease.worker_id = worker_id
            del lease.claim.placed[lease_id]
        return lease

    def end(self, lease_id: int) -> Lease | None:
        """A lease was given back, or is lost. None: there is no such lease (any more)."""
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            return None
        self.set_blocked(lease, False)
        self._note_freed(lease.pool)
        claim = lease.claim
        lease.pool.resources.give_back(lease.allocation)
        self._count_running(lease, -1)
        claim.leases -= 1
        if not lease.worker_id:
            del claim.placed[lease_id]
        elif claim.held is not None:
            self._drop(claim)
        return lease

    def adopt(
        self,
        lease_id: int,
        owner: bytes,
        class_id: int,
        spec: LeaseSpec,
        node_id: bytes,
        worker_id: bytes,
        now: float,
        *,
        held: dict[str, int] | None = None,
        devices: dict[str, list[str]] | None = None,
    ) -> Lease | None:
        """A lease that an earlier head has granted is in force. None: its node or its placement group is gone."""
        demand = spec.resources if held is None else held
        group = self.groups.groups.get(spec.placement_group_id)
        if group is not None:
            # Which bundle of several it was in is not known: one that has room for it.
            pools = [pool for pool in group.pools(spec.bundle_index) if pool.node_id == node_id]
        else:
            pools = [self.nodes[node_id]] if node_id in self.nodes and not spec.placement_group_id else []
        if not pools or lease_id in self.leases:
            return None
        pool = next((pool for pool in pools if pool.resources.fits(demand)), pools[0])
        if (owner, class_id) not in self.claims:
            self.demand(owner, class_id, spec, 0, now, held=held)
        claim = self.claims[owner, class_id]
        taken = pool.resources.adopt(demand, devices)
        lease = Lease(lease_id, claim, pool, taken, now, worker_id=worker_id, revocable=held is None)
        self.leases[lease_id] = lease
        claim.leases += 1
        self._count_running(lease, 1)
        return lease

    def number_leases_from(self, first: int) -> None:
        """Those of an earlier head keep their numbers."""
        self._numbers = counter(first)

    def set_blocked(self, lease: Lease, blocked: bool) -> None:
        """The worker of this lease waits in `get`, or goes on. Actors keep what they hold, as in Ray."""
        if lease.blocked == blocked or lease.claim.held is not None:
            return
        lease.blocked = blocked
        resources = lease.pool.resources
        if blocked:
            self._note_freed(lease.pool)
            resources.release_cpu(lease.allocation)
        else:
            resources.reclaim_cpu(lease.allocation)
        self._count_running(lease, -1 if blocked else 1)

    def _note_freed(self, pool: Candidate) -> None:
        self._freed.add(pool.key)
        self._groups_due = self._groups_due or not pool.bundle

    def _count_running(self, lease: Lease, step: int) -> None:
        claim = lease.claim
        if claim.held is not None:
            return
        self._waiting.count_running(claim, step)
        if not lease.allocation.resources:
            self._slow.count_running(lease.node_id, step)

    def owner_gone(self, owner: bytes) -> tuple[list[Lease], list[Effect]]:
        """Its demands are void. The leases it had, ended; and what to withdraw."""
        lost: list[Lease] = []
        effects: list[Effect] = []
        for claim in [claim for claim in self.claims.values() if claim.owner == owner]:
            self._drop(claim)
        for lease in [lease for lease in self.leases.values() if lease.claim.owner == owner]:
            self.end(lease.lease_id)
            if lease.worker_id:
                lost.append(lease)
            else:
                effects.append(Withdraw(lease.lease_id))
        return lost, effects

    # -- the decision ----------------------------------------------------------------------------------------------

    def schedule_groups(self, now: float) -> list[GroupEffect]:
        """Reserve the placement groups for which there is room; before `schedule`."""
        if not self.groups.waiting:
            return []
        kept = self.reservations
        free_for = (lambda group: kept.left_for(group, self.nodes)) if kept.by_pool else None
        effects = self.groups.schedule(now, free_for, all_of_them=self._groups_due)
        self._groups_due = False
        self._all_freed = self._all_freed or bool(effects)
        return effects

    def schedule(self, now: float) -> list[Effect]:
        """Place what fits, revoke what others wait for, warn of what cannot run."""
        self.wake_at = None
        effects: list[Effect] = []
        if self._waiting.active:
            self._place_all(now, effects)
        if self._waiting.active or self.groups.waiting:
            self._relieve(now, effects)
        return effects

    def is_waited_for(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting.active or self.groups.waiting)

    def _wake(self, at: float) -> None:
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def _place_all(self, now: float, effects: list[Effect]) -> None:
        queue: list[tuple[Rank, int, Need, Claim]] = []
        number = counter()
        freed, everything = self._freed, self._all_freed
        self._freed, self._all_freed = set(), False
        for need in list(self._waiting.active.values()):
            if need.is_full and not everything and need.keys.isdisjoint(freed):
                continue
            self._refresh(need, now, effects)
            group_id = need.spec.placement_group_id
            need.is_full = not need.has_room() and (not group_id or group_id in self.groups.groups)
            if need.is_full and need.fails_when_full():
                self._refuse(need, "TaskUnschedulableError", UNSCHEDULABLE, effects)
            elif need.claims and need.pools and not need.is_full:
                rank, claim = self._waiting.first(need)
                queue.append((rank, next(number), need, claim))
        heapq.heapify(queue)
        while queue:
            rank, _, need, claim = heapq.heappop(queue)
            if queue:
                # What was placed meanwhile may have moved it back.
                rank, claim = self._waiting.first(need)
                if rank > queue[0][0]:
                    heapq.heappush(queue, (rank, next(number), need, claim))
                    continue
            if self._place_one(claim, need, now, effects) and need.claims:
                rank, claim = self._waiting.first(need)
                heapq.heappush(queue, (rank, next(number), need, claim))

    def _refresh(self, need: Need, now: float, effects: list[Effect]) -> None:
        """The nodes, or the group, may be others than when the need was last looked at."""
        spec = need.spec
        if not spec.placement_group_id:
            if need.version != self._topology:
                need.look_at(self.nodes.values(), self._topology)
            error, text = "TaskUnschedulableError", need.refused
        else:
            group = self.groups.groups.get(spec.placement_group_id)
            if group is None and self._may_come(need, now):
                need.look_at_bundles([], -1)
                error = text = ""
            elif group is None or group.state == REMOVED:
                need.look_at_bundles([], -1)
                error, text = "TaskPlacementGroupRemoved", GROUP_REMOVED
            else:
                if need.version != group.version:
                    need.look_at_bundles(group.pools(spec.bundle_index), group.version)
                error = text = ""
        if text:
            self._refuse(need, error, text, effects)

    def _may_come(self, need: Need, now: float) -> bool:
        """Whether the news of an unknown group may be on its way: its creator sends it, others have handles."""
        first = min((claim.waits_since or 0.0 for claim in need.claims.values()), default=0.0)
        if now >= first + UNKNOWN_FOR:
            return False
        self._wake(first + UNKNOWN_FOR)
        return True

    def _refuse(self, need: Need, error: str, text: str, effects: list[Effect]) -> None:
        for claim in list(need.claims.values()):
            self._want(claim, 0, 0.0)
            effects.append(Refuse(claim, error, text))

    def _place_one(self, claim: Claim, need: Need, now: float, effects: list[Effect]) -> bool:
        admits = None
        gated = need.held is None and not any(need.spec.resources.values())
        if gated:
            admits = lambda pool: self._lets_in(pool, now)
        elif self.reservations.by_pool:
            admits = lambda pool: self.reservations.admits(claim, pool)
        pool = need.choose(claim.owner_node, admits)
        if pool is None:
            if need.fails_when_full():
                self._refuse(need, "TaskUnschedulableError", UNSCHEDULABLE, effects)
            else:
                need.is_full = admits is None
            return False
        if gated:
            self._slow.begins(pool.node_id, now)
        demand = need.spec.resources
        held = need.held
        taken = pool.resources.take(demand if held is None else held)
        lease = Lease(next(self._numbers), claim, pool, taken, now, revocable=held is None)
        self.leases[lease.lease_id] = lease
        self._turn += 1
        pool.last_used = claim.turn = self._turn
        pool.last_taken = taken.resources
        claim.leases += 1
        claim.placed[lease.lease_id] = lease
        self._count_running(lease, 1)
        self._want(claim, claim.count - 1, now)
        if claim.count:
            claim.waits_since, claim.began = now, self._turn
            self._keep_nothing_for(claim, now)
        effects.append(Place(lease))
        return True

    def _lets_in(self, pool: Candidate, now: float) -> bool:
        opens_at = self._slow.opens_at(pool.node_id)
        if now < opens_at:
            self._wake(opens_at)
        return now >= opens_at

    # -- those who wait --------------------------------------------------------------------------------------------

    def _relieve(self, now: float, effects: list[Effect]) -> None:
        """Rules 2, 4 and 7, for all that are still waiting."""
        if now < self._look_at:
            self._wake(self._look_at)
            return
        claims: list[Claim] = []
        number = 0
        for need in self._waiting.active.values():
            number += len(need.claims)
            if need.pools:
                claims += self._waiting.foremost(need)
            elif not need.spec.placement_group_id or self._is_reserved(need.spec.placement_group_id):
                self._warn(need, now, effects)
        groups = list(self.groups.waiting.values())
        cost = number + len(self.leases) + len(groups) * len(self.nodes)
        if cost > _MANY:
            self._look_at = now + cost * _LOOK_INTERVAL
        if not claims and not groups:
            return
        claims.sort(key=self._waiting.rank)
        plan = Plan(self.leases.values(), self._waiting.running, now, self._wake)
        for group in groups:
            plan.serve_group(group, self.groups, self.nodes)
        plan.serve_all(claims, self.reservations.held_for)
        for lease in plan.victims:
            lease.revoked = True
            effects.append(Revoke(lease.claim.owner, lease.lease_id))
        changed, wake_at = self.reservations.update(claims, groups, plan, now)
        if changed:  # others may have room now: they are looked at in a pass that follows at once
            self._all_freed = self._groups_due = True
            self._wake(now)
        if wake_at is not None:
            self._wake(wake_at)

    def _is_reserved(self, group_id: bytes) -> bool:
        return group_id not in self.groups.waiting

    def _warn(self, need: Need, now: float, effects: list[Effect]) -> None:
        for claim in need.claims.values():
            if claim.warn_at is None:
                claim.warn_at = now + INFEASIBLE_AFTER
            elif now >= claim.warn_at:
                claim.warn_at = now + INFEASIBLE_AGAIN
                effects.append(Infeasible(claim, self._lacking(need)))
            self._wake(claim.warn_at)

    def _lacking(self, need: Need) -> dict[str, float]:
        lacking: dict[str, float] = {}
        for pool in self._all_pools(need):
            for name, most in pool.resources.missing(need.spec.resources).items():
                lacking[name] = max(most, lacking.get(name, 0.0))
        return lacking

    def _all_pools(self, need: Need) -> Iterable[Candidate]:
        group = self.groups.groups.get(need.spec.placement_group_id)
        return self.nodes.values() if group is None else group.pools(need.spec.bundle_index)
