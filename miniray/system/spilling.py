"""Segments on disk: how one is moved there, and when a disk is too full for more.

The order of a move makes it safe for readers, who know nothing of it: copy under a hidden name, rename the complete
copy into place, then unlink the segment in memory. At each moment one of the two is there, whole. Nothing is synced:
the objects end with the session, so they need not survive the machine.

Only the bytes of objects are copied, and the ledger of a slab. A slab moves whole, so small objects reach the disk in
few files.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from miniray.exceptions import OutOfDiskError
from miniray.system.segment import LEDGER_SIZE, NO_ROOM, unlink
from miniray.system.segment_viewers import is_file_viewed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from miniray.system.segment import Segment

_CHUNK = 8 << 20


def is_disk_full(directory: str, threshold: float) -> bool:
    """Whether more than this share (0 to 1) of the disk is used."""
    try:
        status = os.statvfs(directory)
    except (OSError, AttributeError):
        return True
    return status.f_bavail < (1.0 - threshold) * status.f_blocks or not status.f_bavail


def check_disk(directory: str, threshold: float) -> None:
    """Raises ``OutOfDiskError``, in Ray's words, when the disk is too full."""
    if is_disk_full(directory, threshold):
        raise OutOfDiskError("Local disk is full")


def copy_to_disk(memory: Segment, directory: str, threshold: float) -> bool:
    """Copy the objects of a segment to a hidden file. False, without a trace, if that is not possible."""
    ranges = {**memory.objects, **{offset: size for offset, (size, _) in memory.deferred.items()}}
    if memory.allocator is not None:
        ranges[0] = LEDGER_SIZE
    return copy_ranges(memory.path, hidden(directory, memory.name), ranges.items(), memory.size, threshold)


def copy_ranges(source_path: str, path: str, ranges: Iterable[tuple[int, int]], length: int, threshold: float) -> bool:
    """Copy (offset, size) ranges of a file to a new file of the same length. False if that is not possible."""
    if is_disk_full(os.path.dirname(path), threshold):
        return False
    try:
        source = os.open(source_path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # its owner has freed it
        return False
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(target, length)
            for offset, size in ranges:
                _copy(source, target, offset, size)
        finally:
            os.close(target)
        return True
    except OSError as error:
        unlink(path)
        if error.errno in NO_ROOM:
            return False
        raise
    except BaseException:
        unlink(path)
        raise
    finally:
        os.close(source)


def _copy(source: int, target: int, offset: int, size: int) -> None:
    end = offset + size
    os.lseek(target, offset, os.SEEK_SET)
    while offset < end:
        done = _send(source, target, offset, min(_CHUNK, end - offset))
        if not done:
            raise OSError(f"a segment ends at {offset}, before its object does")
        offset += done


def _send(source: int, target: int, offset: int, size: int) -> int:
    if sys.platform == "linux":  # others send to sockets only
        return os.sendfile(target, source, offset, size)
    return os.write(target, os.pread(source, size, offset))


def move_file(store: str, name: str, directory: str, threshold: float) -> bool:
    """Move the segment of a dead process to disk whole. False if it is gone, or viewed, or if there is no room."""
    path = os.path.join(store, name)
    copy = hidden(directory, name)
    try:
        size = os.stat(path).st_size
        if is_file_viewed(path) or not copy_ranges(path, copy, allocated_ranges(path), size, threshold):
            return False
        os.rename(copy, os.path.join(directory, name))
        os.unlink(path)
    except FileNotFoundError:  # freed in the meantime
        unlink(os.path.join(directory, name))
        return False
    except OSError:
        return False
    return True


def allocated_ranges(path: str) -> list[tuple[int, int]]:
    """The (offset, size) ranges of a file that have memory."""
    ranges = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = os.fstat(descriptor).st_size
        if not hasattr(os, "SEEK_DATA"):
            return [(0, end)]
        position = 0
        while position < end:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                break
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            ranges.append((start, position - start))
    finally:
        os.close(descriptor)
    return ranges


def switch_to_disk(memory: Segment, directory: str) -> bool:
    """The hidden copy takes the segment's place. False if the object was freed by its owner in the meantime."""
    path = os.path.join(directory, memory.name)
    if memory.allocator is not None and memory.mapping is not None:
        with open(hidden(directory, memory.name), "r+b") as file:  # as it is now: objects were freed during the copy
            file.write(memory.mapping[:LEDGER_SIZE])
    os.rename(hidden(directory, memory.name), path)
    try:
        os.unlink(memory.path)
    except FileNotFoundError:
        unlink(path)
        return False
    memory.close()
    memory.mapping = None
    memory.directory = directory
    memory.path = path
    memory.on_disk = True
    return True


def drop_copy(memory: Segment, directory: str) -> None:
    """The copy is not needed."""
    unlink(hidden(directory, memory.name))


def hidden(directory: str, name: str) -> str:
    """Where a copy is written."""
    return os.path.join(directory, "." + name)
