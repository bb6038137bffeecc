"""The head's glue between `actor_lifecycle`, the scheduler, the worker pool and the processes: it holds no policy.

The head is an owner like others towards its scheduler: one demand for one lease per incarnation of an actor. The worker
that is granted gets the class and the creation task from here, answers to here, and is the actor's until it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages import control, tasks
from miniray.messages.durable import ActorRecord
from miniray.messages.tasks import TaskExtras, TaskReply, WorkerAddress
from miniray.processes.head_members import Member
from miniray.state_machines import actor_lifecycle as lifecycle
from miniray.state_machines import actor_record as record
from miniray.state_machines import actor_recovery
from miniray.state_machines import lease_record as leasing
from miniray.state_machines.actor_record import Actor
from miniray.state_machines.resources import from_units
from miniray.state_machines.table_prefix import TablePrefix
from miniray.system.ray_settings import KEPT_DEAD, setting

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

_encode = msgspec.msgpack.encode
_decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode
#: seconds that a worker without an actor may take to run its exit handlers
_DISMISS_GRACE = 5.0


#: seconds that the news of an actor may take longer than its handle
_NEWS_WITHIN = 2.0


class Actors:
    """Actors as the head keeps them.

    Args:
        node_ip: for the texts of errors.
    """

    def __init__(self, head: Head, node_ip: str) -> None:
        self._head = head
        self._head_id = head.startup.head_id
        self.lifecycle = lifecycle.ActorLifecycle(node_ip, setting(head.config.system_config, *KEPT_DEAD))
        #: number of a demand <-> (actor, incarnation)
        self._wanted: dict[int, tuple[bytes, int]] = {}
        self._demands: dict[tuple[bytes, int], int] = {}
        self._early: dict[bytes, list[bytes]] = {}  #: who watches an actor of which nothing is known yet
        self._numbers = count(1)
        milliseconds = os.environ.get("RAY_actor_graceful_shutdown_timeout_ms", "")  # noqa: SIM112 (Ray's name)
        self._leave_within = int(milliseconds) / 1000 if milliseconds.isdigit() else lifecycle.LEAVE_WITHIN

    # -- messages --------------------------------------------------------------------------------------------------

    def on_create(self, sender: bytes, message: control.CreateActor) -> None:
        """An owner wants an actor."""
        head, spec = self._head, message.spec
        try:
            actor, effects = self.lifecycle.register(spec)
        except lifecycle.NameTakenError as error:
            head.reply(sender, message.request_id, str(error), "ActorAlreadyExistsError")
            return
        self._carry_out(effects)
        for watcher in self._early.pop(spec.actor_id, ()):
            self._carry_out(self.lifecycle.watch(watcher, spec.actor_id))
        owner = spec.owner.worker_id
        if owner not in head.members and actor.spec is spec:
            self._carry_out(self.lifecycle.owner_died(owner))
        existing = None if actor.actor_id == spec.actor_id else named_row(actor)
        head.gcs.durable.reply(sender, message.request_id, existing)

    def on_reply(self, sender: bytes, message: TaskReply) -> None:
        """A worker has run a creation task; or an owner could not get its arguments."""
        actor = self.lifecycle.process_of(sender)
        error = message.returns[0].data if message.returns else None
        if actor is not None and actor.spec.creation.task_id == message.task_id:
            if message.status == tasks.FINISHED:
                self._carry_out(self.lifecycle.created(sender))
            else:
                self._carry_out(self.lifecycle.creation_failed(sender, error, message.error))
        elif message.status != tasks.FINISHED:
            for mine in self.lifecycle.owned_by(sender):
                if mine.spec.creation.task_id == message.task_id:
                    self._carry_out(self.lifecycle.dependency_failed(mine.actor_id, error, message.error))

    def on_out_of_scope(self, sender: bytes, message: control.ActorOutOfScope) -> None:
        """No handle is left."""
        self._carry_out(self.lifecycle.out_of_scope(message.actor_id))

    def on_kill(self, sender: bytes, message: control.KillActor) -> None:
        """Somebody wants it killed."""
        token = (sender, message.request_id)
        effects = self.lifecycle.kill(message.actor_id, message.no_restart, token)
        if effects is None:
            self._head.reply(sender, message.request_id, False)
        else:
            self._carry_out(effects)

    def on_watch(self, sender: bytes, message: control.WatchActor) -> None:
        """Somebody wants to know how it fares.

        A handle can be faster than the news of its actor: the one goes from the creator by way of a third process, the
        other comes from the creator itself.
        """
        actor_id = message.actor_id
        if message.watch and actor_id not in self.lifecycle.actors:
            self._early.setdefault(actor_id, []).append(sender)
            self._head.call_at(self._head.now + _NEWS_WITHIN, lambda: self._give_up(actor_id))
        else:
            self._carry_out(self.lifecycle.watch(sender, actor_id, message.watch))

    def _give_up(self, actor_id: bytes) -> None:
        for watcher in self._early.pop(actor_id, ()):
            self._carry_out(self.lifecycle.watch(watcher, actor_id))

    # -- what an earlier head has done -------------------------------------------------------------------------------

    def restore(self, records: Iterable[tuple[control.ActorSpec, ActorRecord]]) -> None:
        """Put back what was written down."""
        for spec, written in records:
            actor_recovery.restore(self.lifecycle, spec, written)

    def resume(
        self, told: dict[bytes, tuple[bytes, bool]], addresses: dict[bytes, WorkerAddress], present: set[bytes]
    ) -> None:
        """Everybody has told what there is."""
        head = self._head
        effects = actor_recovery.resume(self.lifecycle, told, addresses, present, self._demands)
        for actor in self.lifecycle.actors.values():
            process = actor.process
            worker = head.members.get(process.address.worker_id) if process is not None else None
            if worker is not None:
                head.leases.adopt_actor(next(self._numbers), actor.spec, worker)
        self._carry_out(effects)

    # -- what the rest of the head tells -----------------------------------------------------------------------------

    def on_granted(self, lease: leasing.Lease, worker: WorkerAddress) -> None:
        """A worker for an actor."""
        actor_id, incarnation = self._forget(lease.claim.class_id)
        self._carry_out(self.lifecycle.granted(actor_id, incarnation, worker))

    def on_refused(self, class_id: int, text: str, error: str = "") -> None:
        """It can never be placed, or workers do not start; `error` names the exception, if not ActorDiedError."""
        actor_id, incarnation = self._forget(class_id)
        self._head.leases.withdraw(self._head_id, class_id)
        self._carry_out(self.lifecycle.unplaceable(actor_id, incarnation, text, error))

    def on_group_removed(self, worker_id: bytes, text: str) -> None:
        """The placement group in which this process runs is ended."""
        actor = self.lifecycle.process_of(worker_id)
        if actor is not None:
            text = f"{text}, actor id: {actor.actor_id.hex()}, worker id: {worker_id.hex()}"
            self._carry_out(self.lifecycle.group_removed(worker_id, text))

    def on_died(self, member: Member, notice: control.WorkerDied) -> None:
        """A process is gone, and its leases are ended."""
        worker_id = member.worker_id
        machine = self.lifecycle
        machine.watcher_gone(worker_id)
        self._carry_out(
            machine.process_ended(worker_id, notice.exit_type, notice.detail, expected=member.goodbye is not None)
        )
        self._carry_out(machine.owner_died(worker_id, "INTENDED_SYSTEM_EXIT" if member.dismissed else notice.exit_type))

    def on_job_finished(self, job_id: bytes, driver: bytes) -> None:
        """A job is over."""
        self._carry_out(self.lifecycle.job_finished(job_id, driver))

    def _forget(self, class_id: int) -> tuple[bytes, int]:
        wanted = self._wanted.pop(class_id)
        del self._demands[wanted]
        return wanted

    # -- what the machine wants ----------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[record.Effect]) -> None:
        head = self._head
        for effect in effects:
            if isinstance(effect, record.Tell):
                for watcher in effect.watchers:
                    head.post(watcher, effect.message)
            elif isinstance(effect, record.Changed):
                self._put(effect.actor)
                if effect.actor.state == control.DEAD:
                    head.placement.on_actor_dead(effect.actor.actor_id)
            elif isinstance(effect, record.Place):
                self._place(effect)
            elif isinstance(effect, record.Withdraw):
                class_id = self._demands.get((effect.actor_id, effect.incarnation))
                if class_id is not None:
                    self._forget(class_id)
                    head.leases.withdraw(self._head_id, class_id)
            elif isinstance(effect, record.Create):
                self._create(effect.actor, effect.worker)
            elif isinstance(effect, record.Answer):
                sender, request_id = effect.token
                head.reply(sender, request_id, True)
            elif isinstance(effect, record.Forgotten):
                for table in (TablePrefix.ACTOR, TablePrefix.ACTOR_TASK_SPEC, TablePrefix.DIRECT_ACTOR):
                    head.gcs.delete(table, effect.actor_id)
            else:
                self._end_process(effect)

    def _end_process(self, effect: record.Kill | record.Leave | record.Dismiss) -> None:
        head = self._head
        member = head.members.get(effect.worker_id)
        if member is None or member.dead:
            return
        if isinstance(effect, record.Kill):
            head.ends.kill(member, effect.reason)
        elif isinstance(effect, record.Dismiss):
            head.leases.release(effect.worker_id)
            head.ends.dismiss(member, effect.reason, grace=_DISMISS_GRACE)
        else:
            actor_id, incarnation = effect.actor_id, effect.incarnation
            member.dismissed = member.dismissed or effect.reason
            head.post(effect.worker_id, control.ExitActor(actor_id, effect.reason))
            overdue = self.lifecycle.overdue
            head.call_at(head.now + self._leave_within, lambda: self._carry_out(overdue(actor_id, incarnation)))

    def _place(self, effect: record.Place) -> None:
        head = self._head
        spec = self.lifecycle.actors[effect.actor_id].spec
        class_id = next(self._numbers)
        wanted = (effect.actor_id, effect.incarnation)
        self._wanted[class_id] = wanted
        self._demands[wanted] = class_id
        owner = head.members.get(spec.owner.worker_id)
        head.leases.demand(
            self._head_id,
            class_id,
            spec.placement,
            held=spec.resources,
            depth=spec.creation.depth,
            owner_node=owner.node_id if owner is not None else b"",
        )

    def _create(self, actor: Actor, worker: WorkerAddress) -> None:
        head, spec = self._head, actor.spec
        worker_id = worker.address.worker_id
        lease = head.leases.lease_of(worker_id)
        push = msgspec.structs.replace(spec.creation, attempt=actor.incarnation)
        ids = lease.allocation.device_ids() if lease is not None else None
        if lease is not None:
            push.lease_id = lease.lease_id
        if ids:
            extras = _decode_extras(push.options) if push.options else TaskExtras()
            extras.accelerator_ids = ids
            push.options = _encode(extras)
        head.post(worker_id, spec.export)
        head.post(worker_id, push)

    def _put(self, actor: Actor) -> None:
        gcs = self._head.gcs
        if gcs.durable.is_open:
            if actor.process is None and actor.state != control.RESTARTING:
                gcs.put(TablePrefix.ACTOR_TASK_SPEC, actor.actor_id, _encode(actor.spec))
            gcs.put(TablePrefix.DIRECT_ACTOR, actor.actor_id, _encode(actor_recovery.record_of(actor)))
        self._head.gcs.put(TablePrefix.ACTOR, actor.actor_id, _encode(row(actor)))


def row(actor: Actor) -> dict[str, Any]:
    """The actor's row in the ACTOR table: plain data, ids in hex."""
    spec, cause = actor.spec, actor.cause
    death_cause = None
    if cause is not None and actor.state == control.DEAD:
        death_cause = {"kind": cause["kind"], "error_message": cause["error_message"]}
    return {
        "actor_id": spec.actor_id.hex(),
        "class_name": spec.class_name,
        "state": actor.state,
        "job_id": spec.job_id.hex(),
        "name": spec.name,
        "ray_namespace": spec.namespace,
        "is_detached": spec.detached,
        "node_id": actor.node_id.hex() or None,
        "pid": actor.pid,
        "num_restarts": actor.incarnation,
        "max_restarts": spec.max_restarts,
        "required_resources": from_units(spec.resources),
        "placement_group_id": spec.placement.placement_group_id.hex() or None,
        "serialized_runtime_env": spec.placement.runtime_env or "{}",
        "owner_id": spec.owner.worker_id.hex(),
        "death_cause": death_cause,
    }


