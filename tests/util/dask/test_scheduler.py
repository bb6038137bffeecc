"""Dask on tasks: each node of a graph is a task, and values go from task to task."""

import os

import pytest

dask = pytest.importorskip("dask")

import miniray  # noqa: E402
from miniray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get, ray_dask_get_sync  # noqa: E402

pytestmark = pytest.mark.usefixtures("session")


@dask.delayed
def add(x, y):
    return x + y


@dask.delayed
def where():
    return os.getpid()


def test_a_graph_is_computed_by_tasks():
    graph = add(add(1, 2), add(3, add(4, 5)))
    assert graph.compute(scheduler=ray_dask_get) == 15
    assert graph.compute(scheduler=ray_dask_get_sync) == 15
    assert where().compute(scheduler=ray_dask_get) != os.getpid()


def test_several_results_and_containers():
    assert dask.compute(add(1, 2), [add(3, 4), {"a": add(5, 6)}], scheduler=ray_dask_get) == (3, [7, {"a": 11}])


def test_a_deep_graph():
    total = add(0, 0)
    for _ in range(300):
        total = add(total, 1)
    assert total.compute(scheduler=ray_dask_get, optimize_graph=False) == 300


def test_a_graph_of_plain_tuples():
    graph = {"a": 1, "b": (lambda x: x + 1, "a"), "c": (sum, ["a", "b"])}
    assert ray_dask_get(graph, "c") == 3
    assert ray_dask_get(graph, [["a", "b"], "c"]) == [[1, 2], 3]
    (ref,) = ray_dask_get(graph, ["c"], ray_persist=True)
    assert miniray.get(ref) == 3


def test_an_error_is_that_of_the_task():
    with pytest.raises(ZeroDivisionError):
        dask.delayed(lambda: 1 / 0)().compute(scheduler=ray_dask_get)


def test_it_can_be_the_scheduler_of_a_block():
    with enable_dask_on_ray():
        assert where().compute() != os.getpid()
    enable_dask_on_ray()
    assert where().compute() != os.getpid()
    disable_dask_on_ray()


def test_arrays():
    array = pytest.importorskip("dask.array")
    numpy = pytest.importorskip("numpy")
    x = array.ones((100, 100), chunks=(50, 50))
    assert (x + x.T).sum().compute(scheduler=ray_dask_get) == 20_000
    assert numpy.array_equal(x.compute(scheduler=ray_dask_get), numpy.ones((100, 100)))
