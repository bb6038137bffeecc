"""Under Ray's name ``ray._private.services``: addresses, and what Ray says of its processes."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import miniray
from miniray._common.network_utils import is_localhost, parse_address
from miniray._private.absent import absent_functions
from miniray.system import session
from miniray.util.node_ip import get_node_instance_id, get_node_ip_address

__all__ = ["ProcessInfo", "find_gcs_addresses", "get_node_instance_id", "get_node_ip_address"]

RAY_PATH = os.path.dirname(os.path.abspath(miniray.__file__))
RAY_HOME = os.path.dirname(RAY_PATH)


class ProcessInfo(NamedTuple):
    """A process of a node."""

    process: Any
    stdout_file: str | None = None
    stderr_file: str | None = None
    use_valgrind: bool = False
    use_gdb: bool = False
    use_valgrind_profiler: bool = False
    use_perftools_profiler: bool = False
    use_tmux: bool = False


def find_gcs_addresses() -> frozenset[str]:
    """The addresses of this user's sessions that can be joined."""
    return frozenset(info.gcs_address for info in session.running_sessions() if not info.private)


def find_bootstrap_address(temp_dir: str | None) -> str | None:
    """The address of the newest session that can be joined."""
    try:
        info = session.find_session("auto")
    except ConnectionError:
        return None
    return None if info is None else info.gcs_address


def canonicalize_bootstrap_address(addr: str | None, temp_dir: str | None = None) -> str | None:
    """An address as `init` writes it: "auto" is looked up, None for "local"."""
    if addr is None or addr == "auto":
        return os.environ.get("RAY_ADDRESS") or find_bootstrap_address(temp_dir)
    if addr == "local":
        return None
    parts = parse_address(addr)
    return addr if parts is None else f"{resolve_ip_for_localhost(parts[0])}:{parts[1]}"


def canonicalize_bootstrap_address_or_die(addr: str | None, temp_dir: str | None = None) -> str:
    """The same; ConnectionError when there is none."""
    address = canonicalize_bootstrap_address(addr, temp_dir)
    if address is None:
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to.")
    return address


def resolve_ip_for_localhost(host: str) -> str:
    """The node's address for a name of this machine; others as they are."""
    return get_node_ip_address() if is_localhost(host) else host


def extract_ip_port(bootstrap_address: str) -> tuple[str, int]:
    """Host and port of an address.

    Raises:
        ValueError: there is no port, or it is out of range.
    """
    parts = parse_address(bootstrap_address)
    if parts is None:
        raise ValueError(f"Malformed address {bootstrap_address}. Expected '<host>:<port>'.")
    try:
        port = int(parts[1])
    except ValueError:
        raise ValueError(f"Malformed address port {parts[1]}. Must be an integer.")
    if not 1024 <= port <= 65535:
        raise ValueError(f"Invalid address port {port}. Must be between 1024 and 65535 (inclusive).")
    return parts[0], port


def remaining_processes_alive() -> bool:
    """Whether the session of this process lives."""
    return miniray.is_initialized()


def get_webui_url_from_internal_kv() -> str | None:
    """Where the dashboard is."""
    from miniray._private.worker import get_dashboard_url

    return get_dashboard_url() or None


__getattr__ = absent_functions(
    "ray._private.services",
    "start_ray_process start_gcs_server start_raylet start_api_server start_log_monitor start_monitor "
    "start_ray_client_server start_reaper create_redis_client wait_for_node get_node get_node_to_connect_for_driver "
    "get_ray_jars_dir",
)
