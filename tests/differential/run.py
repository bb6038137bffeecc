"""Runs a file of programs on an engine: `python -m tests.differential.run --engine ray|miniray FILE [--only NAME ...]`.

The programs of a file run in one subprocess and one session; the `fresh` ones in a subprocess each. What comes back is
`{program: answer}`, an answer being `{"value": data}`, `{"error": ...}` (the program let an exception out),
`{"exceeded": ...}` (it took too long) or `{"died": ...}` (it took the process with it). After the last two the rest of
the file goes on in a new session.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .catalog import program_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCAL = "miniray local"
LIMITS = {"ray": 60, "miniray": 30}
Answer = dict[str, Any]


def ray_python() -> str | None:
    """The interpreter that has real Ray: `MINIRAY_RAY_PYTHON`, else this one if Ray is installed in it, else none."""
    named = os.environ.get("MINIRAY_RAY_PYTHON")
    if named:
        return named
    return sys.executable if importlib.util.find_spec("ray") is not None else None


def python_of(engine: str) -> str:
    """The interpreter that runs an engine."""
    if engine == "ray":
        python = ray_python()
        if python is None:
            raise RuntimeError("real Ray is not installed here; MINIRAY_RAY_PYTHON may name an interpreter that has it")
        return python
    return sys.executable


def module_of(engine: str) -> str:
    """The module that an engine is: "miniray local" is miniray in local mode."""
    return engine.partition(" ")[0]


def environment(engine: str, folder: str) -> dict[str, str]:
    """The child's environment: the tests on the path, miniray from where this process has it, strict as the alias is.

    Sessions live below `folder`: a cluster of this user that happens to run is neither joined nor disturbed.
    """
    path = [str(ROOT / "tests")]
    if engine != "ray":
        spec = importlib.util.find_spec("miniray")
        if spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(ROOT / "miniray"):
            path.append(str(ROOT))
    # What the suite's check for leaks goes by is handed on, and on which fallback it runs.
    handed_on = ("MINIRAY_TEST_RUN", "MINIRAY_START_METHOD", "MINIRAY_TRANSPORT")
    of_the_suite = {key: os.environ[key] for key in handed_on if key in os.environ}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MINIRAY_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "default",
        "RAY_AUTH_MODE": "disabled",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "MINIRAY_TMPDIR": folder,
        "MINIRAY_ENVIRONMENT_CACHE": os.path.join(folder, "environments"),
        "MINIRAY_STRICT": "1",
        "MINIRAY_LOCAL_MODE": "1" if engine == LOCAL else "",
        **of_the_suite,
    }


def run_file(
    engine: str,
    name: str,
    only: Sequence[str] | None = None,
    log: Path | None = None,
    verbose: bool = False,
    limit: int | None = None,
) -> dict[str, Answer]:
    """The answers of a file's programs on an engine.

    Args:
        engine: the module to run them on.
        name: the file.
        only: the programs that are wanted; all of them by default.
        log: a file that gets what the processes print.
        verbose: whether to say how long each group of programs took.
        limit: seconds for each program.
    """
    file = program_file(name)
    chosen = [entry for entry in file.programs if only is None or entry.name in only]
    shared = [entry.name for entry in chosen if not entry.fresh]
    answers: dict[str, Answer] = {}

    def run_until_answered(group: list[str]) -> None:
        waiting = group
        while waiting:
            answers.update(run_group(engine, name, waiting, log, verbose, limit))
            waiting = [program for program in waiting if program not in answers]

    # Starting Ray is mostly waiting, so that two starts at a time take little more than one.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_until_answered, [shared] + [[e.name] for e in chosen if e.fresh and not e.alone]))
    for entry in chosen:
        if entry.alone:
            run_until_answered([entry.name])
    return {entry.name: answers[entry.name] for entry in chosen}


@contextmanager
def _folder(parent: str) -> Iterator[str]:
    """A place for the sessions of a group of programs, so that those of two that run at once do not meet. It stays when
    sessions are left in it: the check for leaks says so.
    """
    # Short, because socket paths below it end at 107 bytes.
    folder = tempfile.mkdtemp(prefix="d-", dir=parent)
    try:
        yield folder
    finally:
        if not any(Path(folder).glob("miniray-*/s-*")):
            shutil.rmtree(folder, ignore_errors=True)  # a dying process may still write to it


def run_group(
    engine: str, name: str, programs: list[str], log: Path | None, verbose: bool, limit: int | None
) -> dict[str, Answer]:
    """Runs programs in one process as far as it gets; at least the first of them has an answer afterwards."""
    limit = limit or LIMITS.get(engine, LIMITS["miniray"])
    with _folder("/tmp" if engine == "ray" else os.environ.get("MINIRAY_TMPDIR", "/tmp")) as folder:
        output = Path(folder, "answers.jsonl")
        output.touch()
        with open(log, "a") if log is not None else tempfile.TemporaryFile("w+") as printed:
            command = [python_of(engine), str(HERE / "child.py"), "--engine", module_of(engine), "--file", name]
            child = subprocess.Popen(
                [*command, "--limit", str(limit), "--output", str(output), "--programs", *programs],
                cwd=ROOT,
                env=environment(engine, folder),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
            began = time.monotonic()
            try:
                code = child.wait(timeout=limit * len(programs) + 2 * limit)
            except subprocess.TimeoutExpired:
                child.kill()
                code = child.wait()
            took = time.monotonic() - began
        answers: dict[str, Answer] = {}
        seconds: dict[str, float] = {}
        started: str | None = None
        for line in output.read_text().splitlines():
            entry = json.loads(line)
            started = entry.get("started")
            if "finished" in entry:
                answers[entry["finished"]] = entry["answer"]
                seconds[entry["finished"]] = entry["seconds"]
    if verbose:
        slowest = sorted(seconds, key=lambda program: -seconds[program])[:4]
        named = ", ".join(f"{program} {seconds[program]}" for program in slowest)
        print(f"{name}: {len(answers)} programs in {took:.1f} s (slowest: {named}), exit code {code}", file=sys.stderr)
    if started is not None:
        answers[started] = {"died": f"exit code {code}"}
    elif not answers:
        answers = {program: {"died": f"before the first program, exit code {code}"} for program in programs}
    return answers


def main() -> int:
    """Prints the answers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["ray", "miniray", LOCAL], required=True)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--log", type=Path, help="what the programs' processes print")
    parser.add_argument("file", metavar="FILE")
    arguments = parser.parse_args()
    name = Path(arguments.file).stem
    answers = run_file(arguments.engine, name, arguments.only, arguments.log, verbose=True)
    json.dump(answers, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
