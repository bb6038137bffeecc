"""The scheduling classes of an owner: tasks with the same needs share one, with its queue and its leases.

Classes come and go: a new shape of resources makes one, and so does each node where large arguments lie (`near`).
Those with nothing to do are *forgotten* beyond `KEPT`, here and at the head, the longest known first. Whoever still
holds a forgotten class (a bound remote function) may go on with it: it is known again as soon as it wants a lease.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from miniray.messages.control import LeaseSpec

if TYPE_CHECKING:
    from miniray.state_machines.task_submission import Lease, PendingTask

#: Classes that are known, the busy ones not counted in.
KEPT = 100


class SchedulingClass:
    """Tasks with the same needs: their queue and their leases."""

    __slots__ = (
        "base",
        "class_id",
        "demanded",
        "is_choosy",
        "key",
        "leases",
        "near",
        "open",
        "queue",
        "spec",
        "spec_sent",
    )

    def __init__(self, class_id: int, key: Any, spec: LeaseSpec) -> None:
        self.class_id = class_id
        self.key = key
        self.spec = spec
        self.queue: deque[PendingTask] = deque()
        self.leases: dict[int, Lease] = {}
        self.open: deque[Lease] = deque()  #: leases that may have room
        self.demanded = 0
        self.spec_sent = False
        self.near = b""  #: the node where large arguments of these tasks lie; b"": the owner's own
        self.base: SchedulingClass | None = None  #: the class without `near`
        #: where it runs depends on what is free: an idle lease of its owner would be in its way
        self.is_choosy = bool(spec.strategy or spec.fallback_selectors)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing, and wants nothing."""
        return not (self.queue or self.leases or self.demanded)


class SchedulingClasses:
    """All classes of one owner, by number and by key."""

    def __init__(self) -> None:
        self.by_id: dict[int, SchedulingClass] = {}
        self._by_key: dict[Any, SchedulingClass] = {}
        self._numbers = count(1)

    def of(self, key: Any, spec: LeaseSpec) -> SchedulingClass:
        """The class with this key (anything hashable that stands for the spec), made when new."""
        found = self._by_key.get(key)
        if found is None:
            found = SchedulingClass(next(self._numbers), key, spec)
            self.remember(found)
        return found

    def near(self, cls: SchedulingClass, node_id: bytes) -> SchedulingClass:
        """The class of tasks with the same needs whose arguments lie on that node; b"": on the owner's own."""
        base = cls.base or cls
        if not node_id:
            return base
        found = self.of((base.key, node_id), base.spec)
        found.near = node_id
        found.base = base
        return found

    def remember(self, cls: SchedulingClass) -> None:
        """It wants a lease: it is known, if it was forgotten."""
        if cls.class_id not in self.by_id:
            self.by_id[cls.class_id] = cls
            self._by_key.setdefault(cls.key, cls)

    def forget_idle(self) -> list[SchedulingClass]:
        """Forget as many idle ones as there are too many. Returns them: the head is to forget them too."""
        surplus = len(self.by_id) - KEPT
        if surplus <= 0:
            return []
        forgotten = [cls for cls in list(self.by_id.values()) if cls.is_idle][:surplus]
        for cls in forgotten:
            del self.by_id[cls.class_id]
            if self._by_key.get(cls.key) is cls:
                del self._by_key[cls.key]
        return forgotten
