"""What tests/test_ray_engine.py runs on the real Ray: by miniray's names alone. Prints one JSON line per promise."""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
import time

import miniray
from miniray.util import ActorPool
from miniray.util.multiprocessing import Pool
from miniray.util.placement_group import placement_group, remove_placement_group
from miniray.util.queue import Empty, Queue
from miniray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from miniray.util.state import list_actors


def tell(promise, value):
    print(json.dumps([promise, value]), flush=True)


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    return None


@miniray.remote
def square(number):
    return number * number


@miniray.remote
def fails():
    raise KeyError("no")


@miniray.remote
def sums(count):
    return sum(miniray.get([square.remote(number) for number in range(count)]))


@miniray.remote
def catches():
    try:
        miniray.get(fails.remote())
    except miniray.exceptions.RayTaskError as error:
        return type(error).__name__


@miniray.remote
def counts():
    yield 0
    yield 1
    yield 2


@miniray.remote(num_cpus=0)
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self):
        self.value += 1
        return self.value

    @miniray.method(num_returns=2)
    def both(self):
        return 1, 2

    def leave(self):
        miniray.actor.exit_actor()


@miniray.remote(num_cpus=0)
class Awaits:
    async def catches(self):
        try:
            await fails.remote()
        except miniray.exceptions.RayTaskError:
            return "caught"


def main():
    tell("ray is imported when it is asked for", "ray" in sys.modules)
    miniray.init(engine="ray", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    tell("initialized", miniray.is_initialized())
    ref = square.remote(3)
    tell("refs are those of Ray", [type(ref).__module__.split(".")[0], miniray.get(ref)])
    tell("put", miniray.get(miniray.put({"a": 1})))
    ready, rest = miniray.wait([square.remote(number) for number in range(3)], num_returns=3)
    tell("wait", [len(ready), len(rest)])
    tell("tasks call tasks", miniray.get(sums.remote(4)))
    tell("tasks catch by our names", miniray.get(catches.remote()))
    error = raised(lambda: miniray.get(fails.remote()))
    tell("errors are three things", [isinstance(error, kind) for kind in (KeyError, miniray.exceptions.RayTaskError)])
    slow = miniray.remote(lambda: time.sleep(3)).remote()
    error = raised(lambda: miniray.get(slow, timeout=0.1))
    tell("timeouts", [isinstance(error, miniray.exceptions.GetTimeoutError), isinstance(error, TimeoutError)])
    miniray.cancel(slow, force=True)
    error = raised(lambda: miniray.get(slow))
    tell("cancelled", isinstance(error, (miniray.exceptions.TaskCancelledError, miniray.exceptions.WorkerCrashedError)))
    counter = Counter.options(name="counter").remote(5)
    tell("actors", [miniray.get(counter.add.remote()), miniray.get(counter.both.remote())])
    tell("named actors", miniray.get(miniray.get_actor("counter").add.remote()))
    error = raised(lambda: Counter.options(name="counter").remote())
    tell("names that are taken", isinstance(error, ValueError))
    tell("await", miniray.get(Awaits.remote().catches.remote()))
    tell("generators", [miniray.get(item) for item in counts.remote()])
    tell("options", miniray.get(square.options(num_cpus=2, name="named").remote(4)))
    tell("resources", [miniray.cluster_resources()["CPU"], len(miniray.nodes())])
    pool = ActorPool([Counter.remote(), Counter.remote()])
    tell("actor pool", sorted(pool.map(lambda actor, _: actor.add.remote(), range(4))))
    group = placement_group([{"CPU": 1}])
    miniray.get(group.ready())
    inside = PlacementGroupSchedulingStrategy(group)
    tell("placement groups", miniray.get(square.options(scheduling_strategy=inside).remote(5)))
    remove_placement_group(group)
    here = NodeAffinitySchedulingStrategy(miniray.get_runtime_context().get_node_id(), soft=False)
    tell("node affinity", miniray.get(square.options(scheduling_strategy=here).remote(6)))
    queue = Queue(maxsize=2)
    queue.put(1)
    tell("queue", [queue.get(), isinstance(raised(lambda: queue.get(block=False)), Empty)])
    with Pool(2) as processes:
        tell("pool", processes.map(abs, [-1, -2]))
    miniray.kill(counter)
    error = raised(lambda: miniray.get(counter.add.remote()))
    tell("killed actors", isinstance(error, miniray.exceptions.RayActorError))
    tell("extensions", str(raised(lambda: square.options(timeout_s=1).remote(1))))
    tell("a second init", str(raised(lambda: miniray.init(engine="ray")))[:40])
    tell("state", callable(list_actors))
    miniray.shutdown()
    tell("shut down", miniray.is_initialized())
    miniray.init(num_cpus=1)
    tell("miniray again", [type(square.remote(2)).__module__, miniray.get(square.remote(2))])
    miniray.shutdown()


if __name__ == "__main__":
    main()
