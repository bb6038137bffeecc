"""What a claim is: something that can be measured on any engine, and the goals that it has."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from benchmarks.engines import Engine

#: The modules that hold claims, in the order of the table. In a session, they are measured in this order as well.
MODULES = (
    "whole_process",
    "import_time",
    "idle_memory",
    "task_sync",
    "task_async",
    "small_objects",
    "large_objects",
    "actor_plain",
    "actor_threaded",
    "actor_async",
    "queue_round_trip",
    "actor_creation",
    "gcs",
    "bus",
    "state_api",
    "scheduling",
)


class NotHere(Exception):
    """The claim cannot be measured here; the text says why."""


class Size(NamedTuple):
    """How much is measured."""

    seconds: float  #: how long a rate is measured
    calls: int  #: calls in flight
    actors: int  #: actors that are created at once
    bytes: int  #: size of a large array
    repeats: int  #: how often something is repeated that takes long


#: What the table is made of; and what shows within a minute whether something is wrong.
FULL = Size(seconds=0.5, calls=1000, actors=100, bytes=800_000_000, repeats=5)
QUICK = Size(seconds=0.15, calls=300, actors=20, bytes=80_000_000, repeats=3)


class Goal(NamedTuple):
    """A goal: against a fixed figure, against Ray in the same run, or against a limit of the machine.

    Attributes:
        kind: "figure" (at least or at most `value`, as the claim's `better` says), "ray" (so many times better than
            Ray), "limit" (so large a part of the claim's limit).
    """

    kind: str
    value: float


class Claim(NamedTuple):
    """One row of the table.

    Attributes:
        name: what is measured, in a few words.
        unit: of the figure: "/s", "ms", "MB", "GB/s".
        better: "more" or "less".
        in_session: measures it within a session that is there: (the module miniray or ray, size) -> figure.
        alone: measures it from outside: (engine, size) -> figures; each starts processes of its own.
        goals: may be empty.
        limit: a key of `limits.measure`; the figure divided by it is shown.
        engines: those that have it.
        most_trials: what takes minutes on Ray is measured so often.
    """

    name: str
    unit: str
    better: str
    in_session: Callable[[Any, Size], float] | None = None
    alone: Callable[[Engine, Size], list[float]] | None = None
    goals: tuple[Goal, ...] = ()
    limit: str = ""
    engines: tuple[str, ...] = ("miniray", "ray")
    most_trials: int = 1000


def all_claims() -> list[Claim]:
    """Every claim, in the order of the table."""
    return [claim for name in MODULES for claim in import_module(f"benchmarks.{name}").CLAIMS]


def select(claims: list[Claim], pattern: str) -> list[Claim]:
    """Those whose name contains the pattern; several patterns are separated by commas."""
    patterns = [part.strip().lower() for part in pattern.split(",") if part.strip()]
    return [claim for claim in claims if not patterns or any(part in claim.name.lower() for part in patterns)]
