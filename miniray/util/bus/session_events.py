"""What the tables of a session say, as events on a bus: actors, nodes, workers and jobs that come, change and go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.processes import current
from miniray.state_machines.table_prefix import TablePubsub
from miniray.util.bus.events import TelemetryEvent, Topic

if TYPE_CHECKING:
    from miniray.messages.control import Published

_TOPICS = {
    TablePubsub.ACTOR_PUBSUB: Topic.ACTOR_CHANGED,
    TablePubsub.NODE_PUBSUB: Topic.NODE_CHANGED,
    TablePubsub.WORKER_FAILURE_PUBSUB: Topic.WORKER_CHANGED,
    TablePubsub.JOB_PUBSUB: Topic.JOB_CHANGED,
}
_decode = msgspec.msgpack.decode


def forward_session_events(bus: Any) -> Callable[[], None]:
    """Publish what happens in this process's session on a bus, from now on.

    The run of these events is the session's name, their agent the id of the row, their number that of the channel; the
    payload is the row.

    Args:
        bus: a `RunBus` or a `SharedBus`.

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
        while (message := arrived.get()) is not None:
            row = _plain(_decode(message.value)) if message.value else {}
            agent_id = f"{TablePubsub(message.channel).name}:{message.key.hex()}"
            numbers[agent_id] = numbers.get(agent_id, 0) + 1
            bus.publish(
                TelemetryEvent(_TOPICS[TablePubsub(message.channel)], run_id, agent_id, numbers[agent_id], "", row)
            )

    def end() -> None:
        ended.set()
        arrived.put(None)
        thread.join()

    for channel in _TOPICS:
        core.head_client.subscribe(channel, None, put)
    thread = threading.Thread(target=publish, name="miniray-bus-session", daemon=True)
    thread.start()
    return end


def _plain(value: Any) -> Any:
    """Plain data that JSON can hold: ids in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
