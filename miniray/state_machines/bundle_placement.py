"""Which bundle of a placement group goes to which node: Ray's four strategies, all bundles or none.

| strategy | promise | how |
|---|---|---|
| STRICT_PACK | all on one node | the emptiest node that has room for the sum |
| PACK | as few nodes as possible | node after node takes as many of the largest bundles as it has room for |
| SPREAD | as many nodes as possible | each on a node of its own while there are any; then on the emptiest |
| STRICT_SPREAD | no two on one node | a matching of bundles and nodes: if there is one, it is found |

The answer counts with the free resources that it is given (`free`), and takes nothing. So the same question can be
asked of what is free now, of what would be free if revocable leases were back, and of what empty nodes have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from miniray.state_machines.node_choice import Candidate, Term, matches
from miniray.state_machines.resources import NodeResources

#: what each node has to give, by node id
Free = Mapping[bytes, Mapping[str, int]]


class BundleLike(Protocol):
    """A bundle that wants a place."""

    index: int
    resources: dict[str, int]
    terms: list[Term]


def place(
    strategy: str,
    bundles: Sequence[BundleLike],
    nodes: Iterable[Candidate],
    free: Free,
    *,
    taken: Iterable[bytes] = (),
    soft_target: bytes = b"",
    topology: str = "",
) -> dict[int, Candidate] | None:
    """A node for each bundle (index -> node), None if there is no room for all.

    Args:
        nodes: the living ones.
        free: what each of them has to give, in units.
        taken: nodes that hold other bundles of the group already.
        soft_target: the node that STRICT_PACK tries first.
        topology: a label whose value all nodes have to share.
    """
    nodes = list(nodes)
    taken = set(taken)
    if not topology:
        return _place(strategy, bundles, nodes, free, taken, soft_target)
    values = {node.labels.get(topology) for node in nodes if not taken or node.node_id in taken} - {None}
    if len(values) > 1 and taken:
        return None
    for value in sorted(values, key=str):
        alike = [node for node in nodes if node.labels.get(topology) == value]
        found = _place(strategy, bundles, alike, free, taken, soft_target)
        if found is not None:
            return found
    return None


def _place(
    strategy: str,
    bundles: Sequence[BundleLike],
    nodes: list[Candidate],
    free: Free,
    taken: set[bytes],
    soft_target: bytes,
) -> dict[int, Candidate] | None:
    if strategy == "STRICT_PACK":
        return _strict_pack(bundles, nodes, free, taken, soft_target)
    if strategy == "STRICT_SPREAD":
        return _strict_spread(bundles, [node for node in nodes if node.node_id not in taken], free)
    room = _Room(nodes, free)
    ordered = sorted(bundles, key=lambda bundle: _size(bundle, nodes), reverse=True)
    return _pack(ordered, room, taken) if strategy == "PACK" else _spread(ordered, room, taken)


class _Room:
    """What is left of each node while bundles are put there."""

    def __init__(self, nodes: list[Candidate], free: Free) -> None:
        self.nodes = nodes
        self.left = {node.node_id: dict(free[node.node_id]) for node in nodes}

    def fits(self, node: Candidate, bundle: BundleLike) -> bool:
        left = self.left[node.node_id]
        return matches(node.labels, bundle.terms) and all(
            left.get(name, 0) >= units for name, units in bundle.resources.items() if units > 0
        )

    def take(self, node: Candidate, bundle: BundleLike) -> None:
        left = self.left[node.node_id]
        for name, units in bundle.resources.items():
            if units > 0:
                left[name] -= units

    def emptiness(self, node: Candidate, bundle: BundleLike) -> float:
        """How much of what the bundle asks for would be left over."""
        left = self.left[node.node_id]
        return sum((left[name] - units) / left[name] for name, units in bundle.resources.items() if units > 0)

    def best(self, nodes: Iterable[Candidate], bundle: BundleLike) -> Candidate | None:
        """The emptiest one with room."""
        fitting = [node for node in nodes if self.fits(node, bundle)]
        return max(fitting, key=lambda node: self.emptiness(node, bundle), default=None)


def _size(bundle: BundleLike, nodes: list[Candidate]) -> tuple[int, float]:
    """Bundles that few nodes could have come first; of those the ones that take the largest part of a node."""
    able = [
        node.resources for node in nodes if _could_hold(node.resources, bundle) and matches(node.labels, bundle.terms)
    ]
    share = max(
        (units / resources.total[name] for resources in able for name, units in bundle.resources.items() if units > 0),
        default=0.0,
    )
    return -len(able), share


def _could_hold(resources: NodeResources, bundle: BundleLike) -> bool:
    return resources.could_fit(bundle.resources)


def _strict_pack(
    bundles: Sequence[BundleLike], nodes: list[Candidate], free: Free, taken: set[bytes], soft_target: bytes
) -> dict[int, Candidate] | None:
    able = [node for node in nodes if not taken or node.node_id in taken]
    targets = [node for node in able if node.node_id == soft_target]
    for choice in (targets, able):
        best: tuple[float, Candidate] | None = None
        for node in choice:
            room = _Room([node], free)
            left = 0.0
            for bundle in bundles:
                if not room.fits(node, bundle):
                    break
                left = room.emptiness(node, bundle)
                room.take(node, bundle)
            else:
                if best is None or left > best[0]:
                    best = (left, node)
        if best is not None:
            return dict.fromkeys((bundle.index for bundle in bundles), best[1])
    return None


def _pack(ordered: Sequence[BundleLike], room: _Room, taken: set[bytes]) -> dict[int, Candidate] | None:
    found: dict[int, Candidate] = {}
    waiting = list(ordered)
    used = [node for node in room.nodes if node.node_id in taken]
    while waiting:
        node = next((node for node in used if room.fits(node, waiting[0])), None)
        if node is None:
            # Where most of the rest fits as well; among equals the emptiest.
            fitting = [node for node in room.nodes if room.fits(node, waiting[0])]
            first = waiting[0]
            node = max(
                fitting, key=lambda node: (_how_many(room, node, waiting), room.emptiness(node, first)), default=None
            )
            if node is None:
                return None
            used.append(node)
        rest = []
        for bundle in waiting:
            if room.fits(node, bundle):
                room.take(node, bundle)
                found[bundle.index] = node
            else:
                rest.append(bundle)
        waiting = rest
    return found


def _how_many(room: _Room, node: Candidate, bundles: Sequence[BundleLike]) -> int:
    trial = _Room([node], room.left)
    number = 0
    for bundle in bundles:
        if trial.fits(node, bundle):
            trial.take(node, bundle)
            number += 1
    return number


def _spread(ordered: Sequence[BundleLike], room: _Room, taken: set[bytes]) -> dict[int, Candidate] | None:
    # As many as can be on nodes of their own; what then is left goes anywhere.
    fresh = [node for node in room.nodes if node.node_id not in taken]
    found = _match(ordered, fresh, room)
    for bundle in ordered:
        if bundle.index in found:
            room.take(found[bundle.index], bundle)
    for bundle in ordered:
        if bundle.index not in found:
            node = room.best(room.nodes, bundle)
            if node is None:
                return None
            room.take(node, bundle)
            found[bundle.index] = node
    return found


def _strict_spread(bundles: Sequence[BundleLike], nodes: list[Candidate], free: Free) -> dict[int, Candidate] | None:
    if len(bundles) > len(nodes):
        return None
    found = _match(bundles, nodes, _Room(nodes, free))
    return found if len(found) == len(bundles) else None


def _match(bundles: Sequence[BundleLike], nodes: list[Candidate], room: _Room) -> dict[int, Candidate]:
    """As many bundles as possible, each with a node of its own: augmenting paths (Kuhn's algorithm)."""
    options: list[list[Candidate]] = []
    for bundle in bundles:
        fitting = [node for node in nodes if room.fits(node, bundle)]
        fitting.sort(key=lambda node, bundle=bundle: -room.emptiness(node, bundle))  # type: ignore[misc]
        options.append(fitting)
    holder: dict[bytes, int] = {}  # node -> place in `bundles`

    def settle(place: int, tried: set[bytes]) -> bool:
        for node in options[place]:
            if node.node_id not in tried:
                tried.add(node.node_id)
                if node.node_id not in holder or settle(holder[node.node_id], tried):
                    holder[node.node_id] = place
                    return True
        return False

    for place in range(len(bundles)):
        settle(place, set())
    by_id = {node.node_id: node for node in nodes}
    return {bundles[place].index: by_id[node_id] for node_id, place in holder.items()}
