"""Lost objects, on virtual nodes: what is made again, how often, and what cannot be."""

import gc
import os
import uuid
from pathlib import Path

import numpy as np
import pytest

import miniray
from miniray import exceptions
from miniray.cluster_utils import Cluster
from miniray.processes import current
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

ELEMENTS = 50_000  # of 8 bytes: too large to travel inside a message
REASONS = exceptions.ErrorType


class Nodes:
    """A cluster: a head that runs `here`, and one other node at a time, which runs `there` and can be replaced."""

    def __init__(self, folder):
        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"here": 10}})
        miniray.init(address=self.cluster.address, log_to_driver=False)
        self.node = None
        self.replace()

    def replace(self):
        """The node dies, and there is a new one."""
        if self.node is not None:
            self.cluster.remove_node(self.node, allow_graceful=False)
            gone = bytes.fromhex(self.node.node_id)
            wait_for(lambda: gone in current.core_or_none().objects.recovery.dead_nodes)
        self.node = self.cluster.add_node(num_cpus=4, resources={"there": 4})

    def note(self):
        return Runs(self.folder / uuid.uuid4().hex)

    def close(self):
        miniray.shutdown()
        self.cluster.shutdown()


class Runs:
    """Counts how often something has run: each run leaves a file."""

    def __init__(self, folder):
        self.folder = folder
        Path(folder).mkdir()

    def add(self):
        (self.folder / uuid.uuid4().hex).touch()

    def __len__(self):
        return len(os.listdir(self.folder))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("runs"))
    yield nodes
    nodes.close()


def there(**options):
    return {"num_cpus": 0, "resources": {"there": 0.1}, **options}


@miniray.remote(**there())
def make(runs, value=1, elements=ELEMENTS):
    runs.add()
    return np.full(elements, value)


@miniray.remote(**there())
def twice(runs, array):
    runs.add()
    return array * 2


@miniray.remote(**there())
def twice_nested(runs, refs):
    runs.add()
    return miniray.get(refs[0]) * 2


@miniray.remote(num_cpus=0, resources={"here": 0.1})
def first(array):
    return int(array[0])


@miniray.remote(num_cpus=0, resources={"here": 0.1})
class Borrower:
    def keep(self, refs):
        self.refs = refs

    def first(self):
        return int(miniray.get(self.refs[0])[0])


def made(*refs):
    ready, rest = miniray.wait(list(refs), num_returns=len(refs), timeout=30)
    assert not rest


def records():
    return current.core_or_none().objects.counter.lineage.records


@pytest.fixture(autouse=True)
def nothing_is_remembered_afterwards(nodes):
    yield
    gc.collect()  # the tracebacks of expected errors hold refs
    wait_for(lambda: not records(), message=lambda: f"{len(records())} records")


def reason_of(failure):
    error = failure.value.cause if isinstance(failure.value, exceptions.RayTaskError) else failure.value
    return error.reason


# ---- what is made again ----


def test_a_lost_return_is_made_again_for_the_driver_and_for_tasks(nodes):
    runs = nodes.note()
    ref, other = make.remote(runs, 3), make.remote(runs, 4)
    made(ref, other)
    nodes.replace()
    assert miniray.get(ref)[0] == 3
    assert miniray.get(first.remote(other)) == 4
    assert len(runs) == 4


def test_nobody_has_to_ask_for_it(nodes):
    runs = nodes.note()
    ref = make.remote(runs)
    made(ref)
    nodes.replace()
    wait_for(lambda: len(runs) == 2)
    made(ref)


def test_a_chain_is_repeated_from_its_beginning_though_only_its_end_is_held(nodes):
    runs = nodes.note()
    ref = make.remote(runs)
    for _ in range(4):
        ref = twice.remote(runs, ref)
    made(ref)
    nodes.replace()
    assert miniray.get(ref)[0] == 16
    assert len(runs) == 10


def test_nested_arguments_are_made_again_too(nodes):
    runs = nodes.note()
    ref = twice_nested.remote(runs, [make.remote(runs, 5)])
    made(ref)
    nodes.replace()
    assert miniray.get(ref)[0] == 10
    assert len(runs) == 4


