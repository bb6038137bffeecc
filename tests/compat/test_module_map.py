"""Ray's module map: what libraries and test suites take from Ray's modules is there, and does what its name says."""

import importlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import miniray
from miniray import compat
from miniray._common import network_utils
from miniray._common import utils as common
from miniray._common.test_utils import (
    Semaphore,
    SignalActor,
    async_wait_for_condition,
    run_string_as_driver,
    wait_for_condition,
)
from miniray._private import ray_constants, services, test_utils, utils
from miniray._private import state as tables
from miniray._private.worker import global_worker
from miniray.exceptions import RaySystemError
from miniray.processes import current


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("", "client ClientBuilder java_function worker SPILL_WORKER_MODE RESTORE_WORKER_MODE __commit__ types"),
        ("_raylet", "ObjectRef ObjectRefGenerator ActorID JobID TaskID NodeID GcsClientOptions Language"),
        ("types", "ObjectRef"),
        ("worker", "global_worker get put SCRIPT_MODE"),
        ("services", "get_node_ip_address"),
        ("client_builder", "ClientBuilder ClientContext client"),
        ("util", "connect disconnect get_node_instance_id client helpers"),
        ("util.client", "ray num_connected_contexts"),
        ("util.client.common", "ClientObjectRef ClientActorHandle ClientActorRef"),
        ("experimental", "get_object_locations get_local_object_locations set_resource tqdm_ray internal_kv"),
        ("_private", "worker utils services state ray_constants client_mode_hook"),
        ("_private.worker", "global_worker init shutdown get put _post_init_hooks RayContext BaseContext"),
        ("_private.client_mode_hook", "client_mode_hook disable_client_hook enable_client_mode"),
        ("_private.test_utils", "wait_for_condition SignalActor RayletKiller setup_tls get_non_head_nodes"),
        ("_private.internal_api", "free global_gc memory_summary get_state_from_address"),
        ("_common", "test_utils utils network_utils"),
    ],
)
def test_the_names_are_there(module, names):
    found = importlib.import_module(f"miniray.{module}" if module else "miniray")
    assert [name for name in names.split() if not hasattr(found, name)] == []


def test_what_has_nothing_behind_it_says_so_when_it_is_called():
    with pytest.raises(NotImplementedError, match=r"^miniray has no ray\._private\.test_utils\.setup_tls"):
        test_utils.setup_tls()
    with pytest.raises(AttributeError, match="no_such"):
        test_utils.no_such


def test_the_global_worker_without_a_session():
    miniray.shutdown()
    assert not global_worker.connected
    assert (global_worker.node, global_worker.mode) == (None, None)
    assert global_worker.current_job_id.is_nil()
    assert not hasattr(global_worker, "core_worker")
    with pytest.raises(RaySystemError, match=r"You can start Ray with 'ray\.init\(\)'"):
        global_worker.check_connected()
    with pytest.raises(RaySystemError, match="Trying to use state API before"):
        tables.actors()


def test_the_global_worker_knows_the_session(session):
    worker, context = miniray._private.worker.global_worker, miniray.get_runtime_context()
    worker.check_connected()
    assert context.worker is worker
    assert worker.mode == miniray.SCRIPT_MODE == worker.SCRIPT_MODE
    assert worker.current_job_id.hex() == context.get_job_id()
    assert worker.current_node_id.hex() == context.get_node_id() == worker.node.node_id
    assert worker.worker_id.hex() == context.get_worker_id()
    assert worker.namespace == context.namespace
    assert worker.actor_id.is_nil() and worker.placement_group_id.is_nil()
    node = worker.node
    assert node.address == node.gcs_address == session.address_info["gcs_address"]
    assert node.get_session_dir_path() == session.address_info["session_dir"]
    assert os.path.isdir(node.get_logs_dir_path()) and os.path.isdir(node.get_sockets_dir_path())
    assert node.address_info["node_id"] == node.node_id
    assert miniray._private.worker._global_node is node

    @miniray.remote
    def inside():
        from miniray._private.worker import global_worker as there

        return there.mode, there.core_worker.get_current_task_name(), there.current_job_id, there.task_depth

    assert miniray.get(inside.remote()) == (miniray.WORKER_MODE, "inside", worker.current_job_id, 1)


