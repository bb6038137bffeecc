"""Asks real Ray and stores its answers: `python -m tests.differential.record [FILE ...]` (all files if none is named).

Each file runs several times; a program that does not answer the same every time is not stored, since it would blame
miniray for Ray's dice. `--missing` asks only for the programs that are new or changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .answers import StoredAnswers, difference
from .catalog import all_files, program_file
from .run import ray_python, run_file


def versions() -> tuple[str, str]:
    """The versions of Ray and of the Python it runs on."""
    python = ray_python()
    if python is None:
        raise SystemExit("real Ray is not installed here; MINIRAY_RAY_PYTHON may name an interpreter that has it")
    script = "import platform, ray; print(ray.__version__, platform.python_version())"
    ray_version, python_version = subprocess.check_output([python, "-c", script], text=True).split()
    return ray_version, python_version


def record(name: str, times: int, only: Sequence[str] | None, log: Path | None) -> list[str]:
    """Stores Ray's answers to a file's programs; returns what kept some from being stored."""
    file = program_file(name)
    stored = StoredAnswers.load(name)
    stored.ray, stored.python = versions()
    problems = []
    runs = [run_file("ray", name, only, log, verbose=True) for _ in range(max(times, 1))]
    for program, answer in runs[0].items():
        unsteady = [other for other in (run[program] for run in runs[1:]) if other != answer]
        if unsteady:
            problems.append(f"{name}.{program} is not steady:\n{difference(answer, unsteady[0], 'one run', 'another')}")
        elif "value" not in answer:
            problems.append(f"{name}.{program} gave no value:\n" + str(answer))
        else:
            kept = stored.programs.get(program, {})
            stored.programs[program] = kept | {"digest": file[program].digest, "answer": answer["value"]}
    order = [entry.name for entry in file.programs]
    stored.programs = {key: stored.programs[key] for key in order if key in stored.programs}
    stored.save(name)
    return problems


def main() -> int:
    """Records what the command line names; 1 if something could not be stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--missing", action="store_true", help="only programs that are new or changed")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--log", type=Path, help="what the programs' processes print")
    parser.add_argument("files", metavar="FILE", nargs="*")
    arguments = parser.parse_args()
    problems: list[str] = []
    for name in [Path(file).stem for file in arguments.files] or [file.name for file in all_files()]:
        only = arguments.only
        if arguments.missing:
            stale = set(StoredAnswers.load(name).stale(program_file(name)))
            only = [entry.name for entry in program_file(name).programs if entry.name in stale]
            if not stale:
                continue
        problems += record(name, arguments.times, only, arguments.log)
    print("\n\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
