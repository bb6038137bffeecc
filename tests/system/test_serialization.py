"""One format for inline values and shared memory: what comes back, what is copied, and how failures read."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray.system import pickler
from miniray.system.serialization import (
    ALIGNMENT,
    FRAMED,
    PICKLE,
    RAW,
    FramedObject,
    deserialize,
    fingerprint,
    pickle_function,
    serialize,
)


def round_trip(value: Any) -> Any:
    """Through bytes and through memory that held something else; both must agree on their size."""
    serialized = serialize(value)
    data = serialized.to_bytes()
    assert len(data) == serialized.total_size
    memory = bytearray(b"\xff" * serialized.total_size)
    serialized.write_into(memoryview(memory))
    deserialize(serialized.kind, memory)
    return deserialize(serialized.kind, data)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner)
)


@given(values)
def test_plain_data_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    result = round_trip(value)
    assert result == value
    assert type(result) is type(value)


@given(st.binary(min_size=1), st.lists(st.binary()))
def test_any_number_of_buffers_of_any_size_comes_back_aligned(data: bytes, buffers: list[bytes]) -> None:
    framed = FramedObject(pickle.dumps(data), [memoryview(buffer) for buffer in buffers], [])
    whole = framed.to_bytes()
    assert len(whole) == framed.total_size
    end = 0
    for index, (offset, part) in enumerate(framed.parts()):
        assert offset >= end
        assert index == 0 or offset % ALIGNMENT == 0
        assert whole[offset : offset + len(part)] == part
        end = offset + len(part)
    assert end == framed.total_size


def test_plain_data_is_one_plain_pickle() -> None:
    serialized = serialize((1, "a", [None, {"b": 2.5}]))
    assert serialized.kind == PICKLE
    assert serialized.contained == []
    assert pickle.loads(serialized.to_bytes()) == (1, "a", [None, {"b": 2.5}])


def test_bytes_travel_as_they_are() -> None:
    value = b"x" * 1000
    serialized = serialize(value)
    assert serialized.kind == RAW
    assert serialized.to_bytes() is value
    assert deserialize(RAW, memoryview(value)) == value
    assert type(deserialize(RAW, memoryview(value))) is bytes


@pytest.mark.parametrize("value", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a_b_c_")[::2], memoryview(b"")])
def test_other_bytes_come_back_as_bytes_as_in_ray(value: Any) -> None:
    assert round_trip(value) == bytes(value)
    assert type(round_trip(value)) is bytes


def test_a_list_that_contains_itself_comes_back_so() -> None:
    value: list[Any] = []
    value.append(value)
    result = round_trip(value)
    assert result[0] is result


def test_what_is_shared_stays_shared() -> None:
    part = [1]
    result = round_trip([part, part])
    assert result[0] is result[1]


def test_subclasses_of_builtin_types_keep_their_type() -> None:
    class Text(str):
        pass

    for value in (Text("a"), OrderedDict(a=1), [Text("b")], {"k": OrderedDict()}):
        result = round_trip(value)
        assert result == value
    assert type(round_trip([Text("b")])[0]).__name__ == "Text"


def test_a_lambda_in_a_small_tuple_goes_by_value() -> None:
    offset = 5
    assert round_trip((1, lambda x: x + offset))[1](1) == 6


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of serialized object: 9"):
        deserialize(9, b"")


def test_a_large_object_is_written_in_pieces() -> None:
    value = bytes(range(256)) * (100 << 10)
    memory = bytearray(len(value) + 10)
    serialize(value).write_into(memoryview(memory))
    assert memory[:-10] == value


def test_an_array_is_a_read_only_view_of_the_data() -> None:
    np = pytest.importorskip("numpy")
    value = np.arange(10)
    serialized = serialize({"a": value})
    assert serialized.kind == FRAMED
    data = serialized.to_bytes()
    result = deserialize(FRAMED, data)["a"]
    assert (result == value).all()
    assert np.shares_memory(result, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        result[0] = 1


def test_an_array_in_writable_memory_is_read_only_too() -> None:
    np = pytest.importorskip("numpy")
    memory = bytearray(serialize(np.ones(3)).to_bytes())
    assert not deserialize(FRAMED, memory).flags.writeable


def test_arrays_of_every_layout_and_type_come_back_equal() -> None:
    np = pytest.importorskip("numpy")
    square = np.arange(12).reshape(3, 4)
    structured = np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])
    for value in (square, square.T, square[:, 1], square[::2], np.array(3), np.empty(0), structured):
        result = round_trip(value)
        assert result.dtype == value.dtype
        assert (result == value).all()
    objects = round_trip(np.array([1, "a", None], dtype=object))
    assert objects.tolist() == [1, "a", None]


def test_an_array_of_functions_goes_through_cloudpickle() -> None:
    np = pytest.importorskip("numpy")
    assert round_trip(np.array([lambda: 7], dtype=object))[0]() == 7


class Reference:
    """Stands for ObjectRef."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def reference_reducer(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce(to: pickler.Pickler, reference: Reference) -> Any:
        if to.contained is not None:
            to.contained.append(reference)
        return Reference, (reference.name,)

    monkeypatch.setitem(pickler.reducers, Reference, reduce)


