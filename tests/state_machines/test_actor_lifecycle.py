"""The life of actors: sentences about single events, and a model that throws all of them at the machine."""

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from miniray.messages.control import (
    ALIVE,
    DEAD,
    DEPENDENCIES_UNREADY,
    PENDING_CREATION,
    RESTARTING,
    ActorSpec,
    LeaseSpec,
)
from miniray.messages.objects import Address, Payload
from miniray.messages.tasks import ACTOR_CREATION_TASK, FunctionExport, TaskPush, WorkerAddress
from miniray.state_machines import actor_lifecycle, actor_record
from miniray.state_machines.actor_lifecycle import (
    TRANSITIONS,
    UNREADY,
    ActorLifecycle,
    ActorTransitionError,
    NameTakenError,
)

JOB = b"job1"


def spec(actor_id=b"a", owner=b"o", *, ready=True, name="", max_restarts=0, detached=False, get_if_exists=False):
    push = TaskPush(b"t" + actor_id, ACTOR_CREATION_TASK, b"f", JOB, None, 1 if ready else UNREADY, "A.__init__")
    return ActorSpec(
        actor_id,
        JOB,
        Address(owner, "ipc://o"),
        "A",
        name,
        "space",
        detached,
        max_restarts,
        LeaseSpec({}, JOB),
        {},
        FunctionExport(b"f", b"t", Payload(0, b"class"), [], JOB),
        push,
        b"descriptor",
        get_if_exists,
    )


def worker(worker_id, pid=7):
    return WorkerAddress(Address(worker_id, "ipc://w"), b"node", pid)


def alive(machine, actor_id=b"a", worker_id=b"w", **options):
    """Register an actor and bring it to life."""
    actor, _ = machine.register(spec(actor_id, **options))
    machine.granted(actor_id, 0, worker(worker_id))
    machine.created(worker_id)
    assert actor.state == ALIVE
    return actor


def machine():
    return ActorLifecycle("127.0.0.1")


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def crash(life, worker_id=b"w"):
    return life.process_ended(worker_id, "SYSTEM_ERROR", "", expected=False)


def test_every_state_is_reachable_and_the_dead_stay_dead():
    reached = {DEPENDENCIES_UNREADY}
    for _ in TRANSITIONS:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == set(TRANSITIONS)
    assert TRANSITIONS[DEAD] == {}


def test_an_event_that_cannot_be_is_an_error_and_changes_nothing():
    life = machine()
    actor = alive(life)
    with pytest.raises(ActorTransitionError, match="cannot be created while it is ALIVE"):
        life._step(actor, actor_lifecycle.CREATED)
    assert actor.state == ALIVE


def test_a_creation_goes_to_the_worker_that_is_granted():
    life = machine()
    actor, effects = life.register(spec())
    assert of(actor_record.Place, effects) == [actor_record.Place(b"a", 0)]
    (create,) = of(actor_record.Create, life.granted(b"a", 0, worker(b"w")))
    assert (create.actor, create.worker.address.worker_id) == (actor, b"w")
    (tell,) = of(actor_record.Tell, life.created(b"w"))
    assert tell.watchers == [b"o"]
    assert tell.message.worker.address.worker_id == b"w"


def test_a_worker_for_an_incarnation_that_is_over_goes_home():
    life = machine()
    life.register(spec(max_restarts=1))
    life.kill(b"a", False, 1)
    assert of(actor_record.Dismiss, life.granted(b"a", 0, worker(b"w")))
    assert of(actor_record.Create, life.granted(b"a", 1, worker(b"w")))


def test_a_name_is_free_as_soon_as_the_end_is_decided():
    life = machine()
    alive(life, name="n")
    with pytest.raises(NameTakenError):
        life.register(spec(b"b", name="n"))
    life.kill(b"a", True, 1)
    assert life.actors[b"a"].state == ALIVE  # its process has yet to end
    actor, _ = life.register(spec(b"b", name="n"))
    crash(life)
    assert life.named("n", "space") is actor


