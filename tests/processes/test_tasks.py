"""Tasks on real workers: nesting, spreading, stealing, taking turns; and calls from every corner of a program."""

import asyncio
import os
import signal
import threading
import time

import pytest

import miniray
from miniray import exceptions
from tests.faults.inside import appended, note
from tests.faults.scripts import Program, run
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)


@miniray.remote
def same(value):
    return value


@miniray.remote
def get_pid():
    return os.getpid()


@miniray.remote
def wait_for_file(path):
    wait_for(lambda: os.path.exists(path), 30)
    return os.getpid()


# ---- tasks that wait for tasks ----


@pytest.fixture(scope="module")
def one_cpu():
    with Program(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def nested(depth):
            return 0 if depth == 0 else 1 + ray.get(nested.remote(depth - 1))

        @ray.remote
        def fib(n):
            return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

        @ray.remote
        def same(value):
            return value

        @ray.remote
        def wait_for_ref(refs):
            return ray.get(refs[0])

        @ray.remote
        def submit_and_wait():
            # What it waits for is queued behind it at this very worker, or goes elsewhere.
            refs = [same.remote(number) for number in range(50)]
            ready, rest = ray.wait(refs, num_returns=50)
            return len(ready)

        print("nested", ray.get(nested.remote(20)), flush=True)
        print("fib", ray.get(fib.remote(9)), flush=True)
        ray.get([same.remote(0) for _ in range(200)])
        print("behind", ray.get([submit_and_wait.remote() for _ in range(4)]), flush=True)

        late = same.remote("late")
        print("ref", ray.get([wait_for_ref.remote([late]) for _ in range(3)]), flush=True)
        wait_for(lambda: ray.available_resources().get("CPU") == 1.0)
        print("free", flush=True)
        """
    ) as program:
        yield program


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("nested", "20"),
        ("fib", "34"),
        ("behind", "[50, 50, 50, 50]"),
        ("ref", "['late', 'late', 'late']"),
        ("free", ""),
    ],
)
def test_on_one_cpu_tasks_that_wait_for_tasks_do_not_deadlock(one_cpu, what, result):
    assert one_cpu.read(what, 30) == result


def test_a_long_task_does_not_hold_up_short_ones_that_were_sent_behind_it(session, tmp_path):
    path = str(tmp_path / "go")

    @miniray.remote
    def step(number, block):
        if block:
            wait_for(lambda: os.path.exists(path), 30)
        return number

    miniray.get([step.remote(0, False) for _ in range(200)])
    slow = step.remote(-1, True)
    assert miniray.get([step.remote(number, False) for number in range(300)], timeout=20) == list(range(300))
    assert miniray.wait([slow], timeout=0) == ([], [slow])
    note(path, "go")
    assert miniray.get(slow, timeout=10) == -1


def test_long_tasks_spread_over_all_workers(session, tmp_path):
    path, go = str(tmp_path / "running"), str(tmp_path / "go")

    @miniray.remote
    def long():
        note(path, os.getpid())
        wait_for(lambda: os.path.exists(go), 30)
        return os.getpid()

    for _ in range(3):
        refs = [long.remote() for _ in range(2)]
        wait_for(lambda: len(appended(path)) == 2, 10, "both run at once")
        note(go, "go")
        assert len(set(miniray.get(refs))) == 2
        os.unlink(path)
        os.unlink(go)


def test_short_tasks_of_one_function_share_few_workers(session):
    miniray.get([get_pid.remote() for _ in range(200)])
    assert len(set(miniray.get([get_pid.remote() for _ in range(1000)]))) <= 2


@pytest.mark.fault
def test_two_drivers_on_one_head_starve_neither_each_other_nor_the_children_of_tasks():
    greedy = """
    ray.init("auto")

    @ray.remote
    def burn():
        deadline = time.perf_counter() + 0.002
        while time.perf_counter() < deadline:
            pass

    @ray.remote
    def wait_for_child(path):
        wait_for(lambda: os.path.exists(path), 60)
        return ray.get(burn.remote())

    flood = sys.argv[1] + "-flood"
    parent = wait_for_child.remote(flood)
    refs = [burn.remote() for _ in range(100_000)]
    note(flood, "x")
    print("busy", flush=True)
    ray.get(parent)
    print("child", flush=True)
    wait_for(lambda: os.path.exists(sys.argv[1]), 60)
    os._exit(0)
    """
    modest = """
    ray.init("auto")

    @ray.remote
    def f(x):
        return x + 1

    for number in range(20):
        assert ray.get(f.remote(number), timeout=20) == number + 1
    """
    with Program("") as root:
        root.wait()
        code = """
        from tests.processes.bare_driver import BareDriver
        with BareDriver(private=False, num_cpus=2):
            print("head", flush=True)
            wait_for(lambda: os.path.exists(sys.argv[1]), 60)
        """
        done = os.path.join(root.root, "done")
        with Program(code, done, root=root.root) as head:
            head.read("head")
            with Program(greedy, done + "-greedy", root=root.root) as first:
                first.read("busy")
                with Program(modest, root=root.root) as second:
                    assert second.wait(30) == 0, second.report()
                first.read("child", 30)
                note(done + "-greedy", "x")
                first.wait()
            note(done, "x")
            assert head.wait() == 0, head.report()
            head.no_process_is_left()
        assert not head.directories()


# ---- get and wait ----


def test_timeout_zero_looks_and_does_not_wait(session, tmp_path):
    path = str(tmp_path / "go")
    slow, quick = wait_for_file.remote(path), same.remote(1)
    miniray.get(quick)
    assert miniray.get(quick, timeout=0) == 1
    with pytest.raises(exceptions.GetTimeoutError):
        miniray.get(slow, timeout=0)
    with pytest.raises(TimeoutError):
        miniray.get([quick, slow], timeout=0)
    assert miniray.wait([slow, quick], timeout=0) == ([quick], [slow])
    note(path, "go")
    miniray.get(slow)


def test_ten_thousand_refs_in_one_get_and_one_wait(session):
    refs = [same.remote(number) for number in range(10_000)]
    ready, rest = miniray.wait(refs, num_returns=len(refs), timeout=30)
    assert (len(ready), rest) == (10_000, [])
    assert miniray.get(refs) == list(range(10_000))


def test_the_same_ref_many_times(session):
    ref = same.remote("x")
    assert miniray.get([ref] * 1000) == ["x"] * 1000


def test_a_ref_of_an_earlier_session_is_an_error():
    run(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def f(x):
            return x

        refs = [f.remote(1), ray.put(2), ray.put(b"x" * 1_000_000), f.remote(3)]
        ray.get(refs[:3])
        ray.shutdown()
        ray.init(num_cpus=1)
        for ref in refs:
            for call in (
                lambda: ray.get(ref, timeout=5),
                lambda: ray.wait([ref], timeout=5),
                lambda: f.remote(ref),
                lambda: f.remote([ref]),
            ):
                try:
                    call()
                except ValueError as error:
                    assert "earlier session" in str(error)
                else:
                    raise AssertionError("no error")
        assert ray.get(f.remote(4)) == 4
        """
    )


