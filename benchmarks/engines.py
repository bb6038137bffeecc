"""miniray and the real Ray: which interpreter has them, how they are configured, and fresh processes that run them.

Every process that a benchmark starts, directly or not, carries a token in its environment. By it the memory of a
session is added up over all its processes, and by it whatever is left is ended.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TOKEN_VARIABLE = "MINIRAY_BENCHMARK"

#: What both engines get from `init`, so that they are alike; and what only Ray gets.
INIT = {"num_cpus": 2, "include_dashboard": False, "logging_level": "error", "log_to_driver": False}
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
#: Without bytecode on disk every process would compile what it imports, which no installed package does.
_NOT_FOR_CHILDREN = ("RAY_ADDRESS", "MINIRAY_ADDRESS", "MINIRAY_TRACE", "MINIRAY_STRICT", "PYTHONDONTWRITEBYTECODE")


class Failed(Exception):
    """A process of an engine ended badly or took too long; the text says how."""


class Ended(NamedTuple):
    """How a process of an engine ended well."""

    output: str
    seconds: float  #: of wall time, from its start until it was reaped


class Engine(NamedTuple):
    """An implementation of the Ray Core API: `name` is also the name of its module."""

    name: str
    python: str
    version: str
    python_version: str

    def environment(self, token: str) -> dict[str, str]:
        """Of a fresh process."""
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
        path = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        return {**environment, **RAY_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path), TOKEN_VARIABLE: token}

    def run(self, arguments: list[str], timeout: float = 60.0) -> Ended:
        """Run this engine's interpreter with these arguments until it ends.

        Raises:
            Failed: its exit code is not 0, or the time was over. Nothing of it is left running.
        """
        token = secrets.token_hex(8)
        begin = time.perf_counter()
        process = start(self, arguments, token)
        try:
            output, errors = process.communicate(timeout=timeout)
            seconds = time.perf_counter() - begin
        except subprocess.TimeoutExpired:
            end_all(token, patience=0.0)  # all of them: whoever has the pipe keeps it open
            process.kill()
            process.communicate()
            raise Failed(f"{self.name}: not done within {timeout:.0f} s")
        finally:
            end_all(token)
        if process.returncode:
            raise Failed(f"{self.name}: exit code {process.returncode}\n{errors.strip()[-2000:]}")
        return Ended(output, seconds)


def start(engine: Engine, arguments: list[str], token: str) -> subprocess.Popen[str]:
    """A fresh process of this engine, with pipes."""
    return subprocess.Popen(
        [engine.python, *arguments],
        env=engine.environment(token),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_engine(name: str, python: str | None = None) -> Engine | None:
    """The engine that this interpreter (by default the running one) has; None: it has not."""
    python = python or sys.executable
    code = f"import json, platform, {name} as ray; print(json.dumps([ray.__version__, platform.python_version()]))"
    try:
        version, python_version = json.loads(Engine(name, python, "", "").run(["-c", code], 60).output.splitlines()[-1])
    except (Failed, OSError, IndexError, ValueError):
        return None
    return Engine(name, python, version, python_version)


def processes_with(token: str) -> list[int]:
    """The living processes that carry this token."""
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                pass  # it ended meanwhile, or belongs to somebody else
    return found


def end_all(token: str, patience: float = 3.0) -> None:
    """Wait until no process with this token is left, and kill those that stay: no trial disturbs the next one."""
    if not os.path.isdir("/proc"):
        return
    deadline = time.monotonic() + patience
    while left := processes_with(token):
        if time.monotonic() >= deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.02)


def pss_megabytes(pids: list[int]) -> float:
    """The memory of these processes together; what several share is counted once (proportional set size)."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
        except OSError:
            pass  # it ended meanwhile
    return total * 1024 / 1e6


def script(engine: Engine, body: str) -> list[str]:
    """The arguments of an interpreter that starts a session as it is configured here, then runs `body`."""
    options = ", ".join(f"{name}={value!r}" for name, value in INIT.items())
    return ["-c", f"import {engine.name} as ray\nray.init('local', {options})\n{body}"]


def measure_in_session(engine: Engine, names: list[str], size: Any, timeout: float = 240.0) -> dict[str, Any]:
    """Measure these claims in one fresh session; name -> figure, or a text that says why there is none.

    Raises:
        Failed: the session ended badly.
    """
    request = json.dumps({"engine": engine.name, "init": INIT, "names": names, "size": list(size)})
    lines = engine.run(["-m", "benchmarks.session", request], timeout).output.splitlines()
    return dict(json.loads(lines[-1]))
