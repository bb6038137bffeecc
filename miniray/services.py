"""``ray.services``: the old name of ``ray._private.services``, which some libraries still use."""

from miniray._private.services import find_gcs_addresses, get_node_instance_id, get_node_ip_address

__all__ = ["find_gcs_addresses", "get_node_instance_id", "get_node_ip_address"]
