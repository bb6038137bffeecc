"""Write docs/state-diagrams.md: the state machines of miniray as diagrams, drawn from the machines themselves.

    python docs/generate_diagrams.py            # write it
    python docs/generate_diagrams.py --check    # exit code 1 and a difference if it is out of date

Where a machine has a transition table, the table is drawn. Where its transitions are methods, the machine is run: it is
taken through all that can happen, and what it does is drawn. So a diagram cannot say what the code does not do.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
TARGET = DOCS / "state-diagrams.md"
if (DOCS.parent / "miniray").is_dir():
    sys.path.insert(0, str(DOCS.parent))

from miniray.messages.control import DEPENDENCIES_UNREADY, LeaseSpec  # noqa: E402
from miniray.messages.objects import Address  # noqa: E402
from miniray.messages.tasks import NORMAL_TASK, TaskPush, WorkerAddress  # noqa: E402
from miniray.state_machines import actor_lifecycle, placement, task_submission, worker_pool  # noqa: E402
from miniray.state_machines.leadership import DEEP, LEADING, TICKING, Leadership  # noqa: E402

#: from, event, to
Edge = tuple[str, str, str]


def mermaid(begin: str, edges: Iterable[Edge], ends: Iterable[str] = ()) -> list[str]:
    """The lines of a diagram; events that lead the same way share an arrow."""
    joined: dict[tuple[str, str], list[str]] = {}
    for start, event, to in edges:
        names = joined.setdefault((start, to), [])
        if event not in names:
            names.append(event)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {begin}"]
    lines += [f"    {start} --> {to}: {' / '.join(names)}" for (start, to), names in joined.items()]
    return [*lines, *(f"    {end} --> [*]" for end in ends), "```"]


# ---- the machines ----


def actor_edges() -> list[Edge]:
    """The table of `actor_lifecycle`."""
    table = actor_lifecycle.TRANSITIONS
    return [(start, event, to) for start, events in table.items() for event, to in events.items()]


def group_edges() -> list[Edge]:
    """The table of `placement`."""
    table = placement.TRANSITIONS
    return [(start, event, to) for start, events in table.items() for event, to in events.items()]


def leadership_edges() -> list[Edge]:
    """The standby of `leadership`, explored with two threads that may wait."""
    threads = ("a", "b")

    def events(machine: Leadership) -> Iterable[tuple[str, Callable[[Leadership], object]]]:
        for thread in threads:
            if thread == machine.leader:
                yield "a leader leaves", lambda m, t=thread: m.leave(t)
            elif thread not in machine.followers:
                yield "somebody wants to wait", lambda m, t=thread: m.enter(t)
            else:
                yield "a follower leaves", lambda m, t=thread: m.withdraw(t)
        if machine.leader == "standby":
            if machine.followers:  # it is recalled
                yield "somebody wants to wait", lambda m: m.leave("standby")
        elif machine.standby == TICKING:
            yield "", lambda m: m.tick("standby")
            if machine.leader is None:
                yield "asked to lead at once", lambda m: m.take_at_once("standby")

    found: dict[Edge, None] = {}
    seen = set()
    todo = [Leadership()]
    while todo:
        machine = todo.pop(0)
        for name, act in events(machine):
            after = copy.deepcopy(machine)
            act(after)
            if machine.standby != after.standby:
                label = name or (
                    "tick, nobody leads" if after.standby == LEADING else "tick, the same leader as before"
                )
                found[machine.standby, label, after.standby] = None
            fresh = after._seen == after.generation
            key = (after.leader, tuple(after.followers), after.standby, fresh)
            if key not in seen:
                seen.add(key)
                todo.append(after)
    assert {state for edge in found for state in (edge[0], edge[2])} == {DEEP, TICKING, LEADING}
    return sorted(found)


def task_edges() -> list[Edge]:
    """A task in `task_submission`, taken through all that can happen to it."""
    names = {
        task_submission.WAITING: "WAITING",
        task_submission.QUEUED: "QUEUED",
        task_submission.PUSHED: "PUSHED",
        task_submission.DONE: "DONE",
    }
    found: dict[Edge, None] = {}

    class Port:
        """Effects that nobody carries out."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: None

    class Trial:
        """One task, one worker, and what happens."""

        def __init__(self) -> None:
            self.machine = task_submission.TaskSubmission(Port())  # type: ignore[arg-type]
            self.cls = self.machine.scheduling_class("one CPU", LeaseSpec({"CPU": 10000}, b"job"))
            push = TaskPush(b"task", NORMAL_TASK, b"f", b"job", None, 1, "f")
            self.task = task_submission.PendingTask(push, self.cls, task_submission.FunctionStats(), 3)

        def step(self, event: str, act: Callable[[], Any]) -> Trial:
            before = names[self.task.state]
            act()
            if names[self.task.state] != before:
                found[before, event, names[self.task.state]] = None
            return self

        def ready(self) -> Trial:
            return self.step("its arguments are there", lambda: self.machine.ready(self.task))

        def granted(self) -> Trial:
            worker = WorkerAddress(Address(b"worker", ""), b"node", 1)
            return self.step("a leased worker has room", lambda: self.machine.granted(self.cls.class_id, 1, worker))

        def finished(self) -> Trial:
            return self.step("the worker has answered", lambda: self.machine.finished(self.task, 0.1))

        def dropped(self) -> Trial:
            return self.step("cancelled, or failed for good", lambda: self.machine.drop(self.task))

    Trial().dropped()
    Trial().ready().dropped()
    Trial().ready().granted().dropped()
    Trial().ready().granted().finished()
    one = Trial().ready().granted()
    one.step("given back: stolen, or its worker blocks", lambda: one.machine.returned([b"task"], b"worker", True))
    two = Trial().ready().granted()
    two.step("its worker is gone", lambda: two.machine.worker_left(b"worker"))
    three = Trial().ready().granted().finished()
    three.machine.worker_left(b"worker")
    three.step("to be retried", lambda: three.machine.requeue(three.task))
    return list(found)


