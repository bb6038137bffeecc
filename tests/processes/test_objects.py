"""Objects in shared memory across processes: who maps them, when they go, and what happens when there is no room."""

import gc
import os
import signal
import time

import numpy as np
import pytest
from psutil import pid_exists

import miniray
from miniray import exceptions
from miniray.processes import current, memory_quota
from miniray.system.segment import SLAB_SIZE, ends_with_writer, is_free
from tests.faults.inside import appended, note, store_bytes, store_files
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 1_000_000


def in_use():
    """Bytes of shared memory that serve objects: not those that are kept warm for the next ones."""
    return store_bytes(lambda path: not is_free(path))


@miniray.remote
def same(value):
    return value


@miniray.remote
def facts(array):
    return float(array.sum()), array.flags.writeable, array.flags.owndata


@miniray.remote
def make(size, value):
    return np.full(size, value, np.uint8)


@miniray.remote
class Holder:
    """Keeps refs of others in its process."""

    def keep(self, refs):
        self.refs = refs

    def read(self):
        return [float(value.sum()) for value in miniray.get(self.refs)]

    def drop(self):
        self.refs = None


@pytest.fixture(autouse=True)
def nothing_is_held_before(session):
    gc.collect()
    wait_for(lambda: in_use() < 32 * MEGABYTE, message=lambda: f"{in_use()} bytes of {store_files()}")


# ---- zero copies ----


def test_a_large_array_is_mapped_read_only_by_the_driver_and_by_tasks(session):
    array = np.ones(100 * MEGABYTE, np.uint8)
    ref = miniray.put(array)
    del array
    assert store_bytes() >= 100 * MEGABYTE
    used = store_bytes()
    here = miniray.get(ref)
    assert not here.flags.writeable and not here.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        here[0] = 2
    assert miniray.get([facts.remote(ref) for _ in range(4)]) == [(100e6, False, False)] * 4
    assert miniray.get(ref).ctypes.data == here.ctypes.data or store_bytes() == used


def test_a_large_array_that_a_task_returns_is_stored_once(session):
    before = store_bytes()
    ref = make.remote(50 * MEGABYTE, 3)
    array = miniray.get(ref)
    assert array[0] == array[-1] == 3
    assert not array.flags.owndata
    assert store_bytes() - before < 80 * MEGABYTE


def test_buffers_begin_at_multiples_of_64(session):
    for size in (200_000, 200_001, 333_333):
        assert miniray.get(miniray.put(np.zeros(size, np.uint8))).ctypes.data % 64 == 0


# ---- the end of objects ----


def test_memory_is_free_again_when_refs_and_views_are_gone(session):
    def empty():
        gc.collect()
        return in_use() < 32 * MEGABYTE

    for _ in range(5):
        put = miniray.put(np.zeros(60 * MEGABYTE, np.uint8))
        made = make.remote(60 * MEGABYTE, 1)
        miniray.get([facts.remote(put), facts.remote(made)])
        assert store_bytes() >= 120 * MEGABYTE
        del put, made
        wait_for(empty, 10, lambda: f"{in_use()} bytes of {store_files()}")


def test_the_memory_of_large_arguments_goes_with_the_call(session):
    def empty():
        gc.collect()
        return in_use() < 32 * MEGABYTE

    @miniray.remote(num_cpus=0)
    class Keeper:
        def __init__(self, array, refs=()):
            self.array, self.refs = array, refs

        def swap(self, array, refs=()):
            self.__init__(array, refs)
            return float(array[0])

        def sums(self):
            return float(self.array.sum()), [float(value.sum()) for value in miniray.get(list(self.refs))]

    array = np.ones(20 * MEGABYTE, np.uint8)
    keeper = Keeper.remote(np.zeros(40 * MEGABYTE, np.uint8))
    for _ in range(5):
        assert miniray.get(facts.remote(array))[0] == 20e6
        miniray.get(keeper.swap.remote(np.zeros(40 * MEGABYTE, np.uint8)))
    # What is kept of them stays: the memory, for as long as it is viewed, and the refs inside.
    miniray.get(keeper.swap.remote(array, [miniray.put(np.full(MEGABYTE, 2, np.uint8))]))
    for _ in range(5):
        assert miniray.get(facts.remote(np.zeros(20 * MEGABYTE, np.uint8)))[0] == 0
    assert miniray.get(keeper.sums.remote()) == (20e6, [2e6])
    assert miniray.get(keeper.swap.remote(np.zeros(1, np.uint8))) == 0
    wait_for(empty, 10, lambda: f"{in_use()} bytes of {store_files()}")


