"""The durable path: a thread that appends what the head writes to a journal, and feeds SQLite from it.

* `append` only puts records into a list; it never waits for the disk.
* The thread writes all that piled up with one system call: from then on it survives the death of this process, and
  `written` says so (`synced`: it survives the death of the machine, too, when that was asked for).
* Now and then the thread gives what it wrote to SQLite in one transaction; then old journal files go.
* A disk that fails is tried again, and `trouble` says what is wrong meanwhile. Nothing is lost: the records wait in
  memory, and nothing that was not written counts as written.

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
from miniray.system.journal import JournalFile, journal_files, read_journal

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
        self.synced = sequence
        self.trouble = ""
        self._on_progress = on_progress
        self._old = journal_files(directory)
        self._waiting: list[Record] = []
        self._sync_wanted = 0
        self._readers: deque[tuple[int, int, int, Reader]] = deque()
        self._unfed: deque[Record] = deque()
        self._unfed_since = 0.0
        self._file: JournalFile | None = None
        self._full_files: list[JournalFile] = []
        self._database: RowDatabase | None = None
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="miniray-journal", daemon=True)
        self._thread.start()

    # -- for the head's thread -------------------------------------------------------------------------------------

    def append(self, records: list[Record], sync: bool = False) -> None:
        """These were written, in this order."""
        with self._condition:
            self._waiting += records
            if sync and records:
                self._sync_wanted = records[-1].sequence
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
            if not feed:
                self._unfed.clear()
            self._condition.notify()
        self._thread.join(10.0)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        import signal  # C code; the module itself is imported in every process anyway

        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        batch: list[Record] = []
        while True:
            with self._condition:
                if not batch and not self._waiting and not self._readers and not self._closing:
                    self._condition.wait(self._patience())
                batch += self._waiting
                self._waiting = []
                sync = self._sync_wanted > self.synced
                readers = list(self._readers)
                self._readers.clear()
                closing = self._closing
            if batch:
                try:
                    self._write(batch, sync)
                except OSError as error:
                    self._say(f"the journal in {self.directory} cannot be written: {error}")
                    if closing:
                        return
                    time.sleep(RETRY)
                else:
                    batch = []
            if readers or closing or self._feed_is_due():
                self._feed()
            for after, table, limit, reader in readers:
                self._answer(after, table, limit, reader)
            if closing and not batch:
                break
        if self._file is not None:
            self._file.close()
        if self._database is not None:
            self._database.close()

    def _patience(self) -> float | None:
        return max(0.0, self._unfed_since + FEED_WITHIN - time.monotonic()) if self._unfed else None

    def _feed_is_due(self) -> bool:
        return bool(self._unfed) and (
            len(self._unfed) >= FEED_AT or time.monotonic() - self._unfed_since >= FEED_WITHIN
        )

    def _write(self, batch: list[Record], sync: bool) -> None:
        if self._file is None or self._file.size > FILE_SIZE:
            number = self._file.number + 1 if self._file is not None else (self._old[-1][0] + 1 if self._old else 1)
            file = JournalFile(self.directory, number)
            if self._file is not None:
                self._full_files.append(self._file)
            self._file = file
        self._file.append(batch, sync)
        if not self._unfed:
            self._unfed_since = time.monotonic()
        self._unfed += batch
        self.written = batch[-1].sequence
        if sync:
            self.synced = self.written
        self._say("")
        self._on_progress()

    def _feed(self) -> None:
        if self._database is None:
            from miniray.system.row_database import RowDatabase  # imports sqlite3, which most sessions never need

            try:
                self._database = RowDatabase(self.directory)
                # What the last process wrote and did not feed.
                for _, path in self._old:
                    after = self._database.sequence
                    self._database.write([record for record in read_journal(path) if record.sequence > after])
            except Exception as error:
                self._database = None
                self._say(f"the database in {self.directory} cannot be opened: {error}")
                self._unfed_since = time.monotonic() + RETRY
                return
        try:
            while self._unfed:
                batch = list(islice(self._unfed, FEED_AT))
                self._database.write(batch)
                for _ in batch:
                    self._unfed.popleft()
        except Exception as error:
            self._say(f"the database in {self.directory} cannot be written: {error}")
            self._unfed_since = time.monotonic() + RETRY
            return
        for file in self._full_files:
            file.close()
            os.unlink(file.path)
        self._full_files.clear()
        for _, path in self._old:
            os.unlink(path)
        self._old = []

    def _answer(self, after: int, table: int, limit: int, reader: Reader) -> None:
        changes: list[Change] = []
        through = after
        if self._database is not None:
            try:
                changes = self._database.changes(after, table, limit)
                through = changes[-1].sequence if len(changes) == limit else max(after, self._database.sequence)
            except Exception as error:
                self._say(f"the database in {self.directory} cannot be read: {error}")
        reader(changes, through)
        self._on_progress()

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._on_progress()
