"""Placement groups: bundles of resources that are reserved together or not at all.

    PENDING        nothing of it is reserved
    CREATED        every bundle is reserved
    RESCHEDULING   a node with bundles of it died: these are missing, the others stay where they are
    REMOVED        for good

Rules
-----
1. A reservation takes all missing bundles in one step, or none. So two groups never hold a part each of what both need.
2. Groups are tried in the order in which they were made, those that lost bundles first; one that does not fit stops
   nobody. (`scheduler` has leases revoked for those that wait, and keeps what comes back for them for a while.)
3. A bundle is a pool like a node: leases of the group are placed in it, and its devices are its own.
4. A removal gives everything back at once, whatever still runs there: that is killed.
5. A name is taken from the creation to the removal, in its namespace.
6. A group ends with its job; one that a detached actor made, with that actor; a detached one by `remove` alone.

The removed stay known until `KEPT_REMOVED` others were removed.

Ray does this in `gcs_placement_group_manager`, with a two-phase commit between nodes in place of rule 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Union

from msgspec import Struct, field

from miniray.messages.durable import GroupRecord
from miniray.messages.placement import PlacementGroupSpec
from miniray.state_machines.bundle_placement import Free, place
from miniray.state_machines.node_choice import Candidate, Term, parse_selector
from miniray.state_machines.resources import Allocation, NodeResources

PENDING, CREATED, RESCHEDULING, REMOVED = "PENDING", "CREATED", "RESCHEDULING", "REMOVED"
#: `Group.progress`, Ray's `scheduling_state`
#: (QUEUED: it was not tried since it began to wait)
QUEUED, NO_RESOURCES, INFEASIBLE, FINISHED = "QUEUED", "NO_RESOURCES", "INFEASIBLE", "FINISHED"

# Events.
RESERVED, LOST, ENDED = "reserved", "lost", "ended"

TRANSITIONS: dict[str, dict[str, str]] = {
    PENDING: {RESERVED: CREATED, ENDED: REMOVED},
    CREATED: {LOST: RESCHEDULING, ENDED: REMOVED},
    RESCHEDULING: {RESERVED: CREATED, LOST: RESCHEDULING, ENDED: REMOVED},
    REMOVED: {},
}

KEPT_REMOVED = 1000


class GroupNameTakenError(Exception):
    """Another group of the namespace has that name."""

    def __init__(self, group_id: bytes, name: str) -> None:
        self.group_id = group_id
        self.name = name
        super().__init__(group_id, name)

    def __str__(self) -> str:
        return f"Failed to create placement group '{self.group_id.hex()}' because name '{self.name}' already exists."


class GroupTransitionError(Exception):
    """An event that cannot happen in this state: a fault of this program."""


class Bundle(Struct, eq=False):
    """One bundle: what it is to reserve, and where it did."""

    index: int
    resources: dict[str, int]
    terms: list[Term]
    node: Candidate | None = None
    taken: Allocation | None = None  #: of the node
    pool: Candidate | None = None  #: for the leases of the group


class Group(Struct, eq=False):
    """One placement group."""

    spec: PlacementGroupSpec
    bundles: list[Bundle]
    state: str = PENDING
    progress: str = QUEUED
    attempts: int = 0
    version: int = 0  #: changes with the pools
    created_at: float = 0.0
    reserved_at: float = 0.0
    waits_since: float = 0.0
    waiters: list[Any] = field(default_factory=list)  #: tokens to answer

    @property
    def group_id(self) -> bytes:
        return self.spec.group_id

    def pools(self, index: int = -1) -> list[Candidate]:
        """What its leases may be placed in: all reserved bundles, or the one with this index."""
        bundles = self.bundles if index < 0 else self.bundles[index : index + 1]
        return [bundle.pool for bundle in bundles if bundle.pool is not None]

    def missing(self) -> list[Bundle]:
        return [bundle for bundle in self.bundles if bundle.pool is None]


def record_of(group: Group) -> GroupRecord:
    """What is written down of a group besides its `PlacementGroupSpec`."""
    bundles = [
        (bundle.node.node_id if bundle.node is not None else b"", bundle.taken.devices if bundle.taken else {})
        for bundle in group.bundles
    ]
    return GroupRecord(group.state, bundles, group.created_at, group.reserved_at)


class GroupChanged(Struct):
    """Write the group's row again."""

    group: Group


