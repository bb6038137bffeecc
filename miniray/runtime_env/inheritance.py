"""Which runtime environment a task or an actor has: its own on top of the one of whoever submits it.

The submitter's holds the job's already. A field replaces the inherited one of that name; environment variables are
merged one by one. An environment travels as JSON, and equal texts are equal environments: workers are used again by
what has the same text.
"""

from __future__ import annotations

import json
from typing import Any

from miniray.runtime_env.fields import check_no_local_paths
from miniray.runtime_env.runtime_env import RuntimeEnv


def own_environment(given: dict[str, Any]) -> RuntimeEnv:
    """The option `runtime_env` of a task or an actor, checked.

    Raises:
        TypeError, ValueError: as `RuntimeEnv`; a local directory, which only a job can take along.
    """
    env = given if isinstance(given, RuntimeEnv) else RuntimeEnv(**given)
    check_no_local_paths(env)
    return env


def combined(inherited: str, own: RuntimeEnv) -> str:
    """The environment of a call, as it travels.

    Args:
        inherited: that of the submitter, "" for none.

    Raises:
        TypeError: a field that is no plain data.
    """
    if not inherited:
        return json.dumps(RuntimeEnv(**own), sort_keys=True)
    merged: dict[str, Any] = json.loads(inherited)
    variables = {**merged.get("env_vars", {}), **own.env_vars()}
    merged.update(RuntimeEnv(**own))  # checked twice, as in Ray: uv has other options then
    if variables:
        merged["env_vars"] = variables
    return json.dumps(merged, sort_keys=True, separators=(",", ":"))  # Ray writes this one without spaces
