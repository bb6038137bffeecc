"""The waiting line, rule by rule, and against a model of what a caller may see."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from miniray.util.waiting_line import WaitingLine


class Bench:
    """A line of capacity 2 with one outlet, and the results of those who waited on it."""

    def __init__(self, capacity: int = 2) -> None:
        self.dead: set[int] = set()
        self.line: WaitingLine[Any] = WaitingLine(capacity, lambda pid: pid not in self.dead)
        self.outlet = self.line.add_outlet()
        self.results: dict[Any, Any] = {}

    def park_take(self, ticket: tuple[int, int], most: int = 1, gone: bool = False) -> None:
        def wake(result: Any) -> bool:
            if not gone:
                self.results[ticket] = result
            return not gone

        self.line.park_take(self.outlet, most, ticket, wake)

    def park_put(self, items: list[Any], ticket: tuple[int, int]) -> None:
        def wake(result: bool) -> bool:
            self.results[ticket] = result
            return True

        self.line.park_put(items, ticket, wake)

    def rest(self) -> list[Any]:
        items = self.line.take(self.outlet, 100, (0, 0))
        self.line.confirm((0, 0))
        return items


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_items_leave_in_the_order_they_came(bench: Bench) -> None:
    bench.line.put(["a"], (1, 1))
    bench.line.put(["b"], (1, 2))
    assert bench.line.take(bench.outlet, 1, (1, 3)) == ["a"]
    assert bench.rest() == ["b"]


def test_a_batch_that_does_not_fit_puts_nothing_in(bench: Bench) -> None:
    bench.line.put(["a"], (1, 1))
    assert not bench.line.put(["b", "c"], (1, 2))
    assert bench.rest() == ["a"]


def test_no_put_overtakes_one_that_waits(bench: Bench) -> None:
    bench.line.put(["a"], (1, 1))
    bench.park_put(["b", "c"], (1, 2))
    assert not bench.line.put(["d"], (1, 3))
    assert bench.line.take(bench.outlet, 1, (2, 1)) == ["a"]
    assert bench.results == {(1, 2): True}
    assert bench.rest() == ["b", "c"]


def test_takers_are_served_in_the_order_they_came(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.park_take((2, 1))
    bench.line.put(["a", "b"], (3, 1))
    assert bench.results == {(1, 1): ["a"], (2, 1): ["b"]}


def test_a_taker_whose_process_is_dead_is_passed_over(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.park_take((2, 1))
    bench.dead.add(1)
    bench.line.put(["a"], (3, 1))
    assert bench.results == {(2, 1): ["a"]}


def test_a_taker_that_is_gone_when_it_is_woken_takes_nothing(bench: Bench) -> None:
    bench.park_take((1, 1), gone=True)
    bench.line.put(["a"], (3, 1))
    assert bench.rest() == ["a"]


def test_what_a_dead_taker_did_not_confirm_goes_back_before_later_items(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.line.put(["a"], (3, 1))
    bench.line.put(["b"], (3, 2))
    bench.line.process_died(1)
    assert bench.rest() == ["a", "b"]


def test_what_was_confirmed_stays_taken(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.line.put(["a"], (3, 1))
    bench.line.confirm((1, 1))
    bench.line.process_died(1)
    bench.line.withdraw((1, 1))
    assert bench.rest() == []


def test_a_withdrawn_take_gives_back(bench: Bench) -> None:
    bench.line.put(["a", "b"], (3, 1))
    bench.line.take(bench.outlet, 1, (1, 1))
    bench.line.withdraw((1, 1))
    assert bench.rest() == ["a", "b"]


def test_what_comes_back_goes_to_who_waits(bench: Bench) -> None:
    bench.line.put(["a"], (3, 1))
    bench.line.take(bench.outlet, 1, (1, 1))
    bench.park_take((2, 1))
    bench.line.withdraw((1, 1))
    assert bench.results == {(2, 1): ["a"]}


def test_a_withdrawn_put_is_undone_while_nobody_has_taken_it(bench: Bench) -> None:
    bench.line.put(["a"], (1, 1))
    bench.line.put(["b"], (1, 2))
    bench.park_put(["c"], (1, 3))
    bench.line.withdraw((1, 1))
    bench.line.withdraw((1, 3))
    assert bench.results == {(1, 3): True}  # the room of "a" had let "c" in
    assert bench.rest() == ["b"]
    bench.line.withdraw((1, 2))
    assert bench.rest() == []


def test_a_put_that_waits_can_be_withdrawn(bench: Bench) -> None:
    bench.line.put(["a", "b"], (1, 1))
    bench.park_put(["c", "d"], (1, 2))
    bench.park_put(["e"], (1, 3))
    bench.line.withdraw((1, 2))
    assert bench.line.take(bench.outlet, 1, (2, 1)) == ["a"]
    assert bench.rest() == ["b", "e"]


def test_the_end_of_input_wakes_takers_when_all_is_taken(bench: Bench) -> None:
    bench.line.put(["a"], (1, 1))
    bench.line.end_input()
    assert not bench.line.ended(bench.outlet)
    assert bench.rest() == ["a"]
    assert bench.line.ended(bench.outlet)


def test_the_end_waits_for_items_that_may_come_back(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.line.put(["a"], (3, 1))
    bench.park_take((2, 1))
    bench.line.end_input()
    assert (2, 1) not in bench.results
    bench.line.process_died(1)
    assert bench.results[2, 1] == ["a"]


def test_the_end_comes_with_the_confirmation(bench: Bench) -> None:
    bench.park_take((1, 1))
    bench.line.put(["a"], (3, 1))
    bench.park_take((2, 1))
    bench.line.end_input()
    bench.line.confirm((1, 1))
    assert bench.results[2, 1] is None


def test_the_end_of_output_refuses_those_who_wait_and_those_who_come(bench: Bench) -> None:
    bench.line.put(["a", "b"], (1, 1))
    bench.park_put(["c"], (1, 2))
    bench.line.end_output()
    bench.park_put(["d"], (1, 3))
    assert bench.results == {(1, 2): False, (1, 3): False}


def test_every_outlet_gets_every_item_and_the_fullest_holds_up() -> None:
    bench = Bench(1)
    other = bench.line.add_outlet()
    bench.line.put(["a"], (1, 1))
    assert bench.rest() == ["a"]
    assert not bench.line.put(["b"], (1, 2))
    bench.park_put(["b"], (1, 2))
    late = bench.line.add_outlet(like=other)
    assert bench.line.take(late, 9, (2, 1)) == ["a"]
    bench.line.remove_outlet(other)
    assert bench.results == {(1, 2): True}
    assert bench.rest() == ["b"]
    assert bench.line.take(late, 9, (2, 2)) == ["b"]


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Callers put, take, wait, confirm, withdraw and die in any order: no item is lost, none is taken twice, and what
    is there is in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(4)
        self.line = self.bench.line
        self.numbers = iter(range(10_000))
        self.tickets = iter(range(1, 10_000))
        self.inside: set[int] = set()  #: put in, not taken for good
        self.putting: dict[tuple[int, int], list[int]] = {}
        self.waiting: set[tuple[int, int]] = set()
        self.holding: dict[tuple[int, int], list[int]] = {}  #: handed out, not confirmed
        self.pids = {1, 2, 3}
        self.next_pid = 4

    def settle(self) -> None:
        """What happened to those who waited."""
        for ticket, result in self.bench.results.items():
            if ticket in self.putting:
                self.inside.update(self.putting.pop(ticket))
            else:
                self.waiting.discard(ticket)
                self.holding[ticket] = result
        self.bench.results.clear()

    def ticket(self, who: int) -> tuple[int, int]:
        return sorted(self.pids)[who], next(self.tickets)

    @rule(size=st.integers(1, 3), who=st.integers(0, 2))
    def put(self, size: int, who: int) -> None:
        items = [next(self.numbers) for _ in range(size)]
        ticket = self.ticket(who)
        if self.line.put(items, ticket):
            self.inside.update(items)
        else:
            self.putting[ticket] = items
            self.bench.park_put(items, ticket)
        self.settle()

    @rule(most=st.integers(1, 3), who=st.integers(0, 2))
    def take(self, most: int, who: int) -> None:
        ticket = self.ticket(who)
        items = self.line.take(self.bench.outlet, most, ticket)
        if items:
            self.holding[ticket] = items
        else:
            self.waiting.add(ticket)
            self.bench.park_take(ticket, most)
        self.settle()

    @rule(data=st.data())
    def confirm_or_withdraw(self, data: st.DataObject) -> None:
        tickets = sorted({*self.holding, *self.waiting, *self.putting})
        if not tickets:
            return
        ticket = data.draw(st.sampled_from(tickets))
        if ticket in self.holding and data.draw(st.booleans()):
            self.inside.difference_update(self.holding.pop(ticket))
            self.line.confirm(ticket)
        else:
            self.waiting.discard(ticket)
            self.holding.pop(ticket, None)
            self.putting.pop(ticket, None)
            self.line.withdraw(ticket)
        self.settle()

    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        pid = sorted(self.pids)[who]
        self.pids.remove(pid)
        self.pids.add(self.next_pid)
        self.next_pid += 1
        self.bench.dead.add(pid)
        self.waiting = {ticket for ticket in self.waiting if ticket[0] != pid}
        self.holding = {ticket: items for ticket, items in self.holding.items() if ticket[0] != pid}
        self.line.process_died(pid)
        self.settle()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        outlet = self.line.outlets[self.bench.outlet]
        there = [slot.item for slot in outlet.items]
        assert there == sorted(there, key=lambda item: self.order_of(outlet.items, item))
        held = [item for items in self.holding.values() for item in items]
        assert sorted(there + held) == sorted(self.inside)
        assert not (outlet.items and outlet.takers)
        assert set(outlet.takers) == self.waiting
        assert set(self.line.putters) == set(self.putting)

    @staticmethod
    def order_of(slots: deque[Any], item: int) -> int:
        return next(slot.number for slot in slots if slot.item == item)


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=30)
