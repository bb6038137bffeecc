"""The command line against real heads: start, status, stop, and its errors."""

import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from miniray.cli.main import main
from miniray.cli.status import as_text
from miniray.system import session
from tests.processes.bare_driver import BareDriver
from tests.waiting import wait_for


def run(*arguments, **environment):
    """A command in a process of its own: (exit code, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-m", "miniray", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def no_head_stays():
    yield
    run("stop", "--force")


def the_head():
    (info,) = session.running_sessions()
    return info


def test_a_started_head_survives_its_command_and_is_stopped():
    code, output, errors = run("start", "--head", "--num-cpus", "2", "--resources", '{"a": 3}')
    assert (code, errors) == (0, "")
    info = the_head()
    assert info.gcs_address in output
    assert not info.private
    with BareDriver(info) as driver:
        driver.register()
        resources = driver.query("cluster_resources")
        assert (resources["CPU"], resources["a"]) == (2.0, 3.0)
    assert run("stop") == (0, "Stopped 1 session.\n", "")
    assert not os.path.exists(info.directory)
    assert run("stop") == (0, "Did not find any running head of this user.\n", "")


def test_a_second_head_is_said_to_be_one_and_both_are_stopped():
    assert run("start", "--head", "--num-cpus", "1")[2] == ""
    first = the_head()
    code, output, errors = run("start", "--head", "--num-cpus", "1")
    assert (code, "Ray runtime started." in output) == (0, True)
    assert f"Another head of this user runs already, at {first.gcs_address}." in errors
    assert run("stop", "--force")[1] == "Stopped 2 sessions.\n"
    wait_for(lambda: not session.running_sessions())


def test_stop_leaves_private_sessions_alone():
    with BareDriver() as driver:
        assert "Did not find" in run("stop", "--force")[1]
        driver.register()


def test_the_port_is_the_wished_one_or_an_error():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, _, errors = run("start", "--head", "--port", str(port))
        assert code == 1
        assert f"port {port} cannot be used" in errors
    assert session.running_sessions() == []
    assert run("start", "--head", "--port", str(port))[0] == 0
    assert the_head().port == port


def test_what_is_wrong_with_the_environment_leaves_no_session_behind():
    code, _, errors = run("start", "--head", RAY_gcs_rpc_server_reconnect_timeout_s="soon")
    assert (code, "no number of seconds" in errors) == (1, True)
    assert [name for name in os.listdir(session.session_root()) if name.startswith("s-")] == []


def without_uptime(text):
    return [re.sub(r", up [^,]*,", ",", line) for line in text.splitlines()]


def test_status_shows_nodes_resources_and_demands():
    run("start", "--head", "--num-cpus", "2")
    run("start", "--address", the_head().gcs_address, "--num-cpus", "3", "--node-name", "second")
    with BareDriver(the_head()) as driver:
        driver.register()
        driver.lease(CPU=1)
        driver.demand(1, class_id=2, CPU=50)
        driver.query("status")
        code, output, _ = run("status", "--format", "json")
        status = json.loads(output)
        assert code == 0
        assert status["cluster_resources"]["CPU"] == 5.0
        assert status["available_resources"]["CPU"] == 4.0
        assert [row["NodeName"] for row in status["node_rows"]] == ["127.0.0.1", "second"]
        text = run("status")[1]
        assert without_uptime(text) == without_uptime(as_text(status))
        assert "1 driver" in text
        assert "{'CPU': 50.0}: 1 waiting" in text


def test_status_without_a_head_says_how_to_start_one():
    code, output, errors = run("status")
    assert (code, output) == (1, "")
    assert "miniray start --head" in errors


def test_a_blocking_start_ends_its_head_when_it_is_told_to_end():
    with subprocess.Popen(
        [sys.executable, "-m", "miniray", "start", "--head", "--block"], stdout=subprocess.PIPE, text=True
    ) as command:
        reader = threading.Thread(target=command.stdout.read)
        wait_for(session.running_sessions)
        reader.start()
        info = the_head()
        command.terminate()
        assert command.wait(20) == 0
        reader.join()
    assert not os.path.exists(info.directory)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["start"], "--head"),
        (["start", "--head", "--address", "x"], "one of them"),
        (["start", "--address", "127.0.0.1:1"], "looked for a running head"),
        (["start", "--head", "--resources", '{"a": 1.5}'], "whole numbers"),
        (["start", "--head", "--num-cpus", "-1"], "nonnegative"),
        (["start", "--head", "--resources", '{"CPU": 3}'], "cannot be a custom resource"),
        (["start", "--head", "--resources", '{"a": "x"}'], "a (<class 'str'>): x"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, complaint, capsys):
    assert main(arguments) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["start", "--head", "--resources", "{"], ["start", "--labels", "x"], ["start", "--memory", "4XB"], ["dance"], []],
)
def test_what_cannot_be_read_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_an_unknown_option_is_told_with_the_usage_of_its_command(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["start", "--head", "--dance"])
    assert raised.value.code == 2
    errors = capsys.readouterr().err
    assert "usage: miniray start" in errors
    assert "unrecognized arguments: --dance" in errors


def test_a_reader_that_has_seen_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "miniray", "microbenchmark", "--list"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_version_is_told():
    assert run("--version")[1].startswith("miniray, version ")
