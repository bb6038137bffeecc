"""A run: every workload on every contestant, trial by trial in turns, so that ratios are of the same minute."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from miniray.microbenchmark.pools import POOLS
from miniray.microbenchmark.workloads import READINGS, TASK_ROWS, UNITS, WORKLOADS

#: Of Ray's processes: no questions, no warnings, no statistics.
_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
#: Seconds that a contestant has to end.
PATIENCE = 30.0


class ContestantError(Exception):
    """A contestant cannot take part, or failed at a workload."""


class ContestantProcess:
    """A contestant as this process sees it."""

    def __init__(self, name: str, python: str, quick: bool) -> None:
        self.name = name
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        not_for_children = ("RAY_ADDRESS", "MINIRAY_ADDRESS", "MINIRAY_LOCAL_MODE", "MINIRAY_ENGINE")
        environment = {key: value for key, value in os.environ.items() if key not in not_for_children}
        self._process = subprocess.Popen(
            [python, "-m", "miniray.microbenchmark.contestant", name, *(["--quick"] if quick else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment, **_ENVIRONMENT, "PYTHONPATH": path},
        )
        self.version: str = ""

    def wait_ready(self) -> None:
        """Wait until it has started.

        Raises:
            ContestantError: it cannot take part.
        """
        self.version = self._answer()

    def can(self, workload: str) -> bool:
        """Whether it runs that workload: pools have the rows of tasks only."""
        return self.name not in POOLS or workload in TASK_ROWS

    def ask(self, *command: Any) -> Any:
        """Let it do something.

        Raises:
            ContestantError: it failed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ContestantError(f"{self.name} has ended") from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContestantError(f"{self.name} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise ContestantError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Row:
    """The figures of one workload: contestant -> one per trial; or why there are none."""

    name: str
    unit: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def mean(self, contestant: str) -> float | None:
        """Per second; of readings as they are."""
        rates = self.rates.get(contestant)
        return statistics.fmean(rates) if rates else None

    def deviation(self, contestant: str) -> float | None:
        """The standard deviation of the trials."""
        rates = self.rates.get(contestant)
        return statistics.pstdev(rates) if rates else None

    def ratio(self, one: str, other: str) -> float | None:
        """How many times better one is than the other: the median of the ratios within a trial."""
        if self.unit in READINGS:
            one, other = other, one
        pairs = list(zip(self.rates.get(one, ()), self.rates.get(other, ()), strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None


def chosen(pattern: str) -> list[str]:
    """The workloads whose name contains one of the patterns (separated by commas); all for ""."""
    wanted = [part.strip() for part in pattern.split(",") if part.strip()]
    return [name for name in WORKLOADS if not wanted or any(part in name for part in wanted)]


def run(
    names: Sequence[str],
    contestants: Sequence[ContestantProcess],
    *,
    trials: int,
    seconds: float,
    warmup: float,
    say: Callable[[int, str], None],
) -> list[Row]:
    """Measure the workloads.

    Args:
        contestants: miniray first; they have started.
        seconds: of each trial.
        warmup: seconds that each workload runs before.
        say: told how many workloads are done, and what is going on.
    """
    rows = []
    for number, name in enumerate(names):
        row = Row(name, UNITS.get(name, "calls"))
        able = []
        for contestant in contestants:
            if contestant.can(name) and _try(row, contestant, "prepare", name) is not None:
                say(number, f"{name}: {contestant.name} warms up")
                if row.unit in READINGS or _try(row, contestant, "trial", warmup) is not None:
                    able.append(contestant)
        for trial in range(trials):
            for contestant in able if trial % 2 == 0 else reversed(able):
                say(number, f"{name}: {contestant.name}, trial {trial + 1} of {trials}")
                figure = _try(row, contestant, "trial", seconds)
                if figure is None:  # no more of it: the figures of a trial stand at the same index
                    able = [other for other in able if other is not contestant]
                else:
                    row.rates.setdefault(contestant.name, []).append(figure)
        for contestant in contestants:
            _try(row, contestant, "finish")
        rows.append(row)
    say(len(names), "")
    return rows


def _try(row: Row, contestant: ContestantProcess, *command: Any) -> Any:
    try:
        result = contestant.ask(*command)
        return True if result is None else result
    except ContestantError as error:
        row.notes.setdefault(contestant.name, str(error))
        return None


def start(names: Sequence[str], ray_python: str, quick: bool) -> list[ContestantProcess]:
    """Start the contestants, one after the other.

    Raises:
        ContestantError: one of them cannot take part.
    """
    started: list[ContestantProcess] = []
    try:
        for name in names:
            process = ContestantProcess(name, ray_python if name == "ray" else sys.executable, quick)
            started.append(process)
            process.wait_ready()
    except BaseException:
        for process in started:
            process.close()
        raise
    return started
