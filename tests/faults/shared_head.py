"""A shared head under a root of its own, started and killed as a user would; and drivers that do what they are told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from typing import Any

import psutil

from miniray.system import session
from tests.waiting import wait_for


class Shared:
    """`start`, `kill`, `restart`, `stop`; `stop` leaves nothing, or fails."""

    def __init__(self) -> None:
        self.root = tempfile.mkdtemp(prefix="mrh-", dir="/tmp")  # short: the path of a socket ends at 107 bytes
        self.drivers: list[Driver] = []
        self.environment = {**os.environ, "MINIRAY_TMPDIR": self.root, "RAY_gcs_rpc_server_reconnect_timeout_s": "30"}
        self.directory = os.path.join(self.root, f"miniray-{os.getuid()}")

    def start(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "miniray", "start", "--head", "--num-cpus", "2", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def info(self) -> session.SessionInfo:
        (info,) = session.running_sessions(self.directory)
        return info

    def kill(self) -> session.SessionInfo:
        info = self.info()
        os.kill(info.pid, signal.SIGKILL)
        wait_for(lambda: not session.is_alive(info.directory), 20)
        return info

    def restart(self) -> None:
        before = self.kill()
        assert "takes its place" in self.start()
        assert self.info().epoch == before.epoch + 1

    def driver(self, body: str) -> Driver:
        """A driver that evaluates lines; `body` defines the names that it knows."""
        program = textwrap.dedent(_DRIVER).replace("BODY", textwrap.indent(textwrap.dedent(body), "    ").lstrip())
        self.drivers.append(Driver(program, self.environment))
        return self.drivers[-1]

    def stop(self) -> None:
        for driver in self.drivers:
            driver.end()
        self._run("stop", "--force")
        wait_for(lambda: not self.left(), 30, lambda: f"left over: {self.left()}")
        shutil.rmtree(self.root)

    def stop_head(self) -> None:
        """As a user would, while drivers may still be there."""
        self._run("stop")

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "miniray", *arguments]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=60)

    def left(self) -> list[Any]:
        """Directories and processes of this root."""
        names = os.listdir(self.directory) if os.path.isdir(self.directory) else []
        pids = []
        for process in psutil.process_iter(["pid", "environ"]):
            if (process.info["environ"] or {}).get("MINIRAY_TMPDIR") == self.root and process.pid != os.getpid():
                pids.append(process.pid)
        return [name for name in names if name != "lock"] + pids


_DRIVER = """
import os, sys, time
import miniray
from miniray.experimental import internal_kv as kv

miniray.init(address="auto", namespace="n", log_to_driver=False)
print("ready", flush=True)

def define():
    BODY
    return locals()

things = define()
for line in sys.stdin:
    try:
        answer = eval(line, {**globals(), **things})
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    print(repr(answer), flush=True)
miniray.shutdown()
print("left", flush=True)
"""


class Driver:
    """A program in a process of its own: `ask` has it evaluate an expression."""

    def __init__(self, program: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            self.process.kill()
            raise AssertionError(self.process.communicate()[1][-3000:])
        return line

    def send(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        return eval(self.line())

    def ask(self, expression: str) -> Any:
        self.send(expression)
        return self.answer()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.line() == "left"
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        assert self.process.wait(20) == 0
