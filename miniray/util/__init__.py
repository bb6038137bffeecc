"""Row 5: what stands on the public API alone, under the names of `ray.util`. Each part is loaded when it is first
asked for.
"""

# Not `from __future__ import annotations`: that name is a module of this package.
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from miniray.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from miniray.util.actor_pool import ActorPool
    from miniray.util.check_serialize import inspect_serializability
    from miniray.util.client_connect import connect, disconnect
    from miniray.util.completion import as_completed, map_unordered
    from miniray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
    from miniray.util.named_actors import list_named_actors
    from miniray.util.node_ip import get_node_instance_id, get_node_ip_address
    from miniray.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from miniray.util.serialization import deregister_serializer, register_serializer

#: Where each name is.
_HOME = {
    "ActorPool": "actor_pool",
    "as_completed": "completion",
    "connect": "client_connect",
    "deregister_serializer": "serialization",
    "disconnect": "client_connect",
    "disable_log_once_globally": "debug",
    "enable_periodic_logging": "debug",
    "get_node_instance_id": "node_ip",
    "get_current_placement_group": "placement_group",
    "get_node_ip_address": "node_ip",
    "get_placement_group": "placement_group",
    "inspect_serializability": "check_serialize",
    "list_named_actors": "named_actors",
    "log_once": "debug",
    "map_unordered": "completion",
    "placement_group": "placement_group",
    "placement_group_table": "placement_group",
    "register_serializer": "serialization",
    "remove_placement_group": "placement_group",
}
#: Modules that are there without an import of their own, as in Ray, where `ray.util` has imported them.
_MODULES = frozenset(
    {
        "actor_pool",
        "annotations",
        "check_serialize",
        "client",
        "client_connect",
        "debug",
        "helpers",
        "scheduling_strategies",
        "serialization",
    }
)

__all__ = [
    "ActorPool",
    "as_completed",
    "connect",
    "deregister_serializer",
    "disable_log_once_globally",
    "disconnect",
    "enable_periodic_logging",
    "get_node_instance_id",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES, _HOME)


class _Package(ModuleType):
    """`util.placement_group` is the function, as in Ray, also after the module of that name was imported: the import
    would put the module there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "placement_group" and isinstance(value, ModuleType):
            value = value.placement_group
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # cloudpickle knows modules by their exact type.
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package
