"""The head looks at the machine's memory, and kills a worker before the kernel kills something else.

It looks while workers have something to do, every `memory_monitor_refresh_ms` milliseconds (Ray's setting; 0: never);
`memory_usage_threshold` says when it is too much. Whom it kills is decided by `state_machines.worker_killing`. The
owner of the task hears why from the notice of the death, and runs it again or raises `OutOfMemoryError`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from miniray.processes.head_gcs import NODE_IP
from miniray.state_machines.lease_record import Lease
from miniray.state_machines.resources import from_units
from miniray.state_machines.worker_killing import Candidate, MemoryPressure
from miniray.system.memory_usage import Usage, largest_users, memory_usage, used_by
from miniray.system.ray_settings import setting

if TYPE_CHECKING:
    from miniray.processes.head_members import Member
    from miniray.processes.head_shell import Head

_GIB = 1 << 30
_ADVICE = (
    "Refer to the documentation on how to address the out of memory issue: "
    "https://docs.ray.io/en/latest/ray-observability/user-guides/debug-apps/debug-memory.html. Consider provisioning "
    "more memory on this node or reducing task parallelism by requesting more CPUs per task. {retry}To adjust the kill "
    "threshold, set the environment variable `RAY_memory_usage_threshold` when starting Ray. To disable worker "
    "killing, set the environment variable `RAY_memory_monitor_refresh_ms` to zero."
)


class MemoryMonitor:
    """A timer of the head's that runs while there are leases."""

    def __init__(self, head: Head) -> None:
        self._head = head
        given = head.config.system_config
        self.interval = setting(given, "memory_monitor_refresh_ms", 250) / 1000.0
        self._pressure = MemoryPressure(
            setting(given, "memory_usage_threshold", 0.95), setting(given, "min_memory_free_bytes", -1)
        )
        self._ticking = False

    def wake(self) -> None:
        """A worker has something to do."""
        if not self._ticking and self.interval > 0:
            self._ticking = True
            self._head.call_at(self._head.now + self.interval, self._tick)

    def on_died(self, worker_id: bytes) -> None:
        """A process is gone."""
        self._pressure.gone(worker_id)

    def _tick(self) -> None:
        head = self._head
        leases = [lease for lease in head.leases.scheduler.leases.values() if lease.worker_id]
        self._ticking = bool(leases) and not head.stopping
        if not self._ticking:
            return
        head.call_at(head.now + self.interval, self._tick)
        usage = memory_usage()
        if usage.used > self._pressure.limit(usage.total) and not self._pressure.dying:
            self._relieve(usage, {lease.worker_id: lease for lease in leases})

    def _relieve(self, usage: Usage, leases: dict[bytes, Lease]) -> None:
        head = self._head
        candidates = [
            Candidate(worker_id, lease.claim.spec.retriable, lease.placed_at, used_by(member.pid))
            for worker_id, lease in leases.items()
            if (member := head.members.get(worker_id)) is not None and member.pid and not member.dead
        ]
        chosen = self._pressure.choose(usage.used, usage.total, candidates)
        if chosen is None:
            return
        member = head.members[chosen.worker_id]
        member.out_of_memory = self._report(usage, chosen, leases[chosen.worker_id], member)
        print(f"head: {member.out_of_memory}", file=sys.stderr, flush=True)
        head.ends.kill(member, "the node was running low on memory")

    def _report(self, usage: Usage, chosen: Candidate, lease: Lease, member: Member) -> str:
        spec = lease.claim.spec
        limit = self._pressure.limit(usage.total)
        is_actor = lease.claim.held is not None
        kind, name = ("Actor", f"{spec.name}.__init__") if is_actor else ("Task", spec.name)
        resources = from_units(lease.claim.held if is_actor and lease.claim.held is not None else spec.resources)
        shown = ", ".join(f"{resource}: {quantity:g}" for resource, quantity in resources.items())
        node = self._head.gcs.nodes.get(member.node_id)
        store = f"{node.store_used} of {node.store_limit} bytes" if node is not None else "unknown"
        retry = ""
        if not chosen.retriable:
            setting_ = "max_restarts and max_task_retries" if is_actor else "max_retries"
            retry = f"Set {setting_} to enable retry when the task crashes due to OOM. "
        lines = [
            f"1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: {NODE_IP}, ID: "
            f"{member.node_id.hex()}) was {usage.used / _GIB:.2f}GB used / {usage.total / _GIB:.2f}GB limit "
            f"({usage.used / max(1, usage.total):f})",
            f"OOM kill reason: Memory usage {usage.used}B exceeded threshold of {limit}B "
            f"({100 * limit / max(1, usage.total):.1f}% of {usage.total}B limit)",
            f"Object store memory usage: [{store}]",
            "Ray killed 1 worker(s) based on the killing policy",
            "Considered workers: [",
            f"Selected to kill: ({kind}: job ID={spec.job_id.hex()}, lease ID={lease.lease_id:x}, task name={name}, "
            f"required resources={{{shown}}}, pid={member.pid}, actual memory used={chosen.used / _GIB:.2f}GB, worker "
            f"ID={member.worker_id.hex()})",
            "]",
            f"To see more information about memory usage on this node, use `ray logs raylet.out -ip {NODE_IP}`",
            "Top 10 memory users: PID\tMEM(GB)\tCOMMAND",
            *(f"{user.pid}\t{user.used / _GIB:.2f}\t{user.command}" for user in largest_users(10)),
            _ADVICE.format(retry=retry),
        ]
        return "\n".join(lines)
