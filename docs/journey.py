"""Write the journey of a task in docs/design.md: every message that docs/journey_program.py causes, explained.

    python docs/journey.py            # run it, and write the section of design.md between the markers
    python docs/journey.py --check    # exit code 1 and a difference if the messages are others than those shown
    python docs/journey.py --raw      # print what MINIRAY_TRACE=1 printed, sorted by time, and write nothing

The program runs in a process of its own with MINIRAY_TRACE=1. The driver's lines come from its standard error, those of
the head and of the worker from the session's log files. A message appears twice in them, where it leaves and where it
arrives; here it is shown once, in the order of leaving. The order is that of cause and effect, and so the same in every
run, but for two conversations that go on side by side while the session starts: these stand one after the other.

Ids, addresses, times and process numbers are left out: of each message the fields in FIELDS are shown. A message that
EXPLANATIONS does not know is an error: whoever changes the protocol explains it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

DOCS = Path(__file__).resolve().parent
PROGRAM = DOCS / "journey_program.py"
TARGET = DOCS / "design.md"
BEGIN, END = "<!-- journey: begin (python docs/journey.py) -->", "<!-- journey: end -->"

if (DOCS.parent / "miniray").is_dir():
    sys.path.insert(0, str(DOCS.parent))

from miniray.messages.envelope import Message  # noqa: E402

STRUCTS = {struct.__name__: struct for struct in get_args(Message)}
LINE = re.compile(r"^\s*(\d+\.\d+)\s+(driver|worker|head) (\d+) (->|<-) (\S+(?: \d+)?)\s+(\w+)\((.*)\)\s*$")
#: fields that are the same in every run
FIELDS = ("class_id", "count", "depth", "kind", "lease_id", "name", "num_returns", "request_id", "what")
#: what goes in batches beside the path, whenever it suits
BESIDE = ("TaskEvents",)
#: the first task message; what comes before is the start of the session
FIRST = "LeaseDemand"
#: the last one; what comes later is the end of the session
LAST = "ReturnLease"

EXPLANATIONS = {
    ("driver", "head", "Hello"): "The first message on every new connection: who I am, where my inbox is.",
    ("driver", "head", "RegisterDriver"): "`init` opens a job. The driver has started the head a moment ago.",
    ("head", "driver", "Hello"): "The head opens its own connection for the way back.",
    ("head", "driver", "DriverRegistered"): "The job has an id now, and `init` returns.",
    ("worker", "head", "Hello"): "Meanwhile a worker was forked, has bound its inbox,",
    ("worker", "head", "RegisterWorker"): "and can be leased.",
    ("head", "worker", "Hello"): "The head has something to say to this worker for the first time.",
    ("driver", "head", "LeaseDemand"): (
        "`square.remote(7)`: the driver owns the task and its result. It has no worker for tasks that need one CPU, so "
        "it asks for a lease. `remote` returns."
    ),
    ("head", "driver", "LeaseGranted"): (
        "The scheduler has taken one CPU off the node, the worker pool has picked an idle worker. This one belongs to "
        "the driver now, until it is given back. The head has no further part in the task."
    ),
    ("driver", "head", "WatchWorker"): "Should that worker die, the driver wants to hear of it.",
    ("driver", "worker", "Hello"): "The driver connects to the worker, directly.",
    ("driver", "worker", "FunctionExport"): (
        "The function, pickled, goes ahead of the first task that needs it, once per worker."
    ),
    ("driver", "worker", "TaskPush"): "The task: its id, which function, the pickled arguments, who called.",
    ("worker", "head", "Query"): (
        "The worker's first task of this job: it asks for the driver's import path and working directory, once."
    ),
    ("head", "worker", "Reply"): "Here they are.",
    ("worker", "driver", "Hello"): "The worker opens its connection for the way back.",
    ("worker", "driver", "TaskReply"): (
        "`square` has run. 49 is small, so it travels inside the reply, and `get` returns it. (The thread that waits "
        "in `get` has read this message itself.)"
    ),
    ("driver", "head", "ReturnLease"): "The driver has had nothing to do for this worker for a while: the lease ends.",
}


@dataclass
class Sent:
    """A message that left one process for another."""

    when: float
    sender: str
    receiver: str
    kind: str
    fields: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.sender, self.receiver, self.kind


# ---- recording ----


def record(program: Path = PROGRAM, until: str = LAST, times: int = 1) -> list[str]:
    """The lines of the trace of a program, sorted by time. It is over when the logs show so many messages `until`."""
    with tempfile.TemporaryDirectory(prefix="mrj-", dir="/tmp") as directory:
        environment = {**os.environ, "MINIRAY_TRACE": "1", "MINIRAY_TMPDIR": directory, "PYTHONPATH": _python_path()}
        for name in ("RAY_ADDRESS", "MINIRAY_ADDRESS", "MINIRAY_TRACE_ORIGIN"):
            environment.pop(name, None)
        logs = Path(directory) / "logs"
        done = subprocess.run(
            [sys.executable, __file__, "--traced", str(program), str(logs), until, str(times)],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=50,
        )
        if done.returncode:
            sys.exit(f"{program.name} failed:\n{done.stdout}{done.stderr}")
        text = done.stderr + "".join(path.read_text("utf-8", "replace") for path in sorted(logs.glob("*.err")))
    found = {line.strip(): float(match[1]) for line in text.splitlines() if (match := LINE.match(line))}
    return sorted(found, key=lambda line: found[line])


def _python_path() -> str:
    import miniray

    package = Path(miniray.__file__).resolve().parent
    return os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH", "")]))


def run_traced(program: Path, logs: Path, until: str, times: int) -> None:
    """In the process that is traced: run the program, and save the logs before the session goes, with its directory."""
    import miniray

    runpy.run_path(str(program), run_name="__main__")
    directory = Path(miniray.init(ignore_reinit_error=True).address_info["session_dir"]) / "logs"
    deadline = time.monotonic() + 30
    while sum(path.read_text("utf-8", "replace").count(f" {until}(") for path in directory.glob("*.err")) < times:
        if time.monotonic() > deadline:
            sys.exit(f"there were no {times} {until}")
        time.sleep(0.02)
    shutil.copytree(directory, logs)


# ---- reading ----


def pair(lines: list[str]) -> list[Sent]:
    """The messages in the order of leaving; sender and receiver with their process numbers, the fields as printed."""
    parsed = [match for line in lines if (match := LINE.match(line))]
    # A process is called by its id until it has said who it is: the arrival of the same message tells.
    arrivals: dict[tuple[str, str, str], list[str]] = {}
    for match in parsed:
        _, me, pid, arrow, other, kind, fields = match.groups()
        if arrow == "<-":
            arrivals.setdefault((other, kind, fields), []).append(f"{me} {pid}")
    found = []
    for match in parsed:
        when, me, pid, arrow, _, kind, fields = match.groups()
        if arrow == "->" and kind not in BESIDE:
            waiting = arrivals.get((f"{me} {pid}", kind, fields))
            if waiting:
                found.append(Sent(float(when), f"{me} {pid}", waiting.pop(0), kind, fields))
    return found


def messages(lines: list[str]) -> list[Sent]:
    """The messages of the journey, in order."""
    found = [
        Sent(sent.when, sent.sender.split()[0], sent.receiver.split()[0], sent.kind, _stable(sent.kind, sent.fields))
        for sent in pair(lines)
    ]
    return _in_order(found)


def _stable(kind: str, fields: str) -> str:
    names = STRUCTS[kind].__struct_fields__
    starts = [*re.finditer(rf"(?:^|, )({'|'.join(names)})=", fields)] if names else []
    ends = [*(start.start() for start in starts[1:]), len(fields)]
    return ", ".join(
        f"{start[1]}={fields[start.end() : end]}"
        for start, end in zip(starts, ends, strict=False)
        if start[1] in FIELDS
    )


def _in_order(found: list[Sent]) -> list[Sent]:
    begin = next(index for index, message in enumerate(found) if message.kind == FIRST)
    end = next(index for index, message in enumerate(found) if message.kind == LAST)
    start = [message for message in found[:begin] if "driver" in message.key]
    coming_up = [
        message for message in found[:end] if message.key[:2] == ("worker", "head") and message.kind != "Query"
    ]
    shown = {id(message) for message in (*start, *coming_up)}
    task = [message for message in found[begin : end + 1] if id(message) not in shown]
    return [*start, *coming_up, *task]


# ---- writing ----


def section(journey: list[Sent]) -> str:
    """The text between the markers."""
    unknown = [message.key for message in journey if message.key not in EXPLANATIONS]
    if unknown:
        sys.exit(f"messages that EXPLANATIONS in {__file__} does not know: {unknown}")
    lines = [BEGIN, "", "```python", *_program(), "```", ""]
    lines += ["|   | from → to | message | |", "|--:|---|---|---|"]
    for number, message in enumerate(journey, 1):
        shown = f"`{message.kind}({message.fields})`"
        lines.append(f"| {number} | {message.sender} → {message.receiver} | {shown} | {EXPLANATIONS[message.key]} |")
    return "\n".join([*lines, "", END])


def _program() -> list[str]:
    text = PROGRAM.read_text("utf-8")
    return text[text.index("import miniray") :].rstrip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the messages are others")
    parser.add_argument("--raw", action="store_true", help="print the trace, and write nothing")
    parser.add_argument("--traced", nargs=4, metavar=("PROGRAM", "LOGS", "UNTIL", "TIMES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.traced:
        program, logs, until, times = given.traced
        run_traced(Path(program), Path(logs), until, int(times))
        return
    lines = record()
    if given.raw:
        print("\n".join(line[:160] for line in lines))
        return
    page = TARGET.read_text("utf-8")
    begin, end = page.index(BEGIN), page.index(END) + len(END)
    new = section(messages(lines))
    if not given.check:
        TARGET.write_text(page[:begin] + new + page[end:], "utf-8")
    elif page[begin:end] != new:
        print(
            "\n".join(difflib.unified_diff(page[begin:end].splitlines(), new.splitlines(), "shown", "now", "", "", 1))
        )
        sys.exit(f"{TARGET.name} does not show the journey as it is: run python docs/journey.py")


if __name__ == "__main__":
    main()
