"""The base of plugins, where Ray has it."""

from __future__ import annotations

from miniray.runtime_env.plugin import RuntimeEnvPlugin as RuntimeEnvPlugin
