"""The example of channels: nothing lost, nothing twice, in order per producer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "channels.py"


@pytest.mark.parametrize(("items", "producers", "consumers"), [(100_000, 4, 4), (1_001, 3, 1)])
def test_all_items_arrive_once_and_in_order(items: int, producers: int, consumers: int) -> None:
    command = [sys.executable, str(EXAMPLE), str(items), str(producers), str(consumers)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    *by_consumer, summary = done.stdout.splitlines()
    assert len(by_consumer) == consumers
    assert sum(int(line.split()[-2]) for line in by_consumer) == items
    assert summary.startswith(f"{items} items in ")
    assert summary.endswith(", complete, in order")
