"""Groups of actors; what they say is held to Ray's in tests/differential."""

import os

import pytest

import miniray
from miniray.util.actor_group import ActorGroup
from tests.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Worker:
    def actor_metadata(self):
        return os.getpid()

    def pid(self):
        return os.getpid()


def test_actors_say_who_they_are_and_end_with_the_group():
    with miniray.init("local", num_cpus=2, log_to_driver=False):
        group = ActorGroup(Worker, num_actors=2)
        pids = miniray.get(group.pid.remote())
        assert group.actor_metadata == pids and len(set(pids)) == 2
        group.shutdown()
        wait_for(lambda: miniray.available_resources().get("CPU") == 2)
