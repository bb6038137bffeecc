"""What drivers and workers tell a head that took the place of one that died, and its answer.

The tables tell the new head what there was; only the processes know what there is: who holds which lease, which actor
lives where, how much memory is reserved. Each tells its part in `Rejoin`, and after it sends again what the old head
may not have carried out (requests keep their numbers, and are not carried out twice).
"""

from __future__ import annotations

from msgspec import Struct

from miniray.messages.control import LeaseSpec
from miniray.messages.objects import Address


class HeldLease(Struct, array_like=True):
    """A lease that the sender of `Rejoin` holds on a worker."""

    class_id: int
    lease_id: int
    worker_id: bytes
    node_id: bytes
    accelerator_ids: dict[str, list[str]] | None = None


class Rejoin(Struct, array_like=True, tag=125):
    """Driver or worker to a new head: I am here, and this is what I have. Answered by `Rejoined`."""

    request_id: int
    kind: str  #: "driver" or "worker"
    address: Address
    pid: int
    node_id: bytes
    job_id: bytes
    leases: list[HeldLease]
    specs: dict[int, LeaseSpec]  #: of the classes of these leases
    reserved: int  #: bytes of the object store
    blocked: bool = False  #: a worker: its task waits in `get`
    busy: bool = False  #: a worker: it runs a task for somebody
    actor_id: bytes = b""  #: a worker: the actor that lives there, or is being made
    actor_created: bool = False


class Rejoined(Struct, array_like=True, tag=126):
    """New head to driver or worker: you belong to the session again; `error`: you do not, and this is why."""

    request_id: int
    error: str = ""
