"""Errors of tasks: their types, causes, attributes, and what odd exceptions become."""

# mypy: ignore-errors
from __future__ import annotations

import logging
import os
import sys

from ..catalog import program
from ..observe import error_answer, outcome, type_name

AREA = "errors"
SESSION = {"num_cpus": 2}


class ModuleError(Exception):
    """An exception with a constructor of its own."""

    def __init__(self, code, reason="none"):
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self):
        return f"{self.code}: {self.reason}"

    def describe(self):
        return f"code {self.code}"


class TwoArguments(Exception):
    """Cannot be built from its args: undeserialisable by default."""

    def __init__(self, first, second):
        super().__init__("built")
        self.first, self.second = first, second


class NoSubclasses(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclasses, please")


class SlottedError(Exception):
    __slots__ = ("extra",)

    def __init__(self, extra):
        super().__init__(extra)
        self.extra = extra


class ReadOnlyArgs(Exception):
    def __init__(self, message):
        self.message = message

    @property
    def args(self):
        return (self.message,)

    def __str__(self):
        return f"read only {self.message}"


class KeywordOnly(Exception):
    def __init__(self, *, reason):
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self):
        return _keyword_only, (self.reason,)


def _keyword_only(reason):
    return KeywordOnly(reason=reason)


class WithMeta(type):
    pass


class MetaError(Exception, metaclass=WithMeta):
    pass


def raised_by(ray, raise_it, *args):
    """The error that get raises for a task that runs `raise_it`."""
    try:
        ray.get(ray.remote(max_retries=0)(raise_it).remote(*args))
    except BaseException as error:
        return error
    return None


def throw(error):
    raise error


@program("errors/dual-type")
def both_types_at_once(ray):
    answers = []
    for error in (ValueError("a"), KeyError("key"), OSError(2, "no such"), ZeroDivisionError(), StopIteration(1)):
        caught = raised_by(ray, throw, error)
        answers.append(
            [
                error_answer(caught, "last"),
                isinstance(caught, type(error)),
                isinstance(caught, ray.exceptions.RayTaskError),
            ]
        )
    return answers


@program("errors/dual-type", "errors/user-attributes")
def errors_of_local_classes(ray):
    class LocalError(Exception):
        def hint(self):
            return "from the local class"

    caught = raised_by(ray, throw, LocalError("local", 5))
    return [error_answer(caught, "last"), isinstance(caught, LocalError), caught.hint(), repr(caught.args)]


@program("errors/dual-repr")
def names_and_reprs(ray):
    caught = raised_by(ray, throw, ModuleError(7, "why"))
    plain = raised_by(ray, throw, ValueError("boom"))
    return [
        type(caught).__name__,
        type(caught).__qualname__,
        repr(plain),
        "RayTaskError(ModuleError)" in repr(caught),
        repr(caught),
        type(plain).__module__.replace("miniray", "ray"),
    ]


@program("errors/cause")
def causes_of_errors(ray):
    caught = raised_by(ray, throw, ModuleError(7, "why"))
    instance = caught.as_instanceof_cause()
    return [
        [type(caught.cause).__name__, caught.cause.code, isinstance(caught.cause, ray.exceptions.RayTaskError)],
        [type_name(type(instance)), isinstance(instance, ModuleError)],
        [type(caught.__cause__).__name__, type(caught.__context__).__name__],
        [outcome(lambda name=name: getattr(caught, name)) for name in ("function_name", "proctitle", "actor_repr")],
    ]


@program("errors/cause")
def dual_exceptions_made_by_hand(ray):
    text = '\x1b[36mray::f()\x1b[39m (pid=1, ip=1.2.3.4)\n  File "f.py", line 1, in f\nValueError: by hand\n'
    error = ray.exceptions.RayTaskError(
        function_name="f",
        traceback_str=text,
        cause=ValueError("by hand"),
        proctitle="ray::f",
        pid=1,
        ip="1.2.3.4",
    )
    dual = error.as_instanceof_cause()
    other = error.make_dual_exception_instance()
    return [
        [type_name(type(error)), isinstance(error, ValueError), str(error)],
        [type_name(type(dual)), isinstance(dual, ValueError), str(dual), repr(dual.args)],
        [type_name(type(other)), isinstance(other, ValueError)],
    ]


