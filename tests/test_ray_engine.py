"""`init(engine="ray")`: the same program on the real Ray; and what is said where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.processes import other_engine
from tests.differential.run import ray_python

PROGRAM = Path(__file__).with_name("ray_engine_program.py")
ROOT = PROGRAM.parents[1]

needs_ray = pytest.mark.skipif(
    ray_python() is None and not os.environ.get("MINIRAY_REQUIRE_RAY"),
    reason="the real Ray is not installed; MINIRAY_RAY_PYTHON may name an interpreter that has it",
)
without_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="the real Ray is installed in this interpreter"
)

EXPECTED: dict[str, Any] = {
    "ray is imported when it is asked for": False,
    "initialized": True,
    "refs are those of Ray": ["ray", 9],
    "put": {"a": 1},
    "wait": [3, 0],
    "tasks call tasks": 14,
    "tasks catch by our names": "RayTaskError(KeyError)",
    "errors are three things": [True, True],
    "timeouts": [True, True],
    "cancelled": True,
    "actors": [6, [1, 2]],
    "named actors": 7,
    "names that are taken": True,
    "await": "caught",
    "generators": [0, 1, 2],
    "options": 16,
    "resources": [3.0, 1],
    "actor pool": [1, 1, 2, 2],
    "placement groups": 25,
    "node affinity": 36,
    "queue": [1, True],
    "pool": [1, 2],
    "killed actors": True,
    "extensions": "'timeout_s' is an extension of miniray: remote of engine='ray' does not have it.",
    "a second init": "Maybe you called ray.init twice by accid",
    "state": True,
    "shut down": False,
    "miniray again": ["miniray", 4],
}


def on_ray(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Short, because socket paths below it end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
        environment |= {"RAY_AUTH_MODE": "disabled", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_TMPDIR": folder}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), **variables}
        python = ray_python() or sys.executable
        return subprocess.run(
            [python, *command], env=environment, cwd=folder, capture_output=True, encoding="utf-8", timeout=150
        )


@needs_ray
@pytest.mark.differential
@pytest.mark.timeout(200)
def test_a_program_of_miniray_runs_on_ray() -> None:
    done = on_ray(str(PROGRAM))
    told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert told == EXPECTED, done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]


@needs_ray
@pytest.mark.differential
@pytest.mark.timeout(200)
@pytest.mark.parametrize("example", ["parallel_map.py"])
def test_examples_print_the_same(example: str) -> None:
    path = ROOT / "examples" / example
    done = on_ray(str(path), MINIRAY_ENGINE="ray", RAY_LOG_TO_DRIVER="0")
    ours = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ours.returncode == 0 and ours.stdout, ours.stderr[-3000:]
    assert done.stdout == ours.stdout, done.stderr[-3000:]


@without_ray
def test_without_ray_it_says_what_to_install() -> None:
    with pytest.raises(ImportError, match="not installed here: pip install 'miniray\\[ray\\]'"):
        miniray.init(engine="ray")
    assert other_engine.engine is None
    assert not miniray.is_initialized()


def test_under_the_alias_there_is_no_real_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", miniray)
    with pytest.raises(RuntimeError, match="the alias is installed"):
        miniray.init(engine="ray")
    assert other_engine.engine is None


def test_other_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no engine 'spark': it is 'miniray' or 'ray'"):
        miniray.init(engine="spark")


def test_strict_mode_does_not_know_the_argument() -> None:
    script = "import miniray; miniray.init(engine='ray')"
    environment = {**os.environ, "MINIRAY_STRICT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=50)
    assert done.stderr.splitlines()[-1] == "RuntimeError: Unknown keyword argument(s): engine"


def test_the_engine_named_miniray_is_this_one() -> None:
    with miniray.init(engine="miniray", num_cpus=1):
        assert type(miniray.put(1)) is miniray.ObjectRef
