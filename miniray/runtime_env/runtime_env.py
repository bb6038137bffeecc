"""`RuntimeEnv` and `RuntimeEnvConfig`: a runtime environment as data, checked in Ray's words.

Both are dictionaries, so that a plain one does as well. How one is carried out stands in
docs/protocols/runtime-environments.md.

Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_env.RuntimeEnv.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

from miniray.runtime_env.fields import CHECKS
from miniray.system import user_log
from miniray.version import __version__

#: seconds
DEFAULT_SETUP_TIMEOUT = 600


class RuntimeEnvConfig(dict[str, Any]):
    """How a runtime environment is set up.

    Args:
        setup_timeout_seconds: time for the set-up; -1 for no limit.
        eager_install: set up with the job, and not with its first task.
        log_files: kept, and without effect here.

    Raises:
        TypeError, ValueError: a value of the wrong type or range.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_env.RuntimeEnvConfig.html
    """

    known_fields: ClassVar[set[str]] = {"setup_timeout_seconds", "eager_install", "log_files"}

    def __init__(
        self,
        setup_timeout_seconds: int = DEFAULT_SETUP_TIMEOUT,
        eager_install: bool = True,
        log_files: list[str] | None = None,
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
        if log_files is not None and not isinstance(log_files, list):
            raise TypeError(
                f"log_files must be a list of strings or None, got {log_files} with type {type(log_files)}."
            )
        if not all(isinstance(file, str) for file in log_files or ()):
            raise TypeError("Each item in log_files must be a string.")
        self.update(setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install, log_files=log_files or [])

    @classmethod
    def default_config(cls) -> RuntimeEnvConfig:
        """The one that holds when none is given."""
        return cls()

    @staticmethod
    def parse_and_validate_runtime_env_config(config: dict[str, Any] | RuntimeEnvConfig) -> RuntimeEnvConfig:
        """A config from a dictionary; unknown keys are warned about.

        Raises:
            TypeError, ValueError: as the constructor.
        """
        if isinstance(config, RuntimeEnvConfig):
            return config
        if not isinstance(config, dict):
            raise TypeError(f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: {type(config)}")
        unknown = set(config) - RuntimeEnvConfig.known_fields
        if unknown:
            user_log.say(
                user_log.WARNING,
                f"The following unknown entries in the runtime_env_config dictionary will be ignored: {unknown}.",
            )
        return RuntimeEnvConfig(**{key: value for key, value in config.items() if key not in unknown})

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dict(deepcopy(self))


class RuntimeEnv(dict[str, Any]):
    """What the processes of a job, a task or an actor need around them. Keys are Ray's.

    Args:
        env_vars: environment variables; ``${NAME}`` in a value is what the variable was before, "" for none.
        working_dir: directory, archive or URI of one, in whose copy the processes run.
        py_modules: directories, wheels or URIs to import from.
        excludes: patterns, as of a ``.gitignore``, of files that `working_dir` and `py_modules` leave out.
        pip, uv: packages (a list, a requirements file, or a dictionary) for a virtual environment of their own.
        py_executable: the command that runs Python.
        worker_process_setup_hook: function, or the import path of one, that each worker calls first.
        config: a `RuntimeEnvConfig` or a dictionary like it.
        conda, container, image_uri, nsight, rocprof_sys: checked as in Ray, and not supported here: what asks for
            them fails with `RuntimeEnvSetupError`.
        **kwargs: the fields of plugins.

    Raises:
        TypeError, ValueError: a field of the wrong type, or fields that exclude each other.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_env.RuntimeEnv.html
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
        "_ray_release",
        "_ray_commit",
        "_inject_current_ray",
        "config",
        "worker_process_setup_hook",
        "_nsight",
        "_rocprof_sys",
        "image_uri",
    }
    extensions_fields: ClassVar[set[str]] = {"_ray_release", "_ray_commit", "_inject_current_ray"}

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
        given = {
            **kwargs,
            "py_modules": py_modules,
            "working_dir": working_dir,
            "py_executable": py_executable,
            "conda": conda,
            "pip": pip,
            "uv": uv,
            "_nsight": nsight if nsight is not None else kwargs.get("_nsight"),
            "_rocprof_sys": rocprof_sys if rocprof_sys is not None else kwargs.get("_rocprof_sys"),
            "container": container,
            "env_vars": env_vars,
            "config": config,
            "worker_process_setup_hook": worker_process_setup_hook,
            "image_uri": image_uri,
        }
        super().__init__((name, value) for name, value in given.items() if value is not None)
        if not _validate:
            return
        self._check_together()
        for name in (*CHECKS, "config"):
            value = self.pop(name, None)
            if value is not None:
                self[name] = value
        if "_ray_commit" not in self and ("pip" in self or "conda" in self):
            super().__setitem__("_ray_commit", f"miniray-{__version__}")

    def _check_together(self) -> None:
        pip, conda, uv = self.get("pip"), self.get("conda"), self.get("uv")
        if sum(value is not None for value in (pip, conda, uv)) > 1:
            raise ValueError(
                "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time.\n"
                f"specified pip field: {pip}\nspecified conda field: {conda}\nspecified uv field: {uv}\n"
                "To use pip with conda, please only set the 'conda'field, and specify your pip dependencies within the "
                "conda YAML config dict: see https://conda.io/projects/conda/en/latest/user-guide/tasks/"
                "manage-environments.html#create-env-file-manually"
            )
        for name in ("container", "image_uri"):
            others = set(self) - {name, "config", "env_vars"}
            if self.get(name) and others:
                raise ValueError(
                    f"The '{name}' field currently cannot be used together with other fields of runtime_env. "
                    f"Specified fields: {others}"
                )

    def __setitem__(self, name: str, value: Any) -> None:
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if name == "config":
            value = RuntimeEnvConfig.parse_and_validate_runtime_env_config(value)
        elif name in CHECKS:
            value = CHECKS[name](value)
        if value is not None:
            super().__setitem__(name, value)

    def set(self, name: str, value: Any) -> None:
        """The same as ``env[name] = value``: the value is checked, a dataclass becomes a dictionary."""
        self[name] = value

    def get(self, name: str, default: Any = None, data_class: type | None = None) -> Any:
        """A field; with `data_class` as an instance of that dataclass."""
        if name not in self:
            return default
        value = self[name]
        return value if data_class is None else _instance(data_class, value)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        plain = dict(deepcopy(self))
        if plain.get("config"):
            plain["config"] = dict(plain["config"])
        return plain

    def serialize(self) -> str:
        """JSON, the same for equal environments."""
        return json.dumps(type(self)(**self), sort_keys=True)

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> RuntimeEnv:
        """The environment that `serialize` wrote."""
        return cls(_validate=False, **json.loads(serialized_runtime_env))

    # -- fields --------------------------------------------------------------------------------------------------------

    def env_vars(self) -> dict[str, str]:
        """The environment variables."""
        return self.get("env_vars", {})  # type: ignore[no-any-return]

    def has_working_dir(self) -> bool:
        return self.get("working_dir") is not None

    def working_dir(self) -> str:
        """The working directory, "" for none."""
        return self.get("working_dir", "")  # type: ignore[no-any-return]

    def working_dir_uri(self) -> str | None:
        return self.get("working_dir")  # type: ignore[no-any-return]

    def py_modules(self) -> list[str]:
        """Where to import from besides."""
        return list(self.get("py_modules", []))

    def py_modules_uris(self) -> list[str]:
        return self.py_modules()

    def py_executable(self) -> str | None:
        """The command that runs Python."""
        return self.get("py_executable")  # type: ignore[no-any-return]

    def java_jars(self) -> list[str]:
        return list(self.get("java_jars", []))

    def nsight(self) -> Any:
        return self.get("_nsight")

    def rocprof_sys(self) -> Any:
        return self.get("_rocprof_sys")

    def image_uri(self) -> str | None:
        return self.get("image_uri")  # type: ignore[no-any-return]

    def has_conda(self) -> bool:
        return bool(self.get("conda"))

    def conda_env_name(self) -> str | None:
        return self._text("conda")

    def conda_config(self) -> str | None:
        """What conda is to install, as JSON."""
        return json.dumps(self["conda"], sort_keys=True) if isinstance(self.get("conda"), dict) else None

    def conda_uri(self) -> str | None:
        return self._uri("conda")

    def has_pip(self) -> bool:
        return bool(self.get("pip"))

    def pip_config(self) -> dict[str, Any]:
        """What pip is to install, checked."""
        return self._packages("pip")

    def pip_uri(self) -> str | None:
        return self._uri("pip")

    def virtualenv_name(self) -> str | None:
        return self._text("pip")

    def has_uv(self) -> bool:
        return bool(self.get("uv"))

    def uv_config(self) -> dict[str, Any]:
        """What uv is to install, checked."""
        return self._packages("uv")

    def uv_uri(self) -> str | None:
        return self._uri("uv")

    def has_py_container(self) -> bool:
        return bool(self.get("container"))

    def py_container_image(self) -> str | None:
        return self._of_container("image", "")  # type: ignore[no-any-return]

    def py_container_worker_path(self) -> str | None:
        return self._of_container("worker_path", "")  # type: ignore[no-any-return]

    def py_container_run_options(self) -> list[str] | None:
        return self._of_container("run_options", [])  # type: ignore[no-any-return]

    def get_extension(self, key: str) -> str | None:
        """One of Ray's own fields.

        Raises:
            ValueError: there is no such one.
        """
        if key not in RuntimeEnv.extensions_fields:
            raise ValueError(f"Extension key must be one of {RuntimeEnv.extensions_fields}, got: {key}")
        return self.get(key)  # type: ignore[no-any-return]

    def plugins(self) -> list[tuple[str, Any]]:
        """The fields that plugins carry out."""
        return [(name, value) for name, value in self.items() if name not in self.known_fields]

    def plugin_uris(self) -> list[str]:
        return []

    def _text(self, name: str) -> str | None:
        value = self.get(name)
        return value if isinstance(value, str) else None

    def _packages(self, name: str) -> dict[str, Any]:
        if not isinstance(self.get(name), dict):
            return {}
        self[name] = self[name]
        return self[name]  # type: ignore[no-any-return]

    def _uri(self, name: str) -> str | None:
        value = self.get(name)
        if not isinstance(value, dict):
            return None
        text = json.dumps(value, sort_keys=True)
        return f"{name}://{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}"

    def _of_container(self, name: str, default: Any) -> Any:
        return self["container"].get(name, default) if self.has_py_container() else None


def _instance(data_class: type, value: Any) -> Any:
    """A dataclass, and those inside it, from dictionaries."""
    from dataclasses import fields  # only for plugins
    from typing import get_type_hints

    if not is_dataclass(data_class) or not isinstance(value, dict):
        return value
    hints = get_type_hints(data_class)
    names = {field.name for field in fields(data_class)}
    return data_class(**{name: _instance(hints[name], part) for name, part in value.items() if name in names})
