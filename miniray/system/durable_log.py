"""The durable path: a thread that appends what the head writes to a journal, and feeds SQLite from it.

* `append` only puts records into a list; it never waits for the disk.
* The thread writes all that piled up with one system call: from then on it survives the death of this process, and
  `written` says so (`synced`: it survives the death of the machine, too, when that was asked for).
* Now and then the thread gives what it wrote to SQLite in one transaction. Old journal files go once the database has
  their records on the disk.
* A disk that fails is tried again, and `trouble` says what is wrong meanwhile. Nothing is lost: the records wait in
  memory, and nothing that was not written counts as written. A database that fails lets its readers wait, nobody else.

`on_progress` is called in the thread whenever there is something new to see; it only has to wake somebody.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from miniray.messages.durable import Change, Record, Stored
from miniray.system.journal import JournalFile, journal_files, read_journal, sync_file

if TYPE_CHECKING:
    from miniray.system.row_database import RowDatabase

#: seconds that written records may wait for SQLite, and how many at most
FEED_WITHIN = 0.5
FEED_AT = 5000
#: bytes after which a new journal file is begun
FILE_SIZE = 4 << 20
#: seconds between two tries of a disk that fails
RETRY = 0.2

#: called by the thread with the changes, and the write up to which there are no others
Reader = Callable[[list[Change], int], None]
_Reading = tuple[int, int, int, Reader]


def load(directory: str) -> Stored | None:
    """What a durable log in this directory holds; None for nothing."""
    try:
        files = journal_files(directory)
    except FileNotFoundError:
        return None
    rows: dict[tuple[int, bytes, bytes], bytes] = {}
    answers: list[tuple[bytes, int, object]] = []
    sequence = 0
    if os.path.exists(os.path.join(directory, "tables.sqlite")):
        from miniray.system.row_database import RowDatabase  # imports sqlite3, which most sessions never need

        database = RowDatabase(directory)
        rows = {(table, namespace, key): value for table, namespace, key, value in database.rows()}
        answers = list(database.answers())
        sequence = database.sequence
        database.close()
    elif not files:
        return None
    for _, path in files:
        for record in read_journal(path):
            if record.sequence <= sequence and record.is_change:
                continue
            sequence = max(sequence, record.sequence)
            if record.value is None:
                rows.pop((record.table, record.namespace, record.key), None)
            else:
                rows[(record.table, record.namespace, record.key)] = record.value
            if record.request_id:
                answers.append((record.sender, record.request_id, record.answer))
    return Stored([(*key, value) for key, value in rows.items()], answers, sequence)


class DurableLog:
    """The journal and the database of one directory.

    Args:
        directory: made if need be.
        sequence: of the last write that is in there already (`Stored.sequence`).
        on_progress: see above.

    Raises:
        OSError: the directory cannot be made.
    """

    def __init__(self, directory: str, sequence: int, on_progress: Callable[[], None]) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self.directory = directory
        self.written = sequence
        self.synced = 0  #: who has written what is there already may not have waited for the disk
        self.journal_trouble = ""
        self.database_trouble = ""
        self._on_progress = on_progress
        self._old = journal_files(directory)
        self._unsynced = [path for _, path in self._old]  #: nothing more is appended to these
        self._waiting: list[Record] = []
        self._appended = sequence
        self._sync_wanted = 0
        self._readers: list[_Reading] = []
        self._unfed: deque[Record] = deque()
        self._unfed_since = 0.0
        self._try_again_at = 0.0  #: the database
        self._file: JournalFile | None = None
        self._full_files: list[JournalFile] = []
        self._database: RowDatabase | None = None
        self._condition = threading.Condition()
        self._closing = False
        self._feed_at_end = True
        self._thread = threading.Thread(target=self._run, name="miniray-journal", daemon=True)
        self._thread.start()

    # -- for the head's thread -------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """What is wrong now, "" for nothing."""
        return self.journal_trouble or self.database_trouble

    def append(self, records: list[Record], sync: bool = False) -> None:
        """These were written, in this order. `sync`: have `synced` reach them and all before, also if they are none."""
        with self._condition:
            self._waiting += records
            if records:
                self._appended = records[-1].sequence
            if sync:
                self._sync_wanted = self._appended
            self._condition.notify()

    def read(self, after: int, table: int, limit: int, reader: Reader) -> None:
        """Have the changes of a table after that write read; `reader` is called in the thread."""
        with self._condition:
            self._readers.append((after, table, limit, reader))
            self._condition.notify()

    def close(self, feed: bool = True) -> None:
        """Write what is left, and end the thread.

        Args:
            feed: give it to SQLite, too.
        """
        with self._condition:
            self._closing = True
            self._feed_at_end = feed
            self._condition.notify()
        self._thread.join(10.0)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        import signal  # C code; the module itself is imported in every process anyway

        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        batch: list[Record] = []
        readers: list[_Reading] = []
        while True:
            with self._condition:
                if not (batch or self._waiting or self._readers or self._sync_is_due() or self._closing):
                    self._condition.wait(self._patience(bool(readers)))
                batch += self._waiting
                self._waiting = []
                sync = self._sync_is_due()
                readers += self._readers
                self._readers = []
                closing = self._closing
            if batch or sync:
                try:
                    self._write(batch, sync)
                except OSError as error:
                    self._say(journal=f"the journal in {self.directory} cannot be written: {error}")
                    if closing:
                        return
                    time.sleep(RETRY)
                else:
                    batch = []
            feed_is_due = (closing and self._feed_at_end) or self._feed_is_due(bool(readers))
            if feed_is_due and self._feed():
                readers = [reading for reading in readers if not self._answer(*reading)]
                if not readers:
                    self._say(database="")
            if closing and not batch:
                break
        if self._file is not None:
            self._file.close()
        if self._database is not None:
            self._database.close()

    def _sync_is_due(self) -> bool:
        return self._sync_wanted > self.synced

    def _patience(self, readers: bool) -> float | None:
        if not readers and not self._unfed:
            return None
        at = self._try_again_at if readers else max(self._unfed_since + FEED_WITHIN, self._try_again_at)
        return max(0.0, at - time.monotonic())

    def _feed_is_due(self, readers: bool) -> bool:
        now = time.monotonic()
        if now < self._try_again_at or not (readers or self._unfed):
            return False
        return readers or len(self._unfed) >= FEED_AT or now - self._unfed_since >= FEED_WITHIN

    def _write(self, batch: list[Record], sync: bool) -> None:
        if self._file is None or self._file.size > FILE_SIZE:
            number = self._file.number + 1 if self._file is not None else (self._old[-1][0] + 1 if self._old else 1)
            file = JournalFile(self.directory, number)
            if self._file is not None:
                self._full_files.append(self._file)
                self._unsynced.append(self._file.path)
            self._file = file
        if sync:
            while self._unsynced:
                sync_file(self._unsynced[-1])
                self._unsynced.pop()
        self._file.append(batch, sync)
        if batch:
            if not self._unfed:
                self._unfed_since = time.monotonic()
            self._unfed += batch
            self.written = batch[-1].sequence
        if sync:
            self.synced = self.written
        self._say(journal="")
        self._on_progress()

    def _feed(self) -> bool:
        """Whether the database has all that was written."""
        try:
            database = self._database or self._open_database()
            while self._unfed:
                batch = list(islice(self._unfed, FEED_AT))
                database.write(batch)
                for _ in batch:
                    self._unfed.popleft()
            done = [path for _, path in self._old] + [file.path for file in self._full_files]
            if done:
                database.sync()
        except Exception as error:  # of the system, of SQLite, or a file that is damaged
            self._database_fails("written", error)
            return False
        for file in self._full_files:
            file.close()
        for path in done:
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody else has removed it; or it stays, and is read in vain
        self._unsynced = []
        self._full_files = []
        self._old = []
        return True

    def _open_database(self) -> RowDatabase:
        from miniray.system.row_database import RowDatabase  # imports sqlite3, which most sessions never need

        database = RowDatabase(self.directory)
        try:
            # What the last process wrote and did not feed.
            for _, path in self._old:
                after = database.sequence
                database.write([record for record in read_journal(path) if record.sequence > after])
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _answer(self, after: int, table: int, limit: int, reader: Reader) -> bool:
        """Whether the database could be read."""
        assert self._database is not None
        try:
            changes = self._database.changes(after, table, limit)
        except Exception as error:
            self._database_fails("read", error)
            return False
        reader(changes, changes[-1].sequence if len(changes) == limit else max(after, self._database.sequence))
        self._on_progress()
        return True

    def _database_fails(self, what: str, error: Exception) -> None:
        self._try_again_at = time.monotonic() + RETRY
        self._say(database=f"the database in {self.directory} cannot be {what}: {error}")

    def _say(self, journal: str | None = None, database: str | None = None) -> None:
        before = self.trouble
        if journal is not None:
            self.journal_trouble = journal
        if database is not None:
            self.database_trouble = database
        if self.trouble != before:
            self._on_progress()
