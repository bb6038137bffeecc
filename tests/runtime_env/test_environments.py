"""Runtime environments of tasks and actors: variables, packages, interpreters of their own, and what fails."""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.exceptions import RuntimeEnvSetupError
from tests.differential.wheels import make_wheel
from tests.waiting import wait_for

TIMEOUT = 60


@pytest.fixture(scope="module")
def session(cache: Path) -> Iterator[None]:
    """A session whose job has an environment."""
    with miniray.init("local", num_cpus=4, runtime_env={"env_vars": {"JOB": "job", "BOTH": "job"}}):
        yield


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def in_environment(function: Any, runtime_env: dict[str, Any], *arguments: Any) -> Any:
    return miniray.get(miniray.remote(function).options(runtime_env=runtime_env).remote(*arguments), timeout=TIMEOUT)


# ---- variables ----


def test_variables_of_a_task_go_over_those_of_its_job(session: None) -> None:
    own = {"env_vars": {"OWN": "task", "BOTH": "task"}}
    assert in_environment(variables, own, "JOB", "BOTH", "OWN") == ["job", "task", "task"]
    assert in_environment(variables, {}, "JOB", "BOTH", "OWN") == ["job", "job", None]


def test_children_inherit(session: None) -> None:
    @miniray.remote
    class Parent:
        def child(self) -> Any:
            return miniray.get(miniray.remote(variables).remote("JOB", "OWN"))

    parent = Parent.options(runtime_env={"env_vars": {"OWN": "actor"}}).remote()
    assert miniray.get(parent.child.remote()) == ["job", "actor"]


def test_a_variable_may_refer_to_one_that_was_there(session: None) -> None:
    own = {"env_vars": {"PATH": "/first:${PATH}", "NOT": "<${NO_SUCH_VARIABLE}>"}}
    assert in_environment(variables, own, "PATH", "NOT") == ["/first:" + os.environ["PATH"], "<>"]


def test_what_the_interpreter_reads_at_its_start_is_there_at_its_start(session: None) -> None:
    own = {"env_vars": {"PYTHONHASHSEED": "1", "PYTHONPATH": "/some/where:${PYTHONPATH}"}}

    def look() -> Any:
        return sys.flags.hash_randomization, "/some/where" in sys.path

    assert in_environment(look, own) == (1, True)
    assert in_environment(lambda: hash("text"), own) == in_environment(
        lambda: hash("text"), {"env_vars": {"PYTHONHASHSEED": "1"}}
    )


def test_a_worker_is_used_again_by_its_own_environment_only(session: None) -> None:
    one, two = ({"env_vars": {"NUMBER": number}} for number in ("1", "2"))
    first = in_environment(os.getpid, one)
    assert in_environment(os.getpid, one) == first
    assert first not in (in_environment(os.getpid, two), in_environment(os.getpid, {}))


# ---- packages ----


def here() -> Any:
    return os.getcwd(), sorted(os.listdir(".")), os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]


