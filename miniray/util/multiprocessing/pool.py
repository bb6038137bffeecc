"""`Pool`: the standard library's `multiprocessing.Pool` on actors.

As https://docs.ray.io/en/latest/ray-more-libs/multiprocessing.html; where Ray's Pool differs from the standard
library's by accident (it returns an exception from `imap`, where the other raises it; it has no `chunksize` for
`starmap_async` and no `kwds`), this one is the standard library's.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from multiprocessing import TimeoutError
from typing import Any, cast

import miniray
from miniray.actor import kill
from miniray.exceptions import RayError
from miniray.system.session import environment_address
from miniray.util.debug import log_once

__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]

#: How the items of a chunk become calls.
_ONE, _STAR, _FULL = 0, 1, 2


class _Raised:
    """What stands for the result of a call that raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _PoolActor:
    """One process of a pool."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: Iterable[Any]) -> None:
        self._initialized: dict[str, Any] = {}
        if initializer is not None:
            names = _own_globals(initializer)
            before = dict(names)
            initializer(*initargs)
            self._initialized = {
                name: value for name, value in names.items() if name not in before or before[name] is not value
            }

    def ping(self) -> None:
        """Answered once the initializer is through."""

    def run_chunk(self, func: Callable[..., Any], how: int, items: list[Any]) -> list[Any]:
        if self._initialized:
            _own_globals(func).update(self._initialized)
        results: list[Any] = []
        for item in items:
            try:
                if how == _ONE:
                    results.append(func(item))
                elif how == _STAR:
                    results.append(func(*item))
                else:
                    args, kwargs = item
                    results.append(func(*args, **kwargs))
            except Exception as error:
                results.append(_Raised(error))
        return results


def _own_globals(function: Any) -> dict[str, Any]:
    """The global names of a function that came by value, as those of a script do: with each function comes a copy of
    those that it uses. What the initializer sets there is carried over to the functions that follow it.
    """
    names = getattr(function, "__globals__", None)
    if names is None or names is getattr(sys.modules.get(function.__module__), "__dict__", None):
        return {}
    return names  # type: ignore[no-any-return]


class AsyncResult:
    """The result of an `*_async` call. Made by `Pool`."""

    def __init__(
        self,
        refs: list[Any],
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[Exception], Any] | None,
        single: bool = False,
    ) -> None:
        self._refs = refs
        self._single = single
        self._thread: threading.Thread | None = None
        if callback is not None or error_callback is not None:
            # A thread each, as in Ray: a callback may use the pool, and wait.
            arguments = (callback, error_callback)
            self._thread = threading.Thread(target=self._call_back, args=arguments, daemon=True)
            self._thread.start()

    def _call_back(
        self, callback: Callable[[Any], Any] | None, error_callback: Callable[[Exception], Any] | None
    ) -> None:
        try:
            value = self._collect()
        except Exception as error:
            if error_callback is not None:
                error_callback(error)
        else:
            if callback is not None:
                callback(value)

    def _collect(self) -> Any:
        """The value, or what was raised."""
        chunks = miniray.get(self._refs)
        results = list(itertools.chain.from_iterable(chunks))
        for result in results:
            if isinstance(result, _Raised):
                raise result.error
        return results[0] if self._single else results

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, at most `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        elif self._refs:
            miniray.wait(self._refs, num_returns=len(self._refs), timeout=timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The value.

        Args:
            timeout: seconds; None: for ever.

        Raises:
            multiprocessing.TimeoutError: it was not ready in time.
            Exception: the function's own.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        return self._collect()

    def ready(self) -> bool:
        """Whether all calls have ended, and the callback has returned."""
        if self._thread is not None:
            return not self._thread.is_alive()
        number = len(self._refs)
        return not number or len(miniray.wait(self._refs, num_returns=number, timeout=0)[0]) == number

    def successful(self) -> bool:
        """Whether no call raised.

        Raises:
            ValueError: it is not ready.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        try:
            self._collect()
        except Exception:
            return False
        return True


