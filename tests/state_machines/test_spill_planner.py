"""Who moves objects to disk: enough, nobody for more than it has, nobody twice at a time."""

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.spill_planner import SpillPlanner

A, B, C = b"a", b"b", b"c"


def test_below_the_threshold_nobody_is_asked():
    planner = SpillPlanner()
    assert planner.in_background(0, {A: 80}) == {}


def test_above_it_the_largest_is_asked_for_what_is_too_much():
    planner = SpillPlanner()
    assert planner.in_background(10, {A: 30, B: 60}) == {B: 10}


def test_nobody_is_asked_while_an_answer_is_outstanding():
    planner = SpillPlanner()
    planner.in_background(10, {A: 90})
    assert planner.in_background(15, {A: 95}) == {}
    planner.answered(A, 80)
    assert planner.in_background(15, {A: 95}) == {A: 15}


def test_who_had_nothing_to_give_is_left_alone_until_it_has_more():
    planner = SpillPlanner()
    planner.in_background(10, {A: 90})
    planner.answered(A, 90)
    assert planner.in_background(10, {A: 90}) == {}
    assert planner.in_background(15, {A: 95}) == {A: 15}


def test_somebody_who_waits_for_room_has_all_asked_until_it_suffices():
    planner = SpillPlanner()
    assert planner.on_demand(70, {A: 30, B: 60, C: 10}) == {B: 60, A: 10}
    assert planner.on_demand(5, {A: 30, B: 60, C: 10}) == {C: 5}


def test_the_dead_owe_no_answer():
    planner = SpillPlanner()
    planner.in_background(10, {A: 90})
    planner.gone(A)
    assert planner.in_background(10, {B: 90}) == {B: 10}


@given(st.integers(-9, 200), st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 100)), st.booleans())
def test_a_plan_takes_enough_or_all_and_no_more_than_there_is(goal, reserved, waits):
    planner = SpillPlanner()
    plan = planner.on_demand(goal, reserved) if waits else planner.in_background(goal, reserved)
    assert all(0 < size <= reserved[who] for who, size in plan.items())
    assert sum(plan.values()) == max(0, min(goal, sum(reserved.values())))
    assert set(planner.asked) == set(plan)
