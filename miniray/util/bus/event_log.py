"""The log of a bus: a SQLite file that a thread of its own feeds in batches, so that no publisher waits for the disk.

Rules
-----
* Events are numbered by the bus (`offset`); a file goes on with its numbers when it is opened again.
* No number is given twice, so that a position that somebody keeps never comes to mean another event. The file says how
  far the numbers may go (`reserved`) before they go there; after a bus that was killed the next one begins behind that,
  since nobody knows which of them were given, and lost. After one that was closed there is no gap.
* `append` returns at once. Readers see everything that was appended: `read` waits for the writer first.
* What was appended and not yet written is lost when the process is killed; `flush` waits until it is written.
* A disk that fails is said once, and tried again; nothing that was appended is given up meanwhile. An event that no
  row can hold is said and left out; it delays nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable
from typing import Any

from miniray.util.bus.events import Stream, TelemetryEvent, topic_name, topic_of

logger = logging.getLogger("miniray.util.bus")

#: seconds between two tries when the disk fails
_RETRY = 0.5
#: numbers that are reserved at once
_RESERVED = 1_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    offset INTEGER PRIMARY KEY, topic TEXT NOT NULL, run_id TEXT NOT NULL, agent_id TEXT NOT NULL,
    seq_id INTEGER NOT NULL, ts_iso TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_stream ON events (run_id, agent_id, seq_id);
CREATE TABLE IF NOT EXISTS reserved (one INTEGER PRIMARY KEY CHECK (one = 1), through INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (consumer TEXT PRIMARY KEY, position INTEGER NOT NULL);
"""
#: An event and its number.
Logged = tuple[int, TelemetryEvent]


