"""One file of shared memory: made, given memory, mapped, renamed, moved to disk, unlinked. What it holds is the store's
business.

Names
    A file is called ``NAME`` while it holds objects that somebody may look for, and ``NAME~`` while it holds none:
    before the first object is complete, in a pool, and when its object's owner has freed it. So a look at the
    directory tells what a dead process left that nobody needs (``is_free``), and who comes too late finds nothing. A
    segment that was moved to disk has the same name in the directory for spilled ones. ``NAMEp`` holds objects that
    its writer owns: they are lost with it (``ends_with_writer``); others, the results of tasks, outlive it. Slabs have
    an ``s`` after the number (``is_slab``).

Slabs begin with a *ledger*, which says what objects are in them, and since when: who looks after a dead process's slab
reads there what is still to be freed. A slot serves one object after the other, and who freed one of them may not know
that; its word is about the present one only if that is older.

Memory is allocated with ``posix_fallocate`` before anybody touches it. A full ``/dev/shm`` is then an
``ObjectStoreFullError`` here; a sparse file would be a SIGBUS in the middle of somebody's copy.

Without Linux: ``ftruncate`` stands in where ``posix_fallocate`` is missing (macOS), without that guarantee. Windows
maps files too, but cannot rename or unlink a mapped one; it is untested.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time

from miniray.exceptions import ObjectStoreFullError, OutOfDiskError
from miniray.system.slab_allocator import SlabAllocator

PAGE = mmap.ALLOCATIONGRANULARITY

#: What the name of a file ends with while it holds no object.
FREE = "~"
#: What the name ends with when the objects are lost with their writer.
OWNED = "p"
#: What follows the number in the name of a slab.
SLAB = "s"
#: Bytes of a slab, and bytes at its start that say where its objects begin, and since when: a word for each 64 KiB.
SLAB_SIZE = 16 << 20
_GRANULE = 64 << 10
_UNIT = 64
_WORDS = struct.Struct(f"<{SLAB_SIZE // _GRANULE}Q")
_MARK_BITS = 11  # of a word, for the place in its 64 KiB, which is a multiple of _UNIT; the others are for the time
LEDGER_SIZE = _WORDS.size

_BINARY = getattr(os, "O_BINARY", 0)
_CHUNK = 64 << 20  # a signal makes posix_fallocate start over: in chunks it gets there in spite of a profiler's timer
NO_ROOM = (errno.ENOSPC, errno.ENOMEM, getattr(errno, "EDQUOT", errno.ENOSPC))
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Segment:
    """A file that this process created, and whose memory it gives out; or one that it adopted, to free it."""

    __slots__ = (
        "adopted",
        "allocator",
        "capacity",
        "deferred",
        "descriptor",
        "directory",
        "forked",
        "lingering",
        "mapping",
        "moving",
        "name",
        "objects",
        "on_disk",
        "owned",
        "path",
        "size",
        "touched",
        "unsealed",
        "views",
    )

    def __init__(self, directory: str, name: str, size: int) -> None:
        self.directory = directory
        self.name = name  # under which others look for it
        self.path = os.path.join(directory, name)  # where it is
        self.size = size  # of the file, in bytes
        self.capacity = 0  # the bytes that have memory, from the start of the file: all that is counted
        self.descriptor = -1
        self.mapping: mmap.mmap | None = None
        self.adopted = False
        self.on_disk = False  # it lies among the spilled ones, and costs no memory
        self.owned = False  # (a slab) its objects are lost with this process
        self.moving = False  # it is being copied to disk
        self.forked = False  # a child that was forked may view it without our knowledge: never to be used again
        self.allocator: SlabAllocator | None = None  # of a slab
        self.objects: dict[int, int] = {}  # offset -> size of each object that is not freed
        self.unsealed = 0  # how many of them are being written
        self.views: dict[int, int] = {}  # offset -> how many exporters of this process show it
        #: offset -> size of what is freed, and retired with its last view here; and whether others have seen it
        self.deferred: dict[int, tuple[int, bool]] = {}
        self.lingering: dict[int, int] = {}  # offset -> size of freed slots of a slab that others still view
        self.touched = 0  # up to here the memory has been written once

    @property
    def counted(self) -> int:
        """Its bytes of shared memory."""
        return 0 if self.on_disk else self.capacity

    @classmethod
    def create(cls, directory: str, name: str, size: int, free: bool) -> Segment:
        """A new file of ``size`` bytes, without memory yet; ``free``: until it is published. Raises FileExistsError."""
        self = cls(directory, name, size)
        if free:
            self.path += FREE
        self.descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o600)
        try:
            os.ftruncate(self.descriptor, size)
            self.mapping = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_WRITE)
        except BaseException:
            self.discard()
            raise
        return self

    @classmethod
    def adopt(cls, directory: str, name: str) -> Segment:
        """The file of a process that is gone."""
        self = cls(directory, name, 0)
        status = os.stat(self.path)
        self.size = status.st_size
        self.adopted = True
        self.capacity = getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
        return self

    def allocate(self, end: int) -> None:
        """Give the file memory up to ``end``. Raises ``ObjectStoreFullError`` when the system has none left, and
        ``OutOfDiskError`` when it is the disk that has none.
        """
        position = self.capacity
        try:
            while position < end:
                step = min(end - position, _CHUNK)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self.descriptor, position, step)
                position += step
        except OSError as error:
            if error.errno in NO_ROOM:
                if self.on_disk:
                    raise OutOfDiskError("Local disk is full") from error
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

    def note(self, offset: int, live: bool) -> None:
        """Write into the ledger, if this is a slab, that an object begins here, or that it is freed. (Two in one
        granule, both smaller than what goes into shared memory, share a word.)
        """
        if not is_slab(self.name):
            return
        start = 8 * (offset // _GRANULE)
        word = clock() << _MARK_BITS | offset % _GRANULE // _UNIT + 1 if live else 0
        if self.mapping is not None:
            self.mapping[start : start + 8] = word.to_bytes(8, "little")
            return
        try:
            with open(self.path, "r+b") as file:  # it was moved to disk
                file.seek(start)
                file.write(word.to_bytes(8, "little"))
        except FileNotFoundError:  # somebody swept the directory
            pass

    def close(self) -> None:
        """Close the descriptor; the mapping stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def publish(self) -> None:
        """The object in it is complete: from now on it is found under its name. Raises FileNotFoundError."""
        path = os.path.join(self.directory, self.name)
        os.rename(self.path, path)
        self.path = path

    def withdraw(self, name: str) -> None:
        """Nobody finds it any more; the next object in it will be published under ``name``. Raises FileNotFoundError.

        The owner of what it held may have marked the file as free already (``mark_free``).
        """
        path = os.path.join(self.directory, name + FREE)
        try:
            os.rename(self.path, path)
        except FileNotFoundError:
            os.rename(self.path + FREE, path)
        self.name = name
        self.path = path

    def discard(self) -> bool:
        """Unlink, and let go of the mapping: it ends with its last view. False if the file could not be unlinked."""
        self.close()
        self.mapping = None
        return unlink(self.path) and unlink(self.path + FREE)


