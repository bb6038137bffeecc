"""What is current: the core worker of this process or context, and the task that runs here. The only global state of
miniray.

Both are context-local on top of a process-wide default, so that several core workers can live in one process (local
mode, simulation) and concurrent tasks of one actor do not see each other's context.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker


class TaskContext:
    """The task that runs in this context; in a driver, the driver itself."""

    __slots__ = (
        "accelerator_ids",
        "actor_id",
        "attempt",
        "cancelled",
        "captures_children",
        "depth",
        "error",
        "function",
        "name",
        "placement_group_id",
        "push",
        "put_numbers",
        "resources",
        "started",
        "task_id",
    )

    def __init__(self, task_id: bytes, name: str, depth: int, *, attempt: int = 0) -> None:
        self.task_id = task_id
        self.name = name
        self.function: Any = None
        self.depth = depth
        self.attempt = attempt
        self.actor_id: bytes | None = None
        self.resources: dict[str, int] | None = None  #: units of 1/10000; None: the one CPU of a plain task
        self.accelerator_ids: dict[str, list[str]] = {}
        self.placement_group_id = b""
        self.captures_children = False  #: what is submitted here runs in the same placement group
        self.cancelled = False
        self.error: tuple[str, str] | None = None  #: Ray's name for what it ended with, and the text
        self.push: Any = None  #: (concurrent actors) the call
        self.started = 0.0  #: (concurrent actors) when it began, by the performance counter
        #: Returns have the indices 1, 2, ...; puts count down from the top, so that they never meet.
        self.put_numbers = count(0xFFFFFFFE, -1)

    def enter_group(self, group_id: bytes, captures_children: bool) -> None:
        """This runs in a placement group."""
        global capturing
        self.placement_group_id = group_id
        self.captures_children = captures_children
        capturing = capturing or captures_children

    @property
    def function_name(self) -> str:
        """Module and name of the function or method that runs. A script's module is the name of its file, as in Ray."""
        function = self.function
        if function is None:  # in a thread that the user started
            return ""
        module = getattr(function, "__module__", None) or "__main__"
        if module == "__main__":
            script = os.path.basename(sys.argv[0] if sys.argv else "")
            module = script[:-3] if script.endswith(".py") else module
        name = self.name if self.actor_id else getattr(function, "__name__", "")
        return f"{module}.{name or type(function).__name__}"


_core: CoreWorker | None = None  #: the only core worker of this process
_driver: CoreWorker | None = None  #: of several in this process (local mode), that of the driver
capturing = False  #: a task of this process has captured its children: where theirs run depends on who calls
forked = False  #: this process was forked off one that had a session
core_override: ContextVar[Any] = ContextVar("miniray_core", default=None)
task_context: ContextVar[TaskContext | None] = ContextVar("miniray_task", default=None)


def core_or_none() -> CoreWorker | None:
    """The core worker of this context, if there is a session."""
    override = core_override.get()
    if override is not None:
        return override  # type: ignore[no-any-return]
    return _core if _core is not None else _driver


def set_core(core: CoreWorker | None, *, alone: bool = True) -> None:
    """Make `core` the core worker of this process; or, if it is not alone here, that of every thread that has no other.

    What looks at `_core` alone, for speed, finds None in local mode, and goes the way that looks at the context.
    """
    global _core, _driver, forked
    _core, _driver = (core, None) if alone else (None, core)
    forked = False


def enter(core: CoreWorker) -> None:
    """This thread (or context) belongs to `core`."""
    if core is not _core:
        core_override.set(core)


def are_neighbours(one: CoreWorker, other: CoreWorker) -> bool:
    """Whether both live in this process and session (local mode)."""
    return _driver is not None and not one.closed and not other.closed and one.head == other.head


def is_local() -> bool:
    """Whether this process is in local mode."""
    return _driver is not None


def in_local_worker() -> bool:
    """Whether this thread is that of a worker in local mode."""
    return core_override.get() is not None
