"""`as_completed` and `map_unordered`."""

from __future__ import annotations

from typing import Any

import pytest

import miniray
from miniray.util import as_completed, map_unordered
from miniray.util.channel import channel

pytestmark = pytest.mark.usefixtures("session")


@miniray.remote(num_cpus=0)
def double(value: int) -> int:
    return 2 * value


@miniray.remote(num_cpus=0)
def wait(gate: Any) -> str:
    gate.recv()
    return "late"


def test_results_come_as_they_are_ready() -> None:
    tx, rx = channel()
    results = as_completed([wait.remote(rx), double.remote(1)], chunk_size=1)
    assert next(results) == 2
    tx.send(None)
    assert list(results) == ["late"]


def test_refs_can_be_had_in_the_place_of_values() -> None:
    refs = [double.remote(value) for value in range(3)]
    assert sorted(as_completed(refs, yield_obj_refs=True), key=refs.index) == refs
    assert list(as_completed([])) == []


def test_all_items_are_mapped_with_any_number_under_way() -> None:
    for size in (1, 3, None):
        results = map_unordered(double, range(7), backpressure_size=size, chunk_size=2)
        assert sorted(results) == [0, 2, 4, 6, 8, 10, 12]


def test_no_more_is_submitted_than_back_pressure_allows() -> None:
    taken = []

    def items() -> Any:
        for number in range(10):
            taken.append(number)
            yield number

    results = map_unordered(double, items(), backpressure_size=2, chunk_size=1)
    next(results)
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: as_completed([], chunk_size=0), "`chunk_size` must be >= 1"),
        (lambda: as_completed([], num_returns=1), "Use the `chunksize` argument instead of `num_returns`."),
        (lambda: map_unordered(double, [], chunk_size=0), "`chunk_size` must be >= 1"),
        (lambda: map_unordered(double, [], backpressure_size=0), "backpressure_size must be positive."),
        (lambda: map_unordered(double, [], num_returns=1), "Use the `chunk_size` argument instead of `num_returns`."),
    ],
)
def test_arguments_are_checked(call: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        next(call())
    assert str(raised.value) == text
