"""The journal: an append-only file of records, that a process killed at any moment leaves readable.

A frame is the length of the record, a checksum, and the record in msgpack. Whoever reads takes frames until one is
incomplete or its checksum is wrong: the end of a file whose writer died in the middle. A write that failed half-way (a
full disk) is cut off again before the next one.

Files are named ``journal-<number>``; a new one is begun from time to time, so that the old ones can go once their
records are elsewhere (`system.durable_log`).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import msgspec

from miniray.messages.durable import Record

_HEADER = struct.Struct("<II")
_PREFIX = "journal-"


class JournalFile:
    """One file, open for appending. Not for several threads at once."""

    def __init__(self, directory: str, number: int) -> None:
        self.number = number
        self.path = os.path.join(directory, f"{_PREFIX}{number:08}")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._encode = msgspec.msgpack.Encoder().encode
        self._is_entered = False  #: its name is on the disk, too
        self.size = 0

    def append(self, records: list[Record], sync: bool) -> None:
        """Write all records or none.

        Args:
            sync: return only after they are on the disk, and not merely in the hands of the system.

        Raises:
            OSError: no room, ...; the file is as before.
        """
        parts = []
        for record in records:
            data = self._encode(record)
            parts.append(_HEADER.pack(len(data), zlib.crc32(data)))
            parts.append(data)
        frames = memoryview(b"".join(parts))
        written = 0
        try:
            while written < len(frames):
                written += os.write(self._fd, frames[written:])
            if sync:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
                if not self._is_entered:
                    sync_file(os.path.dirname(self.path))
                    self._is_entered = True
        except OSError:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            raise
        self.size += written

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._fd)


def sync_file(path: str) -> None:
    """Return only after a file, or the names in a directory, are on the disk.

    Raises:
        OSError: they could not be written.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # somebody has removed it
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_directory(directory: str) -> int:
    """Make a directory for the tables this process's own, for as long as the returned descriptor is open.

    Raises:
        RuntimeError: it is somebody else's.
        OSError: it cannot be made.
    """
    import fcntl  # not there on Windows

    os.makedirs(directory, 0o700, exist_ok=True)
    fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise RuntimeError(f"another head keeps its tables in {directory}") from None
    return fd


def journal_files(directory: str) -> list[tuple[int, str]]:
    """(number, path) of the journal's files, the oldest first."""
    found = []
    for name in os.listdir(directory):
        if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit():
            found.append((int(name[len(_PREFIX) :]), os.path.join(directory, name)))
    return sorted(found)


def read_journal(path: str) -> Iterator[Record]:
    """The records of a file, up to the first frame that is not whole."""
    decode = msgspec.msgpack.Decoder(Record).decode
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        frame = data[at + _HEADER.size : at + _HEADER.size + length]
        if len(frame) < length or zlib.crc32(frame) != checksum:
            return
        try:
            yield decode(frame)
        except msgspec.DecodeError:
            return
        at += _HEADER.size + length
