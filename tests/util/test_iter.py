"""Parallel iterators; what they show and give is held to Ray's in tests/differential."""

import threading

import pytest

import miniray
from miniray.util import iter as parallel
from miniray.util.iter_metrics import MetricsContext, SharedMetrics


@pytest.fixture(scope="module", autouse=True)
def session():
    with miniray.init("local", num_cpus=4, log_to_driver=False):
        yield


def test_concurrent_tasks_of_a_shard_give_all_results():
    shards = parallel.from_range(6, 2).for_each(lambda x: x * 2, max_concurrency=2)
    assert sorted(shards.gather_async(num_async=2)) == [0, 2, 4, 6, 8, 10]
    assert sorted(parallel.from_range(4, 1).gather_sync().for_each(abs_of, max_concurrency=3)) == [0, 1, 2, 3]


def abs_of(x):
    return abs(x)


def test_items_travel_in_batches():
    assert sorted(parallel.from_range(20, 2).gather_async(batch_ms=5)) == list(range(20))
    assert list(parallel.from_range(20, 1).get_shard(0, batch_ms=5, num_async=3)) == list(range(20))


def test_an_iterator_can_be_sent_before_it_is_read():
    total = miniray.remote(lambda shard: sum(shard))
    shards = parallel.from_range(10, 2).shards()
    assert sum(miniray.get([total.remote(shard) for shard in shards])) == 45


def test_the_actor_of_an_item_is_known_when_items_come_as_they_are_ready():
    local = parallel.from_range(4, 2).gather_async().zip_with_source_actor()
    pairs = list(local)
    assert sorted(item for _, item in pairs) == [0, 1, 2, 3] and len({str(actor) for actor, _ in pairs}) == 2


def test_an_error_of_a_function_reaches_the_reader():
    shards = parallel.from_items([1, 0], num_shards=1).for_each(lambda x: 1 // x)
    local = shards.gather_sync()
    assert next(local) == 1
    with pytest.raises(ZeroDivisionError):
        next(local)


@pytest.mark.parametrize("wrong", [{"batch_ms": -1}, {"num_async": 0}])
def test_wrong_fetching_is_refused(wrong):
    shards = parallel.from_range(2, 1)
    for call in (shards.gather_async, lambda **given: shards.get_shard(0, **given)):
        with pytest.raises(ValueError, match="must be positive"):
            call(**wrong)


def test_joined_iterators_count_together():
    metrics = [SharedMetrics(), SharedMetrics()]
    joined = SharedMetrics(parents=metrics)
    metrics[0].get().counters["seen"] += 1
    assert joined.get().counters["seen"] == 1 and metrics[1].get() is joined.get()
    restored = MetricsContext()
    restored.restore(joined.get().save())
    assert restored.counters == {"seen": 1}


def test_metrics_belong_to_the_thread_that_reads():
    seen = []
    local = parallel.LocalIterator(lambda timeout: iter([1]), SharedMetrics(), name="numbers").for_each(
        lambda x: seen.append(parallel.LocalIterator.get_metrics())
    )
    thread = threading.Thread(target=lambda: list(local))
    thread.start()
    thread.join()
    assert seen == [local.shared_metrics.get()]
