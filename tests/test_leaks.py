"""The leak check finds what is planted, and is quiet otherwise."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq

from tests import leaks
from tests.waiting import wait_for


@pytest.fixture
def before():
    return leaks.Snapshot.take()


def test_nothing_is_reported_when_nothing_was_left(before):
    with open(os.devnull), zmq.Context() as context, context.socket(zmq.PULL):
        pass
    assert leaks.wait_until_clean(before) == []


def test_a_process_is_found(before):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        # Between its fork and its exec it carries the environment of this process, which was there before the run.
        lines = wait_for(lambda: [line for line in leaks.leaks_since(before) if line.startswith("process")])
        assert lines[0].startswith(f"process {process.pid}:")
    finally:
        process.communicate(b"\n")
    assert leaks.wait_until_clean(before) == []


def test_a_process_whose_parent_ended_is_found_and_can_be_ended(before):
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", child], check=True)
    wait_for(lambda: any("time.sleep(600)" in line for line in leaks.leaks_since(before)))
    leaks.end(set(leaks.processes_of_this_run()) - set(before.processes))
    assert leaks.wait_until_clean(before) == []


def test_a_thread_is_found(before):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    thread.start()
    assert "forgotten" in "".join(leaks.leaks_since(before))
    stop.set()
    thread.join()
    assert leaks.leaks_since(before) == []


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are read from /proc")
def test_a_file_descriptor_is_found(before):
    number = os.open(os.devnull, os.O_RDONLY)
    assert f"file descriptor {number}: {os.devnull}" in leaks.leaks_since(before)
    os.close(number)
    assert leaks.leaks_since(before) == []


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
def test_a_zeromq_context_that_is_not_closed_is_found(before):
    context = zmq.Context()
    context.socket(zmq.PULL).close()
    assert any(line.startswith("ZeroMQ") for line in leaks.leaks_since(before))
    context.term()
    assert leaks.wait_until_clean(before) == []


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/shm")
def test_shared_memory_is_found(before):
    path = Path(f"/dev/shm/miniray-{os.getuid()}-planted-{os.getpid()}")
    path.write_bytes(b"x")
    try:
        assert f"shared memory: {path}" in leaks.leaks_since(before)
    finally:
        path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/shm")
def test_shared_memory_of_a_session_outside_of_this_run_is_none_of_our_business(before, tmp_path):
    path = Path(f"/dev/shm/miniray-{os.getuid()}-planted-{os.getpid()}")
    path.mkdir()
    (path / ".session").symlink_to(tmp_path)
    try:
        assert leaks.leaks_since(before) == []
    finally:
        (path / ".session").unlink()
        path.rmdir()


def test_a_session_directory_is_found(before):
    path = leaks.session_root() / "planted"
    path.mkdir(parents=True)
    try:
        assert f"session: {path}" in leaks.leaks_since(before)
    finally:
        path.rmdir()


def test_waiting_returns_what_the_condition_returned():
    answers = iter([None, 0, "there"])
    assert wait_for(lambda: next(answers)) == "there"


def test_waiting_in_vain_says_for_what():
    with pytest.raises(AssertionError, match="a miracle"):
        wait_for(lambda: False, timeout=0, message="a miracle")
    with pytest.raises(AssertionError, match="last seen: 3"):
        wait_for(lambda: False, timeout=0, message=lambda: "last seen: 3")
