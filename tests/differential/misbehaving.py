"""Programs that do what no program should: with them the harness itself is tested."""

from __future__ import annotations

import os
import time
from typing import Any

from .catalog import program

AREA = "tasks"
SESSION: dict[str, Any] = {}


@program("tasks/arguments")
def answers(ray: Any) -> Any:
    """What all of them should do."""
    return ["an answer", ray.__name__]


@program("tasks/arguments")
def hangs(ray: Any) -> Any:
    """Never ends."""
    time.sleep(100)


@program("tasks/arguments")
def hangs_for_good(ray: Any) -> Any:
    """Never ends, and does not let itself be interrupted."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(100)


@program("tasks/arguments")
def dies(ray: Any) -> Any:
    """Takes the process with it."""
    os._exit(9)


@program("tasks/arguments")
def raises(ray: Any) -> Any:
    """Lets an exception out."""
    raise ValueError("out of the program")


@program("tasks/arguments")
def returns_an_object(ray: Any) -> Any:
    """Gives what is no plain data."""
    return [object]


@program("tasks/arguments")
def answers_last(ray: Any) -> Any:
    """Comes after all of these."""
    return "still there"


@program("tasks/arguments", fresh=True)
def answers_alone(ray: Any) -> Any:
    """Has a process of its own."""
    return os.getpid() > 0
