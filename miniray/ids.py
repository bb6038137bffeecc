"""The ids of jobs, actors, tasks, objects, nodes and workers: immutable bytes with a type.

An id carries its origin, as Ray's do, so that nobody needs a table to ask where a thing comes from:

    JobID             4 bytes   little-endian number of the job
    ActorID          16 bytes   12 unique | 4 job
    TaskID           24 bytes    8 unique | 16 actor        (actor part of a plain task: 12 x 0xff | 4 job)
    ObjectID         28 bytes   24 task   | 4 little-endian index of the return value or put
    PlacementGroupID 18 bytes   14 unique | 4 job
    NodeID, WorkerID, FunctionID, ActorClassID, ClusterID, UniqueID   28 random bytes

The nil id of each type is all 0xff. Inside the runtime ids travel as raw ``bytes``; the functions and
generators at the end of this module work on those, and the classes are for what users see.

The generators count upwards from a random start that is handed to them: two processes draw the same id only
if their 63-bit starting points lie closer together than the number of ids that either has drawn.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, ClassVar, TypeVar

JOB_ID_SIZE = 4
ACTOR_ID_SIZE = 16
TASK_ID_SIZE = 24
OBJECT_ID_SIZE = 28
UNIQUE_ID_SIZE = 28
PLACEMENT_GROUP_ID_SIZE = 18

_NIL_ACTOR_UNIQUE = b"\xff" * (ACTOR_ID_SIZE - JOB_ID_SIZE)
_NIL_TASK_UNIQUE = b"\xff" * (TASK_ID_SIZE - ACTOR_ID_SIZE)

_Id = TypeVar("_Id", bound="BaseID")
_Random = TypeVar("_Random", bound="_RandomID")


class BaseID:
    """What all ids share. Equal only to an id of exactly the same type; usable as a dictionary key."""

    __slots__ = ("_bytes",)

    _SIZE: ClassVar[int] = 0
    _bytes: bytes

    def __init__(self, id: bytes) -> None:
        if type(self) is BaseID:
            raise NotImplementedError
        if not isinstance(id, bytes):
            raise TypeError(f"Unsupported type: {type(id)}, expected bytes")
        if len(id) != self._SIZE:
            raise ValueError(f"ID string needs to have length {self._SIZE}, got {len(id)}")
        object.__setattr__(self, "_bytes", bytes(id))

    @classmethod
    def from_binary(cls: type[_Id], id_bytes: bytes) -> _Id:
        """The id with these bytes; TypeError unless they are ``bytes``, ValueError unless the length is right."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls: type[_Id], hex_id: str | bytes) -> _Id:
        """The id with these hex digits; text that is no such id gives the nil id, as in Ray."""
        if not isinstance(hex_id, (str, bytes)):
            raise TypeError(f"expected bytes, {type(hex_id).__name__} found")
        text = hex_id.decode("latin-1") if isinstance(hex_id, bytes) else hex_id
        try:
            binary = bytes.fromhex(text) if len(text) == 2 * cls._SIZE else b""
        except ValueError:
            binary = b""
        # bytes.fromhex skips white space, so the length has to be looked at again.
        return cls(binary) if len(binary) == cls._SIZE else cls.nil()

    @classmethod
    def nil(cls: type[_Id]) -> _Id:
        """The id that stands for "none": all bits set."""
        return cls(b"\xff" * cls._SIZE)

    @classmethod
    def size(cls) -> int:
        """Number of bytes of an id of this type."""
        return cls._SIZE

    def is_nil(self) -> bool:
        return self._bytes == b"\xff" * self._SIZE

    def binary(self) -> bytes:
        return self._bytes

    def hex(self) -> str:
        return self._bytes.hex()

    def redis_shard_hash(self) -> int:
        return hash(self._bytes) & 0xFFFF_FFFF_FFFF_FFFF

    def __bytes__(self) -> bytes:
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)

    def __copy__(self: _Id) -> _Id:
        return self

    def __deepcopy__(self: _Id, memo: object) -> _Id:
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__!r} object is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__!r} object is immutable: cannot delete {name!r}")


class _RandomID(BaseID):
    """Ids that may be drawn at random."""

    __slots__ = ()

    @classmethod
    def from_random(cls: type[_Random]) -> _Random:
        """A fresh id from the operating system's random source."""
        return cls(os.urandom(cls._SIZE))


