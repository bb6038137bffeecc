"""Who goes when memory runs out: the retriable first, the newest first, one at a time."""

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.worker_killing import LEAST, Candidate, MemoryPressure

GIB = 1 << 30


def candidate(name, retriable=True, begun_at=0.0, used=GIB):
    return Candidate(name, retriable, begun_at, used)


def test_nobody_is_killed_below_the_threshold_or_for_nothing():
    pressure = MemoryPressure(0.9)
    assert pressure.choose(90, 100, [candidate(b"a")]) is None
    assert pressure.choose(91, 100, []) is None


def test_the_newest_that_can_run_again_is_killed_first():
    pressure = MemoryPressure(0.5)
    old, new, precious = candidate(b"o", True, 1.0), candidate(b"n", True, 2.0), candidate(b"p", False, 3.0)
    assert pressure.choose(60, 100, [old, new, precious]) == new


def test_what_cannot_run_again_goes_when_nothing_else_is_left():
    pressure = MemoryPressure(0.5)
    assert pressure.choose(60, 100, [candidate(b"p", False)]).worker_id == b"p"


def test_a_worker_that_holds_nothing_is_spared_while_there_is_another():
    pressure = MemoryPressure(0.5)
    small, large = candidate(b"s", True, 2.0, LEAST - 1), candidate(b"l", False, 1.0)
    assert pressure.choose(60, 100, [small, large]) == large


def test_the_next_goes_only_when_the_last_one_is_gone():
    pressure = MemoryPressure(0.5)
    assert pressure.choose(60, 100, [candidate(b"a"), candidate(b"b", True, 1.0)]).worker_id == b"b"
    assert pressure.choose(60, 100, [candidate(b"a")]) is None
    pressure.gone(b"b")
    assert pressure.choose(60, 100, [candidate(b"a")]).worker_id == b"a"


def test_a_machine_with_enough_free_bytes_is_left_alone_whatever_their_share():
    pressure = MemoryPressure(0.5, min_free=10)
    assert pressure.choose(89, 100, [candidate(b"a")]) is None
    assert pressure.choose(91, 100, [candidate(b"a")]) is not None


candidates = st.lists(
    st.builds(Candidate, st.binary(min_size=1, max_size=2), st.booleans(), st.floats(0, 10), st.integers(0, 2 * LEAST)),
    unique_by=lambda one: one.worker_id,
)


@given(st.integers(0, 100), candidates)
def test_whoever_is_chosen_nobody_better_was_there(used, candidates):
    chosen = MemoryPressure(0.5).choose(used, 100, candidates)
    assert (chosen is None) == (used <= 50 or not candidates)
    if chosen is not None and chosen.used >= LEAST:
        for other in candidates:
            if other.used >= LEAST:
                assert (chosen.retriable, chosen.begun_at) >= (other.retriable, other.begun_at)
