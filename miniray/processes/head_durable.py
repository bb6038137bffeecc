"""The head's durable path: what was written goes to the journal, answers wait for it, change feeds follow it.

A session without durable needs has none: a private session ends with its head, and only whoever watches a table or
writes with ``sync=True`` opens one there. A shared session that may outlive its head, or a head that was given a place
for its tables, opens it at the start.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from miniray.messages import control
from miniray.messages.durable import Change, Record, Stored
from miniray.state_machines import change_feed
from miniray.state_machines.change_feed import ChangeFeed
from miniray.state_machines.table_prefix import TablePrefix
from miniray.state_machines.table_store import Persist

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head
    from miniray.system.durable_log import DurableLog

#: namespace of the key-values that hold the cursors of durable consumers
CURSORS = b"miniray:cursors"
#: seconds between two looks at how consumers fare
_LOOK = 1.0


class Unanswered(Struct):
    """An answer that waits for its write."""

    sequence: int
    sync: bool
    sender: bytes
    message: Any


def storage_of(session_dir: str, storage: str) -> str:
    """Where the tables of a session go."""
    return storage or os.path.join(session_dir, "gcs")


class Durable:
    """The journal, as the head uses it."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.log: DurableLog | None = None
        self.feed = ChangeFeed()
        self._records: list[Record] = []
        self._sync = False
        self._unpersisted: deque[Record] = deque()  #: noted, and not in the journal as far as is known
        self._unanswered: deque[Unanswered] = deque()
        self._read: deque[tuple[bytes, str, int, list[Change], int]] = deque()
        self._trouble = ""
        self._looking = False

    @property
    def is_open(self) -> bool:
        """Whether there is a durable path."""
        return self.log is not None

    def open(self, stored: Stored | None = None) -> None:
        """Begin. Rows that are in the tables already, but not stored, are written first."""
        from miniray.system.durable_log import DurableLog  # sessions without durable needs do without it

        head, tables = self._head, self._head.gcs.tables
        directory = storage_of(head.config.session_dir, head.config.storage)
        if stored is None:
            for table, namespace, key, value in tables.rows():
                self._records.append(Record(tables.sequence, table, namespace, key, value, is_change=False))
        # What was just noted is not written yet: who waits for that is not answered before.
        self.log = DurableLog(directory, 0 if self._records else tables.sequence, head.wake)
        self.feed.persisted = tables.sequence

    def note(self, effect: Persist, sender: bytes = b"", request_id: int = 0, answer: Any = None) -> None:
        """A row was written."""
        if self.log is not None:
            self._records.append(
                Record(
                    effect.sequence,
                    effect.table,
                    effect.namespace,
                    effect.key,
                    effect.value,
                    sender,
                    request_id,
                    answer,
                )
            )

    def reply(self, sender: bytes, request_id: int, value: Any, *, sync: bool = False) -> None:
        """Answer a request once all writes so far would survive this head (`sync`: this machine)."""
        self.answer(sender, request_id, control.Reply(request_id, value), sync=sync)

    def answer(self, sender: bytes, request_id: int, message: Any, *, sync: bool = False) -> None:
        """Like `reply`, with another message."""
        if request_id <= 0:
            return
        if sync and self.log is None:
            self.open()
        if self.log is None:
            self._head.answer(sender, request_id, message)
            return
        self._sync = self._sync or sync
        self._unanswered.append(Unanswered(self._head.gcs.tables.sequence, sync, sender, message))

    def turn(self) -> None:
        """The end of a turn: hand over what was noted, answer and feed what was written."""
        log = self.log
        if log is None:
            return
        if self._unpersisted and log.written >= self._unpersisted[0].sequence:
            self._persisted(log.written)
        while self._read:
            self._carry_out(self.feed.was_read(*self._read.popleft(), self._head.now))
        if self._records or self._sync:
            log.append(self._records, self._sync)
            self._unpersisted += self._records
            self._records, self._sync = [], False
        unanswered = self._unanswered
        while unanswered and (log.synced if unanswered[0].sync else log.written) >= unanswered[0].sequence:
            done = unanswered.popleft()
            self._head.answer(done.sender, done.message.request_id, done.message)
        if log.trouble != self._trouble:
            self._say(log.trouble)
        if log.journal_trouble:
            self._fail_unanswered(log.journal_trouble)

    def _persisted(self, through: int) -> None:
        changes = []
        waiting = self._unpersisted
        while waiting and waiting[0].sequence <= through:
            record = waiting.popleft()
            if record.is_change:
                changes.append(Change(record.sequence, record.table, record.namespace, record.key, record.value))
        self._carry_out(self.feed.was_persisted(_told(changes), through, self._head.now))

    def _say(self, trouble: str) -> None:
        self._trouble = trouble
        text = f"The durable path is in trouble: {trouble}." if trouble else "The durable path works again."
        print(f"head: {text}", file=sys.stderr, flush=True)
        for job_id in self._head.gcs.jobs:
            self._head.gcs.warn_job(job_id, text)

    def _fail_unanswered(self, trouble: str) -> None:
        """Whoever waits for the disk hears that it fails. The write itself was done and published."""
        while self._unanswered:
            failed = self._unanswered.popleft()
            text = f"This was written and published, but it is not durable: {trouble}."
            reply = control.Reply(failed.message.request_id, text, "RaySystemError")
            self._head.post(failed.sender, reply)

    def close(self, feed: bool) -> None:
        """The head ends."""
        if self.log is not None:
            self.turn()
            self.log.close(feed)

    # -- change feeds ----------------------------------------------------------------------------------------------

    def on_watch_table(self, sender: bytes, message: control.WatchTable) -> None:
        """Somebody wants the changes of a table."""
        head = self._head
        if self.log is None:
            self.open()
        since, cursor = message.since, None
        if message.durable:
            kept = head.gcs.tables.get(TablePrefix.KV, message.consumer.encode(), namespace=CURSORS)
            cursor = int(kept) if kept is not None else None
            since = cursor if since is None else since
        try:
            began, effects = self.feed.watch(
                sender,
                message.consumer,
                message.table,
                head.now,
                since=since,
                namespace=message.namespace,
                prefix=message.prefix,
                limit=message.limit,
                policy=message.policy,
                every=message.every,
                durable=message.durable,
                cursor=cursor,
            )
        except ValueError as error:
            head.reply(sender, message.request_id, str(error), "ValueError")
            return
        if message.durable and since is None:
            self._keep_cursor(message.consumer, began)
            self.reply(sender, message.request_id, began)
        else:
            head.reply(sender, message.request_id, began)
        self._carry_out(effects)
        if not self._looking:
            self._looking = True
            head.call_at(head.now + _LOOK, self._look)

    def on_changes_handled(self, sender: bytes, message: control.ChangesHandled) -> None:
        """A watcher has come so far."""
        self._carry_out(self.feed.handled(sender, message.consumer, message.sequence, self._head.now))

    def on_stop_watching(self, sender: bytes, message: control.StopWatching) -> None:
        """A watcher wants no more."""
        self.feed.stop(sender, message.consumer)

    def _look(self) -> None:
        self._looking = bool(self.feed.watches)
        self._carry_out(self.feed.look(self._head.now))
        if self._looking:
            self._head.call_at(self._head.now + _LOOK, self._look)

    def _keep_cursor(self, consumer: str, sequence: int) -> None:
        self._head.gcs.put(TablePrefix.KV, consumer.encode(), b"%d" % sequence, namespace=CURSORS, publish=False)

    def _carry_out(self, effects: list[change_feed.Effect]) -> None:
        head = self._head
        for effect in effects:
            if isinstance(effect, change_feed.Send):
                message = control.TableChanges(effect.consumer, effect.changes, effect.dropped)
                head.post(effect.watcher, message)
            elif isinstance(effect, change_feed.Moved):
                self._keep_cursor(effect.consumer, effect.sequence)
            elif isinstance(effect, change_feed.Read):
                assert self.log is not None
                self.log.read(effect.after, effect.table, change_feed.BATCH, self._reader(effect))
            else:
                head.gcs.health.note([effect])

    def _reader(self, effect: change_feed.Read) -> Any:
        def read(changes: list[Change], through: int) -> None:  # in the journal's thread
            self._read.append((effect.watcher, effect.consumer, effect.after, _told(changes), through))

        return read


def _told(changes: list[Change]) -> list[Change]:
    """The changes that watchers hear of: not those of their own cursors."""
    return [change for change in changes if change.namespace != CURSORS]
