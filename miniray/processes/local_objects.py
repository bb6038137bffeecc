"""Local mode: functions and classes of modules, which tasks get as they are.

Between processes they travel as pickles. In one process the worker has the driver's module already, so it gets the very
object: a debugger's breakpoint, a monkeypatched global and `isinstance` mean the same in the task as outside. What
belongs to no module (to ``__main__``, to another function) is pickled as ever.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

_shared: dict[bytes, Any] = {}


class _ByToken:
    """Unpickles as the object with this token."""

    def __init__(self, token: bytes) -> None:
        self._token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return take, (self._token,)


def belongs_to_a_module(value: Any) -> bool:
    """Whether it is a function or class at the top of a module other than the script."""
    module = getattr(value, "__module__", None)
    qualified = getattr(value, "__qualname__", "<locals>")
    return module in sys.modules and module != "__main__" and "<locals>" not in qualified


def pickle_shared(token: bytes, value: Any) -> bytes:
    """A pickle that gives this very object, in this process and session."""
    _shared[token] = value
    return pickle.dumps(_ByToken(token))


def take(token: bytes) -> Any:
    """The object with this token."""
    return _shared[token]


def forget_all() -> None:
    """The session is over."""
    _shared.clear()
