"""What can travel and how: user classes, registered serializers, ray.cloudpickle, and what is refused."""

# mypy: ignore-errors
from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import io
import pickle
import threading

from ..catalog import program
from ..observe import outcome, script_lines

AREA = "objects"
SESSION = {"num_cpus": 2}


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("a", "b")


class CustomReduce:
    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return CustomReduce, (self.value + 1,)


class WithLock:
    def __init__(self):
        self.lock = threading.Lock()


Pair = collections.namedtuple("Pair", "left right")


def through(ray, value):
    """The value after a put and get, and after a task."""

    @ray.remote
    def echo(given):
        return given

    return ray.get(ray.put(value)), ray.get(echo.remote(value))


@program("objects/serialization")
def dataclasses_enums_and_namedtuples(ray):
    answers = []
    for value in (Point(1), Colour.RED, Pair(1, [2]), collections.OrderedDict(b=1, a=2), collections.deque([1, 2], 5)):
        back, task = through(ray, value)
        answers.append([type(back) is type(value), back == value, type(task) is type(value), task == value])
    return [*answers, through(ray, Colour.RED)[0] is Colour.RED]


@program("objects/serialization")
def local_classes_travel_by_value(ray):
    class Local:
        shared = [1]

        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return self.value == other.value

        @property
        def double(self):
            return self.value * 2

    class Child(Local):
        def __init__(self, value):
            super().__init__(value + 1)

    back, task = through(ray, Child(4))
    return [back.double, task.double, back == task, isinstance(back, Local), type(back).__name__, back.shared]


@program("objects/serialization")
def functions_and_lambdas_as_values(ray):
    factor = 3
    multiply, task = through(ray, lambda value: value * factor)
    partial, _ = through(ray, functools.partial(pow, 2))
    module_level, _ = through(ray, through)
    generator, _ = through(ray, lambda: (n for n in range(3)))
    return [multiply(2), task(5), partial(5), module_level is through, list(generator())]


@program("objects/serialization")
def recursive_objects(ray):
    nested = [1]
    nested.append(nested)
    table = {"self": None}
    table["self"] = table
    back, _ = through(ray, nested)
    back_table, task_table = through(ray, table)
    return [back[1] is back, back_table["self"] is back_table, task_table["self"] is task_table]


@program("objects/serialization")
def custom_reduce_and_slots(ray):
    slotted = Slotted()
    slotted.a = 1
    back, task = through(ray, CustomReduce(1))
    slots, _ = through(ray, slotted)
    return [back.value, task.value, slots.a, hasattr(slots, "b")]


@program("objects/serialization")
def getstate_and_setstate(ray):
    class Cached:
        def __init__(self):
            self.kept, self.cache = 1, object()

        def __getstate__(self):
            return {"kept": self.kept}

        def __setstate__(self, state):
            self.__dict__.update(state, restored=True)

    back, task = through(ray, Cached())
    return [back.kept, back.restored, hasattr(back, "cache"), task.restored]


@program("objects/serialization")
def types_classes_and_modules(ray):
    values = [int, Point, dataclasses, Ellipsis, NotImplemented, range(3), slice(1, 2), type(None)]
    return [through(ray, value)[0] == value for value in values]


@program("objects/serialization")
def exceptions_as_values(ray):
    back, task = through(ray, ValueError("a value", 1))
    return [type(back).__name__, list(back.args), type(task).__name__, list(task.args)]


@program("objects/register-serializer")
def registered_serializers(ray):
    class Locked:
        def __init__(self, value):
            self.value, self.lock = value, threading.Lock()

    @ray.remote
    def value_of(item):
        return item.value

    before = outcome(lambda: ray.put(Locked(1)), text="none")
    ray.util.register_serializer(
        Locked, serializer=lambda item: item.value, deserializer=lambda value: Locked(value * 10)
    )
    back, task, nested = ray.get([ray.put(Locked(2)), value_of.remote(Locked(2)), ray.put([Locked(3)])])
    ray.util.deregister_serializer(Locked)
    after = outcome(lambda: ray.put(Locked(1)), text="none")
    again = outcome(lambda: ray.util.deregister_serializer(Locked))
    return [before, back.value, task, nested[0].value, after, again]


@program("objects/register-serializer")
def serializers_with_wrong_arguments(ray):
    return [
        outcome(lambda: ray.util.register_serializer(int), text="none"),
        outcome(lambda: ray.util.register_serializer(int, serializer=None, deserializer=None), text="none"),
        outcome(lambda: ray.util.register_serializer(Point, lambda p: p, lambda p: p), text="none"),
    ]


@program("objects/register-serializer", fresh=True)
def serializers_before_init(ray):
    return script_lines(
        ray,
        """
        import threading
        import ENGINE as ray
        class Locked:
            def __init__(self, value):
                self.value, self.lock = value, threading.Lock()
        ray.util.register_serializer(Locked, serializer=lambda item: item.value, deserializer=Locked)
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        print(ray.get(ray.put(Locked(5))).value)
        print(ray.get(ray.remote(lambda item: item.value + 1).remote(Locked(6))))
        """,
    )


