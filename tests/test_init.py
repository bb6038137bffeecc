"""`init`, `shutdown`, and what stands between: messages, addresses, contexts, threads, forks, several sessions."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray import exceptions, init_context
from miniray.cluster_utils import Cluster
from miniray.job_config import JobConfig
from miniray.options import set_strict_mode, strict_mode
from miniray.system import user_log

TWICE = (
    "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
    "'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'."
)


@pytest.fixture(autouse=True)
def no_session_before_or_after() -> Iterator[None]:
    assert not miniray.is_initialized()
    yield
    miniray.shutdown()


@pytest.fixture
def strict() -> Iterator[None]:
    before = strict_mode()
    set_strict_mode(True)
    yield
    set_strict_mode(before)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """miniray's logger, as it is when nobody has touched it."""
    target = user_log.logger()
    handlers, level = list(target.handlers), target.level
    target.setLevel(logging.INFO)
    formatters = [handler.formatter for handler in handlers]
    yield target
    target.handlers[:] = handlers
    target.setLevel(level)
    for handler, formatter in zip(handlers, formatters, strict=True):
        handler.setFormatter(formatter)


def run(source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def output(source: str, *arguments: str, **environment: str) -> list[str]:
    """The lines that a program of its own prints."""
    finished = run(source, *arguments, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


# ---- what is said ----

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\tINFO <string>:\d+ -- "


@pytest.mark.parametrize("imports", ["import miniray", "import logging, miniray"])
def test_a_session_is_announced_in_rays_format_with_and_without_logging(imports: str) -> None:
    finished = run(f"{imports}\nminiray.init('local', num_cpus=1)\nminiray.init(ignore_reinit_error=True)")
    lines = finished.stderr.splitlines()
    assert re.fullmatch(LINE + r"Started a local Ray instance\.", lines[0])
    assert re.fullmatch(LINE + r"Calling ray\.init\(\) again after it has already been called\.", lines[1])
    assert len(lines) == 2 and finished.stdout == ""


def test_joining_is_announced_with_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    address = miniray.init("local", num_cpus=1).address_info["address"]
    finished = run("import sys, miniray; miniray.init(sys.argv[1])", address)
    first, second = finished.stderr.splitlines()
    assert re.fullmatch(LINE + rf"Connecting to existing Ray cluster at address: {address}\.\.\.", first)
    assert re.fullmatch(LINE + r"Connected to Ray cluster\.", second)


def test_an_address_from_the_environment_is_announced() -> None:
    address = miniray.init("local", num_cpus=1).address_info["address"]
    for variable in ("RAY_ADDRESS", "MINIRAY_ADDRESS"):
        finished = run("import miniray; miniray.init('auto')", **{variable: address})
        first = finished.stderr.splitlines()[0]
        assert re.fullmatch(LINE + f"Using address {address} set in the environment variable {variable}", first)


def test_the_logger_writes_to_the_stderr_of_the_moment(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    miniray.init("local", num_cpus=1)
    captured = capsys.readouterr()
    assert captured.out == "" and "INFO test_init.py:" in captured.err
    assert "-- Started a local Ray instance.\n" in captured.err


def test_the_level_of_messages_can_be_set(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    miniray.init("local", num_cpus=1, logging_level="warning")
    assert capsys.readouterr().err == "" and logger.level == logging.WARNING
    miniray.shutdown()
    miniray.init("local", num_cpus=1, logging_level=logging.INFO, logging_format="<%(message)s>")
    assert capsys.readouterr().err == "<Started a local Ray instance.>\n"


def test_without_configure_logging_the_level_has_no_effect(logger: logging.Logger) -> None:
    miniray.init("local", num_cpus=1, configure_logging=False, logging_level="ERROR")
    assert logger.level == logging.INFO


@pytest.mark.parametrize(
    ("level", "kind", "text"),
    [("nonsense", ValueError, "Unknown level: 'Level NONSENSE'"), (None, TypeError, "Level not an integer or a valid")],
)
def test_there_are_only_the_levels_of_logging(level: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        miniray.init("local", logging_level=level)
    assert not miniray.is_initialized()


def test_a_handler_that_the_program_gave_the_logger_is_the_only_one() -> None:
    finished = run(
        """
        import logging, sys
        handler = logging.StreamHandler(sys.stdout)
        logging.getLogger("miniray").addHandler(handler)
        import miniray
        miniray.init("local", num_cpus=1)
        """
    )
    assert (finished.stdout, finished.stderr) == ("Started a local Ray instance.\n", "")


@pytest.mark.parametrize("encoding", ["TEXT", "JSON"])
def test_a_logging_config_sets_up_the_root_logger_of_driver_and_workers(encoding: str) -> None:
    finished = run(
        """
        import logging, sys, miniray
        config = miniray.LoggingConfig(encoding=sys.argv[1], additional_log_standard_attrs=["name"])
        miniray.init("local", num_cpus=1, logging_config=config)
        logging.getLogger("mine").warning("a line", extra={"key": "value"})
        logging.debug("hidden")
        @miniray.remote
        def task():
            logging.info("of a task")
        miniray.get(task.remote())
        """,
        encoding,
    )
    started, line, of_task = finished.stderr.splitlines()
    assert "Started a local Ray instance." in started
    if encoding == "TEXT":
        assert re.search(r"\tWARNING <string>:5 -- a line name=mine key=value job_id=\w{8} worker_id=\w{56} ", line)
        assert re.search(r"INFO <string>:9 -- of a task .* task_name=task task_func_name=__main__.task", of_task)
    else:
        assert '"levelname": "WARNING", "message": "a line", "filename": "<string>", "lineno": 5' in line
        assert '"name": "mine", "key": "value", "job_id": "' in line
        assert '"task_name": "task", "task_func_name": "__main__.task"' in of_task


# ---- the context ----


def test_the_context_has_the_addresses_of_the_session() -> None:
    context = miniray.init("local", num_cpus=1)
    info = context.address_info
    assert Path(info["session_dir"]).is_dir()
    assert info["address"] == info["gcs_address"] == miniray.get_runtime_context().gcs_address
    assert info["node_id"] == miniray.get_runtime_context().get_node_id() == miniray.nodes()[0]["NodeID"]
    assert context.python_version == ".".join(map(str, sys.version_info[:3]))
    assert context.ray_version == miniray.__version__
    assert context.dashboard_url == ""
    assert repr(context).startswith("RayContext(dashboard_url='', python_version='")


def test_the_context_reads_like_a_dictionary_and_says_once_that_it_should_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(init_context, "_warned", set())
    context = miniray.init("local", num_cpus=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert context["node_id"] == context.get("node_id") == context.address_info["node_id"]
        assert context["address"] and "address" in context and "nothing" not in context
        assert context.get("nothing") is None and context.get("nothing", 5) == 5
        assert len(context) == len(context) == len(dict(context)) == len(list(context))
    assert [(entry.category, str(entry.message)) for entry in caught] == [
        (
            DeprecationWarning,
            'Accessing values through ctx["node_id"] is deprecated. Use ctx.address_info["node_id"] instead.',
        ),
        (UserWarning, "len(ctx) is deprecated. Use len(ctx.address_info) instead."),
    ]
    with pytest.raises(KeyError):
        context["nothing"]


def test_the_end_of_a_with_statement_is_the_end_of_the_session() -> None:
    with miniray.init("local", num_cpus=1) as context:
        assert miniray.is_initialized()
        directory = context.address_info["session_dir"]
    assert not miniray.is_initialized() and not Path(directory).exists()


def test_the_context_of_an_earlier_session_ends_no_later_one() -> None:
    first = miniray.init("local", num_cpus=1)
    first.disconnect()
    miniray.init("local", num_cpus=1)
    first.disconnect()
    assert miniray.is_initialized()


# ---- parameters ----


def test_a_second_init_is_an_error_unless_it_is_ignored() -> None:
    context = miniray.init("local", num_cpus=1)
    with pytest.raises(RuntimeError) as caught:
        miniray.init("local", num_cpus=1)
    assert str(caught.value) == TWICE
    assert miniray.init(ignore_reinit_error=True, num_cpus=100) == context
    assert miniray.cluster_resources()["CPU"] == 1


def test_a_task_is_in_a_session_already() -> None:
    context = miniray.init("local", num_cpus=1)

    @miniray.remote
    def start() -> list[Any]:
        again = miniray.init(ignore_reinit_error=True)
        again.disconnect()  # not what a task may do: it has no effect
        try:
            miniray.init()
        except RuntimeError as error:
            return [again.address_info["address"], str(error), miniray.is_initialized()]
        return []

    assert miniray.get(start.remote()) == [context.address_info["address"], TWICE, True]


def test_local_mode_is_refused(strict: None) -> None:
    with pytest.raises(RuntimeError, match="`local_mode` is no longer supported. For interactive debugging consider"):
        miniray.init(local_mode=True)


def test_local_mode_joins_no_other_session() -> None:
    with pytest.raises(ValueError, match="it cannot join the one at '127.0.0.1:1'"):
        miniray.init("127.0.0.1:1", local_mode=True)


@pytest.mark.parametrize(("value", "local"), [("1", True), ("yes", True), ("", False), ("no", False), ("off", False)])
def test_the_variable_that_asks_for_local_mode_can_say_no(
    monkeypatch: pytest.MonkeyPatch, value: str, local: bool
) -> None:
    monkeypatch.setenv("MINIRAY_LOCAL_MODE", value)
    assert init_context._is_local(None, None) is local


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"nonsense": 1}, RuntimeError, "Unknown keyword argument(s): nonsense"),
        ({"num_cpus": -1}, ValueError, "Resource quantities must be nonnegative. Violated by resource 'CPU'"),
        ({"cgroup_path": "/x"}, ValueError, "cgroup_path cannot be set when resource isolation is not enabled."),
        ({"runtime_env": {"env_vars": {"a": 1}}}, TypeError, "but the value 1 is of type <class 'int'>"),
        ({"namespace": 5}, TypeError, "namespace must be None or a string."),
    ],
    ids=str,
)
def test_wrong_parameters_start_nothing(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        miniray.init("local", **given)
    assert text in str(caught.value)
    assert not miniray.is_initialized()


def test_the_job_config_reaches_the_workers(tmp_path: Path) -> None:
    (tmp_path / "only_by_search_path.py").write_text("VALUE = 7\n")
    config = JobConfig(code_search_path=[str(tmp_path)], ray_namespace="of the config", metadata={"a": "b"})
    config.set_runtime_env({"env_vars": {"FROM": "config"}})
    miniray.init("local", num_cpus=1, job_config=config)

    @miniray.remote
    def look() -> Any:
        import only_by_search_path

        here = miniray.get_runtime_context()
        return [only_by_search_path.VALUE, here.namespace, here.runtime_env]

    assert miniray.get(look.remote()) == [7, "of the config", {"env_vars": {"FROM": "config"}}]


def test_the_parameter_namespace_beats_the_job_config() -> None:
    miniray.init("local", num_cpus=1, namespace="given", job_config=JobConfig(ray_namespace="of the config"))
    assert miniray.get_runtime_context().namespace == "given"


def test_without_a_name_each_job_has_a_namespace_of_its_own() -> None:
    miniray.init("local", num_cpus=1)
    first = miniray.get_runtime_context().namespace
    miniray.shutdown()
    miniray.init("local", num_cpus=1)
    assert miniray.get_runtime_context().namespace != first
    assert [len(part) for part in first.split("-")] == [8, 4, 4, 4, 12]


# ---- addresses ----


def test_what_describes_a_new_session_does_not_fit_a_running_one() -> None:
    address = miniray.init("local", num_cpus=1).address_info["address"]
    lines = output(
        """
        import sys, miniray
        given = ["num_cpus=0", "num_gpus=1", "resources={}", "labels={}", "object_store_memory=10**8", "memory=10**9",
                 "_system_config={}", "_node_name='x'"]
        for text in given:
            try:
                miniray.init(sys.argv[1], **eval(f"dict({text})"))
            except ValueError as error:
                print(error)
            assert not miniray.is_initialized()
        """,
        address,
    )
    refused = "When connecting to an existing cluster, {} must not be provided."
    names = ["num_cpus and num_gpus"] * 2 + ["resources", "labels", "object_store_memory", "memory", "_system_config"]
    assert lines == [
        *(refused.format(name) for name in names),
        "_node_name cannot be configured when connecting to an existing cluster.",
    ]


JOIN = """
import sys, miniray
miniray.init(*sys.argv[1:], logging_level="ERROR")
print(miniray.cluster_resources().get("here"), miniray.get(miniray.remote(lambda: 5).remote()))
"""


def test_a_private_session_is_joined_by_name_port_and_environment_only() -> None:
    info = miniray.init("local", num_cpus=1, resources={"here": 1}).address_info
    for address in (info["address"], f"ray://{info['address']}", info["session_name"], info["session_dir"]):
        assert output(JOIN, address) == ["1.0 5"]
    assert output(JOIN, RAY_ADDRESS=info["address"]) == ["1.0 5"]
    assert output(JOIN, "local", RAY_ADDRESS=info["address"]) == ["None 5"]
    assert output(JOIN) == ["None 5"]


def test_a_shared_session_is_joined_without_an_address() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"here": 1}})
    try:
        assert output(JOIN) == output(JOIN, "auto") == output(JOIN, cluster.address) == ["1.0 5"]
        assert output(JOIN, "local") == ["None 5"]
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "ray://127.0.0.1:1", "no-such-session"])
def test_where_there_is_no_session_it_is_said_how_to_start_one(address: str) -> None:
    with pytest.raises(ConnectionError, match="miniray start --head"):
        miniray.init(address)
    assert not miniray.is_initialized()


