"""The workloads: what is done, and how much of it one step is.

Names and meaning are those of ``ray microbenchmark``, so that figures can be compared; two rows about whole programs
come after them. A workload is a generator: it prepares, yields a `Step` (or a `Reading`), and tidies up. It gets the
module that it runs on (`miniray`, or real `ray`); its functions and classes are closures over that, so that they run
in workers of either.
"""

# mypy: disable-error-code="untyped-decorator"
# (the decorators are those of whichever module is measured)

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from miniray.microbenchmark.whole_programs import megabytes_of_an_idle_session, milliseconds_of_one_task


class Step(NamedTuple):
    """What is measured."""

    run: Callable[[], object]
    times: float  #: how many things (calls, gigabytes, groups) one run does


class Reading(NamedTuple):
    """What is no rate: it is taken once in each trial."""

    take: Callable[[], float]


class Sizes(NamedTuple):
    """How much the workloads do; the defaults are those of ``ray microbenchmark``."""

    calls: int = 1000
    many_calls: int = 10000
    calls_per_actor: int = 5000
    refs: int = 10000
    waited: int = 1000
    groups: int = 100
    gigabytes: float = 0.8  #: of one array
    parts: int = 10  #: tasks that put at once, and arrays of a tenth of the size that each puts
    cpus: int = os.cpu_count() or 2


QUICK = Sizes(calls=100, many_calls=200, calls_per_actor=100, refs=500, waited=100, groups=5, gigabytes=0.02, parts=2)

Workload = Callable[[Any, Sizes], Iterator[Step | Reading]]

WORKLOADS: dict[str, Workload] = {}
#: Rows that pools of processes can run, too.
TASK_ROWS = ("single client tasks and get batch", "single client tasks sync", "single client tasks async")
#: What one of a row is, where it is no call.
UNITS = {
    "single client put gigabytes": "GB",
    "multi client put gigabytes": "GB",
    "single client tasks and get batch": "batches",
    "single client get object containing 10k refs": "objects",
    "single client wait 1k refs": "rounds",
    "placement group create/removal": "groups",
    "whole process: init, first task, shutdown": "ms",
    "idle session with 2 workers, all processes": "MB",
}
#: Units of readings. Of all of them less is better.
READINGS = ("ms", "MB")


def workload(name: str) -> Callable[[Workload], Workload]:
    """Enter a workload under its name."""

    def enter(function: Workload) -> Workload:
        WORKLOADS[name] = function
        return function

    return enter


