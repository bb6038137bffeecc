"""The example of the bus: whatever happens to the recorder, its database holds every event once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_bus.py"


def run(*arguments: str) -> str:
    command = [sys.executable, "-W", "default::ResourceWarning", str(EXAMPLE), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ResourceWarning" not in done.stderr  # Python 3.13 has it for a database that is not closed
    return done.stdout


def test_the_recorder_has_everything() -> None:
    output = run("--runs", "2", "--episodes", "2", "--steps", "100")
    assert output.splitlines()[-1] == "emitted 408, recorded 408, missing 0, twice 0"


@pytest.mark.parametrize("slow", ["0", "0.05"])
def test_a_recorder_that_is_killed_misses_nothing_and_has_nothing_twice(slow: str) -> None:
    output = run("--kill-recorder", "--slow-recorder", slow)
    assert "was killed" in output
    assert output.splitlines()[-1] == "emitted 3018, recorded 3018, missing 0, twice 0"
