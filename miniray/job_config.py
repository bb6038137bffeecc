"""`JobConfig`: what a driver says about its job, for `init(job_config=...)`.

Source: https://docs.ray.io/en/latest/ray-core/configure.html
"""

from __future__ import annotations

from typing import Any

_LIFETIMES = ("non_detached", "detached")


class JobConfig:
    """The configuration of a job.

    Args:
        code_search_path: directories from which workers import, before all others.
        runtime_env: the runtime environment of all tasks and actors of the job.
        metadata: text about the job, by name.
        ray_namespace: where the job's named actors live.
        default_actor_lifetime: "non_detached" or "detached".
        jvm_options: kept, and without effect here.

    Raises:
        TypeError: the search path is no list.
        ValueError: no such lifetime.
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        _client_job: bool = False,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        _disable_job_level_lineage_reconstruction: bool = False,
        _py_driver_sys_path: list[str] | None = None,
    ) -> None:
        self.jvm_options = jvm_options or []
        self.code_search_path = code_search_path or []
        if not isinstance(self.code_search_path, (list, tuple)):
            raise TypeError(f"The type of code search path is incorrect: {type(code_search_path)}")
        self._client_job = _client_job
        self.metadata = metadata or {}
        self.ray_namespace = ray_namespace
        self._disable_job_level_lineage_reconstruction = _disable_job_level_lineage_reconstruction
        self._py_driver_sys_path = _py_driver_sys_path or []
        self.py_logging_config: Any = None
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)

    def set_metadata(self, key: str, value: str) -> None:
        """Add an entry to the metadata."""
        self.metadata[key] = value

    def set_runtime_env(self, runtime_env: dict[str, Any] | None, validate: bool = False) -> None:
        """Replace the runtime environment; `validate` checks it first."""
        self.runtime_env: dict[str, Any] = runtime_env or {}
        if validate and runtime_env:
            from miniray.runtime_env import RuntimeEnv  # few jobs have one

            self.runtime_env = RuntimeEnv(**runtime_env)

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Replace the namespace."""
        self.ray_namespace = ray_namespace

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Replace the lifetime that actors have when they do not say."""
        if default_actor_lifetime not in _LIFETIMES:
            raise ValueError("Default actor lifetime must be one of `detached`, `non_detached`")
        self.default_actor_lifetime = default_actor_lifetime

    def set_py_logging_config(self, logging_config: Any = None) -> None:
        """Replace the logging configuration of the job's processes (a `LoggingConfig`)."""
        self.py_logging_config = logging_config

    @classmethod
    def from_json(cls, job_config_json: dict[str, Any]) -> JobConfig:
        """The configuration that these data describe; keys are the parameters of `JobConfig`."""
        get = job_config_json.get
        return cls(
            jvm_options=get("jvm_options"),
            code_search_path=get("code_search_path"),
            runtime_env=get("runtime_env"),
            metadata=get("metadata"),
            ray_namespace=get("ray_namespace"),
            # What is neither is the default, as in Ray.
            default_actor_lifetime="detached" if get("default_actor_lifetime") == "detached" else "non_detached",
            _client_job=get("client_job", False),
            _py_driver_sys_path=get("py_driver_sys_path"),
        )
