"""Refs: ids, equality, awaiting, futures, callbacks, refs inside values."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import time

from ..catalog import program
from ..observe import outcome, script_lines

AREA = "objects"
SESSION = {"num_cpus": 3}


def slow(seconds, value=None):
    time.sleep(seconds)
    return value


def fail(message="failed"):
    raise ValueError(message)


@program("objects/ref-ids", "ids/embedded")
def ids_of_refs(ray):
    ref = ray.remote(slow).remote(0)
    put = ray.put(1)
    return [
        [len(ref.hex()), len(ref.binary()), ref.binary().hex() == ref.hex()],
        [type(ref.task_id()).__name__, ref.binary().startswith(ref.task_id().binary())],
        [type(ref.job_id()).__name__, ref.job_id() == ray.get_runtime_context().job_id],
        ref.task_id().job_id() == ref.job_id(),
        [ref.size(), ray.ObjectRef.size(), ref.is_nil(), ray.ObjectRef.nil().is_nil()],
        [str(ref) == repr(ref), repr(ref) == f"ObjectRef({ref.hex()})"],
        [put.job_id() == ref.job_id(), put.task_id() == ref.task_id()],
    ]


@program("objects/ref-ids", "ids/embedded")
def refs_of_one_task_share_its_id(ray):
    @ray.remote(num_returns=3)
    def three():
        return ray.get_runtime_context().get_task_id(), 2, 3

    refs = three.remote()
    own = ray.get(refs[0])
    return [
        len({ref.task_id() for ref in refs}),
        own == refs[0].task_id().hex(),
        [int.from_bytes(ref.binary()[-4:], "little") for ref in refs],
    ]


@program("objects/ref-equality")
def equality_of_refs(ray):
    one, two = ray.put(1), ray.put(1)
    twin = ray.ObjectRef(one.binary())
    back = ray.get(ray.put([one]))[0]
    return [
        [one == one, one == two, one != two, one == twin, one == back, one is back],
        [hash(one) == hash(twin), hash(one) == hash(back), len({one, two, twin, back})],
        [one == one.binary(), one == "text", one is None],
        outcome(lambda: sorted([one, two]) != [], text="none"),
        {one: "found"}[back],
        [ray.get(twin), bool(one)],
    ]


@program("objects/ref-equality")
def making_refs_by_hand(ray):
    return [
        outcome(lambda: type(ray.ObjectRef(b"\0" * 28)).__name__),
        outcome(lambda: ray.ObjectRef(b"short")),
        outcome(lambda: ray.ObjectRef("text"), text="none"),
        outcome(lambda: ray.ObjectRef.from_random().size()),
        outcome(lambda: ray.ObjectRef.from_hex("00" * 28).is_nil(), text="none"),
        isinstance(ray.put(1), ray.ObjectRef),
        outcome(lambda: ray.put(1).no_such_attribute, text="none"),
    ]


@program("objects/ref-await")
def awaiting_refs(ray):
    task, failing = ray.remote(slow), ray.remote(fail)

    async def main():
        one = await ray.put(1)
        many = await asyncio.gather(*[task.remote(0.01, number) for number in range(5)])
        again = task.remote(0, "twice")
        try:
            await failing.remote("awaited")
            error = None
        except ValueError as raised:
            error = [type(raised).__name__, str(raised).splitlines()[-1]]
        return [one, many, await again, await again, error]

    return asyncio.run(main())


@program("objects/ref-await")
def waiting_in_asyncio(ray):
    task = ray.remote(slow)

    async def main():
        refs = [task.remote(0, 1), task.remote(0, 2)]
        done, pending = await asyncio.wait([ref.as_future() for ref in refs])
        first = await asyncio.wait_for(task.remote(0, "in time"), timeout=20)
        try:
            await asyncio.wait_for(task.remote(1), timeout=0.05)
            late = "came"
        except asyncio.TimeoutError:
            late = "timed out"
        return [sorted(future.result() for future in done), len(pending), first, late]

    return asyncio.run(main())


@program("objects/ref-await")
def the_loop_runs_on_while_awaiting(ray):
    task = ray.remote(slow)

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticker = asyncio.create_task(tick())
        await task.remote(0.3)
        ticker.cancel()
        return ticks > 5

    return asyncio.run(main())


@program("objects/ref-future")
def futures_of_refs(ray):
    task, failing = ray.remote(slow), ray.remote(fail)
    future = task.remote(0.05, "value").future()
    failed = failing.remote("in a future").future()
    futures = [task.remote(0, number).future() for number in range(3)]
    return [
        type(future).__module__,
        isinstance(future, concurrent.futures.Future),
        future.result(timeout=20),
        future.done(),
        outcome(failed.result, text="last"),
        type(failed.exception()).__name__,
        sorted(each.result() for each in concurrent.futures.as_completed(futures, timeout=20)),
        outcome(lambda: task.remote(1).future().result(timeout=0.01), text="none")["raises"].endswith("TimeoutError"),
    ]


@program("objects/ref-future")
def callbacks_of_futures(ray):
    called, event = [], threading.Event()

    def callback(future):
        called.append(future.result())
        event.set()

    ray.remote(slow).remote(0.05, "value").future().add_done_callback(callback)
    event.wait(20)
    return called


@program("objects/ref-as-future")
def asyncio_futures_of_refs(ray):
    task = ray.remote(slow)

    async def main():
        future = task.remote(0.01, 5).as_future()
        ref = task.remote(0.3, "still runs")
        cancelled = ref.as_future()
        cancelled.cancel()
        try:
            await cancelled
            end = "value"
        except asyncio.CancelledError:
            end = "cancelled"
        return [asyncio.isfuture(future), await future, end, cancelled.cancelled(), await ref]

    return asyncio.run(main())


@program("objects/ref-callback")
def completion_callbacks(ray):
    called, event = [], threading.Event()

    def remember(value):
        called.append(value if not isinstance(value, Exception) else type(value).__name__)
        if len(called) == 3:
            event.set()

    ray.remote(slow).remote(0.05, "later")._on_completed(remember)
    event_refs = [ray.put("put"), ray.remote(fail).remote()]
    for ref in event_refs:
        ref._on_completed(remember)
    event.wait(20)
    return sorted(called)


@program("objects/ref-pickle")
def refs_inside_values(ray):
    class Holder:
        def __init__(self, ref):
            self.ref = ref

    @ray.remote
    def open_holder(holder):
        return ray.get(holder.ref)

    @ray.remote
    def wrap(value):
        return Holder(ray.put(value))

    inner = ray.put("deep")
    nested = ray.put({"a": [ray.put([inner])]})
    return [
        ray.get(open_holder.remote(Holder(inner))),
        ray.get(ray.get(wrap.remote("made there")).ref),
        ray.get(ray.get(ray.get(nested)["a"][0])[0]),
    ]


@program("objects/ref-pickle")
def values_live_as_long_as_what_holds_their_ref(ray):
    import gc

    @ray.remote
    def keep(holder):
        time.sleep(0.1)
        return ray.get(holder[0])

    outer = ray.put([ray.put(b"x" * 300_000)])
    running = keep.remote([ray.put("an argument")])
    gc.collect()
    back = ray.get(outer)[0]
    del outer
    gc.collect()
    return [len(ray.get(back)), ray.get(running)]


@program("objects/ref-pickle")
def refs_over_several_tasks(ray):
    @ray.remote
    def hand_on(box, depth):
        return [hand_on.remote(box, depth - 1)] if depth else box

    value = ray.get(hand_on.remote([ray.put("far")], 3))
    for _ in range(4):
        value = ray.get(value[0])
    return value


@program("objects/out-of-band-refs")
def refs_pickled_by_hand(ray):
    ref = ray.put("value")
    back = pickle.loads(ray.cloudpickle.dumps(ref))
    return [back == ref, ray.get(back)]


@program("objects/out-of-band-refs", fresh=True)
def refs_pickled_by_hand_refused(ray):
    return script_lines(
        ray,
        """
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        ref = ray.put(1)
        try:
            ray.cloudpickle.dumps(ref)
            print("pickled")
        except Exception as error:
            print(type(error).__name__, [kind.__name__ for kind in type(error).__mro__])
            print(str(error))
        @ray.remote
        def closure():
            return ray.get(ref)
        try:
            print(ray.get(closure.remote()))
        except Exception as error:
            print(type(error).__name__)
        print(ray.get(ray.get(ray.put([ref]))[0]))
        """,
        env={"RAY_allow_out_of_band_object_ref_serialization": "0"},
    )


@program("objects/ref-ids", "ids/object-id-alias")
def the_type_of_refs(ray):
    return [ray.ObjectID is ray.ObjectRef, ray.ObjectRef.__name__, type(ray.put(1)) is ray.ObjectRef]


@program("objects/ref-callback")
def refs_in_sets_and_dicts_over_processes(ray):
    @ray.remote
    def find(refs, wanted):
        return [wanted[0] in refs, refs[wanted[0]]]

    refs = {ray.put(number): number for number in range(3)}
    return [ray.get(find.remote(refs, [ref])) for ref in refs]
