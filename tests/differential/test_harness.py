"""The comparison itself: the volatile is replaced, whatever a program does becomes an answer, mistakes are caught."""

from __future__ import annotations

import copy
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .ahead import running_ahead
from .answers import StoredAnswers, difference
from .catalog import program_file
from .normalise import NotPlainData, normalise
from .run import run_file

PYTHON = sys.version_info[:2]
COMPARED = ["waiting_for_some", "get_with_a_timeout", "putting_a_ref", "getting_lists", "failed_tasks_are_ready"]


def test_what_differs_from_run_to_run_is_replaced() -> None:
    text = (
        f"ray::f() (pid=123, ip=10.0.0.7) ObjectRef({'ab' * 28}) at 0x7f0123456789\n"
        '  File "/somewhere/else/module.py", line 12, in f\n    return 1 / 0\n           ~~^~~\nZeroDivisionError'
    )
    assert normalise(text) == (
        "ray::f() (pid=PID, ip=IP) ObjectRef(ID28) at ADDRESS\n"
        '  File "module.py", line N, in f\n    return 1 / 0\nZeroDivisionError'
    )


def test_the_name_miniray_becomes_ray_and_other_words_stay() -> None:
    assert normalise("miniray.exceptions.RayError of minirays") == "ray.exceptions.RayError of minirays"


def test_colours_and_blanks_of_a_text_stay() -> None:
    assert normalise("\x1b[36mray::f()\x1b[39m  two blanks\n") == "\x1b[36mray::f()\x1b[39m  two blanks\n"


def test_tuples_become_lists_and_other_objects_are_refused() -> None:
    assert normalise({"a": (1, [None, 2.5, True])}) == {"a": [1, [None, 2.5, True]]}
    for value in ({1, 2}, b"bytes", {1: 2}, object()):
        with pytest.raises(NotPlainData):
            normalise([value])


def test_a_difference_shows_the_lines_that_differ() -> None:
    assert difference({"a": [1, 2]}, {"a": [1, 2]}) == ""
    lines = difference({"a": [1, 2], "b": "x\ny"}, {"a": [1, 3], "b": "x\nz", "c": None}).splitlines()
    assert lines[:3] == [".a[1]:", "  Ray: 2", "  miniray: 3"]
    assert {".b:", "-y", "+z", ".c: only miniray: null"} <= set(lines)


def test_a_number_is_not_taken_for_a_truth_value() -> None:
    assert difference([1, 0], [True, False]) != ""


def test_whatever_a_program_does_is_an_answer_and_the_others_go_on(tmp_path: Path) -> None:
    answers = run_file("differential.stub_engine", ".misbehaving", log=tmp_path / "log", limit=1)
    assert answers["answers"] == {"value": ["an answer", "differential.stub_engine"]}
    assert answers["hangs"] == {"exceeded": "1 s"}
    assert "died" in answers["hangs_for_good"]
    assert answers["dies"] == {"died": "exit code 9"}
    assert answers["raises"]["error"]["raises"] == "ValueError"
    assert "not plain data" in answers["returns_an_object"]
    assert answers["answers_last"] == {"value": "still there"}
    assert answers["answers_alone"] == {"value": True}


def test_an_engine_that_does_not_start_is_an_answer_of_every_program(tmp_path: Path) -> None:
    answers = run_file("no_such_engine", ".misbehaving", ["answers", "raises"], tmp_path / "log")
    assert set(answers) == {"answers", "raises"}
    assert all("before the first program" in answer["died"] for answer in answers.values())


def test_a_doctored_answer_is_caught(tmp_path: Path) -> None:
    file, stored = program_file("object_values"), StoredAnswers.load("object_values")
    answers = run_file("miniray", "object_values", COMPARED, tmp_path / "log")
    assert stored.disagreements(file, answers, "miniray", PYTHON) == {}
    doctored = copy.deepcopy(stored)
    doctored.programs["getting_lists"]["answer"][1] = [2]
    assert list(doctored.disagreements(file, answers, "miniray", PYTHON)) == ["getting_lists"]


def test_planted_mistakes_of_the_engine_are_caught(tmp_path: Path) -> None:
    file, stored = program_file("object_values"), StoredAnswers.load("object_values")
    answers: dict[str, Any] = run_file("differential.wrong_engine", "object_values", COMPARED, tmp_path / "log")
    caught = stored.disagreements(file, answers, "differential.wrong_engine", PYTHON)
    assert set(caught) == {"waiting_for_some", "get_with_a_timeout", "putting_a_ref"}
    assert "GetTimeoutError" in caught["get_with_a_timeout"]


def test_a_program_that_needs_a_newer_python_is_not_compared() -> None:
    file, stored = program_file("error_types"), StoredAnswers.load("error_types")
    assert stored.comparable(file["exception_groups"], (3, 10)) == "needs Python 3.11"
    assert stored.comparable(file["exception_groups"], (3, 13)) == ""


def test_files_run_ahead_two_at_a_time_and_those_that_must_be_alone_after_all_others() -> None:
    running: set[str] = set()
    together: list[set[str]] = []
    meeting = threading.Barrier(2)

    def run(name: str) -> str:
        running.add(name)
        together.append(set(running))
        if name in ("task_runs", "object_values"):
            meeting.wait(10)  # both are on their way, though only one was asked for
        running.discard(name)
        return f"answers of {name}"

    with running_ahead(run, ["task_runs", "sessions", "object_values"]) as answers:
        assert answers("task_runs") == "answers of task_runs"
        assert answers("sessions") == answers("sessions") == "answers of sessions"
    assert together[-1] == {"sessions"} and len(together) == 3
