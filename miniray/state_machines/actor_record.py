"""What the head knows of an actor, and what `actor_lifecycle` wants done about it."""

from __future__ import annotations

from typing import Any, Union

from msgspec import Struct, field

from miniray.messages.control import ALIVE, ActorSpec, ActorState
from miniray.messages.tasks import WorkerAddress

#: plain data: "kind", and the fields of `exceptions.ActorDiedErrorContext`
Cause = dict[str, Any]


class Actor(Struct, eq=False):
    """One actor."""

    spec: ActorSpec
    state: str
    incarnation: int = 0
    process: WorkerAddress | None = None  #: the one that lives, or is about to end
    pid: int = 0  #: of the last process
    node_id: bytes = b""
    was_alive: bool = False
    ending: Cause | None = None  #: decided, and carried out once the process is gone
    restart: bool = False  #: ... by making it again, if that is allowed
    cause: Cause | None = None
    error: bytes | None = None
    watchers: set[bytes] = field(default_factory=set)
    killers: list[Any] = field(default_factory=list)  #: tokens to answer

    @property
    def actor_id(self) -> bytes:
        return self.spec.actor_id

    def message(self) -> ActorState:
        """The state, for those who watch."""
        worker = self.process if self.state == ALIVE else None
        return ActorState(self.actor_id, self.state, self.incarnation, worker, self.cause, self.error)


class Place(Struct):
    """Find a worker for this incarnation, then tell `granted` or `unplaceable`."""

    actor_id: bytes
    incarnation: int


class Withdraw(Struct):
    """No worker is wanted for this incarnation any more."""

    actor_id: bytes
    incarnation: int


class Create(Struct):
    """Send the creation task to this worker; tell `created` or `creation_failed`."""

    actor: Actor
    worker: WorkerAddress


class Kill(Struct):
    """End this process at once; tell `process_ended`."""

    worker_id: bytes
    reason: str


class Leave(Struct):
    """Ask this actor's process to leave once its calls have run; tell `overdue` when it had `LEAVE_WITHIN`."""

    actor_id: bytes
    incarnation: int
    worker_id: bytes
    reason: str


class Dismiss(Struct):
    """This process holds no actor: it has nothing to finish."""

    worker_id: bytes
    reason: str


class Tell(Struct):
    """Send the state to those who watch."""

    watchers: list[bytes]
    message: ActorState


class Changed(Struct):
    """Write the actor's row again."""

    actor: Actor


class Forgotten(Struct):
    """Delete the actor's row."""

    actor_id: bytes


class Answer(Struct):
    """The kill that was asked for under this token took effect."""

    token: Any


Effect = Union[Place, Withdraw, Create, Kill, Leave, Dismiss, Tell, Changed, Forgotten, Answer]
