"""Where a session's segments lie: on ``/dev/shm`` if it is there and large enough, else beside the session's files.

Docker gives a container 64 MB of ``/dev/shm`` unless told otherwise; macOS and Windows have none. Files on a disk work
the same way, but the kernel writes them back, which makes objects slower.

Outside of its session's directory, a directory of segments says whose it is: the link ``.session`` in it leads there,
so that a sweep can tell what no living session owns.
"""

from __future__ import annotations

import os

SHARED_MEMORY = "/dev/shm"


def create_segment_directory(
    name: str, session: str, capacity: int, root: str = SHARED_MEMORY
) -> tuple[str, str | None]:
    """Make a private (0700) directory for ``capacity`` bytes of segments of the session in the directory ``session``.

    It is ``root/name``; or ``session/store`` when ``root`` is absent, read-only, or has fewer free bytes than
    ``capacity``. Returns its path, and then also a warning for the user, else None. Raises FileExistsError.
    """
    try:
        status = os.statvfs(root)  # AttributeError on Windows
        free = status.f_bavail * status.f_frsize
        if free >= capacity:
            path = os.path.join(root, name)
            os.mkdir(path, 0o700)
            os.symlink(session, os.path.join(path, ".session"))
            return path, None
        reason = f"has only {free} bytes free, less than object_store_memory={capacity}"
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        reason = "is not available"
    path = os.path.join(session, "store")
    os.mkdir(path, 0o700)
    return path, (
        f"The object store is using {path} instead of {root} because {root} {reason}. This will slow objects down. "
        "If you are inside a Docker container, pass '--shm-size=' to 'docker run' with a larger size."
    )
