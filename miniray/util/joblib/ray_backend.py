"""A backend of joblib whose workers are actors. For joblib 1.3 and later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase

import miniray
from miniray.actor import kill

__all__ = ["RayBackend"]

#: Arrays from this size are put into the object store once, and not once per call.
_SHARED_FROM_BYTES = 100 * 1024


class _Shared:
    """Stands for an argument that lies in the object store."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref


class _JoblibActor:
    """A worker of joblib."""

    def run(self, batch: Any) -> Any:
        if hasattr(batch, "items"):
            batch.items = [
                (
                    function,
                    [_resolved(value) for value in args],
                    {name: _resolved(value) for name, value in kwargs.items()},
                )
                for function, args, kwargs in batch.items
            ]
        return batch()


def _resolved(value: Any) -> Any:
    return miniray.get(value.ref) if type(value) is _Shared else value


class RayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What `register_ray` registers.

    Args:
        ray_remote_args: options of the actors, here or in `Parallel`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **kwargs)
        self.ray_remote_args = ray_remote_args
        self._actors: list[Any] = []
        self._loads: list[int] = []
        self._shared: dict[int, tuple[Any, _Shared]] = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers `n_jobs` means here; negative numbers count down from the session's CPUs."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        if not miniray.is_initialized():
            miniray.init()
        return max(int(miniray.cluster_resources().get("CPU", 1)) + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **_memmapping: Any,
    ) -> int:
        """Start the workers."""
        number = self.effective_n_jobs(n_jobs)
        options = {"num_cpus": 0, **(ray_remote_args or self.ray_remote_args or {})}
        worker = miniray.remote(_JoblibActor).options(**options)
        self.parallel = parallel
        self._actors = [worker.remote() for _ in range(number)]
        self._loads = [0] * number
        return number

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Any:
        """Run a batch of calls in the worker that has the least to do; call `callback` with the ref."""
        loads = self._loads
        index = loads.index(min(loads))
        loads[index] += 1
        ref = self._actors[index].run.remote(self._with_shared_arguments(func))

        def done(_result: Any) -> None:
            loads[index] -= 1
            if callback is not None:
                callback(ref)

        ref._on_completed(done)
        return ref

    apply_async = submit

    def retrieve_result_callback(self, out: Any) -> Any:
        """The result of a batch, from what `submit` gave to its callback."""
        return miniray.get(out)

    def _with_shared_arguments(self, batch: Any) -> Any:
        if hasattr(batch, "items"):
            batch.items = [
                (
                    function,
                    [self._share(value) for value in args],
                    {name: self._share(value) for name, value in kwargs.items()},
                )
                for function, args, kwargs in batch.items
            ]
        return batch

    def _share(self, value: Any) -> Any:
        if not getattr(value, "nbytes", 0) >= _SHARED_FROM_BYTES:
            return value
        known = self._shared.get(id(value))
        if known is None:
            known = self._shared[id(value)] = value, _Shared(miniray.put(value))
        return known[1]

    def terminate(self) -> None:
        """Let the workers go."""
        self._actors, self._loads = [], []
        self._shared.clear()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the workers; start new ones if there is more to do."""
        number = len(self._actors)
        for actor in self._actors:
            kill(actor)
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=number or 1, parallel=self.parallel)
