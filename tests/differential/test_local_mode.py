"""Every program that applies answers in local mode what it answered on real Ray.

The programs run in their own processes in `test_programs` already, so this second run is left to the comparison with
real Ray, which sets the variable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .ahead import running_ahead
from .answers import StoredAnswers
from .bullets import OPEN_AREAS
from .catalog import ProgramFile, all_files
from .local_mode import NOT_APPLICABLE, applicable
from .run import LOCAL, run_file

PYTHON = sys.version_info[:2]


@pytest.fixture(scope="module")
def answers_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[dict[str, Any], Path]]]:
    """The answers of a file in local mode, and the log."""
    folder = tmp_path_factory.mktemp("local")
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    files = {item.callspec.params["file"].name: item.callspec.params["file"] for item in items}

    def run(name: str) -> tuple[dict[str, Any], Path]:
        log = folder / f"{name}.log"
        names = comparable(files[name])
        return (run_file(LOCAL, name, names, log) if names else {}), log

    with running_ahead(run, list(files)) as answers:
        yield answers


def comparable(file: ProgramFile) -> list[str]:
    """The programs of a file whose answers can be compared here."""
    stored = StoredAnswers.load(file.name)
    return [name for name in applicable(file) if not stored.comparable(file[name], PYTHON)]


@pytest.mark.skipif(
    "MINIRAY_COMPARE_LOCAL_MODE" not in os.environ, reason="set MINIRAY_COMPARE_LOCAL_MODE=1, as .ci/run does"
)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in all_files()])
def test_the_answers_are_those_of_ray(file: ProgramFile, answers_of: Callable[[str], Any]) -> None:
    if file.area in OPEN_AREAS:
        pytest.skip(f"not built yet: {file.area}")
    stored = StoredAnswers.load(file.name)
    if not comparable(file):
        pytest.skip("no program of this file applies")
    answers, log = answers_of(file.name)
    # Ray's own answers depend on the load, too: who differs is asked once more.
    again = list(stored.disagreements(file, answers, "miniray", PYTHON))
    if again:
        answers = answers | run_file(LOCAL, file.name, again, log)
    differing = stored.disagreements(file, answers, "miniray", PYTHON)
    if differing:
        lines = [f"{file.name}.{name}\n{text}" for name, text in differing.items()]
        pytest.fail("\n".join([*lines, "printed:", log.read_text()[-4000:]]), pytrace=False)


def test_what_does_not_apply_exists() -> None:
    files = {file.name: file for file in all_files()}
    for name, programs in NOT_APPLICABLE.items():
        assert set(programs) <= {entry.name for entry in files[name].programs}


def test_four_programs_of_five_apply() -> None:
    every = [entry for file in all_files() for entry in file.programs]
    assert sum(len(applicable(file)) for file in all_files()) > 0.8 * len(every)
