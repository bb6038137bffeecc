"""Change feeds of a real head, and answers that wait for the journal."""

import threading
from types import SimpleNamespace

import pytest

import miniray
from miniray.experimental import internal_kv as kv
from miniray.messages import control
from miniray.processes import current
from miniray.processes.head_durable import Durable
from miniray.state_machines.table_prefix import TablePrefix
from miniray.state_machines.table_store import TableStore
from miniray.system import journal
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)
KV = TablePrefix.KV


@pytest.fixture(scope="module")
def core():
    miniray.init(num_cpus=1)
    yield current.core_or_none()
    miniray.shutdown()


def take(watch, count):
    changes = []
    while len(changes) < count:
        batch = watch.take(20)
        assert batch, f"only {len(changes)} of {count} changes came"
        changes += batch
        watch.done()
    assert watch.take(0) == []
    return changes


def test_a_watch_sees_what_is_written_after_it_began(core):
    kv._internal_kv_put(b"before", b"")
    watch = core.head_client.watch(KV, prefix=b"w")
    for number in range(1200):
        core.post_to_head(control.TablePut(0, KV, b"w%d" % number, b""))
    kv._internal_kv_del(b"w7")
    changes = take(watch, 1201)
    assert [change.key for change in changes] == [b"w%d" % number for number in range(1200)] + [b"w7"]
    assert (changes[-1].value, watch.dropped) == (None, 0)
    watch.close()


def test_a_watch_begins_at_any_change_of_the_past(core):
    first = core.head_client.watch(KV, prefix=b"x")
    for number in range(5):
        kv._internal_kv_put(b"x%d" % number, b"")
    changes = take(first, 5)
    first.close()
    later = core.head_client.watch(KV, prefix=b"x", since=changes[1].sequence)
    assert take(later, 3) == changes[2:]
    later.close()


def test_a_durable_consumer_goes_on_where_it_was(core):
    mine = core.head_client.watch(KV, consumer="mine", durable=True, prefix=b"d")
    for number in range(4):
        kv._internal_kv_put(b"d%d" % number, b"")
    got = []
    while len(got) < 4:
        got += mine.take(20)
        mine.done(got[1].sequence if len(got) > 1 else got[0].sequence)
    mine.close()
    kv._internal_kv_put(b"d4", b"")
    again = core.head_client.watch(KV, consumer="mine", durable=True, prefix=b"d")
    assert [change.key for change in take(again, 3)] == [b"d2", b"d3", b"d4"]
    again.close()


def test_nobody_is_told_of_the_cursors_of_others(core):
    kv._internal_kv_put(b"c0", b"")
    mine = core.head_client.watch(KV, consumer="other", durable=True, prefix=b"c")
    began = mine.position
    kv._internal_kv_put(b"c1", b"")
    take(mine, 1)
    mine.close()
    kv._internal_kv_put(b"c2", b"")
    later = core.head_client.watch(KV, since=began - 1)
    keys = []
    while b"c2" not in keys:
        keys += [change.key for change in later.take(20)]
        later.done()
    assert b"c1" in keys and b"other" not in keys
    later.close()


def test_a_write_can_wait_for_the_disk(core):
    put = control.TablePut(0, KV, b"sync", b"1", sync=True)
    assert core.head_client.request(lambda number: control.TablePut(number, *list_of(put)[1:])) is True


def list_of(message):
    return [getattr(message, name) for name in message.__struct_fields__]


def test_a_write_that_changes_nothing_can_wait_for_the_disk_too(core):
    kv._internal_kv_put(b"there", b"1")
    put = control.TablePut(0, KV, b"there", b"2", overwrite=False, sync=True)
    assert core.head_client.request(lambda number: control.TablePut(number, *list_of(put)[1:])) is False


def test_settings_that_mean_nothing_are_refused(core):
    with pytest.raises(ValueError, match="unknown policy 'all'"):
        core.head_client.watch(KV, policy="all")
    with pytest.raises(ValueError, match="needs a name"):
        core.head_client.watch(KV, durable=True)