def worker_edges() -> list[Edge]:
    """A worker in `worker_pool`, taken through all that can happen to it."""
    node, job, kind = b"node", b"job", (b"node", "")
    found: dict[Edge, None] = {}

    class Trial:
        """A pool with one worker."""

        def __init__(self) -> None:
            self.pool = worker_pool.WorkerPool(2)
            self.pool.add_node(node, 0)
            self.pool.prestart(kind, b"w", 0.0)
            self.worker = self.pool.workers[b"w"]

        def step(self, event: str, act: Callable[[], Any]) -> Trial:
            before = self.worker.state
            act()
            after = self.worker.state if b"w" in self.pool.workers else "gone"
            if before != after:
                found[before, event, after] = None
            return self

        def registered(self) -> Trial:
            return self.step("it has registered", lambda: self.pool.registered(b"w", 0.0))

        def leased(self) -> Trial:
            self.pool.request(1, kind, job)
            return self.step("a lease gets it", lambda: self.pool.schedule(0.0))

        def died(self) -> Trial:
            return self.step("it died", lambda: self.pool.died(b"w"))

    Trial().died()
    Trial().registered().died()
    Trial().registered().leased().died()
    one = Trial().registered().leased()
    one.step("the lease was returned", lambda: one.pool.returned(b"w", False, 0.0))
    two = Trial().registered().leased()
    two.step("the lease was returned, it says that it leaves", lambda: two.pool.returned(b"w", True, 0.0)).died()
    three = Trial().registered()
    three.step("idle for too long", lambda: three.pool.schedule(worker_pool.IDLE_SECONDS + 1))
    return list(found)


# ---- the page ----


def page() -> str:
    """The text of state-diagrams.md."""
    tick = "`state_machines/leadership.py`; explained in [the reactor](protocols/reactor.md)."
    lines = [
        "# State diagrams",
        "",
        "Drawn from the code by `python docs/generate_diagrams.py`; do not edit.",
        "",
        "## An actor, as the head sees it",
        "",
        "`state_machines/actor_lifecycle.py`, the table `TRANSITIONS`; explained in [actors](protocols/actors.md).",
        "",
        *mermaid(DEPENDENCIES_UNREADY, actor_edges(), ["DEAD"]),
        "",
        "## A placement group, as the head sees it",
        "",
        "`state_machines/placement.py`; explained in [placement groups](protocols/placement-groups.md).",
        "",
        *mermaid(placement.PENDING, group_edges(), [placement.REMOVED]),
        "",
        "## A normal task, as its owner sees it",
        "",
        "`state_machines/task_submission.py`; explained in [tasks and leases](protocols/tasks-and-leases.md).",
        "",
        *mermaid("WAITING", task_edges(), ["DONE"]),
        "",
        "## A worker process, as the head's worker pool sees it",
        "",
        "`state_machines/worker_pool.py`; explained in [tasks and leases](protocols/tasks-and-leases.md).",
        "",
        *mermaid("starting", worker_edges(), ["gone"]),
        "",
        "## The standby thread of a process",
        "",
        tick,
        "",
        *mermaid(TICKING, leadership_edges()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is out of date")
    given = parser.parse_args()
    text = page()
    if not given.check:
        TARGET.write_text(text, "utf-8")
        return
    current = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if current != text:
        print("\n".join(difflib.unified_diff(current.splitlines(), text.splitlines(), "now", "wanted", "", "", 1)))
        sys.exit(f"{TARGET.name} is out of date: run python docs/generate_diagrams.py")


if __name__ == "__main__":
    main()
