"""`util.queue.Queue`, and who takes no item with him."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
from typing import Any

import pytest

import miniray
from miniray.actor import get_actor
from miniray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from miniray.util.queue import Empty, Full, Queue
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("session")


@miniray.remote(num_cpus=0)
class Client:
    """Uses a queue in a process of its own."""

    def pid(self) -> int:
        return os.getpid()

    def get(self, queue: Queue) -> Any:
        return queue.get()

    def put(self, queue: Queue, item: Any) -> None:
        queue.put(item)


def waiting_takers(queue: Queue) -> int:
    return miniray.get(queue.actor.__ray_call__.remote(_count_takers))


def waiting_putters(queue: Queue) -> int:
    return miniray.get(queue.actor.__ray_call__.remote(_count_putters))


def _count_takers(actor: Any) -> int:
    return sum(len(outlet.takers) for outlet in actor._line.outlets.values())


def _count_putters(actor: Any) -> int:
    return len(actor._line.putters)


@pytest.fixture
def client() -> Any:
    return Client.remote()


def test_items_come_out_in_the_order_they_went_in() -> None:
    q = Queue()
    for item in (1, "two", [3]):
        q.put(item)
    assert [q.get() for _ in range(3)] == [1, "two", [3]]


def test_the_errors_are_the_standard_librarys_too() -> None:
    q = Queue(maxsize=1)
    with pytest.raises(Empty) as empty:
        q.get_nowait()
    assert isinstance(empty.value, queue.Empty)
    q.put(1)
    with pytest.raises(Full) as full:
        q.put(2, block=False)
    assert isinstance(full.value, queue.Full)


def test_errors_after_waiting_come_from_the_actor_as_in_ray() -> None:
    q = Queue(maxsize=1)
    with pytest.raises(Empty) as empty:
        q.get(timeout=0.01)
    assert isinstance(empty.value, RayTaskError)
    q.put(1)
    with pytest.raises(Full) as full:
        q.put(2, timeout=0.01)
    assert isinstance(full.value, RayTaskError)


def test_a_negative_timeout_is_an_error() -> None:
    q = Queue()
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        q.get(timeout=-1)
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        q.put(1, timeout=-1)


def test_sizes() -> None:
    q = Queue(maxsize=2)
    assert (len(q), q.size(), q.qsize(), q.empty(), q.full()) == (0, 0, 0, True, False)
    q.put_nowait_batch([1, 2])
    assert (len(q), q.size(), q.qsize(), q.empty(), q.full()) == (2, 2, 2, False, True)
    assert not Queue(maxsize=-1).full()


def test_batches_are_all_or_nothing() -> None:
    q = Queue(maxsize=2)
    with pytest.raises(Full, match=r"Cannot add 3 items to queue of size 0 and maxsize 2\."):
        q.put_nowait_batch([1, 2, 3])
    q.put_nowait_batch([1, 2])
    with pytest.raises(Empty, match=r"Cannot get 3 items from queue of size 2\."):
        q.get_nowait_batch(3)
    assert q.get_nowait_batch(2) == [1, 2]
    assert q.get_nowait_batch(0) == []


def test_batch_arguments_are_checked() -> None:
    q = Queue()
    with pytest.raises(TypeError, match="Argument 'items' must be an Iterable"):
        q.put_nowait_batch(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Argument 'num_items' must be an int"):
        q.get_nowait_batch("3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'num_items' must be nonnegative"):
        q.get_nowait_batch(-1)


def test_a_ref_as_item_is_its_value_and_inside_an_item_a_ref() -> None:
    q = Queue()
    ref = miniray.put(5)
    q.put(ref)
    q.put([ref])
    assert q.get() == 5
    assert miniray.get(q.get()) == [5]


def test_a_get_waits_for_a_put_of_another_process(client: Any) -> None:
    q = Queue()
    got = client.get.remote(q)
    wait_for(lambda: waiting_takers(q) == 1)
    q.put("item")
    assert miniray.get(got) == "item"


def test_a_put_waits_for_room(client: Any) -> None:
    q = Queue(maxsize=1)
    q.put(1)
    done = client.put.remote(q, 2)
    wait_for(lambda: waiting_putters(q) == 1)
    assert q.get() == 1
    miniray.get(done)
    assert q.get() == 2


def test_the_async_methods() -> None:
    q = Queue(maxsize=1)

    async def use() -> None:
        await q.put_async(1)
        with pytest.raises(Full):
            await q.put_async(2, block=False)
        with pytest.raises(Full):
            await q.put_async(2, timeout=0.01)
        late = asyncio.ensure_future(q.put_async(2))
        assert await q.get_async() == 1
        await late
        assert await q.get_async() == 2
        with pytest.raises(Empty):
            await q.get_async(block=False)
        with pytest.raises(Empty):
            await q.get_async(timeout=0.01)
        with pytest.raises(ValueError, match="non-negative"):
            await q.get_async(timeout=-1)

    asyncio.run(use())


def test_a_cancelled_async_getter_takes_no_item() -> None:
    q = Queue()

    async def use() -> None:
        getter = asyncio.ensure_future(q.get_async())
        while await q.actor.__ray_call__.remote(_count_takers) == 0:
            pass
        getter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getter
        await q.put_async("item")
        assert await q.get_async(timeout=10) == "item"

    asyncio.run(use())


def test_a_getter_that_is_cancelled_when_its_item_has_come_gives_it_back() -> None:
    q = Queue()

    async def use() -> None:
        getter = asyncio.ensure_future(q.get_async())
        while await q.actor.__ray_call__.remote(_count_takers) == 0:
            pass
        q.put("item")  # blocks the loop, so that the answer cannot be looked at before the cancellation
        getter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getter
        assert await q.get_async(timeout=10) == "item"

    asyncio.run(use())


def test_a_cancelled_async_putter_does_not_put() -> None:
    q = Queue(maxsize=1)

    async def use() -> None:
        await q.put_async(1)
        putter = asyncio.ensure_future(q.put_async(2))
        while await q.actor.__ray_call__.remote(_count_putters) == 0:
            pass
        putter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putter
        assert await q.get_async() == 1
        await q.put_async(3)
        assert await q.get_async() == 3

    asyncio.run(use())


def test_a_cancelled_task_takes_no_item() -> None:
    q = Queue()

    @miniray.remote(num_cpus=0)
    def get(q: Queue) -> Any:
        return q.get()

    ref = get.remote(q)
    wait_for(lambda: waiting_takers(q) == 1)
    miniray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        miniray.get(ref)
    wait_for(lambda: waiting_takers(q) == 0)
    q.put("item")
    assert q.get(timeout=10) == "item"


def test_a_process_that_is_killed_while_it_waits_takes_no_item(client: Any) -> None:
    q = Queue()
    pid = miniray.get(client.pid.remote())
    got = client.get.remote(q)
    wait_for(lambda: waiting_takers(q) == 1)
    os.kill(pid, signal.SIGKILL)
    q.put("item")
    assert q.get(timeout=10) == "item"
    with pytest.raises(ActorDiedError):
        miniray.get(got)


def test_a_process_that_is_killed_when_its_item_is_under_way_takes_no_item(client: Any) -> None:
    q = Queue()
    pid = miniray.get(client.pid.remote())
    got = client.get.remote(q)
    wait_for(lambda: waiting_takers(q) == 1)
    os.kill(pid, signal.SIGSTOP)
    q.put("first")
    assert waiting_takers(q) == 0
    q.put("second")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: q.qsize() == 2)
    assert [q.get(), q.get()] == ["first", "second"]
    with pytest.raises(ActorDiedError):
        miniray.get(got)


def test_a_signal_handler_that_raises_out_of_get_takes_no_item() -> None:
    q = Queue()

    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        main = threading.get_ident()

        def signal_when_it_waits() -> None:
            wait_for(lambda: waiting_takers(q) == 1)
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=signal_when_it_waits)
        thread.start()
        with pytest.raises(Interrupted):
            q.get()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    q.put("item")
    assert q.get(timeout=10) == "item"


def test_more_getters_may_wait_than_ray_allows_and_a_put_still_comes_through() -> None:
    q = Queue()
    getters = [q.actor.get.remote() for _ in range(1100)]
    for number in range(1100):
        q.actor.put_nowait.remote(number)
    assert miniray.get(getters) == list(range(1100))


def test_the_actor_has_rays_methods() -> None:
    q = Queue(maxsize=1)
    miniray.get(q.actor.put.remote(1))
    with pytest.raises(asyncio.QueueFull):
        miniray.get(q.actor.put_nowait.remote(2))
    with pytest.raises(Full):
        miniray.get(q.actor.put.remote(2, 0.01))
    assert miniray.get(q.actor.get.remote()) == 1
    with pytest.raises(asyncio.QueueEmpty):
        miniray.get(q.actor.get_nowait.remote())
    with pytest.raises(Empty):
        miniray.get(q.actor.get.remote(0.01))


def test_actor_options_reach_the_actor() -> None:
    q = Queue(actor_options={"name": "the queue"})
    assert get_actor("the queue") == q.actor
    with pytest.raises(ValueError, match="Invalid option keyword"):
        Queue(actor_options={"nonsense": 1})


@pytest.mark.parametrize("force", [False, True])
def test_shutdown_ends_those_who_wait(client: Any, force: bool) -> None:
    q = Queue()
    got = client.get.remote(q)
    wait_for(lambda: waiting_takers(q) == 1)
    q.shutdown(force=force)
    assert q.actor is None
    with pytest.raises(ActorDiedError):
        miniray.get(got)
    q.shutdown()
