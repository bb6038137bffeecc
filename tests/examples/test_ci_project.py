"""The sample project of docs/ci.md: its suite passes on miniray with all of its tasks and actors covered."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import miniray

PROJECT = Path(__file__).parents[2] / "examples" / "ci_project"
PARENT = str(Path(miniray.__file__).parents[1])
LOADED = any(entry.name == "miniray" for entry in importlib.metadata.entry_points(group="pytest11"))

RAY_PYTHON = os.environ.get("MINIRAY_RAY_PYTHON") or (sys.executable if importlib.util.find_spec("ray") else "")


def run(*arguments, tmp_path):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": PARENT, "COVERAGE_FILE": str(tmp_path / ".coverage")},
    )


def test_its_suite_passes_and_covers_tasks_and_actors(tmp_path):
    pytest.importorskip("pytest_cov")
    plugin = [] if LOADED else ["-p", "miniray.testing.pytest_plugin"]
    report = tmp_path / "coverage.json"
    done = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "--miniray", "--miniray-leaks=error"),
        *("--cov=orders", f"--cov-report=json:{report}"),
        tmp_path=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 passed" in done.stdout
    files = json.loads(report.read_text())["files"]
    missing = {name: data["missing_lines"] for name, data in files.items() if data["missing_lines"]}
    assert missing == {}


@pytest.mark.differential
@pytest.mark.slow
@pytest.mark.skipif(not RAY_PYTHON, reason="needs the real Ray")
@pytest.mark.timeout(300)
def test_the_comparison_prints_both(tmp_path):
    pytest.importorskip("pytest_cov")
    probe = subprocess.run([RAY_PYTHON, "-c", "import ray, pytest, pytest_cov"], capture_output=True)
    if probe.returncode:
        pytest.skip("the interpreter with Ray has no pytest-cov")
    done = run("compare.py", "--json", "--ray-python", RAY_PYTHON, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tests"] == 16
    assert set(found["miniray"].values()) == {100}
    assert min(found["ray"].values()) < 100
