"""What the operators of a `LocalIterator` count, and share.

Source: https://docs.ray.io/en/releases-1.13.0/iter.html
"""

from __future__ import annotations

import collections
from typing import Any


class MetricsContext:
    """Counters, timers and other values of an iterator.

    Attributes:
        counters: numbers by name, 0 at first.
        timers: whatever measures time, by name.
        info: other values, by name.
        current_actor: the actor that made the present item, when it is known.
    """

    def __init__(self) -> None:
        self.counters: dict[str, int] = collections.defaultdict(int)
        self.timers: dict[str, Any] = collections.defaultdict(float)
        self.info: dict[str, Any] = {}
        self.current_actor: Any = None

    def save(self) -> dict[str, Any]:
        """A copy that can be pickled."""
        return {"counters": dict(self.counters), "info": dict(self.info), "timers": None}

    def restore(self, values: dict[str, Any]) -> None:
        """Take the values of `save`."""
        self.counters.clear()
        self.counters.update(values["counters"])
        self.timers.clear()
        self.info = values["info"]


class SharedMetrics:
    """Leads to a metrics context; iterators that are joined lead to the same one."""

    def __init__(self, metrics: MetricsContext | None = None, parents: list[SharedMetrics] | None = None) -> None:
        self.metrics = metrics or MetricsContext()
        self.parents = parents or []
        self.set(self.metrics)

    def set(self, metrics: MetricsContext) -> None:
        """Lead, with all that this was made of, to this one."""
        self.metrics = metrics
        for parent in self.parents:
            parent.set(metrics)

    def get(self) -> MetricsContext:
        """The context."""
        return self.metrics