# ---- from anywhere ----


def test_eight_threads_at_once(session):
    wrong = []

    def work(number):
        try:
            for step in range(60):
                value = number * 1000 + step
                refs = [same.remote(value), miniray.put(value), same.remote(miniray.put(value))]
                if miniray.get(refs, timeout=20) != [value] * 3:
                    wrong.append(value)
                ready, _ = miniray.wait([same.remote(value)], timeout=20)
                if miniray.get(ready) != [value]:
                    wrong.append(-value)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    work(8)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_asyncio_program_may_await_refs_and_block_in_its_thread_pool(session, tmp_path):
    path = str(tmp_path / "go")

    async def main():
        loop = asyncio.get_running_loop()
        awaited = await asyncio.gather(*[same.remote(number) for number in range(200)])
        assert awaited == list(range(200))
        pooled = await asyncio.gather(
            *[loop.run_in_executor(None, lambda n=n: miniray.get(same.remote(n), timeout=20)) for n in range(40)]
        )
        assert pooled == list(range(40))
        assert miniray.get(same.remote("blocking"), timeout=20) == "blocking"
        assert miniray.wait([same.remote(1)], timeout=20)[1] == []
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait_for_file.remote(path).as_future(), 0.05)
        note(path, "go")
        return await same.remote("end")

    assert asyncio.run(main()) == "end"


