"""The stored answers are still those of real Ray, where it is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .ahead import running_ahead
from .answers import StoredAnswers
from .catalog import all_files, program_file
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


@pytest.fixture(scope="module")
def answers_of(
    request: pytest.FixtureRequest, python_of_ray: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The answers of a file on real Ray."""
    folder = tmp_path_factory.mktemp("ray")
    items = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in items if hasattr(item, "callspec")]

    def run(name: str) -> dict[str, Any]:
        stored = StoredAnswers.load(name)
        runnable = [entry.name for entry in program_file(name).programs if not stored.comparable(entry, python_of_ray)]
        return run_file("ray", name, runnable, folder / f"{name}.log")

    with running_ahead(run, names) as answers:
        yield answers


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [file.name for file in all_files()])
def test_ray_still_answers_what_is_stored(
    name: str, python_of_ray: tuple[int, int], answers_of: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    file, stored = program_file(name), StoredAnswers.load(name)
    differing = stored.disagreements(file, answers_of(name), "ray", python_of_ray)
    for _ in range(ATTEMPTS):
        if not differing:
            break
        # Ray's own timing has hiccups on a loaded machine: what differs is asked again, alone. An answer counts that
        # Ray still gives.
        again = run_file("ray", name, list(differing), tmp_path / "log")
        differing = stored.disagreements(file, again, "ray", python_of_ray)
    assert not differing, "\n\n".join(f"{name}.{program}\n{lines}" for program, lines in differing.items())
