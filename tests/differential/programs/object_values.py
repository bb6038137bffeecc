"""Objects: put, get and wait, sizes, numpy, the store's limits."""

# mypy: ignore-errors
from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

from ..catalog import program
from ..observe import outcome

AREA = "objects"
SESSION = {"num_cpus": 3, "object_store_memory": 200 * 1024 * 1024}


def slow(seconds, value=None):
    time.sleep(seconds)
    return value


def fail(message="failed"):
    raise ValueError(message)


def until_exists(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return "released"


class Gate:
    """Something that tasks wait for until the program opens it."""

    def __init__(self):
        self.path = os.path.join(tempfile.mkdtemp(), "open")

    def open(self):
        Path(self.path).touch()


@program("objects/put-get")
def values_come_back_equal(ray):
    values = [
        None,
        True,
        0,
        -1,
        1.5,
        2**70,
        "text",
        "äöü",
        b"bytes",
        [],
        [1, [2]],
        (1, (2,)),
        {"a": {"b": 1}},
        {1, 2},
        1j,
    ]
    back = ray.get([ray.put(value) for value in values])
    return [[type(value).__name__, value == original] for value, original in zip(back, values, strict=True)]


@program("objects/put-get")
def values_come_back_as_copies(ray):
    original = [1, [2]]
    ref = ray.put(original)
    original[1].append(3)
    first, second = ray.get(ref), ray.get(ref)
    first.append("mine")
    return [first, second, first is second, ray.get(ref)]


@program("objects/put-get")
def sizes_around_the_inline_limit(ray):
    @ray.remote
    def echo(value):
        return value

    sizes = [0, 1, 100 * 1024 - 1, 100 * 1024, 100 * 1024 + 1, 1024 * 1024]
    values = [bytes([size % 251]) * size for size in sizes]
    back = ray.get([ray.put(value) for value in values])
    through = ray.get([echo.remote(value) for value in values])
    return [[len(a), a == value, b == value] for a, b, value in zip(back, through, values, strict=True)]


@program("objects/put-ref")
def putting_a_ref(ray):
    ref = ray.put(1)
    return [outcome(lambda: ray.put(ref)), ray.get(ray.get(ray.put([ref]))[0])]


@program("objects/put-get")
def put_arguments(ray):
    return [
        outcome(lambda: bool(ray.put()), text="none"),
        outcome(lambda: bool(ray.put(1, 2, 3, 4)), text="none"),
        type(ray.put(1)).__name__,
        outcome(lambda: ray.get(ray.put(value=5))),
    ]


@program("objects/get-list")
def getting_lists(ray):
    one, two = ray.put(1), ray.put([2])
    twice = ray.get([two, two])
    return [ray.get([]), ray.get([one]), ray.get([two, one, two]), twice[0] is twice[1], ray.get([one] * 5)]


@program("objects/get-list")
def getting_many(ray):
    refs = [ray.put(number) for number in range(3000)]
    return [sum(ray.get(refs)), ray.get(refs[::-1])[0]]


@program("objects/get-invalid")
def getting_what_is_no_ref(ray):
    ref = ray.put(1)
    return [
        outcome(lambda value=value: ray.get(value))
        for value in (1, None, "text", {"a": ref}, {ref}, (ref, ref), ref.binary())
    ]


@program("objects/get-invalid")
def getting_lists_with_what_is_no_ref(ray):
    ref = ray.put(1)
    return [
        outcome(lambda value=value: ray.get(value)) for value in ([1], [ref, 2], [ref, [ref]], [None], ["text", ref])
    ]


@program("objects/get-invalid")
def getting_iterators(ray):
    ref = ray.put(1)
    return [
        outcome(lambda: ray.get(iter([ref])), text="none"),
        outcome(lambda: ray.get(ref for _ in range(2)), text="none"),
        outcome(lambda: ray.get(), text="none"),
    ]


@program("objects/get-timeout")
def get_with_a_timeout(ray):
    gate = Gate()
    ref = ray.remote(until_exists).remote(gate.path)
    answers = [
        outcome(lambda: ray.get(ref, timeout=0.05)),
        outcome(lambda: ray.get([ref], timeout=0.05)),
        outcome(lambda: ray.get(ref, timeout=0)),
        isinstance(ray.exceptions.GetTimeoutError("x"), TimeoutError),
        outcome(lambda: ray.get([ray.put(1), ref], timeout=0.05), text="none"),
    ]
    gate.open()
    return [*answers, ray.get(ref, timeout=30), ray.get(ref, timeout=0), ray.get(ref, timeout=None)]


@program("objects/get-timeout")
def timeouts_out_of_range(ray):
    ref = ray.put(1)
    return [
        outcome(lambda: ray.get(ref, timeout=-1), text="none"),
        outcome(lambda: ray.get(ref, timeout=0)),
        outcome(lambda: ray.get([], timeout=0)),
    ]


@program("objects/get-fails-early")
def get_raises_with_the_first_failure(ray):
    gate = Gate()
    hanging = ray.remote(until_exists).remote(gate.path)
    failing = ray.remote(fail).remote()
    answers = [
        outcome(lambda: ray.get([hanging, failing]), text="last"),
        outcome(lambda: ray.get([failing, hanging]), text="last"),
        outcome(lambda: ray.get([ray.put(1), hanging, failing], timeout=20), text="last"),
    ]
    gate.open()
    return [*answers, ray.get(hanging)]


@program("objects/wait")
def waiting_for_some(ray):
    gate = Gate()
    closed = ray.remote(until_exists).remote(gate.path)
    done = [ray.put(number) for number in range(3)]
    refs = [done[0], closed, done[1], done[2]]
    places = {ref: place for place, ref in enumerate(refs)}

    def waited(*args, **kwargs):
        ready, rest = ray.wait(*args, **kwargs)
        return [
            [places[ref] for ref in ready],
            [places[ref] for ref in rest],
            type(ready).__name__,
            type(rest).__name__,
        ]

    answers = [
        waited(refs, num_returns=3),
        waited(refs, num_returns=4, timeout=0.1),
        waited([closed], timeout=0.05),
        waited([closed, done[2]], num_returns=1),
        waited(refs[::-1], num_returns=3),
    ]
    gate.open()
    return [*answers, waited(refs, num_returns=4), waited(refs[::-1], num_returns=4)]


@program("objects/wait")
def no_more_than_asked_for(ray):
    refs = [ray.put(number) for number in range(10)]
    answers = []
    for count in (1, 4, 9):
        ready, rest = ray.wait(refs, num_returns=count)
        places = [[refs.index(ref) for ref in part] for part in (ready, rest)]
        in_order = all(part == sorted(part) for part in places)
        answers.append([len(ready), len(rest), in_order, sorted(sum(places, []))])
    return answers


@program("objects/wait")
def collecting_with_wait(ray):
    square = ray.remote(lambda value: value * value)
    pending, seen = [square.remote(value) for value in range(20)], []
    while pending:
        done, pending = ray.wait(pending, num_returns=min(3, len(pending)))
        seen += ray.get(done)
    return sorted(seen)


@program("objects/wait-zero")
def looking_without_waiting(ray):
    gate = Gate()
    closed = ray.remote(until_exists).remote(gate.path)
    done = ray.put(1)
    answers = [
        [len(part) for part in ray.wait([closed], timeout=0)],
        [len(part) for part in ray.wait([done], timeout=0)],
        [len(part) for part in ray.wait([closed, done], num_returns=2, timeout=0)],
        [len(part) for part in ray.wait([closed, done], num_returns=1, timeout=0.0)],
    ]
    gate.open()
    return [*answers, [len(part) for part in ray.wait([closed], timeout=None)]]


@program("objects/wait-fetch-local")
def waiting_without_fetching(ray):
    make = ray.remote(lambda: b"x" * 500_000)
    refs = [make.remote(), make.remote()]
    ready, rest = ray.wait(refs, num_returns=2, fetch_local=False, timeout=20)
    return [len(ready), len(rest), [len(value) for value in ray.get(refs)]]


@program("objects/wait-invalid")
def wrong_arguments_of_wait(ray):
    one, two = ray.put(1), ray.put(2)
    return [
        outcome(lambda: ray.wait([one, one])),
        outcome(lambda: ray.wait([one, two, one], num_returns=2)),
        outcome(lambda: ray.wait(one)),
        outcome(lambda: ray.wait((one, two))),
        outcome(lambda: ray.wait({one})),
        outcome(lambda: ray.wait([1])),
        outcome(lambda: ray.wait([one, "text"])),
        outcome(lambda: ray.wait([one], num_returns=2)),
        outcome(lambda: ray.wait([one], num_returns=0)),
        outcome(lambda: ray.wait([one], num_returns=-1)),
        outcome(lambda: ray.wait([one], timeout=-1)),
        outcome(lambda: ray.wait([])),
        outcome(lambda: ray.wait([], num_returns=1)),
        outcome(lambda: ray.wait(None)),
    ]


@program("objects/wait-invalid")
def odd_types_of_wait_arguments(ray):
    one = ray.put(1)
    return [
        outcome(lambda: ray.wait([one], num_returns="1"), text="none"),
        outcome(lambda: ray.wait([one], timeout="1"), text="none"),
        outcome(lambda: ray.wait([one], 1), text="none"),
        outcome(lambda: ray.wait(ray_waitables=[one], num_returns=1) and "accepted", text="none"),
    ]


@program("objects/wait-errors")
def failed_tasks_are_ready(ray):
    ref = ray.remote(fail).remote("while waited for")
    ready, rest = ray.wait([ref])
    return [len(ready), len(rest), outcome(lambda: ray.get(ready[0]), text="last")]


@program("objects/large")
def large_values_both_ways(ray):
    size = 40 * 1024 * 1024

    @ray.remote
    def make():
        return b"y" * size

    @ray.remote
    def measure(value, more):
        return [len(value), value[0], len(more)]

    ref = make.remote()
    return [
        ray.get(measure.remote(ref, b"z" * 5_000_000)),
        len(ray.get(ref)),
        ray.get(measure.remote(value=ray.put(b"q"), more=ref)),
    ]


@program("objects/large", "objects/numpy-readonly")
def numpy_arrays_are_read_only(ray):
    import numpy

    @ray.remote
    def write(array):
        array[0] = 1

    @ray.remote
    def make(count):
        return numpy.arange(count)

    small, large = ray.get(ray.put(numpy.zeros(10))), ray.get(ray.put(numpy.zeros(300_000)))
    made = ray.get(make.remote(300_000))

    def assign(array):
        array[0] = 1

    return [
        [array.flags.writeable for array in (small, large, made, ray.get(make.remote(3)))],
        outcome(lambda: assign(large)),
        outcome(lambda: assign(small)),
        outcome(lambda: ray.get(write.remote(ray.put(numpy.zeros(10)))), text="last"),
        outcome(lambda: ray.get(write.remote(numpy.zeros(300_000))), text="last"),
        [int(made[-1]), made.dtype.name, made.shape[0]],
    ]


@program("objects/numpy-readonly")
def numpy_arrays_are_aligned_and_shared(ray):
    import numpy

    ref = ray.put([numpy.ones(100_000), numpy.ones(33, dtype="uint8"), numpy.ones(50_000)])
    first, second = ray.get(ref), ray.get(ref)
    return [
        [array.ctypes.data % 64 for array in first],
        [numpy.shares_memory(a, b) for a, b in zip(first, second, strict=True)][0],
        first[0] is second[0],
    ]


@program("objects/numpy-readonly")
def arrays_outlive_their_ref(ray):
    import numpy

    ref = ray.put(numpy.arange(500_000))
    array = ray.get(ref)
    part = array[1000:2000]
    del ref, array
    refs = [ray.put(numpy.zeros(500_000)) for _ in range(10)]
    total = int(part.sum())
    del refs
    return [total, int(part.sum()), part.flags.writeable]


@program("objects/numpy-readonly")
def odd_arrays(ray):
    import numpy

    arrays = [
        numpy.array(5),
        numpy.zeros((0, 3)),
        numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
        numpy.arange(100_000)[::3],
        numpy.array(["text", None], dtype=object),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(["2020-01-01"], dtype="datetime64[D]"),
    ]
    back = ray.get(ray.put(arrays))
    return [[a.shape == b.shape, a.dtype == b.dtype, bool((a == b).all())] for a, b in zip(arrays, back, strict=True)]


@program("objects/out-of-band")
def buffers_of_protocol_5(ray):
    import pickle

    class Holder:
        def __init__(self, buffer):
            self.buffer = buffer

        def __reduce_ex__(self, protocol):
            return type(self), (pickle.PickleBuffer(self.buffer),)

    back = ray.get(ray.put(Holder(bytearray(b"abc" * 100_000))))
    view = memoryview(back.buffer)
    return [len(view), bytes(view[:6]).decode(), view.readonly]


@program("objects/put-get")
def bytes_bytearrays_and_memoryviews(ray):
    values = [b"x" * 300_000, bytearray(b"y" * 300_000), b"x", bytearray(b"y")]
    back = ray.get([ray.put(value) for value in values])
    return [
        [[type(value).__name__, value == original] for value, original in zip(back, values, strict=True)],
        outcome(lambda: type(ray.get(ray.put(memoryview(b"abc")))).__name__, text="none"),
    ]


@program("objects/freed")
def room_comes_back(ray):
    import numpy

    for number in range(12):
        ref = ray.put(numpy.full(60 * 1024 * 1024, number, dtype="uint8"))
        last = int(ray.get(ref)[0])
    return last


@program("objects/threads")
def calls_from_many_threads(ray):
    double = ray.remote(lambda value: value * 2)
    results, errors = {}, []

    def work(number):
        try:
            refs = [double.remote(number + step) for step in range(5)]
            ready, _ = ray.wait(refs, num_returns=5)
            results[number] = ray.get(ready) + [ray.get(ray.put(number))]
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [errors, [results[number] for number in sorted(results)]]


@program("objects/threads")
def threads_inside_tasks(ray):
    @ray.remote
    def inner(value):
        return value + 1

    @ray.remote
    def outer():
        results = []
        threads = [threading.Thread(target=lambda n=n: results.append(ray.get(inner.remote(n)))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(results)

    return ray.get(outer.remote())
