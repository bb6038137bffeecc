"""Actors of an earlier head: what was written down, and what the processes tell."""

import pytest

from miniray.messages.control import ALIVE, DEAD, PENDING_CREATION, RESTARTING
from miniray.messages.objects import Address
from miniray.messages.tasks import WorkerAddress
from miniray.state_machines import actor_recovery as recovery
from miniray.state_machines.actor_lifecycle import ActorLifecycle
from miniray.state_machines.actor_record import Create, Kill, Leave, Place, Withdraw
from tests.state_machines.test_actor_lifecycle import spec

OWNER = b"o"
WORKER = WorkerAddress(Address(b"w1", "ipc://w1"), b"node", 11)


def kinds(effects, *types):
    return [effect for effect in effects if isinstance(effect, types)]


def alive(**fields):
    machine = ActorLifecycle("127.0.0.1")
    mine = spec(**fields)
    machine.register(mine)
    machine.granted(mine.actor_id, 0, WORKER)
    machine.created(b"w1")
    return machine, mine


def again(machine):
    """What another head knows of these actors."""
    other = ActorLifecycle("127.0.0.1")
    for actor in machine.actors.values():
        recovery.restore(other, actor.spec, recovery.record_of(actor))
    return other


def resume(machine, told=None, present=(OWNER, b"w1"), wanted=()):
    told = {} if told is None else told
    return recovery.resume(machine, told, dict.fromkeys(told, WORKER), set(present), set(wanted))


def test_an_actor_whose_process_is_there_lives_on():
    machine, mine = alive(name="n")
    other = again(machine)
    assert resume(other, {b"w1": (mine.actor_id, True)}) == []
    actor = other.actors[mine.actor_id]
    assert (actor.state, actor.process, other.named("n", mine.namespace)) == (ALIVE, WORKER, actor)
    assert other.process_of(b"w1") is actor


def test_an_actor_whose_process_is_gone_restarts_or_dies():
    machine, mine = alive(max_restarts=1)
    other = again(machine)
    assert kinds(resume(other, present=(OWNER,)), Place) == [Place(mine.actor_id, 1)]
    assert other.actors[mine.actor_id].state == RESTARTING
    machine, mine = alive()
    other = again(machine)
    resume(other, present=(OWNER,))
    assert other.actors[mine.actor_id].state == DEAD


def test_a_creation_that_was_asked_for_is_asked_for_again_or_has_succeeded():
    machine = ActorLifecycle("127.0.0.1")
    mine = spec()
    machine.register(mine)
    machine.granted(mine.actor_id, 0, WORKER)
    lost = again(machine)
    assert [effect.worker for effect in kinds(resume(lost, {b"w1": (b"", False)}), Create)] == [WORKER]
    running = again(machine)
    assert resume(running, {b"w1": (mine.actor_id, False)}) == []
    done = again(machine)
    resume(done, {b"w1": (mine.actor_id, True)})
    assert done.actors[mine.actor_id].state == ALIVE


def test_a_grant_that_was_not_written_down_is_found_at_the_worker():
    machine = ActorLifecycle("127.0.0.1")
    mine = spec()
    machine.register(mine)
    other = again(machine)
    effects = resume(other, {b"w1": (mine.actor_id, True)}, wanted=[(mine.actor_id, 0)])
    assert kinds(effects, Withdraw, Place) == [Withdraw(mine.actor_id, 0)]
    assert other.actors[mine.actor_id].state == ALIVE


def test_an_actor_without_a_process_is_placed_once():
    machine = ActorLifecycle("127.0.0.1")
    mine = spec()
    machine.register(mine)
    assert resume(again(machine)) == [Place(mine.actor_id, 0)]
    assert resume(again(machine), wanted=[(mine.actor_id, 0)]) == []
    assert again(machine).actors[mine.actor_id].state == PENDING_CREATION


@pytest.mark.parametrize("detached", [False, True])
def test_the_actors_of_an_owner_that_is_gone_end_but_for_the_detached(detached):
    machine, mine = alive(detached=detached)
    other = again(machine)
    effects = resume(other, {b"w1": (mine.actor_id, True)}, present=(b"w1",))
    assert bool(kinds(effects, Kill)) != detached


def test_an_end_that_was_decided_is_carried_out_again():
    machine, mine = alive(name="n")
    machine.kill(mine.actor_id, True, "token")
    other = again(machine)
    assert other.named("n", mine.namespace) is None
    assert [effect.worker_id for effect in kinds(resume(other, {b"w1": (mine.actor_id, True)}), Kill)] == [b"w1"]
    machine, mine = alive()
    machine.out_of_scope(mine.actor_id)
    assert len(kinds(resume(again(machine), {b"w1": (mine.actor_id, True)}), Leave)) == 1


def test_a_worker_with_an_actor_that_nobody_knows_is_killed():
    other = ActorLifecycle("127.0.0.1")
    assert [effect.worker_id for effect in resume(other, {b"w1": (b"unknown", True)})] == [b"w1"]


def test_the_dead_stay_dead_and_known():
    machine, mine = alive()
    machine.process_ended(b"w1", "SYSTEM_ERROR", "", expected=False)
    other = again(machine)
    assert resume(other) == []
    assert other.actors[mine.actor_id].cause == machine.actors[mine.actor_id].cause
