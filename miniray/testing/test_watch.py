"""What the plugin does around every test: leaks, the output of workers, coverage."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import miniray
from miniray.exceptions import RaySystemError
from miniray.processes import current
from miniray.processes.actor_plane import OwnedActor
from miniray.system import worker_coverage
from miniray.testing.shared_session import SharedSession

#: Seconds that things have to go after a test, before they count as left behind.
_PATIENCE = 1.0
#: Bytes of one worker's output that are attached to a report at most.
_OUTPUT = 20_000
#: The attribute of a report that says what its test left behind; xdist carries it to the process that prints it.
_LEFT = "miniray_left_behind"


def _core() -> Any:
    core = current.core_or_none()
    return core if core is not None and not core.closed else None


class TestWatch:
    """Registered once per run.

    Args:
        leaks: "off", "report" or "error".
    """

    __test__ = False  # a plugin, and no test

    def __init__(self, config: pytest.Config, leaks: str) -> None:
        self._config = config
        self._leaks = leaks
        self._found: list[tuple[str, list[str]]] = []
        self._offsets: dict[str, int] = {}
        self._log_dir = ""

    # -- coverage --------------------------------------------------------------------------------------------------

    # Inside of pytest-cov's wrapper, which puts the data files together at its end.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        """Have workers measured if this process is; end the session before the data files are put together."""
        measured = self._measure()
        try:
            return (yield)
        finally:
            if measured:
                miniray.shutdown()
                os.environ.pop(worker_coverage.VARIABLE, None)

    @staticmethod
    def _measure() -> bool:
        import sys

        coverage = sys.modules.get("coverage")
        measurement = coverage.Coverage.current() if coverage is not None else None
        if measurement is None:
            return False
        os.environ[worker_coverage.VARIABLE] = worker_coverage.settings_of(measurement)
        return True

    # -- what is left behind ---------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Compare what there is before and after a test, the setup of shared fixtures apart."""
        self._note_logs()
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """After the fixtures are set up: from here on, what is new is the test's."""
        if self._leaks != "off":
            item.stash[_before] = _Holdings.take()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """After the fixtures are torn down: what is still there was left behind."""
        try:
            return (yield)
        finally:
            before = item.stash.get(_before, None)
            if before is not None:
                left = item.stash[_left] = before.left_behind()
                if left and self._leaks == "error":
                    pytest.fail("left behind by this test:\n  " + "\n  ".join(left), pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect it; under xdist in the process that prints the summary, from reports of the others."""
        left = getattr(report, _LEFT, None)
        if left:
            self._found.append((report.nodeid, left))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List what tests left behind."""
        if self._leaks == "report" and self._found:
            terminalreporter.section("miniray: left behind by tests")
            for name, left in self._found:
                terminalreporter.line(name)
                for line in left:
                    terminalreporter.line(f"  {line}")

    # -- reports, and the output of workers in them ---------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        """Attach what a test left behind, and what workers wrote during one that fails."""
        report: Any = yield
        if report.when == "teardown":
            setattr(report, _LEFT, item.stash.get(_left, []))
        if report.failed and report.when != "teardown":
            text = self._worker_output()
            if text:
                report.sections.append(("miniray: output of workers during this test", text))
        return report  # type: ignore[no-any-return]

    def _note_logs(self) -> None:
        self._log_dir = self._current_logs()
        self._offsets = dict(self._log_sizes(self._log_dir))

    @staticmethod
    def _current_logs() -> str:
        core = _core()
        return str(core.session.get("log_dir", "")) if core is not None else ""

    @staticmethod
    def _log_sizes(folder: str) -> Iterator[tuple[str, int]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder else []
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith("worker-"):
                yield entry.path, entry.stat().st_size

    def _worker_output(self) -> str:
        parts = []
        for path, size in self._log_sizes(self._current_logs()):
            start = self._offsets.get(path, 0)
            if size <= start:
                continue
            with open(path, "rb") as file:
                file.seek(max(start, size - _OUTPUT))
                text = file.read().decode("utf-8", "replace").strip()
            name, _, kind = os.path.basename(path).rpartition(".")
            pid = name.rpartition("-")[2]
            if text:
                parts.append(f"--- worker {pid}, {'standard error' if kind == 'err' else 'standard output'}\n{text}")
        return "\n".join(parts)


class _Holdings:
    """What this process has in its session at one moment."""

    def __init__(self, session: str, actors: dict[str, str], objects: set[bytes]) -> None:
        self.session = session
        self.actors = actors
        self.objects = objects

    @classmethod
    def take(cls) -> _Holdings:
        core = _core()
        if core is None or core.head_lost:
            return cls("", {}, set())
        from miniray.messages.control import Query

        try:
            rows = core.head_client.request(lambda number: Query(number, "actors"))
        except RaySystemError:
            return cls("", {}, set())  # the test has ended its head, and nothing is held any more
        alive = {
            row["actor_id"]: f"actor {row['class_name']}{' named ' + repr(row['name']) if row['name'] else ''}"
            for row in rows
            if row["state"] != "DEAD" and not row["class_name"].startswith("_")
        }
        with core.lock:
            core.settle()
            # Handles of actors are refs, too; actors are named anyway.
            held = {
                entry.object_id
                for entry in core.objects.entries.values()
                if entry.local and not isinstance(entry.producer, OwnedActor)
            }
        return cls(str(core.session["session_name"]), alive, held)

    def left_behind(self) -> list[str]:
        """What is more now than at the time of `self`; waits a moment for what is on its way out."""
        deadline = time.monotonic() + _PATIENCE
        collected = False
        while True:
            left = self._compare(_Holdings.take())
            if not left:
                return left
            if not collected:
                gc.collect()
                collected = True
            if time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def _compare(self, now: _Holdings) -> list[str]:
        if now.session != self.session:
            if not now.session or now.session in SharedSession.names:
                return []
            return ["a session that runs on: call shutdown, or use the fixture miniray_isolated"]
        left = [f"{text} is alive" for actor, text in now.actors.items() if actor not in self.actors]
        objects = len(now.objects - self.objects)
        if objects:
            left.append(f"{objects} object{'s' if objects > 1 else ''} still referred to in this process")
        return left


_before = pytest.StashKey[_Holdings]()
_left = pytest.StashKey[list[str]]()
