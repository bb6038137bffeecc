"""The conversation with the head about placement groups."""

from __future__ import annotations

from msgspec import Struct


class PlacementGroupSpec(Struct, array_like=True, frozen=True):
    """What a placement group is to be; part of `CreatePlacementGroup`. Quantities are in units of 1/10000."""

    group_id: bytes
    job_id: bytes
    name: str  #: "" for an unnamed one
    namespace: str
    strategy: str
    bundles: list[dict[str, int]]
    detached: bool = False
    creator: bytes = b""  #: the detached actor that made it, and that it ends with; b"": it ends with its job
    depth: int = 0  #: nesting depth of the tasks that its creator submits
    soft_target: bytes = b""  #: a node for all of it, if that has room (STRICT_PACK)
    label_selectors: list[dict[str, str]] = []  #: one per bundle, or none
    topology: str = ""  #: a label whose value all its nodes have to share


class CreatePlacementGroup(Struct, array_like=True, tag=90):
    """Any process to head: reserve these bundles, now or as soon as there is room. Answered by `Reply` if
    request_id > 0; error RaySystemError: the name is taken.
    """

    request_id: int
    spec: PlacementGroupSpec


class RemovePlacementGroup(Struct, array_like=True, tag=91):
    """Any process to head: end this group, and the tasks and actors that run in it. Answered by `Reply` if
    request_id > 0.
    """

    request_id: int
    group_id: bytes


class WaitPlacementGroup(Struct, array_like=True, tag=92):
    """Any process to head: tell me when all bundles of this group are reserved. Answered by `Reply` then (True), or
    when it is removed or unknown (False).
    """

    request_id: int
    group_id: bytes
