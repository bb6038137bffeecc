"""Which worker is killed when memory runs out: one whose work can be done again, and of those the newest.

The rules (Ray's, since 2.56: "selecting workers based on the time since the task started")
---------
* Tasks that may be retried, and actors that may be restarted, go before those that may not.
* Among equals the one goes that was begun last: the least work is lost, and the oldest gets through.
* A worker that takes less than `LEAST` bytes is passed over while there is another: its end would help nobody.
* One at a time: what the last one held has to be back before it is known whether another must go.

Otherwise the kernel would choose: the largest process, which may be the driver, or somebody's editor.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

#: bytes
LEAST = 1 << 20


class Candidate(Struct, frozen=True):
    """A worker with something to do."""

    worker_id: bytes
    retriable: bool
    begun_at: float  #: seconds, of any clock
    used: int  #: bytes of memory of its own


class MemoryPressure:
    """When to kill, and whom."""

    def __init__(self, threshold: float, min_free: int = -1) -> None:
        """When more than `threshold` (0 to 1) of the memory is in use, a worker is killed.

        `min_free`: if >= 0, only when fewer bytes than that are free, too.
        """
        self._threshold = threshold
        self._min_free = min_free
        self.dying = b""  #: whose end is awaited

    def limit(self, total: int) -> int:
        """The bytes in use above which a worker is killed."""
        limit = int(self._threshold * total)
        return max(limit, total - self._min_free) if self._min_free >= 0 else limit

    def choose(self, used: int, total: int, candidates: Sequence[Candidate]) -> Candidate | None:
        """Whom to kill, now that so many bytes are in use. Whoever it is, it has to be told to be `gone`."""
        if self.dying or used <= self.limit(total) or not candidates:
            return None
        large = [candidate for candidate in candidates if candidate.used >= LEAST]
        chosen = max(large or candidates, key=lambda candidate: (candidate.retriable, candidate.begun_at))
        self.dying = chosen.worker_id
        return chosen

    def gone(self, worker_id: bytes) -> None:
        """A process is dead."""
        if self.dying == worker_id:
            self.dying = b""
