"""On which node a task runs: Ray's scheduling strategies, labels, and bundles of placement groups.

A `Need` is all that two claims may differ by for the scheduler: resources, strategy, labels, group. It knows its
*pools* (nodes, or bundles of its group) in *tiers*: the first tier that has room is taken, whatever the later ones
have.

| strategy | tiers | inside a tier |
|---|---|---|
| DEFAULT | nodes without GPUs (for who needs none), all | packed |
| SPREAD | all | the emptiest, in turn among equals |
| node affinity | the named node; a soft one: all, if it is gone or too small, with `spill` also if it is full | |
| node labels | those that match hard and soft; those that match hard | packed |
| label selector | those that match; those that match the first fallback; ... | as the strategy says |
| placement group | its bundles, or the one bundle | in order |

Packed means Ray's hybrid policy: the owner's node, then in order, each until it is half full; beyond that the
emptiest.

A strategy travels as msgpack: ``b""`` for DEFAULT, ``"SPREAD"``, ``["node", node_id, soft, spill, fail]``, or
``["labels", hard, soft]`` with lists of ``[key, operator, values]``.

What a pool would cost (`Need.score`) is remembered until something is taken from it or given back: a choice among a
hundred nodes looks at a hundred numbers, and computes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from miniray.messages.control import LeaseSpec
from miniray.state_machines.resources import NodeResources

HALF_FULL = 0.5
#: the score of a pool without room
_NO_ROOM = float("inf")

UNSCHEDULABLE = (
    "The node specified via NodeAffinitySchedulingStrategy doesn't exist any more or is infeasible, and soft=False was "
    "specified."
)


class Candidate(msgspec.Struct, gc=False, eq=False):
    """Something to take resources from: a living node, or a bundle of a placement group on it."""

    node_id: bytes
    resources: NodeResources
    labels: dict[str, str]
    last_used: int  #: number of the last placement there, for taking turns
    bundle: bytes = b""  #: of a bundle: group id and index
    last_taken: dict[str, int] = {}  #: what that placement took

    @property
    def key(self) -> bytes:
        return self.bundle or self.node_id


#: key, whether the value must not be one of these, the values
Term = tuple[str, bool, frozenset[str]]


def parse_selector(selector: Mapping[str, str]) -> list[Term]:
    """The terms of a label selector whose syntax was checked (`label_selectors`)."""
    terms: list[Term] = []
    for key, text in selector.items():
        negated = text.startswith("!")
        text = text.removeprefix("!")
        if text.endswith(")"):
            # A space after a comma belongs to the value, as on Ray, and so the value matches nothing.
            values = frozenset(text[text.index("(") + 1 : -1].split(","))
        else:
            values = frozenset((text,))
        terms.append((key, negated, values))
    return terms


def matches(labels: Mapping[str, str], terms: Iterable[Term]) -> bool:
    """Whether all terms hold; a label that is not there differs from every value."""
    return all((labels.get(key) in values) != negated for key, negated, values in terms)


def satisfies(labels: Mapping[str, str], expressions: Iterable[Sequence[Any]]) -> bool:
    """Whether all of a node label strategy's ``[key, operator, values]`` hold."""
    for key, operator, values in expressions:
        if operator == "In":
            holds = labels.get(key) in values
        elif operator == "NotIn":
            holds = labels.get(key) not in values
        else:
            holds = (key in labels) == (operator == "Exists")
        if not holds:
            return False
    return True


