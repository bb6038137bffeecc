"""The tables of the GCS: rows of bytes behind a prefix and a namespace.

Every write does two independent things: it is published (live path) and persisted (durable path). Both leave here as
effects: `Publish` goes to the publisher at once; `Persist` is for the writer of the journal, and carries a number that
counts all writes, so that a change feed can say what it has seen. Readers may wait for a row to appear.

All writes, the head's own too, go through `put` and `delete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Union

from msgspec import Struct

from miniray.state_machines.table_prefix import PUBLISHED_ON, TablePrefix, TablePubsub


class Publish(Struct):
    """Tell the subscribers of the channel. A deleted row has the value ``b""``."""

    channel: TablePubsub
    key: bytes
    value: bytes


class Persist(Struct):
    """Write it to the journal. `value` None: deleted."""

    sequence: int
    table: TablePrefix
    namespace: bytes
    key: bytes
    value: bytes | None


class RowAppeared(Struct):
    """Answer whoever waits for this row under this token."""

    token: Any
    value: bytes


Effect = Union[Publish, Persist, RowAppeared]


class TableStore:
    """All tables. `waiters` are tokens of the caller's, handed back when the row is there."""

    def __init__(self) -> None:
        self._tables: dict[tuple[TablePrefix, bytes], dict[bytes, bytes]] = {}
        self._waiters: dict[tuple[TablePrefix, bytes, bytes], list[Any]] = {}
        self.sequence = 0  #: of the last write

    def restore(self, rows: Iterable[tuple[int, bytes, bytes, bytes]], sequence: int) -> None:
        """What an earlier head had persisted: (table, namespace, key, value) in the order of their first write."""
        for table, namespace, key, value in rows:
            self._tables.setdefault((TablePrefix(table), namespace), {})[key] = value
        self.sequence = sequence

    def rows(self) -> Iterator[tuple[TablePrefix, bytes, bytes, bytes]]:
        """All rows: (table, namespace, key, value)."""
        for (table, namespace), rows in self._tables.items():
            for key, value in rows.items():
                yield table, namespace, key, value

    def put(
        self,
        table: TablePrefix,
        key: bytes,
        value: bytes,
        *,
        namespace: bytes = b"",
        overwrite: bool = True,
        publish: bool = True,
    ) -> tuple[bool, list[Effect]]:
        """Write a row. True: the key was new. Without `overwrite` a row that is there stays."""
        rows = self._tables.setdefault((table, namespace), {})
        is_new = key not in rows
        if not is_new and not overwrite:
            return False, []
        rows[key] = value
        effects = self._written(table, namespace, key, value, publish)
        effects += [RowAppeared(token, value) for token in self._waiters.pop((table, namespace, key), ())]
        return is_new, effects

    def get(self, table: TablePrefix, key: bytes, *, namespace: bytes = b"") -> bytes | None:
        """The value of a row, None if there is none."""
        return self._tables.get((table, namespace), {}).get(key)

    def wait(self, table: TablePrefix, key: bytes, token: Any, *, namespace: bytes = b"") -> bytes | None:
        """The value, or None and `RowAppeared` with this token once there is one."""
        value = self.get(table, key, namespace=namespace)
        if value is None:
            self._waiters.setdefault((table, namespace, key), []).append(token)
        return value

    def stop_waiting(self, is_gone: Any) -> None:
        """Drop the tokens for which ``is_gone(token)`` is true."""
        for row, tokens in list(self._waiters.items()):
            left = [token for token in tokens if not is_gone(token)]
            if left:
                self._waiters[row] = left
            else:
                del self._waiters[row]

    def delete(
        self, table: TablePrefix, key: bytes, *, namespace: bytes = b"", by_prefix: bool = False
    ) -> tuple[int, list[Effect]]:
        """Delete a row, or all whose key begins so; how many."""
        rows = self._tables.get((table, namespace), {})
        if by_prefix:
            keys = [name for name in rows if name.startswith(key)]
        else:
            keys = [key] if key in rows else []
        effects: list[Effect] = []
        for name in keys:
            del rows[name]
            effects += self._written(table, namespace, name, None, True)
        return len(keys), effects

    def scan(
        self, table: TablePrefix, prefix: bytes = b"", *, namespace: bytes = b"", limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        """The rows whose key begins with `prefix`, oldest first; `limit` 0: all."""
        rows = self._tables.get((table, namespace), {})
        found = [(key, value) for key, value in rows.items() if key.startswith(prefix)]
        return found[:limit] if limit else found

    def _written(
        self, table: TablePrefix, namespace: bytes, key: bytes, value: bytes | None, publish: bool
    ) -> list[Effect]:
        self.sequence += 1
        effects: list[Effect] = []
        channel = PUBLISHED_ON.get(table, TablePubsub.NO_PUBLISH)
        if publish and channel is not TablePubsub.NO_PUBLISH:
            effects.append(Publish(channel, key, value or b""))
        effects.append(Persist(self.sequence, table, namespace, key, value))
        return effects
