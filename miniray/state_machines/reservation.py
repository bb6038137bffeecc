"""Room that is kept for those whom smaller ones overtake (rule 7 of `scheduler`).

A claim for two CPUs behind an endless stream of tasks that need one would never find two free at the same moment. So
when a claim (or a placement group) has waited for `AFTER`, and something smaller was placed meanwhile where it could
have been, a pool is chosen that would have room for it if all revocable leases came back. From then on whatever is
given back there is kept for it, until it is placed.

A reservation keeps resources idle, and what it waits for may never come: a task that is not interrupted may run for
hours, or may itself wait for somebody who is held back. So deeper tasks are not held back; a reservation ends after a
while; it rests as long, and comes again for twice as long, up to `LONGEST`.

Alternative not taken: strict order of arrival. One demand that is too large for now would idle a whole machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from miniray.state_machines.node_choice import Candidate

if TYPE_CHECKING:
    from miniray.state_machines.bundle_placement import Free
    from miniray.state_machines.lease_record import Claim
    from miniray.state_machines.placement import Group
    from miniray.state_machines.revocation import Plan

#: seconds
AFTER = 0.1
FIRST = 1.0
LONGEST = 30.0
#: claims that are looked at for one in a pass: those that waited longest
_AT_ONCE = 8


class Reservation(Struct, eq=False):
    """What is kept for one holder: pool -> units."""

    holder: Any
    needs: dict[bytes, dict[str, int]]
    depth: int
    until: float
    need: Any = None  #: of a claim: others with the same need are no smaller, and go first when it is their turn


class Reservations:
    """Who has room kept where; at most one holder per pool."""

    def __init__(self) -> None:
        self.by_pool: dict[bytes, Reservation] = {}
        self._by_holder: dict[Any, Reservation] = {}
        #: holder -> how long its next reservation lasts, and when it may begin
        self._rests: dict[Any, tuple[float, float]] = {}

    def admits(self, claim: Claim, pool: Candidate) -> bool:
        """Whether the claim may take from this pool what it needs."""
        reservation = self.by_pool.get(pool.key)
        if reservation is None or reservation.need is claim.need or claim.depth > reservation.depth:
            return True
        available = pool.resources.available
        demand = claim.spec.resources if claim.held is None else claim.held
        return all(
            available.get(name, 0) - demand[name] >= units
            for name, units in reservation.needs[pool.key].items()
            if demand.get(name, 0) > 0
        )

    def left_for(self, group: Group, nodes: Mapping[bytes, Candidate]) -> Free:
        """What the group may take of each node."""
        free: dict[bytes, Mapping[str, int]] = {}
        for node_id, node in nodes.items():
            available: Mapping[str, int] = node.resources.available
            reservation = self.by_pool.get(node_id)
            if reservation and reservation.holder != group.group_id and group.spec.depth <= reservation.depth:
                kept = reservation.needs[node_id]
                available = {name: units - kept.get(name, 0) for name, units in available.items()}
            free[node_id] = available
        return free

    def held_for(self, holder: Any) -> Iterable[bytes]:
        """The pools where something is kept for it."""
        reservation = self._by_holder.get(holder)
        return reservation.needs if reservation is not None else ()

    def drop(self, holder: Any) -> bool:
        """It has what it wanted, or wants nothing any more. Whether something was kept."""
        self._rests.pop(holder, None)
        return self._end(holder)

    def pools_gone(self, keys: Iterable[bytes]) -> None:
        """These pools are no more."""
        for key in keys:
            reservation = self.by_pool.get(key)
            if reservation is not None:
                self._end(reservation.holder)

    def _end(self, holder: Any) -> bool:
        reservation = self._by_holder.pop(holder, None)
        if reservation is None:
            return False
        for key in reservation.needs:
            del self.by_pool[key]
        return True

    # -- the decision ----------------------------------------------------------------------------------------------

    def update(
        self, claims: Sequence[Claim], groups: Sequence[Group], plan: Plan, now: float
    ) -> tuple[bool, float | None]:
        """End what lasted long enough, begin what is due. Whether others may have room now; when to come again."""
        changed = False
        wake: list[float] = []
        waiting = {group.group_id for group in groups}
        for reservation in list(self._by_holder.values()):
            holder = reservation.holder
            if isinstance(holder, bytes) and holder not in waiting:
                self.drop(holder)
                changed = True
            elif now >= reservation.until:
                length = self._rests.get(holder, (FIRST, 0.0))[0]
                self._rests[holder] = (min(2 * length, LONGEST), now + length)
                self._end(holder)
                changed = True
        for group in groups:
            self._for_group(group, plan, now, wake)
        oldest = sorted(claims, key=lambda claim: claim.waits_since or 0.0)[:_AT_ONCE]
        for claim in oldest:
            self._for_claim(claim, plan, now, wake)
        wake += [reservation.until for reservation in self._by_holder.values()]
        return changed, min(wake, default=None)

    def _is_due(self, holder: Any, waits_since: float, now: float, wake: list[float]) -> bool:
        if holder in self._by_holder:
            return False
        due = max(waits_since + AFTER, self._rests.get(holder, (0.0, 0.0))[1])
        if now < due:
            wake.append(due)
            return False
        return True

    def _for_claim(self, claim: Claim, plan: Plan, now: float, wake: list[float]) -> None:
        demand = claim.spec.resources
        overtaken = [pool for pool in claim.need.pools if pool.last_used > claim.began and _is_less(pool, demand)]
        if not overtaken or not self._is_due(claim.key, claim.waits_since or 0.0, now, wake):
            return
        able = [pool for pool in overtaken if pool.key not in self.by_pool and _covers(plan.potential(pool), demand)]
        if able:
            best = min(able, key=claim.need.score)
            self._begin(claim.key, {best.key: demand}, claim.depth, now, claim.need)

    def _for_group(self, group: Group, plan: Plan, now: float, wake: list[float]) -> None:
        chosen = plan.groups.get(group.group_id)
        if chosen is None or not self._is_due(group.group_id, group.waits_since, now, wake):
            return
        needs: dict[bytes, dict[str, int]] = {}
        for bundle in group.missing():
            kept = needs.setdefault(chosen[bundle.index].key, {})
            for name, units in bundle.resources.items():
                kept[name] = kept.get(name, 0) + units
        if not any(key in self.by_pool for key in needs):
            self._begin(group.group_id, needs, group.spec.depth, now)

    def _begin(self, holder: Any, needs: dict[bytes, dict[str, int]], depth: int, now: float, need: Any = None) -> None:
        length = self._rests.get(holder, (FIRST, 0.0))[0]
        reservation = Reservation(holder, needs, depth, now + length, need)
        self._by_holder[holder] = reservation
        for key in needs:
            self.by_pool[key] = reservation


def _is_less(pool: Candidate, demand: Mapping[str, int]) -> bool:
    """Whether what was last placed there is smaller than this."""
    return any(units > pool.last_taken.get(name, 0) for name, units in demand.items())


def _covers(potential: Mapping[str, int], demand: Mapping[str, int]) -> bool:
    return all(potential.get(name, 0) >= units for name, units in demand.items() if units > 0)