def named_row(actor: Actor) -> list[Any]:
    """What another process needs to make a handle: actor id, owner's worker id and endpoint, descriptor."""
    owner = actor.spec.owner
    return [actor.actor_id, owner.worker_id, owner.endpoint, actor.spec.descriptor]


# -- queries ---------------------------------------------------------------------------------------------------------


def query_named(head: Head, arguments: dict[str, Any]) -> list[Any] | None:
    """The living actor of this name, or None."""
    actor = head.actors.lifecycle.named(arguments["name"], arguments["namespace"])
    return None if actor is None else named_row(actor)


def query_names(head: Head, arguments: dict[str, Any]) -> list[dict[str, str]]:
    """Names of living actors."""
    names = head.actors.lifecycle.names(arguments.get("namespace"))
    return [{"name": name, "namespace": namespace} for name, namespace in names]


def query_actor(head: Head, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """All about one actor."""
    actor = head.actors.lifecycle.actors.get(arguments["actor_id"])
    if actor is None:
        return None
    owner = actor.spec.owner
    return {**row(actor), "descriptor": actor.spec.descriptor, "owner": [owner.worker_id, owner.endpoint]}


def query_actors(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all actors, the dead that are remembered among them."""
    return [row(actor) for actor in head.actors.lifecycle.actors.values()]