@program("errors/user-attributes")
def attributes_of_the_users_exception(ray):
    caught = raised_by(ray, throw, ModuleError(7, reason="why"))
    key = raised_by(ray, throw, KeyError("key"))
    return [
        [caught.code, caught.reason, caught.describe(), repr(caught.args)],
        repr(key.args),
        outcome(lambda: caught.no_such_attribute, text="none"),
    ]


@program("errors/error-pickle")
def pickled_errors_keep_their_type(ray):
    def copy(pickler, error, caught):
        back = pickler.loads(pickler.dumps(caught))
        return [type_name(type(back)), isinstance(back, type(error)), str(back) == str(caught)]

    answers = []
    for error in (ValueError("boom", 1), ModuleError(7, "why"), NoSubclasses("forbidden")):
        caught = raised_by(ray, throw, error)
        answers.append(outcome(lambda error=error, caught=caught: copy(ray.cloudpickle, error, caught)))
    return answers


@program("errors/error-pickle")
def errors_as_values(ray):
    caught = raised_by(ray, throw, ModuleError(7, "why"))
    stored = ray.get(ray.put([caught]))[0]
    passed = ray.get(ray.remote(lambda errors: [type(errors[0]).__name__, errors[0].code]).remote([caught]))
    again = raised_by(ray, throw, caught)
    return [
        [type_name(type(stored)), isinstance(stored, ModuleError), stored.code],
        passed,
        [type_name(type(again)), isinstance(again, ModuleError), getattr(again, "code", None)],
    ]


@program("errors/error-pickle")
def putting_an_error(ray):
    caught = raised_by(ray, throw, ModuleError(7, "why"))
    return [
        outcome(lambda: type_name(type(ray.get(ray.put(caught)))), text="last"),
        outcome(lambda: type_name(type(ray.get(ray.put(ValueError("an ordinary one"))))), text="last"),
    ]


@program("errors/no-subclassing")
def exceptions_that_forbid_subclasses(ray):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    loggers = [logging.getLogger(name) for name in {"ray.exceptions", f"{ray.__name__}.exceptions"}]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        caught = raised_by(ray, throw, NoSubclasses("forbidden"))
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    return [
        error_answer(caught, "last"),
        type(caught.cause).__name__,
        [[record.levelname, record.getMessage()] for record in records],
    ]


@program("errors/no-subclassing")
def final_classes(ray):
    caught = raised_by(ray, throw, MetaError("with a metaclass"))
    return [error_answer(caught, "last"), isinstance(caught, MetaError)]


@program("errors/odd-constructors")
def constructors_of_their_own(ray):
    slotted = raised_by(ray, throw, SlottedError("kept"))
    read_only = raised_by(ray, throw, ReadOnlyArgs("args"))
    keyword = raised_by(ray, throw, KeywordOnly(reason="because"))
    return [
        [error_answer(slotted, "last"), isinstance(slotted, SlottedError), getattr(slotted, "extra", None)],
        [error_answer(read_only, "last"), isinstance(read_only, ReadOnlyArgs), repr(read_only.args)],
        [error_answer(keyword, "last"), isinstance(keyword, KeywordOnly), keyword.reason],
    ]


@program("errors/base-exceptions")
def base_exceptions(ray):
    class Base(BaseException):
        pass

    caught = raised_by(ray, throw, Base("not an Exception"))
    exits = raised_by(ray, throw, GeneratorExit("leaving"))
    return [error_answer(caught, "last"), isinstance(caught, Base), error_answer(exits, "last")]


@program("errors/base-exceptions", since=(3, 11))
def exception_groups(ray):
    class MyGroup(ExceptionGroup):  # noqa: F821
        def derive(self, exceptions):
            return MyGroup(self.message, exceptions)

    answers = []
    for group in (
        ExceptionGroup("group", [ValueError(1), KeyError(2)]),  # noqa: F821
        BaseExceptionGroup("base", [KeyboardInterrupt(), ValueError(1)]),  # noqa: F821
        MyGroup("mine", [ValueError(1)]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [TypeError("deep")]), ValueError(3)]),  # noqa: F821
    ):
        caught = raised_by(ray, throw, group)
        answers.append(
            [
                error_answer(caught, "none"),
                isinstance(caught, type(group)),
                getattr(caught, "message", None),
                [type(inner).__name__ for inner in getattr(caught, "exceptions", ())],
            ]
        )
    return answers


