"""The stored answers are still those of real Ray, where it is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .answers import StoredAnswers
from .catalog import all_files
from .run import python_of, ray_python, run_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        ray_python() is None and not os.environ.get("MINIRAY_REQUIRE_RAY"),
        reason="real Ray is not installed; MINIRAY_RAY_PYTHON may name an interpreter that has it",
    ),
]


#: How often what differs is asked again.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def python_of_ray() -> tuple[int, int]:
    """The version of the Python that Ray runs on here."""
    command = [python_of("ray"), "-c", "import sys; print(*sys.version_info[:2])"]
    major, minor = subprocess.check_output(command, text=True).split()
    return int(major), int(minor)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [file.name for file in all_files()])
def test_ray_still_answers_what_is_stored(name: str, python_of_ray: tuple[int, int], tmp_path: Path) -> None:
    (file,) = (file for file in all_files() if file.name == name)
    stored = StoredAnswers.load(name)
    runnable = [entry.name for entry in file.programs if not stored.comparable(entry, python_of_ray)]
    answers = run_file("ray", name, runnable, tmp_path / "log")
    differing = stored.disagreements(file, answers, "ray", python_of_ray)
    for _ in range(ATTEMPTS):
        if not differing:
            break
        # Ray's own timing has hiccups on a loaded machine: what differs is asked again, alone. An answer counts that
        # Ray still gives.
        again = run_file("ray", name, list(differing), tmp_path / "log")
        differing = stored.disagreements(file, again, "ray", python_of_ray)
    assert not differing, "\n\n".join(f"{name}.{program}\n{lines}" for program, lines in differing.items())
