"""Who waits for ever: by example, and against another way to say it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.deadlock import Need, Waiting, chain, describe, stuck


def waits_for(*targets: int, required: int | None = None) -> Waiting:
    needs = tuple(Need(f"thing of {target}", (target,)) for target in targets)
    return Waiting("a node", len(needs) if required is None else required, needs)


def test_a_chain_that_ends_at_somebody_who_runs_goes_on() -> None:
    assert stuck({1: waits_for(2), 2: waits_for(3)}) == set()


def test_a_cycle_is_stuck_and_so_is_who_waits_for_it() -> None:
    graph = {1: waits_for(2), 2: waits_for(3), 3: waits_for(2), 4: waits_for(5)}
    assert stuck(graph) == {1, 2, 3}
    assert [node for node, _ in chain(graph, 1)[0]] == [1, 2, 3]
    assert chain(graph, 1)[1] == 1


def test_waiting_for_one_of_two_goes_on_with_either() -> None:
    assert stuck({1: waits_for(1, 2, required=1)}) == set()
    assert stuck({1: waits_for(1, 2, required=2)}) == {1}


def test_any_target_of_a_need_will_do() -> None:
    assert stuck({1: Waiting("one", 1, (Need("its turn", (1, 2)),))}) == set()
    assert stuck({1: Waiting("one", 1, (Need("its turn", (1,)),))}) == {1}


def test_what_nobody_can_bring_is_waited_for_for_ever() -> None:
    graph = {1: Waiting("one", 1, (Need("a moon", ()),)), 2: waits_for(1)}
    assert stuck(graph) == {1, 2}
    steps, back = chain(graph, 2)
    assert back == -1
    assert describe(graph, steps, back).splitlines()[-1] == "  one waits for a moon"


def test_nobody_who_needs_nothing_is_stuck() -> None:
    assert stuck({1: Waiting("one", 0, ())}) == set()


graphs = st.dictionaries(
    st.integers(0, 6),
    st.builds(
        lambda needs, required: Waiting("node", min(required, len(needs)), tuple(Need("thing", t) for t in needs)),
        st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), max_size=3),
        st.integers(0, 3),
    ),
)


@given(graphs)
def test_the_stuck_are_the_largest_set_that_only_itself_could_free(graph: dict[int, Waiting]) -> None:
    def closed(group: set[int]) -> bool:
        """Whether nobody in the group goes on as long as nobody in the group does."""
        for node in group:
            met = sum(any(target not in group for target in need.targets) for need in graph[node].needs)
            if met >= graph[node].required:
                return False
        return True

    found = stuck(graph)
    assert closed(found)
    for size in range(len(graph) + 1):
        for group in itertools.combinations(graph, size):
            assert not closed(set(group)) or set(group) <= found


@given(graphs)
def test_a_chain_leads_through_the_stuck_and_back_or_to_a_dead_end(graph: dict[int, Waiting]) -> None:
    found = stuck(graph)
    for node in found:
        steps, back = chain(graph, node)
        assert steps[0][0] == node
        assert {step[0] for step in steps} <= found
        assert len({step[0] for step in steps}) == len(steps)
        if back >= 0:
            assert steps[back][0] in steps[-1][1].targets
        else:
            assert steps[-1][1].targets == ()