@pytest.mark.usefixtures("reference_reducer")
def test_references_inside_a_value_are_reported_in_order() -> None:
    a, b = Reference("a"), Reference("b")
    serialized = serialize([a, {"k": b}])
    assert serialized.contained == [a, b]
    result = deserialize(serialized.kind, serialized.to_bytes())
    assert [result[0].name, result[1]["k"].name] == ["a", "b"]
    assert serialize(1).contained == []


@pytest.mark.usefixtures("reference_reducer")
def test_references_that_a_function_closes_over_are_reported() -> None:
    reference = Reference("a")
    contained: list[Any] = []
    data = pickle_function(lambda: reference.name, lambda: "the function f", contained)
    assert contained == [reference]
    assert pickle.loads(data)() == "a"


def test_a_function_of_a_module_is_pickled_by_reference() -> None:
    assert len(pickle_function(OrderedDict, lambda: "")) < 60
    assert pickle.loads(pickle_function(OrderedDict, lambda: "")) is OrderedDict


def test_a_fingerprint_is_28_bytes_and_tells_contents_apart() -> None:
    assert len(fingerprint(b"a")) == 28
    assert fingerprint(b"a") == fingerprint(b"a") != fingerprint(b"b")


def test_what_cannot_be_serialized_is_named_with_a_report() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError) as caught:
        serialize([lock], what=lambda: f"the put value {[lock]}")
    text = str(caught.value)
    title = f"Checking Serializability of {[lock]}"
    assert text.startswith(f"Could not serialize the put value {[lock]}:\n{'=' * len(title)}\n{title}\n")
    assert "\x1b[31m!!! FAIL\x1b[39m serialization: cannot pickle '_thread.lock' object\n" in text
    assert text.endswith("=\n")
    assert isinstance(caught.value.__cause__, TypeError)


def test_without_a_description_the_error_is_the_picklers_own() -> None:
    with pytest.raises(TypeError, match=r"^cannot pickle '_thread.lock' object$"):
        serialize([threading.Lock()])


def test_errors_of_other_types_pass_as_they_are() -> None:
    class Stubborn:
        def __reduce__(self) -> Any:
            raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        serialize(Stubborn(), what=lambda: "the put value x")


def test_a_function_that_closes_over_a_lock_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="Could not serialize the function m.f:\n==="):
        pickle_function(lambda: lock, lambda: "the function m.f")


def test_a_property_that_raises_does_not_hide_the_error() -> None:
    class Hostile:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        @property
        def bad(self) -> None:
            raise RuntimeError("no entry")

    with pytest.raises(TypeError, match="The search for the cause failed: RuntimeError"):
        serialize(Hostile(), what=lambda: "the put value x")
