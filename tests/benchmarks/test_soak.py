"""What the soak calls growing, and what it does not."""

import pytest

from benchmarks import soak
from benchmarks.soak import Look


def process(memory, descriptors=lambda i: 10):
    return [Look(1000 * i, {"memory": memory(i), "descriptors": descriptors(i), "threads": 3}) for i in range(60)]


def whole(segments=lambda i: 2):
    return [Look(1000 * i, {"processes": 5 + i % 3, "segments": segments(i)}) for i in range(60)]


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [
        (lambda i: 20e6, 0),
        (lambda i: 20e6 + 9_000 * i, 0),  # 900 kB per 100,000 operations
        (lambda i: 20e6 + 11_000 * i, 1),
        (lambda i: 20e6 + (5e6 if i % 7 == 0 else 0), 0),  # peaks
    ],
)
def test_memory_grows_when_its_line_does(memory, verdict, capsys):
    assert soak.judge({"driver 1": process(memory)}, whole(), 60_000) == verdict
    assert ("memory of driver 1" in capsys.readouterr().out) == bool(verdict)


def test_what_comes_and_goes_is_no_growth_and_what_stays_is():
    steady = process(lambda i: 1e6)
    assert soak.judge({"driver 1": steady}, whole(lambda i: i % 5), 60_000) == 0
    assert soak.judge({"driver 1": steady}, whole(lambda i: i // 10), 60_000) == 1
    leaking = process(lambda i: 1e6, lambda i: 10 + i // 20)
    assert soak.judge({"driver 1": leaking}, whole(), 60_000) == 1


def test_a_process_that_was_not_there_all_the_time_is_not_judged():
    assert soak.judge({"worker 2": process(lambda i: 1e6 * i)[:30]}, whole(), 60_000) == 0
