"""What is printed of an uncaught error under the alias: ``ray.exceptions.GetTimeoutError: ...``, as on Ray.

A traceback names a class by its ``__module__``, and so does a pickle. Pickles are to name miniray, so that they can be
read without the alias. So the classes keep their module, and have Ray's only while the hooks of `sys` and `threading`
print. Who prints by other means (`traceback`, `logging`, a debugger) sees where the class really is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

_PACKAGE = __name__.partition(".")[0] + "."
_saved: list[tuple[Any, str, Any, Any]] = []


@contextlib.contextmanager
def shown_as(error: BaseException | None, package: str) -> Iterator[None]:
    """Meanwhile the classes of this error, and of those that led to it, seem to be of that package."""
    renamed: dict[type[BaseException], str] = {}
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        kind = type(found)
        if kind.__module__.startswith(_PACKAGE):
            renamed[kind] = kind.__module__
        waiting += [found.__cause__, found.__context__, *(getattr(found, "exceptions", None) or ())]
    for kind, module in renamed.items():
        kind.__module__ = f"{package}.{module.removeprefix(_PACKAGE)}"
    try:
        yield
    finally:
        for kind, module in renamed.items():
            kind.__module__ = module


def install(package: str) -> None:
    """Print them so from now on, by the hooks that are there."""
    before, before_in_thread = sys.excepthook, threading.excepthook

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        with shown_as(error, package):
            before(kind, error, trace)

    def uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
        with shown_as(arguments.exc_value, package):
            before_in_thread(arguments)

    for module, hook in ((sys, uncaught), (threading, uncaught_in_thread)):
        _saved.append((module, "excepthook", getattr(module, "excepthook"), hook))  # noqa: B009
        setattr(module, "excepthook", hook)  # noqa: B010


def uninstall() -> None:
    """Put the hooks back, unless somebody has put others in their place."""
    for module, name, before, hook in _saved:
        if getattr(module, name) is hook:
            setattr(module, name, before)
    _saved.clear()