@program("objects/cloudpickle")
def what_ray_cloudpickle_offers(ray):
    local = [lambda value: value + 1]
    data = ray.cloudpickle.dumps(local)
    file = io.BytesIO()
    ray.cloudpickle.CloudPickler(file).dump({"a": local})
    buffer = io.BytesIO()
    ray.cloudpickle.dump([1], buffer)
    return [
        type(data).__name__,
        ray.cloudpickle.loads(data)[0](1),
        pickle.loads(file.getvalue())["a"][0](2),
        pickle.loads(buffer.getvalue()),
        sorted(
            name
            for name in ("dump", "dumps", "load", "loads", "CloudPickler", "Pickler", "dumps_debug")
            if hasattr(ray.cloudpickle, name)
        ),
    ]


@program("objects/cloudpickle")
def dumps_debug_says_what_fails(ray):
    return [
        type(ray.cloudpickle.dumps_debug([1])).__name__,
        outcome(lambda: ray.cloudpickle.dumps_debug(threading.Lock())),
        outcome(lambda: ray.cloudpickle.dumps(threading.Lock())),
    ]


@program("objects/inspect-serializability")
def inspecting_serializability(ray):
    lock = threading.Lock()

    def uses_lock():
        return lock

    output = io.StringIO()
    good, nothing = ray.util.inspect_serializability([1, 2], name="numbers", print_file=output)
    bad, failures = ray.util.inspect_serializability(uses_lock, name="uses_lock", print_file=output)
    attribute, inner = ray.util.inspect_serializability(WithLock(), print_file=io.StringIO())
    return [
        [good, sorted(map(str, nothing))],
        [bad, [[type(f.obj).__name__, [str(part) for part in f.path], type(f.parent).__name__] for f in failures]],
        [attribute, len(inner)],
        output.getvalue(),
    ]


@program("objects/inspect-serializability")
def depth_of_the_inspection(ray):
    lock = threading.Lock()

    def inner():
        return lock

    def outer():
        return inner()

    answers = []
    for depth in (1, 2, 3):
        output = io.StringIO()
        good, failures = ray.util.inspect_serializability(outer, depth=depth, print_file=output)
        answers.append([good, sorted(str(failure.path) for failure in failures), output.getvalue().count("\n") > 0])
    return answers


@program("objects/serialization-failure")
def values_that_cannot_be_put(ray):
    return [outcome(lambda: ray.put(threading.Lock())), outcome(lambda: ray.put(WithLock()))]


@program("objects/serialization-failure")
def arguments_that_cannot_be_sent(ray):
    @ray.remote
    def take(value): ...

    return [
        outcome(lambda: take.remote(threading.Lock())),
        outcome(lambda: take.remote(value=WithLock())),
        outcome(lambda: take.remote([1, {"a": threading.Lock()}]), text="first"),
    ]


@program("objects/serialization-failure")
def functions_that_cannot_be_sent(ray):
    lock = threading.Lock()

    @ray.remote
    def uses_lock():
        return lock

    return [outcome(uses_lock.remote), outcome(uses_lock.remote, text="first")]


@program("objects/serialization-failure", "errors/unpicklable")
def results_that_cannot_be_returned(ray):
    @ray.remote
    def make():
        return threading.Lock()

    @ray.remote(num_returns=2)
    def pair():
        return 1, threading.Lock()

    refs = pair.remote()
    return [
        outcome(lambda: ray.get(make.remote()), text="last"),
        outcome(lambda: ray.get(make.remote()), text="first"),
        outcome(lambda: ray.get(refs[1]), text="last"),
        outcome(lambda: ray.get(refs[0]), text="none"),
    ]


@program("objects/serialization-failure")
def objects_whose_pickling_raises(ray):
    class Refuses:
        def __reduce__(self):
            raise RuntimeError("will not be pickled")

    class RefusesToLoad:
        def __reduce__(self):
            return explode, ("on loading",)

    @ray.remote
    def take(value): ...

    @ray.remote
    def give():
        return RefusesToLoad()

    return [
        outcome(lambda: ray.put(Refuses()), text="first"),
        outcome(lambda: take.remote(Refuses()), text="first"),
        outcome(lambda: ray.get(ray.put(RefusesToLoad())), text="none")["raises"],
        outcome(lambda: ray.get(take.remote(RefusesToLoad())), text="on loading"),
        outcome(lambda: ray.get(give.remote()), text="on loading"),
    ]


def explode(message):
    raise RuntimeError(message)


@program("objects/serialization")
def generators_files_and_sockets_are_refused(ray):
    import socket

    with open(__file__) as file, socket.socket() as connection:
        return [
            outcome(lambda value=value: type(ray.put(value)).__name__, text="none")
            for value in ((n for n in range(3)), file, connection)
        ]


@program("objects/serialization-failure")
def classes_that_cannot_be_sent(ray):
    lock = threading.Lock()

    @ray.remote
    class UsesLock:
        def method(self):
            return lock

    return outcome(UsesLock.remote, text="first")