def test_small_arguments_need_no_owner_to_remember_them(nodes):
    runs = nodes.note()

    @miniray.remote(**there())
    def add(array, number, *, other):
        return array + number + other[0]

    number, other = miniray.put(10), miniray.put([20])
    ref = add.remote(make.remote(runs), number, other=other)
    made(ref)
    del number, other
    nodes.replace()
    assert miniray.get(ref)[0] == 31


def test_all_returns_of_a_task_come_back_with_one_run(nodes):
    runs = nodes.note()

    @miniray.remote(**there(num_returns=3))
    def several():
        runs.add()
        return np.zeros(ELEMENTS), 1, np.full(ELEMENTS, 2)

    refs = several.remote()
    made(*refs)
    nodes.replace()
    array, small, last = miniray.get(refs)
    assert (array[0], small, last[0]) == (0, 1, 2)
    assert len(runs) == 2


@pytest.mark.parametrize("kind", ["streaming", "dynamic"])
def test_items_of_a_generator_come_back(nodes, kind):
    runs = nodes.note()

    @miniray.remote(**there(num_returns=kind))
    def count():
        runs.add()
        for number in range(3):
            yield np.full(ELEMENTS, number)

    found = count.remote()
    refs = list(found if kind == "streaming" else miniray.get(found))
    del found
    made(*refs)
    nodes.replace()
    assert [int(array[0]) for array in miniray.get(refs)] == [0, 1, 2]
    assert len(runs) == 2


def test_a_borrower_waits_until_the_owner_has_made_it_again(nodes):
    runs = nodes.note()
    borrower = Borrower.remote()
    ref = make.remote(runs, 6)
    miniray.get(borrower.keep.remote([ref]))
    assert miniray.get(borrower.first.remote()) == 6
    nodes.replace()
    assert miniray.get(borrower.first.remote()) == 6
    assert len(runs) == 2
    miniray.kill(borrower)


def test_an_object_that_a_task_owns_comes_back_for_whom_it_lent_it_to(nodes):
    runs = nodes.note()

    @miniray.remote(num_cpus=0, resources={"here": 0.1})
    class Owner:
        def lend(self):
            self.ref = make.remote(runs, 7)
            made(self.ref)
            return [self.ref]

    owner = Owner.remote()
    (ref,) = miniray.get(owner.lend.remote())
    assert miniray.get(ref)[0] == 7
    nodes.replace()
    assert miniray.get(ref)[0] == 7
    assert len(runs) == 2
    miniray.kill(owner)


def test_a_segment_that_vanished_is_found_out_by_the_one_who_reads_it(nodes):
    runs = nodes.note()
    core = current.core_or_none()
    borrower = Borrower.remote()
    refs = [make.remote(runs, value, 200_000) for value in (1, 2, 3)]  # each has a segment of its own
    made(*refs)
    miniray.get(borrower.keep.remote([refs[2]]))

    for segment in {ref._entry.payload.location.segment for ref in refs}:
        os.unlink(os.path.join(core.store_dir, segment))
    assert miniray.get(refs[0])[0] == 1
    assert miniray.get(first.remote(refs[1])) == 2
    assert miniray.get(borrower.first.remote()) == 3
    assert len(runs) == 6
    miniray.kill(borrower)


def test_what_an_actor_returned_comes_back_when_its_calls_may_be_repeated(nodes):
    runs = nodes.note()

    @miniray.remote(**there(max_restarts=-1, max_task_retries=-1))
    class Counter:
        number = 0

        def make(self):
            runs.add()
            self.number += 1
            return np.full(ELEMENTS, self.number)

    counter = Counter.remote()
    ref = counter.make.remote()
    made(ref)
    nodes.replace()
    assert miniray.get(ref)[0] == 1
    assert len(runs) == 2
    miniray.kill(counter)


