"""Ray's experimental modules, as far as they stand on tasks, actors and objects.

What is meant for GPUs and several machines (tensor transports, compiled graphs' channels) is not here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniray.experimental.dynamic_resources import set_resource
    from miniray.experimental.locations import get_local_object_locations, get_object_locations

_HOME = {
    "get_local_object_locations": "locations",
    "get_object_locations": "locations",
    "set_resource": "dynamic_resources",
}
_MODULES = frozenset({"dynamic_resources", "internal_kv", "locations", "tqdm_ray"})

__all__ = ["get_local_object_locations", "get_object_locations", "set_resource"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
