"""Parallel iterators: items that actors hold or make, transformed there, and gathered here.

A `ParallelIterator` is a list of shards, each in an actor, and of transformations that are done there. A
`LocalIterator` reads one shard or all of them, and its transformations are done by whoever reads it. Both are lazy,
and can be pickled before they are read.

Source: https://docs.ray.io/en/releases-1.13.0/iter.html
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import miniray
from miniray.util.iter_metrics import MetricsContext as MetricsContext
from miniray.util.iter_metrics import SharedMetrics
from miniray.util.local_iterator import LocalIterator

__all__ = [
    "LocalIterator",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]

_Transform = Callable[[LocalIterator], LocalIterator]


# ---- making them ----


def from_items(items: list[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """Items, dealt out to the shards one after the other.

    Args:
        num_shards: how many actors hold them.
        repeat: begin again at the end, for ever.
    """
    shards: list[list[Any]] = [[] for _ in range(num_shards)]
    for index, item in enumerate(items):
        shards[index % num_shards].append(item)
    kind = type(items[0]).__name__ if items else "None"
    name = f"from_items[{kind}, {len(items)}, shards={num_shards}{_repeats(repeat)}]"
    return from_iterators(shards, repeat=repeat, name=name)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The numbers below `n`, in as many pieces as there are shards."""
    size = n // num_shards
    ends = [size * (index + 1) for index in range(num_shards - 1)] + [n]
    shards = [range(size * index, end) for index, end in enumerate(ends)]
    return from_iterators(shards, repeat=repeat, name=f"from_range[{n}, shards={num_shards}{_repeats(repeat)}]")


