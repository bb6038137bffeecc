"""The drawn example of ownership is what a trace shows."""

import os
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocols" / "ownership.md").read_text(encoding="utf-8")
KINDS = ("TaskPush", "TaskReply", "AddBorrowers", "BorrowersAdded", "RemoveBorrowers", "ReleasePins")

pytestmark = pytest.mark.skipif(
    os.environ.get("MINIRAY_START_METHOD") == "spawn", reason="drawn as it is with the fork server"
)


def drawn():
    """Who says what to whom, in order, by the diagram."""
    said = {}
    for sender, receiver, text in re.findall(r"^    (\w)->>(\w): (.*)$", PAGE, re.MULTILINE):
        said.setdefault((sender, receiver), []).extend(re.findall("|".join(KINDS), text))
    return said


def traced():
    journey = runpy.run_path(str(DOCS / "journey.py"))
    sent = journey["pair"](journey["record"](DOCS / "ownership_program.py", "RemoveBorrowers", 2))
    begin = next(index for index, message in enumerate(sent) if "name=pass_on" in message.fields)
    actor = next(message.sender for message in sent if message.kind == "ReleasePins")

    def name(process):
        return "A" if process == actor else process[0].upper()

    said = {}
    for message in sent[begin:]:
        if message.kind in KINDS and not message.receiver.startswith("head"):
            said.setdefault((name(message.sender), name(message.receiver)), []).append(message.kind)
    return said


def test_the_drawn_messages_are_those_of_the_program():
    assert traced() == drawn()


def test_the_program_shown_is_the_one_that_runs():
    program = (DOCS / "ownership_program.py").read_text(encoding="utf-8")
    shown = program[program.index("import miniray") :].strip()
    assert shown in PAGE
