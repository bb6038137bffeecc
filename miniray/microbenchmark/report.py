"""What a run has found: as a table of text, as a part of a page, and as plain data."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from miniray.cli.text_table import table
from miniray.microbenchmark.comparison import Row
from miniray.microbenchmark.goals import GOALS, Goal
from miniray.system import machine
from miniray.version import __version__

#: Characters of a contestant's error that are shown.
_LONGEST_NOTE = 300
#: What stands around the part of a page that is written anew.
BEGIN, END = "<!-- miniray microbenchmark: begin -->", "<!-- miniray microbenchmark: end -->"
_ABOUT = "Per second, unless it says otherwise: the mean of the trials ± their standard deviation."


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def reached(row: Row, goal: Goal, limits: dict[str, float]) -> float | None:
    """How many times the goal's peer or limit this row has; None: that was not measured."""
    if goal.than in limits:
        mean = row.mean("miniray")
        return None if mean is None else mean / limits[goal.than]
    return row.ratio("miniray", goal.than)


def missed(rows: Sequence[Row], limits: dict[str, float]) -> list[str]:
    """The goals that were measured and not reached, in words."""
    found = []
    for row in rows:
        for goal in GOALS.get(row.name, ()):
            times = reached(row, goal, limits)
            if times is not None and times < goal.times:
                found.append(f"{row.name}: {_number(times)} x {goal.than}, wanted {goal.times:g} x")
    return found


def _goals(row: Row, limits: dict[str, float]) -> tuple[str, str]:
    measured = [(goal, reached(row, goal, limits)) for goal in GOALS.get(row.name, ())]
    shown = [(goal, times) for goal, times in measured if times is not None]
    wanted = "; ".join(f"{goal.times:g} x {goal.than.partition(',')[0]}" for goal, _ in shown)
    return wanted, "; ".join("yes" if times >= goal.times else "no" for goal, times in shown)


def _cells(rows: Sequence[Row], contestants: Sequence[str], limits: dict[str, float]) -> list[list[str]]:
    """The heading, and a line for each row."""
    with_goals = len(contestants) > 1 or bool(limits)
    head = ["what", *contestants, *(f"times {peer}" for peer in contestants[1:])]
    lines = [head + ["goal", "met"] if with_goals else head]
    for row in rows:
        cells = [f"{row.name}{f', {row.unit}' if row.unit != 'calls' else ''}"]
        for contestant in contestants:
            mean, deviation = row.mean(contestant), row.deviation(contestant)
            shown = "-" if contestant not in row.notes else "failed"
            if mean is not None:
                shown = _number(mean)
                if len(row.rates[contestant]) > 1:
                    shown += f" ± {_number(deviation or 0.0)}"
            cells.append(shown)
        for peer in contestants[1:]:
            ratio = row.ratio("miniray", peer)
            cells.append("" if ratio is None else f"{_number(ratio)} x")
        if with_goals:
            cells += _goals(row, limits)
        lines.append(cells)
    return lines


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"{row.name}, {who}: {text[:_LONGEST_NOTE]}" for row in rows for who, text in row.notes.items()]


def as_text(rows: Sequence[Row], contestants: Sequence[str], limits: dict[str, float]) -> str:
    """The table: what each contestant reaches, how many times better miniray is, and its goals."""
    head, *lines = _cells(rows, contestants, limits)
    parts = [table(head, lines), _ABOUT, *_notes(rows)]
    if limits:
        parts.append(
            table(
                ["what this machine allows", "per second"], [[name, _number(value)] for name, value in limits.items()]
            )
        )
    return "\n\n".join(parts)


def _markdown(lines: list[list[str]]) -> str:
    head, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *rest])


def as_section(rows: Sequence[Row], versions: dict[str, str], limits: dict[str, float], command: str) -> str:
    """The same for a page of the documentation, with the command and the machine."""
    named = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    parts = [
        BEGIN,
        f"One run of\n\n    {command}",
        f"on {machine.processor_name()}, {machine.cpu_count()} cores, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}; {named}. The contestants took turns, trial by trial; the sessions of all of "
        f"them are there all the time. {_ABOUT}",
        _markdown(_cells(rows, list(versions), limits)),
        *(f"* {note}" for note in _notes(rows)),
    ]
    if limits:
        parts.append(
            _markdown(
                [
                    ["what this machine allows", "per second"],
                    *([name, _number(value)] for name, value in limits.items()),
                ]
            )
        )
    return "\n\n".join([*parts, END])


def put_section(page: str, section: str) -> str:
    """A page with its section replaced; at the end where there was none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return page.rstrip("\n") + ("\n\n" if page.strip() else "") + section + "\n"
    return before + section + after


def section_of(page: str) -> str:
    """The section of a page, with its marks; "" where there is none."""
    _, begin, rest = page.partition(BEGIN)
    text, end, _ = rest.partition(END)
    return begin + text + end if begin and end else ""


def as_plain(
    rows: Sequence[Row], versions: dict[str, str], limits: dict[str, float], options: dict[str, Any]
) -> dict[str, Any]:
    """All figures, as JSON has them; `options` are those of the run."""
    return {
        "versions": {**versions, "miniray": __version__, "python": platform.python_version()},
        "machine": {"cpus": machine.cpu_count(), "system": platform.platform()},
        **options,
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "rates": row.rates,
                "mean": {name: row.mean(name) for name in row.rates},
                "deviation": {name: row.deviation(name) for name in row.rates},
                "ratio": {name: row.ratio("miniray", name) for name in row.rates if name != "miniray"},
                "goals": [
                    {"than": goal.than, "times": goal.times, "reached": reached(row, goal, limits)}
                    for goal in GOALS.get(row.name, ())
                ],
                "notes": row.notes,
            }
            for row in rows
        ],
        "limits": limits,
    }
