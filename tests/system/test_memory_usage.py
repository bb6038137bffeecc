"""How much memory is in use, and by whom."""

import os

import pytest

from miniray.system import memory_usage
from miniray.system.memory_usage import Usage


def test_a_file_can_stand_for_the_machine(tmp_path, monkeypatch):
    reading = tmp_path / "reading"
    monkeypatch.setenv("MINIRAY_MEMORY_READING", str(reading))
    assert memory_usage.memory_usage() == Usage(0, 0)
    reading.write_text("95 100\n")
    assert memory_usage.memory_usage() == Usage(95, 100)


def test_the_machine_has_memory_and_some_of_it_is_in_use():
    usage = memory_usage.memory_usage()
    assert 0 < usage.used < usage.total


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_a_process_that_takes_memory_is_seen_to_and_one_that_is_gone_takes_none():
    before = memory_usage.used_by(os.getpid())
    data = bytearray(os.urandom(1000)) * 50_000
    assert memory_usage.used_by(os.getpid()) >= before + 40_000_000
    assert len(data) == 50_000_000
    assert memory_usage.used_by((1 << 22) + 1) == 0
    users = memory_usage.largest_users(3)
    assert len(users) == 3 and users[0].used >= users[1].used >= users[2].used


def test_files_that_the_kernel_can_drop_do_not_count_against_a_container(tmp_path):
    for name, text in {"max": "1000", "current": "900", "stat": "anon 1\ninactive_file 300\nother 5\n"}.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("max", "current", "stat")]
    assert memory_usage._container(*files, "inactive_file ") == Usage(600, 1000)
    (tmp_path / "max").write_text("max")
    assert memory_usage._container(*files, "inactive_file ") is None
