"""Workers that are killed right after replying, a thousand times: nothing runs twice, and no reply is dropped."""

import os
import signal

import pytest

import miniray
from tests.faults.inside import appended, note
from tests.faults.scripts import run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

#: in each of two tests; where workers are not forked they take ten times as long to start
KILLS = 500 if os.environ.get("MINIRAY_START_METHOD", "fork") == "fork" else 50
CPUS = 4


@pytest.fixture(scope="module")
def workers():
    miniray.init("local", num_cpus=CPUS)
    yield
    miniray.shutdown()


@miniray.remote
def task(path, number):
    note(path, number)
    return number, os.getpid()


@pytest.mark.parametrize("retries", [0, 3])
def test_workers_killed_right_after_replying_lose_no_reply_and_run_nothing_twice(workers, tmp_path, retries):
    path = str(tmp_path / "runs")
    number = kills = 0
    while kills < KILLS:
        refs = [task.options(max_retries=retries).remote(path, number + offset) for offset in range(CPUS)]
        pids = set()
        for offset, ref in enumerate(refs):
            returned, pid = miniray.get(ref, timeout=20)
            assert returned == number + offset
            pids.add(pid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        kills += len(pids)
        number += CPUS
    runs = list(appended(path))
    assert sorted(map(int, runs)) == list(range(number))


def test_replies_on_their_way_when_their_worker_is_killed_are_used(workers, tmp_path):
    # Short tasks wait at each worker; one is killed as soon as the first result is here. What was running, or had not
    # been sent, runs again; whatever was answered does not.
    path = str(tmp_path / "runs")
    for start in range(0, 2000, 100):
        refs = [task.remote(path, start + offset) for offset in range(100)]
        _, pid = miniray.get(refs[0], timeout=20)
        os.kill(pid, signal.SIGKILL)
        assert [number for number, _ in miniray.get(refs, timeout=20)] == list(range(start, start + 100))
    runs = list(appended(path))
    assert set(map(int, runs)) == set(range(2000))
    assert all(runs.count(number) <= 2 for number in set(runs))


def test_the_news_of_a_death_that_overtakes_the_last_reply_does_not_cost_it():
    # The driver holds the interpreter while its workers reply and die. Then it finds the replies and the news of the
    # deaths in its inbox, in any order; also those of workers from which it has never heard before.
    run(
        """
        import ctypes
        ray.init(num_cpus=2)
        root = os.environ["MINIRAY_TMPDIR"]

        @ray.remote(max_retries=0)
        def reply_and_die(number):
            import threading
            from miniray.processes import current

            executor = current.core_or_none().executor

            def die():
                wait_for(lambda: executor._stats)  # what comes right after the reply
                hand_over_mail()
                os.kill(os.getpid(), signal.SIGKILL)

            threading.Thread(target=die, daemon=True).start()
            note(root + f"/started-{number}", os.getpid())
            wait_for(lambda: os.path.exists(root + f"/go-{number}"), 30)
            return os.getpid()

        sleep_without_letting_go = ctypes.PyDLL(None).usleep
        for number in range(12):
            refs = [reply_and_die.remote(number) for _ in range(2)]
            wait_for(lambda: len(appended(root + f"/started-{number}")) == 2)
            note(root + f"/go-{number}", "x")
            pids = [int(line) for line in appended(root + f"/started-{number}")]
            sleep_without_letting_go(150_000)  # if they need longer, the test is only milder
            wait_for(lambda: all(is_gone(pid) for pid in pids))
            assert sorted(ray.get(refs, timeout=20)) == sorted(pids)
        """
    )
