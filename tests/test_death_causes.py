"""The sentences that tell why an actor died."""

from __future__ import annotations

from miniray import death_causes as d
from miniray.exceptions import ActorDiedError, ActorDiedErrorContext


def test_causes_begin_as_rays() -> None:
    assert d.worker_died("INTENDED_USER_EXIT", d.EXIT_ACTOR) == (
        "The actor is dead because its worker process has died. Worker exit type: INTENDED_USER_EXIT Worker exit "
        "detail: Worker exits by an user request. Worker exits with an exit code 0. exit_actor() is called."
    )
    assert d.worker_died().startswith(
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file."
    )
    assert d.owner_died(b"o" * 28, "1.2.3.4") == (
        f"The actor is dead because its owner has died. Owner Id: {'6f' * 28} Owner Ip address: 1.2.3.4 Owner worker "
        "exit type: INTENDED_SYSTEM_EXIT Worker exit detail: Owner's worker process has crashed."
    )
    assert d.node_died(b"n" * 28).startswith("The actor died because its node has died.")


def test_the_cause_ends_the_text_of_the_error() -> None:
    context = ActorDiedErrorContext(b"a" * 16, "K", d.KILLED, never_started=True)
    assert str(ActorDiedError(context)).endswith(
        "\nThe actor is dead because it was killed by `ray.kill`.\n"
        "The actor never ran - it was cancelled before it started running."
    )
