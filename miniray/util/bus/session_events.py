"""What the tables of a session say, as events on a bus: actors, nodes, workers and jobs that come, change and go, and
tasks that have ended.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import convert

from miniray.exceptions import RayError
from miniray.messages.control import Query
from miniray.messages.state import EndedTasks
from miniray.processes import current
from miniray.state_machines.table_prefix import TablePubsub
from miniray.state_machines.task_rows import rows_of
from miniray.util.bus.events import TelemetryEvent, Topic
from miniray.util.state.tables import task_row

if TYPE_CHECKING:
    from miniray.messages.control import Published

_TOPICS = {
    TablePubsub.ACTOR_PUBSUB: Topic.ACTOR_CHANGED,
    TablePubsub.NODE_PUBSUB: Topic.NODE_CHANGED,
    TablePubsub.WORKER_FAILURE_PUBSUB: Topic.WORKER_CHANGED,
    TablePubsub.JOB_PUBSUB: Topic.JOB_CHANGED,
}
_decode = msgspec.msgpack.decode


def forward_session_events(bus: Any, *, tasks_every: float | None = None) -> Callable[[], None]:
    """Publish what happens in this process's session on a bus, from now on.

    The run of these events is the session's name, their agent the id of the row, their number that of the channel; the
    payload is the row.

    Args:
        bus: a `RunBus` or a `SharedBus`.
        tasks_every: seconds between two questions which tasks have ended (`Topic.TASK_ENDED`), because nobody tells
            it unasked; None: never.

    Returns:
        What ends it.

    Raises:
        ValueError: there is no session.
    """
    core = current.core_or_none()
    if core is None:
        raise ValueError("there is no session: call miniray.init() first")
    run_id = str(core.session.get("session_name", ""))
    # The news come under the core worker's lock, where nothing else may run.
    arrived: queue.SimpleQueue[Published | None] = queue.SimpleQueue()
    ended = threading.Event()

    def put(message: Published) -> None:
        if not ended.is_set():
            arrived.put(message)

    def publish() -> None:
        numbers: dict[str, int] = {}
        try:
            while (message := arrived.get()) is not None:
                channel = TablePubsub(message.channel)
                row = _plain(_decode(message.value)) if message.value else {}
                agent_id = f"{channel.name}:{message.key.hex()}"
                numbers[agent_id] = numbers.get(agent_id, 0) + 1
                bus.publish(TelemetryEvent(_TOPICS[channel], run_id, agent_id, numbers[agent_id], "", row))
        finally:
            ended.set()  # a bus that was closed gets nothing more, and nothing piles up here

    def ask_for_tasks(interval: float, tasks: _EndedTasks) -> None:
        while not ended.wait(interval):
            bus.publish_many(tasks.new_ones())

    def end() -> None:
        ended.set()
        for channel in _TOPICS:
            core.head_client.unsubscribe(channel, put)
        arrived.put(None)
        for thread in threads:
            thread.join()

    for channel in _TOPICS:
        core.head_client.subscribe(channel, None, put)
    threads = [threading.Thread(target=publish, name="miniray-bus-session", daemon=True)]
    if tasks_every is not None:
        tasks = _EndedTasks(core, run_id)
        threads.append(
            threading.Thread(target=ask_for_tasks, args=(tasks_every, tasks), name="miniray-bus-tasks", daemon=True)
        )
    for thread in threads:
        thread.start()
    return end


def _ask(core: Any, most: int) -> dict[str, Any]:
    arguments = {"events": most, "limit": 0}
    answer: dict[str, Any] = core.head_client.request(lambda number: Query(number, "task_reports", arguments))
    return answer


class _EndedTasks:
    """Asks which tasks have ended since it was asked last. Numbers go on when the head is another one, whose count
    begins anew.
    """

    def __init__(self, core: Any, run_id: str) -> None:
        self._core = core
        self._run_id = run_id
        self._seen = _total(_ask(core, 0))
        self._before = 0  #: how many had ended under earlier heads

    def new_ones(self) -> list[TelemetryEvent]:
        """An event for each."""
        wanted = 0
        while True:
            try:
                answer = _ask(self._core, wanted)
            except RayError:  # the session is gone
                return []
            total = _total(answer)
            if total < self._seen:
                self._before, self._seen = self._before + self._seen, 0
            rows = [row for batch in answer["events"] for row in rows_of(convert(batch, EndedTasks))]
            asked, wanted = wanted, min(total - self._seen, answer["kept"])
            if len(rows) >= wanted or wanted == asked:
                break  # else more have ended since it was asked how many
        first = max(self._seen, total - len(rows))
        self._seen = total
        return [
            TelemetryEvent(
                Topic.TASK_ENDED, self._run_id, "tasks", self._before + first + index, "", task_row(row, False, {})
            )
            for index, row in enumerate(rows[len(rows) - (total - first) :], 1)
        ]


def _total(answer: dict[str, Any]) -> int:
    return int(answer["kept"] + answer["dropped"])


def _plain(value: Any) -> Any:
    """Plain data that JSON can hold: ids in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
