"""What the scheduler knows of those who want leases and those who have them, and what it wants done about it."""

from __future__ import annotations

from typing import Union

from msgspec import Struct

from miniray.messages.control import LeaseSpec
from miniray.state_machines.node_choice import Candidate, Need
from miniray.state_machines.resources import Allocation

#: the owner, and its number for the scheduling class
ClaimKey = tuple[bytes, int]


class Claim(Struct, eq=False):
    """What one owner wants of one scheduling class."""

    owner: bytes
    class_id: int
    spec: LeaseSpec
    need: Need
    held: dict[str, int] | None = None  #: an actor: what it holds, if placed where `spec` could be
    count: int = 0  #: leases that it wants and that are not placed
    running: int = 0  #: leases placed and not blocked
    leases: int = 0
    depth: int = 0
    owner_node: bytes = b""
    turn: int = 0  #: when it was last served
    waits_since: float | None = None  #: since it began to want, or was last served
    began: int = 0  #: the turn of that moment
    queued_as: tuple[int, int, int] | None = None  #: its place in the queue of its need
    warn_at: float | None = None
    placed: dict[int, Lease] = {}  #: leases without a worker so far

    @property
    def waiting(self) -> int:
        """How many leases are placed, without a worker so far."""
        return len(self.placed)

    @property
    def key(self) -> ClaimKey:
        return self.owner, self.class_id


class Lease(Struct, eq=False):
    """Resources of a pool that somebody holds, and (once granted) the worker that goes with them."""

    lease_id: int
    claim: Claim
    pool: Candidate
    allocation: Allocation
    placed_at: float
    worker_id: bytes = b""
    blocked: bool = False
    revoked: bool = False
    revocable: bool = True

    @property
    def node_id(self) -> bytes:
        return self.pool.node_id


class Place(Struct):
    """Find a worker for this lease."""

    lease: Lease


class Withdraw(Struct):
    """Find no worker for this lease after all."""

    lease_id: int


class Revoke(Struct):
    """Tell the owner to give this lease back."""

    owner: bytes
    lease_id: int


class Infeasible(Struct):
    """Tell the job that this cannot run as things are; `lacking`: resource -> the most that one node has."""

    claim: Claim
    lacking: dict[str, float]


class Refuse(Struct):
    """Tell the owner that this can never run; `error` is the name of the exception of a task."""

    claim: Claim
    error: str
    text: str


Effect = Union[Place, Withdraw, Revoke, Infeasible, Refuse]
