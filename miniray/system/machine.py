"""What this machine offers: CPUs and memory, within the limits of the container.

psutil would tell as well, but its import costs the head 10 ms of every `init`.
"""

from __future__ import annotations

import os

_GIB = 1 << 30
#: Ray's shares: 30 % of the free memory for objects (at most 200 GB, and what /dev/shm holds), the rest for tasks
_STORE_SHARE = 0.3
_STORE_MOST = 200 * 10**9
_SHM_SHARE = 0.95
_LEAST_FOR_TASKS = 100 * 10**6
_LEAST_SHARE_FOR_TASKS = 0.05


def cpu_count() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container rounded up."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        count = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return count


def processor_name() -> str:
    """What the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform  # elsewhere than on Linux

    return platform.processor() or platform.machine()


def free_memory() -> int:
    """Bytes that can be used without swapping, within the limit of the container."""
    free = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    free = int(line.split()[1]) * 1024
                    break
    except (OSError, ValueError):
        pass
    if not free:
        try:
            import psutil  # elsewhere than on Linux

            free = int(psutil.virtual_memory().available)
        except Exception:
            free = 4 * _GIB
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            free = min(free, max(0, limit - int(file.read())))
    except (OSError, ValueError):
        pass
    return free


def check_memory(object_store_memory: int) -> None:
    """ValueError, in Ray's words, for an object store that leaves next to nothing of the memory to tasks."""
    free = free_memory()
    left = free - object_store_memory
    if left < _LEAST_FOR_TASKS and left < _LEAST_SHARE_FOR_TASKS * free:
        raise ValueError(
            "After taking into account object store and redis memory usage, the amount of memory on this node "
            f"available for tasks and actors ({round(left / 1e9, 2)} GB) is less than {int(100 * left / free)}% of "
            "total. You can adjust these settings with ray.init(memory=<bytes>, object_store_memory=<bytes>)."
        )


def default_memory(store_dir: str, object_store_memory: int | None) -> tuple[int, int]:
    """(memory, object_store_memory) in bytes, as Ray shares them."""
    free = free_memory()
    if object_store_memory is None:
        object_store_memory = min(int(free * _STORE_SHARE), _STORE_MOST)
        try:
            room = os.statvfs(store_dir)
            object_store_memory = min(object_store_memory, int(room.f_bavail * room.f_frsize * _SHM_SHARE))
        except OSError:
            pass
    return max(0, free - object_store_memory), object_store_memory
