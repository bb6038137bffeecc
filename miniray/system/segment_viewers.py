"""Who views a segment: a question to the kernel, and no messages.

Whoever maps another process's segment holds a read lock on the bytes it views. The lock belongs to the *open file*, so
it lasts as long as the mapping does, and ends with the process however that ends. The one who made the segment asks,
before it uses the bytes again, whether anybody holds such a lock (3.6 us). Nothing is sent, and nothing has to be
cleaned up after a death.

Alternatives not taken: messages to the owner, as borrowers send them, which would put two messages on the path of each
large value, and need a rule for each order in which they can come; ``flock``, which knows whole files only, while small
objects share one.

These are Linux's open file description locks (``fcntl(2)``). Elsewhere everything counts as viewed: nothing that left
its process is used again.
"""

from __future__ import annotations

import os
import struct

try:
    import fcntl

    _SET = fcntl.F_OFD_SETLK
    _GET = fcntl.F_OFD_GETLK
except (ImportError, AttributeError):  # not Linux
    _SET = _GET = 0

_FLOCK = struct.Struct("@hhqqi4x")


def hold(descriptor: int, offset: int = 0, size: int = 0) -> None:
    """Be a viewer of these bytes (size 0: all) for as long as the open file, or a mapping made of it, lives."""
    if _SET:
        fcntl.fcntl(descriptor, _SET, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, offset, size, 0))


def let_go(descriptor: int, offset: int, size: int) -> None:
    """View these bytes no longer."""
    if _SET:
        fcntl.fcntl(descriptor, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, size, 0))


def is_viewed(descriptor: int, offset: int = 0, size: int = 0) -> bool:
    """Whether anybody but this open file views these bytes (size 0: all)."""
    if not _GET:
        return True
    answer = fcntl.fcntl(descriptor, _GET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, size, 0))
    return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK  # type: ignore[no-any-return]


def is_file_viewed(path: str) -> bool:
    """Whether anybody views the file; one that is gone is viewed by nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return is_viewed(descriptor)
    finally:
        os.close(descriptor)
