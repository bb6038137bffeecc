"""How much memory is in use: of the machine or of the container, whichever is smaller, and of single processes.

`MINIRAY_MEMORY_READING` names a file with two numbers, used and total bytes, that are taken instead of the machine's:
for tests of what happens when it runs out.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_V2 = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file "
_V1_ROOT = "/sys/fs/cgroup/memory/"
_V1 = (
    _V1_ROOT + "memory.limit_in_bytes",
    _V1_ROOT + "memory.usage_in_bytes",
    _V1_ROOT + "memory.stat",
    "total_inactive_file ",
)


class Usage(NamedTuple):
    """Bytes in use, and bytes there are."""

    used: int
    total: int


class User(NamedTuple):
    """A process, its memory in bytes (what it does not share with others), and its command."""

    pid: int
    used: int
    command: str


def memory_usage() -> Usage:
    """What is in use now. (0, 0) where it cannot be told."""
    reading = os.environ.get("MINIRAY_MEMORY_READING")
    if reading:
        try:
            with open(reading, encoding="ascii") as file:
                used, total = map(int, file.read().split())
            return Usage(used, total)
        except (OSError, ValueError):
            return Usage(0, 0)
    usage = _machine()
    for files in (_V2, _V1):
        container = _container(*files)
        if container is not None and 0 < container.total < usage.total:
            return container
    return usage


def _machine() -> Usage:
    total = available = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    total = int(line.split()[1]) * 1024
                elif line.startswith("MemAvailable:"):
                    available = int(line.split()[1]) * 1024
                    break
    except (OSError, ValueError):
        import psutil  # elsewhere than on Linux

        memory = psutil.virtual_memory()
        total, available = memory.total, memory.available
    return Usage(total - available, total)


def _container(limit_file: str, usage_file: str, stat_file: str, cache: str) -> Usage | None:
    """Of the control group; files that the kernel can drop do not count."""
    try:
        with open(limit_file, encoding="ascii") as file:
            limit = int(file.read())
        with open(usage_file, encoding="ascii") as file:
            used = int(file.read())
        with open(stat_file, encoding="ascii") as file:
            for line in file:
                if line.startswith(cache):
                    used -= int(line.split()[1])
                    break
    except (OSError, ValueError):
        return None
    return Usage(max(0, used), limit)


def used_by(pid: int) -> int:
    """Bytes of a process that it does not share, 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def largest_users(count: int) -> list[User]:
    """The processes with the most memory, the largest first."""
    users = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        used = used_by(pid)
        if used:
            users.append((used, pid))
    return [User(pid, used, _command(pid)) for used, pid in sorted(users, reverse=True)[:count]]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return text if len(text) <= 100 else text[:100] + "..."