def test_a_kill_is_answered_when_the_process_is_gone():
    life = machine()
    alive(life)
    effects = life.kill(b"a", True, "token")
    assert not of(actor_record.Answer, effects)
    assert of(actor_record.Kill, effects)
    effects = crash(life)
    assert of(actor_record.Answer, effects) == [actor_record.Answer("token")]
    assert life.actors[b"a"].cause["kind"] == "killed"


def test_a_kill_for_good_overrides_one_with_a_restart():
    life = machine()
    alive(life, max_restarts=5)
    life.kill(b"a", False, 1)
    life.kill(b"a", True, 2)
    assert len(of(actor_record.Answer, crash(life))) == 2
    assert life.actors[b"a"].state == DEAD


@pytest.mark.parametrize(
    ("exit_type", "detail", "expected", "state"),
    [
        ("SYSTEM_ERROR", "killed", False, RESTARTING),
        ("SYSTEM_ERROR", "Worker exits unexpectedly. Worker exits with an exit code 3.", True, RESTARTING),
        ("INTENDED_USER_EXIT", "exit code 3", True, RESTARTING),
        ("INTENDED_USER_EXIT", "exit code 0", True, DEAD),
        ("NODE_DIED", "", False, RESTARTING),
        ("INTENDED_USER_EXIT", "exit_actor", True, DEAD),
        ("INTENDED_USER_EXIT", "Worker exits by an user request.", True, DEAD),
        ("USER_ERROR", "", True, DEAD),
    ],
)
def test_what_the_user_ended_is_not_made_again(exit_type, detail, expected, state):
    life = machine()
    actor = alive(life, max_restarts=1)
    life.process_ended(b"w", exit_type, detail, expected=expected)
    assert actor.state == state


def test_the_status_of_sys_exit_is_told_as_ray_tells_it():
    life = machine()
    actor = alive(life)
    life.process_ended(b"w", "INTENDED_USER_EXIT", "exit code 3", expected=True)
    assert actor.cause["error_message"] == (
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker exits unexpectedly. Worker exits with an exit code 3."
    )


def test_an_actor_without_handles_is_asked_to_leave_and_then_made_to():
    life = machine()
    alive(life, max_restarts=-1)
    (leave,) = of(actor_record.Leave, life.out_of_scope(b"a"))
    assert leave.worker_id == b"w"
    assert of(actor_record.Kill, life.overdue(b"a", 0))
    crash(life)
    assert life.actors[b"a"].cause["kind"] == "out_of_scope"
    assert not life.overdue(b"a", 0)


def test_a_detached_actor_outlives_handles_owner_and_job():
    life = machine()
    actor = alive(life, detached=True)
    assert not life.out_of_scope(b"a")
    assert not life.owner_died(b"o")
    assert not life.job_finished(JOB, b"o")
    assert actor.state == ALIVE
    assert life.detached_processes(JOB) == {b"w"}


def test_the_oldest_dead_are_forgotten():
    life = ActorLifecycle("127.0.0.1", kept_dead=2)
    forgotten = []
    for number in range(4):
        alive(life, b"%d" % number, b"w%d" % number)
        life.kill(b"%d" % number, True, 1)
        forgotten += of(actor_record.Forgotten, crash(life, b"w%d" % number))
    assert [effect.actor_id for effect in forgotten] == [b"0", b"1"]
    (tell,) = of(actor_record.Tell, life.watch(b"x", b"0"))
    assert (tell.message.state, tell.message.cause["kind"]) == (DEAD, "unknown")


