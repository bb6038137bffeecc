"""The journal and its database: what was written is there again, whatever the disk did and whenever the writer died."""

import os
import pathlib
import shutil
import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniray.messages.durable import Change, Record
from miniray.system import durable_log, journal
from miniray.system.durable_log import DurableLog, load
from miniray.system.row_database import RowDatabase
from tests.waiting import wait_for

KV = 18


def put(sequence, key, value, **fields):
    return Record(sequence, KV, b"", key, value, **fields)


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "gcs")


@pytest.fixture
def log(directory):
    log = DurableLog(directory, 0, lambda: None)
    yield log
    log.close()


def read(log, after=0, limit=100):
    got = []
    log.read(after, KV, limit, lambda changes, through: got.append((changes, through)))
    return wait_for(lambda: got)[0]


def rows(directory):
    stored = load(directory)
    return {key: value for _, _, key, value in stored.rows}


def test_nothing_was_stored_where_nothing_is(directory):
    assert load(directory) is None


def test_what_counts_as_written_is_there_without_any_close(directory, log):
    log.append([put(1, b"a", b"1"), put(2, b"b", b"2"), put(3, b"a", None)])
    wait_for(lambda: log.written == 3)
    stored = load(directory)
    assert stored.rows == [(KV, b"", b"b", b"2")]
    assert stored.sequence == 3


def test_a_write_may_ask_for_the_disk(log):
    log.append([put(1, b"a", b"1")], sync=True)
    wait_for(lambda: log.synced == 1)


def test_the_disk_can_be_asked_for_what_was_written_before(directory, log):
    log.append([put(1, b"a", b"1")])
    wait_for(lambda: log.written == 1)
    assert log.synced == 0
    log.append([], sync=True)
    wait_for(lambda: log.synced == 1)


def test_what_an_earlier_process_wrote_is_on_the_disk_when_that_is_asked_for(directory, monkeypatch):
    os.makedirs(directory)
    file = journal.JournalFile(directory, 1)
    file.append([put(1, b"a", b"1")], False)
    file.close()
    synced = []
    monkeypatch.setattr(durable_log, "sync_file", synced.append)
    log = DurableLog(directory, 1, lambda: None)
    log.append([], sync=True)
    wait_for(lambda: log.synced == 1)
    assert synced == [file.path]
    log.close()


def test_rows_come_back_in_the_order_of_their_first_write(directory):
    log = DurableLog(directory, 0, lambda: None)
    log.append([put(1, b"b", b""), put(2, b"a", b""), put(3, b"b", b"again"), put(4, b"c", b"")])
    log.close()
    log = DurableLog(directory, 4, lambda: None)
    log.append([put(5, b"a", None), put(6, b"a", b"back"), put(7, b"c", b"new")])
    log.close()
    assert [(key, value) for _, _, key, value in load(directory).rows] == [
        (b"b", b"again"),
        (b"c", b"new"),
        (b"a", b"back"),
    ]


def test_answers_are_kept_with_the_write_that_they_tell_of(directory, log):
    log.append([put(1, b"a", b"1", sender=b"me", request_id=7, answer=True)])
    wait_for(lambda: log.written == 1)
    assert load(directory).answers == [(b"me", 7, True)]
    read(log)  # it is in the database now
    assert load(directory).answers == [(b"me", 7, True)]


def test_changes_are_read_from_any_position(log):
    log.append([put(number, b"k%d" % number, b"") for number in range(1, 8)] + [Record(8, 4, b"", b"node", b"")])
    changes, through = read(log, after=2, limit=3)
    assert ([change.sequence for change in changes], through) == ([3, 4, 5], 5)
    changes, through = read(log, after=5)
    assert (changes[-1], through) == (Change(7, KV, b"", b"k7", b""), 8)


def test_rows_that_were_there_before_are_no_changes(directory, log):
    log.append([put(5, b"old", b"", is_change=False), put(6, b"new", b"")])
    assert [change.key for change in read(log)[0]] == [b"new"]
    assert rows(directory) == {b"old": b"", b"new": b""}


def test_old_files_go_when_the_database_has_their_records(directory, log, monkeypatch):
    monkeypatch.setattr(durable_log, "FILE_SIZE", 10)
    for number in range(1, 5):
        log.append([put(number, b"k", b"%d" % number)])
        wait_for(lambda number=number: log.written == number)
    read(log)
    assert len(journal.journal_files(directory)) == 1
    assert rows(directory) == {b"k": b"4"}


def test_a_file_goes_only_when_the_database_is_on_the_disk(directory, log, monkeypatch, tmp_path):
    monkeypatch.setattr(durable_log, "FILE_SIZE", 10)
    for number in (1, 2):
        log.append([put(number, b"k%d" % number, b"")])
        wait_for(lambda number=number: log.written == number)
    read(log)
    wait_for(lambda: len(journal.journal_files(directory)) == 1)
    # SQLite brings its own log to the disk late. What is only there may be lost with the machine.
    shutil.copy(os.path.join(directory, "tables.sqlite"), tmp_path)
    database = RowDatabase(str(tmp_path))
    assert {key for _, _, key, _ in database.rows()} >= {b"k1"}
    database.close()