@program("errors/base-exceptions", since=(3, 11))
def except_star_splits_groups(ray):
    caught = raised_by(ray, throw, ExceptionGroup("group", [ValueError(1), KeyError(2)]))  # noqa: F821
    part, rest = caught.split(ValueError)
    return [
        [type_name(type(item)), len(item.exceptions), [type(e).__name__ for e in item.exceptions]]
        for item in (part, rest)
    ]


@program("errors/system-exit", "objects/wait-errors")
def exits_of_tasks(ray):
    def leave(how):
        if how == "raise":
            raise SystemExit(0)
        if how == "sys.exit":
            sys.exit(3)
        if how == "text":
            sys.exit("a last word")
        os._exit(0)

    return [error_answer(raised_by(ray, leave, how), "first") for how in ("raise", "sys.exit", "text", "os._exit")]


@program("errors/system-exit")
def signals_in_tasks(ray):
    import signal

    def die(number):
        os.kill(os.getpid(), number)
        import time

        time.sleep(20)

    return [error_answer(raised_by(ray, die, number), "first") for number in (signal.SIGKILL, signal.SIGABRT)]


@program("errors/system-exit")
def the_session_goes_on_after_crashes(ray):
    def crash():
        os._exit(1)

    for _ in range(3):
        raised_by(ray, crash)
    return ray.get([ray.remote(lambda n=n: n).remote() for n in range(4)])


@program("errors/keyboard-interrupt")
def keyboard_interrupts_in_tasks(ray):
    caught = raised_by(ray, throw, KeyboardInterrupt("pressed"))
    return [error_answer(caught, "none"), type(getattr(caught, "cause", None)).__name__]


@program("errors/unpicklable")
def exceptions_that_cannot_be_pickled(ray):
    import threading

    class HasLock(Exception):
        def __init__(self, message):
            super().__init__(message)
            self.lock = threading.Lock()

    def fail():
        raise HasLock("with a lock")

    caught = raised_by(ray, fail)
    cause = getattr(caught, "cause", None)
    return [
        error_answer(caught, "isn't serializable"),
        type_name(type(cause)),
        "with a lock" in str(caught),
        [line for line in str(cause).splitlines() if "_raylet" not in line],
    ]


@program("errors/undeserializable")
def exceptions_that_cannot_be_built_again(ray):
    def fail():
        raise TwoArguments("one", "two")

    caught = raised_by(ray, fail)
    return [error_answer(caught), type_name(type(getattr(caught, "cause", None)))]


@program("errors/undeserializable")
def exceptions_unknown_to_the_driver(ray):
    def fail():
        import types

        module = types.ModuleType("only_in_the_worker")
        exec("class Unknown(Exception): pass", module.__dict__)
        sys.modules["only_in_the_worker"] = module
        module.Unknown.__module__ = "only_in_the_worker"
        raise module.Unknown("from the worker")

    caught = raised_by(ray, fail)
    return [error_answer(caught, "from the worker"), "only_in_the_worker" in str(caught), str(caught).splitlines()[0]]


@program("errors/dual-type")
def errors_caught_inside_tasks(ray):
    @ray.remote
    def inner():
        raise ModuleError(5, "inside")

    @ray.remote
    def outer():
        try:
            ray.get(inner.remote())
        except ModuleError as error:
            return [type(error).__name__, error.code, isinstance(error, ray.exceptions.RayTaskError)]

    return ray.get(outer.remote())


@program("errors/text-chain", "errors/dual-type")
def errors_through_dependencies(ray):
    @ray.remote
    def fail():
        raise ModuleError(5, "first")

    @ray.remote
    def depend(*values):
        return values

    chain = depend.remote(depend.remote(fail.remote(), 1))
    try:
        ray.get(chain)
    except ModuleError as error:
        return [error_answer(error, "last"), error.code, type(error.cause).__name__]


@program("errors/dual-type")
def dependents_do_not_run(ray):
    import tempfile

    path = os.path.join(tempfile.mkdtemp(), "ran")

    @ray.remote
    def fail():
        raise KeyError("no")

    @ray.remote
    def depend(value):
        open(path, "w").close()

    return [outcome(lambda: ray.get(depend.remote(fail.remote())), text="last"), os.path.exists(path)]
