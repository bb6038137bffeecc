"""Folds lines that many workers print alike: the first is shown at once, the others are counted and shown later.

Two lines are alike when they differ in numbers only. The window is 5 seconds, as in Ray (`RAY_DEDUP_LOGS`). Lines of
the same process are never folded: a program that prints the same line twice on purpose sees it twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from miniray.messages.tasks import LogLines

WINDOW = 5.0

_NUMBERS = re.compile(r"(?:0x[0-9a-fA-F]+|\d+)")

_HINT = (
    " [repeated {count}x across cluster] (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log "
    "deduplication, or see https://docs.ray.io/en/master/ray-observability/user-guides/configure-logging.html"
    "#log-deduplication for more options.)"
)


class _Seen:
    __slots__ = ("count", "last", "pids", "since")

    def __init__(self, now: float, pid: int) -> None:
        self.since = now
        self.pids = {pid}
        self.count = 0
        self.last: tuple[LogLines, str] | None = None


class LogDeduplicator:
    """Decides which lines are shown now, and which are folded into a later "[repeated Nx across cluster]"."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._seen: dict[tuple[str, bool], _Seen] = {}
        self._hint_shown = False

    def receive(self, message: LogLines, now: float) -> Iterator[tuple[LogLines, list[str]]]:
        """New lines of one worker: yields what to show now."""
        shown: list[str] = []
        for line in message.lines:
            key = (_NUMBERS.sub("0", line), message.stderr)
            seen = self._seen.get(key)
            if seen is None or now >= seen.since + self._window:
                if seen is not None:
                    yield from self._close(seen)
                self._seen[key] = _Seen(now, message.pid)
                shown.append(line)
            elif seen.pids == {message.pid}:
                shown.append(line)
            else:
                seen.pids.add(message.pid)
                seen.count += 1
                seen.last = (message, line)
                continue
            self._seen[key].pids.add(message.pid)
        if shown:
            yield message, shown

    def next_wake(self) -> float | None:
        """When `flush` has something to show next; None: never."""
        return min((seen.since + self._window for seen in self._seen.values() if seen.count), default=None)

    def flush(self, now: float, everything: bool = False) -> Iterator[tuple[LogLines, list[str]]]:
        """Close the windows that are over: yields the folded lines."""
        over = [key for key, seen in self._seen.items() if everything or now >= seen.since + self._window]
        for key in over:
            yield from self._close(self._seen.pop(key))

    def _close(self, seen: _Seen) -> Iterator[tuple[LogLines, list[str]]]:
        if seen.last is None:
            return
        message, line = seen.last
        if seen.count == 1:
            suffix = ""
        elif self._hint_shown:
            suffix = f" [repeated {seen.count}x across cluster]"
        else:
            self._hint_shown = True
            suffix = _HINT.format(count=seen.count)
        seen.last = None
        yield message, [line + suffix]
