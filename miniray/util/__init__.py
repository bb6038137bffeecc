"""Row 5: what stands on the public API alone, under the names of `ray.util`."""

from miniray.util.check_serialize import inspect_serializability
from miniray.util.node_ip import get_node_ip_address
from miniray.util.serialization import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "get_node_ip_address", "inspect_serializability", "register_serializer"]
