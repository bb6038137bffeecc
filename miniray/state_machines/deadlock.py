"""Who waits for whom, and whether that can ever end.

Terms: a *node* is whatever can wait: a task or call, the driver, an actor's creation. It *needs* things; of its needs
so many (`required`) must be met before it goes on. A need is met by any one of its *targets* (other nodes) once that
has gone on; a need without targets is never met.

Rules
-----
1. A node that does not wait goes on.
2. A node that waits goes on if enough of its needs have a target that goes on.
3. The rest waits for ever. That is a fixpoint: everything is taken for stuck until something frees it.

So `get` of several refs requires all its needs, `wait` some, and what waits for its turn at an actor needs any of the
calls that hold the actor up (AND-OR graphs; Knapp, "Deadlock detection in distributed databases", 1987).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from msgspec import Struct

Node = Hashable


class Need(Struct, frozen=True):
    """One thing that is waited for."""

    what: str  #: in words
    targets: tuple[Node, ...]  #: who can bring it about


class Waiting(Struct, frozen=True):
    """A node that waits."""

    who: str  #: in words
    required: int  #: how many of the needs must be met
    needs: tuple[Need, ...]


def stuck(waiting: Mapping[Node, Waiting]) -> set[Node]:
    """The nodes that wait for ever."""
    left = set(waiting)
    moved = True
    while moved:
        freed = {node for node in left if _goes_on(waiting[node], left)}
        left -= freed
        moved = bool(freed)
    return left


def _goes_on(waiting: Waiting, left: set[Node]) -> bool:
    return sum(_is_met(need, left) for need in waiting.needs) >= waiting.required


def _is_met(need: Need, left: set[Node]) -> bool:
    return any(target not in left for target in need.targets)


def chain(waiting: Mapping[Node, Waiting], start: Node) -> tuple[list[tuple[Node, Need]], int]:
    """Why `start`, which is stuck, is: from each node the need that is not met, and on to one of its targets.

    Returns:
        The steps, and the index of the step that the last one leads back to; -1 if it leads nowhere.
    """
    left = stuck(waiting)
    steps: list[tuple[Node, Need]] = []
    seen: dict[Node, int] = {}
    node = start
    while node not in seen:
        seen[node] = len(steps)
        need = next(need for need in waiting[node].needs if not _is_met(need, left))
        steps.append((node, need))
        if not need.targets:
            return steps, -1
        # Back to where it came from, if it can: that is the shortest story.
        node = next((target for target in need.targets if target in seen), need.targets[0])
    return steps, seen[node]


def describe(waiting: Mapping[Node, Waiting], steps: Sequence[tuple[Node, Need]], back_to: int) -> str:
    """The chain in words, a line each."""
    lines = [f"  {waiting[node].who} waits for {need.what}" for node, need in steps]
    if back_to >= 0:
        lines.append(f"  ... and so on, from line {back_to + 1}: a cycle.")
    return "\n".join(lines)
