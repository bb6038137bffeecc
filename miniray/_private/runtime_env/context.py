"""What plugins change, where Ray has it."""

from __future__ import annotations

from miniray.runtime_env.plugin import RuntimeEnvContext as RuntimeEnvContext
