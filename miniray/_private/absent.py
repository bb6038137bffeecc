"""Functions of Ray's insides that miniray has nothing to put behind: importable, and an error when they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def absent_functions(module: str, names: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for `names` (separated by blanks), under Ray's name for the module."""
    known = frozenset(names.split())

    def get(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module 'miniray{module[3:]}' has no attribute {name!r}")

        def absent(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"miniray has no {module}.{name}: it belongs to the processes of a Ray cluster.")

        absent.__name__ = absent.__qualname__ = name
        return absent

    return get
