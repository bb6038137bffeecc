"""Under Ray's name ``ray._private``: what well-known libraries and test suites take from there in practice.

In Ray these are its insides. Here they are thin views of miniray's, with the same names, so that such programs run.
"""

from __future__ import annotations

from miniray.system.lazy_names import lazy_names

#: Modules that are there without an import of their own, as in Ray, which imports them all at its start.
_MODULES = frozenset(
    {
        "async_compat",
        "auto_init_hook",
        "client_mode_hook",
        "inspect_util",
        "internal_api",
        "ray_constants",
        "services",
        "state",
        "utils",
        "worker",
    }
)

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