def test_an_archive_by_uri_may_be_the_working_directory_of_a_task(session: None, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as file:
        file.writestr("top/inside.txt", "")
    env = {"working_dir": f"file://{tmp_path}/archive.zip"}
    assert in_environment(here, env)[1] == ["inside.txt"]
    with pytest.raises(RuntimeEnvSetupError, match=r"missing\.zip"):
        in_environment(here, {"working_dir": f"file://{tmp_path}/missing.zip"})
    with pytest.raises(RuntimeEnvSetupError, match="file, http and https"):
        in_environment(here, {"working_dir": "s3://bucket/a.zip"})


def test_a_task_cannot_take_a_directory_along(session: None, tmp_path: Path) -> None:
    for env in ({"working_dir": str(tmp_path)}, {"py_modules": [str(tmp_path)]}):
        with pytest.raises(ValueError, match="only supported at the job level"):
            miniray.remote(here).options(runtime_env=env)


# ---- interpreters of their own ----


def version_of(module: str) -> Any:
    return importlib.import_module(module).VERSION, os.environ.get("VIRTUAL_ENV"), os.getpid()


def test_pip_installs_what_the_driver_does_not_have(session: None, cache: Path, tmp_path: Path) -> None:
    env = {"pip": [str(make_wheel(tmp_path, "only_there", "1.0"))]}
    with pytest.raises(ImportError):
        importlib.import_module("only_there")
    version, place, pid = in_environment(version_of, env, "only_there")
    assert version == "1.0" and str(place).startswith(str(cache))
    # Used again, by tasks and by actors.
    assert in_environment(version_of, env, "only_there")[2] == pid

    @miniray.remote
    class Actor:
        def look(self) -> Any:
            return version_of("only_there")[:2]

    assert miniray.get(Actor.options(runtime_env=env).remote().look.remote(), timeout=TIMEOUT) == ("1.0", place)


def test_pip_that_fails_says_why(session: None) -> None:
    env = {"pip": ["no-such-package-anywhere"]}
    with pytest.raises(RuntimeEnvSetupError, match="No matching distribution found for no-such-package-anywhere"):
        in_environment(os.getpid, env)

    @miniray.remote
    class Actor:
        def method(self) -> None:
            pass

    actor = Actor.options(runtime_env=env).remote()
    with pytest.raises(RuntimeEnvSetupError, match="Could not create the actor because its associated runtime env"):
        miniray.get(actor.method.remote(), timeout=TIMEOUT)


def test_a_set_up_that_takes_too_long_is_ended(session: None, tmp_path: Path) -> None:
    fifo = tmp_path / "never.txt"
    os.mkfifo(fifo)
    env = {"pip": ["-r " + str(fifo)], "config": {"setup_timeout_seconds": 1}}
    with pytest.raises(RuntimeEnvSetupError, match="within the timeout of 1 seconds"):
        in_environment(os.getpid, env)


def test_an_environment_may_name_its_python(session: None) -> None:
    env = {"py_executable": f"env FROM_COMMAND=yes {sys.executable}"}
    assert in_environment(variables, env, "FROM_COMMAND", "JOB") == ["yes", "job"]
    with pytest.raises(RuntimeEnvSetupError, match="does not run miniray"):
        in_environment(variables, {"py_executable": "/no/such/python"})


def test_packages_for_a_python_that_does_not_run_are_in_use_no_longer(session: None, cache: Path) -> None:
    before = set(cache.iterdir())
    env = {"pip": ["# none"], "py_executable": "/no/such/python"}
    with pytest.raises(RuntimeEnvSetupError, match="does not run miniray"):
        in_environment(os.getpid, env)
    (lock,) = (path for path in set(cache.iterdir()) - before if path.suffix == ".lock")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_fork_server_of_an_environment_that_dies_is_replaced(session: None) -> None:
    env = {"py_executable": f"env AGAIN=yes {sys.executable}"}
    parent = in_environment(os.getppid, env)
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{parent}") if sys.platform == "linux" else True)

    @miniray.remote
    class Actor:
        def parent(self) -> int:
            return os.getppid()

    actors = [Actor.options(runtime_env=env).remote() for _ in range(2)]
    assert parent not in miniray.get([actor.parent.remote() for actor in actors], timeout=TIMEOUT)


# ---- what is not supported ----


@pytest.mark.parametrize(
    "env", [{"conda": "name"}, {"container": {"image": "x"}}, {"image_uri": "x"}, {"nsight": "default"}], ids=str
)
def test_what_miniray_cannot_do_it_says(session: None, env: dict[str, Any]) -> None:
    plain = miniray.remote(os.getpid)
    with pytest.raises(RuntimeEnvSetupError, match="not supported by miniray. Run this program on Ray"):
        miniray.get(plain.options(runtime_env=env).remote(), timeout=TIMEOUT)
