"""Where a session's segments lie: on ``/dev/shm`` if it is there and large enough, else beside the session's files.

Docker gives a container 64 MB of ``/dev/shm`` unless told otherwise; macOS and Windows have none. Files on a disk work
the same way, but the kernel writes them back, which makes objects slower.
"""

from __future__ import annotations

import os

SHARED_MEMORY = "/dev/shm"


def create_segment_directory(
    name: str, fallback: str, capacity: int, root: str = SHARED_MEMORY
) -> tuple[str, str | None]:
    """Make a private (0700) directory ``name`` for ``capacity`` bytes of segments.

    It is made in ``root``, or in the directory ``fallback`` when ``root`` is absent, read-only, or has fewer free bytes
    than ``capacity``. Returns its path, and a warning for the user when it is not in ``root``, else None.
    """
    path = os.path.join(root, name)
    try:
        status = os.statvfs(root)  # AttributeError on Windows
        free = status.f_bavail * status.f_frsize
        if free >= capacity:
            os.mkdir(path, 0o700)
            return path, None
        reason = f"has only {free} bytes free, less than object_store_memory={capacity}"
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        reason = "is not available"
    path = os.path.join(fallback, name)
    os.mkdir(path, 0o700)
    return path, (
        f"The object store is using {path} instead of {root} because {root} {reason}. This will slow objects down. "
        "If you are inside a Docker container, pass '--shm-size=' to 'docker run' with a larger size."
    )