def test_get_and_wait_inside_a_signal_handler_that_interrupts_a_get():
    run(
        """
        ray.init(num_cpus=2)

        @ray.remote
        def same(x):
            return x

        @ray.remote
        def count_up(limit):
            return sum(range(limit))

        handled = []

        def handler(number, frame):
            ref = same.remote(len(handled))
            ready, rest = ray.wait([ref], timeout=10)
            assert rest == []
            handled.append(ray.get(ref, timeout=10))
            if len(handled) < 200:
                signal.setitimer(signal.ITIMER_REAL, 0.002)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        for number in range(300):
            assert ray.get(same.remote(number), timeout=10) == number
            assert ray.get([same.remote(n) for n in range(20)], timeout=10) == list(range(20))
        wait_for(lambda: len(handled) == 200)
        assert handled == list(range(len(handled)))
        """,
        timeout=40,
    )


@pytest.mark.parametrize("what", ["same.remote('outer')", "actor.same.remote('outer')", "ray.put('outer')"])
def test_a_handler_installed_since_the_last_wait_waits_for_the_end_of_a_submission(what):
    run(
        f"""
        ray.init(num_cpus=1)

        @ray.remote
        def same(x):
            return x

        @ray.remote(num_cpus=0)
        class Actor:
            def same(self, x):
                return x

        actor = Actor.remote()
        ray.get(actor.same.remote(1))
        inner = []
        core = ray.put(0)._core._core

        class Lock:  # the signal comes while it is held, and what was sent has been answered
            def __enter__(self):
                lock.acquire()

            def __exit__(self, *error):
                if not came:
                    came.append(True)
                    os.kill(os.getpid(), signal.SIGUSR1)
                    for _ in range(1000):
                        pass
                    assert inner == []
                lock.release()

            def __getattr__(self, name):
                return getattr(lock, name)

        def handler(number, frame):
            inner.append(ray.get(same.remote("inner"), timeout=20))

        signal.signal(signal.SIGUSR1, handler)
        came, lock = [], core.lock
        core.lock = Lock()
        outer = {what}
        core.lock = lock
        assert ray.get(outer, timeout=20) == "outer"
        assert inner == ["inner"]
        """
    )


def test_shutdown_inside_a_signal_handler_that_interrupts_a_get():
    run(
        """
        ray.init(num_cpus=1)

        @ray.remote
        def forever():
            time.sleep(60)

        def handler(number, frame):
            ray.shutdown()

        signal.signal(signal.SIGALRM, handler)
        refs = [forever.remote()]
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            ray.get(refs)
        except ray.exceptions.RaySystemError as error:
            assert "shut down" in str(error)
        else:
            raise AssertionError("no error")
        assert not ray.is_initialized()
        ray.init(num_cpus=1)
        """
    )


def test_shutdown_from_another_thread_ends_a_get():
    run(
        """
        import threading
        ray.init(num_cpus=1)

        @ray.remote
        def forever():
            time.sleep(60)

        ref = forever.remote()
        errors = []

        def getter():
            try:
                ray.get(ref)
            except ray.exceptions.RaySystemError as error:
                errors.append(error)

        threads = [threading.Thread(target=getter) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: not ray.available_resources().get("CPU"))
        ray.shutdown()
        for thread in threads:
            thread.join(10)
        assert len(errors) == 3, errors
        """
    )


def test_a_handler_that_raises_out_of_a_get_leaves_the_session_usable():
    run(
        """
        ray.init(num_cpus=1)

        class Late(Exception):
            pass

        def handler(number, frame):
            raise Late

        @ray.remote
        def nap(seconds):
            time.sleep(seconds)
            return seconds

        signal.signal(signal.SIGALRM, handler)
        ray.get(nap.remote(0))
        for _ in range(20):
            ref = nap.remote(0.05)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            try:
                ray.get(ref)
                raise AssertionError("no alarm")
            except Late:
                pass
            assert ray.get(ref, timeout=10) == 0.05
        """
    )


def test_get_continues_after_ctrl_c(session, tmp_path):
    path = str(tmp_path / "go")
    ref = wait_for_file.remote(path)
    for _ in range(5):
        timer = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            miniray.get(ref)
            time.sleep(10)
        timer.join()
        assert miniray.get(same.remote(1), timeout=10) == 1
    note(path, "go")
    assert miniray.get(ref, timeout=10) > 0
