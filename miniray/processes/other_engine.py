"""The engine that runs this process's calls if it is not miniray: real Ray (`miniray.ray_engine`).

Every public call looks here when this process has no core worker, which costs the others nothing. There is an engine
after ``init(engine="ray")``, with ``MINIRAY_ENGINE=ray`` in the environment, and in the workers of a real Ray: what a
task calls there by miniray's names is Ray's, too.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from miniray.processes import current

F = TypeVar("F", bound=Callable[..., Any])

engine: Any = None
#: Imports Ray and returns the engine; filled in by the API.
load: Callable[[], Any] | None = None


def chosen(name: str | None) -> str:
    """The engine that the argument of `init` (or else the environment) names.

    Raises:
        ValueError: there is no such engine.
    """
    name = name or os.environ.get("MINIRAY_ENGINE") or "miniray"
    if name not in ("miniray", "ray"):
        raise ValueError(f"There is no engine {name!r}: it is 'miniray' or 'ray'.")
    return name


def other_engine() -> Any:
    """The engine that a call is to be handed to; None: miniray itself runs it."""
    global engine
    if engine is not None:
        return engine
    if current.core_or_none() is not None or load is None:
        return None
    if _inside_ray() or ("MINIRAY_ENGINE" in os.environ and chosen(None) == "ray"):
        engine = load()
    return engine


def _inside_ray() -> bool:
    """Whether this is a worker of a real Ray."""
    module = sys.modules.get("ray._private.worker")
    return (
        module is not None
        and module.__name__ == "ray._private.worker"  # and not ours under that name
        and getattr(module.global_worker, "mode", None) == module.WORKER_MODE
    )


def handed_over(function: F) -> F:
    """A public function that another engine, if there is one, runs under the same name and module."""
    module = function.__module__

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if current._core is None:
            other = other_engine()
            if other is not None:
                return other.find(module, function.__name__)(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
