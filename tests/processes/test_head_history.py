"""What the head forgets of the past: the dead, the nodes that are gone, and the jobs that are over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import miniray
from miniray.cluster_utils import Cluster
from miniray.messages.control import Query
from miniray.processes import current
from miniray.util.state import list_jobs, list_workers
from tests.waiting import wait_for

KEPT = 3
CONFIG = {
    "maximum_gcs_dead_worker_cached_count": KEPT,
    "maximum_gcs_dead_node_cached_count": 2,
    "maximum_gcs_finished_job_cached_count": 2,
    "task_events_max_num_task_in_gcs": 2,
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "_system_config": CONFIG})
    yield cluster
    miniray.shutdown()
    cluster.shutdown()


def test_the_head_keeps_so_many_dead_workers_and_drivers_the_newest(cluster: Cluster) -> None:
    miniray.init(address=cluster.address)

    @miniray.remote(max_calls=1)
    def once() -> int:
        return os.getpid()

    pids = [miniray.get(once.remote()) for _ in range(2 * KEPT)]

    def dead() -> list[int]:
        return [int(worker.pid) for worker in list_workers(detail=True) if not worker.is_alive]

    wait_for(lambda: pids[-1] in dead())
    assert len(dead()) <= KEPT
    assert set(pids[: -KEPT - 1]).isdisjoint(dead())


def test_the_head_keeps_so_many_events_of_tasks(cluster: Cluster) -> None:
    miniray.init(address=cluster.address)

    @miniray.remote(max_calls=1)
    def once() -> None:
        pass

    for _ in range(4):
        miniray.get(once.remote())  # each in a worker of its own, which tells of it when it ends
    core = current.core_or_none()
    assert core is not None

    def counts() -> tuple[int, int]:
        answer = core.head_client.request(lambda number: Query(number, "task_reports", {}))
        return answer["kept"], answer["dropped"]

    wait_for(lambda: sum(counts()) == 4)
    assert counts() == (2, 2)


def test_the_head_keeps_so_many_jobs_that_are_over_and_those_with_detached_actors(cluster: Cluster) -> None:
    @miniray.remote
    class Stays:
        def ping(self) -> str:
            return "here"

    for number in range(6):
        miniray.init(address=cluster.address, namespace="n")
        if number == 1:
            miniray.get(Stays.options(name="stays", lifetime="detached").remote().ping.remote())
            its_job = miniray.get_runtime_context().get_job_id()
        miniray.shutdown()
    miniray.init(address=cluster.address, namespace="n")

    def jobs() -> dict[str | None, str]:
        return {job.job_id: job.status for job in list_jobs()}

    wait_for(lambda: list(jobs().values()).count("RUNNING") == 1, message=lambda: str(jobs()))
    assert len(jobs()) <= 2 + 1 + 1
    assert jobs()[its_job] == "SUCCEEDED"
    actor = miniray.get_actor("stays")
    assert miniray.get(actor.ping.remote()) == "here"


def test_the_head_keeps_so_many_dead_nodes(cluster: Cluster) -> None:
    miniray.init(address=cluster.address)
    for _ in range(5):
        cluster.remove_node(cluster.add_node(num_cpus=1))
    assert [row["Alive"] for row in miniray.nodes()] == [True, False, False]


def test_an_owner_knows_few_classes_however_often_a_task_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    from miniray.processes import current

    there = cluster.add_node(num_cpus=1, resources={"there": 1})
    miniray.init(address=cluster.address)

    @miniray.remote(resources={"there": 0.1})
    def make() -> bytes:
        return b"x" * 500_000

    @miniray.remote(max_retries=-1)
    def dies(value: bytes, path: str) -> int:
        with open(path, "ab", buffering=0) as file:
            file.write(b".")
            if file.tell() < 8:
                os._exit(1)
        return len(value)

    path = str(tmp_path / "count")
    assert miniray.get(dies.remote(make.remote(), path)) == 500_000
    core = current.core_or_none()
    assert core is not None
    assert there.node_id in [cls.near.hex() for cls in core.tasks.submission.classes.values()]
    assert len(core.tasks.submission.classes) == 3
