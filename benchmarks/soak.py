"""``python -m benchmarks.soak --minutes 30``: does anything grow in a session that does everything, for long?

Rounds of mixed work (tasks, retries, actors that live, die and are killed, nested and borrowed refs, small and large
objects, spilling, generators, cancelled tasks, workers that are killed) go on until the time is over. After each round
the session comes to rest, and every process of it is looked at: memory of its own, open files, threads; and the files
of the object store. The first part of the time is for warming up. Of the rest, memory is fitted with a line over the
operations done; counts are compared by their least at the beginning and at the end.

The exit code is 1 if, per 100,000 operations, memory grows by 1 MB or more in any process that was there all the time,
or descriptors, threads, processes, segments or spilled files become one more.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import sys
import time
from typing import Any, NamedTuple

import miniray as ray

#: bytes per 100,000 operations, in each process
MOST_GROWTH = 1_000_000
LARGE = 2_000_000
STORE = 150_000_000


class Look(NamedTuple):
    """A process, or the session, at one moment: figures by name."""

    operations: int
    figures: dict[str, float]


def main(arguments: list[str] | None = None) -> int:
    """Work, look, and judge; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--warm-up", type=float, default=0.3, help="the share of it that does not count (default: 0.3)")
    options = parser.parse_args(arguments)
    # The head remembers so many tasks, actors and processes: what it remembers shall not be what grows.
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "2000")
    os.environ.setdefault("RAY_maximum_gcs_destroyed_actor_cached_count", "20")
    context = ray.init(num_cpus=2, object_store_memory=STORE, logging_level="ERROR", log_to_driver=False)
    session = context.address_info["session_dir"]
    work = Work()
    processes: dict[str, list[Look]] = {}
    whole: list[Look] = []
    start = time.monotonic()
    end = start + options.minutes * 60
    warm = start + options.minutes * 60 * options.warm_up
    said = start
    while time.monotonic() < end or len(whole) < 6:
        work.round()
        rest()
        if time.monotonic() < warm:
            continue
        names = members(session)
        for name, figures in names.items():
            processes.setdefault(name, []).append(Look(work.operations, figures))
        whole.append(Look(work.operations, {"processes": len(names), **files(session)}))
        if time.monotonic() > said + 30:
            said = time.monotonic()
            print(f"{said - start:6.0f} s, {work.operations:,} operations", file=sys.stderr, flush=True)
    ray.shutdown()
    return judge(processes, whole, work.operations)


# -- the work ------------------------------------------------------------------------------------------------------


@ray.remote
def echo(value: Any) -> Any:
    """A task."""
    return value


@ray.remote
def wrap(refs: list[Any]) -> list[Any]:
    """Refs in, and new ones out."""
    return [ray.put(len(refs)), *refs]


@ray.remote
def large(size: int) -> bytes:
    """A large result."""
    return bytes(size)


@ray.remote
def size_of(value: bytes) -> int:
    """A large argument."""
    return len(value)


@ray.remote
def children(count: int) -> int:
    """A task with children."""
    return sum(ray.get([echo.remote(1) for _ in range(count)]))


@ray.remote
def numbers(count: int) -> Any:
    """A generator."""
    yield from range(count)


@ray.remote(max_retries=3)
def fragile(path: str) -> int:
    """It kills its worker the first time."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return 1
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@ray.remote(max_retries=0)
def failing() -> None:
    """It raises."""
    raise ValueError("on purpose")


@ray.remote
def slow() -> None:
    """To be cancelled."""
    time.sleep(60)


@ray.remote(num_cpus=0)
class Counter:
    """An actor that keeps what it is given last."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: Any = None

    def add(self, value: int = 1) -> int:
        """Count."""
        self.count += value
        return self.count

    def keep(self, refs: Any) -> int:
        """Borrow these instead of the last ones."""
        self.kept = refs
        return len(refs)


