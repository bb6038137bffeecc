"""What is drawn or listed from the code is up to date; so is the journey of a task."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / script), *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=55)


@pytest.mark.parametrize("script", ["generate_compatibility.py", "generate_diagrams.py", "generate_error_texts.py"])
def test_it_is_up_to_date(script):
    done = run(script, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    os.environ.get("MINIRAY_START_METHOD") == "spawn", reason="the journey is shown as it is with the fork server"
)
def test_the_journey_of_a_task_is_what_the_trace_prints():
    done = run("journey.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def journey():
    return runpy.run_path(str(DOCS / "journey.py"))


TRACE = [
    " 0.10   driver 1 -> 0a0b0c0d  Hello(address=Address(worker_id=b'(, pid=9)', version=0.1.0, kind=driver, pid=1)",
    " 0.11     head 2 <- driver 1  Hello(address=Address(worker_id=b'(, pid=9)', version=0.1.0, kind=driver, pid=1)",
    " 0.21   driver 1 -> head 2        LeaseDemand(class_id=1, spec=LeaseSpec(resources={'CPU': 1}...), count=1)",
    " 0.30   worker 3 -> head 2        RegisterWorker(pid=3)",
    " 0.31     head 2 <- worker 3      RegisterWorker(pid=3)",
    " 0.32     head 2 <- driver 1      LeaseDemand(class_id=1, spec=LeaseSpec(resources={'CPU': 1}...), count=1)",
    " 0.40   driver 1 -> head 2        ReturnLease(lease_id=1)",
    " 0.41     head 2 <- driver 1      ReturnLease(lease_id=1)",
    " 0.50   driver 1 -> head 2        StopSession()",
    " 0.51     head 2 <- driver 1      StopSession()",
]


def test_a_message_is_shown_once_between_the_names_of_its_two_ends(journey):
    found = journey["messages"](TRACE)
    assert [message.key for message in found] == [
        ("driver", "head", "Hello"),
        ("worker", "head", "RegisterWorker"),
        ("driver", "head", "LeaseDemand"),
        ("driver", "head", "ReturnLease"),
    ]
    assert [message.fields for message in found] == ["kind=driver", "", "class_id=1, count=1", "lease_id=1"]


def test_a_message_that_nobody_explained_is_an_error(journey):
    strange = journey["Sent"](0.0, "head", "driver", "Exit", "")
    with pytest.raises(SystemExit, match="Exit"):
        journey["section"]([strange])


def test_the_page_shows_the_program_that_is_run(journey):
    program = (DOCS / "journey_program.py").read_text(encoding="utf-8")
    shown = (DOCS / "design.md").read_text(encoding="utf-8")
    assert program[program.index("import miniray") :] in shown
