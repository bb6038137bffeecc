"""The life of every actor: Ray's five states, who has which name, who hears what, how often it is made again.

    DEPENDENCIES_UNREADY   registered (its name is taken); its owner still waits for the arguments
    PENDING_CREATION       its first process is being found, or runs `__init__`
    ALIVE                  `__init__` has returned: calls may be sent
    RESTARTING             its process died, and the next one is being found, or runs `__init__`
    DEAD                   for good

`TRANSITIONS` is the whole graph; an event that is missing there is an error and changes nothing.

Rules
-----
1. An actor has one process at most. The next one is looked for when the last one has ended, never before.
2. To end an actor that has a process means to end the process; the actor is DEAD when that is gone, and with the cause
   that was decided first. An actor without a process is DEAD at once. A constructor that raised is DEAD at once, too:
   its process only has to leave.
3. A name is taken from the registration until the end is decided. So `kill` frees it at once.
4. `incarnation` counts processes; as many restarts as `max_restarts` allows. What the user ended (`exit_actor`,
   ``sys.exit(0)``) or an `__init__` that raised is not made again.
5. Watchers (the owner is one) get `ActorState` when they ask, and with every change; DEAD is the last one.
6. Who asked to kill is answered when it took effect: DEAD, or the old process is gone.

The dead stay known, without what it took to make them, until `KEPT_DEAD` others have died.

Ray does this in `gcs_actor_manager`; its scheduling half is `scheduler` and `worker_pool` here.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from miniray import death_causes
from miniray.messages.control import (
    ALIVE,
    DEAD,
    DEPENDENCIES_UNREADY,
    PENDING_CREATION,
    RESTARTING,
    ActorSpec,
    ActorState,
)
from miniray.messages.tasks import WorkerAddress
from miniray.state_machines.actor_record import (
    Actor,
    Answer,
    Cause,
    Changed,
    Create,
    Dismiss,
    Effect,
    Forgotten,
    Kill,
    Leave,
    Place,
    Tell,
    Withdraw,
)

KEPT_DEAD = 10_000
#: seconds that an actor without handles has to leave, before it is killed
LEAVE_WITHIN = 30.0
#: `ActorSpec.creation.num_returns` of an actor whose arguments are not ready
UNREADY = -1

# Events.
COMPLETED, CREATED, RESTARTED, ENDED = "completed", "created", "restarted", "ended"

TRANSITIONS: dict[str, dict[str, str]] = {
    DEPENDENCIES_UNREADY: {COMPLETED: PENDING_CREATION, ENDED: DEAD},
    PENDING_CREATION: {CREATED: ALIVE, RESTARTED: RESTARTING, ENDED: DEAD},
    ALIVE: {RESTARTED: RESTARTING, ENDED: DEAD},
    RESTARTING: {CREATED: ALIVE, RESTARTED: RESTARTING, ENDED: DEAD},
    DEAD: {},
}

# `cause["kind"]`
CREATION_FAILED, KILLED, OUT_OF_SCOPE, WORKER_DIED, NODE_DIED, OWNER_DIED, UNPLACEABLE, UNKNOWN = (
    "creation_failed",
    "killed",
    "out_of_scope",
    "worker_died",
    "node_died",
    "owner_died",
    "unplaceable",
    "unknown",
)
#: how the reason of a `Goodbye` begins after ``sys.exit``
_EXIT_CODE = "exit code "
_USER_EXIT_TYPES = ("INTENDED_USER_EXIT", "USER_ERROR")
_KILLED_NONE_LEFT = death_causes.worker_died(
    "INTENDED_SYSTEM_EXIT", f"Worker exits because the actor is killed. {death_causes.KILLED}"
)


class NameTakenError(Exception):
    """Another living actor has that name."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        super().__init__(name, namespace)

    def __str__(self) -> str:
        return (
            f"The name {self.name} (namespace={self.namespace}) is already taken. Please use a different name or get "
            f"the existing actor using ray.get_actor('{self.name}', namespace='{self.namespace}')"
        )


class ActorTransitionError(Exception):
    """An event that cannot happen in this state: a fault of this program."""


