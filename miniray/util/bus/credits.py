"""Credits: how many events a consumer is ready for, for producers that would rather wait than be dropped."""

from __future__ import annotations

import threading


class Credits:
    """Granted by one consumer, spent by producers. Nobody has to ask for them: the bus itself never waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0

    @property
    def left(self) -> int:
        """How many events the consumer is ready for."""
        with self._changed:
            return self._left

    def grant(self, number: int) -> None:
        """The consumer is ready for so many more.

        Raises:
            ValueError: the number is negative.
        """
        if number < 0:
            raise ValueError(f"a consumer grants credits, it does not take them back: {number}")
        with self._changed:
            self._left += number
            self._changed.notify_all()

    def acquire(self, number: int = 1, timeout: float | None = None) -> bool:
        """A producer wants to publish so many; whether it may, within `timeout` seconds (None: waits for ever)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= number, timeout):
                return False
            self._left -= number
            return True
