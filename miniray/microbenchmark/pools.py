"""Other pools of processes, for the rows of tasks: each gives the same three workloads on its own API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from miniray.microbenchmark.workloads import TASK_ROWS, Sizes, Step


def small_value() -> bytes:
    """The task."""
    return b"ok"


class PoolCalls(NamedTuple):
    """One pool's way to run the task."""

    one: Callable[[], object]  #: and wait for its result
    many: Callable[[int], object]  #: so many at once, and wait for all results
    close: Callable[[], object]


def process_pool(cpus: int) -> PoolCalls:
    """`concurrent.futures.ProcessPoolExecutor`."""
    from concurrent.futures import ProcessPoolExecutor

    return _executor(ProcessPoolExecutor(cpus))


def loky(cpus: int) -> PoolCalls:
    """`loky`'s executor (pip install loky)."""
    from loky import get_reusable_executor

    return _executor(get_reusable_executor(cpus))


def _executor(pool: Any) -> PoolCalls:
    def many(number: int) -> list[Any]:
        return [future.result() for future in [pool.submit(small_value) for _ in range(number)]]

    return PoolCalls(lambda: pool.submit(small_value).result(), many, pool.shutdown)


def mp_pool(cpus: int) -> PoolCalls:
    """`multiprocessing.Pool`."""
    from multiprocessing import Pool

    pool = Pool(cpus)

    def many(number: int) -> list[Any]:
        return [result.get() for result in [pool.apply_async(small_value) for _ in range(number)]]

    def close() -> None:
        pool.terminate()
        pool.join()

    return PoolCalls(lambda: pool.apply(small_value), many, close)


def dask(cpus: int) -> PoolCalls:
    """`distributed`'s local cluster (pip install distributed)."""
    from distributed import Client

    client = Client(n_workers=cpus, threads_per_worker=1, processes=True, dashboard_address=None)

    def many(number: int) -> Any:
        return client.gather([client.submit(small_value, pure=False) for _ in range(number)])

    return PoolCalls(lambda: client.submit(small_value, pure=False).result(), many, client.close)


POOLS: dict[str, Callable[[int], PoolCalls]] = {
    "process-pool": process_pool,
    "mp-pool": mp_pool,
    "loky": loky,
    "dask": dask,
}


def steps(pool: PoolCalls, name: str, sizes: Sizes) -> Iterator[Step]:
    """The workload of that name on a pool."""
    if name == TASK_ROWS[0]:
        yield Step(lambda: pool.many(sizes.calls), 1)
    elif name == TASK_ROWS[1]:
        yield Step(pool.one, 1)
    else:
        yield Step(lambda: pool.many(sizes.calls), sizes.calls)
