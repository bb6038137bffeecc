"""A full object store: spilling, reading back, tasks that go on."""

# mypy: ignore-errors
from __future__ import annotations

from ..catalog import program

AREA = "store"
SESSION = {"num_cpus": 2, "object_store_memory": 100 * 1024 * 1024}
MEGABYTE = 1024 * 1024


@program("store/full")
def more_than_the_store_holds(ray):
    import numpy

    refs = [ray.put(numpy.full(20 * MEGABYTE, number, dtype="uint8")) for number in range(10)]
    return [int(ray.get(ref)[-1]) for ref in refs]


@program("store/spilled")
def spilled_values_as_arguments(ray):
    import numpy

    @ray.remote
    def last(array):
        return int(array[-1])

    refs = [ray.put(numpy.full(20 * MEGABYTE, number, dtype="uint8")) for number in range(8)]
    return ray.get([last.remote(ref) for ref in refs])


@program("store/argument")
def results_beyond_the_store(ray):
    import numpy

    @ray.remote
    def make(number):
        return numpy.full(20 * MEGABYTE, number, dtype="uint8")

    refs = [make.remote(number) for number in range(8)]
    return [int(ray.get(ref)[0]) for ref in refs]
