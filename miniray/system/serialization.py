"""Values to bytes and back: one format for what travels inline and for what lies in shared memory.

A serialized object is bytes plus a *kind*, a small integer that travels beside the bytes (in the message or the
object table), so that the common case pays nothing for it:

====  ===========  ==========================================================================================
kind  name         the bytes
====  ===========  ==========================================================================================
0     ``PICKLE``   one pickle, and nothing else
1     ``FRAMED``   a pickle and the buffers that it keeps out of band (numpy arrays and whatever else speaks
                   pickle 5), laid out as below
2     ``RAW``      the value *is* these bytes (``bytes``; also ``bytearray`` and ``memoryview``, which come back as
                   ``bytes``, as they do in Ray)
====  ===========  ==========================================================================================

The framed layout, all integers little-endian and 64 bits wide, all offsets relative to its first byte::

    number of buffers | length of pickle | (offset, length) of each buffer | pickle | pad | buffer | pad | buffer ...

Each buffer starts at a multiple of 64, the alignment that Ray and Arrow use: a cache line, and enough for any SIMD
load. Writing copies each buffer once; reading copies none: the buffers are read-only slices of the data itself, so a
numpy array of an object in shared memory *is* that memory. Small inline arrays are read-only too, as in Ray.

Three ways in, cheapest first. Plain data (scalars, and small containers of them) goes straight to the C pickler: that
it holds no class, function or reference is proven by its exact types. Bytes go as they are. All else goes through
``miniray.system.pickler``, which costs about 2 us more to set up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pickle import PickleBuffer, dumps, loads
from struct import Struct
from typing import Any

from miniray.system.pickler import Pickler, serializers

try:
    from _blake2 import blake2b  # 2 ms cheaper than hashlib, which loads OpenSSL
except ImportError:
    from hashlib import blake2b

PICKLE = 0
FRAMED = 1
RAW = 2

ALIGNMENT = 64
PROTOCOL = 5

_COPY_CHUNK = 8 << 20  # a copy holds the interpreter's lock: in pieces of half a millisecond, others get their turn
_PLAIN_ITEMS = 64  # above this the pickler's set-up is noise, and the proof of plainness is not
_PLAIN_DEPTH = 2
_HEADER = Struct("<QQ")
_SCALARS = frozenset({type(None), bool, int, float, complex, str})
_PLAIN = _SCALARS | {bytes}


class SerializedObject:
    """A value that is ready to be written. Keeps the value's buffers alive, and copies them only when told to.

    ``kind``: see the module. ``total_size``: in bytes, as written. ``contained``: the references and handles
    found inside the value, in the order met.
    """

    __slots__ = ("_data", "contained", "kind", "total_size")

    def __init__(self, kind: int, data: bytes | memoryview, contained: list[Any] | None = None) -> None:
        self.kind = kind
        self.total_size = len(data)
        self.contained: list[Any] = [] if contained is None else contained
        self._data = data

    def parts(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """The pieces with their offsets, in order; what lies between them is padding of any content."""
        yield 0, self._data

    def to_bytes(self) -> bytes:
        """The whole as one bytes object: for values small enough to travel in a message."""
        data = self._data
        return data if type(data) is bytes else bytes(data)

    def write_into(self, view: memoryview) -> None:
        """Write the whole to the start of ``view`` (writable, flat, of bytes, at least ``total_size`` long)."""
        for offset, part in self.parts():
            size = len(part)
            if size <= _COPY_CHUNK:
                view[offset : offset + size] = part
                continue
            source = memoryview(part)
            for start in range(0, size, _COPY_CHUNK):
                end = min(start + _COPY_CHUNK, size)
                view[offset + start : offset + end] = source[start:end]


class FramedObject(SerializedObject):
    """A pickle and its out-of-band buffers (flat, of bytes), laid out as the module says."""

    __slots__ = ("_buffers",)

    def __init__(self, pickle: bytes, buffers: list[memoryview], contained: list[Any]) -> None:
        count = len(buffers)
        position = _HEADER.size * (1 + count) + len(pickle)
        header = bytearray(_HEADER.pack(count, len(pickle)))
        self._buffers: list[tuple[int, memoryview]] = []
        for buffer in buffers:
            position = -(-position // ALIGNMENT) * ALIGNMENT
            header += _HEADER.pack(position, len(buffer))
            self._buffers.append((position, buffer))
            position += len(buffer)
        super().__init__(FRAMED, bytes(header + pickle), contained)
        self.total_size = position

    def parts(self) -> Iterator[tuple[int, bytes | memoryview]]:
        yield 0, self._data
        yield from self._buffers

    def to_bytes(self) -> bytes:
        pieces: list[bytes | memoryview] = []
        position = 0
        for offset, part in self.parts():
            pieces += (bytes(offset - position), part)
            position = offset + len(part)
        return b"".join(pieces)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether this container holds nothing but exact scalars and bytes, or small containers of them."""
    if len(value) > _PLAIN_ITEMS:
        return False
    if type(value) is dict:
        if not _PLAIN.issuperset(map(type, value)):
            return False
        value = value.values()
    if _PLAIN.issuperset(map(type, value)):
        return True
    if depth == 0:
        return False
    for item in value:
        kind = type(item)
        if kind not in _PLAIN and not ((kind is tuple or kind is list or kind is dict) and _is_plain(item, depth - 1)):
            return False
    return True


