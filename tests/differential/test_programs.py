"""Every program answers on miniray what it answered on real Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .ahead import running_ahead
from .answers import StoredAnswers
from .bullets import OPEN_AREAS
from .catalog import Program, ProgramFile, all_files
from .run import run_file

PYTHON = sys.version_info[:2]
CASES = [pytest.param(file, entry, id=f"{file.name}-{entry.name}") for file in all_files() for entry in file.programs]


@pytest.fixture(scope="module")
def answers_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[dict[str, Any], Path]]]:
    """The answers of a file on miniray, and the log; the file runs once, with those programs that were selected."""
    folder = tmp_path_factory.mktemp("differential")
    selected: dict[str, list[str]] = {}
    for item in request.session.items:
        parameters = getattr(item, "callspec", None)
        if parameters is not None and item.path == request.path and "entry" in parameters.params:
            file, entry = parameters.params["file"], parameters.params["entry"]
            if file.area not in OPEN_AREAS and not StoredAnswers.load(file.name).comparable(entry, PYTHON):
                selected.setdefault(file.name, []).append(entry.name)

    def run(name: str) -> tuple[dict[str, Any], Path]:
        log = folder / f"{name}.log"
        return run_file("miniray", name, selected[name], log), log

    with running_ahead(run, list(selected)) as answers:
        yield answers


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("file", "entry"), CASES)
def test_the_answer_is_that_of_ray(file: ProgramFile, entry: Program, answers_of: Callable[[str], Any]) -> None:
    if file.area in OPEN_AREAS:
        pytest.skip(f"not built yet: {file.area}")
    stored = StoredAnswers.load(file.name)
    reason = stored.comparable(entry, PYTHON)
    if reason:
        pytest.skip(reason)
    answers, log = answers_of(file.name)
    differing = stored.disagreements(file, {entry.name: answers[entry.name]}, "miniray", PYTHON)
    if differing:
        printed = "" if "value" in answers[entry.name] else "\nprinted:\n" + log.read_text()[-4000:]
        pytest.fail(f"{file.name}.{entry.name}\n{differing[entry.name]}{printed}", pytrace=False)
