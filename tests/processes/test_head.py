"""The head as a process: what it answers to a bare driver, and what it does when somebody dies."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from miniray.messages import control
from miniray.state_machines.table_prefix import TablePrefix, TablePubsub
from miniray.system import session
from tests.processes.bare_driver import BareDriver
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def driver():
    with BareDriver() as driver:
        driver.register()
        yield driver


@pytest.fixture
def shared():
    """A shared head, and a driver that joined it."""
    starter = BareDriver(private=False)
    with starter:
        yield starter


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def fork_server_of(driver):
    # The head starts one process only.
    return psutil.Process(driver.head_pid()).children()[0].pid


# ---- jobs, nodes, queries ----


def test_a_driver_gets_a_job_and_the_facts_of_the_session():
    with BareDriver() as driver:
        answer = driver.register("space")
        assert answer.job_id == b"\x01\x00\x00\x00"
        assert answer.namespace == "space"
        assert answer.session["session_dir"] == driver.paths.directory
        assert answer.session["gcs_address"] == driver.registry().gcs_address
        assert driver.query("job", job_id=answer.job_id)["driver"][0] == driver.worker_id


def test_a_driver_without_a_namespace_gets_one_of_its_own():
    with BareDriver() as driver:
        assert len(driver.register().namespace) == 36


def test_a_request_that_comes_twice_is_done_once(driver):
    again = control.RegisterDriver(1, os.getpid(), "test", "", {})
    driver.send(again)
    assert driver.wait(control.DriverRegistered).job_id == driver.job_id
    assert len(driver.query("jobs")) == 1


def test_nodes_have_the_keys_that_ray_gives_them(driver):
    (row,) = driver.query("nodes")
    assert set(row) == {
        *("NodeID", "Alive", "alive", "NodeManagerAddress", "NodeManagerHostname", "NodeManagerPort", "NodeName"),
        *("ObjectManagerPort", "ObjectStoreSocketName", "RayletSocketName", "MetricsExportPort", "MetricsAgentPort"),
        *("DashboardAgentListenPort", "RuntimeEnvAgentPort", "DeathReason", "DeathReasonMessage", "Resources"),
        "Labels",
    }
    assert row["NodeID"] == driver.node_id.hex()
    assert row["Labels"] == {"ray.io/node-id": row["NodeID"]}
    assert row["Resources"]["node:__internal_head__"] == 1.0


def test_a_used_up_resource_is_absent_from_what_is_available():
    with BareDriver(resources={"a": 1.0}) as driver:
        driver.register()
        granted = driver.lease(CPU=1, a=1)
        available = driver.query("available_resources")
        assert available["CPU"] == 1.0
        assert "a" not in available
        assert driver.query("cluster_resources")["a"] == 1.0
        driver.send(control.ReturnLease(granted.lease_id))
        assert driver.query("available_resources")["a"] == 1.0


def test_a_question_that_nobody_knows_is_an_error(driver):
    reply = driver.ask(lambda number: control.Query(number, "weather"))
    assert reply.error == "ValueError"
    assert "nodes" in reply.value


def test_a_driver_of_another_version_is_refused(shared):
    with BareDriver(shared.registry(), version="0.0.0") as other:
        assert "Version mismatch" in other.register().error


# ---- tables ----


def test_rows_are_written_read_listed_and_deleted(driver):
    def put(key, value, **more):
        return driver.ask(lambda number: control.TablePut(number, TablePrefix.KV, key, value, **more)).value

    def get(key):
        return driver.ask(lambda number: control.TableGet(number, TablePrefix.KV, key)).value

    assert put(b"k1", b"1") is True
    assert put(b"k1", b"2", overwrite=False) is False
    put(b"k2", b"3")
    assert (get(b"k1"), get(b"none")) == (b"1", None)
    rows = driver.ask(lambda number: control.TableScan(number, TablePrefix.KV, b"k")).value
    assert rows == [[b"k1", b"1"], [b"k2", b"3"]]
    assert driver.ask(lambda number: control.TableDelete(number, TablePrefix.KV, b"k", by_prefix=True)).value == 2


def test_a_reader_can_wait_for_a_row(driver):
    driver.send(control.TableGet(1000, TablePrefix.KV, b"late", wait=True))
    driver.ask(lambda number: control.TablePut(number, TablePrefix.KV, b"late", b"here"))
    assert driver.wait(control.Reply, request_id=1000).value == b"here"


def test_subscribers_hear_of_the_heads_own_rows(driver):
    driver.send(control.Subscribe(TablePubsub.WORKER_FAILURE_PUBSUB))
    granted = driver.lease()
    os.kill(granted.worker.pid, signal.SIGKILL)
    worker_id = granted.worker.address.worker_id
    events = [driver.wait(control.Published, key=worker_id)]
    while b"SYSTEM_ERROR" not in events[-1].value:
        events.append(driver.wait(control.Published, key=worker_id))
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})


# ---- leases and workers ----


def test_a_worker_is_granted_and_serves_again(driver):
    first = driver.lease()
    driver.send(control.ReturnLease(first.lease_id))
    second = driver.lease()
    assert second.worker.pid == first.worker.pid
    assert psutil.Process(first.worker.pid).cmdline()[0] == "ray::IDLE"


def test_no_more_leases_than_cpus_are_granted(driver):
    driver.demand(5)
    first = driver.wait(control.LeaseGranted)
    second = driver.wait(control.LeaseGranted)
    assert first.worker.pid != second.worker.pid
    assert driver.query("status")["demands"] == [{"resources": {"CPU": 1.0}, "count": 3, "name": ""}]
    driver.send(control.ReturnLease(first.lease_id))
    assert driver.wait(control.LeaseGranted).worker.pid == first.worker.pid


def test_devices_come_with_the_lease():
    with BareDriver(num_gpus=2) as driver:
        driver.register()
        assert driver.lease(GPU=2).accelerator_ids == {"GPU": ["0", "1"]}


def test_infeasible_demand_is_named(driver):
    driver.demand(1, CPU=100, nope=1)
    message = driver.wait(control.Warn).message
    assert "No available node types can fulfill resource request {'CPU': 100.0, 'nope': 1.0}" in message
    assert "CPU: 2" in message


def test_leases_are_revoked_when_another_driver_waits(shared):
    with BareDriver(shared.registry()) as first, BareDriver(shared.registry()) as second:
        first.register()
        second.register()
        first.demand(10)
        held = [first.wait(control.LeaseGranted), first.wait(control.LeaseGranted)]
        second.demand(10)
        revoked = first.wait(control.RevokeLease)
        assert revoked.lease_id in [lease.lease_id for lease in held]
        first.send(control.ReturnLease(revoked.lease_id))
        second.wait(control.LeaseGranted)


def test_the_owner_and_the_watchers_hear_of_a_workers_death(driver):
    granted = driver.lease()
    os.kill(granted.worker.pid, signal.SIGKILL)
    notice = driver.wait(control.WorkerDied)
    assert notice.worker_id == granted.worker.address.worker_id
    assert (notice.expected, notice.exit_signal, notice.exit_type) == (False, signal.SIGKILL, "SYSTEM_ERROR")
    assert "SIGKILL" in notice.detail
    assert all(os.path.exists(path) for path in notice.log_files)
    driver.send(control.WatchWorker(notice.worker_id))
    assert driver.wait(control.WorkerDied) == notice
    wait_for(lambda: driver.query("available_resources").get("CPU") == 2.0)


def test_a_stranger_counts_as_dead(driver):
    driver.send(control.WatchWorker(b"x" * 28))
    assert driver.wait(control.WorkerDied).exit_type == "SYSTEM_ERROR"


def test_a_dead_fork_server_is_replaced_and_its_workers_live_on(driver):
    granted = driver.lease()
    old = fork_server_of(driver)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: is_gone(old))
    second = driver.lease()
    assert not is_gone(granted.worker.pid)
    os.kill(granted.worker.pid, signal.SIGKILL)
    notice = driver.wait(control.WorkerDied, worker_id=granted.worker.address.worker_id)
    assert notice.exit_code is None
    assert driver.lease().worker.pid not in (granted.worker.pid, second.worker.pid)


def test_workers_that_cannot_start_end_in_an_error():
    with BareDriver(prestart=0) as driver:
        driver.register()
        logs = driver.paths.logs
        os.rename(logs, logs + "-away")  # no log file, no worker
        try:
            driver.demand(1)
            refusal = driver.wait(control.LeaseRefused)
            assert "3 worker processes in a row ended while they started" in refusal.message
        finally:
            os.rename(logs + "-away", logs)


# ---- nodes ----


def test_nodes_come_and_go(driver):
    make = lambda number: control.AddNode(number, {"CPU": 10000, "x": 10000})
    row = driver.ask(make).value
    granted = driver.lease(x=1)
    assert granted.worker.node_id.hex() == row["NodeID"]
    assert driver.ask(lambda number: control.RemoveNode(number, granted.worker.node_id)).value is True
    notice = driver.wait(control.WorkerDied)
    assert notice.node_died
    rows = driver.query("nodes")
    assert [row["Alive"] for row in rows] == [True, False]
    assert "x" not in driver.query("cluster_resources")


def test_the_head_node_stays(driver):
    assert driver.ask(lambda number: control.RemoveNode(number, driver.node_id)).error == "ValueError"


# ---- the object store ----


def test_memory_is_counted_per_node():
    with BareDriver(object_store_memory=1000) as driver:
        driver.register()

        def reserve(size):
            return driver.ask(lambda number: control.ReserveMemory(number, driver.node_id, size))

        assert reserve(900).value is True
        refusal = reserve(200)
        assert refusal.error == "ObjectStoreFullError"
        assert "900 of 1,000" in refusal.value
        driver.send(control.ReleaseMemory(driver.node_id, 500))
        assert reserve(200).value is True


# ---- the end ----


def test_nothing_is_left_of_a_session_that_was_stopped():
    driver = BareDriver()
    driver.register()
    pids = [driver.head_pid(), fork_server_of(driver), driver.lease().worker.pid]
    driver.close()
    wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert not os.path.exists(driver.paths.directory)
    assert not os.path.exists(driver.paths.store)


def test_a_private_session_ends_with_its_driver():
    driver = BareDriver()
    driver.register()
    worker = driver.lease().worker.pid
    driver.line.close()
    assert driver.process.wait_exit(10)
    wait_for(lambda: is_gone(worker))
    assert not os.path.exists(driver.paths.directory)
    driver.transport.close(goodbye=False)


@pytest.mark.fault
@pytest.mark.parametrize("victim", ["head", "head and fork server"])
def test_nothing_is_left_when_the_head_is_killed(victim):
    driver = BareDriver()
    driver.register()
    server, worker = fork_server_of(driver), driver.lease().worker.pid
    if victim != "head":
        os.kill(driver.head_pid(), signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
    os.kill(driver.head_pid(), signal.SIGKILL)
    assert driver.process.wait_exit(10)
    assert driver.line.recv(1) == b""
    wait_for(lambda: is_gone(server) and is_gone(worker))
    if victim != "head":
        session.sweep()
    wait_for(lambda: not os.path.exists(driver.paths.directory) and not os.path.exists(driver.paths.store))
    driver.transport.close(goodbye=False)
    driver.line.close()


@pytest.mark.fault
def test_a_store_is_given_back_wherever_its_dead_session_had_its_directory(tmp_path):
    paths = session.create_session(str(tmp_path))
    try:
        session.sweep()
        assert os.path.isdir(paths.store)  # it lives
    finally:
        os.close(paths.lock_fd)
    session.sweep()  # of another root
    assert not os.path.exists(paths.store)
    session.remove_session(paths.directory)


def test_a_head_that_is_terminated_cleans_up():
    driver = BareDriver()
    os.kill(driver.head_pid(), signal.SIGTERM)
    assert driver.process.wait_exit(10)
    assert not os.path.exists(driver.paths.directory)
    driver.transport.close(goodbye=False)
    driver.line.close()


def test_a_shared_head_outlives_its_drivers_and_ends_their_jobs(shared):
    joined = BareDriver(shared.registry())
    joined.register()
    worker = joined.lease().worker.pid
    joined.close()
    wait_for(lambda: is_gone(worker))
    shared.register()
    wait_for(lambda: [job["IsDead"] for job in shared.query("jobs")] == [True, False])
    assert shared.query("available_resources")["CPU"] == 2.0


@pytest.mark.fault
def test_a_driver_that_is_killed_leaves_no_worker_and_no_lease(shared):
    program = (
        "import sys, time\n"
        "from miniray.system import session\n"
        "from tests.processes.bare_driver import BareDriver\n"
        "driver = BareDriver(session.read_registry(sys.argv[1]))\n"
        "driver.register()\n"
        "print(driver.lease().worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, shared.paths.directory], stdout=subprocess.PIPE, text=True
    ) as child:
        worker = int(child.stdout.readline())
        child.kill()
    wait_for(lambda: is_gone(worker))
    shared.register()
    assert shared.query("available_resources")["CPU"] == 2.0


# ---- finding a head ----


@pytest.mark.parametrize("kind", ["auto", "none", "name", "id", "directory", "port", "ray", "localhost"])
def test_a_shared_head_is_found(shared, kind):
    info = shared.registry()
    address = {
        "auto": "auto",
        "none": None,
        "name": info.session_name,
        "id": os.path.basename(info.directory)[2:],
        "directory": info.directory,
        "port": f"127.0.0.1:{info.port}",
        "ray": f"ray://127.0.0.1:{info.port}",
        "localhost": f"localhost:{info.port}",
    }[kind]
    assert session.find_session(address).directory == info.directory


def test_a_private_head_is_found_by_address_only(driver):
    assert session.find_session(None) is None
    assert session.find_session(driver.registry().gcs_address).pid == driver.head_pid()
    with pytest.raises(ConnectionError, match="miniray start --head"):
        session.find_session("auto")


def test_an_address_where_nobody_is_says_what_was_tried(driver):
    with pytest.raises(ConnectionError, match="127.0.0.1:1.*running: 127.0.0.1:.*miniray start --head"):
        session.find_session("127.0.0.1:1")


def test_a_wished_port_is_owned_and_a_busy_one_is_replaced():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = holder.getsockname()[1]
        with BareDriver(port=busy) as driver:
            assert driver.registry().port != busy
        with pytest.raises(RuntimeError, match=f"port {busy} cannot be used"):
            BareDriver(port=busy, port_required=True)
