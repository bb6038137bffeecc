"""Ray's experimental modules, as far as they stand on tasks, actors and objects.

What is meant for GPUs and several machines (tensor transports, compiled graphs' channels) is not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniray.system.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES, _HOME)