class Work:
    """Everything that a session does, in rounds of some hundred operations."""

    def __init__(self) -> None:
        self.operations = 0
        self.counter: Any = Counter.remote()
        self.rounds = 0

    def round(self) -> None:
        """A bit of each."""
        self.rounds += 1
        for step in (self.tasks, self.calls, self.refs, self.objects, self.ends):
            step()

    def did(self, count: int) -> None:
        """So many operations more."""
        self.operations += count

    def tasks(self) -> None:
        """Tasks with and without children, errors, generators."""
        assert ray.get([echo.remote(number) for number in range(500)]) == list(range(500))
        assert ray.get([children.remote(5) for _ in range(4)]) == [5] * 4
        assert [ray.get(ref) for ref in numbers.remote(10)] == list(range(10))
        for ref in [failing.remote() for _ in range(5)]:
            try:
                ray.get(ref)
            except ValueError:
                pass
        self.did(500 + 24 + 11 + 5)

    def calls(self) -> None:
        """Calls of one actor, and of others that come and go."""
        ray.get([self.counter.add.remote() for _ in range(300)])
        fresh = [Counter.remote() for _ in range(2)]
        ray.get([actor.add.remote() for actor in fresh])
        ray.kill(fresh[0])
        named = Counter.options(name=f"named {self.rounds}").remote()
        assert ray.get(ray.get_actor(f"named {self.rounds}").add.remote()) == 1
        del named, fresh
        self.did(300 + 2 + 5)

    def refs(self) -> None:
        """Refs in refs, borrowed and kept; a wait."""
        small = [ray.put(number) for number in range(100)]
        wrapped = ray.get([wrap.remote(small[i : i + 10]) for i in range(0, 100, 10)])
        assert ray.get(wrapped[3][0]) == 10
        assert ray.get(self.counter.keep.remote(small[:20])) == 20
        outer = ray.put([small, [ray.put(b"x" * 1000)]])
        assert ray.get(ray.get(outer)[1][0]) == b"x" * 1000
        ready, _ = ray.wait([echo.remote(ref) for ref in small], num_returns=50)
        assert len(ready) == 50
        self.did(100 + 10 + 1 + 3 + 100)

    def objects(self) -> None:
        """Large values put, returned, passed on, spilled; many in slabs."""
        data = bytes(LARGE)
        refs = [ray.put(data) for _ in range(10)]
        assert ray.get([size_of.remote(ref) for ref in refs]) == [LARGE] * 10
        assert ray.get([size_of.remote(data) for _ in range(3)]) == [LARGE] * 3  # by value
        made = [large.remote(LARGE) for _ in range(10)]
        assert ray.get([size_of.remote(ref) for ref in made]) == [LARGE] * 10
        slots = [ray.put(data[:200_000]) for _ in range(20)]
        assert len(ray.get(slots[7])) == 200_000
        borrowed = ray.get(wrap.remote([*refs[:2], *slots[:2]]))
        assert len(ray.get(borrowed[1])) == LARGE
        if self.rounds % 5 == 0:  # more than the store holds
            many = [ray.put(bytes(20_000_000)) for _ in range(10)]
            assert [len(ray.get(ref)) for ref in many] == [20_000_000] * 10
            self.did(20)
        self.did(67)

    def ends(self) -> None:
        """A worker that dies, a task that is cancelled."""
        if self.rounds % 5 == 1:
            path = f"/tmp/miniray-soak-{os.getpid()}"
            with open(path, "w"):
                pass
            assert ray.get(fragile.remote(path)) == 1
            ref = slow.remote()
            ray.cancel(ref, force=True)
            try:
                ray.get(ref)
            except ray.exceptions.RayError:
                pass
            self.did(3)


# -- looking -------------------------------------------------------------------------------------------------------


def rest() -> None:
    """Let go of everything, and give the others the time to do so."""
    gc.collect()
    time.sleep(0.3)


