"""What a worker prints: into its log files, and from there, line by line, to its job's driver.

The log files are the truth: descriptors 1 and 2 are the files, so that output of C code and of child processes is in
them too. `relay` reads what is new and mails the complete lines. It is called at the end of each task that printed
(so a task's lines reach the driver before its result), when the worker becomes idle, and twelve times a second while
a task runs. When a worker was killed, the driver reads the rest from the files, whose names the head tells it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from miniray.messages.objects import Address
from miniray.messages.tasks import LogLines

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Seconds between two looks at the files while a task runs.
INTERVAL = 0.08
#: Bytes read at once, at most.
CHUNK = 1 << 20


class _MarkingStream:
    """sys.stdout or sys.stderr: passes everything on, and notes that something was printed."""

    def __init__(self, stream: Any, output: WorkerOutput) -> None:
        self._stream = stream
        self._output = output

    def write(self, text: str) -> int:
        self._output.dirty = True
        return self._stream.write(text)  # type: ignore[no-any-return]

    def writelines(self, lines: Any) -> None:
        self._output.dirty = True
        self._stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


class _Tail:
    """One log file and how much of it was relayed."""

    __slots__ = ("fd", "offset", "partial", "stderr")

    def __init__(self, path: str, stderr: bool) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.offset = os.fstat(self.fd).st_size
        self.partial = b""
        self.stderr = stderr

    @property
    def told(self) -> int:
        """The place in the file behind the last complete line that was read."""
        return self.offset - len(self.partial)

    def read(self) -> list[str]:
        if os.fstat(self.fd).st_size <= self.offset:
            return []
        data = os.pread(self.fd, CHUNK, self.offset)
        self.offset += len(data)
        *lines, self.partial = (self.partial + data).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


class WorkerOutput:
    """Relays this worker's output to the driver of its job."""

    def __init__(self, core: CoreWorker, out_file: str, err_file: str) -> None:
        self._core = core
        self._tails = [_Tail(out_file, False), _Tail(err_file, True)]
        self.driver: Address | None = None
        self.dirty = False
        self.name = ""
        self.actor = ""  #: an actor's name, which stands before all that its process prints
        self._armed = False
        sys.stdout = _MarkingStream(sys.stdout, self)
        sys.stderr = _MarkingStream(sys.stderr, self)

    def relay(self, name: str = "") -> None:
        """Mail the new lines (under the core worker's lock; the reply that follows finds them before it)."""
        name = self.actor or name or self.name
        if self.dirty:
            self.dirty = False
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except (OSError, ValueError):
                pass
        for tail in self._tails:
            lines = tail.read()
            while lines:
                if self.driver is not None:
                    self._core.post(self.driver, LogLines(name, self._core.pid, tail.stderr, lines, offset=tail.told))
                lines = tail.read()

    def watch(self, name: str) -> None:
        """A task runs: look at the files now and then."""
        self.name = name
        if not self._armed:
            self._armed = True
            self._core.reactor.call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._armed = False
        executor = self._core.executor
        if executor is not None and executor.running is not None:
            executor.check_stuck()
            self.relay()
            self._core.flush()
            self.watch(self.name)

    def finish(self) -> None:
        """The worker leaves: an unfinished last line goes too."""
        self.relay()
        for tail in self._tails:
            if tail.partial and self.driver is not None:
                text = tail.partial.decode("utf-8", "replace")
                self._core.post(
                    self.driver,
                    LogLines(self.actor or self.name, self._core.pid, tail.stderr, [text], offset=tail.offset),
                )
