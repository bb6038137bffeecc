"""Generators: streams of refs from tasks and actors, their errors and states, in wait, dynamic ones, back-pressure."""

# mypy: ignore-errors
# Ray cannot delegate to an iterator that is no generator: `yield from range(...)` fails there.
# ruff: noqa: UP028
from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalog import program
from ..observe import error_answer, outcome, until

AREA = "generators"
SESSION = {"num_cpus": 2}
PATIENCE = 20


def count(number):
    """Yields 0, 1, ..."""
    for item in range(number):
        yield item


def drain(ray, generator, text="last"):
    """What the rest of a stream holds: values, and errors as data."""
    return [outcome(lambda ref=ref: ray.get(ref, timeout=PATIENCE), text=text) for ref in generator]


@program("generators/streaming")
def streams_of_refs(ray):
    generator = ray.remote(count).remote(4)
    first = next(generator)
    return [
        type(generator).__name__,
        isinstance(generator, ray.ObjectRefGenerator),
        type(first).__name__,
        ray.get(first),
        [ray.get(ref) for ref in generator],
        outcome(lambda: next(generator), text="none"),
        outcome(lambda: next(generator), text="none"),
        iter(generator) is generator,
    ]


@program("generators/streaming")
def items_come_while_the_task_runs(ray):
    @ray.remote
    def steps(folder):
        for number in range(3):
            until(lambda number=number: Path(folder, str(number)).exists())
            yield number

    with TemporaryDirectory() as folder:
        generator = steps.remote(folder)
        answers = []
        for number in range(3):
            Path(folder, str(number)).touch()
            answers.append(ray.get(next(generator)))
        return [answers, outcome(lambda: next(generator), text="none")]


@program("generators/streaming")
def ways_to_ask_for_a_stream(ray):
    streaming = ray.remote(num_returns="streaming")(count).remote(2)
    by_option = ray.remote(count).options(num_returns="streaming").remote(2)
    return [
        [ray.get(list(generator)) for generator in (streaming, by_option)],
        [type(generator).__name__ for generator in (streaming, by_option)],
    ]


@program("generators/streaming")
def empty_streams_and_early_returns(ray):
    @ray.remote
    def stops(early):
        yield 1
        if early:
            return "a value"
        yield 2

    empty = ray.remote(count).remote(0)
    return [
        outcome(lambda: next(empty), text="none"),
        drain(ray, stops.remote(True)),
        drain(ray, stops.remote(False)),
    ]


@program("generators/streaming")
def what_streams_may_hold(ray):
    @ray.remote
    def odd():
        yield None
        yield ray.put("inside a ref")
        yield {"refs": [ray.put(5)]}
        yield b"x" * 1_000_000
        yield (1, 2)

    values = [ray.get(ref) for ref in odd.remote()]
    return [
        values[0],
        type(values[1]).__name__,
        ray.get(values[1]),
        ray.get(values[2]["refs"][0]),
        len(values[3]),
        values[4],
    ]


@program("generators/streaming")
def refs_of_streams_as_arguments(ray):
    double = ray.remote(lambda value: 2 * value)
    generator = ray.remote(count).remote(3)
    return ray.get([double.remote(ref) for ref in generator])


@program("generators/streaming")
def refs_of_streams_outlive_the_generator(ray):
    generator = ray.remote(count).remote(3)
    refs = list(generator)
    del generator
    gc.collect()
    return [ray.get(refs), len({ref.task_id() for ref in refs}), len(set(refs))]


@program("generators/streaming")
def streams_inside_tasks(ray):
    @ray.remote
    def total(number):
        return sum(ray.get(ref) for ref in ray.remote(count).remote(number))

    @ray.remote
    def passes_on(number):
        for ref in ray.remote(count).remote(number):
            yield ray.get(ref) * 10

    return [ray.get(total.remote(4)), [ray.get(ref) for ref in passes_on.remote(3)]]


@program("generators/streaming")
def many_items(ray):
    values = [ray.get(ref) for ref in ray.remote(count).remote(300)]
    return [len(values), values == list(range(300))]


@program("generators/streaming", "generators/async")
def streams_in_asyncio(ray):
    async def collect():
        values = [await ref async for ref in ray.remote(count).remote(4)]
        generator = ray.remote(count).remote(2)
        one = await (await generator.__anext__())
        rest = [await ref async for ref in generator]
        try:
            await generator.__anext__()
        except StopAsyncIteration:
            rest.append("stopped")
        return [values, one, rest]

    return asyncio.run(collect())


