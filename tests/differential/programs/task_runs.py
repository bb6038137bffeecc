"""Running tasks: processes, retries, worker deaths, resources, the environment in workers."""

# mypy: ignore-errors
from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from ..catalog import program
from ..observe import outcome, script_lines

AREA = "tasks"
SESSION = {"num_cpus": 3, "resources": {"custom": 2, "tiny": 1}}


class Tally:
    """Counts calls over processes: each leaves one byte in a file."""

    def __init__(self):
        self.path = os.path.join(tempfile.mkdtemp(), "tally")
        Path(self.path).touch()

    def add(self):
        with open(self.path, "ab", buffering=0) as file:
            file.write(b".")
            return file.tell()  # behind one's own byte, whoever else writes at the same time

    def count(self):
        return os.path.getsize(self.path)


def until(condition, seconds=20):
    """Waits for a condition; whether it came."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


@program("processes/pids")
def tasks_have_their_own_processes(ray):
    @ray.remote
    def pid():
        time.sleep(0.05)
        return os.getpid()

    pids = ray.get([pid.remote() for _ in range(12)])
    return [os.getpid() in pids, len(set(pids)) <= 3]


@program("processes/pids")
def as_many_at_once_as_cpus(ray):
    @ray.remote
    def overlap(folder):
        mine = Path(folder, str(time.monotonic_ns()) + str(os.getpid()))
        mine.touch()
        time.sleep(0.1)
        seen = len(os.listdir(folder))
        mine.unlink()
        return seen

    with tempfile.TemporaryDirectory() as folder:
        return max(ray.get([overlap.remote(folder) for _ in range(9)])) <= 3


@program("processes/worker-reuse")
def workers_are_used_again(ray):
    @ray.remote
    def pid():
        return os.getpid()

    return len({ray.get(pid.remote()) for _ in range(10)}) <= 3


@program("processes/worker-killed")
def a_worker_killed_from_outside(ray):
    @ray.remote(max_retries=0)
    def endless(path):
        Path(path).write_text(str(os.getpid()))
        time.sleep(100)

    path = os.path.join(tempfile.mkdtemp(), "pid")
    ref = endless.remote(path)
    until(lambda: os.path.exists(path) and Path(path).read_text())
    os.kill(int(Path(path).read_text()), signal.SIGKILL)
    return outcome(lambda: ray.get(ref), text="first")


@program("processes/title")
def process_titles(ray):
    def title():
        import psutil

        return psutil.Process().cmdline()[0]

    return ray.get([ray.remote(title).remote(), ray.remote(title).options(name="other title").remote()])


@program("processes/nodes")
def rows_of_nodes(ray):
    (row,) = ray.nodes()
    return {
        "keys": sorted(key for key in row if key in {"NodeID", "Alive", "alive", "Resources", "Labels", "NodeName"}),
        "more": [
            key in row
            for key in ("NodeManagerAddress", "NodeManagerHostname", "NodeManagerPort", "ObjectStoreSocketName")
        ],
        "id": [len(row["NodeID"]), row["NodeID"] == ray.get_runtime_context().get_node_id()],
        "alive": [row["Alive"], row["alive"]],
        "resources": {key: value for key, value in row["Resources"].items() if key in ("CPU", "custom", "tiny")},
        "labels": type(row["Labels"]).__name__,
    }


@program("processes/cluster-resources")
def resources_of_the_session(ray):
    total = ray.cluster_resources()
    address = ray.nodes()[0]["NodeManagerAddress"]
    return {
        "given": {key: total[key] for key in ("CPU", "custom", "tiny")},
        "memory": [total["memory"] > 0, total["object_store_memory"] > 0, type(total["memory"]).__name__],
        "head": total["node:__internal_head__"],
        "node": total[f"node:{address}"],
        "others": len([key for key in total if key.startswith("node:")]),
    }


@program("processes/used-resource-absent", "processes/cluster-resources")
def available_resources_while_a_task_runs(ray):
    tally, go = Tally(), Tally()

    @ray.remote(num_cpus=2, resources={"custom": 2, "tiny": 0.5})
    def hold():
        tally.add()
        until(go.count)
        return True

    def available():
        now = ray.available_resources()
        return {key: now.get(key) for key in ("CPU", "custom", "tiny")}

    def settled(wanted):
        until(lambda: available() == wanted, 10)
        return available(), "custom" in ray.available_resources()

    before = settled({"CPU": 3.0, "custom": 2.0, "tiny": 1.0})
    ref = hold.remote()
    until(tally.count)
    during = settled({"CPU": 1.0, "custom": None, "tiny": 0.5})
    go.add()
    ray.get(ref)
    return [before, during, settled({"CPU": 3.0, "custom": 2.0, "tiny": 1.0})]


@program("tasks/custom-resources")
def custom_resources_bound_what_runs(ray):
    @ray.remote(num_cpus=0, resources={"tiny": 0.5})
    def overlap(folder):
        mine = Path(folder, str(os.getpid()))
        mine.touch()
        time.sleep(0.1)
        seen = len(os.listdir(folder))
        mine.unlink()
        return seen

    with tempfile.TemporaryDirectory() as folder:
        return max(ray.get([overlap.remote(folder) for _ in range(6)])) <= 2


@program("tasks/custom-resources")
def tasks_without_cpu_run_beside_full_cpus(ray):
    go = Tally()

    @ray.remote(num_cpus=3)
    def hold():
        return until(go.count)

    @ray.remote(num_cpus=0)
    def free():
        return "ran"

    holder = hold.remote()
    answer = ray.get(free.remote(), timeout=20)
    go.add()
    return [answer, ray.get(holder)]


@program("tasks/infeasible")
def infeasible_tasks_wait(ray):
    @ray.remote(resources={"nobody has this": 1})
    def never(): ...

    @ray.remote(num_cpus=1000)
    def too_big(): ...

    refs = [never.remote(), too_big.remote()]
    ready, rest = ray.wait(refs, num_returns=1, timeout=0.5)
    answer = [len(ready), len(rest), outcome(lambda: ray.get(refs[0], timeout=0.1), text="none")]
    for ref in refs:
        ray.cancel(ref)
    return answer


@program("tasks/retries", "errors/system-exit")
def retries_after_worker_death(ray):
    def die_until(tally, success):
        if tally.add() < success:
            os._exit(1)
        return tally.count()

    answers = []
    for retries, success in ((0, 1), (0, 2), (1, 2), (1, 3), (-1, 4)):
        tally = Tally()
        task = ray.remote(max_retries=retries)(die_until)
        result = outcome(
            lambda task=task, tally=tally, success=success: ray.get(task.remote(tally, success)), text="none"
        )
        answers.append([retries, success, result, tally.count()])
    return answers


@program("tasks/retries")
def three_retries_by_default(ray):
    tally = Tally()

    @ray.remote
    def always_die():
        tally.add()
        os._exit(1)

    return [outcome(lambda: ray.get(always_die.remote()), text="none"), tally.count()]


@program("tasks/retry-exceptions", "tasks/retries")
def exceptions_are_not_retried_by_default(ray):
    tally = Tally()

    @ray.remote(max_retries=3)
    def fail():
        tally.add()
        raise ValueError("once")

    return [outcome(lambda: ray.get(fail.remote()), text="last"), tally.count()]


@program("tasks/retry-exceptions")
def which_exceptions_are_retried(ray):
    def fail_until(tally, success, error):
        if tally.add() < success:
            raise error("not yet")
        return "done"

    answers = []
    for retries, which, success, error in (
        (1, True, 2, ValueError),
        (1, True, 3, ValueError),
        (2, [KeyError, ValueError], 2, ValueError),
        (2, [KeyError], 3, ValueError),
        (2, [LookupError], 2, KeyError),
        (0, True, 2, ValueError),
        (2, [], 2, ValueError),
    ):
        tally = Tally()
        task = ray.remote(max_retries=retries, retry_exceptions=which)(fail_until)
        result = outcome(
            lambda task=task, arguments=(tally, success, error): ray.get(task.remote(*arguments)), text="last"
        )
        answers.append([result, tally.count()])
    return answers


@program("tasks/retry-exceptions")
def retries_by_options(ray):
    tally = Tally()

    @ray.remote
    def fail_twice():
        if tally.add() < 3:
            raise KeyError("again")
        return "third time"

    return ray.get(fail_twice.options(max_retries=5, retry_exceptions=[KeyError]).remote())


@program("tasks/max-calls")
def workers_leave_after_max_calls(ray):
    @ray.remote(max_calls=1)
    def once():
        return os.getpid()

    @ray.remote(max_calls=2)
    def twice():
        return os.getpid()

    singles = [ray.get(once.remote()) for _ in range(3)]
    pairs = [ray.get(twice.remote()) for _ in range(4)]
    gone = until(lambda: not any(alive(pid) for pid in singles))
    return [len(set(singles)), len(set(pairs)) >= 2, gone]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@program("tasks/max-calls")
def results_outlive_the_worker(ray):
    @ray.remote(max_calls=1)
    def make(size):
        return b"x" * size

    refs = [make.remote(10), make.remote(2_000_000)]
    return [len(value) for value in ray.get(refs)]


@program("tasks/worker-env")
def omp_threads_follow_cpus(ray):
    def threads():
        return os.environ.get("OMP_NUM_THREADS")

    return [
        ray.get(ray.remote(threads).remote()),
        ray.get(ray.remote(threads).options(num_cpus=2).remote()),
        ray.get(ray.remote(threads).options(num_cpus=0.5).remote()),
        ray.get(ray.remote(threads).options(num_cpus=0).remote()),
        ray.get(ray.remote(threads).options(num_cpus=1).remote()),
    ]


@program("tasks/worker-env", fresh=True)
def omp_threads_that_the_user_set(ray):
    return script_lines(
        ray,
        """
        import os
        import ENGINE as ray
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
        print(ray.get(ray.remote(lambda: os.environ.get("OMP_NUM_THREADS")).options(num_cpus=2).remote()))
        """,
        env={"OMP_NUM_THREADS": "5"},
    )


@program("tasks/option-resources")
def gpus_above_one_are_whole(ray):
    @ray.remote
    def function():
        return 1

    return [
        outcome(lambda: ray.get(function.options(num_gpus=1.5).remote(), timeout=5)),
        outcome(lambda: ray.get(function.options(resources={"custom": 1.5}).remote(), timeout=20)),
    ]


@program("tasks/nested", "tasks/blocked-cpu")
def children_outlive_parents_that_do_not_wait(ray):
    tally = Tally()

    @ray.remote
    def child():
        return tally.add()

    @ray.remote
    def parent():
        return [child.remote() for _ in range(3)]

    return sorted(ray.get(ray.get(parent.remote())))


@program("tasks/nested")
def tasks_started_and_forgotten_run(ray):
    tally = Tally()

    @ray.remote
    def child():
        tally.add()

    for _ in range(5):
        child.remote()
    return until(lambda: tally.count() == 5)
