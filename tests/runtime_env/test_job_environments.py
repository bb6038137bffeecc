"""Runtime environments of jobs: what `init` takes along, hooks, plugins."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.exceptions import ActorDiedError, RuntimeEnvSetupError, WorkerCrashedError
from miniray.job_config import JobConfig
from miniray.runtime_env.packages import job_environment, take_along
from tests.differential.wheels import make_wheel
from tests.waiting import wait_for

TIMEOUT = 60


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def in_environment(function: Any, runtime_env: dict[str, Any], *arguments: Any) -> Any:
    return miniray.get(miniray.remote(function).options(runtime_env=runtime_env).remote(*arguments), timeout=TIMEOUT)


# ---- packages of a job ----


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a module, data, and what is to stay behind."""
    folder = tmp_path / "project"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "module_of_project.py").write_text("VALUE = 1\n")
    (folder / "data.txt").write_text("data")
    (folder / "secret.txt").write_text("")
    (folder / "ignored.txt").write_text("")
    (folder / ".gitignore").write_text("ignored.txt\n")
    return folder


def here() -> Any:
    return os.getcwd(), sorted(os.listdir(".")), os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]


def value_of(module: str) -> Any:
    return importlib.import_module(module).VALUE


def test_a_working_directory_is_copied_and_imported_from(project: Path, tmp_path: Path) -> None:
    package = tmp_path / "modules" / "package_of_job"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 2\n")
    wheel = make_wheel(tmp_path, "wheel_of_job")
    env = {
        "working_dir": str(project),
        "excludes": ["secret.txt"],
        "py_modules": [str(package), str(wheel)],
        "env_vars": {"A": "a"},
    }
    with miniray.init("local", num_cpus=2, runtime_env=env) as context:
        where, files, first_of_path = miniray.get(miniray.remote(here).remote())
        assert files == [".gitignore", "data.txt", "module_of_project.py"]
        assert where != str(project) and where.startswith(context.address_info["session_dir"])
        assert first_of_path.startswith(context.address_info["session_dir"])
        values = [miniray.remote(value_of).remote(name) for name in ("module_of_project", "package_of_job")]
        assert miniray.get(values) == [1, 2]
        assert miniray.get(miniray.remote(lambda: importlib.import_module("wheel_of_job").VERSION).remote()) == "1.0"
        own = miniray.remote(here).options(runtime_env={"env_vars": {"B": "b"}})
        assert miniray.get(own.remote())[0] == where
        named = miniray.get_runtime_context().runtime_env
        assert named["working_dir"].startswith("gcs://_ray_pkg_") and "excludes" not in named
    assert not os.path.exists(where)


def test_code_of_the_search_path_is_importable_beside_a_working_directory(project: Path, tmp_path: Path) -> None:
    (tmp_path / "searched.py").write_text("VALUE = 3\n")
    config = JobConfig(code_search_path=[str(tmp_path)], runtime_env={"working_dir": str(project)})
    with miniray.init("local", num_cpus=1, job_config=config):
        assert miniray.get(miniray.remote(value_of).remote("searched")) == 3


