"""How the exception of a task becomes a RayTaskError, and how errors travel between processes.

The executor calls ``make_task_error`` with what the user's code raised; ``to_wire`` turns the result into bytes that
hold the pickled error and, next to it, its text. ``from_wire`` gives the error back, or where its class cannot be
rebuilt an UnserializableException with that text. Neither of them ever raises: an error that cannot be told would
be a ``get`` that hangs.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from miniray.dual_exceptions import task_error_of
from miniray.exceptions import (
    _TRACEBACK_HEADER,
    RayError,
    RayTaskError,
    TaskCancelledError,
    UnserializableException,
    exception_path,
)
from miniray.ids import TaskID

PACKAGE_PREFIX = os.path.dirname(os.path.abspath(__file__)) + os.sep
"""Frames of files below this path are the library's own, and not shown."""

_OWN_MODULE = RayError.__module__ + "."
_RAY_MODULE = exception_path("")

_NO_FRAME = "<no frame of the user's>"

DEPENDENCY_FAILED = "  At least one of the input arguments for this task could not be computed:"


def cancelled(task_id: bytes, *, of_actor: bool = False, received: bool = True) -> TaskCancelledError:
    """The error of a task that was cancelled before it ran, or of a call that was cancelled and did not notice.

    Args:
        of_actor: it is a call of an actor, for which Ray has texts of its own.
        received: (then) the actor had it, and not only its caller or the queue of a concurrency group.
    """
    if not of_actor:
        return TaskCancelledError(TaskID(task_id))
    name = task_id.hex()
    if received:
        return TaskCancelledError(error_message=f"Task: {name} was cancelled.")
    actor = task_id[8:].hex()
    return TaskCancelledError(error_message=f"The task {name} is canceled from an actor {actor} before it executes.")


def format_task_traceback(exception: BaseException, *, skip_prefix: str = PACKAGE_PREFIX) -> str:
    """The traceback of an exception, of its causes and contexts, and of a group's members, user's frames only.

    Args:
        exception: as caught, with its ``__traceback__``.
        skip_prefix: frames whose file name begins with this are left out.
    """
    import re  # errors are rare; these two are not needed to start a process
    import traceback

    try:
        whole = traceback.TracebackException.from_exception(exception)
        pending: list[Any] = [whole]
        seen: set[int] = set()
        while pending:
            part = pending.pop()
            if part is None or id(part) in seen:
                continue
            seen.add(id(part))
            frames = [frame for frame in part.stack if not frame.filename.startswith(skip_prefix)]
            # Ray leaves out the first frame of each traceback: in that of the error itself it is one of its own.
            frames = frames if part is whole else frames[1:]
            # Without any frame `format` would leave out the header, by which the text of the task is found.
            part.stack[:] = frames or [traceback.FrameSummary(_NO_FRAME, 0, "", line="")]
            pending += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
        text = re.sub(rf'^[ |]*File "{_NO_FRAME}".*\n', "", "".join(whole.format()), flags=re.MULTILINE)
    except Exception as error:  # an exception whose attributes raise when looked at
        text = f"{_TRACEBACK_HEADER}\n{_class_path(type(exception))}: <unprintable: {type(error).__name__}>\n"
    return re.sub(rf"^([ |]*){re.escape(_OWN_MODULE)}", rf"\g<1>{_RAY_MODULE}", text, flags=re.MULTILINE)


def make_task_error(
    function_name: str,
    exception: BaseException,
    *,
    pid: int | None = None,
    ip: str | None = None,
    proctitle: str | None = None,
    actor_repr: str | None = None,
    actor_id: str | None = None,
    skip_prefix: str = PACKAGE_PREFIX,
) -> RayTaskError:
    """The error of a task whose code raised ``exception``.

    Args:
        function_name: ``f``, or ``A.method``.
        exception: as caught. If it came out of a ``get``, the error's cause is that error's own cause.
        pid, ip: where the task ran.
        proctitle: title of the process, ``ray::`` and the task's name; by default with the function's name.
        actor_repr, actor_id: the actor's ``repr`` and its id in hex, if the task is an actor's.
        skip_prefix: frames whose file name begins with this are not shown.
    """
    text = format_task_traceback(exception, skip_prefix=skip_prefix)
    return _located(function_name, text, exception, proctitle, pid, ip, actor_repr, actor_id)