def test_what_is_no_address_is_refused_as_in_ray(strict: None) -> None:
    with pytest.raises(ValueError, match="Invalid address format: nonsense"):
        miniray.init("nonsense")


# ---- auto-init ----


@pytest.mark.parametrize(
    "call",
    [
        lambda: miniray.put(1),
        lambda: miniray.get([]),
        lambda: miniray.wait([]),
        lambda: miniray.remote(lambda: 1).remote(),
        lambda: miniray.get_gpu_ids(),
        lambda: miniray.get_runtime_context(),
    ],
    ids=["put", "get", "wait", "remote", "get_gpu_ids", "get_runtime_context"],
)
def test_the_first_call_starts_a_session_unless_that_is_switched_off(
    call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    if "get_runtime_context" in call.__code__.co_names:
        with pytest.raises(RuntimeError, match="Job ID is not available because Ray has not been initialized."):
            call().get_job_id()
    else:
        with pytest.raises(exceptions.RaySystemError, match="Ray has not been started yet. You can start Ray with"):
            call()
    assert not miniray.is_initialized()
    monkeypatch.delenv("RAY_ENABLE_AUTO_CONNECT")
    call()
    assert miniray.is_initialized()


@pytest.mark.parametrize("name", ["nodes", "cluster_resources", "available_resources"])
def test_a_look_at_the_session_starts_none(name: str) -> None:
    with pytest.raises(exceptions.RaySystemError, match="Trying to use state API before ray.init"):
        getattr(miniray, name)()
    assert not miniray.is_initialized()


def test_threads_that_come_first_at_once_start_one_session() -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(miniray.get_runtime_context().get_job_id())) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 10 and len(set(answers)) == 1


