"""Concurrency: async actors, threaded actors, concurrency groups, awaiting refs."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalog import program
from ..observe import outcome, run_script, until

AREA = "concurrency"
SESSION = {"num_cpus": 4}


class Gate:
    """An async actor in which calls meet."""

    def __init__(self):
        self.inside = 0
        self.most = 0
        self.opened = asyncio.Event()

    async def enter(self, wanted=0):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if wanted:
                while self.most < wanted:
                    await asyncio.sleep(0.001)
            else:
                await self.opened.wait()
        finally:
            self.inside -= 1
        return "through"

    async def open(self):
        self.opened.set()

    async def seen(self):
        return self.most

    def thread(self):
        return threading.get_ident()

    async def async_thread(self):
        return threading.get_ident()


# ---- async actors ----


@program("concurrency/async-actors")
def coroutines_run_side_by_side(ray):
    gate = ray.remote(Gate).remote()
    calls = [gate.enter.remote(20) for _ in range(20)]
    return [sorted(set(ray.get(calls))), ray.get(gate.seen.remote())]


@program("concurrency/async-actors")
def later_calls_release_earlier_ones(ray):
    gate = ray.remote(Gate).remote()
    waiting = [gate.enter.remote() for _ in range(3)]
    none = ray.wait(waiting, timeout=0.2)[0]
    ray.get(gate.open.remote())
    return [none, ray.get(waiting)]


@program("concurrency/async-actors")
def calls_arrive_while_another_thread_waits(ray):
    class Waits:
        def __init__(self):
            self.event = asyncio.Event()

        async def wait(self):
            await self.event.wait()
            return "woken"

        async def wake(self, path):
            Path(path).touch()
            self.event.set()

        async def get(self):
            return "there"

    actor = ray.remote(Waits).remote()
    ray.get(actor.get.remote())
    values = []
    thread = threading.Thread(target=lambda: values.append(ray.get(actor.wait.remote())))
    thread.start()
    time.sleep(0.1)
    answers = [ray.get(actor.get.remote(), timeout=20)]
    with TemporaryDirectory() as folder:
        forgotten = actor.wake.remote(f"{folder}/woken")
        answers.append(until(Path(folder, "woken").exists))
        thread.join(20)
        return [*answers, values, ray.get(forgotten)]


@program("concurrency/async-actors")
def one_loop_thread_for_all_methods(ray):
    class Threads:
        def __init__(self):
            self.made_in = threading.get_ident()

        def plain(self):
            asyncio.get_running_loop()
            return threading.get_ident()

        async def coroutine(self):
            return threading.get_ident()

        async def made(self):
            return [self.made_in == threading.get_ident(), threading.current_thread() is threading.main_thread()]

    actor = ray.remote(Threads).remote()
    plain, again, coroutine = ray.get([actor.plain.remote(), actor.plain.remote(), actor.coroutine.remote()])
    return [plain == again == coroutine, ray.get(actor.made.remote())]


@program("concurrency/async-actors")
def constructors_of_async_actors(ray):
    class Made:
        def __init__(self):
            self.event = asyncio.Event()
            self.loop = asyncio.get_running_loop()
            self.task = asyncio.get_running_loop().create_task(self.later())

        async def later(self):
            await asyncio.sleep(0)
            self.event.set()

        async def wait(self):
            await self.event.wait()
            return asyncio.get_running_loop() is self.loop

    return outcome(lambda: ray.get(ray.remote(Made).remote().wait.remote()), text="last")


@program("concurrency/async-actors", "concurrency/max-concurrency")
def hundreds_of_waiting_calls(ray):
    gate = ray.remote(max_concurrency=2000)(Gate).remote()
    waiting = [gate.enter.remote(300) for _ in range(300)]
    return [len(ray.get(waiting)), ray.get(gate.seen.remote())]


@program("concurrency/async-actors")
def errors_of_coroutines(ray):
    class Fails:
        async def fail(self):
            await asyncio.sleep(0)
            raise ValueError("in a coroutine")

        async def get(self):
            return "there"

    actor = ray.remote(Fails).remote()
    answer = outcome(lambda: ray.get(actor.fail.remote()))
    lines = answer.pop("text").splitlines()
    # Ray shows two frames of the standard library's futures here.
    return [answer, [lines[0], *lines[-3:]], ray.get(actor.get.remote())]


@program("concurrency/async-actors")
def arguments_of_coroutines(ray):
    class Echoes:
        async def echo(self, value, *rest, key=None):
            return [value, rest, key]

        async def nested(self, box):
            return [type(box[0]).__name__, await box[0]]

    actor = ray.remote(Echoes).remote()
    ref = ray.put(5)
    return ray.get([actor.echo.remote(ref, 1, ref, key=ref), actor.nested.remote([ref])])


@program("concurrency/async-actors")
def plain_methods_that_return_coroutines(ray):
    class Returns:
        def plain(self):
            return self.coroutine()

        async def coroutine(self):
            return 5

        async def gathers(self):
            return await asyncio.gather(self.coroutine(), self.coroutine())

    actor = ray.remote(Returns).remote()
    return [outcome(lambda: ray.get(actor.plain.remote()), text="none"), ray.get(actor.gathers.remote())]


@program("concurrency/async-actors")
def context_variables_of_calls(ray):
    class Sets:
        def __init__(self):
            self.variable = contextvars.ContextVar("variable", default="unset")

        async def set(self, value, wait):
            self.variable.set(value)
            await asyncio.sleep(wait)
            return self.variable.get()

        async def get(self):
            return self.variable.get()

    actor = ray.remote(Sets).remote()
    return [ray.get([actor.set.remote("one", 0.05), actor.set.remote("two", 0)]), ray.get(actor.get.remote())]


@program("concurrency/async-actors")
def the_context_of_each_call(ray):
    class Looks:
        async def look(self):
            first = ray.get_runtime_context().get_task_id()
            await asyncio.sleep(0.02)
            return [first, ray.get_runtime_context().get_task_id(), ray.get_runtime_context().get_task_name()]

    actor = ray.remote(Looks).remote()
    rows = ray.get([actor.look.remote() for _ in range(3)])
    return [len({row[0] for row in rows}), all(row[0] == row[1] for row in rows), rows[0][2]]


@program("concurrency/async-actors")
def background_tasks_of_async_actors(ray):
    class Background:
        def __init__(self):
            self.count = 0

        async def start(self):
            self.task = asyncio.create_task(self.run())

        async def run(self):
            for _ in range(5):
                await asyncio.sleep(0.001)
                self.count += 1

        async def get(self):
            return self.count

    actor = ray.remote(Background).remote()
    ray.get(actor.start.remote())
    return until(lambda: ray.get(actor.get.remote()) == 5)


@program("concurrency/async-actors")
def blocking_get_in_coroutines(ray):
    class Blocks:
        async def block(self):
            return ray.get(ray.put(5))

        async def wait(self):
            return len(ray.wait([ray.put(5)])[0])

    actor = ray.remote(Blocks).remote()
    return ray.get([actor.block.remote(), actor.wait.remote()])


@program("concurrency/async-actors")
def out_of_order_refused_for_async(ray):
    class Async:
        async def get(self):
            return 1

    class Plain:
        def get(self):
            return 1

    return [
        outcome(lambda: bool(ray.remote(allow_out_of_order_execution=False)(Async))),
        outcome(lambda: ray.remote(Async).options(allow_out_of_order_execution=False).remote() and "made"),
        outcome(lambda: ray.remote(allow_out_of_order_execution=False, max_concurrency=2)(Plain).remote() and "made"),
        outcome(lambda: ray.remote(allow_out_of_order_execution=False)(Plain).remote() and "made"),
        outcome(lambda: ray.remote(allow_out_of_order_execution=True)(Async).remote() and "made"),
    ]


@program("concurrency/async-actors", "actors/exit-actor")
def exiting_async_actors(ray):
    class Leaves:
        async def leave(self):
            ray.actor.exit_actor()

        async def nested(self):
            async def inner():
                ray.actor.exit_actor()

            await asyncio.create_task(inner())

        async def caught(self):
            try:
                ray.actor.exit_actor()
            except BaseException as error:
                return type(error).__name__

        async def get(self):
            return 1

    answers = []
    # Whether Ray names the reason is chance.
    for name in ("leave", "nested", "caught"):
        actor = ray.remote(Leaves).remote()
        answers.append(outcome(lambda actor=actor, name=name: ray.get(getattr(actor, name).remote()), text="none"))
        answers.append(outcome(lambda actor=actor: ray.get(actor.get.remote()), text="none"))
    return answers


@program("concurrency/async-actors", "actors/exit-actor")
def what_exit_raises_in_coroutines(ray):
    class Leaves:
        async def leave(self, box):
            try:
                ray.actor.exit_actor()
            except BaseException as error:
                await box[0].note.remote([type(error).__name__, isinstance(error, Exception)])
                raise

    class Notes:
        def note(self, value):
            self.value = value

        def get(self):
            return self.value

    notes = ray.remote(Notes).remote()
    answer = outcome(lambda: ray.get(ray.remote(Leaves).remote().leave.remote([notes])), text="none")
    return [answer, ray.get(notes.get.remote())]


# ---- max_concurrency ----


class Meter:
    """Counts how many calls are inside at once, for threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def enter(self, seconds=0.02):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(seconds)
        with self.lock:
            self.inside -= 1
        return threading.get_ident()

    def seen(self):
        return self.most