@program("generators/streaming")
def two_streams_side_by_side(ray):
    generators = [ray.remote(count).remote(3) for _ in range(2)]
    return [[ray.get(next(generator)) for generator in generators] for _ in range(3)]


@program("generators/errors")
def errors_are_the_last_item(ray):
    @ray.remote
    def fails(at):
        for number in range(3):
            if number == at:
                raise ValueError(f"at {at}")
            yield number

    answers = []
    for at in (0, 2):
        generator = fails.remote(at)
        answers.append(drain(ray, generator))
        answers.append(outcome(lambda generator=generator: next(generator), text="none"))
    return answers


@program("generators/errors")
def items_that_cannot_be_pickled(ray):
    @ray.remote
    def odd():
        import threading

        yield 1
        yield threading.Lock()
        yield 3

    return [
        {key: value for key, value in answer.items() if key != "text"} for answer in drain(ray, odd.remote(), "none")
    ]


@program("generators/errors")
def streams_of_what_is_no_generator(ray):
    def plain():
        return [1, 2]

    class Plain:
        def method(self):
            return [1, 2]

        async def coroutine(self):
            return [1, 2]

    def decorated():
        class Decorated:
            @ray.method(num_returns="streaming")
            def method(self):
                return [1, 2]

        return ray.remote(Decorated).remote().method.remote()

    actor = ray.remote(Plain).remote()
    return [
        outcome(lambda: bool(ray.remote(num_returns="streaming")(plain))),
        outcome(lambda: bool(ray.remote(plain).options(num_returns="streaming"))),
        outcome(lambda: bool(ray.remote(plain).options(num_returns="dynamic"))),
        outcome(lambda: drain(ray, actor.method.options(num_returns="streaming").remote())),
        outcome(lambda: drain(ray, actor.coroutine.options(num_returns="streaming").remote())),
        outcome(lambda: ray.get(actor.method.options(num_returns="dynamic").remote()), text="last"),
        outcome(lambda: drain(ray, decorated())),
    ]


@program("generators/errors")
def arguments_that_failed(ray):
    failed = ray.remote(lambda: 1 / 0).remote()
    return drain(ray, ray.remote(count).remote(failed), text="last")


@program("generators/errors")
def retries_do_not_repeat_items(ray):
    @ray.remote(max_retries=2, retry_exceptions=True)
    def flaky(path):
        yield 1
        yield 2
        with open(path, "a") as file:
            file.write("x")
        if len(Path(path).read_text()) < 3:
            raise ValueError("again")
        yield 3

    with TemporaryDirectory() as folder:
        answers = drain(ray, flaky.remote(f"{folder}/tries"))
        return [answers, len(Path(folder, "tries").read_text())]


@program("generators/errors")
def retries_that_run_out(ray):
    @ray.remote(max_retries=1, retry_exceptions=[ValueError])
    def flaky(path):
        yield 1
        with open(path, "a") as file:
            file.write("x")
        raise ValueError("again")

    with TemporaryDirectory() as folder:
        answers = drain(ray, flaky.remote(f"{folder}/tries"))
        return [answers, len(Path(folder, "tries").read_text())]


@program("generators/state")
def states_of_a_stream(ray):
    @ray.remote
    def steps(folder):
        yield 1
        until(Path(folder, "go").exists)
        yield 2

    with TemporaryDirectory() as folder:
        generator = steps.remote(folder)
        answers = [until(generator.next_ready), generator.is_finished()]
        ray.get(next(generator))
        answers += [generator.next_ready(), generator.is_finished()]
        Path(folder, "go").touch()
        ray.get(next(generator))
        ended = outcome(lambda: next(generator), text="none")
        return [*answers, ended, generator.is_finished()]


@program("generators/state")
def completed_refs(ray):
    @ray.remote
    def fails():
        yield 1
        raise ValueError("the end")

    done = ray.remote(count).remote(2)
    failed = fails.remote()
    return [
        type(done.completed()).__name__,
        outcome(lambda: ray.get(done.completed(), timeout=PATIENCE), text="last"),
        outcome(lambda: ray.get(failed.completed(), timeout=PATIENCE), text="last"),
        [ray.get(ref) for ref in done],
    ]


@program("generators/state")
def streams_do_not_travel(ray):
    generator = ray.remote(count).remote(2)
    return [
        outcome(lambda: pickle.dumps(generator)),
        outcome(lambda: ray.put(generator), text="first"),
        outcome(lambda: ray.remote(lambda value: value).remote(generator), text="first"),
        outcome(lambda: ray.remote(lambda value: value).remote([generator]), text="first"),
        outcome(lambda: type(ray.get(generator)).__name__, text="first"),
        [ray.get(ref) for ref in generator],
    ]


