"""Counters, gauges and histograms of a program's own, as `ray.util.metrics` has them.

Ray sends them to its dashboard's agent, for Prometheus to fetch. miniray has no agent: each process keeps its own
figures, and `exposition` gives them as text in Prometheus's format, to be served or printed.

Source: https://docs.ray.io/en/latest/ray-observability/user-guides/add-app-metrics.html
"""

from __future__ import annotations

import re
import threading
import warnings
from bisect import bisect_left
from typing import Any, NamedTuple

__all__ = ["Counter", "Gauge", "Histogram", "Metric", "exposition"]

_VALID_NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
_lock = threading.Lock()
_Tags = tuple[tuple[str, str], ...]


class _Figures(NamedTuple):
    """Of all metrics with one name and kind; description and boundaries are those of the first."""

    description: str
    boundaries: list[float]  #: in order
    series: dict[_Tags, Any]  #: value per tags; of a histogram: [count per bucket ..., sum]


#: by name and kind
_figures: dict[tuple[str, str], _Figures] = {}


class Metric:
    """What all metrics have. Use `Counter`, `Gauge` or `Histogram`.

    Args:
        name: letters, digits, ``_`` and ``:``; one with others is warned about, and its figures are dropped.
        description: for those who read the figures.
        tag_keys: the names of the tags that each figure carries.

    Raises:
        ValueError: the name is empty.
        TypeError: `tag_keys` is no tuple of strings.
    """

    _kind = "untyped"

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if len(name) == 0:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        self._discard = _VALID_NAME.match(name) is None
        if self._discard:
            warnings.warn(
                f"Invalid metric name: {name}. Metric will be discarded and data will not be collected or published. "
                "Metric names can only contain letters, numbers, _, and :. Metric names cannot start with numbers.",
                UserWarning,
                stacklevel=2,
            )
        self._name = name
        self._description = description
        self._default_tags: dict[str, str] = {}
        tag_keys = tag_keys or ()
        if not isinstance(tag_keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._tag_keys = tag_keys

    def set_default_tags(self, default_tags: dict[str, str]) -> Metric:
        """Tags for figures that are given without them. Returns the metric.

        Raises:
            ValueError: a tag is none of `tag_keys`.
            TypeError: a value is no string.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _tags(self, tags: dict[str, str] | None) -> _Tags:
        for value in (tags or {}).values():
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        final = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in final]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return tuple((key, final[key]) for key in self._tag_keys)

    def _figures(self) -> _Figures:
        key = self._name, self._kind
        found = _figures.get(key)
        if found is None:
            found = _figures[key] = _Figures(self._description, sorted(getattr(self, "boundaries", ())), {})
        return found


def _check_number(value: Any) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"value must be int or float, got {type(value)}.")


class Counter(Metric):
    """A figure that only grows."""

    _kind = "counter"

    def inc(self, value: int | float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Add `value` (more than 0).

        Raises:
            ValueError: it is not more than 0, or a tag is missing.
            TypeError: it is no number, or a tag is no string.
        """
        _check_number(value)
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        key = self._tags(tags)
        if not self._discard:
            with _lock:
                series = self._figures().series
                series[key] = series.get(key, 0.0) + value


class Gauge(Metric):
    """A figure that goes up and down."""

    _kind = "gauge"

    def set(self, value: int | float | None, tags: dict[str, str] | None = None) -> None:
        """The figure is `value` now; None: nothing changes.

        Raises:
            ValueError: a tag is missing.
            TypeError: it is no number, or a tag is no string.
        """
        if value is None:
            return
        _check_number(value)
        key = self._tags(tags)
        if not self._discard:
            with _lock:
                self._figures().series[key] = value


class Histogram(Metric):
    """How often figures fell between boundaries.

    Args:
        boundaries: the upper ends of the buckets, each more than 0.

    Raises:
        ValueError: no boundaries, or one that is not more than 0.
    """

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. e.g., "
                'Histogram("name", boundaries=[1.0, 2.0])'
            )
        for index, boundary in enumerate(boundaries):
            if boundary <= 0:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {index}, {boundaries}. Use positive values for the "
                    "arguments."
                )
        self.boundaries = boundaries

    def observe(self, value: int | float, tags: dict[str, str] | None = None) -> None:
        """Count `value` in its bucket.

        Raises:
            ValueError: a tag is missing.
            TypeError: it is no number, or a tag is no string.
        """
        _check_number(value)
        key = self._tags(tags)
        if not self._discard:
            with _lock:
                figures = self._figures()
                buckets = figures.series.setdefault(key, [0.0] * (len(figures.boundaries) + 2))
                buckets[bisect_left(figures.boundaries, value)] += 1
                buckets[-1] += value

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys, default tags and boundaries."""
        return {**super().info, "boundaries": self.boundaries}


def exposition() -> str:
    """This process's figures as text in Prometheus's format. An extension of miniray.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    with _lock:
        for (name, kind), (description, boundaries, series) in sorted(_figures.items()):
            lines += [f"# HELP {name} {_one_line(description)}", f"# TYPE {name} {kind}"]
            for tags, figure in sorted(series.items()):
                if kind != "histogram":
                    lines.append(f"{name}{_labels(tags)} {figure}")
                    continue
                below = 0.0
                for boundary, count in zip([*boundaries, "+Inf"], figure, strict=False):
                    below += count
                    lines.append(f"{name}_bucket{_labels((*tags, ('le', str(boundary))))} {below}")
                lines += [f"{name}_sum{_labels(tags)} {figure[-1]}", f"{name}_count{_labels(tags)} {below}"]
    return "\n".join(lines) + "\n" if lines else ""


def _labels(tags: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f"{key}={_quoted(value)}" for key, value in tags) + "}" if tags else ""


def _quoted(text: str) -> str:
    escaped = _one_line(text).replace('"', '\\"')
    return f'"{escaped}"'


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
