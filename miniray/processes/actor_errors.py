"""Which error a call gets whose actor is gone, from what the head says of the actor."""

from __future__ import annotations

from miniray import death_causes
from miniray.exceptions import (
    ActorDiedError,
    ActorDiedErrorContext,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from miniray.messages.control import DEAD
from miniray.state_machines.actor_submission import ActorCall, ActorClient
from miniray.task_errors import from_wire


def error_of(client: ActorClient, call: ActorCall | None = None) -> RayError:
    """The error of a call to an actor that is dead, or that restarts.

    Args:
        client: its state says which; its `cause` and `error` come from the head.
        call: the call, if it had been made.
    """
    if client.state != DEAD:
        if call is not None and call.sent:
            return ActorUnavailableError("The actor is temporarily unavailable: its process died", client.actor_id)
        return ActorUnavailableError(death_causes.RESTARTING, client.actor_id)
    if client.error is not None:
        error = from_wire(client.error)
        if isinstance(error, RayTaskError):
            return ActorDiedError(error)
        if isinstance(error, RayActorError):
            return error
    named = (client.cause or {}).get("error")
    if named == "ActorUnschedulableError":
        return ActorUnschedulableError(client.cause["error_message"])  # type: ignore[index]
    if named == "OutOfMemoryError":
        return OutOfMemoryError(client.cause["error_message"])  # type: ignore[index]
    if named == "ActorPlacementGroupRemoved":
        return ActorPlacementGroupRemoved()
    if named == "RuntimeEnvSetupError":
        return RuntimeEnvSetupError(client.cause["error_message"])  # type: ignore[index]
    cause = {key: value for key, value in (client.cause or {}).items() if key in ActorDiedErrorContext._fields}
    cause["actor_id"] = client.actor_id
    return ActorDiedError(ActorDiedErrorContext(**cause))
