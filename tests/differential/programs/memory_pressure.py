"""Memory runs out: here by a threshold that the smallest program is above."""

# mypy: ignore-errors
from __future__ import annotations

from ..catalog import program

AREA = "store"
SESSION = {
    "num_cpus": 2,
    "_system_config": {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 100, "task_oom_retries": 1},
}


def _text(error):
    """What does not depend on the machine."""
    text = str(error)
    return text[:82], "OOM kill reason: Memory usage" in text, "Top 10 memory users: PID\tMEM(GB)\tCOMMAND" in text


def _eat():
    import time

    data = bytearray(100_000_000)
    time.sleep(60)
    return len(data)


@program("store/out-of-memory")
def task_without_retries(ray):
    eat = ray.remote(max_retries=0)(_eat)
    try:
        ray.get(eat.remote())
    except ray.exceptions.OutOfMemoryError as error:
        return _text(error), "Set max_retries to enable retry when the task crashes due to OOM." in str(error)


@program("store/out-of-memory")
def task_with_retries(ray):
    eat = ray.remote(max_retries=3)(_eat)
    try:
        ray.get(eat.remote())
    except ray.exceptions.OutOfMemoryError as error:
        return _text(error), "Set max_retries to enable retry when the task crashes due to OOM." in str(error)


@program("store/out-of-memory")
def actor_out_of_memory(ray):
    @ray.remote
    class Eater:
        def eat(self):
            return _eat()

    eater = Eater.remote()
    try:
        ray.get(eater.eat.remote())
    except ray.exceptions.OutOfMemoryError as error:
        return _text(error), "Set max_restarts and max_task_retries to enable retry" in str(error)
