"""Local mode says of waits that never end that they do not, and why; and of no others."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

import miniray
from miniray.processes.local_deadlock import INTERVAL, LOOKS, DeadlockError
from miniray.processes.local_head import LocalWorkers
from miniray.processes.local_worker import LocalWorker


@pytest.fixture(scope="module", autouse=True)
def local_session() -> Iterator[None]:
    miniray.init(local_mode=True, num_cpus=2)
    yield
    miniray.shutdown()


def story_of(ref: miniray.ObjectRef) -> list[str]:
    with pytest.raises(DeadlockError) as caught:
        miniray.get(ref)
    text = str(caught.value)
    return text[text.index("Deadlock:") :].splitlines()


def test_it_is_said_within_a_second() -> None:
    assert INTERVAL * (LOOKS + 1) < 1


def test_an_actor_that_waits_for_itself() -> None:
    @miniray.remote
    class Alone:
        def outer(self, me) -> int:
            return miniray.get(me.inner.remote())

        def inner(self) -> int:
            return 1

    alone = Alone.remote()
    lines = story_of(alone.outer.remote(alone))
    assert lines[0] == "Deadlock: this program waits for itself, and would do so for ever."
    actor = f"of the actor {alone._actor_id.hex()[:8]}"
    assert lines[1].startswith(f"  Alone.outer() {actor} waits for ObjectRef(")
    assert lines[1].endswith(f"the result of Alone.inner() {actor}")
    assert lines[2] == f"  Alone.inner() {actor} waits for its turn, which Alone.outer() {actor} has"
    assert miniray.get(alone.inner.remote()) == 1, "the actor goes on"


def test_two_actors_that_wait_for_each_other() -> None:
    @miniray.remote
    class Peer:
        def meet(self, other) -> None:
            self.other = other

        def ask(self, times: int) -> int:
            return times and miniray.get(self.other.ask.remote(times - 1))

    one, other = Peer.remote(), Peer.remote()
    miniray.get([one.meet.remote(other), other.meet.remote(one)])
    assert miniray.get(one.ask.remote(1)) == 0
    lines = story_of(one.ask.remote(2))
    assert sum("the result of Peer.ask()" in line for line in lines) == 2


def test_a_coroutine_in_the_cycle() -> None:
    @miniray.remote
    class Awaits:
        async def ask(self, plain) -> int:
            return await plain.back.remote()

    @miniray.remote
    class Plain:
        def go(self, awaits, me) -> int:
            return miniray.get(awaits.ask.remote(me))

        def back(self) -> int:
            return 1

    plain = Plain.remote()
    assert any("Awaits.ask()" in line for line in story_of(plain.go.remote(Awaits.remote(), plain)))


def test_resources_that_nobody_will_give_back() -> None:
    @miniray.remote(num_cpus=1)
    class Holds:
        def ready(self) -> bool:
            return True

    holders = [Holds.remote() for _ in range(3)]
    with pytest.raises(DeadlockError, match="a free worker with 1 CPU"):
        miniray.get([holder.ready.remote() for holder in holders])


def test_resources_that_nobody_has() -> None:
    task = miniray.remote(num_cpus=100)(lambda: 1)
    with pytest.raises(DeadlockError, match="a free worker with 100 CPU"):
        miniray.get(task.remote())


# -- and no others -------------------------------------------------------------------------------------------------

LONG = INTERVAL * (LOOKS + 3)


def test_waiting_for_what_takes_long_is_no_deadlock() -> None:
    @miniray.remote
    def long() -> int:
        time.sleep(LONG)
        return 1

    @miniray.remote
    def chain(refs: list) -> int:
        return miniray.get(refs[0])

    assert miniray.get(chain.remote([chain.remote([long.remote()])])) == 1


def test_waiting_with_a_time_limit_is_no_deadlock() -> None:
    @miniray.remote
    class Alone:
        def outer(self, me) -> str:
            try:
                miniray.get(me.inner.remote(), timeout=LONG)
            except miniray.exceptions.GetTimeoutError:
                return "timed out"

        def inner(self) -> None: ...

    alone = Alone.remote()
    assert miniray.get(alone.outer.remote(alone)) == "timed out"


def test_a_coroutine_that_another_wakes_is_no_deadlock() -> None:
    @miniray.remote
    class Gate:
        def __init__(self) -> None:
            self.open = asyncio.Event()

        async def wait(self) -> int:
            await self.open.wait()
            return 1

        async def let_in(self) -> None:
            self.open.set()

    gate = Gate.remote()
    ref = gate.wait.remote()
    timer = threading.Timer(LONG, lambda: gate.let_in.remote())
    timer.start()
    assert miniray.get(ref) == 1
    timer.join()


def test_what_a_thread_of_ones_own_may_give_back_is_no_deadlock() -> None:
    @miniray.remote(num_cpus=2)
    class Holds:
        def ready(self) -> bool:
            return True

    first = Holds.remote()
    assert miniray.get(first.ready.remote())
    second = Holds.remote()

    def give_back() -> None:
        time.sleep(LONG)
        miniray.kill(first)

    thread = threading.Thread(target=give_back, daemon=True)
    thread.start()
    assert miniray.get(second.ready.remote())
    thread.join()


@pytest.mark.parametrize("who", ["the head", "the worker"])
def test_waiting_for_a_worker_that_takes_long_to_start_is_no_deadlock(monkeypatch: pytest.MonkeyPatch, who) -> None:
    place, name = {"the head": (LocalWorkers, "start"), "the worker": (LocalWorker, "_work")}[who]
    original = getattr(place, name)

    def after_a_while(self, *args, **options):
        threading.Event().wait(LONG)
        return original(self, *args, **options)

    monkeypatch.setattr(place, name, after_a_while)

    @miniray.remote(num_cpus=0)
    class New:
        def ready(self) -> bool:
            return True

    assert miniray.get(New.remote().ready.remote())


def test_waiting_for_the_first_of_two_is_no_deadlock() -> None:
    @miniray.remote
    class Alone:
        def outer(self, me) -> int:
            long = miniray.remote(lambda: time.sleep(LONG)).remote()
            ready, _ = miniray.wait([me.inner.remote(), long], num_returns=1)
            return len(ready)

        def inner(self) -> None: ...

    alone = Alone.remote()
    assert miniray.get(alone.outer.remote(alone)) == 1


def test_a_crowd_of_short_tasks_that_are_never_seen_running_is_no_deadlock() -> None:
    @miniray.remote
    def short() -> int:
        return 1

    shapes = [short.options(num_cpus=number / 1000) for number in range(1, 300)]
    assert miniray.get([shape.remote() for shape in shapes], timeout=60) == [1] * len(shapes)
