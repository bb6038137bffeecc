"""``miniray status``: what runs, what it has, and what is wanted."""

from __future__ import annotations

import argparse
import json
from typing import Any

from miniray.processes.control_client import ControlClient
from miniray.system import session

_BYTES = ("memory", "object_store_memory")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("status", help="show nodes, resources and demands of the running head")
    parser.add_argument("--address", help="which session (default: RAY_ADDRESS, else the newest shared one)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    address = given.address or session.environment_address()[1] or "auto"
    info = session.find_session(address)
    if info is None:
        raise ConnectionError(f"there is no session at {address!r}")
    with ControlClient(info) as client:
        status = client.query("status")
        status["node_rows"] = client.query("nodes")
        status["available_per_node"] = client.query("available_resources_per_node")
    print(json.dumps(status, indent=2) if given.format == "json" else as_text(status))
    return 0


def as_text(status: dict[str, Any]) -> str:
    """The table."""
    lines = [
        f"Session {status['session_name']} at {status['address']} (miniray {status['version']})",
        f"  head process {status['pid']}, up {_duration(status['uptime_s'])}, files in {status['session_dir']}",
        f"  {_count(status['drivers'], 'driver')}, {_count(status['workers'], 'worker process', 'es')}, "
        f"{_count(status['leases'], 'lease')}",
        "",
        "Nodes",
    ]
    for row in status["node_rows"]:
        state = "alive" if row["Alive"] else f"dead ({row['DeathReasonMessage']})"
        lines.append(f"  {row['NodeID'][:12]}  {row['NodeName']:<16} {state}")
        available = status["available_per_node"].get(row["NodeID"], {})
        for name, total in sorted(row["Resources"].items()):
            if not name.startswith("node:"):
                used = total - available.get(name, 0.0)
                lines.append(f"      {_quantity(name, used):>10} / {_quantity(name, total):<10} {name}")
    lines += ["", "Object store"]
    for node_id, account in status["object_store"].items():
        lines.append(f"  {node_id[:12]}  {_size(account['used'])} reserved of {_size(account['limit'])}")
    lines += ["", "Demands"]
    for demand in status["demands"]:
        name = f"  {demand['name']}" if demand["name"] else ""
        lines.append(f"  {demand['resources']}: {demand['count']} waiting{name}")
    for group in status["pending_groups"]:
        name = f" ({group['name']})" if group["name"] else ""
        lines.append(f"  placement group{name}: {group['strategy']} of {group['bundles']}: {group['state']}")
    if not status["demands"] and not status["pending_groups"]:
        lines.append("  (none)")
    return "\n".join(lines)


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _quantity(name: str, value: float) -> str:
    return _size(value) if name in _BYTES else f"{value:g}"


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
