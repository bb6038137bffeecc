"""Who is to move objects to disk, and how much: decided by the head, which alone knows how full the store of a node is.

The rules
---------
* Above the *threshold* (a share of the store, 0.8 in Ray) spilling begins in the background, so that the next object
  finds room. A process that needs room at once has moved its own objects before it asks for others'.
* Whoever has reserved most is asked first, and for no more than it has. Nobody is asked again before it has answered.
* Who could give nothing back (its objects are being looked at) is not asked again in the background until it has
  reserved more: its views end without a word to the head.

What a process moves, the oldest objects that nobody views, is its own business (`system.shared_memory`).
"""

from __future__ import annotations

from collections.abc import Mapping


class SpillPlanner:
    """Of one node. ``reserved`` are always the bytes that each of its processes holds."""

    def __init__(self) -> None:
        self.asked: dict[bytes, int] = {}  #: who has not answered yet: the bytes it had reserved when it was asked
        self._futile: dict[bytes, int] = {}  #: who had nothing to give: the bytes it had reserved then

    def in_background(self, excess: int, reserved: Mapping[bytes, int]) -> dict[bytes, int]:
        """Whom to ask for how many bytes, now that so many above the threshold are used."""
        if self.asked:
            return {}
        return self._ask(excess, {who: size for who, size in reserved.items() if size > self._futile.get(who, 0)})

    def on_demand(self, needed: int, reserved: Mapping[bytes, int]) -> dict[bytes, int]:
        """Whom to ask for how many bytes, when so many are missing, and somebody waits for them."""
        return self._ask(needed, {who: size for who, size in reserved.items() if who not in self.asked})

    def _ask(self, goal: int, reserved: Mapping[bytes, int]) -> dict[bytes, int]:
        plan: dict[bytes, int] = {}
        for who, size in sorted(reserved.items(), key=lambda item: (-item[1], item[0])):
            if goal <= 0:
                break
            if size > 0:
                plan[who] = min(size, goal)
                self.asked[who] = size
                goal -= plan[who]
        return plan

    def answered(self, who: bytes, reserved: int) -> None:
        """It has given back what it could, and holds so many bytes now."""
        before = self.asked.pop(who, None)
        if before is None:
            return
        if reserved < before:
            self._futile.pop(who, None)
        else:
            self._futile[who] = reserved

    def gone(self, who: bytes) -> None:
        """It is dead."""
        self.asked.pop(who, None)
        self._futile.pop(who, None)