def test_a_reply_that_comes_after_the_news_of_its_node_counts_as_lost(nodes):
    runs = nodes.note()
    core = current.core_or_none()
    argument = make.remote(runs)
    made(argument)
    node_id = bytes.fromhex(nodes.node.node_id)
    core.objects.recovery.dead_nodes.add(node_id)  # as if its replies were late, each time
    try:
        with pytest.raises(exceptions.ObjectReconstructionFailedError, match="retries has been exceeded"):
            miniray.get(twice.options(max_retries=1).remote(runs, argument))
    finally:
        core.objects.recovery.dead_nodes.discard(node_id)
    assert len(runs) == 3, "each run had its argument"
    wait_for(lambda: argument._entry.submitted == 0)


def test_a_future_waits_for_what_was_lost(nodes):
    runs = nodes.note()
    ref = make.remote(runs, 8)
    made(ref)
    nodes.replace()
    assert ref.future().result(timeout=30)[0] == 8


# ---- what cannot be ----


def test_a_task_without_retries_is_not_repeated(nodes):
    runs = nodes.note()
    ref = make.options(max_retries=0).remote(runs)
    made(ref)
    nodes.replace()
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="max_retries=0") as failure:
        miniray.get(ref)
    assert reason_of(failure) == REASONS.OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="input arguments") as failure:
        miniray.get(first.remote(ref))
    assert miniray.wait([ref], timeout=0) == ([ref], [])
    assert len(runs) == 1


def test_each_loss_costs_a_retry(nodes):
    runs = nodes.note()
    ref = make.options(max_retries=1).remote(runs)
    made(ref)
    nodes.replace()
    made(ref)
    assert miniray.get(ref)[0] == 1
    nodes.replace()
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="retries has been exceeded") as failure:
        miniray.get(ref)
    assert reason_of(failure) == REASONS.OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED
    assert len(runs) == 2


def test_lineage_is_bounded(nodes):
    lineage = current.core_or_none().objects.counter.lineage
    runs = nodes.note()
    limit, lineage.limit = lineage.limit, 3 * 1000
    try:
        refs = []
        for value in range(3):
            refs.append(make.remote(runs, value))
            made(refs[-1])
        nodes.replace()
        with pytest.raises(exceptions.ObjectReconstructionFailedError, match="RAY_max_lineage_bytes") as failure:
            miniray.get(refs[0])
        assert reason_of(failure) == REASONS.OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED
        assert miniray.get(refs[2])[0] == 2
    finally:
        lineage.limit = limit


def test_what_was_put_on_the_node_is_lost_with_its_owner(nodes):
    @miniray.remote(**there())
    def put():
        return [miniray.put(np.ones(ELEMENTS))]

    (ref,) = miniray.get(put.remote())
    nodes.replace()
    with pytest.raises(exceptions.OwnerDiedError):
        miniray.get(ref)


def test_an_actor_without_retries_does_not_repeat_a_call(nodes):
    @miniray.remote(**there(max_restarts=-1))
    class Maker:
        def make(self):
            return np.ones(ELEMENTS)

    maker = Maker.remote()
    ref = maker.make.remote()
    made(ref)
    nodes.replace()
    with pytest.raises(exceptions.ObjectReconstructionFailedError) as failure:
        miniray.get(ref)
    assert reason_of(failure) == REASONS.OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED
    miniray.kill(maker)


def test_a_repeated_task_that_fails_says_so(nodes):
    runs = nodes.note()

    @miniray.remote(**there())
    def once():
        runs.add()
        if len(runs) > 1:
            raise ValueError("not again")
        return np.ones(ELEMENTS)

    ref = once.remote()
    made(ref)
    nodes.replace()
    with pytest.raises(ValueError, match="not again"):
        miniray.get(ref)


def test_the_memory_of_a_node_is_gone_with_it(nodes):
    core = current.core_or_none()
    ref = make.options(max_retries=0).remote(nodes.note())
    made(ref)
    path = os.path.join(core.store_dir, ref._entry.payload.location.segment)
    assert os.path.exists(path)
    nodes.replace()
    wait_for(lambda: not os.path.exists(path))
