"""``python -m benchmarks``: the whole table, or a part; ``--write`` makes the page of the documentation from it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import table
from benchmarks.alternation import run_trials, to_stderr
from benchmarks.claims import FULL, QUICK, Claim, all_claims, select
from benchmarks.engines import find_engine
from benchmarks.machine import describe
from benchmarks.results import Results, from_plain, to_plain
from miniray.microbenchmark.report import section_of


def _arguments(arguments: list[str] | None, module: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks{'.' + module if module else ''}", description=__doc__)
    parser.add_argument("--ray-python", metavar="PYTHON", help="an interpreter that has Ray (default: this one)")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--only", metavar="PATTERN", default="", help="claims whose name contains this; several: a,b")
    parser.add_argument("--trials", type=int, help="how often all is measured (default: 3; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes: a look, no measurement")
    parser.add_argument("--json", metavar="FILE", help="write the figures of all trials")
    parser.add_argument("--from", metavar="FILE", dest="source", help="measure nothing, take the figures of a --json")
    parser.add_argument("--write", metavar="FILE", help="write the page, as docs/benchmarks.md")
    parser.add_argument("--list", action="store_true", help="name the claims, and measure nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, module: str | None = None) -> None:
    """Measure and print.

    Args:
        arguments: of the command line, by default those of this process.
        module: measure only the claims of this module.
    """
    options = _arguments(arguments, module)
    claims = select(all_claims(), options.only)
    if module:
        from importlib import import_module

        own = {claim.name for claim in import_module(f"benchmarks.{module}").CLAIMS}
        claims = [claim for claim in claims if claim.name in own]
    if options.list:
        print("\n".join(claim.name for claim in claims))
        return
    if not claims:
        sys.exit(f"no claim has {options.only!r} in its name; --list names them")
    if options.source:
        results = from_plain(json.loads(Path(options.source).read_text(encoding="utf-8")))
    else:
        results = _measure(options, claims, module)
    if options.json:
        Path(options.json).write_text(json.dumps(to_plain(results), indent=1) + "\n", encoding="utf-8")
    print(table.as_text(results, claims))
    if options.write:
        page = Path(options.write)
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(table.as_page(results, claims, section_of(old)), encoding="utf-8")


def _measure(options: argparse.Namespace, claims: list[Claim], module: str | None) -> Results:
    miniray = find_engine("miniray")
    if miniray is None:
        sys.exit("this interpreter cannot import miniray: install it, or its dependencies")
    ray = None if options.no_ray else find_engine("ray", options.ray_python)
    if options.ray_python and ray is None:
        sys.exit(f"{options.ray_python} cannot import ray")
    if ray is None and not options.no_ray:
        print("Ray is not installed here: its columns stay empty (--ray-python names an interpreter that has it)")
    size, trials = (QUICK, options.trials or 1) if options.quick else (FULL, options.trials or 3)
    engines = [engine for engine in (miniray, ray) if engine is not None]
    machine = describe()
    results = run_trials(claims, engines, size, trials, options.quick, to_stderr)
    results.machine = machine
    results.command = _command(options, module)
    return results


def _command(options: argparse.Namespace, module: str | None) -> str:
    """What was called, without paths of this machine."""
    words = ["python -m benchmarks" + (f".{module}" if module else "")]
    if options.ray_python:
        words.append("--ray-python PYTHON_WITH_RAY")
    for flag, given in (("--no-ray", options.no_ray), ("--quick", options.quick)):
        if given:
            words.append(flag)
    if options.trials:
        words.append(f"--trials {options.trials}")
    if options.only:
        words.append(f"--only {options.only!r}")
    return " ".join(words)


if __name__ == "__main__":
    main()
