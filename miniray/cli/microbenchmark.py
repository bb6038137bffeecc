"""``miniray microbenchmark``: the workloads of ``ray microbenchmark``, on miniray and on its peers, side by side."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

from miniray.cli.text_table import table
from miniray.microbenchmark import comparison, limits
from miniray.microbenchmark.pools import POOLS
from miniray.system import machine
from miniray.version import __version__

#: Characters of a contestant's error that are shown.
_LONGEST_NOTE = 300
_PEERS = ("ray", *POOLS)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("microbenchmark", help="measure, and compare with Ray and with other pools")
    parser.add_argument("--peer", default="", metavar="NAMES", help=f"compare with these, in turns: {','.join(_PEERS)}")
    parser.add_argument("--ray-python", default=sys.executable, metavar="PYTHON", help="an interpreter that has Ray")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose name contains this; several: a,b")
    parser.add_argument("--limits", action="store_true", help="also measure what the machine allows without a runtime")
    parser.add_argument("--trials", type=int, default=4, help="of each row (default: 4)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each trial (default: 2)")
    parser.add_argument(
        "--warmup", type=float, default=1.0, help="seconds before the first trial of a row (default: 1)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one short trial: a look, no measurement")
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - for standard output")
    parser.add_argument("--list", action="store_true", help="name the rows, and measure nothing")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    names = comparison.chosen(given.only)
    if given.list:
        print("\n".join(names))
        return 0
    peers = [peer.strip() for peer in given.peer.split(",") if peer.strip()]
    unknown = [peer for peer in peers if peer not in _PEERS]
    if unknown:
        raise ValueError(f"there is no peer {unknown[0]!r}: known are {', '.join(_PEERS)}")
    if not names:
        raise ValueError(f"no row has {given.only!r} in its name; --list names them")
    if given.quick:
        given.trials, given.seconds, given.warmup = 1, 0.05, 0.0
    if given.trials < 1 or given.seconds <= 0:
        raise ValueError("--trials must be at least 1, and --seconds more than 0")
    try:
        contestants = comparison.start(["miniray", *peers], given.ray_python, given.quick)
    except comparison.ContestantError as error:
        raise RuntimeError(str(error)) from None
    progress = Progress(len(names))
    try:
        measured_limits = limits.measure(given.seconds) if given.limits else {}
        rows = comparison.run(
            names,
            contestants,
            trials=given.trials,
            seconds=given.seconds,
            warmup=given.warmup,
            say=progress.show,
        )
    finally:
        progress.clear()
        for contestant in contestants:
            contestant.close()
    versions = {contestant.name: contestant.version for contestant in contestants}
    if given.json != "-":
        print(as_text(rows, list(versions), measured_limits))
    if given.json:
        text = json.dumps(as_plain(rows, versions, measured_limits, given), indent=1) + "\n"
        if given.json == "-":
            sys.stdout.write(text)
        else:
            Path(given.json).write_text(text, encoding="utf-8")
    # A pool need not have all rows; miniray has to.
    return 0 if all(row.rates.get("miniray") for row in rows) else 1


class Progress:
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()

    def show(self, done: int, what: str) -> None:
        """So many rows are done, and this is going on."""
        if self._shown:
            width = 24
            filled = width * done // max(1, self._total)
            bar = "=" * filled + " " * (width - filled)
            sys.stderr.write(f"\r\033[K[{bar}] {done}/{self._total} {what}"[:150])
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_text(rows: list[comparison.Row], contestants: list[str], measured_limits: dict[str, float]) -> str:
    """The table: per second, mean and deviation of the trials; and how many times a peer's figure miniray's is."""
    head = ["what", *contestants, *(f"times {peer}" for peer in contestants[1:])]
    lines = []
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
        lines.append(cells)
    parts = [table(head, lines), "Per second: the mean of the trials ± their standard deviation."]
    parts += [f"{row.name}, {who}: {text[:_LONGEST_NOTE]}" for row in rows for who, text in row.notes.items()]
    if measured_limits:
        shown_limits = [[name, _number(value)] for name, value in measured_limits.items()]
        parts.append(table(["what this machine allows", "per second"], shown_limits))
    return "\n\n".join(parts)


def as_plain(
    rows: list[comparison.Row],
    versions: dict[str, str],
    measured_limits: dict[str, float],
    given: argparse.Namespace,
) -> dict[str, Any]:
    """All figures, as JSON has them."""
    return {
        "versions": {**versions, "miniray": __version__, "python": platform.python_version()},
        "machine": {"cpus": machine.cpu_count(), "system": platform.platform()},
        "trials": given.trials,
        "seconds": given.seconds,
        "warmup": given.warmup,
        "quick": given.quick,
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "rates": row.rates,
                "mean": {name: row.mean(name) for name in row.rates},
                "deviation": {name: row.deviation(name) for name in row.rates},
                "ratio": {name: row.ratio("miniray", name) for name in row.rates if name != "miniray"},
                "notes": row.notes,
            }
            for row in rows
        ],
        "limits": measured_limits,
    }
