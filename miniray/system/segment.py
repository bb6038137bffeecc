"""One file of shared memory: made, given memory, mapped, renamed, unlinked. What it holds is the store's business.

Memory is allocated with ``posix_fallocate`` before anybody touches it. A full ``/dev/shm`` is then an
``ObjectStoreFullError`` here; a sparse file would be a SIGBUS in the middle of somebody's copy.

Without Linux: ``ftruncate`` stands in where ``posix_fallocate`` is missing (macOS), without that guarantee. Windows
maps files too, but cannot rename or unlink a mapped one; it is untested.
"""

from __future__ import annotations

import errno
import mmap
import os

from miniray.exceptions import ObjectStoreFullError
from miniray.system.slab_allocator import SlabAllocator

PAGE = mmap.ALLOCATIONGRANULARITY

_BINARY = getattr(os, "O_BINARY", 0)
_CHUNK = 64 << 20  # a signal makes posix_fallocate start over: in chunks it gets there in spite of a profiler's timer
_NO_MEMORY = (errno.ENOSPC, errno.ENOMEM, getattr(errno, "EDQUOT", errno.ENOSPC))
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Segment:
    """A file that this process created, and whose memory it gives out; or one that it adopted, to free it."""

    __slots__ = (
        "adopted",
        "allocator",
        "capacity",
        "deferred",
        "descriptor",
        "mapping",
        "name",
        "objects",
        "size",
        "touched",
        "views",
    )

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size  # of the file, in bytes
        self.capacity = 0  # the bytes that have memory, from the start of the file: all that is counted
        self.descriptor = -1
        self.mapping: mmap.mmap | None = None
        self.adopted = False
        self.allocator: SlabAllocator | None = None  # of a slab
        self.objects: dict[int, int] = {}  # offset -> size of each object that is not freed
        self.views: dict[int, int] = {}  # offset -> how many exporters of this process show it
        self.deferred: dict[int, int] = {}  # offset -> size of what is freed, and recycled with its last view
        self.touched = 0  # up to here the memory has been written once

    @classmethod
    def create(cls, directory: str, name: str, size: int) -> Segment:
        """A new file of ``size`` bytes, without memory yet. Raises FileExistsError."""
        self = cls(name, size)
        path = os.path.join(directory, name)
        self.descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o600)
        try:
            os.ftruncate(self.descriptor, size)
            self.mapping = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_WRITE)
        except BaseException:
            self.discard(directory)
            raise
        return self

    @classmethod
    def adopt(cls, directory: str, name: str) -> Segment:
        """The file of a process that is gone."""
        status = os.stat(os.path.join(directory, name))
        self = cls(name, status.st_size)
        self.adopted = True
        self.capacity = getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
        return self

    def allocate(self, end: int) -> None:
        """Give the file memory up to ``end``. Raises ``ObjectStoreFullError`` when the system has none left."""
        position = self.capacity
        try:
            while position < end:
                step = min(end - position, _CHUNK)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self.descriptor, position, step)
                position += step
        except OSError as error:
            if error.errno in _NO_MEMORY:
                raise ObjectStoreFullError(
                    f"The shared memory file system is full: {end - self.capacity} more bytes were asked for."
                ) from error
            if error.errno not in _NOT_SUPPORTED:
                raise
        self.capacity = end

    def write(self, source: memoryview, offset: int) -> None:
        """Write through the file: 2.6 GB/s into fresh memory, where the mapping gives 1.6; others may run meanwhile."""
        done = 0
        while done < len(source):
            done += os.pwrite(self.descriptor, source[done : done + _CHUNK], offset + done)

    def close(self) -> None:
        """Close the descriptor; the mapping stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def rename(self, directory: str, name: str) -> None:
        """From now on, whoever asks for the old name finds nothing."""
        os.rename(os.path.join(directory, self.name), os.path.join(directory, name))
        self.name = name

    def discard(self, directory: str) -> bool:
        """Unlink, and let go of the mapping: it ends with its last view. False if the file could not be unlinked."""
        self.close()
        self.mapping = None
        return unlink(directory, self.name)


def unlink(directory: str, name: str) -> bool:
    """Unlink a segment by name; one that is not there is fine. False if it has to be tried again (Windows)."""
    try:
        os.unlink(os.path.join(directory, name))
    except FileNotFoundError:
        pass
    except PermissionError:
        return False
    return True


def map_segment(directory: str, name: str) -> mmap.mmap:
    """Map another process's segment whole. Raises FileNotFoundError when it is gone.

    The mapping is writable, since only that can be exported through ctypes; the views made of it are not.
    """
    descriptor = os.open(os.path.join(directory, name), os.O_RDWR | _BINARY)
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE)
    finally:
        os.close(descriptor)


def segment_names(directory: str, pid: int) -> list[str]:
    """The segments that the process ``pid`` created, or one that had its pid before: for the sweep after a death."""
    prefix = f"{pid:x}-"
    return [name for name in os.listdir(directory) if name.startswith(prefix)]


def segment_name(pid: int, number: int) -> str:
    """The name of the ``number``-th segment of the process ``pid``."""
    return f"{pid:x}-{number:x}"