@program("concurrency/max-concurrency")
def bounds_of_async_actors(ray):
    class Counted:
        def __init__(self):
            self.inside = self.most = 0

        async def enter(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.005)
            self.inside -= 1

        async def seen(self):
            return self.most

    answers = []
    for bound in (1, 3):
        actor = ray.remote(Counted).options(max_concurrency=bound).remote()
        ray.get([actor.enter.remote() for _ in range(9)])
        answers.append(ray.get(actor.seen.remote()))
    return answers


@program("concurrency/max-concurrency", "concurrency/threaded")
def bounds_of_threaded_actors(ray):
    answers = []
    for bound in (1, 3):
        meter = ray.remote(Meter).options(max_concurrency=bound).remote()
        threads = ray.get([meter.enter.remote() for _ in range(9)])
        answers.append([ray.get(meter.seen.remote()), len(set(threads)) <= bound])
    return answers


@program("concurrency/max-concurrency")
def bounds_in_the_decorator_and_in_options(ray):
    decorated = ray.remote(max_concurrency=2)(Meter)
    answers = []
    for actor_class in (decorated, decorated.options(max_concurrency=1)):
        meter = actor_class.remote()
        ray.get([meter.enter.remote(0.05) for _ in range(6)])
        answers.append(ray.get(meter.seen.remote()))
    return answers


