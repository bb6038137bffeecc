"""ObjectRef: the future of a value.

A ref knows its id, the record that this process keeps of the object (`_entry`, made by
`state_machines.reference_counter`), and the core worker it belongs to (`_core`), so that several core workers can
live in one process. This module is row 0: it imports no runtime; what a ref can *do* is done by its core worker.

``__del__`` can run at any bytecode of any thread, inside any lock, during garbage collection and at interpreter exit.
It does nothing but call `_released`, which appends to a deque.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

T = TypeVar("T")

_SIZE = 28


class RefRuntime(Protocol):
    """What a core worker does for its refs."""

    def released(self, entry: Any) -> None: ...
    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[Any], None]) -> None: ...
    def future_of(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]: ...
    def asyncio_future_of(self, ref: ObjectRef[Any]) -> asyncio.Future[Any]: ...
    def reduce_out_of_band(self, ref: ObjectRef[Any]) -> tuple[Any, ...]: ...
    def owner_bytes(self, ref: ObjectRef[Any]) -> bytes: ...
    def call_site(self, ref: ObjectRef[Any]) -> str: ...


class ObjectRef(Generic[T]):
    """A reference to an object that exists or will exist: what `remote()` and `put()` return.

    Args:
        id: the 28 bytes of the object id (24 of the task that makes it, 4 of the index among its objects).

    A ref made by hand belongs to no session: `get` on it is an error.

    Source: https://docs.ray.io/en/latest/ray-core/objects.html
    """

    __slots__ = ("__weakref__", "_core", "_entry", "_id")
    __module__ = "miniray"  # where users know it

    _id: bytes
    _entry: Any
    _core: RefRuntime | None

    def __init__(
        self, id: bytes, owner_addr: Any = None, call_site: Any = None, *, _entry: Any = None, _core: Any = None
    ):
        if _core is None:
            if not isinstance(id, bytes):
                raise TypeError(f"Unsupported type: {type(id)}, expected bytes")
            if len(id) != _SIZE:
                raise ValueError(f"ID string needs to have length {_SIZE}, got {len(id)}")
        self._id = id
        self._entry = _entry
        self._core = _core

    def __del__(self) -> None:
        try:
            core = self._core
        except AttributeError:  # __init__ raised
            return
        if core is not None:
            core.released(self._entry)

    # -- identity --------------------------------------------------------------------------------------------------

    def binary(self) -> bytes:
        """The 28 bytes of the id."""
        return self._id

    def hex(self) -> str:
        """The id as 56 hexadecimal digits."""
        return self._id.hex()

    def is_nil(self) -> bool:
        """Whether this is the nil ref."""
        return self._id == b"\xff" * _SIZE

    @classmethod
    def size(cls) -> int:
        """The length of the id in bytes."""
        return _SIZE

    def task_id(self) -> Any:
        """The id of the task that makes this object (`TaskID`)."""
        from miniray.ids import TaskID  # kept out of the import of `refs`: few programs ask

        return TaskID(self._id[:24])

    def job_id(self) -> Any:
        """The id of the job that this object belongs to (`JobID`)."""
        from miniray.ids import JobID

        return JobID(self._id[20:24])

    def owner_address(self) -> bytes:
        """The address of the process that owns this object, as opaque bytes."""
        return self._core.owner_bytes(self) if self._core is not None else b""

    def call_site(self) -> str:
        """Where this ref was made, when call sites are recorded; else an empty string."""
        return self._core.call_site(self) if self._core is not None else ""

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """The ref that refers to nothing."""
        return cls(b"\xff" * _SIZE)

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """A ref with a random id, which belongs to no session."""
        return cls(os.urandom(_SIZE))

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> ObjectRef[Any]:
        """A ref made from 28 bytes, which belongs to no session."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id: str) -> ObjectRef[Any]:
        """Not for refs, in Ray neither: text does not keep an object alive.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("A ref cannot be made from text.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    # -- waiting ---------------------------------------------------------------------------------------------------

    def future(self) -> concurrent.futures.Future[T]:
        """A `concurrent.futures.Future` that gets the value or the error of this object."""
        return _runtime(self).future_of(self)

    def as_future(self, _internal: bool = False) -> asyncio.Future[T]:
        """An `asyncio.Future` of the running loop that gets the value or the error. Cancelling it does not cancel
        the task.
        """
        return _runtime(self).asyncio_future_of(self)

    def __await__(self) -> Generator[Any, None, T]:
        return self.as_future().__await__()

    def _on_completed(self, py_callback: Callable[[Any], None]) -> None:
        """Call `py_callback(value or exception)` in a thread of the runtime once the object is ready."""
        _runtime(self).on_ready(self, py_callback)

    # -- travelling ------------------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        # Inside arguments, results and puts the serializer handles refs itself; here somebody pickles a ref on his own.
        if self._core is None:
            return (ObjectRef, (self._id,))
        return self._core.reduce_out_of_band(self)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "An ObjectRef cannot be iterated: get its value first (`ray.get(ref)`), or ask the task for several "
            "returns with `num_returns`."
        )


class RefGenerator:
    """What `ObjectRefGenerator` is known by below its module: a stream of refs, and the ref of the task itself."""

    _stream: Any
    _generator_ref: ObjectRef[Any]


class DynamicObjectRefGenerator:
    """The value of a task with ``num_returns="dynamic"``: iterates, once, over the refs of what it yielded; picklable.

    Its length is that of what is left.
    """

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)


def _runtime(ref: ObjectRef[Any]) -> RefRuntime:
    if ref._core is None:
        raise ValueError(f"{ref!r} belongs to no session: it was made by hand, so nothing will ever give it a value.")
    return ref._core


#: Ray's other name for the same class.
ObjectID = ObjectRef
