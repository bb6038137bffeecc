"""A consumer that records events in a SQLite file, each once, whatever happens to it in between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from miniray.util.bus.cursor import ConsumerCursor
from miniray.util.bus.event_log import Logged, open_database
from miniray.util.bus.events import TelemetryEvent, topic_name

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recorded (
    run_id TEXT NOT NULL, agent_id TEXT NOT NULL, seq_id INTEGER NOT NULL, topic TEXT NOT NULL,
    ts_iso TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS recorded_by_stream ON recorded (run_id, agent_id, seq_id);
"""


class SQLiteSink:
    """Writes batches. Rows and cursor go into one transaction: after a crash nothing is missing and nothing twice.

    Args:
        path: of the file.
        consumer_id: the name of its cursor.
    """

    def __init__(self, path: str | os.PathLike[str], consumer_id: str = "recorder") -> None:
        self._database = open_database(os.fspath(path))
        self._database.executescript(_SCHEMA)
        self.cursor = ConsumerCursor(consumer_id, self._database)

    @property
    def position(self) -> int:
        """The bus's number of the last event that is recorded: what to follow the bus from (`follow(since=)`)."""
        return self.cursor.position

    def write(self, events: Iterable[Logged]) -> int:
        """Record events with their numbers, all or none (then they can be written again); how many were new."""
        try:
            with self._database:
                rows = [_row(event) for offset, event in events if self.cursor.process_event(event, offset)]
                self._database.executemany("INSERT INTO recorded VALUES (?, ?, ?, ?, ?, ?)", rows)
                self.cursor.persist_cursor()
        except BaseException:
            self.cursor.on_restart()  # to where the file is
            raise
        return len(rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _row(event: TelemetryEvent) -> tuple[Any, ...]:
    payload = json.dumps(event.payload, default=str)
    return event.run_id, event.agent_id, event.seq_id, topic_name(event.topic), event.ts_iso, payload
