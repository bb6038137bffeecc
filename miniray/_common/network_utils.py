"""Addresses as text, and free ports."""

from __future__ import annotations

import ipaddress
import socket


def build_address(host: str, port: int | str) -> str:
    """``host:port``; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, str] | None:
    """Host and port of ``host:port`` or ``[host]:port``; None when there is no port."""
    host, colon, port = address.rpartition(":")
    if not colon or not port or ("]" in port) or (":" in host and not host.startswith("[")):
        return None
    return host.strip("[]"), port


def is_ipv6(host: str) -> bool:
    """Whether this is an IPv6 address."""
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def is_localhost(host: str) -> bool:
    """Whether this names the machine itself."""
    return host in ("localhost", "127.0.0.1", "::1")


def get_localhost_ip() -> str:
    """The address of this machine, for itself."""
    return "127.0.0.1"


def get_all_interfaces_ip() -> str:
    """The address to listen at on all interfaces."""
    return "0.0.0.0"


def node_ip_address_from_perspective(address: str = "") -> str:
    """The address at which nodes reach each other: all are on this machine."""
    return "127.0.0.1"


def find_free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A TCP port that nobody listens at now."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
