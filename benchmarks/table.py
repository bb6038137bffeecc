"""What a run says, as text for a terminal and as the page ``docs/benchmarks.md``. Every figure comes from the run."""

from __future__ import annotations

from benchmarks.claims import Claim
from benchmarks.engines import INIT, RAY_ENVIRONMENT
from benchmarks.results import Results, Row, Spread, row, spread, unit_text
from miniray.microbenchmark.report import BEGIN, END

_HEADINGS = ("what", "miniray", "Ray", "times Ray", "limit", "of limit", "goal", "met")
_QUICK = "Small sizes (--quick): these figures say whether something is wrong, not how fast it is."

#: limit -> what the table calls it
_LIMIT_NAMES = {
    "zmq_round_trips_per_s": "ZeroMQ round trips",
    "zmq_pipelined_messages_per_s": "ZeroMQ messages there and back",
    "copy_into_warm_shm_gb_per_s": "copy into warm shared memory",
    "python_and_dependencies_ms": "Python and the four dependencies",
}


def number(value: float) -> str:
    """Three or four digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(figure: Spread | None, unit: str, note: str = "") -> str:
    if figure is None:
        return "not here" if note else ""
    text = f"{number(figure.median)}{unit_text(unit)}"
    return text if figure.trials < 2 else f"{text} ± {figure.deviation:.0%}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{number(value)} x"


def _met(verdict: bool | None) -> str:
    return {True: "yes", False: "NO", None: "?"}[verdict]


def _cells(results: Results, line: Row) -> list[str]:
    claim, notes = line.claim, results.notes.get(line.claim.name, {})
    return [
        claim.name,
        _cell(line.miniray, claim.unit, notes.get("miniray", "")),
        _cell(line.ray, claim.unit, notes.get("ray", "")),
        _times(line.times_ray),
        _cell(line.limit, claim.unit),
        "" if line.of_limit is None else f"{line.of_limit:.0%}" if claim.better == "more" else _times(line.of_limit),
        "; ".join(verdict.text for verdict in line.verdicts),
        "; ".join(_met(verdict.met) for verdict in line.verdicts),
    ]


def _lines(results: Results, claims: list[Claim]) -> list[list[str]]:
    return [_cells(results, row(results, claim)) for claim in claims]


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rest))


def as_text(results: Results, claims: list[Claim]) -> str:
    """For a terminal."""
    parts = [_aligned([list(_HEADINGS), *_lines(results, claims)])]
    parts.append(
        "Median of the trials ± the median deviation from it. The limit is what this machine allowed meanwhile."
    )
    parts.extend(_notes(results, claims))
    if results.quick:
        parts.append(_QUICK)
    return "\n\n".join(parts)


def _notes(results: Results, claims: list[Claim]) -> list[str]:
    return [
        f"{claim.name}, {engine}: {text}"
        for claim in claims
        for engine, text in sorted(results.notes.get(claim.name, {}).items())
    ]


# ---- the page ----

_PAGE = """\
# Benchmarks

<!-- Written by `python -m benchmarks --write docs/benchmarks.md`; changes made here get lost. -->

One run of

    {command}

in {seconds:.0f} s, on this machine:

{machine}

The engines took turns: limits of the machine, miniray, Ray, then the limits again, Ray, miniray, and so on, each in
fresh processes. A figure is the median of the trials ± the median deviation from it; a ratio is the median of the
ratios within a trial. What each row measures, and how, stands in [its module](../benchmarks).
{warning}
{table}

"limit" is what this machine allows a program in the same minute, without any runtime around it
([how](../benchmarks/limits.py)).
{names}

## How Ray was configured

{ray}

## Where Ray wins

{ray_wins}
* More than one machine, which miniray leaves to Ray.
* Its libraries (Data, Train, Tune, Serve, RLlib), which miniray does not have.

## What is not measured

* Other machines and macOS. More cores than this machine has: miniray's runtime is Python and Ray's is C++, so with many
  cores the ratios may be others.
* Long runs, and how the figures spread over the calls (no percentiles: rates over half a second).
* Several drivers at once, contention of many actors for few cores, tasks that take long.
* Spilling to disk, recovery of lost objects, a full object store.
* Ray with its dashboard, on a cluster, or with a session that was started before (`ray start`), where its `init` is
  faster than the one shown.

## Ray's own microbenchmark

Its rows, whole programs, and other pools, measured by a command that anybody can run. A goal is so many times a peer,
or so large a part of what the machine allows.

{microbenchmark}

## Beside the standard library

{pools}

## How the speed comes about

Each line is a choice, measured alone in the same run: what the machine does with it and without it.

{tricks}