class GroupSettled(Struct):
    """Answer those who waited: the group is reserved (or not, `reserved`: it was removed)."""

    tokens: list[Any]
    reserved: bool


class GroupForgotten(Struct):
    """Delete the group's row."""

    group_id: bytes


Effect = Union[GroupChanged, GroupSettled, GroupForgotten]


class PlacementGroups:
    """All placement groups of a session.

    Args:
        nodes: the living nodes, shared with the scheduler.
    """

    def __init__(self, nodes: dict[bytes, Candidate]) -> None:
        self.groups: dict[bytes, Group] = {}
        self.waiting: dict[bytes, Group] = {}  #: PENDING and RESCHEDULING ones
        self._nodes = nodes
        self._names: dict[tuple[str, str], Group] = {}
        self._removed: deque[bytes] = deque()

    # -- events ----------------------------------------------------------------------------------------------------

    def create(self, spec: PlacementGroupSpec, now: float) -> tuple[Group, list[Effect]]:
        """Somebody wants a group; `schedule` will try it. What is known already changes nothing.

        Raises:
            GroupNameTakenError: and nothing changed.
        """
        known = self.groups.get(spec.group_id)
        if known is not None:
            return known, []
        if spec.name and (spec.namespace, spec.name) in self._names:
            raise GroupNameTakenError(spec.group_id, spec.name)
        group = self._add(spec, now)
        return group, [GroupChanged(group)]

    def _add(self, spec: PlacementGroupSpec, now: float) -> Group:
        selectors = spec.label_selectors or [{}] * len(spec.bundles)
        bundles = [
            Bundle(index, resources, parse_selector(selector))
            for index, (resources, selector) in enumerate(zip(spec.bundles, selectors, strict=True))
        ]
        group = self.groups[spec.group_id] = Group(spec, bundles, created_at=now, waits_since=now)
        self.waiting[spec.group_id] = group
        if spec.name:
            self._names.setdefault((spec.namespace, spec.name), group)
        return group

    def restore(self, spec: PlacementGroupSpec, record: GroupRecord, now: float) -> None:
        """Put back a group of an earlier head. Bundles whose nodes are gone are missing."""
        group = self._add(spec, now)
        group.created_at = record.created_at
        if record.state == REMOVED:
            self.remove(spec.group_id)
            return
        for bundle, (node_id, devices) in zip(group.bundles, record.bundles, strict=True):
            node = self._nodes.get(node_id)
            if node is not None:
                bundle.node = node
                ids = {name: [str(number) for number, _ in parts] for name, parts in devices.items()}
                bundle.taken = node.resources.adopt(bundle.resources, ids)
                bundle.taken.devices = devices
                self._make_pool(group, bundle)
        if not group.missing():
            self._step(group, RESERVED)
            group.progress = FINISHED
            group.reserved_at = record.reserved_at
            del self.waiting[spec.group_id]
        elif record.state != PENDING:
            group.state = RESCHEDULING

    def wait(self, group_id: bytes, token: Any) -> list[Effect]:
        """Somebody wants to know when it is reserved."""
        group = self.groups.get(group_id)
        if group is None or group.state == REMOVED:
            return [GroupSettled([token], False)]
        if group.state == CREATED:
            return [GroupSettled([token], True)]
        group.waiters.append(token)
        return []

    def remove(self, group_id: bytes) -> tuple[list[Candidate], list[Effect]]:
        """Somebody ends it. The pools that are gone with it."""
        group = self.groups.get(group_id)
        if group is None or group.state == REMOVED:
            return [], []
        self._step(group, ENDED)
        pools = group.pools()
        for bundle in group.bundles:
            if bundle.node is not None and bundle.taken is not None:
                bundle.node.resources.give_back(bundle.taken)
            bundle.node = bundle.taken = bundle.pool = None
        self.waiting.pop(group_id, None)
        name = (group.spec.namespace, group.spec.name)
        if self._names.get(name) is group:
            del self._names[name]
        group.progress = REMOVED
        effects: list[Effect] = [GroupChanged(group)]
        if group.waiters:
            effects.append(GroupSettled(group.waiters, False))
            group.waiters = []
        self._removed.append(group_id)
        while len(self._removed) > KEPT_REMOVED:
            oldest = self._removed.popleft()
            del self.groups[oldest]
            effects.append(GroupForgotten(oldest))
        return pools, effects

    def node_gone(self, node_id: bytes, now: float) -> list[Effect]:
        """A node is dead, and the bundles on it are lost."""
        effects: list[Effect] = []
        again: dict[bytes, Group] = {}
        for group in self.groups.values():
            lost = [bundle for bundle in group.bundles if bundle.node is not None and bundle.node.node_id == node_id]
            if not lost:
                continue
            for bundle in lost:
                bundle.node = bundle.taken = bundle.pool = None
            self._step(group, LOST)
            group.progress = QUEUED
            group.waits_since = now
            again[group.group_id] = group
            effects.append(GroupChanged(group))
        if again:
            self.waiting = {**again, **{key: group for key, group in self.waiting.items() if key not in again}}
        return effects

    def ending_with(self, *, job_id: bytes = b"", actor_id: bytes = b"") -> list[bytes]:
        """The groups that end with this job, or with this detached actor."""
        return [
            group.group_id
            for group in self.groups.values()
            if group.state != REMOVED
            and not group.spec.detached
            and (group.spec.creator == actor_id if actor_id else group.spec.job_id == job_id and not group.spec.creator)
        ]

    def named(self, name: str, namespace: str) -> Group | None:
        """The living group of this name."""
        return self._names.get((namespace, name))

    # -- the decision ----------------------------------------------------------------------------------------------

    def schedule(
        self, now: float, free_for: Callable[[Group], Free] | None = None, *, all_of_them: bool = True
    ) -> list[Effect]:
        """Reserve every waiting group that fits into what is free.

        Args:
            free_for: what a group may take of that, if not all.
            all_of_them: else only those that were not tried since they began to wait.
        """
        effects: list[Effect] = []
        free = {node_id: node.resources.available for node_id, node in self._nodes.items()}
        total = {node_id: node.resources.total for node_id, node in self._nodes.items()}
        for group in list(self.waiting.values()):
            if not all_of_them and group.progress != QUEUED:
                continue
            group.attempts += 1
            chosen = self.plan(group, free if free_for is None else free_for(group))
            if chosen is not None and self._reserve(group, chosen):
                self._step(group, RESERVED)
                group.progress = FINISHED
                group.reserved_at = now
                del self.waiting[group.group_id]
                effects.append(GroupChanged(group))
                if group.waiters:
                    effects.append(GroupSettled(group.waiters, True))
                    group.waiters = []
                continue
            progress = NO_RESOURCES if self.plan(group, total) is not None else INFEASIBLE
            if group.progress != progress:
                group.progress = progress
                effects.append(GroupChanged(group))
        return effects

    def plan(self, group: Group, free: Free) -> dict[int, Candidate] | None:
        """Where its missing bundles would go, if the nodes had this to give."""
        spec = group.spec
        taken = [bundle.node.node_id for bundle in group.bundles if bundle.node is not None]
        return place(
            spec.strategy,
            group.missing(),
            self._nodes.values(),
            free,
            taken=taken,
            soft_target=spec.soft_target,
            topology=spec.topology,
        )

    def _reserve(self, group: Group, chosen: dict[int, Candidate]) -> bool:
        """All of it, or nothing: devices may be in more pieces than their sum tells."""
        done: list[Bundle] = []
        for bundle in group.missing():
            node = chosen[bundle.index]
            if not node.resources.fits(bundle.resources):
                for earlier in done:
                    assert earlier.node is not None and earlier.taken is not None
                    earlier.node.resources.give_back(earlier.taken)
                    earlier.node = earlier.taken = None
                return False
            bundle.node = node
            bundle.taken = node.resources.take(bundle.resources)
            done.append(bundle)
        for bundle in done:
            self._make_pool(group, bundle)
        return True

    @staticmethod
    def _make_pool(group: Group, bundle: Bundle) -> None:
        assert bundle.node is not None and bundle.taken is not None
        bundle.pool = Candidate(
            bundle.node.node_id,
            NodeResources(bundle.resources, bundle.taken.devices),
            bundle.node.labels,
            0,
            group.group_id + bundle.index.to_bytes(4, "little"),
        )

    def _step(self, group: Group, event: str) -> None:
        """The only place where a state changes."""
        to = TRANSITIONS[group.state].get(event)
        if to is None:
            raise GroupTransitionError(f"group {group.group_id.hex()} cannot be {event} while it is {group.state}")
        group.state = to
        group.version += 1
