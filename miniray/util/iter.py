"""Parallel iterators: items that actors hold or make, transformed there, and gathered here.

A `ParallelIterator` is a list of shards, each in an actor, and of transformations that are done there. A
`LocalIterator` reads one shard or all of them, and its transformations are done by whoever reads it. Both are lazy,
and can be pickled before they are read.

Source: https://docs.ray.io/en/releases-1.13.0/iter.html
"""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import miniray
from miniray.util.iter_metrics import MetricsContext as MetricsContext
from miniray.util.iter_metrics import SharedMetrics

_Transform = Callable[["LocalIterator"], "LocalIterator"]


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


# ---- wherever it is read ----


class LocalIterator:
    """Items one after the other, and what is to be done with them by whoever reads.

    Args:
        base_iterator: called when the reading begins, with a time limit; makes the items.
        shared_metrics, local_transforms, timeout, name: internal.
    """

    thread_local = threading.local()

    def __init__(
        self,
        base_iterator: Callable[..., Iterable[Any]],
        shared_metrics: SharedMetrics,
        local_transforms: list[Callable[[Iterable[Any]], Any]] | None = None,
        timeout: int | None = None,
        name: str | None = None,
    ) -> None:
        assert isinstance(shared_metrics, SharedMetrics)
        self.base_iterator = base_iterator
        self.built_iterator: Iterator[Any] | None = None
        self.local_transforms = local_transforms or []
        self.shared_metrics = shared_metrics
        self.timeout = timeout
        self.name = name or "unknown"

    @staticmethod
    def get_metrics() -> MetricsContext:
        """The metrics of the iterator whose function runs.

        Raises:
            ValueError: none runs.
        """
        metrics = getattr(LocalIterator.thread_local, "metrics", None)
        if metrics is None:
            raise ValueError("Cannot access context outside an iterator.")
        return metrics  # type: ignore[no-any-return]

    @contextmanager
    def _metrics_context(self) -> Iterator[None]:
        before = getattr(self.thread_local, "metrics", None)
        self.thread_local.metrics = self.shared_metrics.get()
        try:
            yield
        finally:
            self.thread_local.metrics = before

    def _build_once(self) -> Iterator[Any]:
        if self.built_iterator is None:
            items: Any = iter(self.base_iterator(self.timeout))
            for transform in self.local_transforms:
                items = transform(items)
            self.built_iterator = iter(items)
        return self.built_iterator

    def __iter__(self) -> Iterator[Any]:
        return self._build_once()

    def __next__(self) -> Any:
        return next(self._build_once())

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    __str__ = __repr__

    def _then(self, transform: Callable[[Iterable[Any]], Iterable[Any]], name: str) -> LocalIterator:
        transforms = [*self.local_transforms, transform]
        return LocalIterator(self.base_iterator, self.shared_metrics, transforms, name=self.name + name)

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> LocalIterator:
        """Let a function turn the iterator into another."""
        return self._then(lambda items: _in_context(self, fn(items)), ".transform()")

    def for_each(self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: Any = None) -> LocalIterator:
        """Apply a function to each item.

        Args:
            max_concurrency: with more than 1, so many tasks at once, and in no order.
            resources: options of these tasks.
        """
        if max_concurrency != 1:
            return self._then(lambda items: _concurrently(items, fn, max_concurrency, resources or {}), ".for_each()")

        def apply(items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                with self._metrics_context():
                    result = fn(item)
                yield result

        return self._then(apply, ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> LocalIterator:
        """Keep the items for which `fn` is true."""

        def apply(items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                with self._metrics_context():
                    keep = fn(item)
                if keep:
                    yield item

        return self._then(apply, ".filter()")

    def batch(self, n: int) -> LocalIterator:
        """Lists of up to `n` items."""

        def apply(items: Iterable[Any]) -> Iterator[list[Any]]:
            batch = []
            for item in items:
                batch.append(item)
                if len(batch) >= n:
                    yield batch
                    batch = []
            if batch:
                yield batch

        return self._then(apply, f".batch({n})")

    def flatten(self) -> LocalIterator:
        """The items of the items."""
        return self._then(lambda items: (inner for item in items for inner in item), ".flatten()")

    def combine(self, fn: Callable[[Any], list[Any]]) -> LocalIterator:
        """The items of what `fn` returns for each item."""
        combined = self.for_each(fn).flatten()
        combined.name = self.name + ".combine()"
        return combined

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """Mix the items, within a buffer of so many."""

        def apply(items: Iterable[Any]) -> Iterator[Any]:
            chance = random.Random(seed)
            buffer: list[Any] = []
            for item in items:
                buffer.append(item)
                if len(buffer) >= shuffle_buffer_size:
                    yield buffer.pop(chance.randint(0, len(buffer) - 1))
            while buffer:
                yield buffer.pop(chance.randint(0, len(buffer) - 1))

        return self._then(apply, f".shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})")

    def zip_with_source_actor(self) -> LocalIterator:
        """Pairs of actor and item.

        Raises:
            ValueError: (when it is read) it is not known which actor has made an item; after `gather_async` it is.
        """

        def apply(items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            for item in items:
                actor = self.shared_metrics.get().current_actor
                if actor is None:
                    raise ValueError("Could not identify source actor of item")
                yield actor, item

        return self._then(apply, ".zip_with_source_actor()")

    def take(self, n: int) -> list[Any]:
        """Up to the first `n` items."""
        return [item for _, item in zip(range(n), self, strict=False)]

    def show(self, n: int = 20) -> None:
        """Print up to the first `n` items."""
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator]:
        """So many iterators of the same items, each of which is read once from this one.

        Raises:
            ValueError: less than 2.
        """
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        queues: list[collections.deque[Any]] = [collections.deque() for _ in range(n)]

        def copy(index: int) -> Callable[..., Iterator[Any]]:
            def items(timeout: float | None = None) -> Iterator[Any]:
                while True:
                    if not queues[index]:
                        try:
                            item = next(self)
                        except StopIteration:
                            return
                        for queue in queues:
                            queue.append(item)
                    yield queues[index].popleft()

            return items

        return [
            LocalIterator(copy(index), self.shared_metrics, name=f"{self.name}.duplicate[{index}]")
            for index in range(n)
        ]

    def union(
        self, *others: LocalIterator, deterministic: bool = False, round_robin_weights: list[Any] | None = None
    ) -> LocalIterator:
        """The items of all, in turns.

        Args:
            deterministic: kept: turns are always taken in order here.
            round_robin_weights: how many items each gives in its turn; "*": all it has.

        Raises:
            ValueError: what is to be joined is no `LocalIterator`.
        """
        for other in others:
            if not isinstance(other, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(other)}")
        parents = [self, *others]
        weights = round_robin_weights or [1] * len(parents)
        joined = SharedMetrics(parents=[parent.shared_metrics for parent in parents])

        def items(timeout: float | None = None) -> Iterator[Any]:
            active = list(zip(weights, parents, strict=True))
            while active:
                for weight, parent in list(active):
                    left = float("inf") if weight == "*" else weight
                    while left > 0:
                        left -= 1
                        try:
                            item = next(parent)
                        except StopIteration:
                            active.remove((weight, parent))
                            break
                        yield item

        name = f"LocalUnion[{self}, {', '.join(map(str, others))}]"
        return LocalIterator(items, joined, name=name)


def _in_context(local: LocalIterator, items: Iterable[Any]) -> Iterator[Any]:
    iterator = iter(items)
    while True:
        with local._metrics_context():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _concurrently(items: Iterable[Any], fn: Callable[[Any], Any], limit: int, options: dict[str, Any]) -> Iterator[Any]:
    """Results of tasks, as they are ready; up to `limit` run at once (0: any number)."""

    def call(item: Any) -> Any:
        return fn(item)

    task: Any = miniray.remote(**options)(call) if options else miniray.remote(call)
    running: list[Any] = []
    for item in items:
        if limit and len(running) >= limit:
            (done, *_), running = miniray.wait(running, num_returns=1)
            yield miniray.get(done)
        running.append(task.remote(item))
    while running:
        (done, *_), running = miniray.wait(running, num_returns=1)
        yield miniray.get(done)


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