# ---- threaded actors ----


@program("concurrency/threaded")
def threads_meet(ray):
    class Meets:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            return self.barrier.wait(20)

    actor = ray.remote(max_concurrency=4)(Meets).remote()
    return sorted(ray.get([actor.meet.remote() for _ in range(4)]))


@program("concurrency/threaded")
def thread_locals_stay(ray):
    class Locals:
        def __init__(self):
            self.local = threading.local()

        def add(self):
            self.local.count = getattr(self.local, "count", 0) + 1
            time.sleep(0.002)
            return [threading.get_ident(), self.local.count]

    actor = ray.remote(max_concurrency=2)(Locals).remote()
    rows = ray.get([actor.add.remote() for _ in range(10)])
    highest = {}
    for thread, count in rows:
        highest[thread] = max(count, highest.get(thread, 0))
    return [len(highest) <= 2, sum(highest.values())]


@program("concurrency/threaded")
def the_api_in_every_thread(ray):
    class Calls:
        def call(self, number):
            ref = ray.put(number)
            doubled = ray.remote(num_cpus=0)(lambda value: 2 * value).remote(ref)
            ready, _ = ray.wait([doubled], timeout=20)
            return ray.get(ready[0])

    actor = ray.remote(max_concurrency=4)(Calls).remote()
    return ray.get([actor.call.remote(number) for number in range(8)])