@program("generators/state")
def methods_that_generators_have(ray):
    def made():
        return ray.remote(count).remote(3)

    async def asynchronous(name, *arguments):
        return await getattr(made(), name)(*arguments)

    sent = made()
    closed = made()
    next(closed)
    return [
        outcome(lambda: ray.get(sent.send(None))),
        outcome(lambda: sent.send(5)),
        outcome(lambda: made().throw(ValueError("thrown"))),
        outcome(closed.close),
        outcome(lambda: asyncio.run(asynchronous("asend", None)) and "sent"),
        outcome(lambda: asyncio.run(asynchronous("athrow", ValueError("thrown")))),
        outcome(lambda: asyncio.run(asynchronous("aclose"))),
    ]


@program("generators/state")
def streams_compared_and_shown(ray):
    generator = ray.remote(count).remote(1)
    other = ray.remote(count).remote(1)
    return [
        generator == generator,
        generator == other,
        len({generator, other}),
        repr(generator).startswith("ObjectRefGenerator("),
        sorted(name for name in dir(generator) if not name.startswith("_") and name != "worker"),
    ]


@program("generators/wait")
def streams_in_wait(ray):
    @ray.remote
    def steps(folder, name):
        until(Path(folder, name).exists)
        yield name

    with TemporaryDirectory() as folder:
        one, two = steps.remote(folder, "one"), steps.remote(folder, "two")
        none = ray.wait([one, two], timeout=0.1)
        Path(folder, "two").touch()
        ready, waiting = ray.wait([one, two], timeout=PATIENCE)
        answers = [
            [len(part) for part in none],
            [ready[0] is two, waiting[0] is one],
            ray.get(next(ready[0])),
        ]
        Path(folder, "one").touch()
        ready, waiting = ray.wait([one], timeout=PATIENCE)
        return [*answers, len(ready), len(waiting), ray.get(next(one))]


@program("generators/wait")
def streams_and_refs_in_wait(ray):
    generator = ray.remote(count).remote(2)
    ref = ray.put(5)
    until(generator.next_ready)
    ready, waiting = ray.wait([generator, ref], num_returns=2, timeout=PATIENCE)
    return [
        [type(item).__name__ for item in ready],
        waiting,
        outcome(lambda: ray.wait([generator, generator]), text="first"),
        outcome(lambda: ray.wait(generator), text="first"),
    ]


@program("generators/wait")
def ended_streams_are_ready(ray):
    generator = ray.remote(count).remote(1)
    for ref in generator:
        ray.get(ref)
    ready, waiting = ray.wait([generator], timeout=1)
    return [len(ready), len(waiting), outcome(lambda: next(generator), text="none")]


@program("generators/wait")
def collecting_streams_with_wait(ray):
    waiting = [ray.remote(count).remote(number) for number in (1, 3, 2)]
    values = []
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            values.append(ray.get(next(ready)))
            waiting.append(ready)
        except StopIteration:
            values.append("end")
    return sorted(map(str, values))


@program("generators/worker-death")
def workers_that_die_end_the_stream(ray):
    @ray.remote(max_retries=0)
    def dies():
        yield 1
        yield os.getpid()
        time.sleep(30)

    generator = dies.remote()
    first, pid = ray.get([next(generator), next(generator)])
    os.kill(pid, signal.SIGKILL)
    rest = drain(ray, generator, text="none")
    return [first, rest, outcome(lambda: next(generator), text="none")]


@program("generators/worker-death")
def workers_that_die_are_retried(ray):
    @ray.remote(max_retries=1)
    def dies(path):
        yield 1
        yield 2
        if not Path(path).exists():
            Path(path).touch()
            os._exit(1)
        yield 3

    with TemporaryDirectory() as folder:
        return drain(ray, dies.remote(f"{folder}/died"), text="none")


@program("generators/worker-death")
def actors_that_die_end_the_stream(ray):
    class Dies:
        def items(self):
            yield 1
            yield os.getpid()
            time.sleep(30)

    killed, crashed = (ray.remote(Dies).remote() for _ in range(2))
    answers = []
    for actor in (killed, crashed):
        generator = actor.items.remote()
        _, pid = ray.get([next(generator), next(generator)])
        if actor is killed:
            ray.kill(actor)
        else:
            os.kill(pid, signal.SIGKILL)
        answers += [drain(ray, generator, text="none"), outcome(lambda g=generator: next(g), text="none")]
    return answers


