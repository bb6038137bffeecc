"""Who leads: every interleaving of three waiters and the standby thread, by search over all reachable states.

The model holds, beside the machine, what the threads around it do: which of them sleep, which read the inbox, whether
the standby sleeps with or without a timeout. A step is one call under the reactor's lock; what happens between two
calls (a thread that is roused before it sleeps) is kept by the locks they sleep on, and changes nothing.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from miniray.state_machines.leadership import (
    DEEP,
    FOLLOW,
    FOLLOW_AND_RECALL,
    LEAD,
    LEADING,
    SLEEP_DEEP,
    SLEEP_TICK,
    TAKE_LEAD,
    TICKING,
    Leadership,
)

STANDBY = "standby"
WAITERS = ("a", "b", "c")


class Broken(AssertionError):
    """A state that must never be reached."""


class Threads:
    """The machine, and what the threads around it do."""

    def __init__(self, machine: Leadership, waiters: tuple[str, ...]) -> None:
        self.machine = machine
        self.doing = dict.fromkeys(waiters, "out")  #: "out", "following" or "leading"
        self.standby = "ticking"  #: "ticking", "deep" or "leading"
        self.recalled = False
        self.led_since_tick = False

    def key(self) -> Any:
        machine = self.machine
        return (
            machine.leader,
            tuple(machine.followers),
            machine.standby,
            machine._seen == machine.generation,
            tuple(self.doing.items()),
            self.standby,
            self.recalled,
            self.led_since_tick,
        )

    # -- steps -----------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[tuple[str, str]]:
        for waiter, doing in self.doing.items():
            yield {"out": "enter", "following": "withdraw", "leading": "leave"}[doing], waiter
        if self.standby == "ticking":
            yield "tick", STANDBY
            yield "take_at_once", STANDBY
        elif self.standby == "deep":
            yield "wake_by_chance", STANDBY
        else:
            yield "leave", STANDBY

    def enter(self, waiter: str) -> None:
        verdict = self.machine.enter(waiter)
        self.doing[waiter] = "leading" if verdict == LEAD else "following"
        if verdict == FOLLOW_AND_RECALL:
            self.recalled = True

    def withdraw(self, waiter: str) -> None:
        self.machine.withdraw(waiter)
        self.doing[waiter] = "out"

    def leave(self, waiter: str) -> None:
        successor, rouse = self.machine.leave(waiter)
        self.led_since_tick = True
        if waiter == STANDBY:
            self.standby, self.recalled = "ticking", False
        else:
            self.doing[waiter] = "out"
        if successor is not None:
            if self.doing[successor] != "following":
                raise Broken(f"{successor} is named leader, but does not wait")
            self.doing[successor] = "leading"
        if rouse:
            # Awake by chance it may tick sooner than a whole tick after this: allowed, as it was asleep for long.
            self.standby = "ticking"
            self.led_since_tick = False

    def tick(self, standby: str) -> None:
        verdict = self.machine.tick(standby)
        if verdict == TAKE_LEAD and self.led_since_tick:
            raise Broken("the standby took the lead although somebody had led since its last tick")
        self.standby = {SLEEP_DEEP: "deep", SLEEP_TICK: "ticking", TAKE_LEAD: "leading"}[verdict]
        self.led_since_tick = self.machine.leader is not None

    def wake_by_chance(self, standby: str) -> None:
        """A rousing that came too late for the sleep it was meant for ends the next one."""
        self.standby = "ticking"

    def take_at_once(self, standby: str) -> None:
        vacant = self.machine.leader is None
        if self.machine.take_at_once(standby) != vacant:
            raise Broken("take_at_once leads exactly when nobody else does")
        if vacant:
            self.standby = "leading"
            self.led_since_tick = True

    # -- what must hold --------------------------------------------------------------------------------------------

    def check(self) -> None:
        machine = self.machine
        leading = [name for name, doing in self.doing.items() if doing == "leading"]
        if self.standby == "leading":
            leading.append(STANDBY)
        if len(leading) > 1:
            raise Broken(f"several lead: {leading}")
        if leading != ([] if machine.leader is None else [machine.leader]):
            raise Broken(f"the machine says that {machine.leader} leads, but it is {leading}")
        following = {name for name, doing in self.doing.items() if doing == "following"}
        if following != set(machine.followers):
            raise Broken("the followers are not those who wait")
        if following and not leading:
            raise Broken("somebody waits, and nobody leads")
        if following and self.standby == "leading" and not self.recalled:
            raise Broken("somebody waits for the standby, which was not told")
        fitting = {"deep": (DEEP,), "ticking": (TICKING, DEEP), "leading": (LEADING,)}
        if machine.standby not in fitting[self.standby]:
            raise Broken(f"the standby thread is {self.standby}, the machine thinks {machine.standby}")
        if not leading and (self.standby, machine.standby) != ("ticking", TICKING):
            raise Broken("nobody leads, and the standby sleeps for good")

    def check_that_somebody_will_lead(self) -> None:
        if self.machine.leader is not None:
            return
        future = copy.deepcopy(self)
        for _ in range(2):
            if future.standby == "ticking":
                future.tick(STANDBY)
        if future.standby != "leading":
            raise Broken("left alone for two ticks, the standby does not take over")

    def check_that_followers_lead_in_order(self) -> None:
        future = copy.deepcopy(self)
        for follower in list(future.machine.followers):
            future.leave(future.machine.leader)
            if future.machine.leader != follower:
                raise Broken(f"{follower} waited longest, but {future.machine.leader} leads")

    def check_that_an_undisturbed_leader_lets_the_standby_sleep(self) -> None:
        if self.machine.leader is None or self.standby != "ticking":
            return
        future = copy.deepcopy(self)
        for _ in range(2):
            if future.standby == "ticking":
                future.tick(STANDBY)
        if future.standby != "deep":
            raise Broken("somebody leads without a break, and the standby goes on ticking")


def explore(make: Callable[[], Leadership], waiters: tuple[str, ...] = WAITERS) -> int:
    """Visit every reachable state, check each, and return how many there are."""
    start = Threads(make(), waiters)
    seen = {start.key()}
    frontier: deque[tuple[Threads, tuple[tuple[str, str], ...]]] = deque([(start, ())])
    while frontier:
        state, story = frontier.popleft()
        for step in state.steps():
            future = copy.deepcopy(state)
            try:
                getattr(future, step[0])(step[1])
                future.check()
                future.check_that_somebody_will_lead()
                future.check_that_followers_lead_in_order()
                future.check_that_an_undisturbed_leader_lets_the_standby_sleep()
            except (AssertionError, KeyError) as error:
                raise Broken(f"{error!r} after {[*story, step]}") from error
            key = future.key()
            if key not in seen:
                seen.add(key)
                frontier.append((future, (*story, step)))
    return len(seen)


def test_in_no_interleaving_do_two_lead_or_is_a_wake_up_lost() -> None:
    assert explore(Leadership) > 100


def test_one_waiter_and_the_standby_have_few_states() -> None:
    assert explore(Leadership, ("a",)) < explore(Leadership, ("a", "b"))


class ForgetsToRouse(Leadership):
    def leave(self, waiter: Any) -> tuple[Any, bool]:
        successor, _ = super().leave(waiter)
        return successor, False


class NamesNobody(Leadership):
    def leave(self, waiter: Any) -> tuple[Any, bool]:
        kept, self.followers = self.followers, {}
        result = super().leave(waiter)
        self.followers = kept
        return result


class KeepsTheDeparted(Leadership):
    def withdraw(self, waiter: Any) -> None:
        pass


class DoesNotRecall(Leadership):
    def enter(self, waiter: Any) -> int:
        return min(super().enter(waiter), FOLLOW)


class TakesTooEarly(Leadership):
    def tick(self, standby: Any) -> int:
        self._seen = self.generation
        return super().tick(standby)


class LetsTwoLead(Leadership):
    def take_at_once(self, standby: Any) -> bool:
        self.leader = None
        return super().take_at_once(standby)


@pytest.mark.parametrize(
    "planted", [ForgetsToRouse, NamesNobody, KeepsTheDeparted, DoesNotRecall, TakesTooEarly, LetsTwoLead]
)
def test_the_search_finds_a_planted_bug(planted: type[Leadership]) -> None:
    with pytest.raises(Broken):
        explore(planted)


def test_a_leading_standby_gives_way_to_whoever_wants_to_wait() -> None:
    machine = Leadership()
    machine.tick(STANDBY)
    assert machine.tick(STANDBY) == TAKE_LEAD
    assert machine.enter("a") == FOLLOW_AND_RECALL
    assert machine.leave(STANDBY) == ("a", False)
    assert (machine.leader, machine.standby) == ("a", TICKING)


def test_only_the_leader_can_leave() -> None:
    machine = Leadership()
    machine.enter("a")
    machine.enter("b")
    with pytest.raises(AssertionError, match="only the leader"):
        machine.leave("b")
