"""Where a consumer is, in every stream that it reads: what a restart goes on from."""

from __future__ import annotations

import os
import sqlite3

from miniray.state_machines.subscription import SequenceCheck
from miniray.util.bus.event_log import open_database
from miniray.util.bus.events import NEXT, Stream, TelemetryEvent

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bus_cursors (
    consumer TEXT NOT NULL, run_id TEXT NOT NULL, agent_id TEXT NOT NULL, seq_id INTEGER NOT NULL,
    PRIMARY KEY (consumer, run_id, agent_id)
);
CREATE TABLE IF NOT EXISTS bus_positions (consumer TEXT PRIMARY KEY, position INTEGER NOT NULL);
"""


class ConsumerCursor:
    """The last number of each stream that a consumer has dealt with, and the number that the bus gave that event.

    Args:
        consumer_id: its name.
        store: where the cursor is kept: a path of a SQLite file, or a connection of the consumer's own. With a
            connection nothing is committed here: rows and cursor then go into one transaction, and an event is never
            half done. None: nowhere.
    """

    def __init__(self, consumer_id: str, store: str | os.PathLike[str] | sqlite3.Connection | None = None) -> None:
        self.consumer_id = consumer_id
        self.position = 0  #: the bus's number of the last event
        self._check: SequenceCheck[Stream] = SequenceCheck()
        self._changed: set[Stream] = set()
        self._owns_store = store is not None and not isinstance(store, sqlite3.Connection)
        if store is None or isinstance(store, sqlite3.Connection):
            self._store = store
        else:
            self._store = open_database(os.fspath(store))
        if self._store is not None:
            self._store.executescript(_SCHEMA)
            self.on_restart()

    @property
    def gaps(self) -> int:
        """How often numbers were missing."""
        return self._check.gaps

    @property
    def missing(self) -> int:
        """How many numbers were missing in all."""
        return self._check.missing

    @property
    def repeats(self) -> int:
        """How many events came that had been dealt with before."""
        return self._check.repeats

    def last(self, stream: Stream) -> int:
        """The last number of a run and agent; 0: none."""
        return self._check.last(stream)

    def process_event(self, event: TelemetryEvent, offset: int | None = None) -> bool:
        """An event came; `offset`: the number that the bus gave it. False: it was dealt with before."""
        if offset is not None:
            self.position = max(self.position, offset)
        if event.seq_id == NEXT:
            return True
        if not self._check.saw(event.stream, event.seq_id):
            return False
        self._changed.add(event.stream)
        return True

    def persist_cursor(self) -> None:
        """Keep where the consumer is. What came after the last time comes again after a restart."""
        store = self._store
        if store is None:
            return
        rows = [(self.consumer_id, *stream, self._check.last(stream)) for stream in self._changed]
        store.executemany("INSERT OR REPLACE INTO bus_cursors VALUES (?, ?, ?, ?)", rows)
        store.execute("INSERT OR REPLACE INTO bus_positions VALUES (?, ?)", (self.consumer_id, self.position))
        self._changed.clear()
        if self._owns_store:
            store.commit()

    def on_restart(self) -> dict[Stream, int]:
        """Go back to where the consumer was when its cursor was kept last; the last number of each stream."""
        kept = self._check.last_of_all()
        self._check = SequenceCheck()
        if self._store is not None:
            query = "SELECT run_id, agent_id, seq_id FROM bus_cursors WHERE consumer = ?"
            rows = self._store.execute(query, (self.consumer_id,))
            kept = {(run_id, agent_id): seq_id for run_id, agent_id, seq_id in rows}
            query = "SELECT position FROM bus_positions WHERE consumer = ?"
            row = self._store.execute(query, (self.consumer_id,)).fetchone()
            self.position = row[0] if row is not None else 0
            self._changed.clear()
        for stream, seq_id in kept.items():
            self._check.restore(stream, seq_id)
        return kept

    def close(self) -> None:
        """Keep the cursor, and close the file if it is the cursor's own."""
        if self._store is not None and self._owns_store:
            self.persist_cursor()
            self._store.close()
            self._store = None