def test_an_array_outlives_its_ref_and_is_never_overwritten(session):
    arrays = [miniray.get(miniray.put(np.full(5 * MEGABYTE, value, np.uint8))) for value in range(8)]
    arrays += [miniray.get(make.remote(5 * MEGABYTE, value)) for value in range(8, 12)]
    gc.collect()
    for _ in range(20):
        miniray.put(np.full(5 * MEGABYTE, 255, np.uint8))
        miniray.get(make.remote(5 * MEGABYTE, 254))
    for value, array in enumerate(arrays):
        assert array.min() == array.max() == value


def test_a_task_that_keeps_an_array_keeps_what_is_in_it(session):
    @miniray.remote
    def keep(array):
        import builtins

        builtins.kept = array
        return os.getpid()

    @miniray.remote
    def check():
        import builtins

        kept = getattr(builtins, "kept", None)
        return None if kept is None else (int(kept.min()), int(kept.max()))

    miniray.get(keep.remote(miniray.put(np.full(5 * MEGABYTE, 7, np.uint8))))
    gc.collect()
    for _ in range(20):
        miniray.put(np.full(5 * MEGABYTE, 255, np.uint8))
    seen = {result for result in miniray.get([check.remote() for _ in range(20)]) if result is not None}
    assert seen <= {(7, 7)}


# ---- refs inside of things ----


def test_refs_inside_of_arguments_returns_and_puts_reach_through_several_processes(session):
    @miniray.remote
    def wrap(refs):
        return {"own": miniray.put(np.full(MEGABYTE, 5, np.uint8)), "given": refs}

    @miniray.remote
    def read(wrapped):
        inner = miniray.get(wrapped["inner"][0])
        return int(miniray.get(inner["own"])[0]), [int(miniray.get(ref)[0]) for ref in inner["given"]]

    given = [miniray.put(np.full(MEGABYTE, 1, np.uint8)), make.remote(MEGABYTE, 2)]
    outer = wrap.remote(given)
    del given
    gc.collect()
    boxed = miniray.put({"inner": [outer]})
    del outer
    gc.collect()
    for _ in range(3):
        assert miniray.get(read.remote(boxed), timeout=10) == (5, [1, 2])
    assert miniray.get(read.remote(miniray.get(boxed)), timeout=10) == (5, [1, 2])


def test_a_borrowed_ref_that_a_worker_keeps_is_alive_until_it_is_dropped(session):
    holder = Holder.options(num_cpus=0).remote()
    refs = [miniray.put(np.full(20 * MEGABYTE, 1, np.uint8)), make.remote(20 * MEGABYTE, 2)]
    miniray.get(holder.keep.remote(refs))
    del refs
    gc.collect()
    for _ in range(10):
        miniray.get(same.remote(miniray.put(np.zeros(20 * MEGABYTE, np.uint8))))
    assert miniray.get(holder.read.remote(), timeout=10) == [20e6, 40e6]
    miniray.get(holder.drop.remote())
    wait_for(lambda: in_use() < 32 * MEGABYTE, 10, lambda: f"{in_use()} bytes of {store_files()}")


def test_an_actor_keeps_the_refs_and_handles_of_its_constructor_when_its_creator_drops_them(session):
    @miniray.remote(num_cpus=0)
    class Held:
        def answer(self):
            return 1

    @miniray.remote(num_cpus=0)
    class Holds:
        def __init__(self, inside):
            self.inside = inside

        def answers(self):
            handle, ref = self.inside
            return [miniray.get(handle.answer.remote()), miniray.get(ref)]

    for number in range(5):
        holder = Holds.remote([Held.remote(), miniray.put(number)])
        gc.collect()
        assert miniray.get(holder.answers.remote()) == [1, number]


def test_a_ref_whose_only_copy_is_in_a_put_object_lives_as_long_as_that(session):
    boxed = miniray.put([miniray.put(np.full(MEGABYTE, 9, np.uint8))])
    gc.collect()
    for _ in range(5):
        miniray.put(np.zeros(MEGABYTE, np.uint8))
    (inner,) = miniray.get(boxed)
    del boxed
    gc.collect()
    assert miniray.get(inner, timeout=10)[0] == 9


# ---- the death of owners ----


@pytest.mark.fault
@pytest.mark.parametrize("size", [10, 5 * MEGABYTE], ids=["small", "large"])
def test_an_object_whose_owner_died_is_an_error(session, tmp_path, size):
    @miniray.remote(max_retries=0)
    def put_and_die(path):
        ref = miniray.put(np.zeros(size, np.uint8))
        note(path + "-pid", os.getpid())
        return [ref]

    path = str(tmp_path / "x")
    (ref,) = miniray.get(put_and_die.remote(path))
    pid = int(appended(path + "-pid")[0])
    os.kill(pid, 9)
    with pytest.raises(exceptions.OwnerDiedError):
        miniray.get(ref, timeout=10)
    assert miniray.wait([ref], timeout=10)[0] == [ref]
    with pytest.raises(exceptions.OwnerDiedError):
        miniray.get(same.remote(ref), timeout=10)


