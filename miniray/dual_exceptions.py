"""Exceptions that are both a RayTaskError and the user's own: ``except ValueError`` works across processes.

For each class of cause a class ``RayTaskError(ValueError)`` is made, which inherits from both. Its instances
hold the RayTaskError (its text is theirs) and the cause (its attributes are theirs). The cause's ``__init__``
and ``__new__`` are never called: nobody knows their arguments. What the cause keeps outside of its ``__dict__``
(slots, the C fields of OSError, SyntaxError, StopIteration, ...) is copied, since the class attribute would
otherwise hide it; Ray leaves those at None.
"""

from __future__ import annotations

import builtins
import weakref
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from miniray.exceptions import RayError, RayTaskError

_GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11 on
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, and not in C

_PLAIN_SIZE = BaseException.__basicsize__

# Values are weak: a class of a notebook cell that was run again goes away with its last error.
_dual_types: weakref.WeakValueDictionary[type[BaseException], type[RayTaskError]] = weakref.WeakValueDictionary()


def make_dual_exception_type(cause_class: type[BaseException]) -> type[RayTaskError]:
    """The class that inherits from RayTaskError and from ``cause_class``; TypeError if that forbids subclassing."""
    dual = _dual_types.get(cause_class)
    if dual is None:
        name = f"RayTaskError({cause_class.__name__})"
        namespace = {
            "__module__": RayTaskError.__module__,
            "__qualname__": name,
            "__doc__": cause_class.__doc__,
            "__init__": _init,
            "__getattr__": _getattr,
            "__str__": _str,
            "__reduce__": _reduce,
            "__reduce_ex__": _reduce_ex,
            "args": property(lambda self: (_state(self)[1],)),
            "cause": property(lambda self: _state(self)[1]),
            "as_instanceof_cause": _self,
            "make_dual_exception_instance": _self,
        }
        dual = type(name, (RayTaskError, cause_class), namespace)
        _dual_types[cause_class] = dual
    return dual


def make_dual_exception(task_error: RayTaskError) -> RayTaskError:
    """An instance of the dual class of the error's cause."""
    cause = task_error.cause
    if cause is None:
        raise TypeError("a RayTaskError without a cause has no class to join")
    dual_class = make_dual_exception_type(type(cause))
    instance: BaseException
    if _GROUP is not None and isinstance(cause, _GROUP):
        instance = _GROUP.__new__(dual_class, cause.message, cause.exceptions)
    else:
        instance = _builtin_base(dual_class).__new__(dual_class, cause)
    instance.__dict__["_dual_state"] = (task_error, cause)
    _copy_fields(cause, instance)
    assert isinstance(instance, RayTaskError)
    return instance


def _builtin_base(dual_class: type[BaseException]) -> Any:
    """The innermost class made in C: the only ``__new__`` that can be called without knowing the user's."""
    for base in dual_class.__mro__:
        # One without fields of its own (MemoryError) does not decide the layout of the class, and its __new__ refuses.
        if "__new__" in vars(base) and not base.__flags__ & _HEAP_TYPE and base.__basicsize__ > _PLAIN_SIZE:
            return base
    return BaseException


def _copy_fields(cause: BaseException, instance: BaseException) -> None:
    """Copy what lies in slots and C fields."""
    for base in type(cause).__mro__:
        if base in (BaseException, object) or issubclass(base, RayError):
            continue
        for name, descriptor in vars(base).items():
            if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                try:
                    object.__setattr__(instance, name, getattr(cause, name))
                except (AttributeError, TypeError, ValueError):
                    continue  # never set, or read-only: then __new__ has set it


def _state(dual: Any) -> tuple[RayTaskError, BaseException]:
    state: tuple[RayTaskError, BaseException] = dual.__dict__["_dual_state"]
    return state


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Nothing: make_dual_exception has set all."""


def _getattr(self: Any, name: str) -> Any:
    # The cause's attributes alone, as in Ray: an exception may well have a ``pid`` of its own.
    state = self.__dict__.get("_dual_state")
    if state is None or (name.startswith("__") and name != "__notes__"):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    return getattr(state[1], name)


def _str(self: Any) -> str:
    return str(_state(self)[0])


def _self(self: Any) -> Any:
    return self


def _reduce(self: Any) -> tuple[Any, ...]:
    return _rebuild, (_state(self)[0],)


def _reduce_ex(self: Any, protocol: Any) -> tuple[Any, ...]:
    return _reduce(self)


def _rebuild(task_error: RayTaskError) -> RayTaskError:
    return task_error.as_instanceof_cause()


def task_error_of(error: RayTaskError) -> RayTaskError:
    """The plain RayTaskError inside a dual one, or the error itself."""
    state = error.__dict__.get("_dual_state")
    return error if state is None else _state(error)[0]
