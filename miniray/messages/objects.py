"""What processes say about objects: values, locations, borrowers, pins.

An object's *owner* (the process that made its ref) holds its value or location. Everyone else asks the owner.
The rule of a *hand-over*: whoever hands a ref to another process keeps it alive until the receiver either dropped it or
is registered as a borrower with the owner.
"""

from __future__ import annotations

from msgspec import Struct

#: How the bytes of a value are to be read (``Payload.kind``); kinds below ERROR belong to `system.serialization`.
KIND_PICKLE = 0
KIND_FRAMED = 1
KIND_RAW_BYTES = 2
KIND_ERROR = 16  #: the pickled exception that `get` raises


class Address(Struct, frozen=True, array_like=True, gc=False):
    """Where a process can be reached; part of every ref, so that anyone who holds the ref finds its owner."""

    worker_id: bytes
    endpoint: str


class Location(Struct, frozen=True, array_like=True, gc=False):
    """Where the bytes of a large object lie; part of payloads. `size` is in bytes, `segment` a file name of the
    session's store, `writer` the process that wrote it and may use the place again.
    """

    node_id: bytes
    segment: str
    offset: int
    size: int
    writer: bytes


class Handover(Struct, frozen=True, array_like=True, gc=False):
    """A ref that travels inside a value; part of payloads and pushes, so that pins and borrowers can be kept without
    unpickling.
    """

    object_id: bytes
    owner: Address


class Payload(Struct, array_like=True, gc=False):
    """A value on its way: inline bytes, or the place in shared memory; part of replies, arguments and `ObjectReady`."""

    kind: int
    data: bytes | None = None
    location: Location | None = None
    contained: list[Handover] | None = None


class GetObjects(Struct, array_like=True, tag=1):
    """Borrower to owner: send me these objects (`ObjectReady` each) as soon as they are ready."""

    object_ids: list[bytes]


class ObjectReady(Struct, array_like=True, tag=2):
    """Owner to borrower: the answer to `GetObjects` for one object; the payload may be an error."""

    object_id: bytes
    payload: Payload


class AddBorrowers(Struct, array_like=True, tag=3):
    """Borrower to owner: I hold these refs now; `ack` asks for `BorrowersAdded` (when a third process pins them
    until then).
    """

    object_ids: list[bytes]
    ack: int


class BorrowersAdded(Struct, array_like=True, tag=4):
    """Owner to borrower: the answer to `AddBorrowers` with that `ack` number; `unknown` lists refs that were freed
    already.
    """

    ack: int
    unknown: list[bytes]


class RemoveBorrowers(Struct, array_like=True, tag=5):
    """Borrower to owner: I hold none of these refs any more."""

    object_ids: list[bytes]


class FreeSegments(Struct, array_like=True, tag=6):
    """Owner to the process that wrote them: these locations are free; it may reuse or unlink them."""

    locations: list[Location]


class SegmentsOrphaned(Struct, array_like=True, tag=7):
    """Owner to head: these locations are free since then (`segment.clock`), and their writer is dead: unlink them."""

    frees: list[tuple[Location, int]]


class ReportLost(Struct, array_like=True, tag=9):
    """Borrower (or a worker with an argument) to owner: I did not find the object at this place; send me its value
    (`ObjectReady`) when it is made again.
    """

    object_id: bytes
    location: Location


class FreeObjects(Struct, array_like=True, tag=10):
    """Borrower to owner: give back the memory of these objects now. Owner to borrower: they were freed."""

    object_ids: list[bytes]
