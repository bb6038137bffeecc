"""From a runtime environment to how its workers are started: the parts that need no work.

The fields are those of `miniray.runtime_env.RuntimeEnv`, as plain data.
"""

from __future__ import annotations

import os
from typing import Any

from miniray.messages.startup import EnvironmentPlan
from miniray.system.package_store import PackageStore

CONFIGURATION = "config"
PACKAGES = {"working_dir", "py_modules"}
#: what Ray can do, and miniray does not
UNSUPPORTED = {
    "conda": "conda environments",
    "container": "containers",
    "image_uri": "containers",
    "_nsight": "nsight profiles",
    "_rocprof_sys": "rocprof-sys profiles",
}


INTERPRETERS = ("pip", "uv", "py_executable")
_KNOWN = {
    "env_vars",
    CONFIGURATION,
    "worker_process_setup_hook",
    "excludes",
    "java_jars",
    "_ray_commit",
    "_ray_release",
    "_inject_current_ray",
    *PACKAGES,
    *UNSUPPORTED,
    *INTERPRETERS,
}


def immediate_plan(fields: dict[str, Any], store: PackageStore) -> EnvironmentPlan | None:
    """The plan of an environment that needs no set-up; None: it needs one."""
    for name, what in UNSUPPORTED.items():
        if fields.get(name):
            shown = name.lstrip("_")
            return EnvironmentPlan(
                error=f"{shown}: {what} are not supported by miniray. Run this program on Ray, or leave the field "
                f"'{shown}' of its runtime_env out."
            )
    if any(fields.get(name) for name in INTERPRETERS) or (plugins_named() and not fields.keys() <= _KNOWN):
        return None
    if any(not store.has(uri, kind) for uri, kind in packages_of(fields)):
        return None
    return plan_of(fields, store)


def plan_of(fields: dict[str, Any], store: PackageStore) -> EnvironmentPlan:
    """The plan once all packages are there, but for the interpreter."""
    paths = {kind: [store.path(uri, kind) for uri, of in packages_of(fields) if of == kind] for kind in PACKAGES}
    working_dir = paths["working_dir"][0] if paths["working_dir"] else ""
    return EnvironmentPlan(
        env=dict(fields.get("env_vars") or {}),
        working_dir=working_dir,
        import_path=[*paths["py_modules"], *paths["working_dir"]],
    )


def packages_of(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """The packages of an environment: URI, and "working_dir" or "py_modules"."""
    packages = [(uri, "py_modules") for uri in fields.get("py_modules") or ()]
    working_dir = fields.get("working_dir")
    return [(working_dir, "working_dir"), *packages] if working_dir else packages


def plugins_named() -> str:
    """What ``RAY_RUNTIME_ENV_PLUGINS`` says: JSON, "" for none."""
    return os.environ.get("RAY_RUNTIME_ENV_PLUGINS", "")
