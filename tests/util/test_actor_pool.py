"""`util.ActorPool`."""

from __future__ import annotations

import os
from typing import Any

import pytest

import miniray
from miniray.exceptions import ActorDiedError
from miniray.util import ActorPool
from miniray.util.channel import Receiver, channel

pytestmark = pytest.mark.usefixtures("session")


@miniray.remote(num_cpus=0)
class Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def wait(self, gate: Receiver) -> Any:
        return gate.recv()

    def fail(self, value: int) -> None:
        raise ValueError(value)

    def die(self, value: int) -> None:
        os._exit(1)


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


@pytest.fixture
def pool() -> ActorPool:
    return ActorPool([Worker.remote(), Worker.remote()])


def test_map_keeps_the_order(pool: ActorPool) -> None:
    assert list(pool.map(double, range(6))) == [0, 2, 4, 6, 8, 10]


def test_map_unordered_gives_all(pool: ActorPool) -> None:
    assert sorted(pool.map_unordered(double, range(6))) == [0, 2, 4, 6, 8, 10]


def test_map_drops_what_was_submitted_before(pool: ActorPool) -> None:
    pool.submit(double, 100)
    assert list(pool.map(double, [1])) == [2]
    pool.submit(double, 100)
    assert list(pool.map_unordered(double, [1])) == [2]


def test_results_are_fetched_one_by_one(pool: ActorPool) -> None:
    for value in range(4):
        pool.submit(double, value)
    assert not pool.has_free()
    assert [pool.get_next() for _ in range(4)] == [0, 2, 4, 6]
    assert not pool.has_next()
    with pytest.raises(StopIteration, match="No more results to get"):
        pool.get_next()
    with pytest.raises(StopIteration, match="No more results to get"):
        pool.get_next_unordered()


def test_a_result_that_is_late_can_be_waited_for_or_ignored(pool: ActorPool) -> None:
    tx, rx = channel()
    pool.submit(lambda actor, gate: actor.wait.remote(gate), rx)
    with pytest.raises(TimeoutError, match="Timed out waiting for result"):
        pool.get_next(timeout=0)
    with pytest.raises(TimeoutError, match="Timed out waiting for result"):
        pool.get_next_unordered(timeout=0)
    with pytest.raises(TimeoutError, match="has been ignored"):
        pool.get_next(timeout=0, ignore_if_timedout=True)
    assert not pool.has_next()
    tx.send(None)


def test_get_next_is_refused_after_results_were_fetched_out_of_order(pool: ActorPool) -> None:
    tx, rx = channel()
    pool.submit(lambda actor, gate: actor.wait.remote(gate), rx)
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    with pytest.raises(ValueError, match=r"It is not allowed to call get_next\(\) after get_next_unordered\(\)\."):
        pool.get_next()
    tx.send("done")
    assert pool.get_next_unordered() == "done"


def test_idle_actors_can_be_taken_and_given(pool: ActorPool) -> None:
    actor = pool.pop_idle()
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None
    pool.submit(double, 4)
    assert not pool.has_next()
    pool.push(actor)
    assert pool.get_next() == 8
    with pytest.raises(ValueError, match="Actor already belongs to current ActorPool"):
        pool.push(actor)


def test_an_actor_whose_call_raised_goes_on(pool: ActorPool) -> None:
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    with pytest.raises(ValueError, match="1"):
        pool.get_next()
    assert list(pool.map(double, range(3))) == [0, 2, 4]


def test_a_dead_actor_is_left_out(pool: ActorPool) -> None:
    pool.submit(lambda actor, value: actor.die.remote(value), 1)
    for value in range(3):
        pool.submit(double, value)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert [pool.get_next() for _ in range(3)] == [0, 2, 4]
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None
