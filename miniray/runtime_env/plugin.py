"""Plugins: fields of a runtime environment that users carry out themselves.

``RAY_RUNTIME_ENV_PLUGINS`` names their classes: ``[{"class": "module.Class", "priority": 5}]``. The head reads it, and
each plugin runs in the set-up process of an environment that has its field.

Source: https://docs.ray.io/en/latest/ray-core/runtime_env_auth.html and the docstrings of Ray's plugin module.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import shlex
from typing import Any

import msgspec

from miniray.messages.startup import EnvironmentPlan
from miniray.processes.environment_plan import plugins_named
from miniray.runtime_env.runtime_env import RuntimeEnv
from miniray.system.virtual_environment import SetUpError

DEFAULT_PRIORITY = 10
_LOGGER = logging.getLogger("miniray.runtime_env")


class RuntimeEnvContext:
    """How workers will be started; plugins change it.

    Attributes:
        command_prefix: words of a shell command that runs before Python.
        env_vars: environment variables.
        py_executable: the command that runs Python.
        override_worker_entrypoint, java_jars: kept, and without effect here.
    """

    def __init__(
        self,
        command_prefix: list[str] | None = None,
        env_vars: dict[str, str] | None = None,
        py_executable: str | None = None,
        override_worker_entrypoint: str | None = None,
        java_jars: list[str] | None = None,
    ) -> None:
        self.command_prefix = command_prefix or []
        self.env_vars = env_vars or {}
        self.py_executable = py_executable or _this_python()
        self.override_worker_entrypoint = override_worker_entrypoint
        self.java_jars = java_jars or []


class RuntimeEnvPlugin:
    """The base of plugins.

    Attributes:
        name: the field that this plugin carries out.
        priority: 0 to 100; those with small numbers come first.
    """

    name: str = ""
    priority: int = DEFAULT_PRIORITY

    @staticmethod
    def validate(runtime_env: dict[str, Any]) -> None:
        """Raise an error if the field is wrong."""

    def get_uris(self, runtime_env: RuntimeEnv) -> list[str]:
        """What `create` is to make, by URI."""
        return []

    async def create(
        self, uri: str | None, runtime_env: RuntimeEnv, context: RuntimeEnvContext, logger: logging.Logger = _LOGGER
    ) -> float:
        """Make it; bytes on disk."""
        return 0

    def modify_context(
        self, uris: list[str], runtime_env: RuntimeEnv, context: RuntimeEnvContext, logger: logging.Logger = _LOGGER
    ) -> None:
        """Change how workers are started."""

    def delete_uri(self, uri: str, logger: logging.Logger = _LOGGER) -> float:
        """Remove what `create` has made; bytes. Not called here: a session's files end with it."""
        return 0


def ask_plugins(plan: EnvironmentPlan, fields: dict[str, Any]) -> EnvironmentPlan:
    """The plan after all plugins whose field is there.

    Raises:
        SetUpError: a plugin cannot be loaded.
        whatever a plugin raises.
    """
    env = RuntimeEnv(_validate=False, **fields)
    context = RuntimeEnvContext(env_vars=dict(plan.env), py_executable=plan.command)
    before = context.py_executable
    for plugin in _plugins():
        if plugin.name in env:
            plugin.validate(env)
            uris = plugin.get_uris(env)
            for uri in uris or [None]:
                asyncio.run(plugin.create(uri, env, context, logger=_LOGGER))
            plugin.modify_context(uris, env, context, logger=_LOGGER)
    changed = context.command_prefix or context.py_executable != before
    return msgspec.structs.replace(
        plan,
        env=context.env_vars,
        prefix=" ".join(context.command_prefix),
        command=context.py_executable if changed else plan.command,
    )


def _plugins() -> list[Any]:
    plugins = []
    for entry in json.loads(plugins_named()):
        module, _, name = entry["class"].rpartition(".")
        try:
            plugin = getattr(importlib.import_module(module), name)()
        except Exception as error:
            raise SetUpError(f"The runtime environment plugin {entry['class']} cannot be loaded: {error!r}") from error
        plugins.append((entry.get("priority", plugin.priority), plugin))
    return [plugin for _, plugin in sorted(plugins, key=lambda pair: pair[0])]


def _this_python() -> str:
    import sys  # not when there is a Python of its own

    return shlex.quote(sys.executable)
