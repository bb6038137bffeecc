"""``miniray logs``: which log files a session has, and what is in them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from miniray.util.state.logs import get_log, list_logs
from miniray.util.state.options import DEFAULT_RPC_TIMEOUT


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("logs", help="list log files, or show one: of an actor, a task, a worker, or by name")
    parser.add_argument(
        "what",
        nargs="*",
        metavar="[cluster] [PATTERN] | actor | task | worker",
        help="what to show (default: the names)",
    )
    parser.add_argument("--id", "-id", help="of the actor or task")
    parser.add_argument("--pid", type=int, help="of the worker")
    parser.add_argument("--attempt-number", "-a", type=int, default=0, help="of the task")
    parser.add_argument("--err", action="store_true", help="standard error instead of standard output")
    parser.add_argument(
        "--tail", type=int, help="only so many lines from the end (default: 1000; -1: all)", default=1000
    )
    parser.add_argument("--follow", action="store_true", help="go on as long as the session runs")
    parser.add_argument("--timeout", type=int, default=DEFAULT_RPC_TIMEOUT, help="seconds to wait for the head")
    parser.add_argument("--address", help="which session (default: RAY_ADDRESS, else the newest one)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    words = list(given.what)
    kind = words.pop(0) if words and words[0] in ("cluster", "actor", "task", "worker") else "cluster"
    if kind == "cluster":
        return _cluster(given, words[0] if words else "*")
    wanted = given.pid if kind == "worker" and given.pid else given.id or (words[0] if words else None)
    if not wanted:
        raise ValueError(f"say which {kind}: --id" + (" or --pid" if kind == "worker" else ""))
    if kind == "actor":
        _show(given, actor_id=wanted)
    elif kind == "task":
        _show(given, task_id=wanted)
    else:
        _show(given, pid=int(wanted), node_ip="127.0.0.1")
    return 0


def _cluster(given: argparse.Namespace, pattern: str) -> int:
    groups = list_logs(given.address, node_ip="127.0.0.1", glob_filter=pattern, timeout=given.timeout)
    names = [name for group in groups.values() for name in group]
    if len(names) == 1 and pattern != "*" and not names[0].endswith("/"):
        _show(given, filename=names[0], node_ip="127.0.0.1")
        return 0
    if not names:
        raise RuntimeError(f"Could not find any log file that matches {pattern!r}.")
    for group, found in groups.items():
        print(f"{group}:")
        for name in found:
            print(f"  {name}")
    return 0


def _show(given: argparse.Namespace, **what: Any) -> None:
    suffix = "err" if given.err else "out"
    chunks = get_log(
        given.address,
        follow=given.follow,
        tail=given.tail,
        timeout=given.timeout,
        suffix=suffix,
        errors="replace",
        **what,
    )
    for chunk in chunks:
        sys.stdout.write(chunk)
        sys.stdout.flush()
