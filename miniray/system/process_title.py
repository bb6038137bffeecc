"""Process titles (`ray::f` in ``ps``) without a dependency: written over the memory of argv.

The kernel shows as command line what stands in the memory where exec put the arguments. The head is started with a long
argument (`process_start.TITLE_SPACE`), so there is room; forked workers have that memory at the same address. A title
is set once per task, so it is one slice assignment to a memoryview: 0.3 us. (Writing the "comm" name would be a system
call, and is limited to 15 characters.)

Only processes that miniray started may call this: it overwrites the command line that ``ps`` shows.
"""

from __future__ import annotations

import sys

_area: memoryview | None = None
_looked = False
_used = 0


def prepare() -> None:
    """Find the memory. Done once in the fork server, its children inherit the result."""
    global _area, _looked, _used
    if _looked:
        return
    _looked = True
    if not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/stat", "rb") as file:
            # The second field is the name in parentheses, which may hold spaces; arg_start and arg_end are 48 and 49.
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[48 - 3]), int(fields[49 - 3])
    except (OSError, IndexError, ValueError):
        return
    if not 0 < start < end:
        return
    import ctypes  # takes milliseconds, and is needed by exec'd processes only

    array = (ctypes.c_char * (end - start)).from_address(start)
    _area = memoryview(array).cast("B")
    # The last byte stays zero: the kernel then shows these bytes, and not what follows them.
    _used = end - start


def set_title(title: str) -> None:
    """Show this as the command line of the process; longer ones are cut. Does nothing where it is not supported."""
    global _used
    if not _looked:
        prepare()
    area = _area
    if area is None:
        return
    data = title.encode("utf-8", "replace")
    size = len(data)
    if size >= len(area):
        size = len(area) - 1
        data = data[:size]
    if size < _used:
        area[:_used] = data + bytes(_used - size)
    else:
        area[:size] = data
    _used = size


def set_name(name: str) -> None:
    """The 15 characters that ``top`` shows."""
    try:
        with open("/proc/self/comm", "w", encoding="utf-8") as file:
            file.write(name[:15])
    except OSError:
        pass