class JobID(BaseID):
    """One driver's run; four bytes."""

    __slots__ = ()
    _SIZE = JOB_ID_SIZE

    @classmethod
    def from_int(cls, value: int) -> JobID:
        assert value < 2**32, "Maximum JobID integer is 2**32 - 1."
        return cls(value.to_bytes(JOB_ID_SIZE, "little"))

    def int(self) -> int:
        return int.from_bytes(self._bytes, "little")


class UniqueID(_RandomID):
    """28 random bytes."""

    __slots__ = ()
    _SIZE = UNIQUE_ID_SIZE

    @classmethod
    def from_hex(cls: type[_Id], hex_id: str | bytes) -> _Id:
        """As of all ids; but only the kinds of unique ids are made from text, in Ray as well."""
        if cls is UniqueID:
            raise NotImplementedError
        return super().from_hex(hex_id)


class NodeID(UniqueID):
    """A node."""

    __slots__ = ()


class WorkerID(UniqueID):
    """A worker or driver process."""

    __slots__ = ()


class FunctionID(UniqueID):
    """A remote function, as it was exported."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """An actor class, as it was exported."""

    __slots__ = ()


class ClusterID(UniqueID):
    __slots__ = ()


class ActorID(_RandomID):
    """One actor; ends with the id of the job that made it."""

    __slots__ = ()
    _SIZE = ACTOR_ID_SIZE

    @classmethod
    def of(cls, job_id: JobID, parent_task_id: TaskID, parent_task_counter: int) -> ActorID:
        """A fresh actor id of that job."""
        return cls(os.urandom(ACTOR_ID_SIZE - JOB_ID_SIZE) + job_id.binary())

    @property
    def job_id(self) -> JobID:
        return JobID(self._bytes[-JOB_ID_SIZE:])


class TaskID(BaseID):
    """One task, actor creation, actor call or driver; ends with the id of its actor (nil) and job."""

    __slots__ = ()
    _SIZE = TASK_ID_SIZE

    @classmethod
    def for_driver_task(cls, job_id: JobID) -> TaskID:
        return cls(driver_task_id(job_id.binary()))

    @classmethod
    def for_actor_creation_task(cls, actor_id: ActorID) -> TaskID:
        return cls(actor_creation_task_id(actor_id.binary()))

    @classmethod
    def for_fake_task(cls, job_id: JobID) -> TaskID:
        return cls(os.urandom(TASK_ID_SIZE - JOB_ID_SIZE) + job_id.binary())

    @classmethod
    def for_normal_task(cls, job_id: JobID, parent_task_id: TaskID, parent_task_counter: int) -> TaskID:
        unique = _derived(parent_task_id, parent_task_counter)
        return cls(unique + _NIL_ACTOR_UNIQUE + job_id.binary())

    @classmethod
    def for_actor_task(
        cls, job_id: JobID, parent_task_id: TaskID, parent_task_counter: int, actor_id: ActorID
    ) -> TaskID:
        return cls(_derived(parent_task_id, parent_task_counter) + actor_id.binary())

    def actor_id(self) -> ActorID:
        return ActorID(self._bytes[-ACTOR_ID_SIZE:])

    def job_id(self) -> JobID:
        return JobID(self._bytes[-JOB_ID_SIZE:])


class ObjectID(_RandomID):
    """A raw object id, without reference counting; programs hold ObjectRef instead."""

    __slots__ = ()
    _SIZE = OBJECT_ID_SIZE

    def task_id(self) -> TaskID:
        return TaskID(self._bytes[:TASK_ID_SIZE])

    def job_id(self) -> JobID:
        return self.task_id().job_id()

    def index(self) -> int:
        """Which of the task's objects it is: return values from 1 on, then puts."""
        return int.from_bytes(self._bytes[TASK_ID_SIZE:], "little")


class PlacementGroupID(_RandomID):
    """One placement group; ends with the id of the job that made it."""

    __slots__ = ()
    _SIZE = PLACEMENT_GROUP_ID_SIZE

    @classmethod
    def of(cls, job_id: JobID) -> PlacementGroupID:
        assert isinstance(job_id, JobID)
        return cls(os.urandom(PLACEMENT_GROUP_ID_SIZE - JOB_ID_SIZE) + job_id.binary())


