"""Who gets a worker next: demands of owners on one side, the resources of nodes on the other.

Terms: a *claim* is what one owner wants of one scheduling class (`LeaseDemand`: so many more leases). A *lease* holds
resources of a node; it is *placed* when the resources are taken, and *granted* when the worker pool has found a worker
for it. Blocked leases (their worker waits in `get`) hold no CPU, and do not count as running.

Rules
-----
1. Among jobs, the one with the fewest running leases is served first; inside a job the deepest tasks (their parents
   wait for them), then the claim with the fewest leases, then whoever waited longest. A claim that does not fit is
   passed over; it stops nobody.
2. While a claim waits, leases are *revoked* (given back after the current task): from shallower claims of its job; from
   whoever has at least two more than it; and, so that one CPU can serve two, from anybody who has held one for
   `revocation.QUANTUM` while the claim has none. Never more of them than would serve those who wait.
3. A demand is absolute: what was placed but not granted yet counts towards it, and a smaller demand takes it back.
4. A claim that no node could ever serve waits, and its job is told after `INFEASIBLE_AFTER`, then rarely.
5. Actors are placed where `spec.resources` would fit in an empty node, and hold `held` from then on: Ray's rule of one
   CPU to be placed and none to live, so that more actors than CPUs start, also while all CPUs are busy. They are not
   revoked, and do not count as running.
6. Tasks that need nothing (num_cpus=0) would start a worker each: beyond a cap per node they are let in slowly. Not
   never: those that run may wait for those that do not.

Alternative not taken: a reservation for large demands that small ones overtake; Ray has none either.
"""

from __future__ import annotations

import heapq
from itertools import count as counter
from typing import Any, Union

from msgspec import Struct

from miniray.messages.control import LeaseSpec
from miniray.state_machines import node_choice
from miniray.state_machines.node_choice import Candidate
from miniray.state_machines.resources import CPU, UNIT, Allocation, NodeResources
from miniray.state_machines.revocation import choose_victims

INFEASIBLE_AFTER = 1.0
INFEASIBLE_AGAIN = 60.0
#: running leases without resources per node, before they are let in one by one
ZERO_CAP = 16
ZERO_INTERVAL = 0.05

ClaimKey = tuple[bytes, int]


class Claim(Struct, eq=False):
    """What one owner wants of one scheduling class."""

    owner: bytes
    class_id: int
    spec: LeaseSpec
    strategy: Any
    held: dict[str, int] | None = None  #: an actor: what it holds, if placed where `spec` could be
    count: int = 0  #: leases that it wants and that are not placed
    waiting: int = 0  #: leases placed, without a worker so far
    running: int = 0  #: leases placed and not blocked
    leases: int = 0
    depth: int = 0
    owner_node: bytes = b""
    turn: int = 0  #: when it was last served
    waits_since: float | None = None
    warn_at: float | None = None

    @property
    def key(self) -> ClaimKey:
        return self.owner, self.class_id


class Lease(Struct, eq=False):
    """Resources of a node that somebody holds, and (once granted) the worker that goes with them."""

    lease_id: int
    claim: Claim
    node_id: bytes
    allocation: Allocation
    placed_at: float
    worker_id: bytes = b""
    blocked: bool = False
    revoked: bool = False
    revocable: bool = True


class Place(Struct):
    """Find a worker for this lease."""

    lease: Lease


class Withdraw(Struct):
    """Find no worker for this lease after all."""

    lease_id: int


class Revoke(Struct):
    """Tell the owner to give this lease back."""

    owner: bytes
    lease_id: int


class Infeasible(Struct):
    """Tell the job that this can never run; `lacking`: resource -> the most that one node has."""

    claim: Claim
    lacking: dict[str, float]


Effect = Union[Place, Withdraw, Revoke, Infeasible]


