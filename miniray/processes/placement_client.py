"""What a driver or worker asks its head about placement groups."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray.messages.control import Query
from miniray.messages.objects import Payload
from miniray.messages.placement import (
    CreatePlacementGroup,
    PlacementGroupSpec,
    RemovePlacementGroup,
    WaitPlacementGroup,
)
from miniray.processes import current
from miniray.system.serialization import serialize

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.refs import ObjectRef


#: groups that were made a moment ago -> whom they belong to, the question whether they are reserved, its expiry
_asked: dict[bytes, tuple[Any, Any, float]] = {}
_MOST_ASKED = 1000
#: seconds that the answer to that question is believed: later on a node may have died
_FRESH = 1.0


def create_group(core: CoreWorker, spec: PlacementGroupSpec) -> None:
    """Have it made. Only a named or a detached one waits for the answer: what is sent to the head keeps its order.

    Raises:
        RaySystemError: the name is taken, or the head is lost.
    """
    with core.lock:  # idle leases are not to decide where its bundles go
        core.tasks.submission.give_back_idle()
    if spec.name or spec.detached:
        core.head_client.request(lambda number: CreatePlacementGroup(number, spec))
    else:
        core.head_client.begin(lambda number: CreatePlacementGroup(number, spec))
        # Most groups are waited for at once: that is asked now, so that a hundred answers come together.
        if len(_asked) >= _MOST_ASKED:
            _asked.clear()
        asked = core.head_client.begin(lambda number: WaitPlacementGroup(number, spec.group_id))
        _asked[spec.group_id] = (core, asked, time.monotonic() + _FRESH)


def remove_group(core: CoreWorker, group_id: bytes) -> None:
    """Have it ended; nothing, if it has ended. RaySystemError: the head is lost."""
    _asked.pop(group_id, None)
    core.head_client.begin(lambda number: RemovePlacementGroup(number, group_id))


def wait_for_group(core: CoreWorker, group_id: bytes, timeout: float) -> bool | None:
    """Whether it is reserved within so many seconds; None: there is no such group."""
    owner, asked, until = _asked.pop(group_id, (None, None, 0.0))
    if asked is not None and owner is core and time.monotonic() < until:
        answer = core.head_client.await_answer(asked, timeout)
    else:
        answer = core.head_client.ask_within(lambda number: WaitPlacementGroup(number, group_id), timeout)
    if answer is None:
        return False
    return True if answer.value else None


def ready_ref(core: CoreWorker, group_id: bytes, value: Any) -> ObjectRef[Any]:
    """A ref that is `value` as soon as the group is reserved, and an error if it is removed before."""
    payload: Payload = core.objects.to_payload(serialize(value))[0]
    objects = core.objects
    context = current.task_context.get() or core.main_context
    object_id = context.task_id + next(context.put_numbers).to_bytes(4, "little")
    with core.lock:
        entry = objects.counter.own(object_id)
        ref = objects.make_ref(entry)

    def settled(answer: Any) -> None:
        if objects.entries.get(object_id) is not entry or entry.payload is not None:
            return
        if answer is None:
            objects.fail(entry, exceptions.RaySystemError("The head of the session is gone."))
        elif answer.value:
            objects.fulfil(entry, payload)
        else:
            objects.fail(entry, exceptions.TaskPlacementGroupRemoved())

    core.head_client.ask_later(lambda number: WaitPlacementGroup(number, group_id), settled)
    return ref


def group_row(core: CoreWorker, group_id: bytes) -> dict[str, Any] | None:
    """What the head knows of it."""
    row: dict[str, Any] | None = core.head_client.request(
        lambda number: Query(number, "placement_group", {"group_id": group_id})
    )
    return row