class Life(RuleBasedStateMachine):
    """The model plays scheduler, pool, processes, owners and watchers."""

    actors = Bundle("actors")
    OWNERS = (b"o1", b"o2")

    def __init__(self):
        super().__init__()
        self.life = machine()
        self.numbers = count(1)
        self.wanted = set()  # demands for workers
        self.living = {}  # process -> actor id
        self.told_to_die = set()
        self.restarts = {}  # actor -> how often its process died or was to be replaced
        self.heard = {}  # (watcher, actor) -> last message
        self.rows = {}
        self.tokens = set()
        self.dead_owners = set()

    def carry_out(self, effects):
        for effect in effects or ():
            if isinstance(effect, actor_record.Place):
                assert (effect.actor_id, effect.incarnation) not in self.wanted
                # Never two living incarnations: the next one is looked for when the last one is gone.
                assert effect.actor_id not in self.living.values()
                self.wanted.add((effect.actor_id, effect.incarnation))
            elif isinstance(effect, actor_record.Withdraw):
                self.wanted.remove((effect.actor_id, effect.incarnation))
            elif isinstance(effect, actor_record.Create):
                self.living[effect.worker.address.worker_id] = effect.actor.actor_id
            elif isinstance(effect, (actor_record.Kill, actor_record.Leave)):
                self.told_to_die.add(effect.worker_id)
            elif isinstance(effect, actor_record.Dismiss):
                self.living.pop(effect.worker_id, None)
            elif isinstance(effect, actor_record.Tell):
                message = effect.message
                for watcher in effect.watchers:
                    last = self.heard.get((watcher, message.actor_id))
                    assert last is None or last.state != DEAD or message == last
                    assert last is None or last.incarnation <= message.incarnation
                    self.heard[(watcher, message.actor_id)] = message
            elif isinstance(effect, actor_record.Changed):
                self.rows[effect.actor.actor_id] = effect.actor.state
            elif isinstance(effect, actor_record.Answer):
                self.tokens.remove(effect.token)

    @rule(
        target=actors,
        owner=st.sampled_from(OWNERS),
        name=st.sampled_from(["", "n", "m"]),
        max_restarts=st.sampled_from([-1, 0, 1, 2]),
        detached=st.booleans(),
        ready=st.booleans(),
        get_if_exists=st.booleans(),
    )
    def register(self, owner, name, max_restarts, detached, ready, get_if_exists):
        if owner in self.dead_owners:
            return multiple()
        actor_id = b"%d" % next(self.numbers)
        wanted = spec(
            actor_id,
            owner,
            ready=ready,
            name=name,
            max_restarts=max_restarts,
            detached=detached,
            get_if_exists=get_if_exists,
        )
        holder = self.life.named(name, "space") if name else None
        try:
            actor, effects = self.life.register(wanted)
        except NameTakenError:
            assert holder is not None
            assert not get_if_exists
            return multiple()
        assert actor.actor_id == (holder.actor_id if holder else actor_id)
        self.carry_out(effects)
        return multiple() if holder else actor_id

    @rule(actor_id=actors)
    def complete(self, actor_id):
        old = self.life.actors[actor_id].spec
        again = spec(actor_id, old.owner.worker_id, name=old.name, max_restarts=old.max_restarts, detached=old.detached)
        self.carry_out(self.life.register(again)[1])

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def grant(self, data):
        actor_id, incarnation = data.draw(st.sampled_from(sorted(self.wanted)))
        self.wanted.remove((actor_id, incarnation))
        self.carry_out(self.life.granted(actor_id, incarnation, worker(b"w%d" % next(self.numbers))))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def refuse(self, data):
        actor_id, incarnation = data.draw(st.sampled_from(sorted(self.wanted)))
        self.wanted.remove((actor_id, incarnation))
        self.carry_out(self.life.unplaceable(actor_id, incarnation, "no"))

    @precondition(lambda self: self.living)
    @rule(data=st.data(), fails=st.integers(0, 3))
    def creation_ends(self, data, fails):
        worker_id = data.draw(st.sampled_from(sorted(self.living)))
        if fails:
            self.carry_out(self.life.created(worker_id))
        else:
            self.carry_out(self.life.creation_failed(worker_id, b"error"))

    @precondition(lambda self: self.living)
    @rule(data=st.data(), kind=st.sampled_from(["SYSTEM_ERROR", "NODE_DIED", "INTENDED_USER_EXIT"]))
    def process_ends(self, data, kind):
        worker_id = data.draw(st.sampled_from(sorted(self.living)))
        actor = self.life.actors[self.living.pop(worker_id)]
        before, asked = actor.incarnation, worker_id in self.told_to_die
        most = actor.spec.max_restarts
        expected = kind == "INTENDED_USER_EXIT"
        self.carry_out(self.life.process_ended(worker_id, kind, "", expected=expected))
        # Restarts are counted exactly.
        if actor.state == DEAD:
            assert actor.incarnation == before
            assert asked or expected or before == most
        else:
            assert actor.state == RESTARTING
            assert actor.incarnation == before + 1
            assert most == -1 or actor.incarnation <= most

    @rule(actor_id=actors, no_restart=st.booleans())
    def kill(self, actor_id, no_restart):
        token = next(self.numbers)
        self.tokens.add(token)
        self.carry_out(self.life.kill(actor_id, no_restart, token))

    @rule(actor_id=actors)
    def out_of_scope(self, actor_id):
        self.carry_out(self.life.out_of_scope(actor_id))

    @rule(actor_id=actors)
    def overdue(self, actor_id):
        self.carry_out(self.life.overdue(actor_id, self.life.actors[actor_id].incarnation))

    @rule(actor_id=actors)
    def dependency_fails(self, actor_id):
        self.carry_out(self.life.dependency_failed(actor_id, b"error"))

    @rule(actor_id=actors, watcher=st.sampled_from([b"x", b"y"]))
    def watch(self, actor_id, watcher):
        self.carry_out(self.life.watch(watcher, actor_id))
        assert self.heard[(watcher, actor_id)].state == self.life.actors[actor_id].state

    @rule(actor_id=consumes(actors), watcher=st.sampled_from([b"x", b"y"]))
    def stop_watching(self, actor_id, watcher):
        self.life.watch(watcher, actor_id, False)
        self.heard.pop((watcher, actor_id), None)

    @rule(owner=st.sampled_from(OWNERS))
    def owner_dies(self, owner):
        self.dead_owners.add(owner)
        self.life.watcher_gone(owner)
        self.heard = {key: last for key, last in self.heard.items() if key[0] != owner}
        self.carry_out(self.life.owner_died(owner))
        assert not self.life.owned_by(owner)

    @rule()
    def job_finishes(self):
        self.carry_out(self.life.job_finished(JOB, b"driver"))
        for actor in self.life.actors.values():
            assert actor.spec.detached or actor.state == DEAD or actor.ending is not None

    @invariant()
    def a_name_belongs_to_one_actor_that_is_not_ending(self):
        holders = {}
        for actor in self.life.actors.values():
            ends = actor.state == DEAD or (actor.ending is not None and not actor.restart)
            if actor.spec.name and not ends:
                assert holders.setdefault(actor.spec.name, actor) is actor
                assert self.life.named(actor.spec.name, "space") is actor
        for name in ("n", "m"):
            if name not in holders:
                assert self.life.named(name, "space") is None

    @invariant()
    def one_process_or_one_demand_or_nothing(self):
        for actor in self.life.actors.values():
            processes = [key for key, mine in self.living.items() if mine == actor.actor_id]
            demands = [want for want in self.wanted if want[0] == actor.actor_id]
            # All resources are given back: the dead and the unready have neither.
            busy = actor.state in (PENDING_CREATION, RESTARTING, ALIVE)
            assert len(processes) + len(demands) == (1 if busy else 0)
            assert (actor.state != ALIVE) or processes
            assert all(incarnation == actor.incarnation for _, incarnation in demands)

    @invariant()
    def watchers_and_rows_know_the_last_state(self):
        for (_, actor_id), message in self.heard.items():
            actor = self.life.actors[actor_id]
            # PENDING_CREATION and DEPENDENCIES_UNREADY are told only to those who ask.
            assert message.state in (actor.state, DEPENDENCIES_UNREADY) or actor.state == PENDING_CREATION
            if actor.state in (ALIVE, RESTARTING, DEAD):
                assert message.state == actor.state
        for actor in self.life.actors.values():
            assert self.rows[actor.actor_id] == actor.state

    @invariant()
    def who_asked_to_kill_waits_only_while_a_process_lives(self):
        waiting = {token for actor in self.life.actors.values() for token in actor.killers}
        assert waiting == self.tokens
        for actor in self.life.actors.values():
            assert not actor.killers or actor.actor_id in self.living.values()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
