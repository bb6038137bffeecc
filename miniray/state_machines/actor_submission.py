"""The caller's side of actor calls: one queue per actor, numbered when sent.

The rules
---------
* Calls to a plain actor are sent in the order they were made. One whose arguments are not ready holds back those
  behind it. Calls to a concurrent actor (async, threaded) are sent as soon as their arguments are ready.
* A call gets its sequence number when it is sent, so that cancelled calls leave no gap. Numbers begin anew with each
  incarnation of the actor.
* At most `WINDOW` calls are unanswered on the wire; the rest waits here. So a slow actor's inbox stays small. The
  window of a concurrent actor is `CONCURRENT_WINDOW`: there, calls that wait for a later call must not hold it back.
* When the actor's process is gone: what was unanswered is sent again to the next incarnation if its
  `max_task_retries` allow, in the old order and before everything else. Otherwise it fails, once it is known whether
  the actor came back or is dead. Calls without retries that are made while the actor restarts fail at once; when it
  is dead, all do.

Which error a failed call gets is the port's business: the machine says whether the actor restarts or is dead.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Protocol

from miniray.messages.control import ALIVE, DEAD, PENDING_CREATION, RESTARTING
from miniray.state_machines.reference_counter import ObjectEntry

#: Calls that may be unanswered on the wire.
WINDOW = 1000
CONCURRENT_WINDOW = 100_000


class ActorCall:
    """A call of an actor's method that is not done."""

    __slots__ = (
        "arguments",
        "attempt",
        "cancelled",
        "client",
        "dependencies",
        "push",
        "retries_left",
        "returns",
        "sent",
        "unready",
    )

    def __init__(self, push: Any, client: ActorClient, retries: int) -> None:
        self.push = push
        self.client = client
        self.retries_left = retries  #: -1: for ever
        self.attempt = 0
        self.unready = 0
        self.sent = False
        self.cancelled = False
        self.returns: list[ObjectEntry] = []
        self.dependencies: list[ObjectEntry] | None = None
        self.arguments: Any = None


class ActorPort(Protocol):
    """The effects of the machine."""

    def push_call(self, client: ActorClient, call: ActorCall, urgent: bool) -> None:
        """Mail the call to the actor's process; its number is in the push."""

    def fail_call(self, client: ActorClient, call: ActorCall) -> None:
        """The call will not run (again): the client's state says why."""


class ActorClient:
    """One actor as one of its callers sees it."""

    __slots__ = (
        "actor_id",
        "address",
        "cause",
        "error",
        "in_flight",
        "incarnation",
        "info",
        "next_number",
        "on_death",
        "node_id",
        "ordered",
        "pid",
        "port",
        "processed_up_to",
        "queue",
        "state",
        "undecided",
    )

    def __init__(self, actor_id: bytes, port: ActorPort, ordered: bool) -> None:
        self.actor_id = actor_id
        self.port = port
        self.ordered = ordered
        self.state = PENDING_CREATION
        self.incarnation = -1
        self.address: Any = None
        self.node_id = b""
        self.pid = 0
        self.cause: dict[str, Any] | None = None
        self.error: bytes | None = None
        self.info: Any = None  #: what error texts say of the actor
        self.on_death: list[Any] = []  #: called by the plane once the actor is dead
        self.queue: deque[ActorCall] = deque()
        self.in_flight: OrderedDict[bytes, ActorCall] = OrderedDict()
        self.next_number = 0
        self.processed_up_to = -1
        self.undecided: list[
            ActorCall
        ] = []  #: lost without a retry, and it is not known yet whether the actor comes back

    def pending(self) -> int:
        """Calls that are not done."""
        return len(self.queue) + len(self.in_flight)

    # -- calls -----------------------------------------------------------------------------------------------------

    def submit(self, call: ActorCall) -> None:
        """A call was made. Unready ones take their place in the queue of an ordered actor at once."""
        if self.state == DEAD or (self.state == RESTARTING and call.retries_left == 0):
            self.port.fail_call(self, call)
            return
        if call.unready and not self.ordered:
            return  # `ready` will queue it
        self.queue.append(call)
        if self.state == ALIVE:
            self.pump()

    def ready(self, call: ActorCall) -> None:
        """The arguments of a call are there now."""
        if call.cancelled:
            return
        if not self.ordered:
            self.submit(call)
        elif self.state == ALIVE:
            self.pump()

    def pump(self) -> None:
        """Send what can be sent."""
        queue = self.queue
        in_flight = self.in_flight
        window = WINDOW if self.ordered else CONCURRENT_WINDOW
        while queue and len(in_flight) < window:
            call = queue[0]
            if call.cancelled:
                queue.popleft()
                continue
            if call.unready:
                return
            queue.popleft()
            call.sent = True
            push = call.push
            push.sequence_number = self.next_number
            push.client_processed_up_to = self.processed_up_to
            self.next_number += 1
            urgent = not in_flight
            in_flight[push.task_id] = call
            self.port.push_call(self, call, urgent)

    def answered(self, task_id: bytes) -> ActorCall | None:
        """The actor has answered. Call `pump` afterwards (once per batch)."""
        call = self.in_flight.pop(task_id, None)
        if call is not None and call.push.sequence_number > self.processed_up_to:
            self.processed_up_to = call.push.sequence_number
        return call

    def retry(self, call: ActorCall) -> None:
        """The method raised an error that may be retried: send it again, after what was sent meanwhile."""
        call.attempt += 1
        call.sent = False
        self.submit(call)

    def cancel(self, call: ActorCall) -> bool:
        """Withdraw a call that was not sent. False: it was sent, the actor has to be told."""
        if call.sent:
            return False
        call.cancelled = True
        return True

    # -- the actor's life ------------------------------------------------------------------------------------------

    def alive(self, incarnation: int, address: Any) -> None:
        """The actor runs, in its `incarnation`-th process."""
        if self.state == DEAD or incarnation < self.incarnation:
            return
        if incarnation > self.incarnation:
            if self.in_flight:
                self._lost(RESTARTING)
            self.incarnation = incarnation
            self.next_number = 0
            self.processed_up_to = -1
        self.state = ALIVE
        self.address = address
        self.give_up_waiting()
        self.pump()

    def restarting(self) -> None:
        """The actor's process is gone, another one is being made."""
        if self.state != DEAD:
            self._lost(RESTARTING)

    def dead(self) -> None:
        """The actor is gone for good."""
        if self.state != DEAD:
            self._lost(DEAD)

    def give_up_waiting(self) -> None:
        """Fail the calls whose fate depended on how a restart ends."""
        undecided, self.undecided = self.undecided, []
        for call in undecided:
            self.port.fail_call(self, call)

    def _lost(self, state: str) -> None:
        self.state = state
        self.address = None
        lost = list(self.in_flight.values())
        self.in_flight.clear()
        waiting = list(self.queue)
        self.queue.clear()
        again: list[ActorCall] = []
        for call in lost:
            if state == DEAD or call.cancelled:
                self.port.fail_call(self, call)
                continue
            if call.retries_left == 0:
                self.undecided.append(call)
                continue
            if call.retries_left > 0:
                call.retries_left -= 1
            call.attempt += 1
            call.sent = False
            again.append(call)
        for call in waiting:
            if call.cancelled:
                continue
            if state == DEAD or call.retries_left == 0:
                self.port.fail_call(self, call)
            else:
                again.append(call)
        self.queue.extend(again)
        if state == DEAD:
            self.give_up_waiting()
