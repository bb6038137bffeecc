"""Objects on disk: moved there, read back, freed; a disk that is full; readers and owners that come in between."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniray.exceptions import ObjectStoreFullError, OutOfDiskError
from miniray.system import spilling
from miniray.system.segment import mark_free, read_ledger
from miniray.system.shared_memory import SLAB_OBJECT_LIMIT, SegmentStore
from tests.system.test_shared_memory import LARGE, MIB, SMALL, Quota, put, where


@pytest.fixture
def quota() -> Quota:
    return Quota()


@pytest.fixture
def make_store(tmp_path: Path, quota: Quota) -> Iterator[Callable[..., SegmentStore]]:
    stores = []
    for name in ("memory", "disk"):
        (tmp_path / name).mkdir()

    def make(**options: Any) -> SegmentStore:
        options.setdefault("spill_directory", str(tmp_path / "disk"))
        store = SegmentStore(str(tmp_path / "memory"), quota.reserve, quota.release, **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()
    assert quota.held == 0
    assert os.listdir(tmp_path / "disk") == os.listdir(tmp_path / "memory") == []


@pytest.fixture
def store(make_store: Callable[..., SegmentStore]) -> SegmentStore:
    return make_store()


def on_disk(store: SegmentStore) -> list[str]:
    return sorted(os.listdir(store.spill_directory))


def content(number: int, size: int) -> bytes:
    return bytes([number % 251]) * size


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_spilled_object_is_read_here_and_elsewhere_under_its_old_location(
    make_store: Callable[..., SegmentStore], quota: Quota, size: int
) -> None:
    store, reader = make_store(), make_store()
    buffers = [put(store, content(n, size)) for n in range(5)]
    assert store.spill() >= 5 * size
    assert quota.held == store.used == 0
    assert store.spilled == 5 * size
    for number, buffer in enumerate(buffers):
        assert reader.open(*where(buffer)) == store.open(*where(buffer)) == content(number, size)
        assert reader.open(*where(buffer)).readonly
    for buffer in buffers:
        assert store.free(*where(buffer), shared=True)
    assert on_disk(store) == []


def test_small_objects_reach_the_disk_in_one_file(store: SegmentStore) -> None:
    for number in range(20):
        put(store, content(number, SMALL))
    store.spill()
    assert len(on_disk(store)) == 1


@pytest.mark.parametrize("freed", ["before", "during", "after"])
def test_the_ledger_of_a_slab_moves_with_it(store: SegmentStore, monkeypatch: pytest.MonkeyPatch, freed: str) -> None:
    buffers = [put(store, content(n, SMALL)) for n in range(3)]
    copy = spilling.copy_to_disk

    def copy_and_free(*arguments: Any) -> bool:
        copied = copy(*arguments)
        store.free(*where(buffers[1]), shared=True)
        return copied

    if freed == "before":
        store.free(*where(buffers[1]), shared=True)
    elif freed == "during":
        monkeypatch.setattr(spilling, "copy_to_disk", copy_and_free)
    store.spill()
    if freed == "after":
        store.free(*where(buffers[1]), shared=True)
    (name,) = on_disk(store)
    ledger = read_ledger(os.path.join(store.spill_directory, name))
    assert ledger is not None and sorted(ledger) == [buffers[0].offset, buffers[2].offset]


def test_spilling_stops_when_enough_came_back_and_takes_the_oldest(store: SegmentStore) -> None:
    first, second = put(store, b"a" * LARGE), put(store, b"b" * LARGE)
    assert LARGE <= store.spill(1) < 2 * LARGE
    assert on_disk(store) == [first.segment]
    assert store.used < 2 * LARGE
    assert store.open(*where(second))[:1] == b"b"


def test_what_is_viewed_or_written_is_not_spilled(make_store: Callable[..., SegmentStore]) -> None:
    store, reader = make_store(), make_store()
    here, elsewhere = put(store, b"a" * LARGE), put(store, b"b" * LARGE)
    views = [store.open(*where(here)), reader.open(*where(elsewhere))]
    unsealed = store.create(LARGE)
    assert store.spill() == 0
    views.clear()
    unsealed.seal()
    assert store.spill() >= 3 * LARGE


def test_an_object_that_fits_nowhere_in_memory_is_created_on_disk(store: SegmentStore, quota: Quota) -> None:
    quota.limit = 2 * MIB
    view = store.open(*where(put(store, b"v" * LARGE)))
    kept = [(put(store, content(n, size)), n) for n, size in enumerate([LARGE, 3 * MIB, SMALL, SMALL, 5 * MIB])]
    assert quota.held <= quota.limit
    for buffer, number in kept:
        assert store.open(*where(buffer)) == content(number, buffer.size)
    for buffer, _ in kept:
        assert store.free(*where(buffer), shared=False)
    assert on_disk(store) == []
    assert view[:1] == b"v"


def test_three_times_as_much_as_the_store_holds_is_written_and_read_back(store: SegmentStore, quota: Quota) -> None:
    quota.limit = 20 * MIB
    sizes = [LARGE, SMALL, 3 * MIB, SLAB_OBJECT_LIMIT, 2 * MIB]
    kept = []
    total = 0
    while total < 3 * quota.limit:
        size = sizes[len(kept) % len(sizes)]
        kept.append(put(store, content(len(kept), size)))
        total += size
    assert quota.held <= quota.limit
    for number, buffer in enumerate(kept):
        assert store.open(*where(buffer)) == content(number, buffer.size)
    for buffer in kept:
        assert store.free(*where(buffer), shared=True)
    assert on_disk(store) == []


def test_a_disk_over_its_limit_is_an_error_and_nothing_is_lost(
    make_store: Callable[..., SegmentStore], quota: Quota
) -> None:
    store = make_store(disk_threshold=0.0)
    quota.limit = 3 * MIB
    kept = [put(store, b"a" * LARGE), put(store, b"b" * SMALL)]
    for size in (2 * MIB, 5 * MIB):
        with pytest.raises(OutOfDiskError, match="Local disk is full"):
            store.create(size)
    assert [bytes(store.open(*where(buffer))[:1]) for buffer in kept] == [b"a", b"b"]
    assert on_disk(store) == []


def test_a_disk_that_runs_full_in_the_middle_leaves_no_part_of_a_file(
    store: SegmentStore, quota: Quota, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota.limit = 3 * MIB
    kept = put(store, b"a" * 2 * MIB)

    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spilling, "_send", full)
    assert store.spill() == 0
    assert on_disk(store) == []
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutOfDiskError):
        store.create(2 * MIB)
    monkeypatch.undo()
    assert on_disk(store) == []
    assert store.open(*where(kept)) == b"a" * 2 * MIB


def test_without_a_spill_directory_a_full_store_is_an_error(
    make_store: Callable[..., SegmentStore], quota: Quota
) -> None:
    store = make_store(spill_directory="")
    quota.limit = MIB
    with pytest.raises(ObjectStoreFullError):
        store.create(LARGE)
    assert store.spill() == 0


@pytest.mark.parametrize("moment", ["before the copy", "after the copy", "after the move"])
@pytest.mark.parametrize("who", ["owner here", "owner elsewhere"])
def test_an_object_freed_while_it_is_moved_leaves_nothing(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch, moment: str, who: str
) -> None:
    buffer = put(store, b"a" * LARGE)
    copy = spilling.copy_to_disk

    def free() -> None:
        if who == "owner elsewhere":
            mark_free(store.directory, buffer.segment, store.spill_directory)
        else:
            assert store.free(*where(buffer), shared=True)

    def copying(*arguments: Any) -> bool:
        if moment == "before the copy":
            free()
        copied = copy(*arguments)
        if moment == "after the copy":
            free()
        return copied

    monkeypatch.setattr(spilling, "copy_to_disk", copying)
    store.spill()
    if moment == "after the move":
        free()
    assert on_disk(store) == []
    if who == "owner elsewhere":
        assert store.free(*where(buffer), shared=True)
    assert store.used == 0
    assert store.trim() <= 2 * LARGE
    assert os.listdir(store.directory) == []


def test_an_object_that_is_looked_at_while_it_is_moved_stays(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = put(store, b"a" * LARGE)
    copy = spilling.copy_to_disk
    views = []

    def copying(*arguments: Any) -> bool:
        copied = copy(*arguments)
        views.append(store.open(*where(buffer)))
        return copied

    monkeypatch.setattr(spilling, "copy_to_disk", copying)
    assert store.spill() == 0
    assert on_disk(store) == []
    assert views[0] == b"a" * LARGE
    views.clear()
    monkeypatch.undo()
    assert store.spill() >= LARGE


def test_readers_never_see_a_torn_or_a_missing_object(make_store: Callable[..., SegmentStore]) -> None:
    store, reader = make_store(), make_store()
    stop = threading.Event()
    wrong: list[Any] = []
    buffers = [put(store, content(n, size)) for n, size in enumerate([LARGE, SMALL, 2 * MIB, SMALL] * 10)]

    def read() -> None:
        try:
            while not stop.is_set():
                for number, buffer in enumerate(buffers):
                    if reader.open(*where(buffer)) != content(number, buffer.size):
                        wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(1000):
            store.spill(1)
            if store.spilled == sum(buffer.size for buffer in buffers):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    reader.collect()
    store.spill()
    assert store.used == 0
