"""The rows and the changes of the tables in SQLite, fed in batches from the journal.

One file, ``tables.sqlite``, in WAL mode, one connection, one thread. Everything of a batch is in it or nothing is;
``meta.sequence`` says up to which write. The journal holds what came after.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from miniray.messages.durable import Change, Record

#: changes and answers that are kept
KEPT_CHANGES = 1_000_000
KEPT_ANSWERS = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    tbl INTEGER, ns BLOB, key BLOB, value BLOB, first INTEGER, PRIMARY KEY (tbl, ns, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY, tbl INTEGER, ns BLOB, key BLOB, value BLOB);
CREATE TABLE IF NOT EXISTS answers (seq INTEGER PRIMARY KEY, sender BLOB, request_id INTEGER, answer BLOB);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER);
"""


class RowDatabase:
    """The database of one session, or of a path that outlives sessions."""

    def __init__(self, directory: str) -> None:
        self._connection = sqlite3.connect(
            os.path.join(directory, "tables.sqlite"), isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        # What was added last is on the disk after `sync` only. Until then the journal has it, too.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)
        found = self._connection.execute("SELECT value FROM meta WHERE name='sequence'").fetchone()
        self.sequence: int = found[0] if found else 0

    def write(self, records: list[Record]) -> None:
        """Add a batch, in the order of the writes.

        Raises:
            sqlite3.Error: nothing of it was added.
        """
        if not records:
            return
        rows: dict[tuple[int, bytes, bytes], tuple[bytes | None, int, bool]] = {}
        for record in records:
            key = (record.table, record.namespace, record.key)
            before = rows.pop(key, None)
            if record.value is None:
                rows[key] = (None, 0, True)
            elif before is None or before[0] is None:
                rows[key] = (record.value, record.sequence, before is not None and before[2])
            else:
                rows[key] = (record.value, before[1], before[2])
        removed = [key for key, (_, _, is_anew) in rows.items() if is_anew]
        present = [
            (*key, value, (first << 20) + number)
            for number, (key, (value, first, _)) in enumerate(rows.items())
            if value is not None
        ]
        changes = [
            (record.sequence, record.table, record.namespace, record.key, record.value)
            for record in records
            if record.is_change
        ]
        answers = [
            (record.sequence, record.sender, record.request_id, msgspec.msgpack.encode(record.answer))
            for record in records
            if record.request_id
        ]
        last = records[-1].sequence
        run = self._connection
        run.execute("BEGIN IMMEDIATE")
        try:
            run.executemany("DELETE FROM rows WHERE tbl=? AND ns=? AND key=?", removed)
            run.executemany(
                "INSERT INTO rows VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET value=excluded.value", present
            )
            run.executemany("INSERT OR REPLACE INTO changes VALUES (?,?,?,?,?)", changes)
            run.execute("DELETE FROM changes WHERE seq <= ?", (last - KEPT_CHANGES,))
            if answers:
                run.executemany("INSERT OR REPLACE INTO answers VALUES (?,?,?,?)", answers)
                run.execute(
                    "DELETE FROM answers WHERE seq <= (SELECT seq FROM answers ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                    (KEPT_ANSWERS,),
                )
            run.execute("INSERT OR REPLACE INTO meta VALUES ('sequence', ?)", (last,))
            run.execute("COMMIT")
        except BaseException:
            if run.in_transaction:
                run.execute("ROLLBACK")
            raise
        self.sequence = last

    def sync(self) -> None:
        """Return only after all that was added is on the disk.

        Raises:
            sqlite3.Error: it could not be written, or somebody else uses the database.
        """
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("somebody else reads the database")

    def rows(self) -> Iterable[tuple[int, bytes, bytes, bytes]]:
        """All rows, in the order of their first write."""
        return self._connection.execute("SELECT tbl, ns, key, value FROM rows ORDER BY first").fetchall()

    def answers(self) -> list[tuple[bytes, int, Any]]:
        """The newest answers that were given, the oldest of them first."""
        found = self._connection.execute("SELECT sender, request_id, answer FROM answers ORDER BY seq").fetchall()
        return [(sender, request_id, msgspec.msgpack.decode(answer)) for sender, request_id, answer in found]

    def changes(self, after: int, table: int, limit: int) -> list[Change]:
        """The changes of a table after that write, the oldest first."""
        found = self._connection.execute(
            "SELECT seq, tbl, ns, key, value FROM changes WHERE seq > ? AND tbl = ? ORDER BY seq LIMIT ?",
            (after, table, limit),
        )
        return [Change(*row) for row in found]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