def test_a_subscriber_hears_of_actors_at_once_and_in_order(core):
    heard = []
    core.head_client.subscribe(control_channel(), None, lambda event: heard.append(event.sequence))

    @miniray.remote(num_cpus=0)
    class Actor:
        def ping(self):
            return 1

    actor = Actor.remote()
    miniray.get(actor.ping.remote())
    rows = core.head_client.request(lambda number: control.Query(number, "publisher", {}))
    assert rows[core.worker_id.hex()]["dropped"] == 0
    assert heard == sorted(set(heard))
    assert len(heard) >= 2


def control_channel():
    from miniray.state_machines.table_prefix import TablePubsub

    return TablePubsub.ACTOR_PUBSUB


def test_an_actor_knows_where_each_of_its_callers_is(core):
    @miniray.remote(num_cpus=0)
    class Actor:
        def ping(self):
            return 1

    @miniray.remote(num_cpus=0)
    def call(actor):
        return miniray.get([actor.ping.remote() for _ in range(3)])

    actor = Actor.remote()
    for _ in range(5):
        miniray.get(actor.ping.remote())
    miniray.get(call.remote(actor))
    answer = core.head_client.request(lambda number: control.Query(number, "actor_reports", {}))
    rows = [row for _, reported, _ in answer["reports"] for row in reported if "clients" in row]
    (clients,) = [row["clients"] for row in rows if row["actor_id"] == actor._actor_id.hex()]
    assert clients.pop(core.worker_id.hex()) == {"sequence_number": 5, "waiting": 0, "client_processed_up_to": 3}
    assert [position["sequence_number"] for position in clients.values()] == [3]


def test_heartbeats_and_overflows_are_events(core):
    import msgspec

    from miniray.state_machines.table_prefix import TablePubsub

    heard = []
    watch = core.head_client.watch(KV, consumer="tiny", limit=1, policy="drop_oldest", prefix=b"tiny")
    core.head_client.subscribe(
        TablePubsub.RESOURCE_USAGE_BATCH_PUBSUB,
        b"tiny",
        lambda event: heard.append(msgspec.msgpack.decode(event.value)),
    )
    kv._internal_kv_put(b"tiny", b"1")
    assert len(watch.take(20)) == 1  # and it does not say that it is done
    for number in range(4):
        kv._internal_kv_put(b"tiny", b"%d" % number)
    assert kinds(heard, "overflow", 1)[0]["consumer"] == "tiny"
    wait_for(lambda: kinds(heard, "heartbeat", 1)[-1]["dropped_events"] == 3)
    assert kinds(heard, "heartbeat", 1)[-1]["total_events"] == 5
    watch.close()


def kinds(heard, kind, least):
    wait_for(lambda: len([event for event in heard if event["kind"] == kind]) >= least)
    return [event for event in heard if event["kind"] == kind]


def test_the_first_write_that_waits_for_the_disk_is_answered_after_it_was_written(tmp_path, monkeypatch):
    tables = TableStore()
    tables.put(KV, b"row", b"")
    answered, go_on = [], threading.Event()
    head = SimpleNamespace(
        config=SimpleNamespace(session_dir=str(tmp_path), storage=""),
        gcs=SimpleNamespace(tables=tables, jobs={}),
        now=0.0,
        wake=lambda: None,
        answer=lambda *answer: answered.append(answer),
    )
    append = journal.JournalFile.append

    def slow(file, records, sync):
        assert go_on.wait(20)
        append(file, records, sync)

    monkeypatch.setattr(journal.JournalFile, "append", slow)
    durable = Durable(head)
    durable.reply(b"me", 1, True, sync=True)
    for _ in range(2):
        durable.turn()
    assert answered == []
    go_on.set()
    wait_for(lambda: durable.turn() or answered)
    assert durable.log.synced == tables.sequence
    durable.close(feed=False)
