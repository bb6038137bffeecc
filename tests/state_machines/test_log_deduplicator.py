"""What the driver shows of lines that many workers print: each case as the real Ray 2.60 answered it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray.messages.tasks import LogLines
from miniray.state_machines.log_deduplicator import WINDOW, LogDeduplicator, pattern_of

HINT = (
    " (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log deduplication, or see https://docs.ray.io"
    "/en/master/ray-observability/user-guides/configure-logging.html#log-deduplication for more options.)"
)


class Terminal:
    """What was shown, as (pid, line)."""

    def __init__(self, deduplicator: LogDeduplicator | None = None) -> None:
        self.deduplicator = deduplicator or LogDeduplicator()
        self.now = 100.0

    def prints(self, pid: int, *lines: str, stderr: bool = False) -> list[tuple[int, str]]:
        message = LogLines("f", pid, stderr, list(lines))
        shown = [*self.deduplicator.receive(message, self.now), *self.deduplicator.flush(self.now)]
        return [(message.pid, line) for message, lines in shown for line in lines]

    def waits(self, seconds: float, everything: bool = False) -> list[tuple[int, str]]:
        self.now += seconds
        return [
            (message.pid, line) for message, lines in self.deduplicator.flush(self.now, everything) for line in lines
        ]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def repeated(line: str, times: int, hint: str = "") -> str:
    return f"{line}\x1b[32m [repeated {times}x across cluster]{hint}\x1b[0m"


def test_the_first_copy_is_shown_at_once(terminal: Terminal) -> None:
    assert terminal.prints(1, "alpha", "beta") == [(1, "alpha"), (1, "beta")]


def test_one_process_may_repeat_itself(terminal: Terminal) -> None:
    assert terminal.prints(1, "alpha", "alpha", "alpha") == [(1, "alpha")] * 3
    assert terminal.waits(WINDOW) == []


def test_copies_of_other_processes_are_counted_and_the_last_one_shown(terminal: Terminal) -> None:
    assert terminal.prints(1, "gamma") == [(1, "gamma")]
    assert terminal.prints(2, "gamma") == []
    assert terminal.prints(3, "gamma") == []
    assert terminal.waits(WINDOW) == [(3, repeated("gamma", 2, HINT))]


def test_the_hint_comes_once(terminal: Terminal) -> None:
    for line in ("alpha", "beta"):
        for pid in (1, 2, 3):
            terminal.prints(pid, line)
    assert terminal.waits(WINDOW) == [(3, repeated("alpha", 2, HINT)), (3, repeated("beta", 2))]


def test_a_single_folded_copy_is_shown_bare(terminal: Terminal) -> None:
    terminal.prints(1, "alpha")
    terminal.prints(2, "alpha")
    assert terminal.waits(WINDOW) == [(2, "alpha")]
    assert terminal.prints(2, "alpha") == [(2, "alpha")]


def test_the_first_process_is_counted_too_once_there_is_a_second(terminal: Terminal) -> None:
    terminal.prints(1, "zeta")
    terminal.prints(2, "zeta")
    assert terminal.prints(1, "zeta", "zeta") == []
    assert terminal.waits(WINDOW) == [(1, repeated("zeta", 3, HINT))]


def test_after_several_copies_the_counting_goes_on(terminal: Terminal) -> None:
    for pid in (1, 2, 3):
        terminal.prints(pid, "beta")
    terminal.waits(WINDOW)
    assert [terminal.prints(pid, "beta") for pid in (1, 2)] == [[], []]
    assert terminal.waits(WINDOW) == [(2, repeated("beta", 2))]
    assert terminal.waits(WINDOW) == []
    assert terminal.prints(1, "beta") == [(1, "beta")]


@pytest.mark.parametrize(
    "lines",
    [
        ("gamma 0 of 10", "gamma 1 of 10"),
        ("delta abc1 end", "delta xyz22 end"),
        ("eps 1 2 3 x", "eps  4   x"),
        ("loss 0.5 at step0", "loss 1.5 at step1"),
        ("hex 0xab", "hex 0xcd"),
    ],
)
def test_words_with_digits_and_spaces_make_no_difference(terminal: Terminal, lines: tuple[str, str]) -> None:
    assert terminal.prints(1, lines[0]) == [(1, lines[0])]
    assert terminal.prints(2, lines[1]) == []


@pytest.mark.parametrize("line", ["", "   ", "12345", "1.5 0xff", "abc0"])
def test_lines_without_other_words_are_never_folded(terminal: Terminal, line: str) -> None:
    assert [terminal.prints(pid, line) for pid in (1, 2, 3)] == [[(pid, line)] for pid in (1, 2, 3)]
    assert terminal.waits(WINDOW, everything=True) == []


def test_stdout_and_stderr_are_apart(terminal: Terminal) -> None:
    assert terminal.prints(1, "eps") == [(1, "eps")]
    assert terminal.prints(2, "eps", stderr=True) == [(2, "eps")]


def test_at_the_end_all_is_shown(terminal: Terminal) -> None:
    for pid in (1, 2, 3):
        terminal.prints(pid, "alpha")
    assert terminal.waits(0, everything=True) == [(3, repeated("alpha", 2, HINT))]


def test_the_next_wake_is_the_end_of_the_oldest_window(terminal: Terminal) -> None:
    assert terminal.deduplicator.next_wake() is None
    terminal.prints(1, "alpha")
    terminal.now += 1
    terminal.prints(1, "beta")
    assert terminal.deduplicator.next_wake() == 100.0 + WINDOW
    terminal.waits(WINDOW - 1)
    assert terminal.deduplicator.next_wake() == 101.0 + WINDOW
    terminal.waits(1)
    assert terminal.deduplicator.next_wake() is None


def test_exempt_lines_are_shown_and_unwanted_ones_are_not() -> None:
    terminal = Terminal(LogDeduplicator(allow=lambda line: "ALLOW" in line, skip=lambda line: "SKIP" in line))
    assert [terminal.prints(pid, "ALLOW this", "SKIP this") for pid in (1, 2)] == [
        [(1, "ALLOW this")],
        [(2, "ALLOW this")],
    ]


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["a", "b 1", "b 2", "7"]), st.floats(0, 4))))
def test_each_line_is_shown_or_counted(story: list[tuple[int, str, float]]) -> None:
    terminal = Terminal()
    shown = []
    for pid, line, pause in story:
        shown += terminal.prints(pid, line) + terminal.waits(pause)
    shown += terminal.waits(0, everything=True)
    number = 0
    for _, text in shown:
        _, found, rest = text.partition("[repeated ")
        number += int(rest.partition("x")[0]) if found else 1
    assert number == len(story)


def test_the_pattern_is_made_of_the_words_without_digits() -> None:
    assert pattern_of("  loss 0.5  at step0 now ") == "loss at now"
