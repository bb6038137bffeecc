"""The trials of a run: limits, miniray, Ray; then limits, Ray, miniray; and so on.

Engines take turns, and each trial begins with the limits, so that figures that are divided by each other were measured
within the same minute. In each turn an engine first measures what starts processes of its own, then the others in one
fresh session.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.claims import Claim, NotHere, Size
from benchmarks.engines import Engine, Failed, measure_in_session, script
from benchmarks.results import Results
from miniray.microbenchmark.whole_programs import ONE_TASK


def run_trials(
    claims: list[Claim], engines: list[Engine], size: Size, trials: int, quick: bool, say: Callable[[str], None]
) -> Results:
    """Measure all claims on all engines.

    Args:
        engines: miniray first.
        say: told what is going on.
    """
    begin = time.monotonic()
    results = Results(quick=quick)
    for engine in engines:
        results.engines[engine.name] = {"version": engine.version, "python": engine.python_version}
    for engine in engines:
        say(f"{engine.name}: a first session, which leaves the bytecode of all modules on disk")
        try:
            engine.run(script(engine, ONE_TASK))
        except Failed as reason:
            say(str(reason))  # the trials will show whether that was all
    limits_runner = engines[0]
    for trial in range(trials):
        say(f"trial {trial + 1} of {trials}: limits")
        arguments = ["-m", "benchmarks.limits", *(["--quick"] if quick else []), *(["--needed"] if trial else [])]
        results.add_limits(trial, json.loads(limits_runner.run(arguments).output))
        for engine in engines if trial % 2 == 0 else reversed(engines):
            wanted = [claim for claim in claims if engine.name in claim.engines and trial < claim.most_trials]
            for claim in wanted:
                if claim.alone is not None:
                    say(f"trial {trial + 1} of {trials}: {engine.name}: {claim.name}")
                    _measure_alone(results, claim, engine, size, trial)
            in_session = [claim for claim in wanted if claim.in_session is not None]
            if in_session:
                say(f"trial {trial + 1} of {trials}: {engine.name}: a session with {len(in_session)} claims")
                _measure_in_session(results, in_session, engine, size, trial)
    say("")
    results.seconds = time.monotonic() - begin
    return results


def _measure_alone(results: Results, claim: Claim, engine: Engine, size: Size, trial: int) -> None:
    assert claim.alone is not None
    try:
        results.add(claim, engine.name, trial, statistics.median(claim.alone(engine, size)))
    except (Failed, NotHere) as reason:
        results.add_note(claim, engine.name, str(reason))


def _measure_in_session(results: Results, claims: list[Claim], engine: Engine, size: Size, trial: int) -> None:
    try:
        figures = measure_in_session(engine, [claim.name for claim in claims], size)
    except Failed as reason:
        figures = {claim.name: str(reason) for claim in claims}
    for claim in claims:
        figure = figures.get(claim.name, "not measured")
        if isinstance(figure, str):
            results.add_note(claim, engine.name, figure)
        else:
            results.add(claim, engine.name, trial, figure)


def to_stderr(line: str) -> None:
    """One line after the other; on a terminal, each overwrites the last one."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
    elif line:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
