"""The head's part in runtime environments, where it cannot start what it needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniray.processes import head_environments
from miniray.processes.head_environments import Environments


@pytest.mark.parametrize(
    ("fails", "env"),
    [("spawn", '{"pip": {"packages": ["x"]}}'), ("exec_fork_server", '{"env_vars": {}}')],
)
def test_a_process_that_cannot_be_started_is_an_error_of_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, env: str
) -> None:
    told: list[tuple[str, str]] = []
    head: Any = SimpleNamespace(
        now=0.0,
        config=SimpleNamespace(session_dir=str(tmp_path)),
        startup=SimpleNamespace(paths=SimpleNamespace(logs=str(tmp_path)), environment_fork_server_config=lambda: None),
        gcs=SimpleNamespace(jobs={}),
        leases=SimpleNamespace(unprepared=lambda env, text: told.append((env, text))),
    )

    def fail(*_: Any) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(head_environments, fails, fail)
    environments = Environments(head, "1.2.3.4")
    if fails == "spawn":
        environments.prepare(env)
    else:
        environments._finish(env, head_environments.EnvironmentPlan(command="python"))
    ((named, text),) = told
    assert named == env and "no more processes" in text
