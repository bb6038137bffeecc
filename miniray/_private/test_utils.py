"""Under Ray's name ``ray._private.test_utils``: what its own tests, and those of libraries, take from there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import miniray
from miniray._common.network_utils import find_free_port
from miniray._common.test_utils import (
    FakeTimer,
    Semaphore,
    SignalActor,
    async_wait_for_condition,
    driver_environment,
    is_named_tuple,
    run_string_as_driver,
    wait_for_condition,
)
from miniray._private import state
from miniray._private.absent import absent_functions
from miniray._private.log_subscribers import ErrorSubscriber, LogSubscriber

__all__ = [
    "FakeTimer",
    "Semaphore",
    "SignalActor",
    "async_wait_for_condition",
    "is_named_tuple",
    "run_string_as_driver",
    "wait_for_condition",
]

#: Seconds between two looks of the waiting functions below.
_PAUSE = 0.02


# ---- programs ----


def run_string_as_driver_stdout_stderr(
    driver_script: str, env: dict[str, str] | None = None, encode: str = "utf-8", timeout: float | None = 300
) -> tuple[str, str]:
    """Run a program in a process of its own; what it printed on either stream.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    command = [sys.executable, "-"]
    done = subprocess.run(
        command,
        input=driver_script.encode(encode),
        capture_output=True,
        env=driver_environment(env),
        timeout=timeout,
    )
    out, err = done.stdout.decode(encode), done.stderr.decode(encode)
    if done.returncode:
        print(out)
        print(err, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, out, err)
    return out, err


def run_string_as_driver_nonblocking(driver_script: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a process of its own; the process, with pipes for its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", driver_script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=driver_environment(env),
    )
    return process


def check_call_subprocess(
    argv: list[str], capture_stdout: bool = False, capture_stderr: bool = False
) -> tuple[str, str]:
    """Run a command; what it printed, where that was asked for."""
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE if capture_stdout else None,
        stderr=subprocess.PIPE if capture_stderr else None,
        check=True,
    )
    return (done.stdout or b"").decode(), (done.stderr or b"").decode()


def check_call_ray(args: list[str], capture_stdout: bool = False, capture_stderr: bool = False) -> tuple[str, str]:
    """Run the command line (`start`, `stop`, ...); what it printed, where that was asked for."""
    return check_call_subprocess([sys.executable, "-m", "miniray", *args], capture_stdout, capture_stderr)


@contextmanager
def chdir(d: str) -> Iterator[None]:
    """This folder for a while."""
    before = os.getcwd()
    os.chdir(d)
    try:
        yield
    finally:
        os.chdir(before)


# ---- waiting ----


