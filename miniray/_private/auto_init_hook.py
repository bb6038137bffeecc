"""Starting a session by itself, under Ray's names: miniray's functions do that without a hook."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import miniray

enable_auto_connect = os.environ.get("RAY_ENABLE_AUTO_CONNECT", "") != "0"


def auto_init_ray() -> None:
    """Start a session unless there is one, or ``RAY_ENABLE_AUTO_CONNECT=0`` forbids it."""
    if enable_auto_connect and not miniray.is_initialized():
        miniray.init()


def wrap_auto_init(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a session started before it runs."""
    from functools import wraps

    @wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        auto_init_ray()
        return fn(*args, **kwargs)

    return wrapper
