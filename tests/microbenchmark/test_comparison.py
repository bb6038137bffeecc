"""The microbenchmark: its rows, its turns, and the command as a whole (with small sizes: nothing is measured here)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from miniray.cli.main import main
from miniray.microbenchmark import comparison
from miniray.microbenchmark.comparison import ContestantError, Row
from miniray.microbenchmark.contestant import rate
from miniray.microbenchmark.goals import GOALS
from miniray.microbenchmark.limits import WARM_COPY
from miniray.microbenchmark.pools import POOLS
from miniray.microbenchmark.report import as_section, as_text, missed, put_section, section_of
from miniray.microbenchmark.workloads import TASK_ROWS, UNITS, WORKLOADS, Step

#: The rows of ``ray microbenchmark`` 2.60.
NAMES = """\
single client get calls (Plasma Store)
single client put calls (Plasma Store)
multi client put calls (Plasma Store)
single client put gigabytes
single client tasks and get batch
multi client put gigabytes
single client get object containing 10k refs
single client wait 1k refs
single client tasks sync
single client tasks async
multi client tasks async
1:1 actor calls sync
1:1 actor calls async
1:1 actor calls concurrent
1:n actor calls async
n:n actor calls async
n:n actor calls with arg async
1:1 async-actor calls sync
1:1 async-actor calls async
1:1 async-actor calls with args async
1:n async-actor calls async
n:n async-actor calls async
placement group create/removal
""".splitlines()
WHOLE_PROGRAMS = ["whole process: init, first task, shutdown", "idle session with 2 workers, all processes"]
ALL = NAMES + WHOLE_PROGRAMS


def test_the_rows_are_those_of_ray() -> None:
    assert list(WORKLOADS) == ALL
    assert set(UNITS) <= set(ALL)
    assert set(GOALS) == set(ALL)
    assert set(TASK_ROWS) <= set(NAMES)


def test_rows_are_chosen_by_parts_of_their_names() -> None:
    assert comparison.chosen("") == ALL
    assert comparison.chosen("wait 1k, tasks sync") == ["single client wait 1k refs", "single client tasks sync"]
    assert comparison.chosen("no such row") == []


def test_a_rate_counts_what_one_step_does() -> None:
    ticks = iter([0.0, 0.4, 0.8, 1.2])
    assert rate(Step(lambda: None, 10), 1.0, lambda: next(ticks)) == pytest.approx(30 / 1.2)


class Fake:
    """A contestant that answers by itself."""

    def __init__(self, name: str, figures: list[float | str]) -> None:
        self.name = name
        self.asked: list[Any] = []
        self._figures = iter(figures)

    def can(self, workload: str) -> bool:
        return True

    def ask(self, *command: Any) -> Any:
        self.asked.append(command)
        LOG.append((self.name, command[0]))
        if command[0] != "trial":
            return None
        figure = next(self._figures)
        if isinstance(figure, str):
            raise ContestantError(figure)
        return figure


LOG: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def empty_log() -> Iterator[None]:
    LOG.clear()
    yield


def run(*contestants: Fake, trials: int = 2) -> Row:
    (row,) = comparison.run(
        ["wait"],
        contestants,  # type: ignore[arg-type]
        trials=trials,
        seconds=1.0,
        warmup=0.5,
        say=lambda done, what: None,
    )
    return row


def test_contestants_take_turns_and_the_first_is_not_always_first() -> None:
    row = run(Fake("miniray", [0.0, 10.0, 30.0]), Fake("ray", [0.0, 5.0, 10.0]))
    assert [name for name, command in LOG if command == "trial"] == [
        *("miniray", "ray"),  # warming up
        *("miniray", "ray", "ray", "miniray"),
    ]
    assert (row.mean("miniray"), row.deviation("miniray"), row.ratio("miniray", "ray")) == (20.0, 10.0, 2.5)


def test_one_that_fails_does_not_stop_the_others() -> None:
    row = run(Fake("miniray", [0.0, 10.0, 10.0]), Fake("ray", ["it broke"]))
    assert row.rates == {"miniray": [10.0, 10.0]}
    assert row.notes == {"ray": "it broke"}
    text = as_text([row], ["miniray", "ray"], {})
    assert "failed" in text and "wait, ray: it broke" in text


def test_one_that_fails_in_a_trial_is_compared_in_those_before_it() -> None:
    row = run(Fake("miniray", [0.0, 10.0, 80.0, 90.0]), Fake("ray", [0.0, 5.0, "it broke", 1.0]), trials=3)
    assert row.rates == {"miniray": [10.0, 80.0, 90.0], "ray": [5.0]}
    assert row.ratio("miniray", "ray") == 2.0


def test_one_that_does_not_start_says_why() -> None:
    with pytest.raises(ContestantError, match="json does not start: AttributeError: .*no attribute 'init'"):
        comparison.start(["json"], sys.executable, quick=True)


def test_the_table_shows_means_deviations_and_ratios() -> None:
    row = run(Fake("miniray", [0.0, 1000.0, 3000.0]), Fake("ray", [0.0, 10.0, 10.0]))
    first, second, *_ = as_text([row], ["miniray", "ray"], {"copies": 3.14159}).splitlines()
    assert first.split() == ["WHAT", "MINIRAY", "RAY", "TIMES", "RAY", "GOAL", "MET"]
    assert second.split("  ")[1:] == ["2,000 ± 1,000", "10.0 ± 0.00", "200 x"]


def test_of_milliseconds_and_megabytes_less_is_better() -> None:
    row = Row("start", "ms", {"miniray": [100.0, 300.0], "ray": [1000.0, 3000.0]})
    assert row.ratio("miniray", "ray") == 10.0


@pytest.mark.parametrize(("rate", "met"), [(79.9, False), (80.0, True)])
def test_a_goal_is_met_from_its_part_of_the_limit_on(rate: float, met: bool) -> None:
    row = Row("single client put gigabytes", "GB", {"miniray": [rate]})
    copy = {WARM_COPY: 100.0}
    assert missed([row], copy) == ([] if met else [f"{row.name}: 0.80 x {WARM_COPY}, wanted 0.8 x"])
    assert as_text([row], ["miniray"], copy).splitlines()[1].split()[-1] == ("yes" if met else "no")
    assert missed([row], {}) == []  # not measured


def test_a_goal_against_each_peer_that_is_there() -> None:
    row = Row("single client tasks sync", "calls", {"miniray": [10.0], "ray": [2.0], "loky": [9.0]})
    assert missed([row], {}) == ["single client tasks sync: 5.00 x ray, wanted 8 x"]


def test_the_section_of_a_page_is_replaced_and_the_rest_stays() -> None:
    row = Row("single client tasks sync", "calls", {"miniray": [10.0], "ray": [1.0]})
    first = as_section([row], {"miniray": "", "ray": "2.60.0"}, {}, "the first command")
    second = as_section([row], {"miniray": "", "ray": "2.60.0"}, {}, "the second command")
    page = put_section("# A page\n", first) + "\nMore.\n"
    assert section_of(page) == first and "| 10.0 x | 8 x ray | yes |" in first
    assert put_section(page, second) == page.replace("first command", "second command")
    assert section_of("# A page") == ""


@pytest.mark.timeout(120)
def test_every_row_runs_on_miniray() -> None:
    pytest.importorskip("numpy")
    done = subprocess.run(
        [sys.executable, "-m", "miniray", "microbenchmark", "--quick", "--json", "-"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["rows"]] == ALL
    assert all(row["mean"]["miniray"] > 0 for row in result["rows"])
    assert result["quick"] is True and result["limits"] == {}


@pytest.mark.timeout(60)
def test_pools_run_the_rows_of_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["microbenchmark", "--quick", "--only", "tasks sync,wait", "--peer", "process-pool,mp-pool", "--limits"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "TIMES PROCESS-POOL" in text and "ZeroMQ round trips" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer", "spark"], "there is no peer 'spark'"),
        (["--only", "nonsense"], "no row has 'nonsense' in its name"),
        (["--trials", "0"], "--trials must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["microbenchmark", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_list_names_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["microbenchmark", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ALL


def test_a_peer_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        __import__("distributed")
    except ImportError:
        assert main(["microbenchmark", "--quick", "--peer", "dask", "--only", "tasks sync"]) == 1
        assert "dask is not installed here" in capsys.readouterr().err
    assert "dask" in POOLS