def _wait(condition: Callable[[], bool], timeout: float, text: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(text())
        time.sleep(_PAUSE)


def _pid_alive(pid: int) -> bool:
    import psutil  # only for tests

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_pid_to_exit(pid: int, timeout: float = 20) -> None:
    """Wait until a process is gone; TimeoutError after `timeout` seconds."""
    _wait(lambda: not _pid_alive(pid), timeout, lambda: f"Timed out while waiting for process {pid} to exit.")


def wait_for_children_of_pid(pid: int, num_children: int = 1, timeout: float = 20) -> None:
    """Wait until a process has so many children; TimeoutError after `timeout` seconds."""
    import psutil

    process = psutil.Process(pid)

    def text() -> str:
        alive = process.children(recursive=False)
        names = [child.name() for child in alive]
        started = f"{len(alive)}/{num_children} started: {names}"
        return f"Timed out while waiting for process {pid} children to start ({started})."

    _wait(lambda: len(process.children(recursive=False)) >= num_children, timeout, text)


def wait_for_children_of_pid_to_exit(pid: int, timeout: float = 20) -> None:
    """Wait until the children that a process has now are gone; TimeoutError after `timeout` seconds."""
    import psutil

    children = psutil.Process(pid).children()
    if not children:
        return
    _, alive = psutil.wait_procs(children, timeout=timeout)
    if alive:
        raise TimeoutError(
            "Timed out while waiting for process children to exit. "
            f"Children still alive: {[process.name() for process in alive]}."
        )


def wait_for_num_actors(num_actors: int, state: str | None = None, timeout: float = 10) -> None:
    """Wait until there are at least so many actors (in that state); TimeoutError after `timeout` seconds."""
    from miniray._private.state import actors

    _wait(
        lambda: sum(state in (None, row["State"]) for row in actors().values()) >= num_actors,
        timeout,
        lambda: "Timed out while waiting for global state.",
    )


def wait_for_assertion(
    assertion_predictor: Callable[..., Any],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Call a function until it raises no error; its last error after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            assertion_predictor(**kwargs)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        except Exception:
            if raise_exceptions or time.monotonic() > deadline:
                raise
        time.sleep(retry_interval_ms / 1000)


def wait_until_succeeded_without_exception(
    func: Callable[..., Any],
    exceptions: tuple[type[BaseException], ...],
    *args: Any,
    timeout_ms: float = 1000,
    retry_interval_ms: float = 100,
    raise_last_ex: bool = False,
) -> bool:
    """Call ``func(*args)`` until it raises none of `exceptions`; whether that came in time."""
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            func(*args)
            return True
        except exceptions:
            if time.monotonic() > deadline:
                if raise_last_ex:
                    raise Exception(f"Timed out while testing, {traceback.format_exc()}")
                return False
        time.sleep(retry_interval_ms / 1000)


def wait_until_server_available(address: str, timeout_ms: float = 5000, retry_interval_ms: float = 100) -> bool:
    """Wait until somebody listens at ``host:port``; whether that came in time."""
    import socket

    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + timeout_ms / 1000
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return True
        except OSError:
            time.sleep(retry_interval_ms / 1000)
    return False


def kill_actor_and_wait_for_failure(actor: Any, timeout: float = 10, retry_interval_ms: float = 100) -> None:
    """Kill an actor, and wait until the session knows that it died. RuntimeError after `timeout` seconds."""
    actor_id = actor._actor_id.hex()
    before = state.actors(actor_id)["NumRestarts"]
    miniray.kill(actor)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        row = state.actors(actor_id)
        if row["State"] == "DEAD" or row["NumRestarts"] > before:
            return
        time.sleep(min(_PAUSE, retry_interval_ms / 1000))
    raise RuntimeError(f"It took too much time to kill an actor: {actor_id}")


# ---- nodes and actors ----


def get_other_nodes(cluster: Any, exclude_head: bool = False) -> list[Any]:
    """The nodes of a `Cluster` that this driver is not on (and that are not the head)."""
    here = miniray.get_runtime_context().get_node_id()
    nodes = [node for node in cluster.list_all_nodes() if node.node_id != here]
    return [node for node in nodes if not (exclude_head and node.is_head())]


def get_non_head_nodes(cluster: Any) -> list[Any]:
    """The nodes of a `Cluster` that are not the head."""
    return [node for node in cluster.list_all_nodes() if not node.is_head()]


def get_actor_node_id(actor_handle: Any) -> str:
    """The node that an actor lives on, in hex."""
    return str(miniray.get(actor_handle.__ray_call__.remote(lambda self: miniray.get_runtime_context().get_node_id())))


def convert_actor_state(state: Any) -> str | None:
    """The name of an actor's state, from its number; None for none, and for 0."""
    names = {1: "PENDING_CREATION", 2: "ALIVE", 3: "RESTARTING", 4: "DEAD"}
    return names[state] if state else None


def placement_group_assert_no_leak(pgs_created: list[Any]) -> None:
    """Remove these placement groups, and check that none of their resources stay."""
    groups = import_module("miniray.util.placement_group")
    for group in pgs_created:
        groups.remove_placement_group(group)
    wait_for_condition(lambda: not any("_group_" in name for name in miniray.available_resources()))
    for name in miniray.cluster_resources():
        assert "_group_" not in name, name


def is_placement_group_removed(pg: Any) -> bool:
    """Whether the session has removed this placement group."""
    table = import_module("miniray.util.placement_group").placement_group_table(pg)
    return bool(table) and table["state"] == "REMOVED"


def no_resource_leaks_excluding_node_resources() -> bool:
    """Whether everything that there is is free."""
    free, there = miniray.available_resources(), miniray.cluster_resources()
    skip = ("node:", "object_store_memory")
    return {k: v for k, v in free.items() if not k.startswith(skip)} == {
        k: v for k, v in there.items() if not k.startswith(skip)
    }


def object_memory_usage() -> float:
    """The bytes of the object store that are in use."""
    there, free = miniray.cluster_resources(), miniray.available_resources()
    return there.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)


def kill_process_by_name(name: str, SIGKILL: bool = False) -> None:
    """Ray ends all processes of that name here. miniray would hit processes of others, and does not."""
    raise NotImplementedError("miniray ends no processes by their name.")


# ---- output ----


def init_log_pubsub() -> LogSubscriber:
    """Keep what workers print from now on."""
    return LogSubscriber()


def init_error_pubsub() -> ErrorSubscriber:
    """Keep the warnings of the session from now on."""
    return ErrorSubscriber()


def _collect(subscriber: Any, num: float, timeout: float, take: Callable[[dict[str, Any]], list[Any]]) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + timeout
    while len(found) < num and (left := deadline - time.monotonic()) > 0:
        message = subscriber.poll(timeout=left)
        if message:
            found += take(message)
    return found


def get_error_message(
    subscriber: Any, num: float = 1e6, error_type: str | None = None, timeout: float = 20
) -> list[Any]:
    """The next `num` warnings of a type, or those that come within `timeout` seconds."""
    return _collect(subscriber, num, timeout, lambda m: [m] if error_type in (None, m["type"]) else [])


def get_log_data(
    subscriber: Any, num: float = 1e6, timeout: float = 20, job_id: str | None = None, matcher: Any = None
) -> list[dict[str, Any]]:
    """Batches of printed lines."""
    return _collect(
        subscriber,
        num,
        timeout,
        lambda m: [m] if job_id in (None, m["job"]) and (matcher is None or any(map(matcher, m["lines"]))) else [],
    )


def get_log_message(
    subscriber: Any, num: float = 1e6, timeout: float = 20, job_id: str | None = None, matcher: Any = None
) -> list[list[str]]:
    """Printed lines, batch by batch."""
    return [batch["lines"] for batch in get_log_data(subscriber, num, timeout, job_id, matcher)]


def get_log_batch(
    subscriber: Any, num: int, timeout: float = 20, job_id: str | None = None, matcher: Any = None
) -> list[Any]:
    """Batches of printed lines."""
    return get_log_data(subscriber, num, timeout, job_id, matcher)


def get_log_sources(
    subscriber: Any, num: float = 1e6, timeout: float = 20, job_id: str | None = None, matcher: Any = None
) -> set[str]:
    """The names of the tasks that printed."""
    return {batch["task_name"] for batch in get_log_data(subscriber, num, timeout, job_id, matcher)}


# ---- switches of Ray's own test runs: all off ----


def client_test_enabled() -> bool:
    """Whether the run is over Ray's client."""
    return False


def external_redis_test_enabled() -> bool:
    """Whether the run has a Redis."""
    return False


persistent_gcs_test_enabled = rocksdb_gcs_test_enabled = sandbox_test_enabled = external_redis_test_enabled


def redis_replicas() -> int:
    """How many copies of Redis the run has."""
    return 1


redis_sentinel_replicas = redis_replicas


def enable_external_redis() -> bool:
    """The old name of `external_redis_test_enabled`."""
    return False


def reset_autoscaler_v2_enabled_cache() -> None:
    """There is no autoscaler."""


# ---- small things ----


def generate_system_config_map(**kwargs: Any) -> dict[str, Any]:
    """Arguments of `init` for Ray's settings; miniray knows none of them."""
    return {"_system_config": kwargs}


def same_elements(elems_a: Any, elems_b: Any) -> bool:
    """Whether two lists have the same elements, in any order."""
    return sorted(elems_a) == sorted(elems_b)


def put_object(obj: Any, use_ray_put: bool) -> Any:
    """A ref of the value, by `put` or as the result of a task."""
    return miniray.put(obj) if use_ray_put else _put.remote(obj)


@miniray.remote
def _put(obj: Any) -> Any:
    return obj


def get_current_unused_port() -> int:
    """A TCP port that nobody listens at now."""
    return find_free_port()


find_available_port = get_current_unused_port


def format_web_url(url: str) -> str:
    """An address with ``http://``, and with the number of localhost."""
    url = url.replace("localhost", "127.0.0.1")
    return url if url.startswith(("http://", "https://")) else f"http://{url}"


def recursive_fnmatch(dirpath: str, pattern: str) -> list[str]:
    """The files under a folder whose names match."""
    import fnmatch

    return [os.path.join(root, name) for root, _, names in os.walk(dirpath) for name in fnmatch.filter(names, pattern)]


def get_or_create_event_loop() -> asyncio.AbstractEventLoop:
    """The running event loop, or a new one."""
    from miniray._common.utils import get_or_create_event_loop as get

    return get()


class BatchQueue:
    """A queue whose consumers take all there is at once."""

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        from miniray.util.queue import Queue

        self._queue = Queue(maxsize, actor_options)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put one item."""
        self._queue.put(item, block, timeout)

    def get_batch(self, batch_size: int | None = None, total_timeout: float | None = None, **kwargs: Any) -> list[Any]:
        """Up to `batch_size` items, at least one of them waited for."""
        items = [self._queue.get(timeout=total_timeout)]
        while (batch_size is None or len(items) < batch_size) and not self._queue.empty():
            items.append(self._queue.get())
        return items

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """End it."""
        self._queue.shutdown(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


__getattr__ = absent_functions(
    "ray._private.test_utils",
    "EC2InstanceTerminator EC2InstanceTerminatorWithGracePeriod NodeKillerBase RayletKiller WorkerKillerActor "
    "ResourceKillerActor get_and_run_resource_killer kill_raylet kill_processes get_redis_cli start_redis_instance "
    "start_redis_sentinel_instance setup_tls teardown_tls fetch_prometheus fetch_prometheus_metrics "
    "fetch_prometheus_timeseries fetch_raw_prometheus raw_metric_timeseries get_metric_check_condition "
    "get_system_metric_for_component get_node_stats get_resource_usage get_load_metrics_report get_gcs_memory_used "
    "monitor_memory_usage make_global_state_accessor get_dashboard_agent_address wait_for_dashboard_agent_available "
    "check_local_files_gced check_spilled_mb generate_runtime_env_dict get_test_config_path load_test_config "
    "mock_accelerator_detection mock_no_accelerators set_setup_func wandb_setup_api_key_hook "
    "wait_for_aggregator_agent wait_for_aggregator_agent_if_enabled safe_write_to_results_json "
    "get_gpu_visible_devices_env_var request_with_auth_token auth_token_grpc_metadata PrometheusTimeseries "
    "MetricSamplePattern simulate_s3_bucket",
)
