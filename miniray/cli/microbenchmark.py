"""``miniray microbenchmark``: the workloads of ``ray microbenchmark``, on miniray and on its peers, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from miniray.microbenchmark import comparison, limits, report
from miniray.microbenchmark.pools import POOLS

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
    parser.add_argument("--write", metavar="FILE", help="put the table, machine and command into this Markdown page")
    parser.add_argument("--check", action="store_true", help="end with code 1 when a goal is measured and not reached")
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
        print(report.as_text(rows, list(versions), measured_limits))
    if given.json:
        options = {name: getattr(given, name) for name in ("trials", "seconds", "warmup", "quick")}
        text = json.dumps(report.as_plain(rows, versions, measured_limits, options), indent=1) + "\n"
        if given.json == "-":
            sys.stdout.write(text)
        else:
            Path(given.json).write_text(text, encoding="utf-8")
    if given.write:
        page = Path(given.write)
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        section = report.as_section(rows, versions, measured_limits, _command(given))
        page.write_text(report.put_section(old, section), encoding="utf-8")
    missed = report.missed(rows, measured_limits) if given.check else []
    for line in missed:
        print(f"goal missed: {line}", file=sys.stderr)
    # A pool need not have all rows; miniray has to.
    return 0 if all(row.rates.get("miniray") for row in rows) and not missed else 1


def _command(given: argparse.Namespace) -> str:
    words = ["miniray microbenchmark"]
    words += [f"--{name} {value}" for name in ("peer", "only") if (value := getattr(given, name))]
    if given.ray_python != sys.executable and "ray" in given.peer:
        words.append("--ray-python PYTHON_WITH_RAY")
    words += ["--limits"] if given.limits else []
    return " ".join([*words, f"--trials {given.trials} --seconds {given.seconds:g}"])


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
