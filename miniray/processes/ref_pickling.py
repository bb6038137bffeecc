"""How refs travel inside pickles, and the errors of those that cannot.

Inside arguments, results and puts the serializer handles a ref: it notes it as contained, and whoever hands over the
value hands over the ref. In a pickle of the user's own it goes out of band: see `ObjectPlane.reduce_out_of_band`.
"""

from __future__ import annotations

import os
from typing import Any

from miniray import exceptions
from miniray.messages.objects import Address
from miniray.processes import current
from miniray.refs import ObjectRef
from miniray.state_machines.reference_counter import ObjectEntry
from miniray.system import pickler

# Ray's texts; the first sentence is miniray's.
_EARLIER_SESSION = "{!r} belongs to an earlier session, which was shut down: its object is gone. "
_UNKNOWN = (
    "Please make sure that all Ray objects you are trying to access are part of the current Ray session. Note that "
    "object IDs generated randomly (ObjectID.from_random()) or out-of-band (ObjectID.from_binary(...)) cannot be "
    "passed as a task argument because Ray does not know which task created them. If this was not how your object ID "
    "was generated, please file an issue at https://github.com/ray-project/ray/issues/"
)


class HeldEntries(list[ObjectEntry]):
    """The entries of the refs inside a value. It holds those refs, until somebody has counted the entries.

    A `__reduce__` may make a ref that nobody else holds, and that would be gone when the pickling is.
    """

    __slots__ = ("refs",)

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        super().__init__([ref._entry for ref in refs])
        self.refs = refs


def out_of_band_allowed() -> bool:
    value = os.environ.get("RAY_allow_out_of_band_object_ref_serialization", "1")  # noqa: SIM112 - Ray's name
    return value.lower() not in ("0", "false")


def not_allowed_out_of_band(ref: ObjectRef[Any]) -> exceptions.OufOfBandObjectRefSerializationException:
    """The error, in Ray's words, of a ref in a closure or in a pickle of the user's own, where they may not be."""
    return exceptions.OufOfBandObjectRefSerializationException(
        f"It is not allowed to serialize ray.ObjectRef {ref.hex()}. If you want to allow serialization, "
        "set `RAY_allow_out_of_band_object_ref_serialization=1.` If you set the env var, the object is pinned "
        "forever in the lifetime of the worker process and can cause Ray object leaks. See the callsite and "
        "trace to find where the serialization occurs.\nCallsite: Disabled. Set RAY_record_ref_creation_sites=1"
    )


def unknown_argument(ref: ObjectRef[Any]) -> str:
    """The error of an argument, or of something inside a value, that belongs to no session, or to an earlier one."""
    text = f"An application is trying to access a Ray object whose owner is unknown({ref.hex()}). {_UNKNOWN}"
    return text if ref._core is None else _EARLIER_SESSION.format(ref) + text


def unknown_object(ref: ObjectRef[Any]) -> str:
    """The same for one that is waited for."""
    text = (
        f"You are trying to access Ray objects whose owner is unknown. {_UNKNOWN}. Owners not found for objects "
        f"[{ref.hex()}, ]."
    )
    return text if ref._core is None else _EARLIER_SESSION.format(ref) + text


def _rebuild(object_id: bytes, worker_id: bytes, endpoint: str) -> ObjectRef[Any]:
    core = current.core_or_none()
    if core is None:
        return ObjectRef(object_id)
    return core.objects.restore(object_id, Address(worker_id, endpoint))


def rebuild_out_of_band(object_id: bytes, worker_id: bytes, endpoint: str) -> ObjectRef[Any]:
    core = current.core_or_none()
    if core is None:
        return ObjectRef(object_id)
    return core.objects.restore_out_of_band(object_id, Address(worker_id, endpoint))


def _reduce_ref(pickler_: pickler.Pickler, ref: ObjectRef[Any]) -> tuple[Any, ...]:
    plane: Any = ref._core
    if plane is None:
        if pickler_.contained is not None:
            raise ValueError(unknown_argument(ref))
        return (ObjectRef, (ref._id,))
    if pickler_.contained is None:  # a pickle of the user's own
        reduced: tuple[Any, ...] = plane.reduce_out_of_band(ref)
        return reduced
    pickler_.contained.append(ref)
    return _rebuild, (ref._id, *plane.handover(ref))


pickler.reducers[ObjectRef] = _reduce_ref