class ActorLifecycle:
    """All actors of a session.

    Args:
        node_ip: for the texts of errors.
        kept_dead: how many of the dead stay known.
    """

    def __init__(self, node_ip: str, kept_dead: int = KEPT_DEAD) -> None:
        self._kept_dead = kept_dead
        self.actors: dict[bytes, Actor] = {}
        self._node_ip = node_ip
        self._names: dict[tuple[str, str], Actor] = {}
        self._by_process: dict[bytes, Actor] = {}
        self._by_owner: dict[bytes, dict[bytes, Actor]] = {}
        self._watched: dict[bytes, set[bytes]] = {}  #: watcher -> actor ids
        self._dead: deque[bytes] = deque()

    # -- questions -------------------------------------------------------------------------------------------------

    def named(self, name: str, namespace: str) -> Actor | None:
        """The living actor of that name."""
        return self._names.get((namespace, name))

    def names(self, namespace: str | None = None) -> list[tuple[str, str]]:
        """(name, namespace) of all living named actors, of one namespace or of all."""
        return [(name, space) for space, name in self._names if namespace is None or space == namespace]

    def process_of(self, worker_id: bytes) -> Actor | None:
        """The actor that lives in this process."""
        return self._by_process.get(worker_id)

    def owned_by(self, owner: bytes) -> list[Actor]:
        """The actors that this process made and that are not dead."""
        return list(self._by_owner.get(owner, {}).values())

    def detached_processes(self, job_id: bytes) -> set[bytes]:
        """The processes of that job that outlive it."""
        return {key for key, actor in self._by_process.items() if actor.spec.detached and actor.spec.job_id == job_id}

    # -- birth -----------------------------------------------------------------------------------------------------

    def register(self, spec: ActorSpec) -> tuple[Actor, list[Effect]]:
        """An owner wants this actor. The answer is another one, if that has the name and `get_if_exists` is set.

        With `creation.num_returns` == `UNREADY` it is registered only; the same actor id later completes it. What is
        known already changes nothing.

        Raises:
            NameTakenError: and nothing changed.
        """
        actor = self.actors.get(spec.actor_id)
        unready = spec.creation.num_returns == UNREADY
        effects: list[Effect] = []
        if actor is not None:
            if actor.state == DEPENDENCIES_UNREADY and not unready:
                actor.spec = spec
                self._begin(actor, effects)
            return actor, effects
        if spec.name:
            holder = self.named(spec.name, spec.namespace)
            if holder is not None:
                if spec.get_if_exists:
                    return holder, effects
                raise NameTakenError(spec.name, spec.namespace)
        actor = self.actors[spec.actor_id] = Actor(spec, DEPENDENCIES_UNREADY)
        if spec.name:
            self._names[(spec.namespace, spec.name)] = actor
        owner = spec.owner.worker_id
        self._by_owner.setdefault(owner, {})[spec.actor_id] = actor
        self._add_watcher(actor, owner)
        if unready:
            effects.append(Changed(actor))
        else:
            self._begin(actor, effects)
        return actor, effects

    def _begin(self, actor: Actor, effects: list[Effect]) -> None:
        self._step(actor, COMPLETED)
        effects.append(Changed(actor))
        effects.append(Place(actor.actor_id, actor.incarnation))

    def granted(self, actor_id: bytes, incarnation: int, worker: WorkerAddress) -> list[Effect]:
        """A worker was found."""
        actor = self._current(actor_id, incarnation)
        worker_id = worker.address.worker_id
        if actor is None or actor.process is not None or actor.state not in (PENDING_CREATION, RESTARTING):
            return [Dismiss(worker_id, "its actor is wanted no more")]
        actor.process = worker
        actor.pid, actor.node_id = worker.pid, worker.node_id
        self._by_process[worker_id] = actor
        return [Create(actor, worker), Changed(actor)]

    def unplaceable(self, actor_id: bytes, incarnation: int, text: str, error: str = "") -> list[Effect]:
        """No worker can be had; `error` names the exception of its calls, if that is not ActorDiedError."""
        effects: list[Effect] = []
        actor = self._current(actor_id, incarnation)
        if actor is not None and actor.process is None and actor.state != DEPENDENCIES_UNREADY:
            cause = self._cause(actor, UNPLACEABLE, text)
            cause["error"] = error
            self._end(actor, cause, effects)
        return effects

    def group_removed(self, worker_id: bytes, text: str) -> list[Effect]:
        """The placement group in which this process runs is ended: so is the actor, without a restart."""
        effects: list[Effect] = []
        actor = self._by_process.get(worker_id)
        if actor is not None:
            text = death_causes.worker_died("INTENDED_SYSTEM_EXIT", text)
            self._decide(actor, self._cause(actor, WORKER_DIED, text), effects)
        return effects

    def created(self, worker_id: bytes) -> list[Effect]:
        """`__init__` has returned in this process."""
        effects: list[Effect] = []
        actor = self._by_process.get(worker_id)
        # Whoever is ending already has said it too late.
        if actor is not None and actor.ending is None and actor.state in (PENDING_CREATION, RESTARTING):
            self._step(actor, CREATED)
            actor.was_alive = True
            actor.cause = None
            self._tell(actor, effects)
        return effects

    def creation_failed(self, worker_id: bytes, error: bytes | None, text: str = "") -> list[Effect]:
        """`__init__` raised in this process: `error` is pickled; without one the text says what happened."""
        effects: list[Effect] = []
        actor = self._by_process.get(worker_id)
        if actor is not None and actor.ending is None and actor.state in (PENDING_CREATION, RESTARTING):
            del self._by_process[worker_id]
            self._fail(actor, error, text, effects)
            effects.append(Dismiss(worker_id, "its actor could not be created"))
        return effects

    def dependency_failed(self, actor_id: bytes, error: bytes | None, text: str = "") -> list[Effect]:
        """The owner could not get the arguments."""
        effects: list[Effect] = []
        actor = self.actors.get(actor_id)
        if actor is not None and actor.state == DEPENDENCIES_UNREADY:
            self._fail(actor, error, text, effects)
        return effects

    def _fail(self, actor: Actor, error: bytes | None, text: str, effects: list[Effect]) -> None:
        actor.error = error
        actor.process = None
        self._end(actor, self._cause(actor, CREATION_FAILED, text), effects)

    # -- death -----------------------------------------------------------------------------------------------------

    def process_ended(self, worker_id: bytes, exit_type: str, detail: str, *, expected: bool) -> list[Effect]:
        """A process is gone. `expected`: it said Goodbye; `exit_type` NODE_DIED: with its node."""
        effects: list[Effect] = []
        actor = self._by_process.pop(worker_id, None)
        if actor is None:
            return effects
        node_id = actor.node_id
        actor.process = None
        cause = actor.ending
        if cause is None:
            if exit_type == "NODE_DIED":
                cause = self._cause(actor, NODE_DIED, death_causes.node_died(node_id))
            elif exit_type == "NODE_OUT_OF_MEMORY":
                cause = self._cause(actor, WORKER_DIED, detail)
                cause["error"] = "OutOfMemoryError"
                actor.restart = True
            else:
                if not expected:
                    exit_type, detail = "SYSTEM_ERROR", death_causes.CONNECTION_LOST
                elif detail.startswith("exit_actor"):
                    detail = death_causes.EXIT_ACTOR
                elif detail in (_EXIT_CODE + "0", _EXIT_CODE + "None"):
                    detail = death_causes.USER_EXIT
                elif detail.startswith(_EXIT_CODE):  # sys.exit with another status is no user's request
                    exit_type = "SYSTEM_ERROR"
                    detail = f"Worker exits unexpectedly. Worker exits with an {detail}."
                actor.restart = exit_type not in _USER_EXIT_TYPES
                cause = self._cause(actor, WORKER_DIED, death_causes.worker_died(exit_type, detail))
                cause["never_started"] = not actor.was_alive and actor.restart
            actor.restart = actor.restart or exit_type == "NODE_DIED"
        self._restart_or_end(actor, cause, effects)
        return effects

    def kill(self, actor_id: bytes, no_restart: bool, token: Any) -> list[Effect] | None:
        """Somebody wants it killed; `Answer` comes with this token. None: there is no such actor."""
        actor = self.actors.get(actor_id)
        if actor is None:
            return None
        effects: list[Effect] = []
        if actor.state == DEAD:
            return [Answer(token)]
        actor.killers.append(token)
        if no_restart:
            self._decide(actor, self._cause(actor, KILLED, death_causes.KILLED), effects)
        elif actor.ending is not None:
            pass  # it ends anyway
        elif actor.state == DEPENDENCIES_UNREADY:
            self._answer(actor, effects)  # there is nothing to kill
        else:
            cause = self._cause(actor, KILLED, _KILLED_NONE_LEFT)
            if actor.process is not None:
                actor.ending, actor.restart = cause, True
                effects.append(Kill(actor.process.address.worker_id, "it was killed by `ray.kill`"))
            else:
                effects.append(Withdraw(actor_id, actor.incarnation))
                actor.restart = True
                self._restart_or_end(actor, cause, effects)
        return effects

    def out_of_scope(self, actor_id: bytes) -> list[Effect]:
        """No handle is left."""
        effects: list[Effect] = []
        actor = self.actors.get(actor_id)
        if actor is None or actor.spec.detached or actor.state == DEAD or actor.ending is not None:
            return effects
        cause = self._cause(actor, OUT_OF_SCOPE, death_causes.OUT_OF_SCOPE)
        if actor.state != ALIVE or actor.process is None:
            self._decide(actor, cause, effects)
            return effects
        actor.ending, actor.restart = cause, False
        self._free_name(actor)
        worker_id = actor.process.address.worker_id
        effects.append(Leave(actor_id, actor.incarnation, worker_id, death_causes.OUT_OF_SCOPE))
        return effects

    def overdue(self, actor_id: bytes, incarnation: int) -> list[Effect]:
        """It was asked to leave, and had its time."""
        actor = self._current(actor_id, incarnation)
        if actor is None or actor.ending is None or actor.process is None:
            return []
        return [Kill(actor.process.address.worker_id, "it did not leave in time")]

    def owner_died(self, owner: bytes, exit_type: str = "INTENDED_SYSTEM_EXIT") -> list[Effect]:
        """A process is gone: the actors that it made do not outlive it, except the detached ones."""
        effects: list[Effect] = []
        for actor in list(self._by_owner.pop(owner, {}).values()):
            # A detached one that waits for its owner's arguments will never get them.
            if actor.spec.detached and actor.state != DEPENDENCIES_UNREADY:
                continue
            text = death_causes.owner_died(owner, self._node_ip, exit_type)
            cause = self._cause(actor, OWNER_DIED, text)
            cause.update(owner_id=owner, owner_ip_address=self._node_ip)
            self._decide(actor, cause, effects)
        return effects

    def job_finished(self, job_id: bytes, driver: bytes) -> list[Effect]:
        """A job is over: its actors end, whoever made them, except the detached ones."""
        effects: list[Effect] = []
        for actor in list(self.actors.values()):
            if actor.spec.job_id == job_id and not actor.spec.detached and actor.state != DEAD:
                text = death_causes.owner_died(driver, self._node_ip)
                self._decide(actor, self._cause(actor, OWNER_DIED, text), effects)
        return effects

    # -- watching --------------------------------------------------------------------------------------------------

    def watch(self, watcher: bytes, actor_id: bytes, wanted: bool = True) -> list[Effect]:
        """Somebody wants to hear of this actor, or no longer. What it is now comes at once."""
        actor = self.actors.get(actor_id)
        if not wanted:
            if actor is not None and watcher != actor.spec.owner.worker_id:
                actor.watchers.discard(watcher)
                self._watched.get(watcher, set()).discard(actor_id)
            return []
        if actor is None:
            cause = {"kind": UNKNOWN, "actor_id": actor_id, "error_message": "No actor of this session has that id."}
            return [Tell([watcher], ActorState(actor_id, DEAD, 0, None, cause))]
        if actor.state != DEAD:
            self._add_watcher(actor, watcher)
        return [Tell([watcher], actor.message())]

    def watcher_gone(self, watcher: bytes) -> None:
        """It hears nothing any more."""
        for actor_id in self._watched.pop(watcher, ()):
            actor = self.actors.get(actor_id)
            if actor is not None:
                actor.watchers.discard(watcher)

    def _add_watcher(self, actor: Actor, watcher: bytes) -> None:
        actor.watchers.add(watcher)
        self._watched.setdefault(watcher, set()).add(actor.actor_id)

    # -- the inside ------------------------------------------------------------------------------------------------

    def _current(self, actor_id: bytes, incarnation: int) -> Actor | None:
        actor = self.actors.get(actor_id)
        return actor if actor is not None and actor.incarnation == incarnation and actor.state != DEAD else None

    def _step(self, actor: Actor, event: str) -> None:
        """The only place where a state changes."""
        to = TRANSITIONS[actor.state].get(event)
        if to is None:
            raise ActorTransitionError(f"actor {actor.actor_id.hex()} cannot be {event} while it is {actor.state}")
        actor.state = to

    def _cause(self, actor: Actor, kind: str, text: str) -> Cause:
        spec = actor.spec
        return {
            "kind": kind,
            "actor_id": spec.actor_id,
            "class_name": spec.class_name,
            "error_message": text,
            "pid": actor.pid,
            "name": spec.name,
            "ray_namespace": spec.namespace,
            "node_ip_address": self._node_ip if actor.pid else "",
            "never_started": not actor.was_alive and kind != CREATION_FAILED,
            "owner_id": spec.owner.worker_id,
            "owner_ip_address": self._node_ip,
        }

    def _decide(self, actor: Actor, cause: Cause, effects: list[Effect]) -> None:
        """It is to end for good, as fast as it can."""
        if actor.state == DEAD:
            return
        if actor.ending is None or actor.restart:
            actor.ending = cause
        actor.restart = False
        self._free_name(actor)
        if actor.process is not None:
            effects.append(Kill(actor.process.address.worker_id, cause["kind"].replace("_", " ")))
        else:
            if actor.state != DEPENDENCIES_UNREADY:
                effects.append(Withdraw(actor.actor_id, actor.incarnation))
            self._end(actor, actor.ending, effects)

    def _restart_or_end(self, actor: Actor, cause: Cause, effects: list[Effect]) -> None:
        most = actor.spec.max_restarts
        if not actor.restart or (most != -1 and actor.incarnation >= most):
            self._end(actor, cause, effects)
            return
        self._step(actor, RESTARTED)
        actor.incarnation += 1
        actor.ending, actor.restart = None, False
        actor.cause = cause
        self._tell(actor, effects)
        self._answer(actor, effects)
        effects.append(Place(actor.actor_id, actor.incarnation))

    def _end(self, actor: Actor, cause: Cause, effects: list[Effect]) -> None:
        self._step(actor, ENDED)
        actor.cause = cause
        actor.ending, actor.restart = None, False
        self._free_name(actor)
        self._tell(actor, effects)
        self._answer(actor, effects)
        self._by_owner.get(actor.spec.owner.worker_id, {}).pop(actor.actor_id, None)
        for watcher in actor.watchers:
            self._watched.get(watcher, set()).discard(actor.actor_id)
        actor.watchers = set()
        # What it took to make it is needed no more.
        actor.spec.creation.arguments = actor.spec.creation.ref_arguments = None
        actor.spec.export.payload.data = None
        self._dead.append(actor.actor_id)
        while len(self._dead) > self._kept_dead:
            actor_id = self._dead.popleft()
            del self.actors[actor_id]
            effects.append(Forgotten(actor_id))

    def _tell(self, actor: Actor, effects: list[Effect]) -> None:
        effects.append(Changed(actor))
        effects.append(Tell(sorted(actor.watchers), actor.message()))

    @staticmethod
    def _answer(actor: Actor, effects: list[Effect]) -> None:
        effects += [Answer(token) for token in actor.killers]
        actor.killers = []

    def _free_name(self, actor: Actor) -> None:
        key = (actor.spec.namespace, actor.spec.name)
        if self._names.get(key) is actor:
            del self._names[key]
