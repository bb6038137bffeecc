"""miniray with planted mistakes: what the comparison has to catch.

`wait` gives back the ready refs in the reverse order, a timeout of `get` is no `TimeoutError`, and `put` of a ref is
allowed.
"""

from __future__ import annotations

from typing import Any

import miniray
from miniray import exceptions


def __getattr__(name: str) -> Any:
    """Everything else is miniray's."""
    return getattr(miniray, name)


def wait(refs: Any, **options: Any) -> Any:
    """Order is lost."""
    ready, rest = miniray.wait(refs, **options)
    return ready[::-1], rest


def get(refs: Any, **options: Any) -> Any:
    """The wrong error."""
    try:
        return miniray.get(refs, **options)
    except exceptions.GetTimeoutError as error:
        raise RuntimeError(str(error)) from None


def put(value: Any) -> Any:
    """Too generous."""
    return miniray.put([value] if isinstance(value, miniray.ObjectRef) else value)
