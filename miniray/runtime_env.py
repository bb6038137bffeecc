"""Runtime environments as data: `RuntimeEnv` and `RuntimeEnvConfig`, checked in Ray's words.

Both are dictionaries, so that a plain one does as well. Carrying them out is another part's work.

Source: https://docs.ray.io/en/latest/ray-core/handling-dependencies.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar


class RuntimeEnvConfig(dict[str, Any]):
    """How a runtime environment is set up.

    Args:
        setup_timeout_seconds: time for the set-up; -1 for no limit.
        eager_install: set up with the job, and not with its first task.
        log_files: files to which the set-up is logged.

    Raises:
        TypeError, ValueError: a value of the wrong type or range.
    """

    known_fields: ClassVar[set[str]] = {"setup_timeout_seconds", "eager_install", "log_files"}

    def __init__(
        self, setup_timeout_seconds: int = 600, eager_install: bool = True, log_files: list[str] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(setup_timeout_seconds, int):
            raise TypeError(f"setup_timeout_seconds must be of type int, got: {type(setup_timeout_seconds)}")
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(
                f"setup_timeout_seconds must be greater than zero or equals to -1, got: {setup_timeout_seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean. got {type(eager_install)}")
        if log_files is not None and not (
            isinstance(log_files, list) and all(isinstance(file, str) for file in log_files)
        ):
            raise TypeError(
                f"log_files must be a list of strings or None, got {log_files} with type {type(log_files)}."
            )
        self.update(setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install, log_files=log_files or [])

    @classmethod
    def default_config(cls) -> RuntimeEnvConfig:
        """The one that holds when none is given."""
        return cls()

    @staticmethod
    def parse_and_validate_runtime_env_config(config: dict[str, Any] | RuntimeEnvConfig) -> RuntimeEnvConfig:
        """A config from a dictionary."""
        if isinstance(config, RuntimeEnvConfig):
            return config
        if not isinstance(config, dict):
            raise TypeError(f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: {type(config)}")
        return RuntimeEnvConfig(**{key: value for key, value in config.items() if key in RuntimeEnvConfig.known_fields})

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """What the processes of a job, a task or an actor need around them. Keys are Ray's.

    Args:
        env_vars: environment variables.
        working_dir: a directory or zip file in which the processes run.
        py_modules: directories or wheels to import from.
        config: a `RuntimeEnvConfig` or a dictionary like it.
        pip, uv, conda, container, image_uri, py_executable, worker_process_setup_hook, nsight, rocprof_sys, **kwargs:
            as Ray.

    Raises:
        TypeError, ValueError: a field of the wrong type, or fields that exclude each other.
    """

    known_fields: ClassVar[set[str]] = {
        "py_modules",
        "py_executable",
        "java_jars",
        "working_dir",
        "conda",
        "pip",
        "uv",
        "container",
        "excludes",
        "env_vars",
        "config",
        "worker_process_setup_hook",
        "image_uri",
        "_nsight",
        "_rocprof_sys",
        "_ray_release",
        "_ray_commit",
        "_inject_current_ray",
    }

    def __init__(
        self,
        *,
        py_modules: list[str] | None = None,
        py_executable: str | None = None,
        working_dir: str | None = None,
        pip: list[str] | str | dict[str, Any] | None = None,
        conda: dict[str, Any] | str | None = None,
        container: dict[str, Any] | None = None,
        env_vars: dict[str, str] | None = None,
        worker_process_setup_hook: Callable[[], Any] | str | None = None,
        nsight: dict[str, str] | str | None = None,
        rocprof_sys: dict[str, Any] | str | None = None,
        config: dict[str, Any] | RuntimeEnvConfig | None = None,
        _validate: bool = True,
        image_uri: str | None = None,
        uv: list[str] | str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        given = {
            **kwargs,
            "py_modules": py_modules,
            "py_executable": py_executable,
            "working_dir": working_dir,
            "pip": pip,
            "uv": uv,
            "conda": conda,
            "_nsight": nsight,
            "_rocprof_sys": rocprof_sys,
            "container": container,
            "image_uri": image_uri,
            "env_vars": env_vars,
            "worker_process_setup_hook": worker_process_setup_hook,
            "config": config,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if _validate:
            given = check_runtime_env(given)
        self.update(given)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _check_field(name, value))

    def set(self, name: str, value: Any) -> None:
        """The same as ``env[name] = value``."""
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dict(self)

    def serialize(self) -> str:
        """JSON, the same for equal environments."""
        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> RuntimeEnv:
        """The environment that `serialize` wrote."""
        return cls(_validate=False, **json.loads(serialized_runtime_env))

    def env_vars(self) -> dict[str, str]:
        """The environment variables."""
        return dict(self.get("env_vars", {}))

    def working_dir(self) -> str:
        """The working directory, "" for none."""
        return str(self.get("working_dir", ""))

    def has_working_dir(self) -> bool:
        return bool(self.get("working_dir"))

    def py_modules(self) -> list[str]:
        """Where to import from besides."""
        return list(self.get("py_modules", []))

    def py_executable(self) -> str:
        """The command that runs Python."""
        return str(self.get("py_executable", ""))

    def has_conda(self) -> bool:
        return bool(self.get("conda"))

    def has_pip(self) -> bool:
        return bool(self.get("pip"))

    def has_uv(self) -> bool:
        return bool(self.get("uv"))


def check_runtime_env(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a runtime environment, checked.

    Raises:
        TypeError, ValueError: in Ray's words.
    """
    packages = [given.get(name) for name in ("pip", "conda", "uv")]
    if sum(bool(value) for value in packages) > 1:
        pip, conda, uv = packages
        raise ValueError(
            "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time.\n"
            f"specified pip field: {pip}\nspecified conda field: {conda}\nspecified uv field: {uv}\n"
            "To use pip with conda, please only set the 'conda'field, and specify your pip dependencies within the "
            "conda YAML config dict: see https://conda.io/projects/conda/en/latest/user-guide/tasks/manage-environments.html"
            "#create-env-file-manually"
        )
    return {name: _check_field(name, value) for name, value in given.items()}