# ---- threads, forks, ends ----


def test_a_session_may_begin_and_end_in_any_thread() -> None:
    def in_a_thread(function: Callable[[], Any]) -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    in_a_thread(lambda: miniray.init("local", num_cpus=1))
    assert miniray.get(miniray.remote(lambda: 3).remote()) == 3
    in_a_thread(miniray.shutdown)
    assert not miniray.is_initialized()


def test_shutdown_without_a_session_does_nothing() -> None:
    miniray.shutdown()
    miniray.shutdown()


def test_refs_and_contexts_of_an_ended_session_say_so() -> None:
    context = miniray.init("local", num_cpus=1)
    here = miniray.get_runtime_context()
    ref = miniray.put(1)
    context.disconnect()
    with pytest.raises(RuntimeError, match="Node ID is not available because Ray has not been initialized."):
        here.get_node_id()
    miniray.init("local", num_cpus=1)
    with pytest.raises(ValueError, match="belongs to an earlier session"):
        miniray.get(ref, timeout=5)


def test_sessions_follow_each_other() -> None:
    add = miniray.remote(lambda a, b: a + b)
    nodes = set()
    for number in range(3):
        miniray.init("local", num_cpus=1)
        nodes.add(miniray.get_runtime_context().get_node_id())
        assert miniray.get(add.remote(number, 1)) == number + 1
        miniray.shutdown()
    assert len(nodes) == 3