@program("concurrency/threaded")
def threads_that_users_start(ray):
    class Starts:
        def run(self):
            values = []
            thread = threading.Thread(target=lambda: values.append(ray.get(ray.put(7))))
            thread.start()
            thread.join(20)
            return values

    return ray.get(ray.remote(Starts).remote().run.remote())


@program("concurrency/threaded")
def errors_in_threads(ray):
    class Fails:
        def fail(self, number):
            raise ValueError(f"number {number}")

        def get(self):
            return "there"

    actor = ray.remote(max_concurrency=3)(Fails).remote()
    calls = [actor.fail.remote(number) for number in range(3)]
    return [[outcome(lambda call=call: ray.get(call), text="last") for call in calls], ray.get(actor.get.remote())]


@program("concurrency/threaded")
def where_threaded_methods_run(ray):
    class Looks:
        def __init__(self):
            self.made_in_main = threading.current_thread() is threading.main_thread()

        def look(self):
            return [
                self.made_in_main,
                threading.current_thread() is threading.main_thread(),
                outcome(asyncio.get_running_loop, text="none"),
            ]

    return ray.get(ray.remote(max_concurrency=2)(Looks).remote().look.remote())


@program("concurrency/threaded", "actors/order")
def out_of_order_execution(ray):
    class Records:
        def __init__(self):
            self.seen = []

        def record(self, value):
            self.seen.append(value)

        def get(self):
            return self.seen

    records = ray.remote(allow_out_of_order_execution=True)(Records).remote()
    with TemporaryDirectory() as folder:
        slow = records.record.remote(ray.remote(until).remote(Path(folder, "go").exists))
        ray.get(records.record.remote("quick"))
        first = ray.get(records.get.remote())
        Path(folder, "go").touch()
        ray.get(slow)
    return [first, ray.get(records.get.remote())]


# ---- concurrency groups ----


def grouped(ray):
    class Grouped:
        def __init__(self):
            self.go = threading.Event()

        @ray.method(concurrency_group="io")
        def block(self):
            return self.go.wait(20)

        @ray.method(concurrency_group="compute")
        def compute(self):
            return threading.get_ident()

        def release(self):
            self.go.set()
            return threading.get_ident()

        def thread(self):
            return threading.get_ident()

    return ray.remote(concurrency_groups={"io": 2, "compute": 1})(Grouped)


@program("concurrency/groups")
def a_blocked_group_blocks_no_other(ray):
    actor = grouped(ray).remote()
    blocked = [actor.block.remote() for _ in range(3)]
    threads = ray.get([actor.compute.remote() for _ in range(3)])
    none = ray.wait(blocked, timeout=0)[0]
    ray.get(actor.release.remote())
    return [len(set(threads)), none, ray.get(blocked)]


@program("concurrency/groups")
def groups_by_option_of_the_call(ray):
    actor = grouped(ray).remote()
    compute = ray.get(actor.compute.remote())
    default = ray.get(actor.thread.remote())
    moved = ray.get(actor.thread.options(concurrency_group="compute").remote())
    return [compute != default, moved == compute, ray.get(actor.thread.remote()) == default]


@program("concurrency/groups")
def groups_that_do_not_exist(ray):
    class Unknown:
        @ray.method(concurrency_group="nowhere")
        def get(self):
            return 1

    actor = grouped(ray).remote()
    called = outcome(lambda: ray.get(actor.thread.options(concurrency_group="nowhere").remote(), timeout=10))
    return [
        # Ray's actor dies of it.
        "raises" in called,
        # Ray says nothing here.
        outcome(lambda: ray.remote(Unknown).remote() and "made", text="none"),
        outcome(lambda: ray.remote(concurrency_groups={"io": 1})(Unknown).remote() and "made", text="none"),
    ]


