"""Which functions are coroutines, and event loops, under Ray's names."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


def get_new_event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop."""
    return asyncio.new_event_loop()


def is_async_func(func: Any) -> bool:
    """Whether it is an ``async def`` function, or an async generator function."""
    return inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func)


def has_async_methods(cls: Any) -> bool:
    """Whether a class has an ``async def`` method."""
    return bool(inspect.getmembers(cls, predicate=is_async_func))


def sync_to_async(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a coroutine function; one that is async stays as it is."""
    if is_async_func(func):
        return func

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


def try_install_uvloop() -> None:
    """Ray uses uvloop when it is installed. miniray does not."""
