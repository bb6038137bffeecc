"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from miniray.system.machine import processor_name


def describe() -> dict[str, str]:
    """Property -> text, in the order of the page."""
    memory = _first_value("/proc/meminfo", "MemTotal")
    return {
        "CPU": f"{processor_name()}, {_cores()} cores",
        "memory": f"{int(memory.split()[0]) / 1e6:.0f} GB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before the run": f"{os.getloadavg()[0]:.1f} (average of a minute)" if hasattr(os, "getloadavg") else "?",
        "packages": ", ".join(f"{name} {found}" for name, found in _versions()),
    }


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _first_value(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in ("pyzmq", "msgspec", "cloudpickle", "psutil", "numpy"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            pass
    import zmq

    return [*found, ("libzmq", zmq.zmq_version())]
