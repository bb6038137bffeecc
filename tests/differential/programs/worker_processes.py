"""Worker processes: how many there are before, during and after the work, and what those that leave leave behind."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path

from ..catalog import program
from ..observe import gone, outcome, until

AREA = "processes"
SESSION = {"num_cpus": 6, "log_to_driver": False}


def workers():
    """How many worker processes of this driver's session there are."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(folder.name)] = (folder / "cmdline").read_bytes()
            except OSError:
                continue
    return sum(
        title.startswith(b"ray::") and b"Agent" not in title and os.getpid() in ancestors(pid, parents)
        for pid, title in titles.items()
    )


def ancestors(pid, parents):
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


@program("processes/prestarted")
def workers_are_there_before_the_work(ray):
    return until(lambda: workers() > 0)


@program("processes/cpus")
def there_may_be_more_cpus_than_the_machine_has(ray):
    @ray.remote
    def meet(folder):
        Path(folder, str(os.getpid())).touch()
        return until(lambda: len(list(Path(folder).iterdir())) == 6, 60)

    folder = tempfile.mkdtemp()
    return [ray.cluster_resources()["CPU"], ray.get([meet.remote(folder) for _ in range(6)])]


@program("processes/worker-caps")
def never_more_workers_than_cpus_for_tasks_that_do_not_wait(ray):
    @ray.remote
    def pid():
        return os.getpid()

    @ray.remote(num_cpus=3)
    def wide():
        time.sleep(0.02)
        return os.getpid()

    return [
        len({*ray.get([pid.remote() for _ in range(300)])}) <= 6,
        len({*ray.get([wide.remote() for _ in range(12)])}) <= 6,
    ]


@program("processes/idle-workers")
def workers_beyond_the_cpus_leave_when_they_are_idle(ray):
    name = ray.__name__

    @ray.remote
    def nested(depth):
        return [os.getpid(), *(importlib.import_module(name).get(nested.remote(depth - 1)) if depth else ())]

    pids = ray.get(nested.remote(8))
    return [len(set(pids)), until(lambda: 0 < workers() <= 6, 40), any(gone(pid) for pid in pids)]


@program("tasks/max-calls")
def what_is_left_of_workers_that_leave(ray):
    name = ray.__name__

    @ray.remote(max_calls=1)
    def put(size):
        return [importlib.import_module(name).put(b"x" * size)]

    @ray.remote
    def child():
        time.sleep(0.5)
        return "the child goes on"

    @ray.remote(max_calls=1)
    def parent():
        return [child.remote()]

    @ray.remote(max_calls=1)
    def numbers():
        yield 1
        yield 2

    return [
        [outcome(lambda: len(ray.get(ray.get(put.remote(size))[0], timeout=30)), "none") for size in (10, 500_000)],
        outcome(lambda: ray.get(ray.get(parent.remote())[0], timeout=30), "none"),
        [ray.get(ref) for ref in numbers.remote()],
    ]


@program("tasks/max-calls")
def tasks_that_may_run_once_on_workers_that_leave(ray):
    @ray.remote(max_calls=1, max_retries=0)
    def once(number):
        return number, os.getpid()

    @ray.remote(max_calls=3)
    def thrice():
        return os.getpid()

    answers = ray.get([once.remote(number) for number in range(12)])
    pids = ray.get([thrice.remote() for _ in range(24)])
    return [
        [number for number, _ in answers] == list(range(12)),
        len({pid for _, pid in answers}),
        max(pids.count(pid) for pid in pids) <= 3,
    ]


@program("scheduling/placement-groups")
def wait_in_a_task_keeps_its_cpus_and_get_lends_them(ray):
    name = ray.__name__

    def in_task(lends):
        ray = importlib.import_module(name)
        group = ray.util.placement_group([{"CPU": 1}])
        if lends:
            reserved = ray.get(group.ready(), timeout=30) is not None
        else:
            reserved = group.wait(1)
        ray.util.remove_placement_group(group)
        return reserved

    task = ray.remote(in_task).options(num_cpus=6)
    return [ray.get(task.remote(False)), ray.get(task.remote(True))]