class Need:
    """What leases need, and where it could be had.

    Args:
        spec: of one of the claims; all of the same `key_of` share the need.
        held: for an actor, what it holds while it lives.
    """

    __slots__ = (
        "_scores",
        "_wants_gpu",
        "claims",
        "held",
        "is_full",
        "key",
        "keys",
        "pools",
        "queues",
        "refused",
        "selectors",
        "spec",
        "strategy",
        "tiers",
        "users",
        "version",
    )

    def __init__(self, key: Any, spec: LeaseSpec, held: dict[str, int] | None) -> None:
        self.key = key
        self.spec = spec
        self.held = held
        self.strategy = msgspec.msgpack.decode(spec.strategy) if spec.strategy else "DEFAULT"
        self.selectors = [parse_selector(spec.label_selector), *map(parse_selector, spec.fallback_selectors)]
        self.claims: dict[Any, Any] = {}  #: of the claims those that wait
        #: the same by job, as heaps; kept by the scheduler
        self.queues: dict[bytes, list[Any]] = {}
        self.users = 0  #: all claims
        self.version = -1  #: of the nodes, or of the group, that the tiers were made from
        self.is_full = False  #: it found no room when it was last looked at
        self.pools: list[Candidate] = []  #: all that could ever serve it
        self.keys: frozenset[bytes] = frozenset()  #: theirs
        self.tiers: list[list[Candidate]] = []
        self.refused = ""  #: why it can never be served
        self._wants_gpu = spec.resources.get("GPU", 0) > 0
        self._scores: dict[bytes, tuple[int, float]] = {}

    def look_at(self, nodes: Iterable[Candidate], version: int) -> None:
        """The nodes are these now."""
        self.version = version
        self._scores.clear()
        resources = self.spec.resources
        able = [node for node in nodes if node.resources.could_fit(resources)]
        self.refused = ""
        tiers: list[list[Candidate]] = []
        for terms in self.selectors:
            self._add_tiers([node for node in able if matches(node.labels, terms)] if terms else able, tiers)
        self.tiers = [tier for tier in tiers if tier]
        self.pools = self.tiers[0] if len(self.tiers) == 1 else list(dict.fromkeys(sum(self.tiers, [])))
        self.keys = frozenset(pool.key for pool in self.pools)
        if not self.pools and isinstance(self.strategy, list) and self.strategy[0] == "node" and not self.strategy[2]:
            self.refused = UNSCHEDULABLE

    def _add_tiers(self, able: list[Candidate], tiers: list[list[Candidate]]) -> None:
        strategy = self.strategy
        if isinstance(strategy, list) and strategy[0] == "node":
            _, node_id, soft, spill, _ = strategy
            named = [node for node in able if node.node_id == node_id]
            tiers.append(named)
            if soft and (spill or not named):
                tiers.append(able)
        elif isinstance(strategy, list):
            hard = [node for node in able if satisfies(node.labels, strategy[1])]
            if strategy[2]:
                tiers.append([node for node in hard if satisfies(node.labels, strategy[2])])
            tiers.append(hard)
        else:
            if strategy == "DEFAULT" and not self._wants_gpu:
                plain = [node for node in able if "GPU" not in node.resources.total]
                if len(plain) < len(able):
                    tiers.append(plain)
            tiers.append(able)

    def look_at_bundles(self, bundles: Sequence[Candidate], version: int) -> None:
        """The bundles of its group are these now; those that it may use."""
        self.version = version
        self._scores.clear()
        self.refused = ""
        self.pools = [bundle for bundle in bundles if bundle.resources.could_fit(self.spec.resources)]
        self.keys = frozenset(pool.key for pool in self.pools)
        self.tiers = [self.pools] if self.pools else []

    def score(self, pool: Candidate) -> float:
        """How full the pool is, before this is placed: infinite, if there is no room."""
        resources = pool.resources
        known = self._scores.get(pool.key)
        if known is not None and known[0] == resources.version:
            return known[1]
        score = resources.utilization() if resources.fits(self.spec.resources) else _NO_ROOM
        self._scores[pool.key] = (resources.version, score)
        return score

    def has_room(self) -> bool:
        """Whether any pool could serve it now."""
        score = self.score
        if any(score(pool) < _NO_ROOM for pool in self.pools):
            return True
        return self.held is not None and any(pool.resources.fits(self.held) for pool in self.pools)

    def fails_when_full(self) -> bool:
        """Whether its claims are refused when there is no room at once."""
        strategy = self.strategy
        return isinstance(strategy, list) and strategy[0] == "node" and bool(strategy[4])

    def choose(self, owner_node: bytes, admits: Callable[[Candidate], bool] | None = None) -> Candidate | None:
        """The pool to take it from now, None if it has to wait. `admits` may forbid some."""
        for tier in self.tiers:
            allowed = tier if admits is None else [pool for pool in tier if admits(pool)]
            chosen = self._choose(allowed, owner_node)
            if chosen is not None:
                return chosen
        if self.held is not None:
            held = self.held
            for tier in self.tiers:
                for pool in tier:
                    if (admits is None or admits(pool)) and pool.resources.fits(held):
                        return pool
        return None

    def _choose(self, tier: list[Candidate], owner_node: bytes) -> Candidate | None:
        score = self.score
        if self.strategy == "SPREAD":
            best = min(tier, key=lambda pool: (score(pool), pool.last_used), default=None)
            return None if best is None or score(best) == _NO_ROOM else best
        best, least = None, _NO_ROOM
        for pool in tier:
            cost = score(pool)
            if cost < HALF_FULL:
                if pool.node_id == owner_node or pool.bundle:
                    return pool
                cost = 0.0
            if cost < least or (cost == least != _NO_ROOM and pool.node_id == owner_node):
                best, least = pool, cost
        return best


def key_of(spec: LeaseSpec, held: Mapping[str, int] | None) -> Any:
    """What stands for all that a `Need` is made from."""
    return (
        tuple(sorted(spec.resources.items())),
        spec.strategy,
        tuple(sorted(spec.label_selector.items())) if spec.label_selector else (),
        tuple(tuple(sorted(selector.items())) for selector in spec.fallback_selectors),
        spec.placement_group_id,
        spec.bundle_index,
        None if held is None else tuple(sorted(held.items())),
    )
