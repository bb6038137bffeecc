"""The set-up process of a runtime environment, spoken to as the head does."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import msgspec

from miniray.messages.startup import EnvironmentPlan, EnvironmentRequest
from miniray.system.process_start import python_command, spawn
from tests.waiting import wait_for

TIMEOUT = 30


def start(tmp_path: Path) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = python_command("miniray.runtime_env.setup_process", "main")
        log = str(tmp_path / "log")
        pid = spawn(command, {3: theirs.fileno()}, log, log)
    request = EnvironmentRequest('{"env_vars": {"A": "1"}}', str(tmp_path), str(tmp_path), False)
    ours.sendall(msgspec.json.encode(request) + b"\n")
    assert select.select([ours], [], [], TIMEOUT)[0]
    return ours, pid


def ended_by(pid: int) -> int:
    _, status = wait_for(lambda: ended if (ended := os.waitpid(pid, os.WNOHANG))[0] else None, timeout=TIMEOUT) or (
        0,
        0,
    )
    return os.waitstatus_to_exitcode(status)


def test_it_answers_and_ends_when_it_is_hung_up_on(tmp_path: Path) -> None:
    connection, pid = start(tmp_path)
    with connection:
        plan = msgspec.json.decode(connection.recv(1 << 16), type=EnvironmentPlan)
    assert (plan.error, plan.env) == ("", {"A": "1"})
    assert ended_by(pid) == -signal.SIGKILL


def test_it_ends_with_a_head_that_died_before_it_read_the_answer(tmp_path: Path) -> None:
    connection, pid = start(tmp_path)
    connection.close()
    assert ended_by(pid) == -signal.SIGKILL