@program("concurrency/groups")
def groups_of_async_actors(ray):
    class Async:
        @ray.method(concurrency_group="io")
        async def io(self):
            return threading.get_ident()

        @ray.method(concurrency_group="compute")
        async def compute(self):
            return threading.get_ident()

        async def default(self):
            return threading.get_ident()

        @ray.method(concurrency_group="compute")
        async def block(self):
            time.sleep(0.3)

    actor = ray.remote(concurrency_groups={"io": 2, "compute": 4})(Async).remote()
    threads = ray.get([actor.io.remote(), actor.compute.remote(), actor.default.remote()])
    again = ray.get([actor.io.remote(), actor.compute.remote(), actor.default.remote()])
    blocked = actor.block.remote()
    ray.get(actor.io.remote())
    return [len(set(threads)), threads == again, ray.get(blocked)]


@program("concurrency/groups", "concurrency/max-concurrency")
def sizes_of_groups(ray):
    class Measured:
        def __init__(self):
            self.inside = {"io": 0, "compute": 0}
            self.most = {"io": 0, "compute": 0}

        async def enter(self, group):
            self.inside[group] += 1
            self.most[group] = max(self.most[group], self.inside[group])
            await asyncio.sleep(0.01)
            self.inside[group] -= 1

        async def seen(self):
            return self.most

    actor = ray.remote(concurrency_groups={"io": 2, "compute": 1})(Measured).remote()
    ray.get([actor.enter.options(concurrency_group=group).remote(group) for group in ("io", "compute") * 4])
    return ray.get(actor.seen.remote())


@program("concurrency/groups", "actors/order")
def order_is_kept_in_a_group(ray):
    class Records:
        def __init__(self):
            self.seen = []

        @ray.method(concurrency_group="one")
        def record(self, value):
            self.seen.append(value)

        def get(self):
            return self.seen

    actor = ray.remote(concurrency_groups={"one": 1})(Records).remote()
    ray.get([actor.record.remote(number) for number in range(20)])
    return ray.get(actor.get.remote()) == list(range(20))


@program("concurrency/groups")
def groups_of_wrong_kind(ray):
    def made(groups):
        class Grouped:
            def get(self):
                return 1

        return outcome(lambda: bool(ray.remote(concurrency_groups=groups)(Grouped)), text="first")

    return [made({"io": 1}), made({}), made([]), made([{"name": "io", "max_concurrency": 2}]), made("io"), made(5)]


@program("concurrency/groups")
def a_group_that_reaches_a_blocked_actor(ray):
    class Blocked:
        def __init__(self):
            self.go = threading.Event()

        def block(self):
            return self.go.wait(20)

        @ray.method(concurrency_group="control")
        def release(self):
            self.go.set()
            return "released"

    actor = ray.remote(concurrency_groups={"control": 1})(Blocked).remote()
    blocked = actor.block.remote()
    return [ray.get(actor.release.remote(), timeout=10), ray.get(blocked, timeout=10)]


@program("concurrency/groups", "generators/async")
def streams_in_groups(ray):
    class Streams:
        @ray.method(concurrency_group="io")
        def items(self):
            yield threading.get_ident()
            yield threading.get_ident()

        @ray.method(concurrency_group="io")
        def thread(self):
            return threading.get_ident()

    actor = ray.remote(concurrency_groups={"io": 1})(Streams).remote()
    return len({ray.get(ref) for ref in actor.items.remote()} | {ray.get(actor.thread.remote())})


# ---- awaiting refs ----


@program("concurrency/await")
def gathering_refs(ray):
    double = ray.remote(lambda value: 2 * value)

    async def gathers():
        refs = [double.remote(number) for number in range(4)]
        return await asyncio.gather(*refs)

    class Gathers:
        async def gather(self):
            return await asyncio.gather(*[double.remote(number) for number in range(4)])

    return [asyncio.run(gathers()), ray.get(ray.remote(Gathers).remote().gather.remote())]


