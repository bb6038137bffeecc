"""The newest task events, in batches."""

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.task_event_log import TaskEventLog


@given(st.integers(1, 50), st.lists(st.integers(0, 20)))
def test_the_newest_are_kept_and_every_dropped_one_is_counted(limit: int, counts: list[int]) -> None:
    log: TaskEventLog[list[int]] = TaskEventLog(limit)
    added = 0
    for count in counts:
        log.add(count, list(range(added, added + count)))
        added += count
        kept = [event for batch in log.batches() for event in batch]
        assert kept == list(range(added - len(kept), added))
        assert len(kept) == log.kept >= min(limit, added)
        assert log.dropped == added - len(kept)


@given(st.integers(1, 50), st.lists(st.integers(1, 20), min_size=1))
def test_less_than_one_batch_more_than_the_limit_is_kept(limit: int, counts: list[int]) -> None:
    log: TaskEventLog[int] = TaskEventLog(limit)
    for count in counts:
        log.add(count, count)
        assert log.kept < limit + max(counts)


def test_where_nothing_is_to_be_kept_all_is_dropped_and_counted():
    log = TaskEventLog(0)
    log.add(2, "ab")
    log.add(1, "c")
    assert (log.batches(), log.kept, log.dropped) == ([], 0, 3)
