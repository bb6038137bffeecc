"""``miniray timeline``: when which task ran where, as a file for Perfetto or Chrome's trace viewer."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile

from miniray.chrome_trace import chrome_trace
from miniray.util.state.source import Source


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("timeline", help="write the tasks of a session as a Chrome trace")
    parser.add_argument("--address", help="which session (default: RAY_ADDRESS, else the newest one)")
    parser.add_argument(
        "--output", "-o", metavar="FILE", help="where to (default: a new file in the temporary directory)"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    trace = chrome_trace(Source(given.address).query("task_reports")["events"], "127.0.0.1")
    path = given.output
    if not path:
        now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = os.path.join(tempfile.gettempdir(), f"miniray-timeline-{now}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(trace, file)
    print(f"Trace file written to {path} ({len(trace)} events).")
    print("You can open this in https://ui.perfetto.dev or with chrome://tracing in the Chrome browser.")
    return 0