@program("generators/worker-death", "cancel/running")
def cancelled_streams(ray):
    @ray.remote
    def endless():
        yield 1
        for _ in range(3000):
            time.sleep(0.01)
        yield 2

    generator = endless.remote()
    first = ray.get(next(generator))
    returned = ray.cancel(generator)
    rest = drain(ray, generator, text="was cancelled")
    return [first, returned, rest, outcome(lambda: next(generator), text="none")]


@program("generators/dynamic")
def dynamic_returns(ray):
    ref = ray.remote(num_returns="dynamic")(count).remote(3)
    value = ray.get(ref)
    refs = list(value)
    return [
        type(ref).__name__,
        type(value).__name__,
        [len(ray.get(ref)), len(value)],
        ray.get(refs),
        [ray.get(inner) for inner in ray.get(ref)],
        len(pickle.dumps(value)) > 0,
    ]


@program("generators/dynamic")
def dynamic_returns_as_arguments(ray):
    @ray.remote
    def total(generator):
        return sum(ray.get(ref) for ref in generator)

    @ray.remote
    def nested(box):
        return sum(ray.get(ref) for ref in ray.get(box[0]))

    ref = ray.remote(num_returns="dynamic")(count).remote(4)
    return [ray.get(total.remote(ref)), ray.get(nested.remote([ref])), ray.get(total.remote(ray.get(ref)))]


@program("generators/dynamic", "generators/errors")
def errors_of_dynamic_returns(ray):
    @ray.remote(num_returns="dynamic")
    def fails():
        yield 1
        raise ValueError("in the middle")

    ref = fails.remote()
    whole = outcome(lambda: [outcome(lambda inner=inner: ray.get(inner), "last") for inner in ray.get(ref)], "last")
    return [whole, outcome(lambda: ray.get(ray.remote(num_returns="dynamic")(lambda: 5).remote()), text="last")]


@program("generators/dynamic", "tasks/num-returns-mismatch")
def numbers_of_returns_of_generators(ray):
    fixed = ray.remote(num_returns=3)(count)
    return [
        ray.get(fixed.remote(3)),
        [outcome(lambda ref=ref: ray.get(ref), text="last") for ref in fixed.remote(2)],
        [outcome(lambda ref=ref: ray.get(ref), text="last") for ref in fixed.remote(4)],
        outcome(lambda: ray.get(ray.remote(num_returns=1)(count).remote(1)), text="last"),
    ]


@program("generators/dynamic")
def generators_that_plain_functions_return(ray):
    def returns(number):
        return (item for item in range(number))

    def fails():
        yield 1
        raise ValueError("in the middle")

    return [
        outcome(lambda: ray.get(ray.remote(returns).remote(2)), text="last"),
        [outcome(lambda ref=ref: ray.get(ref), "last") for ref in ray.remote(num_returns=2)(returns).remote(2)],
        [outcome(lambda ref=ref: ray.get(ref), "last") for ref in ray.remote(num_returns=3)(fails).remote()],
        outcome(lambda: ray.get(ray.remote(num_returns=1)(count).remote(0)), text="last"),
        outcome(lambda: ray.remote(num_returns=0)(count).remote(2)),
    ]


@program("generators/backpressure")
def producers_wait_for_the_consumer(ray):
    @ray.remote(_generator_backpressure_num_objects=2)
    def steps(path):
        for number in range(6):
            with open(path, "a") as file:
                file.write("x")
            yield number

    with TemporaryDirectory() as folder:
        path = Path(folder, "made")
        generator = steps.remote(str(path))

        def made():
            return len(path.read_text()) if path.exists() else 0

        reached = until(lambda: made() >= 2)
        time.sleep(0.5)
        ahead = made() <= 3
        values = [ray.get(ref) for ref in generator]
        return [reached, ahead, values, made()]


@program("generators/backpressure")
def dropped_streams_let_the_producer_go(ray):
    @ray.remote(_generator_backpressure_num_objects=1)
    def steps(path):
        for number in range(4):
            yield number
        Path(path).touch()

    with TemporaryDirectory() as folder:
        generator = steps.remote(f"{folder}/ended")
        ray.get(next(generator))
        del generator
        gc.collect()
        return until(Path(folder, "ended").exists)


