"""ray.util: queues, actor pools, completion, multiprocessing pools."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import importlib
import os
import queue
import threading
import time

from ..catalog import program
from ..observe import error_answer, outcome, public_bases, type_name, until

AREA = "util"
SESSION = {"num_cpus": 4}


def util(ray, name):
    """A module of `ray.util`."""
    return importlib.import_module(f"{ray.__name__}.util.{name}")


def light(ray, **options):
    """A queue whose actor needs no CPU."""
    return util(ray, "queue").Queue(options.pop("maxsize", 0), actor_options={"num_cpus": 0, **options})


# ---- queues ----


@program("util/queue")
def first_in_first_out(ray):
    items = light(ray)
    for item in ("one", {"two": 2}, None):
        items.put(item)
    answers = [items.qsize(), items.size(), len(items), items.empty(), items.full()]
    answers += [items.get(), items.get(), items.get(), items.empty(), items.qsize()]
    items.shutdown()
    return answers


@program("util/queue")
def full_and_empty_queues(ray):
    module = util(ray, "queue")
    items = light(ray, maxsize=2)
    answers = [
        outcome(lambda: items.get(block=False)),
        outcome(lambda: items.get(timeout=0.1), text="last"),
        outcome(items.get_nowait),
        items.put("one"),
        items.put_nowait("two"),
        items.full(),
        outcome(lambda: items.put("three", block=False)),
        outcome(lambda: items.put("three", timeout=0.1), text="last"),
        outcome(lambda: items.put_nowait("three")),
        [type_name(module.Empty), public_bases(module.Empty), type_name(module.Full), public_bases(module.Full)],
        [issubclass(module.Empty, queue.Empty), issubclass(module.Full, queue.Full)],
        [items.get(), items.get()],
    ]
    items.shutdown()
    return answers


@program("util/queue")
def timeouts_of_queues(ray):
    items = light(ray, maxsize=1)
    answers = [
        outcome(lambda: items.get(timeout=-1)),
        outcome(lambda: items.put(1, timeout=-1)),
        outcome(lambda: items.get(block=False, timeout=-1)),
        outcome(lambda: items.get(timeout=0), text="last"),
        items.put(1, timeout=5),
        items.get(timeout=5),
    ]
    items.shutdown()
    return answers


@program("util/queue")
def batches_of_queues(ray):
    items = light(ray, maxsize=4)
    answers = [
        items.put_nowait_batch([1, 2, 3]),
        outcome(lambda: items.put_nowait_batch([4, 5]), text="last"),
        items.qsize(),
        items.get_nowait_batch(2),
        outcome(lambda: items.get_nowait_batch(2), text="last"),
        items.qsize(),
        items.get_nowait_batch(0),
        outcome(lambda: items.get_nowait_batch(-1), text="last"),
        outcome(lambda: items.get_nowait_batch("2"), text="last"),
        outcome(lambda: items.put_nowait_batch(5), text="last"),
        items.put_nowait_batch(()),
        items.get_nowait_batch(1),
    ]
    items.shutdown()
    return answers


@program("util/queue")
def queues_in_asyncio(ray):
    items = light(ray, maxsize=1)

    async def use():
        await items.put_async("one")
        full = await outcome_of(items.put_async("two", block=False))
        late = await outcome_of(items.put_async("two", timeout=0.1))
        one = await items.get_async()
        empty = await outcome_of(items.get_async(block=False))
        later = await outcome_of(items.get_async(timeout=0.1))
        negative = await outcome_of(items.get_async(timeout=-1))
        getting = asyncio.ensure_future(items.get_async())
        await asyncio.sleep(0.05)
        await items.put_async("three")
        return [full, late, one, empty, later, negative, await getting]

    async def outcome_of(call):
        try:
            return await call
        except Exception as error:
            return error_answer(error, text="none")

    answers = asyncio.run(use())
    items.shutdown()
    return answers


@program("util/queue")
def queues_between_tasks(ray):
    @ray.remote(num_cpus=0)
    def produce(items, name):
        for number in range(10):
            items.put([name, number])

    @ray.remote(num_cpus=0)
    def consume(items, number):
        return [items.get(timeout=20) for _ in range(number)]

    items = light(ray, maxsize=3)
    consumed = consume.remote(items, 20)
    ray.get([produce.remote(items, "a"), produce.remote(items, "b")])
    rows = ray.get(consumed)
    items.shutdown()
    return [[[row for row in rows if row[0] == name] for name in "ab"], len(rows)]


@program("util/queue")
def a_getter_that_waits_is_woken(ray):
    items = light(ray)
    values = []
    thread = threading.Thread(target=lambda: values.append(items.get(timeout=20)))
    thread.start()
    time.sleep(0.1)
    items.put("woken")
    thread.join(20)
    items.shutdown()
    return values


@program("util/queue")
def a_putter_that_waits_is_woken(ray):
    items = light(ray, maxsize=1)
    items.put(1)
    thread = threading.Thread(target=lambda: items.put(2, timeout=20))
    thread.start()
    time.sleep(0.1)
    first = items.get()
    thread.join(20)
    answers = [first, items.get(timeout=20)]
    items.shutdown()
    return answers


@program("util/queue")
def queues_that_were_shut_down(ray):
    graceful, forced = light(ray), light(ray)
    graceful.put(1)
    answers = [graceful.shutdown(), forced.shutdown(force=True)]
    for items in (graceful, forced):
        answers.append(outcome(lambda items=items: items.actor, text="none"))
        answers.append(outcome(lambda items=items: items.put(1), text="none"))
    return answers


@program("util/queue")
def options_of_the_queues_actor(ray):
    items = light(ray, name="the queue")
    items.put("named")
    handle = ray.get_actor("the queue")
    answers = [ray.get(handle.qsize.remote()), type(items.actor).__name__, items.maxsize]
    items.shutdown()
    return answers


@program("util/queue")
def queues_hold_refs_and_large_items(ray):
    items = light(ray)
    items.put(ray.put("inside"))
    items.put([ray.put("nested")])
    items.put(b"x" * 500_000)
    one = items.get()
    answers = [type(one).__name__, one if isinstance(one, str) else ray.get(one)]
    nested = items.get()
    answers += [ray.get(nested[0]), len(items.get())]
    items.shutdown()
    return answers


@program("util/queue")
def sizes_that_mean_no_bound(ray):
    answers = []
    for size in (0, -1):
        items = light(ray, maxsize=size)
        items.put_nowait_batch(list(range(50)))
        answers.append([items.qsize(), items.full(), items.get_nowait_batch(50) == list(range(50))])
        items.shutdown()
    return answers


# ---- actor pools ----


class Doubler:
    """Doubles."""

    def double(self, value):
        return 2 * value

    def late(self, value):
        time.sleep(value)
        return value

    def gated(self, path):
        until(lambda: os.path.exists(path))
        return path

    def fail(self, value):
        raise ValueError(f"value {value}")


def pool_of(ray, number=2):
    """A pool of doublers."""
    actor_class = ray.remote(num_cpus=0)(Doubler)
    return ray.util.ActorPool([actor_class.remote() for _ in range(number)])


@program("util/actor-pool")
def mapping_over_a_pool(ray):
    pool = pool_of(ray)
    results = pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3, 4, 5])
    return [
        type(results).__name__,
        list(results),
        sorted(pool.map_unordered(lambda actor, value: actor.double.remote(value), range(5))),
        list(pool.map(lambda actor, value: actor.double.remote(value), [])),
    ]


@program("util/actor-pool")
def order_of_results(ray):
    pool = pool_of(ray)

    def late(actor, value):
        return actor.late.remote(value)

    list(pool.map(late, [0, 0]))
    values = [0.5, 0, 0.1]
    return [list(pool.map(late, values)), list(pool.map_unordered(late, values))]


@program("util/actor-pool")
def submitting_and_getting(ray):
    pool = pool_of(ray)
    answers = [pool.has_next(), pool.has_free()]
    for value in range(4):
        pool.submit(lambda actor, value: actor.double.remote(value), value)
    answers += [pool.has_next(), pool.has_free()]
    answers += [pool.get_next() for _ in range(4)]
    answers += [pool.has_next(), pool.has_free(), outcome(pool.get_next), outcome(pool.get_next_unordered)]
    return answers


@program("util/actor-pool")
def getting_with_a_timeout(ray):
    pool = pool_of(ray)
    pool.submit(lambda actor, value: actor.late.remote(value), 1.5)
    answers = [
        outcome(lambda: pool.get_next(timeout=0.1)),
        outcome(lambda: pool.get_next_unordered(timeout=0.1)),
        outcome(lambda: pool.get_next(timeout=20)),
    ]
    pool.submit(lambda actor, value: actor.double.remote(value), 3)
    return [*answers, outcome(lambda: pool.get_next(timeout=20))]


@program("util/actor-pool")
def timeouts_that_are_ignored(ray):
    pool = pool_of(ray)
    pool.submit(lambda actor, value: actor.late.remote(value), 1)
    first = outcome(lambda: pool.get_next(timeout=0.1, ignore_if_timedout=True))
    pool.submit(lambda actor, value: actor.double.remote(value), 3)
    return [first, pool.has_next(), outcome(lambda: pool.get_next(timeout=20))]


@program("util/actor-pool")
def errors_in_a_pool(ray):
    pool = pool_of(ray)
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    pool.submit(lambda actor, value: actor.double.remote(value), 2)
    return [
        outcome(pool.get_next, text="last"),
        outcome(pool.get_next, text="last"),
        pool.has_next(),
        outcome(lambda: list(pool.map(lambda actor, value: actor.fail.remote(value), [1])), text="last"),
        list(pool.map(lambda actor, value: actor.double.remote(value), [5])),
    ]


@program("util/actor-pool")
def idle_actors(ray):
    pool = pool_of(ray)
    first = pool.pop_idle()
    second = pool.pop_idle()
    none = pool.pop_idle()
    answers = [type(first).__name__, none, pool.has_free()]
    pool.push(second)
    answers += [pool.has_free(), outcome(lambda: pool.push(second))]
    pool.submit(lambda actor, value: actor.double.remote(value), 4)
    answers += [pool.has_free(), pool.pop_idle(), pool.get_next(), pool.has_free()]
    return answers


@program("util/actor-pool")
def mixing_ordered_and_unordered(ray):
    pool = pool_of(ray, 1)
    for value in range(3):
        pool.submit(lambda actor, value: actor.double.remote(value), value)
    return [outcome(pool.get_next_unordered), outcome(pool.get_next), pool.has_next()]


# ---- completion ----


@program("util/as-completed")
def refs_as_they_complete(ray):
    late = ray.remote(lambda value: time.sleep(value) or value)
    ray.get([late.remote(0) for _ in range(4)])
    return [
        list(ray.util.as_completed([late.remote(value) for value in (0.8, 0, 0.3)])),
        list(ray.util.as_completed([late.remote(value) for value in (0.5, 0)], chunk_size=1)),
        list(ray.util.as_completed([])),
        sorted(ray.util.as_completed([ray.put(value) for value in range(30)], chunk_size=7)),
    ]


@program("util/as-completed")
def errors_as_they_complete(ray):
    failed = ray.remote(lambda: 1 / 0).remote()
    return outcome(lambda: list(ray.util.as_completed([failed])), text="last")


@program("util/as-completed")
def options_of_as_completed(ray):
    refs = [ray.put(value) for value in range(3)]
    whole = ray.util.as_completed(refs, chunk_size=2, yield_obj_refs=True)
    return [
        sorted(ray.get(list(whole))),
        outcome(lambda: list(ray.util.as_completed(refs, chunk_size=0)), text="none"),
        outcome(lambda: list(ray.util.as_completed([1])), text="none"),
    ]


@program("util/as-completed")
def mapping_without_order(ray):
    double = ray.remote(lambda value: 2 * value)
    actor = ray.remote(num_cpus=0)(Doubler).remote()
    return [
        sorted(ray.util.map_unordered(double, range(20))),
        sorted(ray.util.map_unordered(double, range(20), backpressure_size=3, chunk_size=2)),
        sorted(ray.util.map_unordered(actor.double, [1, 2])),
        outcome(lambda: list(ray.util.map_unordered(double, range(4), backpressure_size=1, chunk_size=2)), text="none"),
        outcome(lambda: list(ray.util.map_unordered(lambda value: value, [1])), text="none"),
    ]


# ---- multiprocessing ----


def double(value):
    """Doubles."""
    return 2 * value


def add(left, right=0):
    """Adds."""
    return left + right


def fail(value):
    """Fails for 2."""
    if value == 2:
        raise ValueError("value 2")
    return value


def slow(value):
    """Takes its time."""
    time.sleep(value)
    return value


def of_two(ray, **arguments):
    """A pool of two processes."""
    return util(ray, "multiprocessing").Pool(2, **arguments)


@program("util/multiprocessing")
def applying_and_mapping(ray):
    with of_two(ray) as pool:
        return [
            pool.apply(add, (1,), {"right": 2}),
            pool.apply(add, (1,)),
            pool.map(double, range(5)),
            pool.map(double, []),
            pool.map(double, (number for number in range(5)), chunksize=2),
            pool.starmap(add, [(1, 2), (3, 4)]),
            pool.starmap(add, zip(range(3), range(3), strict=True), chunksize=2),
        ]


@program("util/multiprocessing")
def asynchronous_results(ray):
    with of_two(ray) as pool:
        one = pool.apply_async(add, (1, 2))
        many = pool.map_async(double, range(4))
        pairs = pool.starmap_async(add, [(1, 2), (3, 4)])
        late = pool.apply_async(slow, (1.5,))
        answers = [outcome(late.ready), outcome(lambda: late.get(timeout=0.1), text="none"), outcome(late.successful)]
        answers += [one.get(timeout=20), many.get(timeout=20), pairs.get(timeout=20), many.wait(20)]
        return [*answers, one.ready(), one.successful(), late.get(timeout=20)]


@program("util/multiprocessing")
def errors_in_pools(ray):
    with of_two(ray) as pool:
        failed = pool.apply_async(fail, (2,))
        failed.wait(20)
        return [
            outcome(lambda: pool.apply(fail, (2,)), text="last"),
            outcome(lambda: pool.map(fail, range(4)), text="last"),
            failed.ready(),
            failed.successful(),
            outcome(failed.get, text="last"),
            pool.map(double, range(3)),
        ]


@program("util/multiprocessing")
def lazy_maps(ray):
    with of_two(ray) as pool:
        results = pool.imap(double, range(5))
        answers = [next(results), results.next(timeout=20), list(results)]
        answers.append(list(pool.imap(double, iter(range(7)), chunksize=3)))
        answers.append(sorted(pool.imap_unordered(double, range(7), chunksize=2)))
        answers.append(list(pool.imap(double, [])))
        late = pool.imap(slow, [1.5])
        answers.append(outcome(lambda: late.next(timeout=0.1), text="none"))
        answers.append(next(late))
        return [*answers, outcome(lambda: next(late), text="none")]


@program("util/multiprocessing")
def errors_in_lazy_maps(ray):
    with of_two(ray) as pool:
        results = pool.imap(fail, [1, 2, 3])
        # What comes next Ray hands out as a value: the error, wrapped in a class of its own.
        return outcome(lambda: next(results))


@program("util/multiprocessing")
def callbacks_of_pools(ray):
    values, errors = [], []
    with of_two(ray) as pool:
        one = pool.apply_async(add, (1, 2), callback=values.append, error_callback=errors.append)
        many = pool.map_async(double, range(3), callback=values.append)
        failed = pool.apply_async(fail, (2,), callback=values.append, error_callback=errors.append)
        for result in (one, many, failed):
            result.wait(20)
        came = until(lambda: len(values) == 2 and len(errors) == 1)
    # In Ray the list is not in order then, and the error is wrapped in a class of its own.
    return [came, sorted(str(value if isinstance(value, int) else sorted(value)) for value in values), len(errors)]


@program("util/multiprocessing")
def processes_and_initializers(ray):
    def initialize(value):
        os.environ["DIFFERENTIAL_POOL"] = value

    def look(_):
        time.sleep(0.01)
        return [os.getpid(), os.environ.get("DIFFERENTIAL_POOL")]

    with of_two(ray, initializer=initialize, initargs=("initialized",)) as pool:
        rows = pool.map(look, range(12), chunksize=1)
    return [len({row[0] for row in rows}), sorted({row[1] for row in rows}), os.getpid() in {row[0] for row in rows}]


@program("util/multiprocessing")
def pools_that_were_closed(ray):
    closed, ended = of_two(ray), of_two(ray)
    running = closed.map_async(double, range(3))
    answers = [outcome(closed.join), closed.close(), closed.join(), running.get(timeout=20)]
    answers += [outcome(lambda: closed.map(double, [1])), ended.terminate(), ended.join()]
    return [*answers, outcome(lambda: ended.apply(double, (1,)))]


@program("util/multiprocessing")
def children_that_are_replaced(ray):
    with util(ray, "multiprocessing").Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(4)]
    return [pids[0] == pids[1], pids[2] == pids[3], pids[0] == pids[2]]


@program("util/multiprocessing")
def arguments_of_pools(ray):
    pool_class = util(ray, "multiprocessing").Pool
    return [
        outcome(lambda: pool_class(0)),
        outcome(lambda: pool_class(-1)),
        outcome(lambda: pool_class("2"), text="none"),
        outcome(lambda: pool_class(100), text="first"),
        outcome(lambda: pool_class(1, initializer=5), text="none"),
    ]


@program("util/multiprocessing")
def shared_state_of_a_pool(ray):
    def remember(value):
        module = importlib.import_module("builtins")
        seen = getattr(module, "differential_seen", [])
        module.differential_seen = [*seen, value]
        return len(seen)

    with util(ray, "multiprocessing").Pool(1) as pool:
        return pool.map(remember, range(4), chunksize=1)
