"""Folds lines that many workers print alike: the first is shown at once, the others are counted and shown later.

The rules (Ray's)
-----------------
* Two lines are alike when they differ in words that contain a digit, and in spaces, only. A line of nothing but such
  words is like no other.
* While one process alone has printed a line, each copy is shown: a program that prints the same line twice on purpose
  sees it twice. As soon as a second process has, all further copies are counted.
* When the window is over (5 s after the first copy), the last copy is shown: with "[repeated Nx across cluster]" if
  there were several, and then the counting goes on; bare if there was one, and then the next copy is a first one
  again.
* stdout and stderr are apart.

Ray ends windows only when some new line arrives; here they end in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from miniray.messages.tasks import LogLines

#: seconds
WINDOW = 5.0

_GREEN, _RESET = "\x1b[32m", "\x1b[0m"
_HINT = (
    " (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log deduplication, or see "
    "https://docs.ray.io/en/master/ray-observability/user-guides/configure-logging.html#log-deduplication "
    "for more options.)"
)

Shown = tuple[LogLines, list[str]]


class _Seen:
    """Copies of one line within one window."""

    __slots__ = ("count", "last", "message", "pids", "since")

    def __init__(self, now: float, message: LogLines) -> None:
        self.since = now
        self.pids = {message.pid}
        self.count = 0
        self.message = message
        self.last = ""


def pattern_of(line: str) -> str:
    """What alike lines have in common: their words without digits."""
    words = line.split()
    if any(map(str.isdecimal, line)):
        words = [word for word in words if not any(map(str.isdecimal, word))]
    return " ".join(words)


class LogDeduplicator:
    """Decides which lines are shown now, and which are folded into a later "[repeated Nx across cluster]".

    Args:
        window: seconds (`RAY_DEDUP_LOGS_AGG_WINDOW_S`).
        allow: whether a line is exempt (`RAY_DEDUP_LOGS_ALLOW_REGEX`).
        skip: whether a line is not shown at all (`RAY_DEDUP_LOGS_SKIP_REGEX`).
    """

    def __init__(
        self,
        window: float = WINDOW,
        allow: Callable[[str], object] | None = None,
        skip: Callable[[str], object] | None = None,
    ) -> None:
        self._window = window
        self._allow = allow
        self._skip = skip
        self._seen: dict[tuple[str, bool], _Seen] = {}  #: oldest window first
        self._hint_shown = False

    def receive(self, message: LogLines, now: float) -> Iterator[Shown]:
        """New lines of one worker: yields what to show now. Call `flush` afterwards."""
        shown: list[str] = []
        for line in message.lines:
            if self._allow is not None and self._allow(line):
                shown.append(line)
                continue
            if self._skip is not None and self._skip(line):
                continue
            key = (pattern_of(line), message.stderr)
            seen = self._seen.get(key)
            if seen is None:
                if key[0]:
                    self._seen[key] = _Seen(now, message)
                shown.append(line)
                continue
            seen.pids.add(message.pid)
            if len(seen.pids) == 1:
                shown.append(line)
            else:
                seen.count += 1
                seen.message, seen.last = message, line
        if shown:
            yield message, shown

    def next_wake(self) -> float | None:
        """When `flush` has something to do next; None: never."""
        for seen in self._seen.values():
            return seen.since + self._window
        return None

    def flush(self, now: float, everything: bool = False) -> Iterator[Shown]:
        """Close the windows that are over: yields the folded lines."""
        for key, seen in list(self._seen.items()):
            if not everything and now < seen.since + self._window:
                return
            del self._seen[key]
            if seen.count > 1:
                yield seen.message, [seen.last + self._suffix(seen.count)]
                seen.since, seen.count = now, 0
                self._seen[key] = seen
            elif seen.count:
                yield seen.message, [seen.last]

    def _suffix(self, count: int) -> str:
        hint = "" if self._hint_shown else _HINT
        self._hint_shown = True
        return f"{_GREEN} [repeated {count}x across cluster]{hint}{_RESET}"