class IMapIterator:
    """The iterator of `imap` and `imap_unordered`: one chunk per process is under way at a time."""

    def __init__(self, pool: Pool, func: Callable[..., Any], chunks: Iterator[list[Any]], ordered: bool) -> None:
        self._pool = pool
        self._func = func
        self._chunks = enumerate(chunks)
        self._ordered = ordered
        self._running: dict[Any, tuple[int, int]] = {}  #: ref -> number of its chunk, index of its process
        self._ready: dict[int, list[Any]] = {}  #: by number, those that came before their turn
        self._next_number = 0
        self._results: deque[Any] = deque()
        for index in range(pool._processes):
            self._submit(index)

    def _submit(self, index: int) -> None:
        for number, chunk in self._chunks:
            self._running[self._pool._run_chunk(index, self._func, _ONE, chunk)] = number, index
            return

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Raises:
            StopIteration: there are no more.
            multiprocessing.TimeoutError: it was not ready in `timeout` seconds.
            Exception: the function's own; the iteration can go on.
        """
        while not self._results:
            chunk = self._ready.pop(self._next_number, None)
            if chunk is not None:
                self._next_number += 1
                self._results.extend(chunk)
                continue
            if not self._running:
                raise StopIteration
            ready, _ = miniray.wait(list(self._running), timeout=timeout)
            if not ready:
                raise TimeoutError
            number, index = self._running.pop(ready[0])
            self._submit(index)
            try:
                chunk = miniray.get(ready[0])
            except RayError as error:
                chunk = [_Raised(error)]
            self._ready[number if self._ordered else self._next_number] = chunk
        result = self._results.popleft()
        if isinstance(result, _Raised):
            raise result.error
        return result


class Pool:
    """A pool of processes. Its methods are those of `multiprocessing.pool.Pool`.

    Args:
        processes: how many; None: one per CPU of the session.
        initializer: called with `initargs` in each process when it starts.
        initargs: its arguments.
        maxtasksperchild: after so many chunks, a process is replaced with a new one; None: never.
        context: has no effect.
        ray_address: of the session to join, if there is none yet; see `init`.
        ray_remote_args: options of the actors that make up the pool.

    Raises:
        ValueError: no process, or more than the session has CPUs.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if context is not None and log_once("context_argument_warning"):
            import warnings

            warnings.warn("The 'context' argument of Pool has no effect: processes are the session's.", stacklevel=2)
        self._closed = False
        self._initializer = initializer
        self._initargs = tuple(initargs or ())
        self._maxtasksperchild = maxtasksperchild or -1
        self._processes = _start_session(processes, ray_address)
        self._actor_class = miniray.remote(_PoolActor).options(**{"num_cpus": 0, **(ray_remote_args or {})})
        self._stopping: list[Any] = []
        self._turn = itertools.cycle(range(self._processes))
        self._actors = [self._new_actor() for _ in range(self._processes)]
        self._chunks_run = [0] * self._processes
        miniray.get([actor.ping.remote() for actor in self._actors])

    def _new_actor(self) -> Any:
        return self._actor_class.remote(self._initializer, self._initargs)

    def _run_chunk(self, index: int, func: Callable[..., Any], how: int, items: list[Any]) -> Any:
        actor = self._actors[index]
        ref = actor.run_chunk.remote(func, how, items)
        self._chunks_run[index] += 1
        if self._chunks_run[index] == self._maxtasksperchild:
            # It ends when it has run what it has got.
            self._stopping.append(actor.__ray_terminate__.remote())
            self._actors[index] = self._new_actor()
            self._chunks_run[index] = 0
        return ref

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("Pool not running")

    # -- one call --------------------------------------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        kwds: dict[str, Any] | None = None,
    ) -> Any:
        """``func(*args, **kwargs)`` in one of the processes."""
        return self.apply_async(func, args, kwargs, kwds=kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
        *,
        kwds: dict[str, Any] | None = None,
    ) -> AsyncResult:
        """As `apply`, without waiting. One of the callbacks is called with the result or the error, in a thread."""
        self._check_running()
        call = (tuple(args or ()), dict(kwargs or kwds or {}))
        ref = self._run_chunk(next(self._turn), func, _FULL, [call])
        return AsyncResult([ref], callback, error_callback, single=True)

    # -- many calls --------------------------------------------------------------------------------------------------

    def _map(
        self,
        how: int,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
    ) -> AsyncResult:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        chunks = _chunked(items, chunksize or self._chunksize_for(len(items)))
        refs = [self._run_chunk(number % self._processes, func, how, chunk) for number, chunk in enumerate(chunks)]
        return AsyncResult(refs, callback, error_callback)

    def _chunksize_for(self, number: int) -> int:
        return max(1, -(-number // (self._processes * 4)))

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """``[func(item) for item in iterable]``, in the processes.

        Args:
            chunksize: how many items go to a process at a time; None: a quarter of its share.
        """
        return self._map(_ONE, func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
    ) -> AsyncResult:
        """As `map`, without waiting."""
        return self._map(_ONE, func, iterable, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(*item) for item in iterable]``, in the processes."""
        return self._map(_STAR, func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: Any = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
    ) -> AsyncResult:
        """As `starmap`, without waiting. (Ray has the callbacks in the third and fourth place.)"""
        if callable(chunksize):
            chunksize, callback, error_callback = None, chunksize, error_callback or cast(Any, callback)
        return self._map(_STAR, func, iterable, chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> IMapIterator:
        """As `map`, lazily: takes from `iterable` as results come, and returns an iterator over them, in order."""
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """As `imap`, with the results as they come."""
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None, ordered: bool
    ) -> IMapIterator:
        self._check_running()
        if chunksize is None:
            chunksize = self._chunksize_for(len(iterable)) if isinstance(iterable, Sized) else 1
        return IMapIterator(self, func, _chunked(iterable, chunksize), ordered)

    # -- the end -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def close(self) -> None:
        """Take no more work. The processes end when they have done what they have got."""
        if not self._closed:
            self._closed = True
            self._stopping += [actor.__ray_terminate__.remote() for actor in self._actors]

    def terminate(self) -> None:
        """Take no more work, and kill the processes."""
        self.close()
        for actor in self._actors:
            kill(actor)

    def join(self) -> None:
        """Wait until the processes of a closed pool have ended.

        Raises:
            ValueError: it was neither closed nor terminated.
        """
        if not self._closed:
            raise ValueError("Pool is still running")
        if self._stopping:
            miniray.wait(self._stopping, num_returns=len(self._stopping))


def _chunked(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _start_session(processes: int | None, address: str | None) -> int:
    """Join a session, or start one with so many CPUs, if there is none. Returns the number of processes to start."""
    if not miniray.is_initialized():
        address = address or environment_address()[1]
        if address and address != "local" or processes is None or processes <= 0:
            miniray.init(address)
        else:
            try:
                miniray.init(address, num_cpus=processes)
            except ValueError:  # this user's head is running: its CPUs are what they are
                miniray.init(address)
    cpus = int(miniray.cluster_resources().get("CPU", 0))
    if processes is None:
        processes = cpus
    if processes <= 0:
        raise ValueError("Processes in the pool must be >0.")
    if cpus < processes:
        raise ValueError(
            f"Tried to start a pool with {processes} processes on an existing ray cluster, but there are only {cpus} "
            "CPUs in the ray cluster."
        )
    return processes
