"""The state API on the command line: lists, single rows, summaries, timeline and logs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.cli.main import main
from miniray.cli.text_table import table, yaml
from miniray.processes import current
from miniray.util import state
from miniray.util.state.exception import ServerUnavailable
from miniray.util.state.source import Source
from tests.waiting import wait_for

Capture = pytest.CaptureFixture[str]


@miniray.remote
def work() -> int:
    print("from work", flush=True)
    return 1


@miniray.remote(num_cpus=0)
class Actor:
    def method(self) -> None:
        print("from an actor", flush=True)


@pytest.fixture(scope="module", autouse=True)
def actor() -> Iterator[Any]:
    miniray.init(num_cpus=1, log_to_driver=False)
    handle = Actor.options(name="listed").remote()
    miniray.get([work.remote(), handle.method.remote()])
    wait_for(lambda: len(state.list_tasks(filters=[("state", "=", "FINISHED")])) == 3)
    yield handle
    miniray.shutdown()


def test_a_list_is_a_table_json_or_yaml(capsys: Capture) -> None:
    assert main(["list", "tasks", "--filter", "name=work"]) == 0
    output = capsys.readouterr().out
    assert "Total: 1" in output
    assert "FUNC_OR_CLASS_NAME" in output
    assert main(["list", "actors", "--format", "json", "-f", "name!=other"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"]) == ("listed", "ALIVE")
    assert "death_cause" not in row
    assert main(["list", "actors", "--detail"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("---\n-   actor_id: ")
    assert "    class_name: Actor\n" in output
    assert "    death_cause: null\n" in output


def test_every_kind_can_be_listed(capsys: Capture) -> None:
    for kind in ("jobs", "placement-groups", "nodes", "workers", "objects", "runtime-envs", "cluster-events"):
        assert main(["list", kind]) == 0
        assert "======== List: " in capsys.readouterr().out


def test_one_row_is_shown_with_all_details(actor: Any, capsys: Capture) -> None:
    assert main(["get", "actors", actor._actor_id.hex()]) == 0
    assert "is_detached: false" in capsys.readouterr().out
    assert main(["get", "actors", "ab" * 16]) == 0
    assert "not found in the cluster" in capsys.readouterr().out


def test_the_job_of_a_driver_is_got_by_the_id_that_the_list_shows(capsys: Capture) -> None:
    assert main(["list", "jobs", "--format", "json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert main(["get", "jobs", listed["job_id"], "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert listed.items() <= row.items()
    assert main(["get", "jobs", listed["job_id"]]) == 0
    assert "type: DRIVER\n" in capsys.readouterr().out
    assert main(["get", "jobs", "ff000000"]) == 0
    assert "not found in the cluster" in capsys.readouterr().out


def test_summaries_count(capsys: Capture) -> None:
    assert main(["summary", "tasks"]) == 0
    output = capsys.readouterr().out
    assert "total_actor_scheduled: 1" in output
    assert "FINISHED: 1" in output
    assert main(["summary", "actors", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["Actor"]["state_counts"] == {"ALIVE": 1}
    assert main(["summary", "objects"]) == 0
    assert "callsite_enabled: false" in capsys.readouterr().out


def test_what_cannot_be_is_said_in_one_line(capsys: Capture) -> None:
    assert main(["list", "tasks", "--filter", "nope=1"]) == 1
    assert "The given filter column nope is not supported" in capsys.readouterr().err
    for wrong in (["list", "tasks", "--filter", "nope"], ["list", "nothing"], ["get", "runtime-envs", "ab"]):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "Please provide key=val or key!=val" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["timeline"], ["memory"], ["list", "nodes"], ["logs"]])
def test_a_head_that_does_not_answer_is_said_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def no_answer(self: Source, what: str, *rest: Any, **arguments: Any) -> Any:
        raise ServerUnavailable("no answer")

    monkeypatch.setattr(Source, "query", no_answer)
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"miniray {arguments[0]}: no answer\n"


def test_a_command_that_is_interrupted_ends_as_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(self: Source, what: str, *rest: Any, **arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Source, "query", interrupted)
    assert main(["logs", "--follow"]) == 130
    assert capsys.readouterr().err == ""


def test_the_timeline_is_a_file(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "trace.json"
    assert main(["timeline", "-o", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    assert "task::work" in {event["cat"] for event in json.loads(path.read_text())}


def test_logs_are_listed_and_shown(actor: Any, capsys: Capture) -> None:
    assert main(["logs"]) == 0
    output = capsys.readouterr().out
    assert "worker_out:" in output
    assert main(["logs", "actor", "--id", actor._actor_id.hex()]) == 0
    assert capsys.readouterr().out == "from an actor\n"
    (task,) = state.list_tasks(filters=[("name", "=", "work")])
    assert main(["logs", "task", "--id", task.task_id]) == 0
    assert "from work" in capsys.readouterr().out
    assert main(["logs", "worker", "--pid", str(task.worker_pid)]) == 0
    assert "from work" in capsys.readouterr().out
    assert main(["logs", "nosuch*"]) == 1
    assert main(["logs", "actor"]) == 1


def test_another_process_finds_the_session() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "miniray", "list", "nodes", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "RAY_ADDRESS": miniray.get_runtime_context().gcs_address},
        check=True,
    )
    assert [row["state"] for row in json.loads(done.stdout)] == ["ALIVE"]


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "MINIRAY_ADDRESS"])
@pytest.mark.parametrize("command", ["list nodes", "memory", "timeline", "logs", "status"])
def test_every_command_goes_where_the_environment_points(
    command: str, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:1")
    monkeypatch.setattr(current, "core_or_none", lambda: None)  # as in a process without a session
    assert main(command.split()) == 1
    assert "looked for a running head of this user with that name, directory or port" in capsys.readouterr().err


def test_a_table_is_aligned_and_takes_several_lines_for_several_values() -> None:
    assert table(["a", "name"], [[1, "x"], [22, {"k": 1, "l": 2}]]).splitlines() == [
        " A  NAME",
        " 1  x",
        "22  k: 1",
        "    l: 2",
    ]


def test_yaml_quotes_what_would_be_something_else() -> None:
    text = yaml(
        [
            {
                "a": "01",
                "b": None,
                "c": True,
                "d": {},
                "e": [1, "x y"],
                "f": "no",
                "g": "a\nb",
                "h": "0ab",
                "i": "",
                "j": ".5",
                "k": "0b1",
                "l": "a\ré",
            }
        ]
    )
    assert text.splitlines() == [
        "---",
        "-   a: '01'",
        "    b: null",
        "    c: true",
        "    d: {}",
        "    e:",
        "        -   1",
        "        -   x y",
        "    f: 'no'",
        '    g: "a\\nb"',
        "    h: 0ab",
        "    i: ''",
        "    j: '.5'",
        "    k: '0b1'",
        '    l: "a\\U0000000dé"',
        "...",
    ]
