"""Functions and classes on their way to workers: pickled once per session, and mailed once to each worker.

A remote function or an actor class has a token; its `Export` is made at the first call and kept. The message goes to
a worker before the first task that needs it. What a worker was sent, it can pass on when it calls that function itself.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from miniray.messages.objects import Address, Payload
from miniray.messages.tasks import FunctionExport
from miniray.processes import current, local_objects
from miniray.state_machines.task_submission import FunctionStats
from miniray.system import user_log
from miniray.system.serialization import fingerprint, pickle_function, serialize

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Bytes of a pickled function from which on it is warned about, and refused (Ray's limits).
FUNCTION_WARN_SIZE = 10**7
FUNCTION_MAX_SIZE = 10**8


class Export:
    """A function or class as it travels to workers: its bytes, once, and who has got them."""

    __slots__ = ("contained", "message", "name", "sent_to", "stats")

    def __init__(self, message: FunctionExport, contained: list[Any] | None = None) -> None:
        self.message = message
        self.name = ""  #: of the function or class
        self.contained = contained  #: refs and handles in the closure live as long as the export
        self.sent_to: set[bytes] = set()
        self.stats = FunctionStats()


class FunctionExports:
    """The functions and classes that one core worker has called, or was sent."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.by_token: dict[bytes, Export] = {}

    def export(self, token: bytes, function: Any, *, what: str, kind: str) -> Export:
        """The export of a function or class, pickled once per session.

        Args:
            token: the id of the RemoteFunction or ActorClass.
            what: how error texts name it.
            kind: "remote function" or "actor".

        Raises:
            ValueError: it is larger than 100 MB when pickled.
            TypeError: it cannot be pickled.
        """
        found = self.by_token.get(token)
        if found is not None:
            found.name = found.name or function.__name__
            return found
        contained: list[Any] = []
        if current.is_local() and local_objects.belongs_to_a_module(function):
            pickled = local_objects.pickle_shared(token, function)
        else:
            pickled = pickle_function(
                function, lambda: f"the {'function' if kind == 'remote function' else 'actor class'} {what}", contained
            )
        if contained:
            self._core.objects.check_out_of_band(contained)
        if len(pickled) > FUNCTION_WARN_SIZE:
            name = function.__name__ if kind == "actor" else f"{function.__module__}.{function.__name__}"
            self._check_size(pickled, name, kind)
        if len(pickled) > 100 * 1024:
            payload, _ = self._core.objects.to_payload(serialize(pickled))
        else:
            payload = Payload(2, pickled)
        path = [os.getcwd() if entry == "" else entry for entry in sys.path]
        message = FunctionExport(fingerprint(pickled), token, payload, path, self._core.job_id)
        if kind == "actor":
            message.actor_class = function.__name__
        export = self.by_token.setdefault(token, Export(message, contained))
        export.name = function.__name__
        return export

    def _check_size(self, pickled: bytes, what: str, kind: str) -> None:
        megabytes = len(pickled) // (1 << 20)
        hint = (
            "Check that its definition is not implicitly capturing a large array or other object in scope. "
            "Tip: use ray.put() to put large objects in the Ray object store."
        )
        if len(pickled) > FUNCTION_MAX_SIZE:
            limit = FUNCTION_MAX_SIZE // (1 << 20)
            raise ValueError(
                f"The {kind} {what} is too large ({megabytes} MiB > FUNCTION_SIZE_ERROR_THRESHOLD={limit} MiB). {hint}"
            )
        user_log.say(user_log.WARNING, f"The {kind} {what} is very large ({megabytes} MiB). {hint}")

    def note(self, message: FunctionExport) -> None:
        """A worker got this function from elsewhere: when it calls the function itself, it passes these bytes on."""
        if message.token not in self.by_token:
            self.by_token[message.token] = Export(message)

    def send(self, export: Export, peer: Address) -> None:
        """Mail a function to a worker that has not got it from us yet (under the lock)."""
        export.sent_to.add(peer.worker_id)
        self._core.post(peer, export.message)

    def worker_died(self, worker_id: bytes) -> None:
        """A process is gone: nobody has to remember what it was sent."""
        for export in self.by_token.values():
            export.sent_to.discard(worker_id)