class Scheduler:
    """Claims, leases and nodes. Call `schedule` after anything changed, and at `wake_at`."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Candidate] = {}
        self.claims: dict[ClaimKey, Claim] = {}
        self._active: dict[ClaimKey, Claim] = {}  #: those with a count
        self.leases: dict[int, Lease] = {}
        self.wake_at: float | None = None
        self._numbers = counter(1)
        self._turns = counter(1)
        self._running: dict[bytes, int] = {}  #: job -> running leases
        self._zero: dict[bytes, int] = {}  #: node -> running leases without resources
        self._zero_gate: dict[bytes, float] = {}

    # -- nodes -----------------------------------------------------------------------------------------------------

    def add_node(self, node_id: bytes, resources: dict[str, int], labels: dict[str, str]) -> None:
        """A node joins."""
        self.nodes[node_id] = Candidate(node_id, NodeResources(resources), labels, 0)
        self._zero[node_id] = 0
        self._zero_gate[node_id] = 0.0

    def remove_node(self, node_id: bytes) -> list[Lease]:
        """A node is gone, and its leases (the answer) with it; those without a worker are demanded again."""
        lost = [lease for lease in self.leases.values() if lease.node_id == node_id]
        for lease in lost:
            self.end(lease.lease_id)
            if not lease.worker_id:
                self._want(lease.claim, lease.claim.count + 1, lease.placed_at)
        del self.nodes[node_id], self._zero[node_id], self._zero_gate[node_id]
        return lost

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
            claim = Claim(owner, class_id, spec, node_choice.decode_strategy(spec.strategy), held)
            self.claims[claim.key] = claim
        claim.depth = depth
        claim.owner_node = owner_node
        effects: list[Effect] = []
        if claim.waiting > count:
            for lease in [lease for lease in self.leases.values() if lease.claim is claim and not lease.worker_id]:
                if claim.waiting > count:
                    self.end(lease.lease_id)
                    effects.append(Withdraw(lease.lease_id))
        self._want(claim, count - claim.waiting, now)
        return effects

    def _want(self, claim: Claim, count: int, now: float) -> None:
        claim.count = count
        if count == 0:
            claim.waits_since = claim.warn_at = None
            self._active.pop(claim.key, None)
            return
        self._active[claim.key] = claim
        if claim.waits_since is None:
            claim.waits_since = now

    def withdraw(self, owner: bytes, class_id: int) -> list[Effect]:
        """A demand is void, and its number will not be used again. Leases that are granted stay."""
        if (owner, class_id) not in self.claims:
            return []
        effects = self.demand(owner, class_id, None, 0, 0.0)
        del self.claims[(owner, class_id)]
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
            lease.claim.waiting -= 1
        return lease

    def end(self, lease_id: int) -> Lease | None:
        """A lease was given back, or is lost. None: there is no such lease (any more)."""
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            return None
        self.set_blocked(lease, False)
        claim = lease.claim
        self.nodes[lease.node_id].resources.give_back(lease.allocation)
        self._count_running(lease, -1)
        claim.leases -= 1
        if not lease.worker_id:
            claim.waiting -= 1
        elif claim.held is not None:
            self.claims.pop(claim.key, None)
        return lease

    def set_blocked(self, lease: Lease, blocked: bool) -> None:
        """The worker of this lease waits in `get`, or goes on. Actors keep what they hold, as in Ray."""
        if lease.blocked == blocked or lease.claim.held is not None:
            return
        lease.blocked = blocked
        resources = self.nodes[lease.node_id].resources
        if blocked:
            resources.release_cpu(lease.allocation)
        else:
            resources.reclaim_cpu(lease.allocation)
        self._count_running(lease, -1 if blocked else 1)

    def _count_running(self, lease: Lease, step: int) -> None:
        claim = lease.claim
        if claim.held is not None:
            return
        job_id = claim.spec.job_id
        claim.running += step
        self._running[job_id] = self._running.get(job_id, 0) + step
        if not self._running[job_id]:
            del self._running[job_id]
        if not lease.allocation.resources:
            self._zero[lease.node_id] += step

    def owner_gone(self, owner: bytes) -> tuple[list[Lease], list[Effect]]:
        """Its demands are void. The leases it had, ended; and what to withdraw."""
        lost: list[Lease] = []
        effects: list[Effect] = []
        for claim in [claim for claim in self.claims.values() if claim.owner == owner]:
            self._want(claim, 0, 0.0)
            del self.claims[claim.key]
        for lease in [lease for lease in self.leases.values() if lease.claim.owner == owner]:
            self.end(lease.lease_id)
            if lease.worker_id:
                lost.append(lease)
            else:
                effects.append(Withdraw(lease.lease_id))
        return lost, effects

    # -- the decision ----------------------------------------------------------------------------------------------

    def schedule(self, now: float) -> list[Effect]:
        """Place what fits, revoke what others wait for, warn of what can never run."""
        self.wake_at = None
        effects: list[Effect] = []
        if self._active:
            stuck = self._place_all(now, effects)
            if stuck:
                for lease in choose_victims(stuck, self.nodes, self.leases.values(), self._running, now, self._wake):
                    lease.revoked = True
                    effects.append(Revoke(lease.claim.owner, lease.lease_id))
        return effects

    def _wake(self, at: float) -> None:
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def _place_all(self, now: float, effects: list[Effect]) -> list[Claim]:
        """Serve the claims in their order; the feasible ones that have to wait, in that order."""
        by_job: dict[bytes, list[tuple[int, int, int, Claim]]] = {}
        for number, claim in enumerate(self._active.values()):
            entry = (-claim.depth, claim.running, (claim.turn << 20) + number, claim)
            by_job.setdefault(claim.spec.job_id, []).append(entry)
        jobs = []
        for job_id, entries in by_job.items():
            heapq.heapify(entries)
            jobs.append((self._running.get(job_id, 0), entries[0][2], job_id))
        heapq.heapify(jobs)
        nodes = list(self.nodes.values())
        stuck: list[Claim] = []
        full: set[Any] = set()  # needs that found no room in this pass
        while jobs:
            _, _, job_id = heapq.heappop(jobs)
            entries = by_job[job_id]
            depth, _, order, claim = heapq.heappop(entries)
            if self._place_one(claim, nodes, full, now, effects):
                if claim.count:
                    heapq.heappush(entries, (depth, claim.running, claim.turn << 20, claim))
            elif self._is_feasible(claim, nodes, now, effects):
                stuck.append(claim)
            if entries:
                heapq.heappush(jobs, (self._running.get(job_id, 0), entries[0][2], job_id))
        return stuck

    def _place_one(
        self, claim: Claim, nodes: list[Candidate], full: set[Any], now: float, effects: list[Effect]
    ) -> bool:
        spec = claim.spec
        held = claim.held
        need = (
            tuple(sorted(spec.resources.items())),
            spec.strategy,
            None if held is None else tuple(sorted(held.items())),
        )
        if need in full:
            return False
        able = node_choice.eligible(nodes, spec.resources, claim.strategy)
        if held is None and not any(spec.resources.values()):
            able = [node for node in able if self._lets_in(node, now)]
        node = node_choice.choose(able, spec.resources, claim.strategy, claim.owner_node)
        if node is None and held is not None:
            node = node_choice.choose(able, held, claim.strategy, claim.owner_node)
        if node is None:
            full.add(need)
            return False
        taken = node.resources.take(spec.resources if held is None else held)
        lease = Lease(next(self._numbers), claim, node.node_id, taken, now, revocable=held is None)
        self.leases[lease.lease_id] = lease
        node.last_used = claim.turn = next(self._turns)
        claim.leases += 1
        claim.waiting += 1
        self._count_running(lease, 1)
        self._want(claim, claim.count - 1, now)
        effects.append(Place(lease))
        return True

    def _lets_in(self, node: Candidate, now: float) -> bool:
        cap = max(ZERO_CAP, 4 * node.resources.total.get(CPU, 0) // UNIT)
        if self._zero[node.node_id] < cap:
            return True
        gate = self._zero_gate[node.node_id]
        if now < gate:
            self._wake(gate)
            return False
        self._zero_gate[node.node_id] = now + ZERO_INTERVAL
        return True

    def _is_feasible(self, claim: Claim, nodes: list[Candidate], now: float, effects: list[Effect]) -> bool:
        if node_choice.eligible(nodes, claim.spec.resources, claim.strategy):
            claim.warn_at = None
            return True
        if claim.warn_at is None:
            claim.warn_at = now + INFEASIBLE_AFTER
        elif now >= claim.warn_at:
            claim.warn_at = now + INFEASIBLE_AGAIN
            lacking: dict[str, float] = {}
            for node in nodes:
                for name, most in node.resources.missing(claim.spec.resources).items():
                    lacking[name] = max(most, lacking.get(name, 0.0))
            effects.append(Infeasible(claim, lacking))
        self._wake(claim.warn_at)
        return False
