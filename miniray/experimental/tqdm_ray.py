"""Progress bars of tasks and actors that the driver shows: `tqdm` as its users know it.

A bar prints a line now and then, as any line of a worker it reaches the driver with the task's name in front. So a
bar needs neither an actor nor a message of its own, and is readable in the log of a CI run.

Source: https://docs.ray.io/en/latest/ray-observability/user-guides/debug-apps/general-debugging.html
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["safe_print", "tqdm"]

T = TypeVar("T")

#: Seconds between two lines of a bar.
_INTERVAL = 0.5


def safe_print(*args: Any, **kwargs: Any) -> None:
    """`print`; bars are lines of their own here, so that nothing can tear them."""
    builtins.print(*args, **kwargs)


class tqdm(Generic[T]):
    """A progress bar: iterate over it, or call `update`. It prints a line now and then, and one at its end.

    Args:
        iterable: what to iterate over.
        desc: the text in front.
        total: how many there are to be; None: the length of the iterable, if it has one.
        unit: what is counted.
        position: no effect: bars do not share a screen.
        flush_interval_s: seconds between two lines.
    """

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable
        self._desc = desc or ""
        self._total = total
        self._unit = unit or "it"
        self._interval = _INTERVAL if flush_interval_s is None else flush_interval_s
        self._x = 0
        self._printed = time.monotonic()
        self._started = self._printed
        self._closed = False

    def set_description(self, desc: str) -> None:
        """Change the text in front."""
        self._desc = desc

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self._x += n
        if time.monotonic() - self._printed >= self._interval:
            self._print()

    def refresh(self) -> None:
        """Print it now."""
        self._print()

    def close(self) -> None:
        """Print it for the last time."""
        if not self._closed:
            self._closed = True
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        rate = self._x / max(self._printed - self._started, 1e-9)
        of = "" if self._total is None else f"/{self._total}"
        part = f" {self._x / self._total:4.0%}" if self._total else ""
        front = f"{self._desc}:" if self._desc else ""
        print(f"{front}{part} {self._x}{of} [{rate:.2f}{self._unit}/s]".strip(), file=sys.stderr, flush=True)

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        for item in self._iterable:
            self.update(1)
            yield item
        self.close()

    def __enter__(self) -> tqdm[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
