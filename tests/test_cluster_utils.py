"""Virtual nodes: a cluster in one machine, as Ray's `cluster_utils` has it."""

import os

import pytest

import miniray
from miniray.cluster_utils import Cluster
from miniray.processes import current
from miniray.system import session
from tests.waiting import wait_for


@miniray.remote
def node_and_pid():
    return current.core_or_none().node_id.hex(), os.getpid()


@pytest.fixture
def cluster():
    cluster = Cluster()
    yield cluster
    miniray.shutdown()
    cluster.shutdown()


def test_the_first_node_is_the_head(cluster):
    assert cluster.gcs_address is None
    head = cluster.add_node(num_cpus=1)
    assert cluster.head_node is head
    assert head.is_head()
    assert cluster.list_all_nodes() == [head]
    assert cluster.address == head.address_info["gcs_address"]


def test_a_driver_joins_by_address_and_sees_all_nodes(cluster):
    head = cluster.add_node(num_cpus=1)
    other = cluster.add_node(num_cpus=2, resources={"x": 1}, labels={"zone": "a"}, node_name="other")
    cluster.wait_for_nodes()
    context = miniray.init(address=cluster.address)
    assert context.address_info["gcs_address"] == cluster.address
    rows = {row["NodeID"]: row for row in miniray.nodes()}
    assert set(rows) == {head.node_id, other.node_id}
    assert rows[other.node_id]["Labels"]["zone"] == "a"
    assert rows[other.node_id]["NodeName"] == "other"
    assert miniray.cluster_resources()["CPU"] == 3.0
    assert miniray.cluster_resources()["object_store_memory"] == 2 * 150 * 1024 * 1024


def test_init_without_an_address_finds_the_cluster(cluster):
    cluster.add_node(num_cpus=1)
    context = miniray.init()
    assert context.address_info["gcs_address"] == cluster.address


def test_tasks_run_where_their_resources_are(cluster):
    cluster.add_node(num_cpus=0)
    other = cluster.add_node(num_cpus=1, resources={"x": 1})
    cluster.connect()
    assert miniray.get(node_and_pid.options(resources={"x": 1}).remote())[0] == other.node_id


def test_pending_work_runs_when_a_node_joins(cluster):
    cluster.add_node(num_cpus=0)
    cluster.connect()
    pending = node_and_pid.remote()
    assert miniray.wait([pending], timeout=0) == ([], [pending])
    node = cluster.add_node(num_cpus=1)
    assert miniray.get(pending)[0] == node.node_id


def test_a_removed_node_is_dead_and_its_processes_are_gone(cluster):
    head = cluster.add_node(num_cpus=0)
    node = cluster.add_node(num_cpus=1)
    cluster.connect()
    _, pid = miniray.get(node_and_pid.remote())
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert {row["NodeID"]: row["Alive"] for row in miniray.nodes()} == {head.node_id: True, node.node_id: False}
    assert "CPU" not in miniray.cluster_resources()
    with pytest.raises(KeyError):
        cluster.remove_node(node)


def test_nothing_is_left_of_a_cluster_that_was_shut_down(cluster):
    cluster.add_node(num_cpus=1)
    directory = cluster.head_node.address_info["session_dir"]
    cluster.shutdown()
    assert not os.path.exists(directory)
    assert session.find_session(None) is None
    cluster.shutdown()


def test_a_cluster_without_a_head_has_no_address():
    with pytest.raises(RuntimeError, match="uninitialized cluster"):
        Cluster(connect=True)
    assert Cluster().address is None


def test_an_argument_that_no_node_has_is_refused(cluster):
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_cpu'"):
        cluster.add_node(num_cpu=3)
    cluster.add_node(num_cpus=1, dashboard_port=0)  # of Ray's own processes, without a meaning here


def test_head_arguments_are_those_of_a_node():
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 3, "resources": {"a": 2}})
    assert miniray.cluster_resources()["a"] == 2.0
    miniray.shutdown()
    cluster.shutdown()