def members(session: str) -> dict[str, dict[str, float]]:
    """The processes of the session: "name pid" -> memory, descriptors, threads."""
    found = {}
    me = os.getpid()
    for pid in {me, *descendants(me)}:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                lines = [line.split() for line in file]
            memory = sum(int(line[1]) * 1024 for line in lines if line[0] in ("Private_Dirty:", "Private_Clean:"))
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                title = file.read().split(b"\0")[0].decode("utf-8", "replace")
            count = len(os.listdir(f"/proc/{pid}/fd"))
            threads = len(os.listdir(f"/proc/{pid}/task"))
        except (OSError, IndexError):
            continue
        name = "driver" if pid == me else os.path.basename(title)[:20] or "?"
        found[f"{name} {pid}"] = {"memory": memory, "descriptors": count, "threads": threads}
    return found


def descendants(root: int) -> list[int]:
    """The processes that descend from this one."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def files(session: str) -> dict[str, float]:
    """What lies in the object store."""
    shared = f"/dev/shm/miniray-{os.getuid()}-{os.path.basename(session)[2:]}"
    names = os.listdir(shared) if os.path.isdir(shared) else os.listdir(os.path.join(session, "store"))
    return {
        "segments": sum(not name.startswith(".") and not name.endswith("~") for name in names),
        "spilled": len(os.listdir(os.path.join(session, "spill"))),
        "records": sum(name.startswith(".runs") for name in names),
    }


# -- judging -------------------------------------------------------------------------------------------------------


def slope(looks: list[Look], name: str) -> float:
    """How much a figure grows per operation: Theil and Sen's line, the median over all pairs, which no peak moves."""
    step = max(1, len(looks) // 200)
    points = [(look.operations, look.figures[name]) for look in looks[::step]]
    slopes = [
        (after[1] - before[1]) / (after[0] - before[0])
        for index, before in enumerate(points)
        for after in points[index + 1 :]
    ]
    return statistics.median(slopes)


def grown(looks: list[Look], name: str) -> float:
    """By how much the least of the last third is more than that of the first, per 100,000 operations: what comes and
    goes does not count.
    """
    third = max(1, len(looks) // 3)
    first, last = looks[:third], looks[-third:]
    operations = last[third // 2].operations - first[third // 2].operations
    more = min(look.figures[name] for look in last) - min(look.figures[name] for look in first)
    return more * 100_000 / max(operations, 100_000)


def judge(processes: dict[str, list[Look]], whole: list[Look], operations: int) -> int:
    """Print the table; 1 if something grows."""
    measured = whole[-1].operations - whole[0].operations
    print(f"{operations:,} operations, {measured:,} of them measured. Growth is per 100,000 operations.\n")
    wrong = []
    print(f"{'process':30}{'memory':>12}{'growth':>12}{'descriptors':>14}{'threads':>10}")
    for name, looks in sorted(processes.items()):
        if len(looks) < 0.9 * len(whole):  # it came or went
            continue
        growth = 100_000 * slope(looks, "memory")
        more = {figure: grown(looks, figure) for figure in ("descriptors", "threads")}
        last = looks[-1].figures
        print(
            f"{name:30}{last['memory'] / 1e6:9.1f} MB{growth / 1e6:9.2f} MB"
            f"{last['descriptors']:8.0f} ({more['descriptors']:+.1f}){last['threads']:5.0f} ({more['threads']:+.1f})"
        )
        if growth >= MOST_GROWTH:
            wrong.append(f"memory of {name}")
        wrong += [f"{figure} of {name}" for figure, count in more.items() if count >= 1]
    print()
    for name in whole[0].figures:
        change = grown(whole, name)
        print(f"{name:30}{whole[-1].figures[name]:9.0f} ({change:+.1f})")
        if change >= 1:
            wrong.append(name)
    print(f"\n{'Growing: ' + ', '.join(wrong) if wrong else 'Nothing grows.'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