def unlink(path: str) -> bool:
    """Unlink a file; one that is not there is fine. False if it has to be tried again (Windows)."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        return False
    return True


def mark_free(directory: str, name: str, spilled: str) -> None:
    """The object of this segment is freed, says its owner: nobody shall find it any more.

    Its memory is the business of whoever wrote it, or of whoever looks after the segments of the dead; of a file among
    the ``spilled`` ones nobody has any more use.
    """
    path = os.path.join(directory, name)
    try:
        os.rename(path, path + FREE)
    except FileNotFoundError:
        # Whoever moves a segment to disk takes the one in memory away last, so now it must be there if it was moved.
        if spilled:
            unlink(os.path.join(spilled, name))


def is_free(name: str) -> bool:
    """Whether the file of this name holds no object."""
    return name.endswith(FREE)


def ends_with_writer(name: str) -> bool:
    """Whether what is in it is lost when its writer dies."""
    return name.endswith(OWNED)


def is_slab(name: str) -> bool:
    """Whether the file of this name is a slab."""
    return name.removesuffix(OWNED).endswith(SLAB)


def clock() -> int:
    """Microseconds of a clock that all processes of the machine share: when an object was made, and when freed."""
    return time.monotonic_ns() // 1000


def read_ledger(path: str) -> dict[int, int] | None:
    """Where the objects of a slab begin, and when they were made (`clock`); None for a segment that is no slab."""
    if not is_slab(os.path.basename(path)):
        return None
    with open(path, "rb") as file:
        words = _WORDS.unpack(file.read(LEDGER_SIZE))
    found = {}
    for index, word in enumerate(words):
        made_at, mark = divmod(word, 1 << _MARK_BITS)
        if mark:
            found[index * _GRANULE + (mark - 1) * _UNIT] = made_at
    return found


def open_segment(name: str, directories: tuple[str, ...]) -> tuple[int, str]:
    """Open another process's segment, wherever it lies: a descriptor, and the path. Raises FileNotFoundError."""
    for directory in directories:
        path = os.path.join(directory, name)
        try:
            return os.open(path, os.O_RDWR | _BINARY), path
        except FileNotFoundError:
            continue
    raise FileNotFoundError(name)


def map_segment(descriptor: int) -> mmap.mmap:
    """Map a segment whole.

    The mapping is writable, since only that can be exported through ctypes; the views made of it are not.
    """
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE)


def segment_names(directory: str, writer: str) -> list[str]:
    """The segments of the process whose names begin with ``writer``: for the sweep after a death."""
    prefix = f"{writer}-"
    return [name for name in os.listdir(directory) if name.startswith(prefix)]


def segment_name(writer: str, number: int) -> str:
    """The name of a process's ``number``-th segment."""
    return f"{writer}-{number:x}"


def writer_name(worker_id: bytes) -> str:
    """What the names of a process's segments begin with."""
    return worker_id[:6].hex()
