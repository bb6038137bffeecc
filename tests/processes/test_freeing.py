"""`free`: memory that is given back though there are refs, and what those who hold them get."""

import os

import numpy as np
import pytest

import miniray
from miniray import exceptions
from miniray._private.internal_api import free, get_local_ongoing_lineage_reconstruction_tasks, global_gc
from miniray.processes import current
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)

LARGE = 400_000  # elements of 8 bytes: a segment of its own
MEDIUM = 50_000  # a part of a slab


@miniray.remote
class Holder:
    def keep(self, refs):
        self.refs = refs

    def first(self):
        return miniray.get(self.refs[0])[0]

    def free(self):
        free(self.refs)

    def make_garbage(self, path):
        class Node:
            def __del__(self):
                with open(path, "w"):
                    pass

        node = Node()
        node.itself = node


@miniray.remote
def make(size):
    return np.ones(size)


@miniray.remote
def first(array):
    return array[0]


def test_what_is_not_ready_stays_as_it_is_also_when_a_borrower_wants_it_freed(session, tmp_path):
    @miniray.remote(num_cpus=0)
    def make_when(path):
        wait_for(lambda: os.path.exists(path), timeout=30)
        return [5]

    ref = make_when.remote(str(tmp_path / "now"))
    holder = Holder.options(num_cpus=0).remote()
    miniray.get(holder.keep.remote([ref]))
    miniray.get(holder.free.remote())
    (tmp_path / "now").touch()
    assert miniray.get(holder.first.remote(), timeout=20) == 5
    assert miniray.get(ref, timeout=20) == [5]


@pytest.mark.parametrize("size", [2, MEDIUM, LARGE], ids=["inline", "in a slab", "in a segment"])
@pytest.mark.parametrize("how", ["put", "returned"])
def test_get_of_a_freed_object_raises(session, size, how):
    ref = miniray.put(np.ones(size)) if how == "put" else make.remote(size)
    miniray.wait([ref])
    free(ref)
    for _ in range(2):
        with pytest.raises(exceptions.ObjectFreedError, match="manually freed"):
            miniray.get(ref, timeout=5)
    with pytest.raises(exceptions.ObjectFreedError):
        miniray.get(first.remote(ref), timeout=5)
    assert miniray.wait([ref], timeout=0) == ([ref], [])


def test_the_memory_goes_at_once_and_views_stay(session):
    store = current.core_or_none().objects.memory.store
    ref = miniray.put(np.ones(LARGE))
    view = miniray.get(ref)
    in_use = store.used
    free([ref])
    assert view.sum() == LARGE
    del view

    def is_less():
        store.collect()
        return store.used <= in_use - 8 * LARGE

    wait_for(is_less)


@pytest.mark.parametrize("size", [2, MEDIUM, LARGE])
def test_borrowers_are_told(session, size):
    holder = Holder.remote()
    ref = miniray.put(np.ones(size))
    miniray.get(holder.keep.remote([ref]))
    assert miniray.get(holder.first.remote()) == 1
    free(ref)
    with pytest.raises(exceptions.ObjectFreedError):
        miniray.get(holder.first.remote(), timeout=5)


def test_a_borrower_frees_for_all(session):
    holder = Holder.remote()
    ref = miniray.put(np.ones(LARGE))
    miniray.get(holder.keep.remote([ref]))
    miniray.get(holder.free.remote())

    def is_freed():
        try:
            miniray.get(ref)
        except exceptions.ObjectFreedError:
            return True
        return False

    wait_for(is_freed)


def test_only_what_is_here_is_forgotten_locally(session):
    @miniray.remote
    class Owner:
        def lend(self):
            self.ref = miniray.put(np.ones(LARGE))
            return [self.ref]

    owner = Owner.remote()
    (ref,) = miniray.get(owner.lend.remote())
    assert miniray.get(ref)[0] == 1
    free(ref, local_only=True)
    assert miniray.get(ref)[0] == 1


def test_what_is_not_ready_stays_as_it_is(session):
    ref = first.remote(make.remote(2))
    free([ref])
    wait_for(lambda: miniray.wait([ref], timeout=0)[0])


def test_free_wants_refs():
    with pytest.raises(TypeError, match="expects a list"):
        free("no")
    with pytest.raises(TypeError, match="not an ray.ObjectRef"):
        free([1])


def test_garbage_is_collected_in_all_processes(session, tmp_path):
    holder = Holder.remote()
    path = tmp_path / "collected"
    miniray.get(holder.make_garbage.remote(str(path)))
    global_gc()
    wait_for(path.exists)


def test_nothing_is_made_again_when_nothing_was_lost(session):
    assert get_local_ongoing_lineage_reconstruction_tasks() == []