def from_iterators(generators: list[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator:
    """One shard for each iterable, or function that makes one (what cannot be pickled has to be made there).

    Raises:
        TypeError: an iterable cannot be pickled.
    """
    worker: Any = miniray.remote(ParallelIteratorWorker)
    actors = [worker.remote(generator, repeat) for generator in generators]
    if not name:
        name = f"from_iterators[shards={len(generators)}{_repeats(repeat)}]"
    return from_actors(actors, name=name)


def from_actors(actors: list[Any], name: str | None = None) -> ParallelIterator:
    """Actors of classes that inherit from `ParallelIteratorWorker`, each a shard."""
    return ParallelIterator([_ActorSet(actors, [])], name or f"from_actors[shards={len(actors)}]", parent_iterators=[])


def _repeats(repeat: bool) -> str:
    return ", repeat=True" if repeat else ""


# ---- in the driver ----


class _ActorSet:
    """Actors, and what they are to do with their items."""

    def __init__(self, actors: list[Any], transforms: list[_Transform]) -> None:
        self.actors = actors
        self.transforms = transforms

    def init_actors(self) -> None:
        miniray.get([actor.par_iter_init.remote(self.transforms) for actor in self.actors])

    def with_transform(self, transform: _Transform) -> _ActorSet:
        return _ActorSet(self.actors, [*self.transforms, transform])


class ParallelIterator:
    """Shards in actors. Made by `from_items` and its kin; read through `gather_sync`, `gather_async` or `get_shard`.

    Args:
        actor_sets, name, parent_iterators: internal.
    """

    def __init__(self, actor_sets: list[_ActorSet], name: str, parent_iterators: list[ParallelIterator]) -> None:
        self.actor_sets = actor_sets
        self.name = name
        self.parent_iterators = parent_iterators  # whose actors live as long as this

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "You must use it.gather_sync() or it.gather_async() to iterate over the results of a ParallelIterator."
        )

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    __str__ = __repr__

    # -- transformations in the actors -----------------------------------------------------------------------------

    def _with_transform(self, local_it_fn: _Transform, name: str) -> ParallelIterator:
        sets = [actor_set.with_transform(local_it_fn) for actor_set in self.actor_sets]
        return ParallelIterator(sets, self.name + name, parent_iterators=[*self.parent_iterators, self])

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> ParallelIterator:
        """Let a function turn each shard's iterator into another."""
        return self._with_transform(lambda local: local.transform(fn), ".transform()")

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> ParallelIterator:
        """Apply a function to each item.

        Args:
            max_concurrency: with more than 1, so many tasks of a shard at once, and in no order.
            resources: options of these tasks.
        """
        assert max_concurrency >= 0, "max_concurrency must be non-negative."
        return self._with_transform(
            lambda local: local.for_each(fn, max_concurrency, resources),
            ".for_each()",
        )

    def filter(self, fn: Callable[[Any], bool]) -> ParallelIterator:
        """Keep the items for which `fn` is true."""
        return self._with_transform(lambda local: local.filter(fn), ".filter()")

    def batch(self, n: int) -> ParallelIterator:
        """Lists of up to `n` items of a shard."""
        return self._with_transform(lambda local: local.batch(n), f".batch({n})")

    def flatten(self) -> ParallelIterator:
        """The items of the items."""
        return self._with_transform(lambda local: local.flatten(), ".flatten()")

    def combine(self, fn: Callable[[Any], list[Any]]) -> ParallelIterator:
        """The items of what `fn` returns for each item."""
        return self._with_transform(lambda local: local.combine(fn), ".combine()")

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Mix the items of each shard, within a buffer of so many."""
        return self._with_transform(
            lambda local: local.shuffle(shuffle_buffer_size, seed),
            f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})",
        )

    # -- other shards ----------------------------------------------------------------------------------------------

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator:
        """The same items in so many shards, dealt out one after the other.

        Args:
            batch_ms: milliseconds for which each shard collects items before they travel.
        """
        for actor_set in self.actor_sets:
            actor_set.init_actors()
        sources = [actor for actor_set in self.actor_sets for actor in actor_set.actors]

        def slice_of(start: int) -> Callable[[], Iterator[Any]]:
            def items() -> Iterator[Any]:
                return _read_as_ready(
                    sources, lambda actor: actor.par_iter_slice_batch.remote(num_partitions, start, batch_ms), 1
                )

            return items

        worker: Any = miniray.remote(ParallelIteratorWorker)
        actors = [worker.remote(slice_of(start), False) for start in range(num_partitions)]
        name = f"{self.name}.repartition[num_partitions={num_partitions}]"
        return ParallelIterator([_ActorSet(actors, [])], name, parent_iterators=[self])

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """The shards of both."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        sets = [*self.actor_sets, *other.actor_sets]
        return ParallelIterator(sets, f"ParallelUnion[{self}, {other}]", parent_iterators=[self, other])

    def select_shards(self, shards_to_keep: list[int]) -> ParallelIterator:
        """These shards only."""
        if len(self.actor_sets) > 1:
            raise ValueError("select_shards() is not allowed after union()")
        if len(shards_to_keep) == 0:
            raise ValueError("at least one shard must be selected")
        old = self.actor_sets[0]
        kept = _ActorSet([old.actors[index] for index in shards_to_keep], old.transforms)
        name = f"{self}.select_shards({len(shards_to_keep)} total)"
        return ParallelIterator([kept], name, parent_iterators=[self])

    def num_shards(self) -> int:
        """How many there are."""
        return sum(len(actor_set.actors) for actor_set in self.actor_sets)

    def shards(self) -> list[LocalIterator]:
        """An iterator of each."""
        return [self.get_shard(index) for index in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """An iterator of one shard, in its order.

        Args:
            batch_ms: milliseconds for which the shard collects items before they travel.
            num_async: how many requests are under way.

        Raises:
            ValueError: less than 1 request, or less than no milliseconds; there is no such shard.
        """
        _check_fetching(batch_ms, num_async)
        chosen: tuple[Any, list[_Transform]] | None = None
        index = shard_index
        for actor_set in self.actor_sets:
            if index < len(actor_set.actors):
                chosen = actor_set.actors[index], actor_set.transforms
                break
            index -= len(actor_set.actors)
        if chosen is None:
            raise ValueError("Shard index out of range", shard_index, self.num_shards())
        actor, transforms = chosen

        def items(timeout: float | None = None) -> Iterator[Any]:
            miniray.get(actor.par_iter_init.remote(transforms))
            pending = collections.deque(actor.par_iter_next_batch.remote(batch_ms) for _ in range(num_async))
            while True:
                try:
                    batch = miniray.get(pending.popleft())
                except StopIteration:
                    return
                pending.append(actor.par_iter_next_batch.remote(batch_ms))
                yield from batch

        return LocalIterator(items, SharedMetrics(), name=f"{self.name}.shard[{shard_index}]")

    # -- gathering ---------------------------------------------------------------------------------------------------

    def batch_across_shards(self) -> LocalIterator:
        """Lists with one item of each shard, fetched in parallel."""

        def rounds(timeout: float | None = None) -> Iterator[list[Any]]:
            active = self._started()
            while active:
                futures = [actor.par_iter_next.remote() for actor in active]
                results, still = [], []
                for actor, future in zip(active, futures, strict=True):
                    try:
                        results.append(miniray.get(future))
                    except StopIteration:
                        continue
                    still.append(actor)
                active = still
                if results:
                    yield results

        return LocalIterator(rounds, SharedMetrics(), name=f"{self}.batch_across_shards()")

    def gather_sync(self) -> LocalIterator:
        """All items, one of each shard in turn."""
        local = self.batch_across_shards().flatten()
        local.name = f"{self}.gather_sync()"
        return local

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """All items, as they are ready.

        Args:
            batch_ms: milliseconds for which each shard collects items before they travel.
            num_async: how many requests to each shard are under way.

        Raises:
            ValueError: less than 1 request, or less than no milliseconds.
        """
        _check_fetching(batch_ms, num_async)
        local: LocalIterator

        def items(timeout: float | None = None) -> Iterator[Any]:
            def note(actor: Any) -> None:
                local.shared_metrics.get().current_actor = actor

            fetch = lambda actor: actor.par_iter_next_batch.remote(batch_ms)
            yield from _read_as_ready(self._started(), fetch, num_async, note)

        local = LocalIterator(items, SharedMetrics(), name=f"{self}.gather_async()")
        return local

    def _started(self) -> list[Any]:
        for actor_set in self.actor_sets:
            actor_set.init_actors()
        return [actor for actor_set in self.actor_sets for actor in actor_set.actors]

    def take(self, n: int) -> list[Any]:
        """Up to the first `n` items."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print up to the first `n` items."""
        self.gather_sync().show(n)


def _check_fetching(batch_ms: int, num_async: int) -> None:
    if num_async < 1:
        raise ValueError("queue depth must be positive")
    if batch_ms < 0:
        raise ValueError("batch time must be positive")


def _read_as_ready(
    actors: list[Any],
    fetch: Callable[[Any], Any],
    num_async: int,
    note: Callable[[Any], None] = lambda actor: None,
) -> Iterator[Any]:
    """The items of the batches that `fetch` asks actors for, as they are ready; `note` is told whose come next."""
    pending = {fetch(actor): actor for _ in range(num_async) for actor in actors}
    while pending:
        (ready, *_), _ = miniray.wait(list(pending), num_returns=1)
        actor = pending.pop(ready)
        try:
            batch = miniray.get(ready)
        except StopIteration:
            continue
        pending[fetch(actor)] = actor
        for item in batch:
            note(actor)
            yield item


class _NextValueNotReady(Exception):
    """Stands in the place of an item that is not there yet, in iterators with a time limit."""


# ---- in the actors ----


class ParallelIteratorWorker:
    """The base of actors that hold a shard.

    Args:
        item_generator: an iterable, or a function that makes one.
        repeat: begin again at the end, for ever.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        def make() -> Iterator[Any]:
            while True:
                yield from item_generator() if callable(item_generator) else item_generator
                if not repeat:
                    return

        self._make = make
        self._transforms: list[_Transform] = []
        self._items: Iterator[Any] | None = None
        self._slices: dict[int, collections.deque[Any]] = {}

    def par_iter_init(self, transforms: list[_Transform]) -> None:
        """Begin, with these transformations."""
        local = LocalIterator(lambda timeout: self._make(), SharedMetrics())
        for transform in transforms:
            local = transform(local)
        self._items = iter(local)
        self._slices = {}

    def par_iter_next(self) -> Any:
        """The next item.

        Raises:
            StopIteration: that was the last one.
        """
        assert self._items is not None, "must call par_iter_init()"
        return next(self._items)

    def par_iter_next_batch(self, batch_ms: int) -> list[Any]:
        """What comes within so many milliseconds, one item at least.

        Raises:
            StopIteration: there are no more.
        """
        return _collect(self.par_iter_next, batch_ms)

    def par_iter_slice(self, step: int, start: int) -> Any:
        """The next of the items number `start`, `start + step`, and so on.

        Raises:
            StopIteration: there are no more.
        """
        if not self._slices:
            self._slices = {index: collections.deque() for index in range(step)}
        while not self._slices[start]:
            for index in range(step):
                try:
                    item = self.par_iter_next()
                except StopIteration:
                    if not self._slices[start]:
                        raise
                    break
                self._slices[index].append(item)
        return self._slices[start].popleft()

    def par_iter_slice_batch(self, step: int, start: int, batch_ms: int) -> list[Any]:
        """What `par_iter_slice` gives within so many milliseconds, one item at least.

        Raises:
            StopIteration: there are no more.
        """
        return _collect(lambda: self.par_iter_slice(step, start), batch_ms)


def _collect(take: Callable[[], Any], milliseconds: int) -> list[Any]:
    deadline = time.monotonic() + milliseconds / 1000
    batch = [take()]
    while time.monotonic() < deadline:
        try:
            batch.append(take())
        except StopIteration:
            break
    return batch
