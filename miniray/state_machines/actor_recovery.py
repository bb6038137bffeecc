"""What a new head does with the actors of the old one: put them back as they were written down, then compare with what
the processes tell.

`restore` is called for each actor, in the order of their registration; `resume` once everybody has told what there is,
or had the time to. The journal may lag some milliseconds behind the old head's last deeds, so both sides may know more:

========================= ==============================================================================================
the record says           what `resume` does
========================= ==============================================================================================
no process is known       a process that says it holds the actor is its process; else one is looked for
its process is there      the actor lives if the process says so; if it has no actor, it gets the creation task (again)
its process is not there  it has ended
its end is decided        its process is asked to end once more
its owner is not there    it ends with it, unless it is detached
========================= ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from miniray.messages.control import ALIVE, DEAD, DEPENDENCIES_UNREADY, PENDING_CREATION, RESTARTING, ActorSpec
from miniray.messages.durable import ActorRecord
from miniray.messages.tasks import WorkerAddress
from miniray.state_machines.actor_lifecycle import OUT_OF_SCOPE, ActorLifecycle
from miniray.state_machines.actor_record import Actor, Changed, Create, Effect, Kill, Leave, Place, Withdraw


def record_of(actor: Actor) -> ActorRecord:
    """What is written down of an actor besides its `ActorSpec`."""
    return ActorRecord(
        actor.state,
        actor.incarnation,
        actor.process,
        actor.pid,
        actor.node_id,
        actor.was_alive,
        actor.ending,
        actor.restart,
        actor.cause,
        actor.error,
    )


def restore(machine: ActorLifecycle, spec: ActorSpec, record: ActorRecord) -> Actor:
    """Put one actor back."""
    actor = Actor(
        spec,
        record.state,
        record.incarnation,
        record.process,
        record.pid,
        record.node_id,
        record.was_alive,
        record.ending,
        record.restart,
        record.cause,
        record.error,
    )
    machine.actors[spec.actor_id] = actor
    if actor.state == DEAD:
        machine._dead.append(spec.actor_id)
        return actor
    has_name = actor.ending is None or actor.restart
    if spec.name and has_name:
        machine._names[spec.namespace, spec.name] = actor
    owner = spec.owner.worker_id
    machine._by_owner.setdefault(owner, {})[spec.actor_id] = actor
    machine._add_watcher(actor, owner)
    if actor.process is not None:
        machine._by_process[actor.process.address.worker_id] = actor
    return actor


def resume(
    machine: ActorLifecycle,
    told: Mapping[bytes, tuple[bytes, bool]],
    addresses: Mapping[bytes, WorkerAddress],
    present: Collection[bytes],
    wanted: Collection[tuple[bytes, int]],
) -> list[Effect]:
    """Everybody who is left has told what there is.

    Args:
        told: worker -> (its actor, whether `__init__` has returned there).
        addresses: of these workers.
        present: all processes of the session.
        wanted: (actor, incarnation) for which a worker is being looked for already.
    """
    effects: list[Effect] = []
    for worker_id, (actor_id, _) in told.items():
        if actor_id and machine.process_of(worker_id) is None:
            effects += _found(machine, actor_id, addresses[worker_id], wanted)
    for actor in list(machine.actors.values()):
        if actor.state == DEAD:
            continue
        spec, process = actor.spec, actor.process
        if process is not None and process.address.worker_id not in present:
            effects += machine.process_ended(process.address.worker_id, "SYSTEM_ERROR", "", expected=False)
        elif process is not None:
            effects += _compare(machine, actor, process, told.get(process.address.worker_id, (b"", False)))
        elif actor.state in (PENDING_CREATION, RESTARTING) and (actor.actor_id, actor.incarnation) not in wanted:
            effects.append(Place(actor.actor_id, actor.incarnation))
        if spec.owner.worker_id not in present and not spec.detached:
            effects += machine.owner_died(spec.owner.worker_id)
    return effects


def _found(
    machine: ActorLifecycle, actor_id: bytes, worker: WorkerAddress, wanted: Collection[tuple[bytes, int]]
) -> list[Effect]:
    """This worker holds an actor of which that was not written down."""
    actor = machine.actors.get(actor_id)
    worker_id = worker.address.worker_id
    if actor is None or actor.process is not None or actor.state in (DEAD, DEPENDENCIES_UNREADY):
        return [Kill(worker_id, "its actor is not known any more")]
    actor.process = worker
    actor.pid, actor.node_id = worker.pid, worker.node_id
    machine._by_process[worker_id] = actor
    effects: list[Effect] = []
    if (actor_id, actor.incarnation) in wanted:
        effects.append(Withdraw(actor_id, actor.incarnation))
    return [*effects, Changed(actor)]


def _compare(machine: ActorLifecycle, actor: Actor, process: WorkerAddress, told: tuple[bytes, bool]) -> list[Effect]:
    """The process is there. Does it hold what was written down?"""
    worker_id = process.address.worker_id
    if actor.ending is not None:
        if actor.ending["kind"] == OUT_OF_SCOPE:
            return [Leave(actor.actor_id, actor.incarnation, worker_id, actor.ending["error_message"])]
        return [Kill(worker_id, "its actor is to end")]
    actor_id, is_created = told
    if actor_id not in (b"", actor.actor_id):
        return [Kill(worker_id, "it holds another actor")]
    if actor.state == ALIVE:
        return [] if actor_id else [Kill(worker_id, "its actor is gone")]
    if is_created:
        return machine.created(worker_id)
    return [] if actor_id else [Create(actor, process)]
