"""`util.multiprocessing.Pool`: what programs for `multiprocessing.Pool` do with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import miniray
from miniray.exceptions import ActorDiedError
from miniray.util.channel import Receiver, channel
from miniray.util.multiprocessing import JoinableQueue, Pool, TimeoutError
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("session")


def square(value: int) -> int:
    return value * value


def add(left: int, right: int = 1) -> int:
    return left + right


def refuse_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


def wait(gate: Receiver) -> Any:
    return gate.recv()


def pid(_: Any) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def shared(session: Any) -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def test_map_and_starmap(shared: Pool) -> None:
    assert shared.map(square, range(10)) == [number**2 for number in range(10)]
    assert shared.map(square, (number for number in range(5)), chunksize=2) == [0, 1, 4, 9, 16]
    assert shared.map(square, []) == []
    assert shared.starmap(add, [(1, 2), (3,)]) == [3, 4]


def test_apply(shared: Pool) -> None:
    assert shared.apply(add, (1,)) == 2
    assert shared.apply(add, (1,), {"right": 5}) == 6
    assert shared.apply(add, (1,), kwds={"right": 6}) == 7
    assert shared.apply(lambda: "by value") == "by value"


def test_errors_are_raised_as_they_are(shared: Pool) -> None:
    for call in (
        lambda: shared.map(refuse_three, range(5)),
        lambda: shared.apply(refuse_three, (3,)),
        lambda: shared.starmap(refuse_three, [(3,)]),
    ):
        with pytest.raises(ValueError, match="^three$") as raised:
            call()
        assert type(raised.value) is ValueError


def test_a_result_can_be_waited_for(shared: Pool) -> None:
    tx, rx = channel()
    result = shared.apply_async(wait, (rx,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    result.wait(timeout=0.01)
    tx.send("value")
    assert result.get(timeout=20) == "value"
    assert result.ready()
    assert result.successful()
    failed = shared.map_async(refuse_three, range(5))
    failed.wait()
    assert not failed.successful()


def test_callbacks_get_the_value_or_the_error(shared: Pool) -> None:
    values: list[Any] = []
    errors: list[Any] = []
    shared.map_async(square, range(4), callback=values.append, error_callback=errors.append).wait()
    shared.apply_async(add, (1,), callback=values.append, error_callback=errors.append).wait()
    shared.starmap_async(add, [(1, 2)], 1, values.append).wait()
    shared.starmap_async(add, [(1, 3)], values.append).wait()  # as Ray has it
    assert values == [[0, 1, 4, 9], 2, [3], [4]]
    shared.apply_async(refuse_three, (3,), callback=values.append, error_callback=errors.append).wait()
    assert [str(error) for error in errors] == ["three"]


def test_a_callback_may_use_the_pool(shared: Pool) -> None:
    values: list[Any] = []
    shared.apply_async(add, (1,), callback=lambda value: values.append(shared.apply(add, (value,)))).wait()
    assert values == [3]


def test_imap_is_lazy_and_ordered(shared: Pool) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = shared.imap(square, numbers())
    assert taken == [0, 1]  # one for each process; the others are taken as results are
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert list(shared.imap(square, range(10), 3)) == [number**2 for number in range(10)]
    assert sorted(shared.imap_unordered(square, range(10), None)) == [number**2 for number in range(10)]
    assert list(shared.imap(square, iter(range(3)), None)) == [0, 1, 4]


def test_imap_goes_on_after_an_error(shared: Pool) -> None:
    results = shared.imap(refuse_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == [4]


def test_imap_waits_so_long_and_unordered_gives_what_is_there(shared: Pool) -> None:
    tx, rx = channel()
    results = shared.imap(wait, [rx])
    with pytest.raises(TimeoutError):
        results.next(timeout=0.01)
    tx.send("value")
    assert results.next(timeout=20) == "value"
    mixed = shared.imap_unordered(lambda gate: gate.recv() if gate else "first", [rx, None])
    assert next(mixed) == "first"
    tx.send("second")
    assert next(mixed) == "second"


def test_a_pool_ends_in_order() -> None:
    pool = Pool(1)
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()
    result = pool.map_async(square, [1, 2])
    pool.close()
    pool.close()
    for use in (lambda: pool.map(square, [1]), lambda: pool.imap(square, [1]), pool.__enter__):
        with pytest.raises(ValueError, match="Pool not running"):
            use()
    pool.join()
    assert result.get() == [1, 4]


def test_a_terminated_pool_runs_no_more() -> None:
    tx, rx = channel()
    with Pool(1) as pool:
        stuck = pool.apply_async(wait, (rx,))
    pool.join()
    with pytest.raises(ActorDiedError):
        stuck.get()


def test_processes_are_replaced_after_so_many_tasks() -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        assert len(set(pool.map(pid, range(6), chunksize=1))) == 3


def test_a_process_that_dies_is_an_error_and_no_hang() -> None:
    with Pool(1) as pool, pytest.raises(ActorDiedError):
        pool.apply_async(os._exit, (1,)).get(timeout=50)


def test_the_number_of_processes_is_checked() -> None:
    with pytest.raises(ValueError, match=r"Processes in the pool must be >0\."):
        Pool(0)
    with pytest.raises(ValueError, match="there are only 2 CPUs in the ray cluster"):
        Pool(3)


def test_options_reach_the_actors() -> None:
    with Pool(1, ray_remote_args={"num_cpus": 1}):
        wait_for(lambda: miniray.available_resources()["CPU"] == 1)


def test_the_standard_librarys_names_are_there() -> None:
    import multiprocessing

    assert TimeoutError is multiprocessing.TimeoutError
    assert JoinableQueue == multiprocessing.JoinableQueue


PROGRAM = """
from {module} import Pool

STATE = None
CALLS = 0

def helper(value):
    return STATE[0] * value

def set_up(*values):
    global STATE
    STATE = values

def work(value):
    return helper(value) + STATE[1]

if __name__ == "__main__":
    with Pool(processes=2, initializer=set_up, initargs=(10, 1)) as pool:
        print(pool.map(work, range(5)))
        print(sum(pool.imap_unordered(work, range(100), chunksize=7)))
        print(pool.apply_async(work, [7]).get(timeout=30))
        results = [pool.apply_async(work, (number,)) for number in range(3)]
        print([result.get() for result in results])
        print(pool.starmap(pow, [(2, 3), (3, 2)]))
"""


def test_a_program_for_multiprocessing_gives_the_same_here(tmp_path: Path) -> None:
    outputs = []
    for module in ("multiprocessing", "miniray.util.multiprocessing"):
        path = tmp_path / f"{module}_program.py"
        path.write_text(PROGRAM.format(module=module))
        done = subprocess.run([sys.executable, str(path)], capture_output=True, encoding="utf-8", timeout=50)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("[1, 11, 21, 31, 41]\n")
