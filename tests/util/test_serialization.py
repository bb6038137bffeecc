"""Serializers of one's own."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from miniray import cloudpickle
from miniray.system.serialization import deserialize, serialize
from miniray.util.serialization import deregister_serializer, register_serializer


class Connection:
    def __init__(self, address: str) -> None:
        self.address = address

    def __reduce__(self) -> Any:
        raise TypeError("a connection cannot be pickled")


class Special(Connection):
    pass


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_serializer(Connection, serializer=lambda c: c.address, deserializer=lambda a: Connection(a + "!"))
    yield
    deregister_serializer(Connection)


def round_trip(value: Any) -> Any:
    serialized = serialize(value)
    return deserialize(serialized.kind, serialized.to_bytes())


def test_a_registered_serializer_is_used_wherever_the_value_stands() -> None:
    assert round_trip(Connection("a")).address == "a!"
    assert round_trip({"k": [Connection("b")]})["k"][0].address == "b!"


def test_the_reader_needs_no_registration() -> None:
    data = serialize(Connection("a")).to_bytes()
    deregister_serializer(Connection)
    assert pickle.loads(data).address == "a!"


def test_a_subclass_is_not_meant() -> None:
    with pytest.raises(TypeError, match="a connection cannot be pickled"):
        serialize(Special("a"))


def test_deregistering_ends_it_and_may_be_done_twice() -> None:
    deregister_serializer(Connection)
    deregister_serializer(Connection)
    with pytest.raises(TypeError, match="a connection cannot be pickled"):
        serialize(Connection("a"))


def test_miniray_cloudpickle_knows_the_serializers_too() -> None:
    assert cloudpickle.loads(cloudpickle.dumps(Connection("a"))).address == "a!"


def test_a_serializer_for_arrays_is_asked() -> None:
    np = pytest.importorskip("numpy")
    register_serializer(np.ndarray, serializer=lambda a: a.tolist(), deserializer=lambda a: a)
    try:
        assert round_trip(np.ones(2)) == [1.0, 1.0]
    finally:
        deregister_serializer(np.ndarray)
