"""The head is killed at random moments under load, also while it commits: what was acknowledged is there, and a durable
consumer gets every event once.

``MINIRAY_HEAD_KILLS`` says how often (50 in the full run); four in ten of the kills wait for a commit to begin.
"""

import glob
import os
import random
import time

import pytest

from tests.faults.shared_head import Shared
from tests.waiting import wait_for

KILLS = int(os.environ.get("MINIRAY_HEAD_KILLS", "4"))

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(120 + 20 * KILLS),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no session outlives its head without fork"),
]

LOAD = """
import threading
from miniray.processes import current
from miniray.state_machines.table_prefix import TablePrefix

@miniray.remote
def double(value):
    return 2 * value

@miniray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count

core = current.core_or_none()
written, heard, wrong, running = [], [], [], [True]

def write():
    number = 0
    while running[0]:
        number += 1
        key = b"w%d" % number
        try:
            if kv._internal_kv_put(key, key, overwrite=False):
                wrong.append(("was there already", key))
            written.append(key)
            if number % 7 == 0:
                if kv._internal_kv_del(key) != 1:
                    wrong.append(("was not there", key))
                written.remove(key)
        except BaseException as error:
            wrong.append(("write", repr(error)))

def work():
    counter, count = Counter.remote(), 0
    while running[0]:
        try:
            if miniray.get([double.remote(n) for n in range(5)]) != [0, 2, 4, 6, 8]:
                wrong.append("tasks")
            count += 1
            if miniray.get(counter.add.remote()) != count:
                wrong.append("calls")
        except BaseException as error:
            wrong.append(("work", repr(error)))

def listen():
    watch = core.head_client.watch(TablePrefix.KV, consumer="listener", durable=True, prefix=b"w", namespace=b"")
    last = False
    while not last:
        changes = watch.take(0.5)
        last = any(change.key == b"w-last" for change in changes)
        heard.extend((change.sequence, change.key, change.value) for change in changes)
        if changes:
            watch.done()
    watch.close()

threads = [threading.Thread(target=job, daemon=True) for job in (listen, write, work)]
for thread in threads:
    thread.start()
    time.sleep(0.05)

def finish():
    running[0] = False
    for thread in threads[1:]:
        thread.join(60)
    kv._internal_kv_put(b"w-last", b"w-last")  # the listener hears everything up to here
    written.append(b"w-last")
    return [thread.name for thread in threads[1:] if thread.is_alive()]

def check():
    threads[0].join(60)
    numbers = [sequence for sequence, _, _ in heard]
    if numbers != sorted(set(numbers)):
        wrong.append("order of events")
    rows = {}
    for _, key, value in heard:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    there = set(kv._internal_kv_list(b"w"))
    puts = [key for _, key, value in heard if value]
    return {
        "wrong": wrong,
        "missing": sorted(set(written) - there),
        "surplus": sorted(there - set(written)),
        "not heard": sorted(there - set(rows)),
        "heard too often": len(puts) - len(set(puts)),
        "written": len(written),
    }
"""


@pytest.fixture
def shared():
    shared = Shared()
    shared.start()
    yield shared
    shared.stop()


def wait_for_a_commit(directory):
    """Return in the moment in which the database's log is written; its size tells only for the first 4 MB."""

    def written():
        return [os.stat(path).st_mtime_ns for path in glob.glob(os.path.join(directory, "gcs", "tables.sqlite-wal"))]

    before = written()
    deadline = time.monotonic() + 20
    while written() == before:
        assert time.monotonic() < deadline, "nothing is committed"


def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_heard_twice(shared):
    chance = random.Random(KILLS)
    driver = shared.driver(LOAD)
    for number in range(KILLS):
        before = driver.ask("len(written)")
        wait_for(lambda before=before: driver.ask("len(written)") > before + 20, 60)
        if number % 5 < 2:
            wait_for_a_commit(shared.info().directory)
        else:
            time.sleep(chance.random() * 0.5)  # the moment is to be a random one; nothing is waited for
        shared.kill()
        assert "takes its place" in shared.start()
    assert driver.ask("finish()") == []
    found = driver.ask("check()")
    assert found.pop("written") > 20 * KILLS
    assert not any(found.values()), found
    driver.leave()
