"""An event bus: publishers that never wait, consumers with cursors of their own, a log to go back to.

`RunBus` is inside one process, `SharedBus` spans all processes of a session; both have the same calls.
"""

from miniray.state_machines.subscription import Heartbeat
from miniray.util.bus.credits import Credits
from miniray.util.bus.cursor import ConsumerCursor
from miniray.util.bus.event_log import EventLog
from miniray.util.bus.events import TelemetryEvent, Topic
from miniray.util.bus.follower import Follower
from miniray.util.bus.run_bus import RunBus, get_bus, reset_bus
from miniray.util.bus.session_events import forward_session_events
from miniray.util.bus.shared_bus import SharedBus
from miniray.util.bus.sqlite_sink import SQLiteSink

__all__ = [
    "ConsumerCursor",
    "Credits",
    "EventLog",
    "Follower",
    "Heartbeat",
    "RunBus",
    "SQLiteSink",
    "SharedBus",
    "TelemetryEvent",
    "Topic",
    "forward_session_events",
    "get_bus",
    "reset_bus",
]
