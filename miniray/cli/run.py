"""``miniray run``: a Ray program, unchanged, on miniray."""

from __future__ import annotations

import argparse
import os
import sys

from miniray.compat import shim_folder
from miniray.system.process_start import interpreter_flags


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        help="run a Ray program on miniray",
        description="Run a Python program in which `import ray` gives miniray: `miniray run` for `python`.",
    )
    parser.add_argument("--extensions", action="store_true", help="allow what miniray has and Ray refuses")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-m", dest="option", action="store_const", const="-m", help="run a module")
    kind.add_argument("-c", dest="option", action="store_const", const="-c", help="run a string of code")
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="what to run; - for standard input"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Become the program: it has this process, and its exit code is the command's."""
    if not given.program:
        raise ValueError("which program? `miniray run script.py`, `miniray run -m module`, or - for stdin")
    option = [given.option] if given.option else []
    if not option and given.program[0] != "-" and not os.path.exists(given.program[0]):
        raise FileNotFoundError(f"there is no file {given.program[0]!r}")
    # With -E the program would not see the variables that make miniray its Ray.
    flags = [flag for flag in interpreter_flags() if flag != "-E"]
    argv = [sys.executable, *flags, *option, *given.program]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, argv, {**os.environ, **environment(given.extensions)})


def environment(extensions: bool) -> dict[str, str]:
    """The variables with which a Python process, and all that it starts, takes miniray for Ray."""
    variables = {"MINIRAY_AS_RAY": "1"}
    if extensions:
        variables["MINIRAY_STRICT"] = "0"
    folder, path = shim_folder(), os.environ.get("PYTHONPATH", "")
    entries = path.split(os.pathsep) if path else []
    variables["PYTHONPATH"] = os.pathsep.join([folder, *(entry for entry in entries if entry != folder)])
    return variables
