"""Life lines: who is at the other end, and when it is gone."""

import os
import queue
import signal
import socket

import pytest

from miniray.system import lifeline
from tests.waiting import wait_for

WORKER = b"w" * 28
TOKEN = b"t" * 32


@pytest.fixture(params=["unix", "tcp"])
def listener(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener, address = lifeline.listen("." if request.param == "unix" else None)
    token = TOKEN if request.param == "tcp" else b""
    yield listener, address, token
    listener.close()


def accept(listener):
    def try_it():
        try:
            return listener.accept()[0]
        except BlockingIOError:
            return None

    return wait_for(try_it)


def greet(line, token):
    greeting = lifeline.Greeting(line, token)
    return wait_for(greeting.read)


def test_the_head_learns_who_connects_and_when_it_is_gone(listener):
    server, address, token = listener
    line = lifeline.connect(address, WORKER, token)
    other = accept(server)
    assert greet(other, token) == WORKER
    assert not lifeline.is_at_end(other)
    line.close()
    wait_for(lambda: lifeline.is_at_end(other))
    other.close()


def test_a_greeting_in_pieces_is_put_together():
    ours, theirs = socket.socketpair()
    greeting = lifeline.Greeting(ours, b"")
    theirs.sendall(WORKER[:10])
    assert greeting.read() is None
    theirs.sendall(WORKER[10:])
    assert greeting.read() == WORKER
    ours.close()
    theirs.close()


def test_a_wrong_token_is_refused():
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x" * 32 + WORKER)
    with pytest.raises(ConnectionRefusedError):
        lifeline.Greeting(ours, TOKEN).read()
    ours.close()
    theirs.close()


def test_who_leaves_before_it_said_who_it_is_is_an_error():
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(ConnectionError):
        lifeline.Greeting(ours, b"").read()
    ours.close()


@pytest.mark.parametrize("address", ["/nowhere/life", "tcp://127.0.0.1:1"])
def test_where_nobody_listens_is_an_error(address):
    with pytest.raises(ConnectionError):
        lifeline.connect(address, WORKER, TOKEN)


def test_a_watcher_calls_back_once_when_the_head_is_gone():
    ours, theirs = socket.socketpair()
    calls = queue.Queue()
    watcher = lifeline.LifelineWatcher(ours, lambda: calls.put(1))
    theirs.sendall(b"whatever")
    theirs.close()
    assert calls.get(timeout=10) == 1
    watcher.close()
    assert calls.empty()


def test_a_watcher_that_hangs_up_itself_does_not_call_back():
    ours, theirs = socket.socketpair()
    calls = queue.Queue()
    watcher = lifeline.LifelineWatcher(ours, lambda: calls.put(1))
    watcher.close()
    assert theirs.recv(1) == b""
    assert calls.empty()
    theirs.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_line_open():
    ours, theirs = socket.socketpair()
    lifeline.close_in_forked_children(ours)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        ours.close()
        theirs.settimeout(10)
        assert theirs.recv(1) == b""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        theirs.close()