def test_a_forked_child_is_told_and_may_start_a_session_of_its_own() -> None:
    lines = output(
        """
        import os, sys, miniray
        miniray.init("local", num_cpus=1)
        child = os.fork()
        if child == 0:
            assert not miniray.is_initialized()
            try:
                miniray.put(1)
            except miniray.exceptions.RaySystemError as error:
                print("forked" in str(error))
            context = miniray.init("local", num_cpus=1)
            print(miniray.get(miniray.remote(lambda: 4).remote()))
            print(context.address_info["session_dir"], flush=True)
            sys.exit(3)  # its own session ends with it
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(miniray.get(miniray.remote(lambda: 5).remote()))
        """
    )
    assert [*lines[:2], *lines[3:]] == ["True", "4", "3", "5"]
    assert not Path(lines[2]).exists()


@pytest.mark.parametrize("end", ["", "sys.exit(7)", "raise ValueError('at the top')", "miniray.shutdown()"])
def test_a_script_leaves_nothing_behind_however_it_ends(end: str) -> None:
    finished = run(
        f"""
        import sys, miniray
        print(miniray.init("local", num_cpus=1, logging_level="ERROR").address_info["session_dir"], flush=True)
        miniray.get(miniray.remote(lambda: 1).remote())
        {end}
        """
    )
    assert finished.returncode == {"s": 7, "r": 1}.get(end[:1], 0)
    assert finished.stderr.strip().splitlines()[-1:] == (["ValueError: at the top"] if "raise" in end else [])
    assert not Path(finished.stdout.strip()).exists()


def test_the_import_of_miniray_brings_nothing_heavy() -> None:
    heavy = output(
        """
        import sys, msgspec
        before = set(sys.modules)  # on 3.10 it needs subprocess
        import miniray
        names = ("asyncio", "concurrent.futures", "ctypes", "logging", "multiprocessing", "subprocess", "socket", "zmq",
                 "cloudpickle", "psutil", "argparse", "numpy", "threading")
        print(*(name for name in names if name in sys.modules and name not in before))
        """
    )
    assert heavy == [""]
