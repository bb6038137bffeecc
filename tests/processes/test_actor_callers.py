"""What an actor keeps of those who call it: nothing, once they are gone."""

import pytest

import miniray
from miniray.processes import current
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def session():
    miniray.init("local", num_cpus=2)
    yield
    miniray.shutdown()


@miniray.remote(num_cpus=0)
class Called:
    def callers(self):
        return len(current.core_or_none().actor.positions())


@miniray.remote(max_calls=1)
def call_and_leave(actor):
    return miniray.get(actor.callers.remote())


def test_an_actor_forgets_callers_that_are_gone(session):
    actor = Called.remote()
    assert min(miniray.get([call_and_leave.remote(actor) for _ in range(6)])) >= 1
    wait_for(lambda: miniray.get(actor.callers.remote()) == 1, message="only this process is left")
