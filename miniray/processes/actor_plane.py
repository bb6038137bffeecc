"""Actors as their callers see them: create, call, watch, kill.

An actor's handles are counted like refs: each actor has a *handle object* (the return of its creation task), owned by
the process that created the actor; handles are refs to it, and travel by the same rule of hand-over
(`state_machines.reference_counter`). When the last one anywhere is gone, the owner tells the head. A call that is not
done counts as a handle. Handles that came by name are weak: they count nothing.

Where an actor is and whether it lives is the head's news (`ActorState`); calls go to the actor's process directly,
and are decided on by `state_machines.actor_submission`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.ids import ActorIdGenerator, actor_creation_task_id
from miniray.messages import control, tasks
from miniray.messages.control import ActorSpec, LeaseSpec
from miniray.messages.envelope import Message
from miniray.messages.objects import Address, Payload
from miniray.messages.tasks import RefArgument, TaskPush
from miniray.processes import actor_errors, current, ref_sites
from miniray.processes.call_arguments import GONE
from miniray.processes.function_exports import Export
from miniray.processes.reactor import Waiter
from miniray.processes.task_plane import cancelled_error
from miniray.refs import ObjectRef
from miniray.state_machines.actor_submission import ActorCall, ActorClient
from miniray.state_machines.reference_counter import ObjectEntry

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Seconds that calls which were under way when a restarting actor's process died wait to hear how the restart ends.
RESTART_NEWS = 1.0


class OwnedActor:
    """The owner's record of an actor: the producer of its handle object."""

    __slots__ = ("actor_id", "dependencies", "out_of_scope", "refs", "sent", "spec", "unready")

    def __init__(self, actor_id: bytes, spec: ActorSpec) -> None:
        self.actor_id = actor_id
        self.spec = spec
        self.unready = 0
        self.sent = False  #: the head was told to create it
        self.out_of_scope = False
        self.dependencies: list[ObjectEntry] = []
        self.refs: list[tuple[int | str, ObjectEntry]] = []


#: What the ids of these objects begin with; the actor's id follows.
HANDLES = b"\xff" * 8


def handle_object_id(actor_id: bytes) -> bytes:
    """The id of the object whose refs are the actor's handles."""
    return actor_creation_task_id(actor_id) + b"\x01\0\0\0"


