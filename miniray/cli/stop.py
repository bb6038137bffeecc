"""``miniray stop``: end the shared heads of this user."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from miniray.system import session

#: seconds that a head has to end in good order
_PATIENCE = 10.0


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "stop",
        help="end the shared heads of this user",
        description="End all heads of this user that `miniray start` or a Cluster started, and all their processes. "
        "Private sessions, which end with their program, are left alone.",
    )
    parser.add_argument("--force", action="store_true", help="kill them at once")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    # A registry file counts only while somebody holds the lock of its session, so the pid is the head's.
    sessions = [info for info in session.running_sessions() if not info.private]
    waiting = session.waiting_sessions()
    for _, pid in waiting:
        _signal(pid, signal.SIGTERM)  # their head is gone already: wait for no other one
    if waiting and not sessions:
        print(f"Stopped {len(waiting)} session{'s'[: len(waiting) > 1]} whose head was gone.")
        return 0
    if not sessions:
        print("Did not find any running head of this user.")
        return 0
    number = signal.SIGKILL if given.force else signal.SIGTERM
    for info in sessions:
        _signal(info.pid, number)
    left = _wait(sessions)
    for info in left:
        print(f"The head {info.pid} did not end within {_PATIENCE:g} s: killing it.", file=sys.stderr)
        _signal(info.pid, signal.SIGKILL)
    left = _wait(left)
    if given.force or left:
        for info, pid in session.waiting_sessions():
            if any(info.directory == killed.directory for killed in sessions):
                _signal(pid, signal.SIGTERM)
        session.sweep()
    stopped = len(sessions) - len(left)
    print(
        f"Stopped {stopped} of {len(sessions)} sessions." if left else f"Stopped {stopped} session{'s'[: stopped > 1]}."
    )
    return 1 if left else 0


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _wait(sessions: list[session.SessionInfo]) -> list[session.SessionInfo]:
    """Those that still run when the time is up."""
    deadline = time.monotonic() + _PATIENCE
    left = sessions
    while left and time.monotonic() < deadline:
        left = [info for info in left if session.is_alive(info.directory)]
        if left:
            time.sleep(0.01)
    return left
