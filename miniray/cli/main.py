"""The entry point of the command line: which command, and one way to fail."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from miniray.cli import logs, memory, microbenchmark, run, start, state, status, stop, timeline
from miniray.util.state.exception import RayStateApiException
from miniray.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="miniray", description="The Ray Core API in pure Python, on one machine.")
    parser.add_argument("--version", action="version", version=f"miniray, version {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (start, stop, status, state, memory, timeline, logs, run, microbenchmark):
        command.add_command(commands)
    given, unknown = parser.parse_known_args(arguments)
    if unknown:  # with the usage of the command, which argparse itself does not show
        commands.choices[given.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code = int(given.run(given))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit has a place
        return 1
    except KeyboardInterrupt:  # as a shell tells it
        return 130
    except (OSError, RuntimeError, ValueError, RayStateApiException) as error:
        print(f"miniray {given.command}: {error}", file=sys.stderr)
        return 1
