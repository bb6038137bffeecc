"""What workers print, on the driver's side: a thread of its own prints it, so that neither the reader of the inbox
nor the user's thread ever waits for a slow terminal.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from miniray.messages.control import Warn, WorkerDied
from miniray.messages.tasks import LogLines
from miniray.state_machines.log_deduplicator import WINDOW, LogDeduplicator
from miniray.system import user_log

_STOP = object()
#: Bytes of a dead worker's log file that are printed at most.
LAST_WORDS = 1 << 20


def _deduplicator() -> LogDeduplicator | None:
    """As Ray's RAY_DEDUP_LOGS variables want it."""
    environment = os.environ
    if environment.get("RAY_DEDUP_LOGS", "1").lower() in ("0", "false"):
        return None
    allow, skip = (environment.get(f"RAY_DEDUP_LOGS_{name}_REGEX") for name in ("ALLOW", "SKIP"))
    if allow or skip:
        import re  # only for who sets one of them

    return LogDeduplicator(
        float(environment.get("RAY_DEDUP_LOGS_AGG_WINDOW_S") or WINDOW),
        re.compile(allow).search if allow else None,
        re.compile(skip).search if skip else None,
    )


class DriverOutput:
    """Prints the lines of workers with a `(name pid=N)` prefix, duplicates folded, to stdout or stderr as they were
    printed.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        #: by process and stream: how much of its log file was printed, and the name it was printed under
        self._told: dict[tuple[int, bool], tuple[int, str]] = {}
        self._deduplicator = _deduplicator()

    def lines(self, message: LogLines) -> None:
        """Lines came from a worker (called by the leader)."""
        self._put(message)

    def last_words(self, message: WorkerDied, name: str) -> None:
        """A worker was killed: print what it had no time to tell. `name` is the task's that it ran."""
        files = []
        for path in () if self._stopped else message.log_files:
            # Opened here: when the thread comes to it, the session may have ended, and its files with it.
            try:
                files.append((path.endswith(".err"), os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
            except OSError:
                pass
        self._put((message.pid, name, files))

    def warning(self, message: Warn) -> None:
        """The head has something to say to the user."""
        self._put(message)

    def _put(self, item: Any) -> None:
        if self._stopped:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="miniray-output", daemon=True)
            self._thread.start()
        self._queue.put(item)

    def _run(self) -> None:
        deduplicator = self._deduplicator
        while True:
            timeout = None
            if deduplicator is not None:
                wake = deduplicator.next_wake()
                timeout = None if wake is None else max(0.0, wake - time.monotonic())
            try:
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                item = None
            now = time.monotonic()
            if isinstance(item, tuple):
                for message in self._rest(*item):
                    self._print(message, message.lines)
            elif isinstance(item, LogLines):
                self._told[item.pid, item.stderr] = item.offset, item.name
                if deduplicator is None:
                    self._print(item, item.lines)
                else:
                    for message, lines in deduplicator.receive(item, now):
                        self._print(message, lines)
            elif isinstance(item, Warn):
                user_log.say(item.level, item.message)
            if deduplicator is not None:
                for message, lines in deduplicator.flush(now, everything=item is _STOP):
                    self._print(message, lines)
            if item is _STOP:
                return

    def _rest(self, pid: int, name: str, files: list[tuple[bool, int]]) -> Iterator[LogLines]:
        """What is in the log files of a dead worker, and was not printed yet."""
        for stderr, fd in files:
            told, last_name = self._told.pop((pid, stderr), (0, ""))
            with open(fd, "rb") as file:
                file.seek(told)
                text = file.read(LAST_WORDS).decode("utf-8", "replace")
            if text:
                yield LogLines(name or last_name, pid, stderr, text.removesuffix("\n").split("\n"))

    def _print(self, message: LogLines, lines: list[str]) -> None:
        stream = sys.stderr if message.stderr else sys.stdout
        if stream is None:
            return
        if message.actor_repr:
            prefix = f"({message.actor_repr} pid={message.pid})"
        else:
            prefix = f"({message.name} pid={message.pid})" if message.name else f"(pid={message.pid})"
        color, reset = _color(prefix)
        text = "".join(f"{color}{prefix}{reset} {line}\n" for line in lines)
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            pass

    def stop(self) -> None:
        """Print what is left, and end the thread."""
        self._stopped = True
        thread = self._thread
        if thread is not None:
            self._queue.put(_STOP)
            if thread is not threading.current_thread():
                thread.join(10.0)
            self._thread = None


def _color(prefix: str) -> tuple[str, str]:
    """Escape sequences around the prefix: as Ray, cyan, or one color per process with RAY_COLOR_PREFIX=1."""
    if os.environ.get("RAY_COLOR_PREFIX", "") == "0":
        return "", ""
    return "\x1b[36m", "\x1b[0m"