@pytest.mark.fault
def test_a_get_that_waits_when_the_owner_dies_ends_in_an_error(session, tmp_path):
    @miniray.remote
    def never(path):
        wait_for(lambda: os.path.exists(path), 60)

    @miniray.remote(max_retries=0)
    def hand_out(path):
        note(path + "-pid", os.getpid())
        return [never.options(num_cpus=0).remote(path)]

    path = str(tmp_path / "x")
    (ref,) = miniray.get(hand_out.remote(path))
    ready, _ = miniray.wait([ref], timeout=0.05)
    assert ready == []
    os.kill(int(appended(path + "-pid")[0]), 9)
    with pytest.raises(exceptions.OwnerDiedError):
        miniray.get(ref, timeout=10)


@pytest.mark.fault
def test_what_dead_workers_wrote_is_free_again(session):
    for _ in range(3):
        ref = make.remote(40 * MEGABYTE, 1)
        miniray.get(ref)
        pids = set(miniray.get([pid_of_worker.remote() for _ in range(20)]))
        for pid in pids:
            os.kill(pid, 9)
        assert miniray.get(ref, timeout=10)[0] == 1  # its segment belongs to the node
        del ref
        gc.collect()
    wait_for(lambda: in_use() < 32 * MEGABYTE, 10, lambda: f"{in_use()} bytes of {store_files()}")


@miniray.remote
def pid_of_worker():
    return os.getpid()


def test_small_shared_objects_of_dead_workers_are_freed_one_by_one_and_their_slab_with_the_last(session):
    @miniray.remote(max_retries=0, num_returns=11)
    def make_many():
        return [np.full(200_000, value, np.uint8) for value in range(10)] + [os.getpid()]

    *refs, pid = make_many.remote()
    os.kill(miniray.get(pid), 9)
    wait_for(lambda: not pid_exists(miniray.get(pid)))
    assert [miniray.get(ref)[-1] for ref in refs] == list(range(10))
    (slab,) = [path for path in store_files() if os.stat(path).st_size == SLAB_SIZE and not ends_with_writer(path)]
    del refs[:9]
    assert miniray.get(refs[0])[0] == 9
    assert os.path.exists(slab)
    del refs
    wait_for(lambda: not os.path.exists(slab), message=lambda: f"{slab} is still there")


def place(ref):
    return current.core_or_none().objects.entries[ref.binary()].payload.location


def kill_and_see_it_dead(pid):
    """Until the owner has told the head, too, what it had freed."""
    core = current.core_or_none()
    before = len(core.dead)
    os.kill(pid, 9)
    wait_for(lambda: len(core.dead) > before)
    miniray.nodes()  # the head has handled what came before


# With both CPUs, so that there is one worker after the other.
@miniray.remote(max_retries=0, num_returns=2, num_cpus=2)
def make_once(size, value):
    return bytes([value]) * size, os.getpid()


@miniray.remote(max_retries=0, num_returns=2, num_cpus=2)
def spill_here():
    return current.core_or_none().objects.memory.store.spill(), os.getpid()


def test_an_object_in_a_slot_that_was_used_before_outlives_its_worker(session):
    for _ in range(10):
        first, pid = make_once.remote(300_000, 1)
        miniray.wait([first])
        freed, before = place(first), miniray.get(pid)
        del first, pid
        second, pid = make_once.remote(300_000, 2)
        miniray.wait([second])
        if miniray.get(pid) == before and place(second) == freed:
            break
    else:
        pytest.fail("no slot was used again")
    kill_and_see_it_dead(before)
    assert miniray.get(second, timeout=10)[0] == 2


def test_an_object_as_large_as_a_slab_outlives_its_worker(session):
    data, pid = make_once.remote(SLAB_SIZE, 0)
    kill_and_see_it_dead(miniray.get(pid))
    assert miniray.get(data, timeout=10) == bytes(SLAB_SIZE)


def test_small_objects_that_were_moved_to_disk_outlive_their_worker(session):
    for _ in range(10):
        data, pid = make_once.remote(300_000, 3)
        miniray.wait([data])
        spilled, spiller = miniray.get(list(spill_here.remote()))
        if spiller == miniray.get(pid):
            break
    assert spilled >= 300_000
    kill_and_see_it_dead(spiller)
    assert miniray.get(data, timeout=10)[0] == 3


@miniray.remote(num_cpus=0)
class Maker:
    """Makes objects for others, and keeps refs of others."""

    def pid(self):
        return os.getpid()

    def make(self, size):
        return bytes(size)

    def put(self, wait_for_file=""):
        if wait_for_file:
            wait_for(lambda: os.path.exists(wait_for_file), timeout=20)
        return [miniray.put(b"mine")]

    def keep(self, refs):
        self.refs = refs

    def pins(self):
        return len(current.core_or_none().executor.runner._return_pins)