def serialize(value: Any, *, what: Callable[[], str] | None = None) -> SerializedObject:
    """Serialize any value.

    ``what`` says in words what the value is ("the put value 1"). With it, a ``TypeError`` of the pickler becomes
    Ray's: "Could not serialize the put value ...", followed by the report of ``inspect_serializability``. Without
    it, and for errors of all other types, the pickler's own error is raised, as Ray does.
    """
    kind = type(value)
    if kind in _SCALARS or ((kind is tuple or kind is list or kind is dict) and _is_plain(value, _PLAIN_DEPTH)):
        return SerializedObject(PICKLE, dumps(value, PROTOCOL))
    if kind is bytes:
        return SerializedObject(RAW, value)
    if kind is bytearray or kind is memoryview:
        return SerializedObject(RAW, _flat(memoryview(value)))
    buffers: list[memoryview] = []
    contained: list[Any] = []
    try:
        if kind.__name__ == "ndarray" and _is_plain_array(kind, value):
            pickle = dumps(value, PROTOCOL, buffer_callback=_OutOfBand(buffers))
        else:
            file = BytesIO()
            Pickler(file, PROTOCOL, _OutOfBand(buffers), contained).dump(value)
            pickle = file.getvalue()
    except TypeError as error:
        if what is None:
            raise
        raise not_serializable(value, what()) from error
    if buffers:
        return FramedObject(pickle, buffers, contained)
    return SerializedObject(PICKLE, pickle, contained)


class _OutOfBand:
    """The pickler's buffer callback: collects the buffers that can be copied as they are."""

    __slots__ = ("_buffers",)

    def __init__(self, buffers: list[memoryview]) -> None:
        self._buffers = buffers

    def __call__(self, buffer: PickleBuffer) -> bool:
        try:
            self._buffers.append(buffer.raw())
        except BufferError:  # not in one piece: the pickler's turn
            return True
        return False


def _is_plain_array(kind: type, value: Any) -> bool:
    """Whether this is a numpy array of numbers: 6 us by the C pickler instead of 14."""
    return kind.__module__ == "numpy" and not value.dtype.hasobject and kind not in serializers


def _flat(view: memoryview) -> memoryview:
    """The bytes of any memoryview, without a copy where they lie in one piece."""
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


def deserialize(kind: int, data: bytes | memoryview) -> Any:
    """The value again. Buffers of a framed value are read-only slices of ``data``, and keep it alive.

    ``data`` may be longer than the value only for ``FRAMED`` and ``PICKLE``. Raises what unpickling raises.
    """
    if kind == PICKLE:
        return loads(data)
    if kind == RAW:
        return data if type(data) is bytes else bytes(data)
    if kind != FRAMED:
        raise ValueError(f"unknown kind of serialized object: {kind}")
    view = memoryview(data)
    if not view.readonly:
        view = view.toreadonly()
    count, length = _HEADER.unpack_from(view)
    start = _HEADER.size * (1 + count)
    table = _HEADER.iter_unpack(view[_HEADER.size : start])
    return loads(view[start : start + length], buffers=[view[offset : offset + size] for offset, size in table])


def pickle_function(value: Any, what: Callable[[], str], contained: list[Any] | None = None) -> bytes:
    """Pickle a function or class for export: by value from ``__main__`` and from closures, else by reference.

    The result is one plain pickle. ``contained`` is filled with the references and handles that it closes over, which
    have to live as long as the export. Raises as ``serialize`` does; ``what`` is, say, "the function module.f".
    """
    file = BytesIO()
    try:
        Pickler(file, PROTOCOL, None, [] if contained is None else contained).dump(value)
    except TypeError as error:
        raise not_serializable(value, what()) from error
    return file.getvalue()


def fingerprint(data: bytes) -> bytes:
    """28 bytes that name this content: the key under which a function or class is exported once."""
    return blake2b(data, digest_size=28).digest()


def not_serializable(value: Any, what: str) -> TypeError:
    """Ray's error for a value that cannot be pickled, with the report that finds the culprit."""
    from io import StringIO

    from miniray.system.serializability import inspect_serializability  # imports inspect: only for the report

    report = StringIO()
    try:
        inspect_serializability(value, print_file=report)
    except Exception as error:  # the search runs the properties and the repr of the user's objects
        report.write(f"The search for the cause failed: {type(error).__name__}\n")
    return TypeError(f"Could not serialize {what}:\n{report.getvalue()}")
