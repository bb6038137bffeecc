"""What a worker runs, written where its death cannot take it.

When a worker is gone, its owner knows which tasks lay there, but not which of them had begun: replies that were
collected are lost with it, and pushes may never have been read. The difference decides who pays a retry, and whether a
task that may run only once may be sent to another worker. So each worker notes the task that it begins in a mapped
file, 0.2 us a task, and the head reads it when the worker is dead and puts it into the notice of the death.

(Ray has one task at a worker at a time, and charges it even if the worker was dead before the task arrived.)
"""

from __future__ import annotations

import mmap
import os

#: a task id and the number of the attempt
SIZE = 24 + 4


def entry(task_id: bytes, attempt: int) -> bytes:
    """What stands in the record while this attempt of the task runs, and afterwards until the next one begins."""
    return task_id + attempt.to_bytes(4, "little")


def _path(directory: str, worker_id: bytes) -> str:
    # The dot keeps it apart from the segments of the store, in memory as they are.
    return os.path.join(directory, f".runs-{worker_id.hex()}")


class TaskRecord:
    """The worker's side.

    Args:
        directory: the session's store.
        worker_id: whose record it is.
    """

    __slots__ = ("_map",)

    def __init__(self, directory: str, worker_id: bytes) -> None:
        fd = os.open(_path(directory, worker_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Written, and not only made longer: on a full file system the first store to a hole would be a SIGBUS.
            os.write(fd, bytes(SIZE))
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def begin(self, task_id: bytes, attempt: int) -> None:
        """The task begins now."""
        self._map[:] = task_id + attempt.to_bytes(4, "little")

    def close(self) -> None:
        """Unmap it: the worker runs nothing more, and its process lives on."""
        self._map.close()


def take_record(directory: str, worker_id: bytes) -> bytes:
    """The last entry of a worker that is dead, which removes the record; b"" if it had none."""
    path = _path(directory, worker_id)
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE)
        os.unlink(path)
    except OSError:
        return b""
    return data