def _check_field(name: str, value: Any) -> Any:
    check = _CHECKS.get(name)
    return value if check is None else check(value)


def _check_env_vars(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        len(value)  # Ray's error for what has no length
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}")
    for key, text in value.items():
        for what, part in (("key", key), ("value", text)):
            if not isinstance(part, str):
                raise TypeError(
                    f"runtime_env['env_vars'] must be of type Dict[str, str], but the {what} {part} is of type "
                    f"{type(part)}"
                )
    return value


def _check_working_dir(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    _check_path(value)
    return value


def _check_path(path: str) -> None:
    if "://" not in path and not os.path.exists(path):
        raise ValueError(f"{path} is not a valid path.")


def _check_py_modules(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"`py_modules` must be a list of strings, got {type(value)}.")
    for module in value:
        if isinstance(module, str):
            _check_path(module)
        elif not hasattr(module, "__path__"):  # a module is taken by its folder
            raise TypeError(f"`py_module` must be a string, got {type(module)}.")
    return value


def _check_packages(name: str, flag: str) -> Callable[[Any], dict[str, Any]]:
    def check(value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                with open(value, encoding="utf-8") as file:
                    value = file.read().splitlines()
            except OSError:
                raise ValueError(f"{value} is not a valid file")
        if isinstance(value, list) and all(isinstance(package, str) for package in value):
            return {"packages": value, flag: False}
        if isinstance(value, dict):
            return value
        raise TypeError(f"runtime_env['{name}'] must be of type str or List[str], got {type(value)}")

    return check


def _check_conda(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise TypeError(f"runtime_env['conda'] must be of type str or dict, got {type(value)}.")
    return value


def _check_excludes(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"runtime_env['excludes'] must be of type List[str], got {type(value)}")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "env_vars": _check_env_vars,
    "working_dir": _check_working_dir,
    "py_modules": _check_py_modules,
    "pip": _check_packages("pip", "pip_check"),
    "uv": _check_packages("uv", "uv_check"),
    "conda": _check_conda,
    "excludes": _check_excludes,
    "config": RuntimeEnvConfig.parse_and_validate_runtime_env_config,
}