def test_reference_counts_are_those_of_the_refs_in_scope(session):
    ref = miniray.put(1)
    count = global_worker.core_worker.get_all_reference_counts
    key = ref.hex().encode()
    assert count()[key] == {"local": 1, "submitted": 0}
    assert global_worker.core_worker.object_exists(ref)
    del ref
    assert key not in count()


def test_the_tables(session):
    @miniray.remote
    class A:
        def ping(self):
            return os.getpid()

    a = A.options(name="of the tables").remote()
    pid = miniray.get(a.ping.remote())
    row = tables.actors(a._actor_id.hex())
    assert (row["State"], row["Pid"], row["Name"], row["ActorClassName"]) == ("ALIVE", pid, "of the tables", "A")
    assert tables.actors()[a._actor_id.hex()] == row
    assert tables.actors(actor_state_name="DEAD").get(a._actor_id.hex()) is None
    with pytest.raises(ValueError, match="is not a valid actor state name"):
        tables.actors(actor_state_name="X")
    assert tables.jobs()[0]["DriverPid"] == os.getpid()
    assert tables.next_job_id().int() == len(tables.jobs()) + 1
    assert tables.total_resources_per_node()[global_worker.node.node_id]["CPU"] == 2
    assert test_utils.get_actor_node_id(a) == global_worker.node.node_id
    test_utils.kill_actor_and_wait_for_failure(a)
    assert tables.actors(a._actor_id.hex())["State"] == "DEAD"
    assert tables.state.actor_table(None) == tables.actors()
    test_utils.wait_for_pid_to_exit(pid)


def test_a_signal_wakes_all_who_wait(session):
    signal_actor = SignalActor.remote()

    @miniray.remote(num_cpus=0)
    def waits():
        miniray.get(signal_actor.wait.remote())
        return "woken"

    refs = [waits.remote() for _ in range(3)]
    wait_for_condition(lambda: miniray.get(signal_actor.cur_num_waiters.remote()) == 3)
    assert miniray.wait(refs, timeout=0)[0] == []
    miniray.get(signal_actor.send.remote())
    assert miniray.get(refs) == ["woken"] * 3


def test_a_semaphore_lets_so_many_through(session):
    semaphore = Semaphore.remote(value=1)
    miniray.get(semaphore.acquire.remote())
    assert miniray.get(semaphore.locked.remote())
    second = semaphore.acquire.remote()
    assert miniray.wait([second], timeout=0)[0] == []
    miniray.get(semaphore.release.remote())
    miniray.get(second)


def test_waiting_for_what_never_comes_is_a_runtime_error():
    import asyncio

    with pytest.raises(RuntimeError, match=r"^The condition wasn't met before the timeout expired\.$"):
        wait_for_condition(lambda: False, timeout=0.05)
    with pytest.raises(RuntimeError, match=r"(?s)expired\. Last exception: Traceback.*ZeroDivisionError"):
        wait_for_condition(lambda: 1 / 0, timeout=0.05)
    with pytest.raises(ZeroDivisionError):
        wait_for_condition(lambda: 1 / 0, timeout=0.05, raise_exceptions=True)
    wait_for_condition(lambda x: x == 1, x=1)

    async def never():
        return False

    with pytest.raises(RuntimeError, match="wasn't met"):
        asyncio.run(async_wait_for_condition(never, timeout=0.05))
    with pytest.raises(TimeoutError, match="Timed out while waiting for process"):
        test_utils.wait_for_pid_to_exit(os.getpid(), timeout=0)
    assert not test_utils.wait_until_succeeded_without_exception(lambda: 1 / 0, (ZeroDivisionError,), timeout_ms=1)


def test_a_program_as_a_string():
    assert run_string_as_driver("import sys; print(5); print(6, file=sys.stderr)") in ("5\n6\n", "6\n5\n")
    with pytest.raises(subprocess.CalledProcessError):
        run_string_as_driver("raise SystemExit(3)")
    assert test_utils.run_string_as_driver_stdout_stderr("import miniray; print(miniray.__name__)") == ("miniray\n", "")
    process = test_utils.run_string_as_driver_nonblocking("print(input() if 0 else 7)")
    assert process.communicate(timeout=30)[0] == b"7\n"