{inline}
"""


def as_page(results: Results, claims: list[Claim], microbenchmark: str = "") -> str:
    """The page of the documentation; `microbenchmark` is that section of it, which another command writes."""
    machine = [["", ""], *([name, text] for name, text in results.machine.items())]
    for engine, about in results.engines.items():
        machine.append([engine, f"{about['version']}, on Python {about['python']}"])
    notes = _notes(results, claims)
    return _PAGE.format(
        command=results.command,
        seconds=results.seconds,
        machine=_markdown(machine),
        warning=f"\n**{_QUICK}**\n" if results.quick else "",
        table=_markdown([list(_HEADINGS), *_lines(results, claims)])
        + ("\n\n" + "\n".join(f"* {note}" for note in notes) if notes else ""),
        names=_limit_names(claims),
        ray=_how_ray(results),
        ray_wins=_ray_wins(results, claims),
        microbenchmark=microbenchmark or f"{BEGIN}\n{END}",
        pools=_pools(results),
        tricks=_tricks(results),
        inline=_inline(results),
    )


def _limit_names(claims: list[Claim]) -> str:
    used = [name for name in _LIMIT_NAMES if any(claim.limit == name for claim in claims)]
    if not used:
        return ""
    parts = []
    for name in used:
        rows = ", ".join(f'"{claim.name}"' for claim in claims if claim.limit == name)
        parts.append(f"* {_LIMIT_NAMES[name]}: {rows}")
    return "\nWhich limit belongs to which row:\n\n" + "\n".join(parts)


def _how_ray(results: Results) -> str:
    if "ray" not in results.engines:
        return "Ray was not there in this run."
    options = ", ".join(f"{name}={value!r}" for name, value in INIT.items())
    environment = ", ".join(f"`{name}={value}`" for name, value in RAY_ENVIRONMENT.items())
    return (
        f'Ray {results.engines["ray"]["version"]} from PyPI. Both engines were started by `init("local", {options})`: '
        f"no dashboard, no output of workers. The environment of both: {environment}. All else as it comes."
    )


def _ray_wins(results: Results, claims: list[Claim]) -> str:
    lines = [row(results, claim) for claim in claims]
    lost = [line for line in lines if line.times_ray is not None and line.times_ray < 1]
    if "ray" not in results.engines:
        return "* Ray was not measured in this run."
    if not lost:
        return "* In no row of this table."
    return "\n".join(f"* {line.claim.name}: {number(1 / (line.times_ray or 1))} x miniray" for line in lost)


_POOLS = (
    ("one call after the other", "task, sync", "sync"),
    ("1,000 in flight", "tasks, 1,000 in flight", "in_flight"),
)


def _pools(results: Results) -> str:
    lines = [["", "miniray", "ProcessPoolExecutor", "multiprocessing.Pool"]]
    for title, name, key in _POOLS:
        cells = [
            spread(results.figures.get(name, {}).get("miniray", [])),
            spread(results.limits.get(f"process_pool_executor_{key}_per_s", [])),
            spread(results.limits.get(f"multiprocessing_pool_{key}_per_s", [])),
        ]
        lines.append([title, *(_cell(cell, "/s") for cell in cells)])
    return _markdown(lines)


#: (the choice, with it, without it, unit, whether more is better); names of limits
_TRICKS = (
    (
        "Whoever waits drives the socket: no thread stands between a call and its reply",
        "zmq_round_trips_per_s",
        "zmq_round_trips_through_a_thread_per_s",
        "/s",
        True,
    ),
    (
        "What piles up while a peer is busy goes out as one message (here: 100 together)",
        "zmq_batched_messages_per_s",
        "zmq_pipelined_messages_per_s",
        "/s",
        True,
    ),
    (
        "Messages are typed msgspec structs, not pickles",
        "msgspec_encode_per_s",
        "pickle_message_per_s",
        "/s",
        True,
    ),
    (
        "Plain arguments go through pickle; cloudpickle is for what pickle cannot do",
        "pickle_arguments_per_s",
        "cloudpickle_arguments_per_s",
        "/s",
        True,
    ),
    (
        "Shared memory that nobody views any more is used again with its mapping",
        "copy_into_warm_shm_gb_per_s",
        "copy_into_fresh_shm_gb_per_s",
        "GB/s",
        True,
    ),
    (
        "Workers are forked from a process that has imported everything",
        "fork_ms",
        "python_and_dependencies_ms",
        "ms",
        False,
    ),
)


def _tricks(results: Results) -> str:
    lines = [["choice", "with it", "without it", "factor"]]
    for text, with_it, without_it, unit, more in _TRICKS:
        one, other = spread(results.limits.get(with_it, [])), spread(results.limits.get(without_it, []))
        if one is None or other is None:
            continue
        factor = one.median / other.median if more else other.median / one.median
        lines.append([text, _cell(one, unit), _cell(other, unit), _times(factor)])
    return _markdown(lines)


def _inline(results: Results) -> str:
    """What the table itself shows of two more choices."""
    small = spread(results.figures.get("put and get of a small value", {}).get("miniray", []))
    trip = spread(results.limits.get("zmq_round_trips_per_s", []))
    large = spread(results.figures.get("get of an 800 MB array", {}).get("miniray", []))
    copy = spread(results.limits.get("copy_into_warm_shm_gb_per_s", []))
    parts = []
    if small and trip:
        parts.append(
            f"Small values stay in the process that made them: {number(small.median)} puts and gets per second, where "
            f"one round trip to another process each would allow {number(trip.median)}."
        )
    if large and copy:
        parts.append(
            f"Large values are mapped, not copied: {number(large.median)} gets of an array of 800 MB per second; "
            f"with a copy each, it would be {number(copy.median / 0.8)}."
        )
    return "\n\n".join(parts)
