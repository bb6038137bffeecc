"""How long events took from end to end: counts in buckets that double, so that a microsecond and a minute both fit."""

from __future__ import annotations

from collections.abc import Iterable

#: the upper end of the first bucket, in microseconds
_FIRST = 10.0
_BUCKETS = 24


class LatencyHistogram:
    """Counts by powers of two, from 10 microseconds to a minute and more."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total = 0
        self.greatest_us = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """So many events took so long."""
        microseconds = max(0.0, seconds * 1e6)
        bucket = 0 if microseconds < _FIRST else min(_BUCKETS - 1, int(microseconds / _FIRST).bit_length())
        self.counts[bucket] += count
        self.total += count
        self.greatest_us = max(self.greatest_us, microseconds)

    def quantile_us(self, share: float) -> float:
        """The upper end of the bucket in which this share (0 to 1) of the events is reached, in microseconds."""
        wanted = share * self.total
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(self.greatest_us, _FIRST * (1 << bucket))
        return 0.0

    def rows(self) -> Iterable[tuple[float, int]]:
        """(upper end of the bucket in microseconds, count) of the buckets in use."""
        return [(_FIRST * (1 << bucket), count) for bucket, count in enumerate(self.counts) if count]
