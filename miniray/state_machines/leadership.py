"""Who drives the inbox: one leader, waiting followers, and a standby thread.

The rules
---------
* A process has one inbox; the thread that reads it is the **leader**. A thread that waits for something and finds no
  leader leads itself: so a blocked `get` needs no second thread to be woken up.
* Others who wait are **followers**: each sleeps on a lock of its own. The leader wakes those whose wish came true.
  When it leaves, it names the longest-waiting follower as the next leader.
* When a leader leaves and nobody waits, messages would lie unread while the program computes. The **standby** thread
  takes over, but only after nobody has led for a whole tick: in a loop of short calls, handing the lead over each
  time would cost more than the calls.
* The standby is in one of four states::

      DEEP  --(a leader leaves, nobody follows)-->  TICKING
      TICKING  --(tick: somebody has led without a break since the last tick)-->  DEEP
      TICKING  --(tick: nobody leads, nobody has led since the last tick)-->  LEADING
      LEADING  --(somebody wants to wait)-->  TICKING, and that one leads

  In DEEP it sleeps without a timeout, so that an idle process uses no CPU.

The machine holds no lock and no thread; `processes.reactor` calls it under one lock. Waiters are opaque to it.

This is the leader/followers pattern (Schmidt et al., 2000). Ray hands every message from an IO thread to the caller
through condition variables instead, which costs two thread switches a call; in Python that is 40 us of 110.
"""

from __future__ import annotations

from typing import Any

DEEP = "deep"
TICKING = "ticking"
LEADING = "leading"

#: what `enter` says
LEAD = 1
FOLLOW = 2
FOLLOW_AND_RECALL = 3  #: follow, and make the standby give up the lead

#: what `tick` says
SLEEP_DEEP = 1
SLEEP_TICK = 2
TAKE_LEAD = 3


class Leadership:
    """The state: who leads, who follows (in order), what the standby does."""

    __slots__ = ("_seen", "followers", "generation", "leader", "standby")

    def __init__(self) -> None:
        self.leader: Any = None
        self.followers: dict[Any, None] = {}
        self.standby = TICKING
        self.generation = 0  #: grows whenever somebody takes the lead, and when the lead falls vacant
        self._seen = -1

    def enter(self, waiter: Any) -> int:
        """Somebody wants to wait: LEAD, FOLLOW, or FOLLOW_AND_RECALL."""
        if self.leader is None:
            self.leader = waiter
            self.generation += 1
            return LEAD
        self.followers[waiter] = None
        return FOLLOW_AND_RECALL if self.standby == LEADING else FOLLOW

    def leave(self, waiter: Any) -> tuple[Any, bool]:
        """The leader stops waiting. Returns (follower who leads now or None, whether the standby must be roused)."""
        assert self.leader is waiter, "only the leader can leave"
        if self.standby == LEADING:
            self.standby = TICKING
        if self.followers:
            successor = next(iter(self.followers))
            del self.followers[successor]
            self.leader = successor
            self.generation += 1
            return successor, False
        self.leader = None
        self.generation += 1
        if self.standby == DEEP:
            self.standby = TICKING
            self._seen = self.generation  # it sleeps a whole tick from now on
            return None, True
        return None, False

    def withdraw(self, waiter: Any) -> None:
        """A follower stops waiting (its wish came true, or its time ran out)."""
        self.followers.pop(waiter, None)

    def tick(self, standby: Any) -> int:
        """The standby woke up: SLEEP_DEEP, SLEEP_TICK, or TAKE_LEAD (it leads now)."""
        seen, self._seen = self._seen, self.generation
        if self.leader is not None:
            if seen == self.generation:
                self.standby = DEEP
                return SLEEP_DEEP
            return SLEEP_TICK
        if seen == self.generation:
            self.leader = standby
            self.generation += 1
            self._seen = self.generation
            self.standby = LEADING
            return TAKE_LEAD
        return SLEEP_TICK

    def take_at_once(self, standby: Any) -> bool:
        """The standby was asked to lead without a tick (an event loop waits for a ref). False: somebody leads."""
        if self.leader is not None:
            return False
        self.leader = standby
        self.generation += 1
        self._seen = self.generation
        self.standby = LEADING
        return True