def _zeros(gigabytes: float) -> Any:
    import numpy  # not a dependency: rows that need it say so where it is missing

    return numpy.zeros(int(gigabytes * 1e9) // 8, dtype=numpy.int64)


# ---- objects ----


@workload("single client get calls (Plasma Store)")
def get_calls(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """`get` of one small object, again and again."""
    ref = ray.put(0)
    yield Step(lambda: ray.get(ref), 1)


@workload("single client put calls (Plasma Store)")
def put_calls(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """`put` of a small object."""
    yield Step(lambda: ray.put(0), 1)


@workload("multi client put calls (Plasma Store)")
def multi_put_calls(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Ten tasks, each of which puts a hundred small objects."""

    @ray.remote
    def put_many() -> None:
        for _ in range(100):
            ray.put(0)

    yield Step(lambda: ray.get([put_many.remote() for _ in range(10)]), 1000)


@workload("single client put gigabytes")
def put_gigabytes(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """`put` of one large array."""
    array = _zeros(sizes.gigabytes)
    yield Step(lambda: ray.put(array), array.nbytes / 1e9)


@workload("single client tasks and get batch")
def tasks_and_get_batch(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """A thousand tasks, and one `get` for all."""
    nothing = _small_value(ray)
    yield Step(lambda: ray.get([nothing.remote() for _ in range(sizes.calls)]), 1)


@workload("multi client put gigabytes")
def multi_put_gigabytes(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Tasks, each of which puts arrays of a tenth of the size."""
    parts, size = sizes.parts, sizes.gigabytes / 10

    @ray.remote
    def put_many() -> None:
        import numpy

        for _ in range(parts):
            ray.put(numpy.zeros(int(size * 1e9) // 8, dtype=numpy.int64))

    _zeros(0)  # says so here if there is no numpy
    yield Step(lambda: ray.get([put_many.remote() for _ in range(parts)]), parts * parts * size)


@workload("single client get object containing 10k refs")
def get_containing_refs(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """`get` of a list of refs that a task has made."""

    @ray.remote
    def many_refs() -> list[Any]:
        return [ray.put(1) for _ in range(sizes.refs)]

    ref = many_refs.remote()
    yield Step(lambda: ray.get(ref), 1)


@workload("single client wait 1k refs")
def wait_many_refs(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """A thousand tasks, taken one by one as they get ready."""
    nothing = _small_value(ray)

    def step() -> None:
        left = [nothing.remote() for _ in range(sizes.waited)]
        while left:
            _, left = ray.wait(left)

    yield Step(step, 1)


# ---- tasks ----


def _small_value(ray: Any) -> Any:
    @ray.remote
    def small_value() -> bytes:
        return b"ok"

    return small_value


@workload("single client tasks sync")
def tasks_sync(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """One task after the other."""
    nothing = _small_value(ray)
    yield Step(lambda: ray.get(nothing.remote()), 1)


@workload("single client tasks async")
def tasks_async(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """A thousand tasks at once."""
    nothing = _small_value(ray)
    yield Step(lambda: ray.get([nothing.remote() for _ in range(sizes.calls)]), sizes.calls)


@workload("multi client tasks async")
def multi_tasks_async(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Four actors that start ten thousand tasks each."""
    nothing, many = _small_value(ray), sizes.many_calls

    class Starter:
        def start(self) -> None:
            ray.get([nothing.remote() for _ in range(many)])

    starters = [ray.remote(num_cpus=0)(Starter).remote() for _ in range(4)]
    yield Step(lambda: ray.get([starter.start.remote() for starter in starters]), 4 * many)


# ---- calls of actors ----


def _server(ray: Any, asynchronous: bool) -> Any:
    if asynchronous:

        @ray.remote
        class AsyncServer:
            async def small_value(self) -> bytes:
                return b"ok"

            async def small_value_with_arg(self, x: Any) -> bytes:
                return b"ok"

        return AsyncServer

    @ray.remote(num_cpus=0)
    class Server:
        def small_value(self) -> bytes:
            return b"ok"

        def small_value_with_arg(self, x: Any) -> bytes:
            return b"ok"

    return Server


def _client(ray: Any) -> Any:
    @ray.remote(num_cpus=0)
    class Client:
        def __init__(self, servers: list[Any]) -> None:
            self.servers = servers

        def call_all(self, times: int) -> None:
            ray.get([server.small_value.remote() for server in self.servers for _ in range(times)])

        def call_all_with_arg(self, times: int) -> None:
            x = ray.put(0)
            ray.get([server.small_value_with_arg.remote(x) for server in self.servers for _ in range(times)])

    return Client


def _sync(ray: Any, server: Any) -> Step:
    ray.get(server.small_value.remote())
    return Step(lambda: ray.get(server.small_value.remote()), 1)


def _async(ray: Any, server: Any, sizes: Sizes) -> Step:
    ray.get(server.small_value.remote())
    return Step(lambda: ray.get([server.small_value.remote() for _ in range(sizes.calls)]), sizes.calls)


def _one_to_many(ray: Any, servers: list[Any], sizes: Sizes) -> Step:
    client, times = _client(ray).remote(servers), sizes.calls_per_actor
    return Step(lambda: ray.get(client.call_all.remote(times)), times * len(servers))


def _many_to_many(ray: Any, servers: list[Any], sizes: Sizes) -> Step:
    times = sizes.calls_per_actor

    @ray.remote
    def call_in_turn(servers: list[Any]) -> None:
        ray.get([servers[number % len(servers)].small_value.remote() for number in range(times)])

    return Step(lambda: ray.get([call_in_turn.remote(servers) for _ in range(4)]), 4 * times)


def _half(sizes: Sizes) -> int:
    return max(1, sizes.cpus // 2)


@workload("1:1 actor calls sync")
def actor_sync(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """One call after the other."""
    yield _sync(ray, _server(ray, False).remote())


@workload("1:1 actor calls async")
def actor_async(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """A thousand calls at once."""
    yield _async(ray, _server(ray, False).remote(), sizes)


@workload("1:1 actor calls concurrent")
def actor_concurrent(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """The same, of an actor with sixteen threads."""
    yield _async(ray, _server(ray, False).options(max_concurrency=16).remote(), sizes)


@workload("1:n actor calls async")
def actor_one_to_many(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """An actor that calls all servers."""
    servers = [_server(ray, False).remote() for _ in range(_half(sizes))]
    yield _one_to_many(ray, servers, sizes)


@workload("n:n actor calls async")
def actor_many_to_many(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Four tasks that call all servers."""
    servers = [_server(ray, False).remote() for _ in range(_half(sizes))]
    yield _many_to_many(ray, servers, sizes)


@workload("n:n actor calls with arg async")
def actor_many_to_many_with_arg(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Actors that each call a server of their own, with a ref as argument."""
    servers = [_server(ray, False).remote() for _ in range(_half(sizes))]
    clients = [_client(ray).remote([server]) for server in servers]
    times = sizes.calls
    yield Step(lambda: ray.get([client.call_all_with_arg.remote(times) for client in clients]), times * len(clients))


@workload("1:1 async-actor calls sync")
def async_actor_sync(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """One call of a coroutine after the other."""
    yield _sync(ray, _server(ray, True).remote())


@workload("1:1 async-actor calls async")
def async_actor_async(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """A thousand of them at once."""
    yield _async(ray, _server(ray, True).remote(), sizes)


@workload("1:1 async-actor calls with args async")
def async_actor_with_args(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """The same, with a number as argument."""
    server = _server(ray, True).remote()
    ray.get(server.small_value.remote())
    calls = sizes.calls
    yield Step(lambda: ray.get([server.small_value_with_arg.remote(number) for number in range(calls)]), calls)


@workload("1:n async-actor calls async")
def async_actor_one_to_many(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """An actor that calls all async servers."""
    servers = [_server(ray, True).remote() for _ in range(_half(sizes))]
    yield _one_to_many(ray, servers, sizes)


@workload("n:n async-actor calls async")
def async_actor_many_to_many(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Four tasks that call all async servers."""
    servers = [_server(ray, True).remote() for _ in range(_half(sizes))]
    yield _many_to_many(ray, servers, sizes)


# ---- placement groups ----


@workload("placement group create/removal")
def placement_groups(ray: Any, sizes: Sizes) -> Iterator[Step]:
    """Create groups of one tiny bundle, wait for them, remove them."""
    util = ray.util

    def step() -> None:
        groups = [util.placement_group([{"custom": 0.001}]) for _ in range(sizes.groups)]
        for group in groups:
            group.wait(timeout_seconds=30)
        for group in groups:
            util.remove_placement_group(group)

    yield Step(step, sizes.groups)


# ---- whole programs ----


@workload("whole process: init, first task, shutdown")
def whole_process(ray: Any, sizes: Sizes) -> Iterator[Reading]:
    """A program with one task, from its start to its end."""
    yield Reading(lambda: milliseconds_of_one_task(ray.__name__))


@workload("idle session with 2 workers, all processes")
def idle_session(ray: Any, sizes: Sizes) -> Iterator[Reading]:
    """The memory of a session that has nothing to do."""
    yield Reading(lambda: megabytes_of_an_idle_session(ray.__name__))
