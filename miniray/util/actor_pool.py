"""`ActorPool`: work for a fixed set of actors, each of which does one thing at a time.

As https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.ActorPool.html
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import miniray
from miniray.exceptions import ActorDiedError

__all__ = ["ActorPool"]

#: Called with an actor and a value; returns the ref (or the list of refs) of the call it made.
Submit = Callable[[Any, Any], Any]


class ActorPool:
    """A pool of actors.

    Args:
        actors: handles; they are idle now.

    Results are fetched in order (`get_next`, `map`) or as they come (`get_next_unordered`, `map_unordered`). An actor
    takes its next value when its result is *fetched*; one that has died is left out from then on.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle_actors: list[Any] = list(actors)
        self._pending_submits: deque[tuple[Submit, Any]] = deque()
        self._future_to_actor: dict[Any, tuple[int, Any]] = {}  #: ref (or tuple of refs) -> its number, its actor
        self._index_to_future: dict[int, Any] = {}
        self._next_task_index = 0
        self._next_return_index = 0

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Call ``fn(actor, value)`` for all values, and iterate over the results in the order of the values.

        Results that were submitted before and not fetched are dropped.
        """
        self._drop_results(lambda: self.get_next(timeout=0, ignore_if_timedout=True))
        return self._results(fn, values, self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As `map`, with the results as they come."""
        self._drop_results(lambda: self.get_next_unordered(timeout=0))
        return self._results(fn, values, self.get_next_unordered)

    def _drop_results(self, fetch: Callable[[], Any]) -> None:
        while self.has_next():
            try:
                fetch()
            except TimeoutError:
                pass

    def _results(self, fn: Submit, values: Iterable[Any], fetch: Callable[[], Any]) -> Iterator[Any]:
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield fetch()

        return results()

    def submit(self, fn: Submit, value: Any) -> None:
        """Call ``fn(actor, value)`` with an idle actor, now or when there is one."""
        if not self._idle_actors:
            self._pending_submits.append((fn, value))
            return
        actor = self._idle_actors.pop()
        future = fn(actor, value)
        number = self._next_task_index
        self._future_to_actor[_key(future)] = (number, actor)
        self._index_to_future[number] = future
        self._next_task_index += 1

    def has_next(self) -> bool:
        """Whether there is a result to fetch, now or later."""
        return bool(self._future_to_actor)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission; waits for it.

        Args:
            timeout: seconds; None: for ever.
            ignore_if_timedout: drop the result that was late, and let its actor go on.

        Raises:
            StopIteration: there is nothing to fetch.
            TimeoutError: it was not ready in time.
            ValueError: results have been fetched out of order.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next_return_index >= self._next_task_index:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        future = self._index_to_future[self._next_return_index]
        late = timeout is not None and not miniray.wait([future], timeout=timeout)[0]
        if late and not ignore_if_timedout:
            raise TimeoutError("Timed out waiting for result")
        return self._fetch(future, late)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Any result; waits for the first. Arguments and errors as of `get_next`."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        ready, running = miniray.wait(list(self._future_to_actor), num_returns=1, timeout=timeout)
        if not ready and not ignore_if_timedout:
            raise TimeoutError("Timed out waiting for result")
        return self._fetch(ready[0] if ready else running[0], not ready)

    def _fetch(self, future: Any, late: bool) -> Any:
        number, actor = self._future_to_actor.pop(_key(future))
        del self._index_to_future[number]
        self._next_return_index = max(self._next_return_index, number + 1)
        if late:
            self._return_actor(actor)
            raise TimeoutError(f"Timed out waiting for result. The task {future} has been ignored.")
        try:
            result = miniray.get(future)
        except ActorDiedError:
            self._start_pending()  # the others go on without it
            raise
        except BaseException:
            self._return_actor(actor)
            raise
        self._return_actor(actor)
        return result

    def _return_actor(self, actor: Any) -> None:
        self._idle_actors.append(actor)
        self._start_pending()

    def _start_pending(self) -> None:
        if self._pending_submits and self._idle_actors:
            self.submit(*self._pending_submits.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle_actors) and not self._pending_submits

    def pop_idle(self) -> Any:
        """Take an idle actor out of the pool; None if none is free."""
        return self._idle_actors.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor to the pool.

        Raises:
            ValueError: it is in the pool.
        """
        if actor in self._idle_actors or any(actor == busy for _, busy in self._future_to_actor.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._return_actor(actor)


def _key(future: Any) -> Any:
    return tuple(future) if isinstance(future, list) else future
