"""How far one session goes: many arguments, many returns, many objects, many queued tasks, one very large object.

``python -m benchmarks.envelope`` measures with small sizes, within seconds; ``--full`` with those of Ray's published
envelope of one node, scaled to a machine with 24 GiB. Each row says what Ray publishes for its size (m4.16xlarge, 64
cores), and how the figure stands to that. ``--engine ray`` runs the same on Ray, if it is installed here.

A cost that grows faster than the size shows when the two runs are compared: each row has its figure per item.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import psutil


class Row(NamedTuple):
    """One measurement.

    Attributes:
        name: what was measured.
        count: of what there are many.
        seconds: it took.
        published: seconds that Ray publishes for the full size; None: nothing.
        goal: how many times faster than `published` it is to be.
        note: what else was seen.
    """

    name: str
    count: int
    seconds: float
    published: float | None = None
    goal: float = 3.0
    note: str = ""


class Sizes(NamedTuple):
    """How many of each."""

    arguments: int
    returns: int
    objects: int
    queued: int
    inner_refs: int
    waited: int
    bytes: int


SMALL = Sizes(arguments=1_000, returns=300, objects=1_000, queued=20_000, inner_refs=1_000, waited=200, bytes=64 << 20)
FULL = Sizes(
    arguments=10_000, returns=3_000, objects=10_000, queued=1_000_000, inner_refs=10_000, waited=1_000, bytes=8 << 30
)


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def many_arguments(ray: Any, sizes: Sizes, full: bool) -> Row:
    """One task with many refs as arguments."""

    @ray.remote
    def count(*values: Any) -> int:
        return len(values)

    refs = [ray.put(number) for number in range(sizes.arguments)]
    seconds, found = _timed(lambda: ray.get(count.remote(*refs)))
    assert found == sizes.arguments
    return Row("ref arguments of one task", sizes.arguments, seconds, 12.3 if full else None)


def many_returns(ray: Any, sizes: Sizes, full: bool) -> Row:
    """One task with many returns."""

    @ray.remote(num_returns=sizes.returns)
    def several() -> Any:
        return list(range(sizes.returns))

    seconds, found = _timed(lambda: ray.get(several.remote()))
    assert found == list(range(sizes.returns))
    return Row("returns of one task", sizes.returns, seconds, 3.7 if full else None)


def many_objects(ray: Any, sizes: Sizes, full: bool) -> Row:
    """One get of many objects in shared memory."""
    import numpy

    value = numpy.ones(25_000)
    refs = [ray.put(value) for _ in range(sizes.objects)]
    seconds, found = _timed(lambda: ray.get(refs))
    assert len(found) == sizes.objects and len(found[-1]) == len(value)
    del found
    return Row("get of shared objects of 200 kB", sizes.objects, seconds, 15.2 if full else None)


def many_queued_tasks(ray: Any, sizes: Sizes, full: bool) -> Row:
    """Tasks that all wait for a worker, and what each of them costs the driver; then they run."""

    @ray.remote
    def nothing() -> None:
        pass

    @ray.remote
    def hold(started: str, done: str) -> None:
        with open(started, "w"):
            pass
        while not os.path.exists(done):
            time.sleep(0.05)

    ray.get(nothing.remote())
    folder = tempfile.mkdtemp(prefix="miniray-envelope-")
    done = os.path.join(folder, "done")
    workers = int(ray.cluster_resources()["CPU"])
    holders = [hold.remote(os.path.join(folder, str(number)), done) for number in range(workers)]
    while len(os.listdir(folder)) < workers:
        time.sleep(0.01)
    me = psutil.Process()
    tenth = sizes.queued // 10
    gc.collect()
    before = me.memory_info().rss
    start = time.perf_counter()
    refs = [nothing.remote() for _ in range(tenth)]
    first = time.perf_counter() - start
    refs += [nothing.remote() for _ in range(sizes.queued - 2 * tenth)]
    middle = time.perf_counter()
    refs += [nothing.remote() for _ in range(tenth)]
    last = time.perf_counter() - middle
    submitted = time.perf_counter() - start
    size = (me.memory_info().rss - before) / sizes.queued
    with open(done, "w"):
        pass
    ray.get(holders)
    ray.get(refs)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder, ignore_errors=True)
    note = f"{size:.0f} bytes each; submitted in {submitted:.2f} s, the last tenth {last / first:.2f} times the first"
    return Row("queued tasks, run to the end", sizes.queued, seconds, 140 if full else None, note=note)


def one_large_object(ray: Any, sizes: Sizes, full: bool) -> Row:
    """Put and get of one very large object."""
    import numpy

    array = numpy.ones(sizes.bytes // 8, dtype=numpy.int64)

    def there_and_back() -> Any:
        return ray.get(ray.put(array))

    seconds, found = _timed(there_and_back)
    assert found[-1] == 1
    # Ray publishes 24 s for 100 GiB.
    return Row(
        "put and get of one object, GiB",
        max(1, sizes.bytes >> 30),
        seconds,
        24 * (sizes.bytes / (100 << 30)) if full else None,
        note=f"{sizes.bytes / seconds / 1e9:.1f} GB/s",
    )


def object_of_refs(ray: Any, sizes: Sizes, full: bool) -> Row:
    """Gets of an object that holds many refs, by a process that does not own them: the mean of several."""
    repeats = 5

    @ray.remote
    class Owner:
        def make(self) -> Any:
            self.refs = [ray.put(number) for number in range(sizes.inner_refs)]
            self.box = ray.put(self.refs)
            return [self.box]

    owner = Owner.remote()
    (box,) = ray.get(owner.make.remote())

    def several() -> None:
        for _ in range(repeats):
            assert len(ray.get(box)) == sizes.inner_refs

    seconds, _ = _timed(several)
    row = Row("get of an object that holds refs", sizes.inner_refs, seconds / repeats)
    return row._replace(note=f"{repeats / seconds:.1f} per second")


def wait_one_by_one(ray: Any, sizes: Sizes, full: bool) -> Row:
    """`wait` over many refs, one after the other."""

    @ray.remote
    def nothing() -> None:
        pass

    def drain() -> None:
        left = [nothing.remote() for _ in range(sizes.waited)]
        while left:
            _, left = ray.wait(left, num_returns=1)

    seconds, _ = _timed(drain)
    return Row("wait over refs one by one", sizes.waited, seconds)


MEASUREMENTS: tuple[Callable[[Any, Sizes, bool], Row], ...] = (
    many_arguments,
    many_returns,
    many_objects,
    object_of_refs,
    wait_one_by_one,
    many_queued_tasks,
    one_large_object,
)


def measure(engine: str, sizes: Sizes, full: bool, only: str = "", say: Callable[[str], None] = print) -> list[Row]:
    """All measurements, each in a session of its own.

    Args:
        engine: "miniray" or "ray".
        sizes: how many of each.
        full: the sizes are those that Ray publishes.
        only: measure what has this in its name.
        say: is told each row at once.
    """
    ray = import_module(engine)
    rows = []
    for measurement in MEASUREMENTS:
        if only and only not in measurement.__name__:
            continue
        ray.init(num_cpus=os.cpu_count(), object_store_memory=int(1.5 * sizes.bytes) + (4 << 30 if full else 1 << 30))
        try:
            row = measurement(ray, sizes, full)
        finally:
            ray.shutdown()
        rows.append(row)
        say(as_text(row))
    return rows


def as_text(row: Row) -> str:
    """One line of the table."""
    text = f"{row.count:>9,} {row.name:<36} {row.seconds:9.3f} s  {1e6 * row.seconds / row.count:10.1f} us each"
    if row.published is not None:
        ratio = row.published / row.seconds
        text += f"  Ray {row.published:.1f} s: {ratio:.1f} times faster{'' if ratio >= row.goal else ', MISSED'}"
    return f"{text}  {row.note}".rstrip()


def as_page(rows: list[Row], engine: str, full: bool) -> str:
    """The page of the documentation."""
    command = "python -m benchmarks.envelope" + (" --full" if full else "")
    memory = psutil.virtual_memory().total / 2**30
    lines = [
        "# How far one session goes",
        "",
        f"<!-- Written by `{command} --write docs/envelope.md`; changes made here get lost. -->",
        "",
        f"Measured with {engine} by `{command}` on a machine with {os.cpu_count()} CPUs and {memory:.0f} GiB. Ray's",
        "times are those that it publishes for 64 cores; goals are three times faster.",
        "",
        "| what | how many | seconds | us each | Ray's seconds | times faster | also seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        published = ratio = ""
        if row.published is not None:
            published, ratio = f"{row.published:.1f}", f"{row.published / row.seconds:.1f}"
        each = f"{1e6 * row.seconds / row.count:,.1f}"
        lines.append(
            f"| {row.name} | {row.count:,} | {row.seconds:.3f} | {each} | {published} | {ratio} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.envelope", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="the sizes that Ray publishes (needs 16 GiB, takes minutes)"
    )
    parser.add_argument("--only", default="", help="those whose function has this in its name")
    parser.add_argument("--engine", choices=("miniray", "ray"), default="miniray")
    parser.add_argument("--queued", type=int, help="another number of queued tasks")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--write", metavar="FILE", help="write the page, as docs/envelope.md")
    given = parser.parse_args(arguments)
    sizes = FULL if given.full else SMALL
    if given.queued:
        sizes = sizes._replace(queued=given.queued)
    rows = measure(given.engine, sizes, given.full, given.only)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump([row._asdict() for row in rows], file, indent=1)
    if given.write:
        with open(given.write, "w", encoding="utf-8") as file:
            file.write(as_page(rows, given.engine, given.full))
    missed = [row for row in rows if row.published is not None and row.published / row.seconds < row.goal]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
