"""Virtual environments that outlive sessions: each under the hash of what is in it, made once, removed when the cache
grows too large.

Rules
-----
* An environment belongs to a lock file beside it. Who makes it holds the lock alone; who uses it holds it together with
  others. Locks end with their process, so that a killed one leaves nothing locked.
* It is whole when its mark is there, which is written last; without one it is made anew. One whose maker was killed
  goes when somebody cleans up.
* The mark's time is that of the last use. Whoever has made an environment removes the longest unused ones, as long as
  all together are larger than the limit; one that is in use is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable

from miniray.system.disk_usage import folder_size

_MARK = ".whole"
#: bytes; Ray's default for its cache of pip environments
DEFAULT_LIMIT = 10 << 30


def directory() -> str:
    """Where the environments of this user are: ``MINIRAY_ENVIRONMENT_CACHE``, or below ``XDG_CACHE_HOME``."""
    given = os.environ.get("MINIRAY_ENVIRONMENT_CACHE")
    if given:
        return given
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "miniray", "environments")


def size_limit() -> int:
    """Bytes: ``RAY_RUNTIME_ENV_PIP_CACHE_SIZE_GB`` as in Ray."""
    try:
        return int(float(os.environ["RAY_RUNTIME_ENV_PIP_CACHE_SIZE_GB"]) * (1 << 30))
    except (KeyError, ValueError):
        return DEFAULT_LIMIT


class CachedEnvironment:
    """One environment, in use by this process from `take` on."""

    def __init__(self, cache: str, name: str) -> None:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        self._cache = cache
        self.path = os.path.join(cache, name)
        self.lock = self.path + ".lock"
        self._descriptor = -1

    def take(self, make: Callable[[str], None]) -> None:
        """Use the environment; `make` gets the path of an empty place and fills it, if nobody has before.

        Raises:
            whatever `make` raises; what it has made until then is removed.
        """
        mark = os.path.join(self.path, _MARK)
        self._descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            try:
                os.utime(mark)
                return
            except OSError:
                pass
            # Between the two locks somebody else may be faster: so look again, under each of them.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if not os.path.exists(mark):
                shutil.rmtree(self.path, ignore_errors=True)
                try:
                    make(self.path)
                except BaseException:
                    shutil.rmtree(self.path, ignore_errors=True)
                    raise
                with open(mark, "w", encoding="ascii") as file:
                    file.write(str(folder_size(self.path)))
                shrink(self._cache, size_limit(), keep=self.path)


def shrink(cache: str, limit: int, keep: str = "") -> None:
    """Remove the longest unused environments until the rest has no more than `limit` bytes."""
    found = []
    for entry in os.scandir(cache):
        try:
            mark = os.path.join(entry.path, _MARK)
            with open(mark, encoding="ascii") as file:
                found.append((os.stat(mark).st_mtime, int(file.read() or 0), entry.path))
        except (OSError, ValueError):
            # Nobody else's folder, and none that is being made: that one is in use.
            if entry.is_dir() and os.path.exists(entry.path + ".lock"):
                _remove(entry.path)
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        if path != keep and _remove(path):
            total -= size


def _remove(path: str) -> bool:
    descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, _MARK))
        shutil.rmtree(path, ignore_errors=True)
        return True
    except OSError:
        return False  # in use
    finally:
        os.close(descriptor)
