"""Limits that the operating system puts on a process, and raising them."""

from __future__ import annotations

#: a thousand actors are a few thousand sockets; more would only make it slow to close all descriptors
_WANTED_FILES = 65536


def raise_file_limit() -> int:
    """Raise the soft limit on open files as far as allowed; what it is now (0: unknown)."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _WANTED_FILES:
        return soft
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted
