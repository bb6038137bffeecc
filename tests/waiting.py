"""Waiting for a condition, which is how tests here wait: they never sleep for a time and hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(predicate: Callable[[], T], timeout: float = 10, message: str | Callable[[], str] = "") -> T:
    """Call `predicate` until it returns something true, and return that.

    Args:
        predicate: called again and again, at first every millisecond, later twenty times a second.
        timeout: seconds. Generous on purpose: it is only ever reached by a test that fails.
        message: what was waited for; a callable is asked when time is up, so that it can tell the last state.

    Raises:
        AssertionError: when the time is up.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        result = predicate()
        if result:
            return result
        if time.monotonic() >= deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"not within {timeout} s: {text or getattr(predicate, '__name__', predicate)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