@pytest.mark.parametrize(
    ("env", "kind", "text"),
    [
        ({"working_dir": "/no/such/folder"}, ValueError, "must be an existing directory or a supported archive"),
        ({"working_dir": 3}, TypeError, "working_dir must be a string or Path"),
        ({"py_modules": 3}, TypeError, "py_modules must be a List of local paths"),
        ({"worker_process_setup_hook": 3}, TypeError, "worker_process_setup_hook must be a function"),
    ],
    ids=str,
)
def test_a_wrong_environment_starts_nothing(env: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        miniray.init("local", num_cpus=1, runtime_env=env)
    assert not miniray.is_initialized()


def test_a_package_that_is_too_large_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniray.runtime_env.packages.MAX_SIZE", 10)
    (tmp_path / "large").write_text("x" * 20)
    with pytest.raises(RuntimeEnvSetupError, match="exceeds the maximum size"):
        miniray.init("local", num_cpus=1, runtime_env={"working_dir": str(tmp_path)})
    assert not miniray.is_initialized()


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar.gz", "broken.tar.xz"])
def test_an_archive_that_cannot_be_read_is_an_error_of_the_set_up(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    env = job_environment({"working_dir": str(tmp_path / name)})
    with pytest.raises(RuntimeEnvSetupError, match=f"Failed to upload working_dir .*{name}"):
        take_along(env, str(tmp_path))


# ---- hooks ----


def test_a_hook_runs_once_in_each_worker() -> None:
    def hook() -> None:
        os.environ["HOOKED"] = os.environ.get("HOOKED", "") + "x"

    with miniray.init("local", num_cpus=2, runtime_env={"worker_process_setup_hook": hook}):
        look = miniray.remote(variables)
        assert miniray.get([look.remote("HOOKED"), look.remote("HOOKED")]) == [["x"], ["x"]]
        assert miniray.get(look.options(runtime_env={"env_vars": {"A": "a"}}).remote("HOOKED")) == ["x"]


def test_a_hook_that_fails_ends_the_worker() -> None:
    env = {"worker_process_setup_hook": "no_such_module.function"}
    with miniray.init("local", num_cpus=1, runtime_env=env, log_to_driver=False):
        with pytest.raises(WorkerCrashedError):
            miniray.get(miniray.remote(max_retries=0)(os.getpid).remote(), timeout=TIMEOUT)

        @miniray.remote
        class Actor:
            def method(self) -> None:
                pass

        with pytest.raises(ActorDiedError, match=r"Failed to execute the setup hook method, no_such_module\.function"):
            miniray.get(Actor.remote().method.remote(), timeout=TIMEOUT)


def test_plugins_carry_out_fields_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_test.py").write_text(
        "from miniray.runtime_env.plugin import RuntimeEnvPlugin\n"
        "class Plugin(RuntimeEnvPlugin):\n"
        "    name = 'greeting'\n"
        "    @staticmethod\n"
        "    def validate(runtime_env):\n"
        "        if not isinstance(runtime_env['greeting'], str):\n"
        "            raise ValueError('a greeting is text')\n"
        "    def modify_context(self, uris, runtime_env, context, logger=None):\n"
        "        context.env_vars['GREETING'] = runtime_env['greeting']\n"
        "        context.command_prefix += ['export', 'FROM_PREFIX=yes', '&&']\n"
    )
    monkeypatch.setenv("RAY_RUNTIME_ENV_PLUGINS", '[{"class": "plugin_of_test.Plugin"}]')
    monkeypatch.syspath_prepend(str(tmp_path))
    with miniray.init("local", num_cpus=2):
        names = ("GREETING", "FROM_PREFIX")
        assert in_environment(variables, {"greeting": "hello"}, *names) == ["hello", "yes"]
        with pytest.raises(RuntimeEnvSetupError, match="a greeting is text"):
            in_environment(variables, {"greeting": 1})


def test_an_environment_that_is_gone_when_it_is_ready_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "removing_plugin.py").write_text(
        "import pathlib\n"
        "from miniray.runtime_env.plugin import RuntimeEnvPlugin\n"
        "class Plugin(RuntimeEnvPlugin):\n"
        "    name = 'removes'\n"
        "    def modify_context(self, uris, runtime_env, context, logger=None):\n"
        "        for lock in pathlib.Path(runtime_env['removes']).glob('*.lock'):\n"
        "            lock.unlink()\n"
    )
    monkeypatch.setenv("RAY_RUNTIME_ENV_PLUGINS", '[{"class": "removing_plugin.Plugin"}]')
    monkeypatch.syspath_prepend(str(tmp_path))
    with miniray.init("local", num_cpus=1), pytest.raises(RuntimeEnvSetupError, match="It is made, and cannot be used"):
        in_environment(variables, {"pip": ["# nothing"], "removes": str(cache)})


def test_nothing_is_left_when_the_session_ends_during_a_set_up(tmp_path: Path, cache: Path) -> None:
    fifo = tmp_path / "never.txt"
    os.mkfifo(fifo)
    with miniray.init("local", num_cpus=1, runtime_env={"pip": ["-r " + str(fifo)]}):
        wait_for(lambda: any(path.suffix == "" and path.is_dir() for path in cache.iterdir()))
    # The check after this module sees to the processes.