def open_database(path: str) -> sqlite3.Connection:
    """A database that readers of other processes can look into while it is written."""
    database = sqlite3.connect(path, check_same_thread=False, timeout=30.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    return database


class EventLog:
    """Events in a file.

    Args:
        path: of the SQLite file; made when it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._database = open_database(self.path)
        self._database.executescript(_SCHEMA)
        (newest,) = self._database.execute("SELECT max(offset) FROM events").fetchone()
        found = self._database.execute("SELECT through FROM reserved").fetchone()
        #: the last number that may have been given when it was opened
        self.newest: int = max(newest or 0, found[0] if found is not None else 0)
        self._access = threading.Lock()  # of the connection
        self.reserved = 0  #: numbers up to this one may be given
        self.reserve(self.newest + 1)
        self._changed = threading.Condition()
        self._pending: list[Logged] = []
        self._cursors: dict[str, int] = {}
        self._asked = 0  #: calls that something be written
        self._done = 0  #: how many of these, counted from the first, are written
        self._closing = False
        self._ended = False  #: nothing is written any more
        self._thread = threading.Thread(target=self._run, name="miniray-bus-log", daemon=True)
        self._thread.start()

    def reserve(self, offset: int) -> None:
        """Numbers from this one on are going to be given; returns when the file says so, or cannot be written."""
        self.reserved = offset + _RESERVED
        try:
            self._keep_reserved(self.reserved)
        except sqlite3.Error as error:
            logger.error("The log of the bus %s cannot be written: %s.", self.path, error)

    def _keep_reserved(self, through: int) -> None:
        with self._access, self._database:
            self._database.execute("INSERT OR REPLACE INTO reserved VALUES (1, ?)", (through,))

    def append(self, events: Iterable[Logged]) -> None:
        """Write these soon.

        Raises:
            ValueError: the log was closed.
        """
        with self._changed:
            if self._closing:
                raise ValueError(f"the log of the bus {self.path} was closed")
            self._pending.extend(events)
            self._asked += 1
            self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was appended before is written; whether it is, within `timeout` seconds."""
        with self._changed:
            asked = self._asked
            self._changed.wait_for(lambda: self._done >= asked or self._ended, timeout)
            return self._done >= asked

    def read(self, after: int, limit: int, topic: str = "") -> tuple[list[Logged], int, bool]:
        """Events after a number, that up to which the log was looked through (`limit` events), and whether there may
        be more.
        """
        self.flush()
        query = "SELECT * FROM events WHERE offset > ? ORDER BY offset LIMIT ?"
        rows = self._query(query, (after, limit))
        through = rows[-1][0] if rows else after
        return [(row[0], _event(row)) for row in rows if not topic or row[1] == topic], through, len(rows) == limit

    def of_stream(self, stream: Stream, since_seq: int) -> list[TelemetryEvent]:
        """The events of a run and agent whose number is higher."""
        self.flush()
        query = "SELECT * FROM events WHERE run_id = ? AND agent_id = ? AND seq_id > ? ORDER BY seq_id, offset"
        return [_event(row) for row in self._query(query, (*stream, since_seq))]

    def last_numbers(self) -> dict[Stream, int]:
        """The highest number of each stream."""
        query = "SELECT run_id, agent_id, max(seq_id) FROM events GROUP BY run_id, agent_id"
        return {(run_id, agent_id): number for run_id, agent_id, number in self._query(query, ())}

    def cursor_of(self, consumer: str) -> int | None:
        """Where a consumer was; None: it is new."""
        self.flush()
        rows = self._query("SELECT position FROM cursors WHERE consumer = ?", (consumer,))
        return rows[0][0] if rows else None

    def keep_cursor(self, consumer: str, position: int) -> None:
        """Write soon where a consumer is."""
        with self._changed:
            self._cursors[consumer] = position
            self._asked += 1
            self._changed.notify_all()

    def close(self, given: int) -> None:
        """Write what is left, and close the file. `given`: the last number that was given."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        with contextlib.suppress(sqlite3.Error):  # a gap in the numbers does no harm
            self._keep_reserved(given)
        self._database.close()

    def _query(self, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._access:
            return self._database.execute(query, arguments).fetchall()

    # -- the writer ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        trouble = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._cursors or self._closing)
                if not self._pending and not self._cursors:
                    break
                events, self._pending = self._pending, []
                cursors, self._cursors = self._cursors, {}
                asked = self._asked
            try:
                self._write(events, cursors)
                trouble = ""
            except sqlite3.Error as error:
                if str(error) != trouble:
                    trouble = str(error)
                    logger.error("The log of the bus %s cannot be written: %s. It is tried again.", self.path, error)
                with self._changed:
                    self._pending = events + self._pending
                    self._cursors = {**cursors, **self._cursors}
                    if self._closing:
                        logger.error("The log of the bus %s ends without %d events.", self.path, len(self._pending))
                        break
                    self._changed.wait_for(lambda: self._closing, _RETRY)
                continue
            with self._changed:
                self._done = asked
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _write(self, events: list[Logged], cursors: dict[str, int]) -> None:
        try:
            self._write_rows(events, cursors)
        except Exception as error:
            if _is_of_disk(error):
                raise
            self._write_singly(events)
            self._write_rows([], cursors)

    def _write_singly(self, events: list[Logged]) -> None:
        """One of them is no row: the others are to be there."""
        for logged in events:
            try:
                self._write_rows([logged], {})
            except Exception as error:
                if _is_of_disk(error):
                    raise
                logger.error("The log of the bus %s cannot hold the event %d: %s", self.path, logged[0], error)

    def _write_rows(self, events: list[Logged], cursors: dict[str, int]) -> None:
        rows = list(map(_row, events))
        with self._access, self._database:
            self._database.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._database.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", list(cursors.items()))


def _is_of_disk(error: Exception) -> bool:
    """Whether another try may succeed; else an event is to blame."""
    of_events = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)
    return isinstance(error, sqlite3.Error) and not isinstance(error, of_events)


def _row(logged: Logged) -> tuple[Any, ...]:
    offset, event = logged
    payload = json.dumps(event.payload, default=str)
    return offset, topic_name(event.topic), event.run_id, event.agent_id, event.seq_id, event.ts_iso, payload


def _event(row: tuple[Any, ...]) -> TelemetryEvent:
    _, topic, run_id, agent_id, seq_id, ts_iso, payload = row
    return TelemetryEvent(topic_of(topic), run_id, agent_id, seq_id, ts_iso, json.loads(payload))
