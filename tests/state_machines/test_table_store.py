"""Tables: rows, namespaces, prefixes, and the two effects of every write."""

from miniray.state_machines.table_prefix import PUBLISHED_ON, TablePrefix, TablePubsub
from miniray.state_machines.table_store import Persist, Publish, RowAppeared, TableStore

KV, ACTOR = TablePrefix.KV, TablePrefix.ACTOR


def test_numbers_are_those_of_ray():
    assert (TablePrefix.TASK, TablePrefix.WORKERS, TablePrefix.PLACEMENT_GROUP, TablePrefix.KV) == (2, 15, 17, 18)
    assert (TablePubsub.NO_PUBLISH, TablePubsub.ACTOR_PUBSUB, TablePubsub.WORKER_FAILURE_PUBSUB) == (1, 6, 12)


def test_a_write_is_published_and_offered_to_the_durable_path():
    store = TableStore()
    is_new, effects = store.put(ACTOR, b"a", b"1")
    assert is_new
    assert effects == [Publish(PUBLISHED_ON[ACTOR], b"a", b"1"), Persist(1, ACTOR, b"", b"a", b"1")]


def test_a_silent_write_is_persisted_only():
    store = TableStore()
    assert store.put(ACTOR, b"a", b"1", publish=False)[1] == [Persist(1, ACTOR, b"", b"a", b"1")]


def test_without_overwrite_the_first_row_stays():
    store = TableStore()
    store.put(KV, b"k", b"1")
    assert store.put(KV, b"k", b"2", overwrite=False) == (False, [])
    assert store.get(KV, b"k") == b"1"


def test_namespaces_keep_equal_keys_apart():
    store = TableStore()
    store.put(KV, b"k", b"1", namespace=b"a")
    assert store.get(KV, b"k", namespace=b"b") is None


def test_rows_are_found_and_deleted_by_prefix():
    store = TableStore()
    for key in (b"a1", b"a2", b"b1"):
        store.put(KV, key, b"")
    assert [key for key, _ in store.scan(KV, b"a")] == [b"a1", b"a2"]
    assert len(store.scan(KV, limit=1)) == 1
    deleted, effects = store.delete(KV, b"a", by_prefix=True)
    assert deleted == 2
    assert [effect.value for effect in effects] == [None, None]
    assert store.delete(KV, b"a1")[0] == 0


def test_a_reader_that_waits_is_answered_when_the_row_appears():
    store = TableStore()
    assert store.wait(KV, b"k", "reader") is None
    assert RowAppeared("reader", b"1") in store.put(KV, b"k", b"1")[1]
    assert store.put(KV, b"k", b"2")[1] == [Persist(2, KV, b"", b"k", b"2")]
    assert store.wait(KV, b"k", "reader") == b"2"


def test_a_reader_that_is_gone_is_not_answered():
    store = TableStore()
    store.wait(KV, b"k", "gone")
    store.stop_waiting(lambda token: token == "gone")
    assert store.put(KV, b"k", b"1")[1] == [Persist(1, KV, b"", b"k", b"1")]
