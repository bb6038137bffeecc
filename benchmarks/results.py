"""What was measured, and what follows from it: medians, deviations, ratios, and which goals are met.

A `Results` is plain data: it is written as JSON, and the table and the page are made from it. For each claim it holds
one figure per trial. Ratios are formed within a trial and their median is shown, so that a machine that is slower in
one minute than in another changes them little.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.claims import Claim, Goal


@dataclass
class Results:
    """One run.

    Attributes:
        machine: what was measured on: name of the property -> text.
        command: what was called.
        quick: with small sizes: the figures say little.
        engines: name -> version and Python version; one that was absent is absent here.
        figures: name of the claim -> engine -> one figure per trial (None: not in this trial).
        notes: name of the claim -> engine -> why there is no figure.
        limits: name of the limit -> one figure per trial.
        seconds: how long the run took.
    """

    machine: dict[str, str] = field(default_factory=dict)
    command: str = ""
    quick: bool = False
    engines: dict[str, dict[str, str]] = field(default_factory=dict)
    figures: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: dict[str, list[float | None]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, claim: Claim, engine: str, trial: int, figure: float) -> None:
        """Note one figure."""
        _put(self.figures.setdefault(claim.name, {}).setdefault(engine, []), trial, figure)

    def add_note(self, claim: Claim, engine: str, text: str) -> None:
        """Note why a figure is missing."""
        self.notes.setdefault(claim.name, {})[engine] = text

    def add_limits(self, trial: int, limits: dict[str, float]) -> None:
        """Note what the machine allowed in this trial."""
        for name, figure in limits.items():
            _put(self.limits.setdefault(name, []), trial, figure)

    def of(self, claim: Claim, engine: str) -> list[float | None]:
        """The figures of an engine, by trial."""
        return self.figures.get(claim.name, {}).get(engine, [])

    def limit_of(self, claim: Claim) -> list[float | None]:
        """The figures of the claim's limit, by trial."""
        return self.limits.get(claim.limit, []) if claim.limit else []


def _put(figures: list[float | None], trial: int, figure: float) -> None:
    figures.extend([None] * (trial + 1 - len(figures)))
    figures[trial] = figure


class Spread(NamedTuple):
    """A median, and the median deviation from it as a part of it."""

    median: float
    deviation: float
    trials: int


def spread(figures: list[float | None]) -> Spread | None:
    """Of the trials that have a figure; None without any."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    median = statistics.median(known)
    deviation = statistics.median(abs(figure - median) for figure in known)
    return Spread(median, deviation / median if median else 0.0, len(known))


def paired_ratio(above: list[float | None], below: list[float | None]) -> float | None:
    """The median of the ratios of the same trial; without a common trial, the ratio of the medians."""
    pairs = [a / b for a, b in zip(above, below, strict=False) if a is not None and b]
    if pairs:
        return statistics.median(pairs)
    a_spread, b_spread = spread(above), spread(below)
    return a_spread.median / b_spread.median if a_spread and b_spread and b_spread.median else None


class Verdict(NamedTuple):
    """A goal and whether it is met; `met` is None when what it is compared with was not measured."""

    text: str
    met: bool | None


class Row(NamedTuple):
    """A claim with all that the table shows of it."""

    claim: Claim
    miniray: Spread | None
    ray: Spread | None
    limit: Spread | None
    times_ray: float | None  #: how many times better than Ray
    of_limit: float | None  #: the figure divided by the limit
    verdicts: list[Verdict]


def row(results: Results, claim: Claim) -> Row:
    """What the run says about a claim."""
    mine, theirs, limits = results.of(claim, "miniray"), results.of(claim, "ray"), results.limit_of(claim)
    times_ray = paired_ratio(mine, theirs) if claim.better == "more" else paired_ratio(theirs, mine)
    of_limit = paired_ratio(mine, limits)
    own = spread(mine)
    verdicts = [_judge(claim, goal, own.median if own else None, times_ray, of_limit) for goal in claim.goals]
    return Row(claim, own, spread(theirs), spread(limits), times_ray, of_limit, verdicts)


def _judge(claim: Claim, goal: Goal, figure: float | None, times_ray: float | None, of_limit: float | None) -> Verdict:
    if goal.kind == "ray":
        return Verdict(f"{goal.value:g} x Ray", None if times_ray is None else times_ray >= goal.value)
    if goal.kind == "limit":
        return Verdict(f"{goal.value:.0%} of the limit", None if of_limit is None else of_limit >= goal.value)
    if claim.better == "more":
        return Verdict(f"{goal.value:,g}{unit_text(claim.unit)}", None if figure is None else figure >= goal.value)
    return Verdict(f"under {goal.value:,g}{unit_text(claim.unit)}", None if figure is None else figure < goal.value)


def unit_text(unit: str) -> str:
    """As it follows a number."""
    return unit if unit.startswith("/") else f" {unit}"


def to_plain(results: Results) -> dict[str, Any]:
    """For JSON."""
    return dict(vars(results))


def from_plain(plain: dict[str, Any]) -> Results:
    """From JSON."""
    return Results(**plain)
