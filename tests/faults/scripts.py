"""Programs that a test runs as users do: a script in a process of its own, and what is left of it afterwards.

Each program has a session root of its own and a mark in its environment, which forked processes inherit. So `remains`
finds everything that its sessions have started or made, whoever of them was killed.
"""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from types import TracebackType

import psutil

from tests.waiting import wait_for

MARK = "MINIRAY_FAULT_PROGRAM"

#: What every script begins with. It has no `if __name__ == "__main__"`, on purpose.
PREAMBLE = """
import os, signal, sys, time
import miniray as ray
from tests.faults.inside import *
"""


class Program:
    """A running script. Its output is read line by line while it runs.

    Args:
        text: the script, after `PREAMBLE`.
        environment: more variables.
        root: the session root; by default one of its own.
        new_group: a process group of its own, as a shell makes for each command.
        preamble: whether `PREAMBLE` stands before the script.
    """

    def __init__(
        self,
        text: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        root: str = "",
        new_group: bool = True,
        preamble: bool = True,
    ) -> None:
        self.own_root = not root
        self.root = root or tempfile.mkdtemp(prefix="mrp-", dir="/tmp")
        self.mark = secrets.token_hex(8)
        script = Path(self.root) / f"script-{self.mark}.py"
        script.write_text((PREAMBLE if preamble else "") + textwrap.dedent(text))
        repository = str(Path(__file__).resolve().parents[2])
        path = [repository, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in path if entry),
            "PYTHONUNBUFFERED": "1",
            "MINIRAY_TMPDIR": self.root,
            "RAY_COLOR_PREFIX": "0",
            MARK: self.mark,
            **(environment or {}),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=variables,
            **({"process_group": 0 if new_group else None} if sys.version_info >= (3, 11) else {}),
            start_new_session=new_group and sys.version_info < (3, 11),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.out.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.err.append(line)

    def report(self) -> str:
        """What it has said, for the text of a failing assertion."""
        return f"\n--- stdout ---\n{''.join(self.out)[-6000:]}\n--- stderr ---\n{''.join(self.err)[-6000:]}"

    def read(self, word: str, timeout: float = 20) -> str:
        """Wait for the next line of its output that begins with this word; the rest of that line."""
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                raise AssertionError(f"no line {word!r} within {timeout} s{self.report()}") from None
            assert line is not None, f"it ended without saying {word!r}{self.report()}"
            if line.split(" ", 1)[0].strip() == word:
                return line[len(word) :].strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def interrupt_group(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to all processes of the foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self, timeout: float = 20) -> int:
        """Wait for its end; its exit code."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {timeout} s{self.report()}") from None
        for reader in self._readers:
            reader.join(5)
        return self.process.returncode

    def succeed(self, timeout: float = 20) -> str:
        """Wait for its end, which is to be a good one without anything left over; what it has printed."""
        code = self.wait(timeout)
        assert code == 0, f"exit code {code}{self.report()}"
        self.leaves_nothing()
        return "".join(self.out)

    # -- what is left ----------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Living processes that descend from this program (itself included), with a line about each."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE or process.environ().get(MARK) != self.mark:
                    continue
                found[process.pid] = " ".join(process.cmdline())[:120] or process.name()
            except psutil.Error:
                continue
        return found

    def directories(self) -> list[str]:
        """Session directories and stores in shared memory of this program's session root."""
        found = [str(path) for path in Path(self.root).glob("miniray-*/*") if path.name != "lock"]
        for path in Path("/dev/shm").glob("miniray-*"):
            try:
                if os.readlink(path / ".session").startswith(self.root + "/"):
                    found.append(str(path))
            except OSError:
                continue
        return found

    def remains(self) -> list[str]:
        """Everything that there should not be after its end."""
        return [f"process {pid}: {line}" for pid, line in self.processes().items()] + self.directories()

    def leaves_nothing(self, timeout: float = 5) -> None:
        """Wait until nothing is left of it. Every end takes less than five seconds."""
        wait_for(lambda: not self.remains(), timeout, lambda: f"still there: {self.remains()}{self.report()}")

    def no_process_is_left(self, timeout: float = 5) -> None:
        """Wait until no process of it is left."""
        wait_for(lambda: not self.processes(), timeout, lambda: f"still there: {self.processes()}{self.report()}")

    def close(self) -> None:
        """Kill what is left, so that a test that failed leaves nothing behind for those after it."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(10)
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self.own_root:
            for path in self.directories():
                shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def run(text: str, *arguments: str, timeout: float = 20, environment: dict[str, str] | None = None) -> str:
    """Run a script to its good end, check that nothing is left of it, and return what it has printed."""
    with Program(text, *arguments, environment=environment) as program:
        return program.succeed(timeout)