def test_a_program_as_a_string_with_an_environment_of_its_own_has_the_alias():
    compat.install()
    try:
        assert run_string_as_driver("import ray; print(ray.__name__)", env={}) == "miniray\n"
    finally:
        compat.uninstall()


def test_the_memory_there_is_is_that_of_the_container(monkeypatch, tmp_path):
    (tmp_path / "reading").write_text("10 100")
    monkeypatch.setenv("MINIRAY_MEMORY_READING", str(tmp_path / "reading"))
    assert (utils.get_used_memory(), utils.get_system_memory()) == (10, 100)


def test_a_closed_subscriber_keeps_no_more_though_a_later_one_still_calls_it(session):
    first, second = test_utils.init_error_pubsub(), test_utils.init_error_pubsub()
    first.close()
    current.core_or_none().on_warning(SimpleNamespace(message="careful"))
    assert second.poll(timeout=0.1)["error_message"] == "careful"
    assert first.poll(timeout=0.1) == {}
    second.close()


def test_lines_of_workers_can_be_collected(session):
    subscriber = test_utils.init_log_pubsub()

    @miniray.remote
    def says():
        print("a line to be found")

    miniray.get(says.remote())
    lines = test_utils.get_log_message(subscriber, 1, timeout=20, matcher=lambda line: "to be found" in line)
    subscriber.close()
    assert lines == [["a line to be found"]]


def test_locations_of_objects(session):
    from miniray.experimental import get_object_locations

    small, large = miniray.put(1), miniray.put(b"x" * 1_000_000)
    found = get_object_locations([small, large])
    node = global_worker.node.node_id
    assert found[small]["node_ids"] == found[large]["node_ids"] == [node]
    assert 1_000_000 <= found[large]["object_size"] < 1_001_000
    assert not found[large]["did_spill"]


def test_a_progress_bar_counts(capsys):
    from miniray.experimental import tqdm_ray

    assert list(tqdm_ray.tqdm(range(3), desc="work")) == [0, 1, 2]
    assert "work: 100% 3/3" in capsys.readouterr().err
    with tqdm_ray.tqdm(total=4) as bar:
        bar.update(2)
    assert "50% 2/4" in capsys.readouterr().err


def test_small_functions(monkeypatch):
    assert network_utils.parse_address("[::1]:5") == ("::1", "5")
    assert network_utils.parse_address("a") is None
    assert network_utils.build_address("::1", 5) == "[::1]:5"
    monkeypatch.setenv("A_NUMBER", "+-5")
    assert common.env_integer("A_NUMBER", 1) == 1
    monkeypatch.setenv("A_NUMBER", "5")
    assert (common.env_integer("A_NUMBER", 1), common.env_float("NONE", 2.0), common.env_bool("NONE", True)) == (
        5,
        2.0,
        True,
    )
    assert common.import_attr("os.path:join") is os.path.join
    assert common.decode(b"x") == "x"
    with pytest.raises(ValueError, match="must be a bytes object"):
        common.decode("x")
    assert common.resources_from_ray_options({"num_cpus": 1, "resources": {"a": 2}}) == {"CPU": 1, "a": 2}
    assert utils.get_num_cpus() >= 1
    assert utils.split_address("ray://a:1") == ("ray", "a:1")
    assert utils.parse_pg_formatted_resources_to_original({"CPU_group_0_ab": 1.0, "bundle_group_ab": 9.0}) == {
        "CPU": 1.0
    }
    assert test_utils.format_web_url("localhost:8265") == "http://127.0.0.1:8265"
    assert test_utils.format_web_url("https://1.2.3.4") == "https://1.2.3.4"
    assert services.extract_ip_port("1.2.3.4:5000") == ("1.2.3.4", 5000)
    assert ray_constants.ID_SIZE == 28
    before = signal.getsignal(signal.SIGINT)
    with utils.DeferSigint():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_client_builder_ends_in_init():
    miniray.shutdown()
    with miniray.client("local").namespace("built")._init(num_cpus=1).connect() as context:
        assert miniray.get_runtime_context().namespace == "built"
        assert context.python_version == ".".join(map(str, sys.version_info[:3]))
    assert not miniray.is_initialized()
