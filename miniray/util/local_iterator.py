"""Iterators whose items come from actors, and are transformed and joined by whoever reads them.

Source: https://docs.ray.io/en/releases-1.13.0/iter.html
"""

from __future__ import annotations

import collections
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import miniray
from miniray.util.iter_metrics import MetricsContext, SharedMetrics


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
