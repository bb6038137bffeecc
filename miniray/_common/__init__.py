"""Under Ray's name ``ray._common``: what programs and test suites take from there in practice."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Modules that are there without an import of their own, as in Ray, which imports them all at its start.
_MODULES = frozenset({"constants", "network_utils", "ray_constants", "test_utils", "utils"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
