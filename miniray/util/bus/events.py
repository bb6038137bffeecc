"""What travels on a bus: events, their topics and streams."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Union

#: `TelemetryEvent.seq_id`: the bus gives the next number of the stream
NEXT = -1


class Topic(str, Enum):
    """What an event is about. Any other string is a topic, too."""

    RUN_STARTED = "run_started"
    STEP_APPENDED = "step_appended"
    EPISODE_FINALIZED = "episode_finalized"
    RUN_COMPLETED = "run_completed"
    CONTROL = "control"
    #: said by the bus itself
    HEARTBEAT = "heartbeat"
    OVERFLOW = "overflow"
    SEQUENCE_GAP = "sequence_gap"
    HEALTH_CHANGED = "health_changed"
    #: what the tables of a session say, see `session_events`
    ACTOR_CHANGED = "actor_changed"
    NODE_CHANGED = "node_changed"
    WORKER_CHANGED = "worker_changed"
    JOB_CHANGED = "job_changed"
    TASK_ENDED = "task_ended"

    def __str__(self) -> str:
        return str(self.value)


#: A topic as callers give it; None: every topic.
TopicName = Union[Topic, str]
#: A numbered sequence of events: those of one agent in one run.
Stream = tuple[str, str]

#: Topics of the bus's own events: they have no numbers and are not logged.
OWN_TOPICS = frozenset({Topic.HEARTBEAT, Topic.OVERFLOW, Topic.SEQUENCE_GAP, Topic.HEALTH_CHANGED})


@dataclass(frozen=True)
class TelemetryEvent:
    """Something that happened in a run.

    Args:
        topic: what it is about.
        run_id: which run.
        agent_id: which agent of the run; "" for the run itself.
        seq_id: counts the events of this run and agent from 1 on; `NEXT`: the bus fills it in.
        ts_iso: when, as ISO 8601; "": the bus fills it in.
        payload: plain data (what JSON can hold, where events are logged).
    """

    topic: TopicName
    run_id: str
    agent_id: str = ""
    seq_id: int = NEXT
    ts_iso: str = ""
    payload: Any = field(default_factory=dict)

    @property
    def stream(self) -> Stream:
        """Run and agent: what numbers count in."""
        return self.run_id, self.agent_id


def checked(events: Iterable[TelemetryEvent]) -> list[TelemetryEvent]:
    """The events as a list.

    Raises:
        TypeError: something is no event.
    """
    events = list(events)
    for event in events:
        if not isinstance(event, TelemetryEvent):
            raise TypeError(f"a bus carries TelemetryEvents, and {event!r} is none")
    return events


def now_iso() -> str:
    """The present time in UTC, as `TelemetryEvent.ts_iso`."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def topic_name(topic: TopicName | None) -> str:
    """A topic as text; "" for every topic."""
    if topic is None:
        return ""
    return str(topic.value) if isinstance(topic, Topic) else topic


def topic_of(name: str) -> TopicName:
    """A topic from its text."""
    try:
        return Topic(name)
    except ValueError:
        return name
