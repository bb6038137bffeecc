"""A simulation on a bus, and three that watch it at their own pace: a screen, a recorder and a counter.

    python examples/run_bus.py                         # three runs, with a live table
    python examples/run_bus.py --slow-recorder 0.2     # the recorder needs 0.2 s for a batch: it lags, nobody else does
    python examples/run_bus.py --kill-recorder         # kill -9 for its process in the middle: it comes again

The simulation emits steps and the ends of episodes. The screen reads fast and would rather miss something than lag; the
counter wants each run's newest numbers only; the recorder must have everything: it follows the bus from its cursor,
which lies in its own database, so that after a kill -9 no step is missing there, and none is there twice. At the end
the database is compared with what was emitted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import sqlite3
import tempfile
import time

import miniray
from miniray.util.bus import RunBus, SharedBus, SQLiteSink, TelemetryEvent, Topic

BUS = "run_bus_example"


@miniray.remote(num_cpus=0)
def simulate(run: str, episodes: int, steps: int) -> int:
    """Emit a run; how many events that was."""
    bus = SharedBus(BUS)
    emitted = 0

    def emit(topic: Topic, **payload: object) -> None:
        nonlocal emitted
        emitted += 1
        bus.publish(TelemetryEvent(topic, run, "agent", payload=payload))

    emit(Topic.RUN_STARTED, episodes=episodes)
    for episode in range(episodes):
        reward = 0.0
        for step in range(steps):
            reward += (step * 7919 % 11) / 10
            emit(Topic.STEP_APPENDED, episode=episode, step=step, reward=reward)
            if step % 50 == 49:
                time.sleep(0.005)  # the simulation itself
        emit(Topic.EPISODE_FINALIZED, episode=episode, reward=reward)
    emit(Topic.RUN_COMPLETED)
    bus.flush()
    bus.close()
    return emitted


@miniray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Recorder:
    """Writes every event into a database. Its process may end at any moment: it comes again, and so does its call."""

    def __init__(self, path: str, slow: float) -> None:
        self.path = path
        self.slow = slow

    def pid(self) -> int:
        """Whom to kill."""
        return os.getpid()

    def record(self) -> None:
        """Follow the bus until told to stop."""
        sink = SQLiteSink(self.path)
        bus = SharedBus(BUS)
        # The position that counts is the one in the database: it was written together with the rows.
        with bus.follow("recorder", since=sink.position, batch=200) as follower:
            while True:
                events = follower.read(timeout=0.5)
                if any(event.topic == Topic.CONTROL for _, event in events):
                    sink.write(events)
                    break
                if events:
                    sink.write(events)
                    time.sleep(self.slow)
        sink.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--slow-recorder", type=float, default=0.0, metavar="SECONDS", help="for each batch")
    parser.add_argument("--kill-recorder", action="store_true", help="kill -9 in the middle; it comes again")
    parser.add_argument("--directory", help="where log and database go (default: a temporary one)")
    given = parser.parse_args()
    miniray.init(log_to_driver=False)
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or temporary
        show(given, os.path.join(directory, "log.sqlite"), os.path.join(directory, "recorded.sqlite"))
    miniray.shutdown()


def show(given: argparse.Namespace, log: str, database: str) -> None:
    bus = SharedBus(BUS, max_queue=1000, log=log)
    screen = bus.subscribe_with_size(None, "screen", 100)
    counter = bus.subscribe_with_size(Topic.STEP_APPENDED, "counter", 100, policy="latest")
    recorder = Recorder.remote(database, given.slow_recorder)
    pid = miniray.get(recorder.pid.remote())
    recording = recorder.record.remote()
    runs = [simulate.remote(f"run-{number}", given.episodes, given.steps) for number in range(given.runs)]
    total = given.runs * (2 + given.episodes * (given.steps + 1))
    shown: dict[str, int] = {}
    newest: dict[str, float] = {}
    killed = not given.kill_recorder
    done = False
    while not done:
        done = len(miniray.wait(runs, num_returns=len(runs), timeout=0.1)[0]) == len(runs)
        for event in drain(screen):
            shown[str(event.topic)] = shown.get(str(event.topic), 0) + 1
        for event in drain(counter):
            newest[event.run_id] = event.payload["reward"]
        recorded = count(database)
        if not killed and recorded >= total // 4:
            os.kill(pid, signal.SIGKILL)
            killed = True
            print(f"-- the recorder (process {pid}) was killed with {recorded} of {total} events in its database --")
        table(bus, recorded, total)
    emitted = sum(miniray.get(runs))
    if not killed:
        os.kill(pid, signal.SIGKILL)
        print(f"-- the recorder (process {pid}) was killed at the end --")
    bus.publish(TelemetryEvent(Topic.CONTROL, "example", payload={"stop": True}))
    miniray.get(recording)
    table(bus, count(database), total)
    print(f"\nshown on the screen: {shown}\nnewest rewards: {newest}")
    report(database, emitted)
    bus.destroy()


def drain(found: queue.Queue[TelemetryEvent]) -> list[TelemetryEvent]:
    events = []
    while True:
        try:
            events.append(found.get_nowait())
        except queue.Empty:
            return events


def count(database: str) -> int:
    """How many events the recorder has written."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM recorded WHERE topic != 'control'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # it is not there yet


def table(bus: SharedBus | RunBus, recorded: int, total: int) -> None:
    """One line for each consumer: how far it is, how far behind, and what it lost."""
    print(f"{'consumer':<10} {'offset':>8} {'lag ms':>8} {'dropped':>8}    recorded {recorded} of {total}")
    for beat in bus.heartbeats():
        print(f"{beat.component_id:<10} {beat.last_seq_id:>8} {beat.lag_ms:>8.0f} {beat.dropped_events:>8}", flush=True)


def report(database: str, emitted: int) -> None:
    """Compare the database with what was emitted."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT run_id, count(*), count(DISTINCT seq_id), max(seq_id) FROM recorded "
            "WHERE topic != 'control' GROUP BY run_id"
        )
        rows = connection.execute(query).fetchall()
    recorded = sum(row[1] for row in rows)
    twice = sum(row[1] - row[2] for row in rows)
    missing = sum(row[3] - row[2] for row in rows) + emitted - sum(row[3] for row in rows)
    print(f"emitted {emitted}, recorded {recorded}, missing {missing}, twice {twice}")


if __name__ == "__main__":
    main()
