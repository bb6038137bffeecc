"""The core worker for an API call: the current one, or that of a session which is started now (Ray's auto-init).

The API modules (row 4) call `require_core`; the package fills the `start` slot with `init`, so that no lower row
imports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.processes import current

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: `init`, filled in by the API.
start: Callable[[], Any] | None = None


def require_core() -> CoreWorker:
    """The current core worker; starts a session when there is none.

    Raises:
        RaySystemError: there is none and auto-init is off (``RAY_ENABLE_AUTO_CONNECT=0``), or this process was forked
            off one that has a session.
    """
    core = current.core_or_none()
    if core is not None and not core.closed:
        return core
    if current.in_local_worker():
        raise exceptions.RaySystemError("This worker has ended.")
    if current.forked:
        raise exceptions.RaySystemError(
            "This process was forked from one that had called init(): it cannot use that session. Call init() in it to "
            "start or join one, or start the process with the 'spawn' method and join by address."
        )
    if start is None or os.environ.get("RAY_ENABLE_AUTO_CONNECT", "") == "0":
        raise exceptions.RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    start()
    core = current.core_or_none()
    assert core is not None
    return core