def test_what_is_freed_of_an_actor_that_does_not_read_it_any_more_is_free(session):
    maker = Maker.remote()
    pid = miniray.get(maker.pid.remote())
    refs = [maker.make.remote(300_000) for _ in range(3)]
    miniray.wait(refs, num_returns=3)
    (slab,) = {os.path.join(current.core_or_none().store_dir, place(ref).segment) for ref in refs}
    os.kill(pid, signal.SIGSTOP)
    del refs
    gc.collect()
    miniray.get(same.remote(1))  # what was freed is on its way
    assert os.path.exists(slab)
    miniray.kill(maker)
    wait_for(lambda: not os.path.exists(slab), message=lambda: f"{slab} is still there")


def test_an_actor_that_dies_before_it_has_registered_what_it_kept_keeps_nothing(session):
    owner, keeper = Maker.remote(), Maker.remote()
    owner_pid = miniray.get(owner.pid.remote())
    (ref,) = miniray.get(owner.put.remote())
    assert miniray.get(ref) == b"mine"
    os.kill(owner_pid, signal.SIGSTOP)  # it does not confirm the registration
    try:
        miniray.get(keeper.keep.remote([ref]))
        kept = current.core_or_none().arguments.kept
        assert kept
        miniray.kill(keeper)
        wait_for(lambda: not kept, message=lambda: f"{kept}")
    finally:
        os.kill(owner_pid, signal.SIGCONT)


def test_refs_that_an_actor_has_returned_to_a_dead_caller_are_not_pinned(session, tmp_path):
    @miniray.remote(max_retries=0)
    def call_and_die(maker, path):
        maker.put.remote(path)
        miniray.get(maker.pid.remote())  # the call before it has begun
        open(path, "w").close()
        os._exit(1)

    maker = Maker.options(max_concurrency=2).remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        miniray.get(call_and_die.remote(maker, str(tmp_path / "dead")))
    wait_for(lambda: miniray.get(maker.pins.remote()) == 0)


def test_of_a_generator_that_does_not_end_only_items_that_are_held_are_remembered(session):
    @miniray.remote
    def endless():
        while True:
            yield bytes(200_000)

    items = endless.options(_generator_backpressure_num_objects=4).remote()
    held = [next(items) for _ in range(30)][::10]
    gc.collect()
    miniray.get(same.remote(1))
    (made,) = current.core_or_none().objects.recovery.items.values()
    wait_for(lambda: len(made) <= len(held) + 4, message=lambda: f"{len(made)} items")
    miniray.cancel(items)


def test_refs_in_items_of_a_generator_are_alive_whoever_owns_them(session):
    @miniray.remote
    def pass_on(maker):
        yield miniray.get(maker.put.remote())

    for _ in range(15):
        maker = Maker.remote()  # its process has not heard of this one yet
        (item,) = [miniray.get(item) for item in pass_on.remote(maker)]
        assert miniray.get(item[0], timeout=10) == b"mine"
        miniray.kill(maker)


def test_a_generator_that_was_cancelled_pins_nothing(session):
    @miniray.remote
    def yield_and_sleep():
        yield [miniray.put(b"mine")], os.getpid()
        time.sleep(60)

    @miniray.remote(num_cpus=2)
    def pins():
        return len(current.core_or_none().executor.runner._return_pins), os.getpid()

    items = yield_and_sleep.remote()
    _, pid = miniray.get(next(items))
    miniray.cancel(items)
    with pytest.raises(exceptions.TaskCancelledError):
        miniray.get(next(items))
    del _
    wait_for(lambda: miniray.get(pins.remote()) == (0, pid))


def test_what_a_dead_actor_has_put_goes_with_it(session):
    @miniray.remote
    class Putter:
        def put(self):
            self.refs = [miniray.put(np.ones(size, np.uint8)) for size in (5 * MEGABYTE, 300_000)]

    putter = Putter.remote()
    miniray.get(putter.put.remote())
    before = in_use()
    miniray.kill(putter)
    wait_for(lambda: in_use() <= before - 6 * MEGABYTE, message=lambda: f"{in_use()} of {before}")


def test_memory_that_nobody_uses_goes_back_to_the_system(session, monkeypatch):
    monkeypatch.setattr(memory_quota, "IDLE_AFTER", 0.05)
    refs = [miniray.put(np.ones(20 * MEGABYTE, np.uint8)) for _ in range(3)]
    del refs
    store = current.core_or_none().objects.memory.store
    wait_for(lambda: store.used + store.pooled == 0, message=lambda: f"{store.used} used, {store.pooled} warm")
