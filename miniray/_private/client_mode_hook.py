"""The switches of Ray's client mode, which miniray does not have: every process is a driver or a worker itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RAY_CLIENT_MODE_ATTR = "__ray_client_mode_key__"

is_client_mode_enabled = False
is_client_mode_enabled_by_default = False
is_init_called = False


def client_mode_should_convert() -> bool:
    """Whether calls go to a client's server: never."""
    return False


def client_mode_hook(func: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """A decorator that leaves the function as it is."""
    return func if func is not None else (lambda function: function)


client_mode_wrap = client_mode_hook


@contextmanager
def disable_client_hook() -> Iterator[None]:
    """Nothing to be disabled."""
    yield


@contextmanager
def enable_client_mode() -> Iterator[None]:
    """Nothing to be enabled."""
    yield