def make_dependency_error(
    function_name: str,
    error: BaseException,
    *,
    pid: int | None = None,
    ip: str | None = None,
    proctitle: str | None = None,
    actor_repr: str | None = None,
    actor_id: str | None = None,
) -> RayTaskError:
    """The error of a task that did not run, because an argument of it holds ``error``."""
    text = f"{_TRACEBACK_HEADER}\n{DEPENDENCY_FAILED}\n{error_text(error)}"
    return _located(function_name, text, error, proctitle, pid, ip, actor_repr, actor_id)


def _located(
    function_name: str,
    text: str,
    raised: BaseException,
    proctitle: str | None,
    pid: int | None,
    ip: str | None,
    actor_repr: str | None,
    actor_id: str | None,
) -> RayTaskError:
    cause = raised.cause if isinstance(raised, RayTaskError) and raised.cause is not None else raised
    error = RayTaskError(function_name, text, cause, proctitle or f"ray::{function_name}", None, None)
    # Set here, and not given to __init__: in Ray, too, ``args`` and ``repr`` do not tell where the task ran.
    error.pid = os.getpid() if pid is None else pid
    error.ip = ip or error.ip
    error.actor_repr = actor_repr
    error._actor_id = actor_id
    return error


def error_text(error: BaseException) -> str:
    """Class and text of an error, as in the last line of a traceback, ending with a newline."""
    error = task_error_of(error) if isinstance(error, RayTaskError) else error
    try:
        text = str(error)
    except Exception as failure:
        text = f"<unprintable: {type(failure).__name__}>"
    name = _class_path(type(error))
    return f"{name}: {text}\n" if text else f"{name}\n"


def _class_path(error_class: type[BaseException]) -> str:
    module = error_class.__module__
    if module in ("builtins", "__main__"):
        return error_class.__qualname__
    if module + "." == _OWN_MODULE:
        return exception_path(error_class.__qualname__)
    return f"{module}.{error_class.__qualname__}"


def to_wire(error: BaseException, *, dumps: Callable[[Any], bytes] | None = None) -> bytes:
    """An error as bytes. What cannot be pickled is replaced by a RayError that says so; never raises.

    Args:
        error: a RayTaskError (as plain or as dual exception), or any other error.
        dumps: how to pickle; by default with cloudpickle.
    """
    if dumps is None:
        import cloudpickle  # slow to import, and loaded by the serializer already in any process that runs tasks

        dumps = cloudpickle.dumps
    error = task_error_of(error) if isinstance(error, RayTaskError) else error
    try:
        payload = dumps(error)
    except BaseException as failure:  # a user's __reduce__ may raise what it likes
        try:
            payload = dumps(_without_cause(error, failure))
        except BaseException:
            payload = b""
    return pickle.dumps((payload, error_text(error)))


def _without_cause(error: BaseException, failure: BaseException) -> RayError:
    """An error in place of one that cannot be pickled."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    details = error.traceback_str if isinstance(error, RayTaskError) else error_text(error)
    kind = type(cause)
    substitute = RayError(
        f"Exception {kind.__module__}.{kind.__qualname__} isn't serializable: {failure}.\n"
        f"Original exception details:\n{details}"
    )
    if not isinstance(error, RayTaskError):
        return substitute
    return RayTaskError(
        error.function_name,
        error.traceback_str,
        substitute,
        error.proctitle,
        error.pid,
        error.ip,
        error.actor_repr,
        error._actor_id,
    )


def from_wire(data: bytes, *, loads: Callable[[bytes], Any] | None = None) -> BaseException:
    """The error in these bytes; never raises.

    A RayTaskError comes back plain: raise its ``as_instanceof_cause()``, or hand it to ``make_dependency_error``.
    """
    text = ""
    try:
        payload, text = pickle.loads(data)
        error = (loads or pickle.loads)(payload)
        if isinstance(error, BaseException):
            return error
    except BaseException:  # a user's __init__ or __setstate__ may raise what it likes
        pass
    return UnserializableException(text)