def _derived(parent_task_id: TaskID, counter: int) -> bytes:
    """Eight bytes that depend on the parent and on how many children it had, and on nothing else."""
    import hashlib  # only reached by programs that build task ids by hand; keeps hashlib off the import path

    assert isinstance(parent_task_id, TaskID)
    return hashlib.blake2b(parent_task_id.binary() + counter.to_bytes(8, "little"), digest_size=8).digest()


# ---- raw bytes, for the runtime ----


def object_id(task_id: bytes, index: int) -> bytes:
    """The id of the ``index``-th object of a task, counted from 1."""
    return task_id + index.to_bytes(4, "little")


def object_index_of(object_id: bytes) -> int:
    """Which of its task's objects this is."""
    return int.from_bytes(object_id[TASK_ID_SIZE:], "little")


def task_id_of(object_id: bytes) -> bytes:
    """The task that made an object."""
    return object_id[:TASK_ID_SIZE]


def actor_id_of(task_or_object_id: bytes) -> bytes:
    """The actor of a task or of the task that made an object; a plain task gives 12 x 0xff and its job."""
    return task_or_object_id[TASK_ID_SIZE - ACTOR_ID_SIZE : TASK_ID_SIZE]


def job_id_of(any_id: bytes) -> bytes:
    """The job inside an actor, task, object, placement group or job id."""
    return any_id[TASK_ID_SIZE - JOB_ID_SIZE : TASK_ID_SIZE] if len(any_id) >= TASK_ID_SIZE else any_id[-JOB_ID_SIZE:]


def is_actor_task(task_id: bytes) -> bool:
    """Whether a task belongs to an actor (its creation, or a call)."""
    return not task_id.startswith(_NIL_ACTOR_UNIQUE, TASK_ID_SIZE - ACTOR_ID_SIZE)


def driver_task_id(job_id: bytes) -> bytes:
    """The task id of a driver itself, in whose name it puts objects."""
    return _NIL_TASK_UNIQUE + _NIL_ACTOR_UNIQUE + job_id


def actor_creation_task_id(actor_id: bytes) -> bytes:
    """The one task that runs an actor's constructor."""
    return _NIL_TASK_UNIQUE + actor_id


def _random_start(random_bytes: bytes) -> int:
    if len(random_bytes) < 8:
        raise ValueError(f"an id generator needs 8 random bytes, got {len(random_bytes)}")
    # The top bit is cleared: no overflow within 2**63 ids, and never the all-ones prefix of a driver or creation task.
    return int.from_bytes(random_bytes[:8], "big") >> 1


class TaskIdGenerator:
    """Unique task ids of one process, safe from any thread: 0.14 us each (a locked random draw costs 0.6).

    Call it for a plain task; ``for_actor`` is for a call of an actor.
    """

    __slots__ = ("_counter", "_suffix")

    def __init__(self, job_id: bytes, random_bytes: bytes) -> None:
        self._counter = itertools.count(_random_start(random_bytes))
        self._suffix = _NIL_ACTOR_UNIQUE + job_id

    def __call__(self) -> bytes:
        """A fresh id of a plain task."""
        return next(self._counter).to_bytes(8, "big") + self._suffix

    def for_actor(self, actor_id: bytes) -> bytes:
        """A fresh id of a call of that actor."""
        return next(self._counter).to_bytes(8, "big") + actor_id


class ActorIdGenerator:
    """Unique actor ids of one process, safe from any thread."""

    __slots__ = ("_counter", "_prefix", "_suffix")

    def __init__(self, job_id: bytes, random_bytes: bytes) -> None:
        self._counter = itertools.count(_random_start(random_bytes))
        self._prefix = (random_bytes[8:] + b"\x00" * 4)[:4]
        self._suffix = job_id

    def __call__(self) -> bytes:
        return self._prefix + next(self._counter).to_bytes(8, "big") + self._suffix


def placement_group_id(job_id: bytes, random_bytes: bytes) -> bytes:
    """A placement group's id from 14 random bytes."""
    return random_bytes[: PLACEMENT_GROUP_ID_SIZE - JOB_ID_SIZE] + job_id
