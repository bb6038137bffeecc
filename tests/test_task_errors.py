"""How a task's exception becomes a RayTaskError, what ``get`` raises, and the way between processes."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from miniray import exceptions as e
from miniray.dual_exceptions import make_dual_exception_type, task_error_of
from miniray.task_errors import (
    error_text,
    format_task_traceback,
    from_wire,
    make_dependency_error,
    make_task_error,
    to_wire,
)

HEADER = "\x1b[36mray::f()\x1b[39m (pid=1, ip=1.2.3.4)"


class Custom(Exception):
    def __init__(self, a: int, b: int) -> None:
        self.a, self.b = a, b

    def hello(self) -> str:
        return f"hello {self.a}"


class Slots(Exception):
    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        super().__init__(x)
        self.x = x


class ReadOnlyArgs(Exception):
    def __init__(self, x: int) -> None:
        self.x = x

    @property
    def args(self) -> tuple[int, ...]:  # type: ignore[override]
        return (1, 2, 3)


class Reduced(Exception):
    def __init__(self, x: int, y: int) -> None:
        super().__init__("m")
        self.x, self.y = x, y

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.x, self.y)


class NoSubclass(Exception):
    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError("no subclassing")


class OwnPid(Exception):
    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


class CannotRebuild(Exception):
    def __init__(self, message: str, extra: int) -> None:
        super().__init__(message)


class WithNew(Exception):
    def __new__(cls, a: int, b: int) -> WithNew:
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


@dataclass
class WithEquality(Exception):
    code: int


class NotAnException(BaseException):
    pass


class Unpicklable(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("bad str")


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("did not raise")


def throw(error: BaseException) -> Callable[[], None]:
    def f() -> None:
        raise error

    return f


def error_of(error: BaseException, **kwargs: Any) -> e.RayTaskError:
    caught = raised(throw(error))
    assert caught.__traceback__ is not None
    caught = caught.with_traceback(caught.__traceback__.tb_next)
    return make_task_error("f", caught, pid=1, ip="1.2.3.4", **kwargs)


CAUSES: list[BaseException] = [
    ValueError("boom"),
    Custom(1, 2),
    Slots(4),
    ReadOnlyArgs(5),
    Reduced(1, 2),
    OwnPid("mine"),
    WithNew(1, 2),
    WithEquality(3),
    KeyError("k"),
    FileNotFoundError(2, "nofile", "x.txt"),
    UnicodeDecodeError("utf8", b"a", 0, 1, "r"),
    ImportError("m", name="n"),
    SyntaxError("m", ("f.py", 1, 2, "text")),
    StopIteration(3),
    SystemExit(4),
    KeyboardInterrupt("k"),
    GeneratorExit("g"),
    AssertionError(),
    NotAnException("b"),
    e.WorkerCrashedError(),
    e.GetTimeoutError("t"),
    e.RayActorError("ab", "m"),
    e.TaskCancelledError("abc"),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
def test_what_get_raises_is_both_a_task_error_and_the_users_class(cause: BaseException) -> None:
    plain = error_of(cause)
    dual = plain.as_instanceof_cause()
    name = f"RayTaskError({type(cause).__name__})"
    assert isinstance(dual, e.RayTaskError) and isinstance(dual, type(cause))
    assert type(dual).__name__ == type(dual).__qualname__ == name
    assert repr(dual).startswith(name)
    assert str(dual) == str(plain) and str(dual).startswith(HEADER)
    assert dual.cause is cause and dual.args == (cause,)
    assert dual.as_instanceof_cause() is dual is dual.make_dual_exception_instance()
    assert task_error_of(dual) is plain is task_error_of(plain)
    for again in (pickle.loads(pickle.dumps(dual)), copy.copy(dual), copy.deepcopy(dual)):
        assert type(again) is type(dual) and str(again) == str(dual)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
def test_any_cause_crosses_the_wire(cause: BaseException) -> None:
    dual = error_of(cause).as_instanceof_cause()
    back = from_wire(to_wire(dual))
    assert isinstance(back, e.RayTaskError)
    assert type(back) is e.RayTaskError
    assert type(back.as_instanceof_cause()) is type(dual)
    assert str(back) == str(dual)


def test_attributes_and_methods_of_the_users_exception_are_there() -> None:
    dual: Any = error_of(Custom(1, 2)).as_instanceof_cause()
    assert (dual.a, dual.b, dual.hello()) == (1, 2, "hello 1")
    with pytest.raises(AttributeError):
        dual.missing
    mine: Any = error_of(OwnPid("mine")).as_instanceof_cause()
    assert mine.pid == "mine"


def test_fields_in_slots_and_in_c_are_there() -> None:
    slots: Any = error_of(Slots(4)).as_instanceof_cause()
    assert slots.x == 4
    missing: Any = error_of(FileNotFoundError(2, "nofile", "x.txt")).as_instanceof_cause()
    assert (missing.errno, missing.strerror, missing.filename) == (2, "nofile", "x.txt")
    stop: Any = error_of(StopIteration(3)).as_instanceof_cause()
    assert stop.value == 3
    syntax: Any = error_of(SyntaxError("m", ("f.py", 7, 2, "text"))).as_instanceof_cause()
    assert syntax.lineno == 7


def test_dual_classes_are_made_once() -> None:
    first, second = error_of(Custom(1, 2)), error_of(Custom(3, 4))
    assert type(first.as_instanceof_cause()) is type(first.as_instanceof_cause())
    one = first.as_instanceof_cause()
    assert type(one) is type(second.as_instanceof_cause()) is make_dual_exception_type(Custom)


@pytest.mark.parametrize("cause", [Exception("x"), BaseException("x"), e.RayError("x")], ids=repr)
def test_a_cause_whose_class_the_task_error_has_already_stays_plain(cause: BaseException) -> None:
    plain = error_of(cause)
    assert plain.as_instanceof_cause() is plain


def test_a_class_that_forbids_subclassing_gives_a_plain_error_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plain = error_of(NoSubclass("n"))
    with pytest.raises(TypeError, match="no subclassing"):
        plain.make_dual_exception_instance()
    with caplog.at_level(logging.WARNING, logger="ray.exceptions"):
        assert plain.as_instanceof_cause() is plain
    (record,) = caplog.records
    assert record.name == "ray.exceptions"
    assert "can't be subclassed! This exception is raised as RayTaskError only." in record.getMessage()
    assert "Failure in subclassing: no subclassing" in record.getMessage()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_an_exception_group_stays_one() -> None:
    group = ExceptionGroup("g", [ValueError("a"), TypeError("b")])  # noqa: F821
    dual: Any = error_of(group).as_instanceof_cause()
    assert isinstance(dual, ExceptionGroup) and isinstance(dual, e.RayTaskError)  # noqa: F821
    assert dual.exceptions == group.exceptions and dual.message == "g"
    values, rest = dual.split(ValueError)
    assert values.exceptions == group.exceptions[:1] and rest.exceptions == group.exceptions[1:]
    assert str(dual).startswith("+ Exception Group Traceback (most recent call last):\n  |   File ")
    assert str(dual).endswith("    | TypeError: b\n    +------------------------------------")
    assert type(pickle.loads(pickle.dumps(dual))) is type(dual)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_a_group_with_base_exceptions_stays_a_plain_task_error(caplog: pytest.LogCaptureFixture) -> None:
    plain = error_of(BaseExceptionGroup("g", [ValueError("a"), KeyboardInterrupt()]))  # noqa: F821
    assert plain.as_instanceof_cause() is plain
    assert "can't be subclassed" in caplog.text


def test_the_text_names_the_process_and_shows_the_users_frames() -> None:
    def f() -> None:
        raise ValueError("boom")

    caught = raised(f)
    assert caught.__traceback__ is not None
    caught.__traceback__ = caught.__traceback__.tb_next
    lines = str(make_task_error("f", caught, pid=1, ip="1.2.3.4")).split("\n")
    assert lines[0] == HEADER
    assert lines[1].startswith(f'  File "{__file__}", line ') and lines[1].endswith(", in f")
    assert lines[2] == '    raise ValueError("boom")'
    assert lines[-1] == "ValueError: boom"


def test_frames_of_the_library_are_not_shown() -> None:
    from miniray.label_selectors import check_label_selector

    def f() -> None:
        check_label_selector({"a b": "c"})

    text = str(make_task_error("f", raised(f), pid=1, ip="1.2.3.4"))
    assert os.path.basename(__file__) in text
    assert "label_selectors.py" not in text
    assert "label_selectors.py" in format_task_traceback(raised(f), skip_prefix="/nowhere/")


def test_the_text_of_an_actors_method_names_the_actor() -> None:
    error = error_of(ValueError("x"), proctitle="ray::A.m", actor_repr="<A>", actor_id="ab")
    assert str(error).split("\n")[0] == "\x1b[36mray::A.m()\x1b[39m (pid=1, ip=1.2.3.4, actor_id=ab, repr=<A>)"


def test_the_process_is_this_one_unless_told() -> None:
    error = make_task_error("f", raised(throw(ValueError())))
    assert error.pid == os.getpid()
    assert repr(error).endswith("ValueError(), 'ray::f', None, None)")


def test_causes_and_contexts_are_told_each_with_the_process() -> None:
    def with_cause() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    def with_context() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")

    for function, bridge in [
        (with_cause, "\n\nThe above exception was the direct cause of the following exception:\n\n"),
        (with_context, "\n\nDuring handling of the above exception, another exception occurred:\n\n"),
    ]:
        first, second = str(make_task_error("f", raised(function), pid=1, ip="1.2.3.4")).split(bridge)
        assert first.startswith(HEADER) and first.endswith("KeyError: 'first'")
        assert second.startswith(HEADER) and second.endswith("ValueError: second")


def test_an_error_that_came_out_of_get_keeps_its_cause_and_its_text() -> None:
    inner = error_of(Custom(1, 2))
    outer = make_task_error("h", raised(throw(inner.as_instanceof_cause())), pid=2, ip="1.2.3.4")
    assert outer.cause is inner.cause
    text = str(outer)
    assert text.startswith("\x1b[36mray::h()\x1b[39m (pid=2, ip=1.2.3.4)\n")
    assert f"\nray.exceptions.RayTaskError(Custom): {HEADER}\n" in text
    assert "miniray.exceptions" not in text


def test_a_failed_argument_is_told_as_such() -> None:
    inner = error_of(ValueError("boom"))
    middle = make_dependency_error("g", inner, pid=2, ip="1.2.3.4")
    outer = make_dependency_error("g", middle.as_instanceof_cause(), pid=3, ip="1.2.3.4")
    because = (
        "  At least one of the input arguments for this task could not be computed:\nray.exceptions.RayTaskError: "
    )
    assert str(outer) == (
        f"\x1b[36mray::g()\x1b[39m (pid=3, ip=1.2.3.4)\n{because}"
        f"\x1b[36mray::g()\x1b[39m (pid=2, ip=1.2.3.4)\n{because}{inner}"
    )
    assert outer.cause is inner.cause
    assert isinstance(outer.as_instanceof_cause(), ValueError)


def test_an_argument_lost_with_its_worker_is_told_as_such() -> None:
    outer = make_dependency_error("g", e.WorkerCrashedError(), pid=1, ip="1.2.3.4")
    assert isinstance(outer.as_instanceof_cause(), e.WorkerCrashedError)
    assert str(outer).endswith(
        "could not be computed:\nray.exceptions.WorkerCrashedError: The worker died unexpectedly while executing this "
        "task. Check python-core-worker-*.log files for more information."
    )


def test_an_exception_that_cannot_be_pickled_is_replaced_by_one_that_says_so() -> None:
    back = from_wire(to_wire(error_of(Unpicklable("u"))))
    assert type(back) is e.RayTaskError
    assert str(back).endswith("Unpicklable: u")
    assert type(back.cause) is e.RayError
    text = str(back.cause)
    assert text.startswith(f"Exception {__name__}.Unpicklable isn't serializable: cannot pickle '_thread.lock' object")
    assert "Original exception details:\nTraceback (most recent call last):\n" in text
    assert back.as_instanceof_cause() is back


def test_any_other_error_that_cannot_be_pickled_is_replaced_too() -> None:
    back = from_wire(to_wire(Unpicklable("u")))
    assert type(back) is e.RayError and "isn't serializable" in str(back)


def test_an_exception_that_cannot_be_rebuilt_comes_as_its_text() -> None:
    plain = error_of(CannotRebuild("u", 3))
    back = from_wire(to_wire(plain))
    assert type(back) is e.UnserializableException
    assert str(back).endswith(f"Original exception:\nray.exceptions.RayTaskError: {plain}\n")
    chained = make_dependency_error("g", back, pid=1, ip="1.2.3.4")
    assert isinstance(chained.as_instanceof_cause(), e.UnserializableException)


@pytest.mark.parametrize("data", [b"", b"garbage", pickle.dumps(3), pickle.dumps((pickle.dumps(3), "text"))])
def test_reading_an_error_never_raises(data: bytes) -> None:
    assert type(from_wire(data)) is e.UnserializableException


def test_writing_an_error_never_raises() -> None:
    def refuse(value: Any) -> bytes:
        raise ValueError("never")

    back = from_wire(to_wire(ValueError("x"), dumps=refuse))
    assert type(back) is e.UnserializableException and "ValueError: x" in str(back)
    assert type(from_wire(to_wire(error_of(BadStr())))) is e.RayTaskError


def test_an_exception_whose_text_raises_is_told_anyway() -> None:
    assert "BadStr" in str(error_of(BadStr()))
    assert error_text(BadStr()).endswith("BadStr: <unprintable: RuntimeError>\n")
    assert error_text(ValueError()) == "ValueError\n"