@program("generators/backpressure")
def back_pressure_that_is_refused(ray):
    def both(value):
        return [
            outcome(lambda: bool(ray.remote(_generator_backpressure_num_objects=value)(count))),
            outcome(lambda: bool(ray.remote(count).options(_generator_backpressure_num_objects=value))),
            outcome(lambda: bool(ray.method(_generator_backpressure_num_objects=value)(count))),
        ]

    return [both(0), both(-1), both(1)]


@program("generators/backpressure", "generators/async")
def back_pressure_in_actors(ray):
    class Makes:
        def __init__(self):
            self.made = 0

        @ray.method(_generator_backpressure_num_objects=1)
        async def items(self, number):
            for item in range(number):
                self.made += 1
                yield item

        async def count(self):
            return self.made

    actor = ray.remote(Makes).remote()
    generator = actor.items.remote(5)
    until(lambda: ray.get(actor.count.remote()) >= 1)
    time.sleep(0.3)
    before = ray.get(actor.count.remote()) <= 2
    return [before, [ray.get(ref) for ref in generator], ray.get(actor.count.remote())]


class Produces:
    """An actor with generator methods."""

    def items(self, number):
        for item in range(number):
            yield item

    def fails(self):
        yield 1
        raise ValueError("in the actor")

    def get(self):
        return "there"


@program("generators/async", "generators/streaming")
def streams_of_actors(ray):
    actor = ray.remote(Produces).remote()
    generator = actor.items.remote(3)
    return [
        type(generator).__name__,
        [ray.get(ref) for ref in generator],
        drain(ray, actor.fails.remote(), text="last"),
        ray.get(actor.get.remote()),
        type(actor.items.options(num_returns="dynamic").remote(2)).__name__,
        [ray.get(ref) for ref in ray.get(actor.items.options(num_returns="dynamic").remote(2))],
        ray.get(actor.items.options(num_returns=2).remote(2)),
    ]


@program("generators/async")
def streams_of_threaded_actors(ray):
    actor = ray.remote(max_concurrency=3)(Produces).remote()
    generators = [actor.items.remote(3) for _ in range(3)]
    return [[ray.get(ref) for ref in generator] for generator in generators]


@program("generators/async")
def async_streams_of_actors(ray):
    class Async:
        async def items(self, number):
            for item in range(number):
                await asyncio.sleep(0)
                yield item

        async def fails(self):
            yield 1
            raise ValueError("in the coroutine")

        def plain(self, number):
            for item in range(number):
                yield item

        async def get(self):
            return "there"

    actor = ray.remote(Async).remote()
    return [
        [ray.get(ref) for ref in actor.items.remote(3)],
        drain(ray, actor.fails.remote(), text="last"),
        [ray.get(ref) for ref in actor.plain.remote(2)],
        ray.get(actor.get.remote()),
    ]


@program("generators/async")
def async_streams_run_side_by_side(ray):
    class Meets:
        def __init__(self):
            self.came = 0

        async def items(self):
            self.came += 1
            while self.came < 3:
                await asyncio.sleep(0.01)
            yield self.came
            yield "end"

    actor = ray.remote(Meets).remote()
    generators = [actor.items.remote() for _ in range(3)]
    return [[ray.get(ref) for ref in generator] for generator in generators]


@program("generators/async", "generators/worker-death")
def cancelled_async_streams(ray):
    class Endless:
        def __init__(self):
            self.seen = []

        async def items(self):
            try:
                yield 1
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise

        async def get(self):
            return self.seen

    actor = ray.remote(Endless).remote()
    generator = actor.items.remote()
    first = ray.get(next(generator))
    ray.cancel(generator)
    rest = drain(ray, generator, text="none")
    # Whether the generator itself sees a CancelledError is chance on Ray.
    return [first, rest, len(ray.get(actor.get.remote())) <= 1]


@program("generators/async")
def streams_between_actors(ray):
    class Consumes:
        async def total(self, producer):
            total = 0
            async for ref in producer.items.remote(5):
                total += await ref
            return total

    return ray.get(ray.remote(Consumes).remote().total.remote(ray.remote(Produces).remote()))


@program("generators/errors")
def texts_of_errors_in_streams(ray):
    @ray.remote
    def fails():
        yield 1
        raise KeyError("the text")

    generator = fails.remote()
    next(generator)
    try:
        ray.get(next(generator))
    except Exception as error:
        answer = error_answer(error)
        # Ray cuts one line too many here: the one that names the file.
        answer["text"] = [line for line in answer["text"].splitlines() if not line.lstrip().startswith("File")]
        return answer
