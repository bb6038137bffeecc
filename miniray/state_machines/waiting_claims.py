"""The claims that wait, by need and by job, and which of them is served next: rule 1 of the scheduler.

A thousand that wait cost no more than two. A need has one queue for each job, a heap; the place of a claim in it
follows from its rank inside the job. When that changes, the claim is put in once more, and the entry that is out of
date is passed over. How many leases a job has running is counted here, and is not part of a place: it would move them
all.
"""

from __future__ import annotations

import heapq
from itertools import count as counter
from typing import Any

from miniray.messages.control import LeaseSpec
from miniray.state_machines.lease_record import Claim
from miniray.state_machines.node_choice import Need, key_of

#: claims of one job and need that are looked at where they are many
_FOREMOST = 16

#: entries that a queue may have beyond two for each claim that waits, before those out of date are thrown out
_SLACK = 16

#: what claims are compared by, the smallest goes first: running leases of the job, then the place in its queue
Rank = tuple[int, int, int, int]


class WaitingClaims:
    """The needs that somebody has, and the claims that wait for them."""

    def __init__(self) -> None:
        self.active: dict[Any, Need] = {}  #: those with a claim that waits
        self.running: dict[bytes, int] = {}  #: job -> running leases
        self._needs: dict[Any, Need] = {}
        self._entries = counter()

    # -- needs -----------------------------------------------------------------------------------------------------

    def use_need(self, spec: LeaseSpec, held: dict[str, int] | None) -> Need:
        """The need of a new claim, shared with those that do not differ for the scheduler."""
        key = key_of(spec, held)
        need = self._needs.get(key)
        if need is None:
            need = self._needs[key] = Need(key, spec, held)
        need.users += 1
        return need

    def leave_need(self, need: Need) -> None:
        """One of its claims will not come back."""
        need.users -= 1
        if not need.users:
            self._needs.pop(need.key, None)

    # -- who waits -------------------------------------------------------------------------------------------------

    def add(self, claim: Claim, now: float, turn: int) -> None:
        """It wants something that it has not got."""
        need = claim.need
        if not need.claims:
            need.is_full = False  # what was given back while nobody wanted it was not noted
        need.claims[claim.key] = claim
        self.active[need.key] = need
        self.enqueue(claim)
        if claim.waits_since is None:
            claim.waits_since, claim.began = now, turn

    def remove(self, claim: Claim) -> None:
        """It wants nothing any more."""
        claim.waits_since = claim.warn_at = None
        claim.queued_as = None
        need = claim.need
        need.claims.pop(claim.key, None)
        if not need.claims:
            self.active.pop(need.key, None)
            need.queues.clear()  # nothing in there is up to date

    def enqueue(self, claim: Claim) -> None:
        """Its place in the queue follows from its rank; an entry that is out of date is passed over (`first`)."""
        place = (-claim.depth, claim.running, claim.turn)
        if claim.queued_as != place:
            claim.queued_as = place
            queue = claim.need.queues.setdefault(claim.spec.job_id, [])
            heapq.heappush(queue, (place, next(self._entries), claim))
            if len(queue) > 2 * len(claim.need.claims) + _SLACK:
                current = {entry[2].key: entry for entry in queue if entry[2].queued_as == entry[0]}
                queue[:] = current.values()
                heapq.heapify(queue)

    def count_running(self, claim: Claim, step: int) -> None:
        """So many more leases of this claim are running."""
        job_id = claim.spec.job_id
        claim.running += step
        if claim.count:
            self.enqueue(claim)
        self.running[job_id] = self.running.get(job_id, 0) + step
        if not self.running[job_id]:
            del self.running[job_id]

    # -- who is next -----------------------------------------------------------------------------------------------

    def rank(self, claim: Claim) -> Rank:
        """Rule 1: the smallest goes first."""
        return self.running.get(claim.spec.job_id, 0), -claim.depth, claim.running, claim.turn

    def first(self, need: Need) -> tuple[Rank, Claim]:
        """The claim that is served next; there is one."""
        best: tuple[Rank, Claim] | None = None
        for job_id, queue in list(need.queues.items()):
            while queue and queue[0][2].queued_as != queue[0][0]:
                heapq.heappop(queue)
            if not queue:
                del need.queues[job_id]
                continue
            place, _, claim = queue[0]
            rank = (self.running.get(job_id, 0), *place)
            if best is None or rank < best[0]:
                best = rank, claim
        assert best is not None, "every claim that waits is in a queue"
        return best

    def foremost(self, need: Need) -> list[Claim]:
        """Of each job the claims that come first; behind them nobody has better reasons."""
        found: list[Claim] = []
        for queue in need.queues.values():
            entries = queue if len(queue) <= _FOREMOST else heapq.nsmallest(_FOREMOST, queue)
            found += [claim for place, _, claim in entries if claim.queued_as == place]
        return list({claim.key: claim for claim in found}.values())
