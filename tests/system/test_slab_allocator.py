"""The allocator of a slab: no two slots overlap, and all comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray.system.slab_allocator import ALIGNMENT, SlabAllocator, aligned

CAPACITY = 64 * 100


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 64 * 30))))
def test_slots_never_overlap_and_all_memory_returns(steps: list[tuple[bool, int]]) -> None:
    allocator = SlabAllocator(CAPACITY)
    slots: list[tuple[int, int]] = []
    for take, number in steps:
        if take:
            offset = allocator.find(number, CAPACITY)
            if offset is None:
                continue
            allocator.take(offset, number)
            assert offset % ALIGNMENT == 0
            end = offset + max(aligned(number), ALIGNMENT)
            assert end <= CAPACITY
            for other, size in slots:
                assert end <= other or other + max(aligned(size), ALIGNMENT) <= offset
            slots.append((offset, number))
        elif slots:
            allocator.free(*slots.pop(number % len(slots)))
        held = sum(max(aligned(size), ALIGNMENT) for _, size in slots)
        assert allocator.free_bytes == CAPACITY - held
    for slot in slots:
        allocator.free(*slot)
    assert allocator.empty
    assert allocator.find(CAPACITY, CAPACITY) == 0


def test_the_lowest_hole_that_is_large_enough_is_found() -> None:
    allocator = SlabAllocator(CAPACITY)
    for offset in (0, 64, 192):
        allocator.take(offset, 64 if offset != 64 else 128)
    allocator.free(64, 128)
    assert allocator.find(64, CAPACITY) == 64
    assert allocator.find(129, CAPACITY) == 256


def test_a_slot_ends_at_or_before_the_limit() -> None:
    allocator = SlabAllocator(CAPACITY)
    assert allocator.find(128, 127) is None
    assert allocator.find(128, 128) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 64), (64, 128), (CAPACITY, 64), (-64, 64)])
def test_freeing_what_is_not_allocated_is_an_error(offset: int, size: int) -> None:
    allocator = SlabAllocator(CAPACITY)
    allocator.take(0, 64 * 3)
    allocator.free(0, 128)
    with pytest.raises(ValueError, match="is not an allocated slot"):
        allocator.free(offset, size)
    assert allocator.free_bytes == CAPACITY - 64


def test_taking_what_is_not_free_is_an_error() -> None:
    allocator = SlabAllocator(CAPACITY)
    allocator.take(0, 64)
    with pytest.raises(ValueError, match="is not a free slot"):
        allocator.take(0, 64)


def test_a_capacity_that_is_not_aligned_is_an_error() -> None:
    with pytest.raises(ValueError, match="positive multiple of 64"):
        SlabAllocator(100)
