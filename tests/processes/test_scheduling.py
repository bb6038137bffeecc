"""Nobody starves, in a real session: large tasks, second drivers and placement groups behind endless streams."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import miniray
from miniray import exceptions
from miniray.cluster_utils import Cluster
from miniray.util import placement_group, remove_placement_group
from tests.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 2, "resources": {"x": 2}})
    yield cluster
    miniray.shutdown()
    cluster.shutdown()


@miniray.remote
def small() -> None:
    time.sleep(0.01)


@miniray.remote(num_cpus=2)
def large() -> str:
    return "large"


@miniray.remote
class Holder:
    def ping(self) -> str:
        return "held"


def stream_until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Keep forty tasks of 10 ms in flight until the condition holds, and cancel what is left."""
    pending = [small.remote() for _ in range(40)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, pending = miniray.wait(pending, timeout=0.1)
        pending += [small.remote() for _ in done]
        if condition():
            break
    for ref in pending:
        miniray.cancel(ref)
    for ref in pending:  # what was cancelled is looked at, else the end of the session tells of it
        with contextlib.suppress(exceptions.RayError):
            miniray.get(ref)
    return bool(condition())


def is_ready(ref: Any) -> bool:
    return bool(miniray.wait([ref], timeout=0)[0])


def test_a_large_task_behind_an_endless_stream_of_small_ones_starts() -> None:
    started: list[Any] = []

    def condition() -> bool:
        if not started:
            started.append(large.remote())
        return is_ready(started[0])

    assert stream_until(condition)


def test_a_large_actor_behind_an_endless_stream_of_small_ones_starts() -> None:
    actor = Holder.options(num_cpus=2).remote()
    answer = actor.ping.remote()
    assert stream_until(lambda: is_ready(answer))
    miniray.kill(actor)


def test_a_placement_group_behind_an_endless_stream_is_reserved() -> None:
    groups: list[Any] = []

    def condition() -> bool:
        if not groups:
            group = placement_group([{"CPU": 2}])  # without a reservation it would only ever see one CPU at a time
            groups.extend([group, group.ready()])
        return is_ready(groups[1])

    assert stream_until(condition)
    remove_placement_group(groups[0])


def test_a_second_driver_gets_its_share_while_the_first_has_a_long_queue(cluster: Cluster) -> None:
    queue = [small.remote() for _ in range(2000)]
    source = textwrap.dedent(
        """
        import sys
        import miniray
        miniray.init(sys.argv[1], log_to_driver=False)
        print(miniray.get([miniray.remote(lambda: 7).remote() for _ in range(5)]))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", source, cluster.address], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "[7, 7, 7, 7, 7]"
    assert not is_ready(queue[-1]), "it did not wait for the end of the queue"
    for ref in queue:
        miniray.cancel(ref)


def test_fractions_add_up_exactly() -> None:
    wait_for(lambda: miniray.available_resources().get("CPU") == 2)
    third = Holder.options(num_cpus=0, resources={"x": 0.1})
    actors = [third.remote() for _ in range(20)]
    assert miniray.get([actor.ping.remote() for actor in actors]) == ["held"] * 20
    assert "x" not in miniray.available_resources()
    for actor in actors:
        miniray.kill(actor)
    wait_for(lambda: miniray.available_resources().get("x") == 2)


def test_pending_and_infeasible_demand_is_reported() -> None:
    from miniray.processes import current

    refs = [large.options(resources={"x": 2}).remote(), large.options(resources={"nothing": 1}).remote()]
    group = placement_group([{"nothing": 1}], name="waits")
    core = current.core_or_none()
    assert core is not None

    def status() -> Any:
        from miniray.messages.control import Query

        return core.head_client.request(lambda number: Query(number, "status"))

    wait_for(lambda: {"CPU": 2.0, "nothing": 1.0} in [entry["resources"] for entry in status()["demands"]])
    wait_for(
        lambda: [(entry["name"], entry["state"]) for entry in status()["pending_groups"]] == [("waits", "INFEASIBLE")]
    )
    miniray.cancel(refs[1])
    remove_placement_group(group)
    assert miniray.get(refs[0], timeout=20) == "large"
