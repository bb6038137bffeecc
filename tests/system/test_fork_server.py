"""The fork server alone, with targets of this module instead of workers."""

import json
import os
import signal
import sys

import psutil
import pytest

from miniray.messages.startup import (
    ForkServerConfig,
    PreloadModules,
    ProcessExited,
    ProcessStarted,
    SignalProcess,
    SpawnProcess,
)
from miniray.system.fork_server_connection import exec_fork_server
from tests.waiting import wait_for

ME = "tests.system.test_fork_server"
#: 0, 1, 2, and three of multiprocessing's: its standard input, the sentinels of parent and child
FDS = 6


# ---- targets ----


def report(payload):
    import multiprocessing
    import random

    facts = {
        "payload": payload.decode(),
        "session": os.getsid(0),
        "pid": os.getpid(),
        "fds": len(os.listdir("/proc/self/fd")) - 1,
        "random": random.random(),
        "env": os.environ.get("FLAVOUR"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "daemon": multiprocessing.current_process().daemon,
        "preloaded": "colorsys" in sys.modules,
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }
    print(json.dumps(facts))


def sleep(payload):
    signal.pause()


def leave(payload):
    sys.exit(int(payload))


def fail(payload):
    raise RuntimeError("on purpose")


class Server:
    def __init__(self, start_method, tmp_path):
        self.directory = tmp_path / "session"
        self.directory.mkdir()
        store = tmp_path / "store"
        store.mkdir()
        self.store = store
        config = ForkServerConfig(["colorsys", "no_such_module"], start_method, str(self.directory), str(store))
        self.connection = exec_fork_server(config)
        self.seen = []
        self.tmp_path = tmp_path

    def start(self, key, target, payload=b"", **env):
        out, err = (str(self.tmp_path / f"{key.decode()}.{kind}") for kind in ("out", "err"))
        self.connection.send(SpawnProcess(key, f"{ME}:{target}", payload, "ray::IDLE", out, err, env))
        return self.wait(ProcessStarted, key).pid

    def wait(self, kind, key):
        def found():
            messages = self.connection.read()
            self.seen += messages or []
            return next((item for item in self.seen if isinstance(item, kind) and item.key == key), None)

        return wait_for(found)

    def output(self, key):
        assert self.wait(ProcessExited, key).exit_code == 0, (self.tmp_path / f"{key.decode()}.err").read_text()
        return json.loads((self.tmp_path / f"{key.decode()}.out").read_text())


@pytest.fixture(params=["fork", "spawn"])
def server(request, tmp_path):
    server = Server(request.param, tmp_path)
    server.fork = request.param == "fork"
    yield server
    server.connection.close()
    server.connection.wait()


def test_a_child_is_a_session_of_its_own_with_its_log_and_nothing_else(server):
    pid = server.start(b"one", "report", b"hello", FLAVOUR="sweet")
    facts = server.output(b"one")
    assert (facts["payload"], facts["env"], facts["pid"], facts["session"]) == ("hello", "sweet", pid, pid)
    assert facts["threads"] == os.environ.get("OMP_NUM_THREADS", "1")
    assert not facts["daemon"]
    assert facts["sigint"]
    assert facts["fds"] <= FDS
    assert facts["preloaded"] == server.fork


def test_the_tenth_child_inherits_nothing_of_the_nine_others(server):
    pids = [server.start(b"s%d" % number, "sleep") for number in range(9)]
    server.start(b"ten", "report")
    assert server.output(b"ten")["fds"] <= FDS
    assert len(set(pids)) == 9


def test_children_have_different_random_numbers(server):
    for key in (b"a", b"b"):
        server.start(key, "report")
    assert server.output(b"a")["random"] != server.output(b"b")["random"]


def test_exit_codes_are_reported(server):
    server.start(b"three", "leave", b"3")
    assert server.wait(ProcessExited, b"three").exit_code == 3
    server.start(b"fails", "fail")
    assert server.wait(ProcessExited, b"fails").exit_code == 1
    assert "on purpose" in (server.tmp_path / "fails.err").read_text()


def test_signals_are_passed_on_and_reported(server):
    server.start(b"k", "sleep")
    server.connection.send(SignalProcess(b"k", signal.SIGKILL))
    assert server.wait(ProcessExited, b"k").exit_code == -signal.SIGKILL
    server.connection.send(SignalProcess(b"k", signal.SIGKILL))
    server.start(b"after", "report")
    server.output(b"after")


def test_modules_are_preloaded_on_request(server):
    server.connection.send(PreloadModules(["colorsys", "no_such_module_either"]))
    server.start(b"x", "report")
    assert server.output(b"x")["preloaded"] == server.fork


def test_when_the_head_hangs_up_the_children_and_the_directories_go(server):
    pids = [server.start(b"%d" % number, "sleep") for number in range(3)]
    server.connection.close()
    server.connection.wait()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not server.directory.exists()
    assert not server.store.exists()


def test_the_death_of_the_fork_server_is_seen(server):
    os.kill(server.connection.pid, signal.SIGKILL)
    wait_for(lambda: server.connection.read() is None)


def test_numpy_draws_differ_between_children(tmp_path):
    pytest.importorskip("numpy")
    server = Server("fork", tmp_path)
    server.connection.send(PreloadModules(["numpy"]))
    for key in (b"a", b"b"):
        server.start(key, "numpy_draw")
    assert server.output(b"a") != server.output(b"b")
    server.connection.close()
    server.connection.wait()


def numpy_draw(payload):
    assert "numpy" in sys.modules
    import numpy

    print(json.dumps(numpy.random.random()))
