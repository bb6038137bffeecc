"""Leases that need nothing (num_cpus=0) would start a worker each: beyond a cap per node they are let in one by one.

Not never: those that run may wait for those that do not.
"""

from __future__ import annotations

#: running leases without resources per node, before they are let in one by one
ZERO_CAP = 16
#: or for each of its CPUs, if that is more
_PER_CPU = 4
ZERO_INTERVAL = 0.05


class SlowAdmission:
    """How many of them run on each node, and when the next one may begin there."""

    def __init__(self) -> None:
        self._caps: dict[bytes, int] = {}
        self._running: dict[bytes, int] = {}
        self._gates: dict[bytes, float] = {}

    def add_node(self, node_id: bytes, cpus: int) -> None:
        """A node joins."""
        self._caps[node_id] = max(ZERO_CAP, _PER_CPU * cpus)
        self._running[node_id] = 0
        self._gates[node_id] = 0.0

    def remove_node(self, node_id: bytes) -> None:
        """A node is gone, and nothing runs there any more."""
        del self._caps[node_id], self._running[node_id], self._gates[node_id]

    def count_running(self, node_id: bytes, step: int) -> None:
        """So many more of them run there."""
        self._running[node_id] += step

    def opens_at(self, node_id: bytes) -> float:
        """From when on one may begin there."""
        return self._gates[node_id] if self._running[node_id] >= self._caps[node_id] else 0.0

    def begins(self, node_id: bytes, now: float) -> None:
        """One begins there: the next one waits, if there are many."""
        if self._running[node_id] >= self._caps[node_id]:
            self._gates[node_id] = now + ZERO_INTERVAL