class ActorPlane:
    """The actors that one core worker has created or calls."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.clients: dict[bytes, ActorClient] = {}
        self.calls: dict[bytes, ActorCall] = {}
        self.owned: dict[bytes, OwnedActor] = {}
        self._held: dict[bytes, list[ActorCall]] = {}  #: calls that are repeated once the actor is back, or dead
        self.next_actor_id = ActorIdGenerator(core.job_id, os.urandom(16))
        core.add_handlers({control.ActorState: self.on_actor_state})

    def use_job(self, job_id: bytes) -> None:
        """The job is known now: actor ids carry it."""
        self.next_actor_id = ActorIdGenerator(job_id, os.urandom(16))

    # -- creating --------------------------------------------------------------------------------------------------

    def create(
        self,
        export: Export,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        what: str,
        class_name: str,
        qualified_name: str,
        extras: bytes,
        placement: LeaseSpec,
        resources: dict[str, int],
        name: str,
        namespace: str,
        detached: bool,
        max_restarts: int,
        get_if_exists: bool,
        ordered: bool,
        descriptor: bytes,
        info: Any,
    ) -> tuple[bytes, ObjectEntry | None, list[Any] | None]:
        """Create an actor. Returns (its id, its handle object's entry, None).

        With `get_if_exists` and a living actor of that name: (that one's id, None, the head's row of it).

        Raises:
            ActorAlreadyExistsError: the name is taken.
            TypeError: an argument cannot be serialized.
        """
        core = self._core
        context = current.task_context.get() or core.main_context
        objects = core.objects
        refs, args, kwargs = core.arguments.split_refs(args, kwargs)
        arguments: Payload | None = None
        inner: list[ObjectEntry] | None = None
        if args or kwargs:
            arguments, inner = core.arguments.encode(args, kwargs, what)
        actor_id = self.next_actor_id()
        push = TaskPush(
            actor_creation_task_id(actor_id),
            tasks.ACTOR_CREATION_TASK,
            export.message.function_id,
            core.job_id,
            arguments,
            1,
            class_name + ".__init__",
            depth=context.depth + 1,
            parent_task_id=context.task_id,
            options=extras,
            created=time.time(),
        )
        spec = ActorSpec(
            actor_id,
            core.job_id,
            core.address,
            class_name,
            name,
            namespace,
            detached,
            max_restarts,
            placement,
            resources,
            export.message,
            push,
            descriptor,
            get_if_exists,
            qualified_name,
        )
        owned = OwnedActor(actor_id, spec)
        with core.lock:
            if core.head_lost:
                raise exceptions.RaySystemError(core.head_lost)
            entry = objects.counter.own(handle_object_id(actor_id))
            entry.producer = owned
            if objects.record_sites:
                entry.site = ref_sites.made_by("actor call")
            entry.local += 1  # for the handle that the caller makes
            client = self.clients[actor_id] = ActorClient(actor_id, self, ordered)
            client.info = info
            self.owned[actor_id] = owned
            owned.refs = [(key, ref._entry) for key, ref in refs]
            top = {id(item): item for _, item in owned.refs}
            owned.dependencies = [*top.values(), *(inner or [])]
            for item in owned.dependencies:
                item.submitted += 1
            waiting = [item for item in top.values() if item.payload is None]
            owned.unready = len(waiting)
        if name:
            row = self._register_name(owned)
            if row is not None:
                with core.lock:
                    self._forget(actor_id)
                    entry.local -= 1
                    objects.counter.collect(entry)
                return bytes(row[0]), None, row
        with core.lock:
            if not owned.unready:
                self._send_creation(owned)
            else:
                pending = [item for item in waiting if item.payload is None]
                core.arguments.wait_for(owned, pending, self._send_creation)
                if not pending:
                    self._send_creation(owned)
        return actor_id, entry, None

    def _register_name(self, owned: OwnedActor) -> list[Any] | None:
        """Reserve the name at the head, so that an error comes at once. Returns the row of an existing actor, or
        None.
        """
        spec = owned.spec
        owned.spec.creation.num_returns = -1
        with self._core.lock:
            self._make_room(spec)
        try:
            return self._core.head_client.request(  # type: ignore[no-any-return]
                lambda number: control.CreateActor(number, spec)
            )
        except BaseException:
            with self._core.lock:
                entry = self._core.objects.entries.get(handle_object_id(owned.actor_id))
                self._forget(owned.actor_id)
                if entry is not None:
                    entry.local -= 1
                    self._core.objects.counter.collect(entry)
            raise
        finally:
            owned.spec.creation.num_returns = 1

    def _forget(self, actor_id: bytes) -> None:
        owned = self.owned.pop(actor_id, None)
        self.clients.pop(actor_id, None)
        if owned is not None:
            self._unpin_creation(owned)
            entry = self._core.objects.entries.get(handle_object_id(actor_id))
            if entry is not None:
                entry.producer = None

    def _make_room(self, spec: ActorSpec) -> None:
        """Where it goes may depend on what is free: idle leases are not to be in its way (under the lock)."""
        if spec.placement.strategy or spec.placement.fallback_selectors:
            self._core.tasks.submission.give_back_idle()

    def _send_creation(self, owned: OwnedActor) -> None:
        filled = []
        for key, entry in owned.refs:
            payload = entry.payload or GONE
            if payload.location is not None:
                entry.shared = True
            filled.append(RefArgument(key, entry.object_id, payload, self._core.objects.owner_of(entry)))
        owned.spec.creation.ref_arguments = filled or None
        owned.sent = True
        self._make_room(owned.spec)
        self._core.post(self._core.head, control.CreateActor(0, owned.spec), True)

    def _unpin_creation(self, owned: OwnedActor) -> None:
        dependencies, owned.dependencies = owned.dependencies, []
        owned.refs = []
        self._core.objects.counter.release_submitted(dependencies)

    def out_of_scope(self, owned: OwnedActor) -> None:
        """No handle is left anywhere (under the lock)."""
        owned.out_of_scope = True
        self.retire(owned.actor_id)
        if not owned.spec.detached and not self._core.head_lost and not self._core.closed:
            self._core.post(self._core.head, control.ActorOutOfScope(owned.actor_id), True)

    def retire(self, actor_id: bytes) -> None:
        """Keep nothing of an actor that is dead, and that nothing here holds a handle of."""
        client = self.clients.get(actor_id)
        if (
            client is not None
            and client.state == control.DEAD
            and not client.queue
            and not client.in_flight
            and handle_object_id(actor_id) not in self._core.objects.entries
        ):
            del self.clients[actor_id]
            self.owned.pop(actor_id, None)

    def told_again(self) -> list[Message]:
        """What a new head has to be told: the actors that this process made, and of which it wants to hear (under the
        lock).
        """
        messages: list[Message] = []
        for actor_id, client in self.clients.items():
            if client.state == control.DEAD:
                continue
            owned = self.owned.get(actor_id)
            if owned is not None and owned.sent:
                messages.append(control.CreateActor(0, owned.spec))
            if owned is None or owned.sent:
                messages.append(control.WatchActor(actor_id))
            if owned is not None and owned.out_of_scope:
                messages.append(control.ActorOutOfScope(actor_id))
        return messages

    # -- watching --------------------------------------------------------------------------------------------------

    def client(self, actor_id: bytes, ordered: bool, info: Any) -> ActorClient:
        """The client of an actor that this process got a handle of; asks the head where it is."""
        with self._core.lock:
            client = self.clients.get(actor_id)
            if client is None:
                client = self.clients[actor_id] = ActorClient(actor_id, self, ordered)
                client.info = info
                self._core.post(self._core.head, control.WatchActor(actor_id), True)
            return client

    def on_actor_state(self, sender: bytes, message: control.ActorState) -> None:
        """News of an actor."""
        client = self.clients.get(message.actor_id)
        if client is None:
            return
        gone = client.address
        if gone is not None and (
            message.state in (control.RESTARTING, control.DEAD) or self._core.awaits_last_words(gone.worker_id)
        ):
            # Replies of the process that died may still be on their way; and the news stay in their order, also when
            # the actor is back before the last words of its former process were waited for.
            self._core.after_last_words(gone.worker_id, lambda: self._apply(client, message))
        else:
            self._apply(client, message)

    def _apply(self, client: ActorClient, message: control.ActorState) -> None:
        gone = client.address
        if gone is not None and message.state in (control.RESTARTING, control.DEAD):
            self._core.forget(gone.worker_id)
        client.cause = message.cause
        client.error = message.error
        owned = self.owned.get(message.actor_id)
        if message.state == control.ALIVE and message.worker is not None:
            client.pid = message.worker.pid
            client.node_id = message.worker.node_id
            client.alive(message.incarnation, message.worker.address)
            if owned is not None and owned.spec.max_restarts == 0:
                self._unpin_creation(owned)
        elif message.state == control.RESTARTING and message.incarnation > client.incarnation:
            client.restarting()
            if client.undecided:
                self._core.reactor.call_later(RESTART_NEWS, client.give_up_waiting)
        elif message.state == control.DEAD:
            client.dead()
            actions, client.on_death = client.on_death, []
            for action in actions:
                action()
            if owned is not None:
                self._unpin_creation(owned)
            self.retire(message.actor_id)
        if self._held and message.state in (control.ALIVE, control.DEAD):
            for call in self._held.pop(message.actor_id, ()):
                client.submit(call)

    # -- calling ---------------------------------------------------------------------------------------------------

    def call(
        self,
        client: ActorClient,
        handle_entry: ObjectEntry | None,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str,
        what: str,
        num_returns: int,
        retries: int,
        extras: bytes,
        max_pending: int,
        generator: int = 0,
    ) -> list[ObjectRef[Any]]:
        """Call a method; returns the refs of its returns.

        Raises:
            TypeError: an argument cannot be serialized.
            PendingCallsLimitExceeded: `max_pending` calls are not done yet.
        """
        core = self._core
        context = current.task_context.get() or core.main_context
        objects = core.objects
        refs: list[tuple[int | str, ObjectRef[Any]]] = []
        inner: list[ObjectEntry] | None = None
        arguments: Payload | None = None
        if args or kwargs:
            refs, args, kwargs = core.arguments.split_refs(args, kwargs)
            arguments, inner = core.arguments.encode(args, kwargs, what)
        push = TaskPush(
            core.tasks.next_task_id.for_actor(client.actor_id),
            tasks.ACTOR_TASK,
            b"",
            core.job_id,
            arguments,
            num_returns,
            name,
            depth=context.depth + 1,
            parent_task_id=context.task_id,
            method=method,
            options=extras,
            created=time.time(),
        )
        call = ActorCall(push, client, retries)
        core.reactor.shield()
        with core.lock:
            if core.head_lost:
                raise exceptions.RaySystemError(core.head_lost)
            if objects._released:
                objects.drain()
            if max_pending >= 0 and client.pending() >= max_pending:
                raise exceptions.PendingCallsLimitExceeded(
                    f"The task {what} could not be submitted to {client.info} because more than {max_pending} "
                    "tasks are queued on the actor. This limit can be adjusted with the `max_pending_calls` actor "
                    "option."
                )
            self.calls[push.task_id] = call
            if generator:
                core.generators.open(push.task_id, generator)
            result = []
            for index in range(1, num_returns + 1):
                entry = objects.counter.own(push.task_id + index.to_bytes(4, "little"))
                entry.producer = call
                if objects.record_sites:
                    entry.site = ref_sites.made_by("actor call")
                call.returns.append(entry)
                result.append(objects.make_ref(entry))
            if refs or inner:
                core.arguments.pin(call, refs, inner or [], client.ready)
            if handle_entry is not None:
                handle_entry.submitted += 1
                handle_entry.accessed = True
                if call.dependencies is None:
                    call.dependencies = [handle_entry]
                else:
                    call.dependencies.append(handle_entry)
            client.submit(call)
            if core._dirty and not client.ordered:
                # The calls before it may wait for this very one, which nobody sends while the leader blocks.
                core.reactor.wake_for_release()
        if core.reactor.interrupt_pending:
            core.reactor._raise_interrupt()
        return result

    def run_again(self, call: ActorCall, dead_nodes: set[bytes]) -> None:
        """A finished call is made once more, since what it had returned was lost; its arguments are pinned already."""
        call.attempt += 1
        call.sent = False
        self.calls[call.push.task_id] = call
        client = call.client
        self._core.arguments.wait_again(call, client.ready)
        if client.state == control.DEAD or (client.state == control.ALIVE and client.node_id not in dead_nodes):
            client.submit(call)
        else:  # it may not be known here yet that the actor is gone, or not whether it comes back
            self._held.setdefault(client.actor_id, []).append(call)

    # -- port of the machine ---------------------------------------------------------------------------------------

    def push_call(self, client: ActorClient, call: ActorCall, urgent: bool) -> None:
        """Effect: mail the call to the actor."""
        push = call.push
        if call.arguments:
            self._core.arguments.fill(call)
        push.attempt = call.attempt
        self._core.post(client.address, push, urgent)

    def fail_call(self, client: ActorClient, call: ActorCall) -> None:
        """Effect: the call will not run (again)."""
        self.calls.pop(call.push.task_id, None)
        error = cancelled_error(call) if call.cancelled else actor_errors.error_of(client, call)
        self._core.tasks.settle_failure(call, error)
        self._unpin(call)

    def _unpin(self, call: ActorCall) -> None:
        dependencies = call.dependencies
        if dependencies:
            call.dependencies = None
            call.arguments = None
            self._core.objects.counter.release_submitted(dependencies)

    # -- answers ---------------------------------------------------------------------------------------------------

    def on_reply(self, sender: bytes, message: tasks.TaskReply) -> None:
        """A call is done."""
        call = self.calls.get(message.task_id)
        if call is None or call.attempt != message.attempt:
            return
        client = call.client
        core = self._core
        if client.answered(message.task_id) is None:
            return
        if client.queue:
            core.after_batch[client] = ActorClient.pump
        if message.status == tasks.FAILED and message.retryable and call.retries_left != 0 and not call.cancelled:
            if call.retries_left > 0:
                call.retries_left -= 1
            client.retry(call)
            return
        del self.calls[message.task_id]
        core.tasks.settle_reply(sender, call, message)
        dependencies = call.dependencies
        if dependencies:
            call.dependencies = None
            call.arguments = None
            core.arguments.release(message.task_id, dependencies, sender, message.kept)

    # -- cancelling and killing --------------------------------------------------------------------------------------

    def cancel_call(self, call: ActorCall, recursive: bool) -> None:
        """Cancel a call in whatever state it is (under the lock)."""
        if call.push.task_id not in self.calls:
            return
        if call.client.cancel(call):
            self.fail_call(call.client, call)
        else:
            call.cancelled = True
            address: Address | None = call.client.address
            if address is not None:
                self._core.post(address, tasks.CancelTask(call.push.task_id, False, recursive), True)

    def kill(self, actor_id: bytes, no_restart: bool) -> None:
        """Kill the actor's process."""
        self._core.head_client.request(lambda number: control.KillActor(number, actor_id, no_restart))

    def stop(self, actor_id: bytes, timeout: float) -> bool:
        """Ask the actor's process to end in good order, now. Whether it was dead within `timeout` seconds."""
        client = self.clients.get(actor_id)
        if client is None:
            return True  # it is dead
        ended = Waiter()
        with self._core.lock:
            if client.state == control.DEAD:
                return True
            if client.address is None:
                return False
            client.on_death.append(ended.finish)
            reason = "exit_actor: kill(graceful=True)"
            self._core.post(client.address, control.ExitActor(actor_id, reason, interrupt=True), True)
        return self._core.reactor.wait(ended, time.monotonic() + timeout)

    def fail_all(self, reason: str) -> None:
        """The session is lost."""
        for call in list(self.calls.values()):
            self.calls.pop(call.push.task_id, None)
            self._core.tasks.settle_failure(call, exceptions.RaySystemError(reason))
            self._unpin(call)
