"""Under Ray's name ``ray._common``: what programs and test suites take from there in practice."""

from __future__ import annotations

from miniray.system.lazy_names import lazy_names

#: Modules that are there without an import of their own, as in Ray, which imports them all at its start.
_MODULES = frozenset({"constants", "network_utils", "ray_constants", "test_utils", "utils"})

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