def test_a_file_that_somebody_else_removed_stops_nothing(directory, log, monkeypatch):
    monkeypatch.setattr(durable_log, "FILE_SIZE", 10)
    for number in (1, 2):
        log.append([put(number, b"k%d" % number, b"")])
        wait_for(lambda number=number: log.written == number)
    for _, path in journal.journal_files(directory):
        pathlib.Path(path).unlink(missing_ok=True)
    read(log)
    log.append([put(3, b"k3", b"")])
    wait_for(lambda: log.written == 3)


def test_a_session_that_ends_soon_needs_no_database(directory):
    log = DurableLog(directory, 0, lambda: None)
    log.append([put(1, b"a", b"1")])
    log.close(feed=False)
    assert not os.path.exists(os.path.join(directory, "tables.sqlite"))
    assert rows(directory) == {b"a": b"1"}


def test_a_frame_that_is_not_whole_ends_the_file(tmp_path):
    file = journal.JournalFile(str(tmp_path), 1)
    file.append([put(1, b"a", b"1"), put(2, b"b", b"2")], False)
    file.close()
    data = pathlib.Path(file.path).read_bytes()
    for end in range(len(data)):
        pathlib.Path(file.path).write_bytes(data[:end])
        assert [record.sequence for record in journal.read_journal(file.path)] == [1] * (end >= len(data) // 2)
    pathlib.Path(file.path).write_bytes(data[:-1] + b"\xff")
    assert len(list(journal.read_journal(file.path))) == 1


def test_a_full_disk_loses_nothing_and_says_so(directory, log, monkeypatch):
    log.append([put(1, b"a", b"1")])
    wait_for(lambda: log.written == 1)
    write, full = os.write, []

    def half(fd, data):
        if fd == log._file._fd:
            if len(full) % 2:
                full.append(1)
                raise OSError(28, "No space left on device")
            full.append(1)
            return write(fd, data[:5])
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "write", half)
        log.append([put(2, b"b", b"2")])
        wait_for(lambda: "No space left" in log.trouble)
        log.append([put(3, b"c", b"3")])
        assert log.written == 1
        assert rows(directory) == {b"a": b"1"}
    wait_for(lambda: log.written == 3 and not log.trouble)
    assert rows(directory) == {b"a": b"1", b"b": b"2", b"c": b"3"}


def test_a_slow_disk_delays_nobody_who_does_not_wait_for_it(log, monkeypatch):
    log.append([put(1, b"a", b"1")])
    wait_for(lambda: log.written == 1)
    write, go_on, inside = os.write, threading.Event(), threading.Event()

    def slow(fd, data):
        if fd == log._file._fd:
            inside.set()
            assert go_on.wait(20)
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "write", slow)
        log.append([put(2, b"b", b"2")])
        assert inside.wait(20)
        log.append([put(3, b"c", b"3")])
        assert log.written == 1
        go_on.set()
        wait_for(lambda: log.written == 3)


def test_a_database_that_fails_costs_only_its_readers(directory, log, monkeypatch):
    got = []

    def fail(self, records):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(RowDatabase, "write", fail)
        log.append([put(1, b"a", b"1")])
        log.read(0, KV, 100, lambda changes, through: got.append((len(changes), through)))
        wait_for(lambda: "disk is full" in log.trouble)
        log.append([put(2, b"b", b"2")])
        wait_for(lambda: log.written == 2)
        assert (log.journal_trouble, got) == ("", [])
    wait_for(lambda: got == [(2, 2)] and not log.trouble)
    assert rows(directory) == {b"a": b"1", b"b": b"2"}


def test_what_the_last_process_did_not_feed_is_fed_by_the_next(directory):
    os.makedirs(directory)
    file = journal.JournalFile(directory, 3)
    file.append([put(1, b"a", b"1")], False)
    file.close()
    log = DurableLog(directory, load(directory).sequence, lambda: None)
    log.append([put(2, b"b", b"2")])
    assert [change.key for change in read(log)[0]] == [b"a", b"b"]
    assert [number for number, _ in journal.journal_files(directory)] == [4]
    log.close()
    assert rows(directory) == {b"a": b"1", b"b": b"2"}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.one_of(st.none(), st.binary(max_size=3))), max_size=20),
    st.lists(st.integers(1, 20), max_size=4),
)
def test_the_database_holds_what_a_dict_would(tmp_path_factory, writes, cuts):
    directory = str(tmp_path_factory.mktemp("gcs"))
    database = RowDatabase(directory)
    model = {}
    batch = []
    for number, (key, value) in enumerate(writes, 1):
        batch.append(put(number, key, value))
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
        if number in cuts:
            database.write(batch)
            batch = []
    database.write(batch)
    assert [(key, value) for _, _, key, value in database.rows()] == list(model.items())
    assert database.sequence == len(writes)
    database.close()