@program("concurrency/await")
def gathering_errors(ray):
    fails = ray.remote(lambda value: 1 // value)

    async def gathers():
        refs = [fails.remote(number) for number in (1, 0)]
        values = await asyncio.gather(*refs, return_exceptions=True)
        try:
            await refs[1]
        except ZeroDivisionError as error:
            return [values[0], type(values[1]).__name__, type(error).__name__]

    return asyncio.run(gathers())


@program("concurrency/await")
def waiting_for_the_first(ray):
    slow = ray.remote(lambda: time.sleep(1) or "slow")
    quick = ray.remote(lambda: "quick")

    async def waits():
        tasks = [asyncio.wrap_future(ref.future()) for ref in (slow.remote(), quick.remote())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = [task.result() for task in done]
        return [first, len(pending), [await task for task in pending]]

    return asyncio.run(waits())


@program("concurrency/await")
def giving_up_waiting_leaves_the_task(ray):
    slow = ray.remote(lambda: time.sleep(0.5) or "done")

    async def waits():
        ref = slow.remote()
        future = ref.as_future()
        try:
            await asyncio.wait_for(future, 0.05)
        except asyncio.TimeoutError:
            cancelled = future.cancelled()
        return [cancelled, await ref]

    return asyncio.run(waits())


@program("concurrency/await")
def awaiting_in_async_actors(ray):
    class Awaits:
        async def all(self, box):
            values = [await ref for ref in box]
            try:
                await asyncio.wait_for(ray.remote(lambda: time.sleep(0.5)).remote(), 0.05)
            except asyncio.TimeoutError:
                values.append("timeout")
            return values

        async def other(self, handle):
            return await handle.get.remote()

    class Plain:
        def get(self):
            return "plain"

    actor = ray.remote(Awaits).remote()
    return ray.get([actor.all.remote([ray.put(1), ray.put(2)]), actor.other.remote(ray.remote(Plain).remote())])


@program("concurrency/await")
def awaiting_the_dead(ray):
    class Dies:
        def die(self):
            import os

            os._exit(1)

    async def waits():
        actor = ray.remote(Dies).remote()
        try:
            await actor.die.remote()
        except ray.exceptions.RayActorError as error:
            return type(error).__name__

    return asyncio.run(waits())


@program("concurrency/await")
def awaiting_the_same_ref_twice(ray):
    async def waits():
        ref = ray.remote(lambda: time.sleep(0.05) or [1]).remote()
        first, second = await asyncio.gather(ref, ref)
        return [first, second, await ref]

    return asyncio.run(waits())


@program("concurrency/await", "concurrency/threaded")
def futures_in_executors(ray):
    async def waits():
        loop = asyncio.get_running_loop()
        refs = [ray.put(number) for number in range(4)]
        return await asyncio.gather(*[loop.run_in_executor(None, ray.get, ref) for ref in refs])

    return asyncio.run(waits())


@program("concurrency/await")
def futures_and_their_results(ray):
    import concurrent.futures

    refs = [ray.remote(lambda number=number: number * 2).remote() for number in range(3)]
    futures = [ref.future() for ref in refs]
    done, not_done = concurrent.futures.wait(futures, timeout=20)
    failed = ray.remote(lambda: 1 / 0).remote().future()
    return [
        sorted(future.result() for future in done),
        len(not_done),
        type(failed.exception(timeout=20)).__name__,
        outcome(lambda: failed.result(timeout=20), text="none")["raises"],
    ]


# ---- coroutine functions ----


@program("concurrency/async-functions")
def coroutine_functions_are_no_tasks(ray):
    async def coroutine():
        return 1

    async def items():
        yield 1

    return [
        outcome(lambda: bool(ray.remote(coroutine)) and ray.get(ray.remote(coroutine).remote())),
        outcome(lambda: bool(ray.remote(num_cpus=1)(coroutine)) and ray.get(ray.remote(coroutine).remote())),
        outcome(lambda: ray.get(ray.remote(lambda: asyncio.run(coroutine())).remote())),
    ]


@program("concurrency/max-concurrency", "actors/options", fresh=True)
def what_a_worker_says_of_a_bad_bound(ray):
    finished = run_script(
        ray,
        """
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False)

        class A:
            def get(self):
                return 1

        try:
            print(ray.get(ray.remote(A).options(max_concurrency=0).remote().get.remote(), timeout=5))
        except Exception as error:
            print(type(error).__name__)
        """,
    )
    return [finished["code"], [line for line in finished["out"] if "pid=" not in line]]
