"""`as_completed` and `map_unordered`: results as they come.

As https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.as_completed.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import miniray

__all__ = ["as_completed", "map_unordered"]


def as_completed(
    refs: Sequence[Any], *, chunk_size: int = 10, yield_obj_refs: bool = False, **kwargs: Any
) -> Iterator[Any]:
    """Iterate over the values of refs (or the refs, with `yield_obj_refs`) as they become ready.

    Args:
        refs: a list of different refs.
        chunk_size: how many are waited for at a time.
        **kwargs: for `wait`: `timeout`, `fetch_local`.

    Raises:
        ValueError: `chunk_size` below 1, or `num_returns` given.
    """
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunksize` argument instead of `num_returns`.")
    while refs:
        results, refs = _next_chunk(refs, chunk_size, yield_obj_refs, kwargs)
        yield from results


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Call ``fn.remote(item)`` for all items, and iterate over the results as they come.

    Args:
        fn: a remote function.
        backpressure_size: how many calls may be under way; None: all of them.
        chunk_size, yield_obj_refs, **kwargs: as of `as_completed`.

    Raises:
        ValueError: `backpressure_size` or `chunk_size` below 1, or `num_returns` given.
    """
    if backpressure_size is not None and backpressure_size <= 0:
        raise ValueError("backpressure_size must be positive.")
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")
    refs: list[Any] = []
    for item in items:
        refs.append(fn.remote(item))
        if backpressure_size is not None and len(refs) >= backpressure_size:
            results, refs = _next_chunk(refs, chunk_size, yield_obj_refs, kwargs)
            yield from results
    yield from as_completed(refs, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


def _next_chunk(
    refs: Sequence[Any], chunk_size: int, yield_obj_refs: bool, kwargs: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    ready, others = miniray.wait(refs, num_returns=min(chunk_size, len(refs)), **kwargs)
    return ready if yield_obj_refs else miniray.get(ready), others
