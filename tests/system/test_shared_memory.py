"""The shared memory of a process: created, read, recycled, given back; and never lost, nor given out twice."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray.exceptions import ObjectStoreFullError
from miniray.system.segment import LEDGER_SIZE, clock, is_free, mark_free, read_ledger, segment_names, unlink
from miniray.system.serialization import deserialize, serialize
from miniray.system.shared_memory import SLAB_OBJECT_LIMIT, SLAB_SIZE, Buffer, SegmentStore

LARGE = SLAB_OBJECT_LIMIT + 1
SMALL = 100 << 10
MIB = 1 << 20


class Quota:
    """Counts what a store reserved, and refuses more than the limit."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.limit = limit
        self.held = 0

    def reserve(self, size: int) -> None:
        assert size > 0
        if self.held + size > self.limit:
            raise ObjectStoreFullError("over quota")
        self.held += size

    def release(self, size: int) -> None:
        assert size > 0
        self.held -= size


@pytest.fixture
def quota() -> Quota:
    return Quota()


@pytest.fixture
def make_store(tmp_path: Path, quota: Quota) -> Iterator[Callable[..., SegmentStore]]:
    stores = []

    def make(**options: Any) -> SegmentStore:
        store = SegmentStore(str(tmp_path), quota.reserve, quota.release, **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()
    assert quota.held == 0


@pytest.fixture
def store(make_store: Callable[..., SegmentStore]) -> SegmentStore:
    return make_store()


def put(store: SegmentStore, content: bytes) -> Buffer:
    buffer = store.create(len(content))
    buffer.write(serialize(content))
    buffer.seal()
    return buffer


def where(buffer: Buffer) -> tuple[str, int, int]:
    return buffer.segment, buffer.offset, buffer.size


def files(store: SegmentStore) -> list[str]:
    return sorted(os.listdir(store.directory))


@pytest.mark.parametrize("size", [0, 1, SMALL, SLAB_OBJECT_LIMIT, LARGE, 3 * MIB])
def test_an_object_is_read_here_and_elsewhere(make_store: Callable[..., SegmentStore], size: int) -> None:
    content = os.urandom(size)
    buffer = put(make_store(), content)
    for reader in (make_store(), make_store()):
        view = reader.open(*where(buffer))
        assert view == content
        assert view.readonly
        assert view.format == "B"


def test_an_object_written_through_its_view_is_read_here_and_elsewhere(
    store: SegmentStore, make_store: Callable[..., SegmentStore]
) -> None:
    buffer = store.create(LARGE)
    assert len(buffer.view) == LARGE
    buffer.view[:3] = b"abc"
    buffer.seal()
    assert store.open(*where(buffer))[:3] == b"abc"
    assert make_store().open(*where(buffer))[:3] == b"abc"


def test_small_objects_share_a_segment_and_large_ones_do_not(store: SegmentStore) -> None:
    small = [put(store, bytes([n]) * SMALL) for n in range(5)]
    large = [put(store, bytes([n]) * LARGE) for n in range(2)]
    assert len({buffer.segment for buffer in small}) == 1
    assert len({buffer.segment for buffer in [*small, *large]}) == 3
    assert all(buffer.offset % 64 == 0 for buffer in small)
    for n, buffer in enumerate(small):
        assert store.open(*where(buffer)) == bytes([n]) * SMALL


def test_a_full_slab_is_followed_by_another(store: SegmentStore) -> None:
    buffers = [put(store, b"x" * MIB) for _ in range(SLAB_SIZE // MIB + 1)]
    assert len({buffer.segment for buffer in buffers}) == 2


def test_an_object_of_a_segment_that_is_gone_is_not_found(store: SegmentStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.open("no-such-segment", 0, 10)


def test_a_freed_segment_serves_the_next_object_of_its_size_under_a_new_name(store: SegmentStore) -> None:
    first = put(store, b"a" * LARGE)
    inode = os.stat(os.path.join(store.directory, first.segment)).st_ino
    used = store.used
    assert store.free(*where(first), shared=False)
    assert (store.used, store.pooled) == (0, used)
    second = put(store, b"b" * LARGE)
    assert os.stat(os.path.join(store.directory, second.segment)).st_ino == inode
    assert second.segment != first.segment
    assert (store.used, store.pooled) == (used, 0)
    with pytest.raises(FileNotFoundError):
        store.open(*where(first))
    assert store.open(*where(second)) == b"b" * LARGE


def test_a_pooled_segment_much_larger_than_the_object_is_left_alone(store: SegmentStore) -> None:
    store.free(*where(put(store, b"a" * 4 * MIB)), shared=False)
    buffer = put(store, b"b" * 2 * MIB)
    assert store.pooled == 4 * MIB
    assert store.open(*where(buffer)) == b"b" * 2 * MIB


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_memory_is_not_used_again_while_another_process_views_it(
    make_store: Callable[..., SegmentStore], size: int
) -> None:
    store, reader = make_store(), make_store()
    buffer, keeper = put(store, b"a" * size), put(store, b"k" * size)
    view = reader.open(*where(buffer))
    derived = view[10:20]
    del view
    store.free(*where(buffer), shared=True)
    others = [put(store, b"b" * size) for _ in range(3)]
    assert derived == b"a" * 10
    assert store.used >= 5 * size
    del derived
    reader.collect()
    store.reap()
    store.trim()
    assert store.used <= 4 * size + MIB
    for other in (*others, keeper):
        store.free(*where(other), shared=True)


def test_memory_that_another_process_viewed_is_warm_again(make_store: Callable[..., SegmentStore]) -> None:
    store, reader = make_store(), make_store()
    buffer = put(store, b"a" * LARGE)
    assert reader.open(*where(buffer))[:1] == b"a"
    store.free(*where(buffer), shared=True)
    assert store.pooled >= LARGE
    again = put(store, b"b" * LARGE)
    assert store.pooled == 0
    with pytest.raises(FileNotFoundError):
        reader.open(*where(buffer))
    assert reader.open(*where(again))[:1] == b"b"


def test_a_viewer_that_dies_views_nothing_any_more(store: SegmentStore) -> None:
    program = (
        "import sys\n"
        "from miniray.system.shared_memory import SegmentStore\n"
        "view = SegmentStore(sys.argv[1]).open(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))\n"
        "print(bytes(view[:1]), flush=True)\n"
        "sys.stdin.read()\n"
    )
    for size in (LARGE, SMALL):
        buffer = put(store, b"a" * size)
        child = subprocess.Popen(
            [sys.executable, "-c", program, store.directory, *map(str, where(buffer))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"b'a'\n"
            store.free(*where(buffer), shared=True)
            held = store.used
            child.kill()
        store.reap()
        assert store.used <= held - size


def test_an_owner_elsewhere_says_by_the_name_that_a_segment_is_free(make_store: Callable[..., SegmentStore]) -> None:
    store, reader = make_store(), make_store()
    buffer = put(store, b"a" * LARGE)
    mark_free(store.directory, buffer.segment, "")
    with pytest.raises(FileNotFoundError):
        reader.open(*where(buffer))
    assert store.free(*where(buffer), shared=True)
    assert store.pooled >= LARGE
    assert put(store, b"b" * LARGE).segment != buffer.segment


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_memory_is_not_recycled_before_its_last_local_view_is_gone(store: SegmentStore, size: int) -> None:
    first = put(store, b"a" * size)
    keeper = put(store, b"k" * size)  # so that the slab stays
    view = store.open(*where(first))[1:]
    other = store.open(*where(first))
    store.free(*where(first), shared=False)
    del other
    second = put(store, b"b" * size)
    assert view == b"a" * (size - 1)
    assert where(second) != where(first)
    inode = os.stat(os.path.join(store.directory, first.segment)).st_ino
    del view
    third = put(store, b"c" * size)
    assert third.offset == first.offset
    assert os.stat(os.path.join(store.directory, third.segment)).st_ino == inode
    assert store.open(*where(keeper)) == b"k" * size


def test_the_last_view_to_go_tells_once(store: SegmentStore, make_store: Callable[..., SegmentStore]) -> None:
    buffer = put(store, b"a" * LARGE)
    for reader in (store, make_store()):
        released: deque[int] = deque()
        view = reader.open_tracked(*where(buffer), lambda released=released: released.append(1))  # type: ignore[misc]
        part = view[10:20][2:]
        bytes_view = memoryview(part).cast("B")
        del view
        del part
        assert not released
        assert bytes_view == b"a" * 8
        del bytes_view
        assert list(released) == [1]


def test_an_empty_object_tells_too(store: SegmentStore) -> None:
    released: deque[int] = deque()
    view = store.open_tracked("", 0, 0, lambda: released.append(1))
    assert view == b""
    del view
    assert list(released) == [1]
    assert store.free("", 0, 0, shared=False)


def test_a_numpy_array_is_a_view_and_the_last_one_tells(store: SegmentStore) -> None:
    np = pytest.importorskip("numpy")
    value = np.arange(1 << 18)
    serialized = serialize({"a": value})
    buffer = store.create(serialized.total_size)
    buffer.write(serialized)
    buffer.seal()
    released: deque[int] = deque()
    result = deserialize(serialized.kind, store.open_tracked(*where(buffer), lambda: released.append(1)))
    array = result["a"][5:][::2]
    assert (array == value[5:][::2]).all()
    assert result["a"].ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        array[0] = 1
    del result
    gc.collect()
    assert not released
    del array
    assert list(released) == [1]


def test_views_in_a_reference_cycle_are_released_by_the_collector(store: SegmentStore) -> None:
    buffer = put(store, b"a" * LARGE)
    released: deque[int] = deque()
    cycle: list[Any] = [store.open_tracked(*where(buffer), lambda: released.append(1))]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert list(released) == [1]
    store.free(*where(buffer), shared=False)
    assert store.pooled > LARGE


def test_many_views_of_one_foreign_segment_map_it_once(
    store: SegmentStore, make_store: Callable[..., SegmentStore]
) -> None:
    reader = make_store()
    location = where(put(store, b"a" * LARGE))
    views = [reader.open(*location) for _ in range(3)]
    assert len({id(view.obj._objects) for view in views}) == 3  # type: ignore[attr-defined]
    known = list(reader._foreign._known.values())
    assert len(known) == 1
    assert known[0].mapping() is not None
    del views
    assert known[0].mapping() is None


def test_references_to_mappings_that_are_gone_do_not_pile_up(
    store: SegmentStore, make_store: Callable[..., SegmentStore]
) -> None:
    reader = make_store()
    for _ in range(300):
        location = where(put(store, b"a" * LARGE))
        reader.open(*location)
        store.free(*location, shared=False)
    assert len(reader._foreign) <= 64


def test_the_pool_is_bounded_and_the_oldest_goes_first(make_store: Callable[..., SegmentStore]) -> None:
    store = make_store(pool_limit=4 * MIB)
    buffers = [put(store, bytes([n]) * 2 * MIB) for n in range(3)]
    too_large = put(store, b"x" * 5 * MIB)
    for buffer in [*buffers, too_large]:
        store.free(*where(buffer), shared=False)
    assert store.pooled == 4 * MIB
    assert len(files(store)) == 2


def test_trim_gives_back_what_is_asked_for_or_all(store: SegmentStore, quota: Quota) -> None:
    for buffer in [put(store, b"x" * 2 * MIB) for _ in range(3)]:
        store.free(*where(buffer), shared=False)
    small = put(store, b"x" * SMALL)
    store.free(*where(small), shared=False)
    assert store.pooled == quota.held == 7 * MIB
    assert store.trim(1) == 2 * MIB
    assert store.pooled == quota.held == 5 * MIB
    assert store.trim() == 5 * MIB
    assert store.pooled == quota.held == 0
    assert store.trim() == 0
    assert files(store) == []


def test_a_slab_costs_what_is_used_of_it(store: SegmentStore, quota: Quota) -> None:
    put(store, b"x" * SMALL)
    assert store.used == quota.held == MIB
    for _ in range(10):
        put(store, b"x" * SMALL)
    assert store.used == quota.held == 2 * MIB


def test_a_slab_without_objects_goes_back_but_for_one(store: SegmentStore, quota: Quota) -> None:
    buffers = [put(store, b"x" * (MIB - LEDGER_SIZE // 16)) for _ in range(2 * SLAB_SIZE // MIB)]
    assert quota.held == 2 * SLAB_SIZE
    for buffer in buffers:
        store.free(*where(buffer), shared=False)
    assert store.pooled == quota.held == SLAB_SIZE
    assert len(files(store)) == 1


def test_a_slab_says_where_its_objects_begin_and_since_when(store: SegmentStore) -> None:
    began = clock()
    buffers = [put(store, b"x" * SMALL) for _ in range(3)]
    path = os.path.join(store.directory, buffers[0].segment)
    ledger = read_ledger(path)
    assert ledger is not None and sorted(ledger) == [buffer.offset for buffer in buffers]
    assert all(began <= made_at <= clock() for made_at in ledger.values())
    store.free(*where(buffers[1]), shared=False)
    assert sorted(read_ledger(path) or ()) == [buffers[0].offset, buffers[2].offset]
    freed_at = clock()
    while clock() == freed_at:  # a message takes longer
        pass
    again = put(store, b"y" * SMALL)
    assert where(again) == where(buffers[1])
    assert (read_ledger(path) or {})[again.offset] > freed_at


def test_an_object_as_large_as_a_slab_is_none(store: SegmentStore) -> None:
    buffer = put(store, bytes(SLAB_SIZE))
    path = os.path.join(store.directory, buffer.segment)
    assert os.path.getsize(path) == SLAB_SIZE
    assert read_ledger(path) is None


def test_the_pool_is_given_up_before_the_quota_refuses(store: SegmentStore, quota: Quota) -> None:
    quota.limit = 4 * MIB
    store.free(*where(put(store, b"x" * 3 * MIB)), shared=False)
    buffer = put(store, b"y" * 2 * MIB)
    assert quota.held == 2 * MIB
    small = [put(store, b"y" * (MIB - LEDGER_SIZE)) for _ in range(2)]
    for size in (2 * MIB, MIB):
        with pytest.raises(ObjectStoreFullError, match="over quota"):
            store.create(size)
    assert quota.held == 4 * MIB
    assert store.open(*where(buffer)) == b"y" * 2 * MIB
    for made in [buffer, *small]:
        store.free(*where(made), shared=False)
    store.create(4 * MIB).abort()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate")
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_full_file_system_is_an_error_that_leaves_nothing(
    store: SegmentStore, quota: Quota, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(ObjectStoreFullError, match="shared memory file system is full"):
            store.create(size)
    assert quota.held == store.used == store.pooled == 0
    assert store.open(*where(put(store, b"a" * size))) == b"a" * size


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate")
def test_a_full_file_system_is_first_relieved_of_the_pool(store: SegmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.free(*where(put(store, b"x" * 2 * MIB)), shared=False)
    fallocate = os.posix_fallocate

    def full_with_the_pool(descriptor: int, offset: int, length: int) -> None:
        if store.pooled:
            raise OSError(errno.ENOSPC, "No space left on device")
        fallocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full_with_the_pool)
    assert store.create(5 * MIB).size == 5 * MIB


def test_without_posix_fallocate_and_pwrite_it_works_too(store: SegmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.delattr(os, "pwrite", raising=False)
    for content in (b"a" * LARGE, b"b" * SMALL):
        assert store.open(*where(put(store, content))) == content


def test_an_aborted_buffer_leaves_its_memory_to_the_next(store: SegmentStore) -> None:
    for size in (LARGE, SMALL):
        store.create(size).abort()
    assert store.used == 0
    assert store.pooled > 0


def test_freeing_twice_or_what_is_not_ours_is_answered_with_no(
    store: SegmentStore, make_store: Callable[..., SegmentStore]
) -> None:
    buffer = put(store, b"a" * LARGE)
    assert not make_store().free(*where(buffer), shared=False)
    assert store.free(*where(buffer), shared=False)
    assert not store.free(*where(buffer), shared=False)


def test_what_is_handed_over_outlives_the_store_and_is_freed_by_who_adopts_it(
    store: SegmentStore, quota: Quota, tmp_path: Path
) -> None:
    large, small, gone = put(store, b"a" * LARGE), put(store, b"b" * SMALL), put(store, b"c" * SMALL)
    store.free(*where(gone), shared=False)
    store.free(*where(put(store, b"p" * 2 * LARGE)), shared=False)
    handed = store.hand_over()
    assert handed == {large.segment: [(0, LARGE)], small.segment: [(small.offset, SMALL)]}
    assert store.used == 0
    store.close()
    assert files(store) == sorted(handed)

    heir = SegmentStore(str(tmp_path), release=quota.release)
    taken = sum(heir.adopt(segment, objects) for segment, objects in handed.items())
    assert heir.used == taken == quota.held >= LARGE + SMALL
    view = heir.open(*where(small))
    assert view == b"b" * SMALL
    assert heir.free(*where(large), shared=False)
    assert heir.free(*where(small), shared=True)
    assert quota.held == 0
    assert files(heir) == []
    assert view == b"b" * SMALL
    heir.close()


def test_close_unlinks_all_and_leaves_views_valid(store: SegmentStore, quota: Quota) -> None:
    buffers = [put(store, b"a" * LARGE), put(store, b"b" * SMALL)]
    store.free(*where(put(store, b"p" * 2 * LARGE)), shared=False)
    views = [store.open(*where(buffer)) for buffer in buffers]
    store.close()
    assert files(store) == []
    assert quota.held == 0
    assert views == [b"a" * LARGE, b"b" * SMALL]
    with pytest.raises(RuntimeError, match="closed"):
        store.create(LARGE)
    with pytest.raises(RuntimeError, match="closed"):
        store.create(SMALL)
    store.close()


def test_the_names_say_what_a_dead_process_left_and_what_of_it_is_free(store: SegmentStore) -> None:
    program = (
        "import os, sys\n"
        "from miniray.system.shared_memory import SegmentStore\n"
        "store = SegmentStore(sys.argv[1], writer='dead')\n"
        "for size in (2 << 20, 200_000, 3 << 20): buffer = store.create(size); buffer.seal()\n"
        "store.free(buffer.segment, 0, buffer.size, shared=False)\n"
        "store.create(4 << 20)\n"
        "os._exit(0)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, store.directory])
    assert child.wait() == 0
    names = segment_names(store.directory, "dead")
    assert len(names) == 4
    assert sum(map(is_free, names)) == 2
    for name in names:
        unlink(os.path.join(store.directory, name))
    assert files(store) == []


def test_segments_left_under_our_own_pid_are_not_touched(make_store: Callable[..., SegmentStore]) -> None:
    store = make_store()
    kept = put(store, b"a" * LARGE)
    other = put(make_store(), b"b" * LARGE)  # another store of the same process counts from one too
    assert store.open(*where(kept)) == b"a" * LARGE
    assert store.open(*where(other)) == b"b" * LARGE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_that_closes_takes_nothing_away(store: SegmentStore) -> None:
    # In a process of its own: this one may have threads.
    program = (
        "import os, sys\n"
        "from miniray.system.shared_memory import SegmentStore\n"
        "store = SegmentStore(sys.argv[1])\n"
        "buffer = store.create(2 << 20)\n"
        "buffer.seal()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    store.close()\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "assert os.listdir(sys.argv[1]) == [buffer.segment]\n"
        "store.close()\n"
    )
    assert subprocess.run([sys.executable, "-c", program, store.directory], check=False).returncode == 0


def test_threads_that_create_read_and_free_never_meet(store: SegmentStore, quota: Quota) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(40):
                size = (SMALL, 3 * SMALL, LARGE, 2 * LARGE)[(number + step) % 4]
                content = bytes([number * 40 + step]) * size
                buffer = put(store, content)
                view = store.open(*where(buffer))
                store.free(*where(buffer), shared=False)
                if view != content:
                    raise AssertionError("overwritten")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    store.collect()
    assert store.used == 0
    assert quota.held == store.pooled


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "open", "close", "free", "lose", "trim"]),
        st.integers(0, 1000),
        st.sampled_from([SMALL, 3 * SMALL, MIB, LARGE, 2 * LARGE]),
    ),
    max_size=40,
)


@given(steps)
def test_whatever_is_done_no_object_changes_and_all_is_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    quota = Quota()
    store = SegmentStore(str(tmp_path_factory.getbasetemp()), quota.reserve, quota.release, pool_limit=4 * MIB)
    objects: list[tuple[Buffer, bytes]] = []
    views: list[tuple[memoryview, bytes]] = []
    for number, (action, choice, size) in enumerate(steps):
        if action == "create":
            mark = number.to_bytes(8, "little")
            buffer = store.create(size)
            buffer.view[:8] = buffer.view[-8:] = mark
            buffer.seal()
            objects.append((buffer, mark))
        elif action == "trim":
            store.trim(size)
        elif action == "close" and views:
            views.pop(choice % len(views))
        elif action == "open" and objects:
            buffer, mark = objects[choice % len(objects)]
            views.append((store.open(*where(buffer)), mark))
        elif objects and action in ("free", "lose"):
            buffer, mark = objects.pop(choice % len(objects))
            assert store.free(*where(buffer), shared=action == "lose")
        assert all(view[:8] == view[-8:] == mark for view, mark in views)
        assert quota.held == store.used + store.pooled
        assert store.used >= sum(buffer.size for buffer, _ in objects)
    for buffer, mark in objects:
        assert store.open(*where(buffer))[:8] == mark
        store.free(*where(buffer), shared=False)
    views.clear()
    store.collect()
    assert store.used == 0
    store.trim()
    assert quota.held == 0
    store.close()


def test_full_slabs_are_not_looked_at_again_until_something_in_them_is_freed(store: SegmentStore) -> None:
    buffers = [put(store, b"x" * MIB) for _ in range(3 * SLAB_SIZE // MIB)]
    assert len(store._slabs.open[False, True]) <= 1 < len(store._slabs.in_memory)
    store.free(*where(buffers[0]), shared=False)
    again = put(store, b"y" * MIB)
    assert where(again) == where(buffers[0])
    assert store.open(*where(buffers[1])) == b"x" * MIB
