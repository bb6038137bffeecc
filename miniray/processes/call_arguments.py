"""The arguments of tasks and calls at the caller: written, kept while they are needed, and given their values.

One path for tasks, actors' calls and actors' creations. `split_refs` and `encode` write the arguments; `pin` keeps what
they refer to and waits for the values of top-level refs; `fill` puts those values into the push, just before it
leaves; `release` lets go of it all when the call is done, but for what the worker kept (until it has registered that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from miniray.messages import tasks
from miniray.messages.objects import Location, Payload
from miniray.messages.tasks import RefArgument
from miniray.processes.ref_pickling import HeldEntries
from miniray.refs import ObjectRef
from miniray.state_machines.actor_submission import ActorCall
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.state_machines.task_submission import PendingTask
from miniray.system.serialization import serialize

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: The value of an argument that is being made again: a worker that opens it asks its owner.
GONE = Payload(0, None, Location(b"", ".gone", 0, 1, b""))


class Waiting(Protocol):
    """Whatever waits for the values of its arguments."""

    unready: int


Call = TypeVar("Call", PendingTask, ActorCall)
AnyWaiting = TypeVar("AnyWaiting", bound=Waiting)


class CallArguments:
    """The arguments of what one core worker has submitted."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        #: (task, worker that keeps refs from its arguments and is registering them) -> what is pinned until then
        self.kept: dict[tuple[bytes, bytes], list[ObjectEntry]] = {}

    # -- writing ---------------------------------------------------------------------------------------------------

    def split_refs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[tuple[int | str, ObjectRef[Any]]], tuple[Any, ...], dict[str, Any]]:
        """The top-level refs with their places, and the arguments with None in those places: values travel beside.

        Raises:
            ValueError: a ref of another session.
        """
        refs: list[tuple[int | str, ObjectRef[Any]]] = []
        for index, value in enumerate(args):
            if type(value) is ObjectRef:
                refs.append((index, value))
        if kwargs:
            refs += [(key, value) for key, value in kwargs.items() if type(value) is ObjectRef]
        if refs:
            listed, named = list(args), dict(kwargs)
            for key, ref in refs:
                self._core.objects._check_ref(ref, argument=True)
                if isinstance(key, int):
                    listed[key] = None
                else:
                    named[key] = None
            args, kwargs = tuple(listed), named
        return refs, args, kwargs

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
    ) -> tuple[Payload | None, list[ObjectEntry] | None]:
        """Serialize (args, kwargs); on failure name the argument that cannot be.

        Returns what is written, and the entries that the call has to `pin`: of the refs inside; and, when it is large,
        of the object that it is then, whose memory ends with the call.
        """
        try:
            serialized = serialize((args, kwargs))
        except TypeError:
            for value in (*args, *kwargs.values()):
                serialize(value, what=lambda value=value: f"the argument {value!r} for a task or actor {what}")  # type: ignore[misc]
            raise
        objects = self._core.objects
        payload, inner = objects.to_payload(serialized)
        if payload.location is not None:
            ref = objects.own(payload, None)
            ref._entry.shared = True
            inner = HeldEntries([ref, *serialized.contained])
        return payload, inner

    # -- keeping, and waiting for values ---------------------------------------------------------------------------

    def pin(
        self,
        call: Call,
        refs: list[tuple[int | str, ObjectRef[Any]]],
        inner: list[ObjectEntry],
        ready: Callable[[Call], None],
    ) -> None:
        """Keep what the arguments refer to until the call is done, and wait for the values of top-level refs.

        Args:
            call: gets its `dependencies`, `arguments` and `unready` (how many values are missing).
            refs: the top-level refs with their places.
            inner: what the other arguments contain.
            ready: called with the call when the last missing value is there; never if none is missing.
        """
        top: dict[int, ObjectEntry] = {}
        for _, ref in refs:
            top[id(ref._entry)] = ref._entry
        call.dependencies = [*top.values(), *inner]
        for entry in call.dependencies:
            entry.submitted += 1
            entry.accessed = True
        call.arguments = [(key, ref._entry) for key, ref in refs]
        waiting = [entry for entry in top.values() if entry.payload is None]
        if waiting:
            self.wait_for(call, waiting, ready)

    def wait_again(self, call: Call, ready: Callable[[Call], None]) -> None:
        """A finished call is to be made once more, its arguments are pinned already: wait for their values."""
        waiting = {id(entry): entry for _, entry in call.arguments if entry.payload is None}
        self.wait_for(call, list(waiting.values()), ready)

    def wait_for(self, call: AnyWaiting, entries: list[ObjectEntry], ready: Callable[[AnyWaiting], None]) -> None:
        """Call `ready` once all these entries have values; never if there are none."""
        call.unready = len(entries)
        if not entries:
            return

        def value_came(_entry: ObjectEntry) -> None:
            call.unready -= 1
            if call.unready == 0:
                ready(call)

        for entry in entries:
            if entry.waiters is None:
                entry.waiters = [value_came]
            else:
                entry.waiters.append(value_came)
        self._core.objects.request_values(entries)

    def fill(self, task: PendingTask | ActorCall) -> bytes:
        """Put the values of ref arguments into the push. The node where most of their bytes lie, if not this one."""
        arguments = task.arguments
        if not arguments:
            return b""
        filled = []
        sizes: dict[bytes, int] | None = None
        here = self._core.node_id
        for key, entry in arguments:
            payload = entry.payload
            if payload is None:
                payload = GONE  # lost just now: the worker will ask for it
            elif payload.location is not None:
                entry.shared = True
                node_id = payload.location.node_id
                if sizes is not None or node_id != here:
                    sizes = {} if sizes is None else sizes
                    sizes[node_id] = sizes.get(node_id, 0) + payload.location.size
            filled.append(RefArgument(key, entry.object_id, payload, entry.owner))
        before = task.push.ref_arguments
        if before:  # of an earlier attempt: what is small and gone is there only
            keys = {key for key, _ in arguments}
            filled += [argument for argument in before if argument.key not in keys]
        task.push.ref_arguments = filled
        if sizes is None:
            return b""
        most = max(sizes, key=sizes.__getitem__)
        return most if most != here else b""

    # -- letting go ------------------------------------------------------------------------------------------------

    def release(
        self, task_id: bytes, dependencies: list[ObjectEntry], worker_id: bytes, kept: Iterable[bytes] | None = None
    ) -> None:
        """A task is done with its arguments; those it `kept` stay pinned until the worker has registered them.

        A kept ref may have stood inside a top-level argument: then that one stays, and with it what it contains.
        """
        counter = self._core.objects.counter
        if kept:
            ids = set(kept)
            held: list[ObjectEntry] = []
            done: list[ObjectEntry] = []
            for entry in dependencies:
                inside = entry.contained or ()
                stays = entry.object_id in ids or any(inner.object_id in ids for inner in inside)
                (held if stays else done).append(entry)
            self.kept[task_id, worker_id] = held
            dependencies = done
        counter.release_submitted(dependencies)

    def on_release_pins(self, sender: bytes, message: tasks.ReleasePins) -> None:
        """A worker has registered the refs it kept from a task's arguments."""
        held = self.kept.pop((message.task_id, sender), None)
        if held:
            self._core.objects.counter.release_submitted(held)

    def worker_died(self, worker_id: bytes) -> None:
        """A process is gone: it will register nothing."""
        for key in [key for key in self.kept if key[1] == worker_id]:
            self._core.objects.counter.release_submitted(self.kept.pop(key))
