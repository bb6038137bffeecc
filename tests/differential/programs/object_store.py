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


@program("store/larger")
def larger_than_the_store(ray):
    import numpy

    @ray.remote
    def size_and_last(array):
        return array.size, int(array[-1])

    ref = ray.put(numpy.full(150 * MEGABYTE, 7, dtype="uint8"))
    return ray.get(size_and_last.remote(ref)), int(ray.get(ref)[0])


@program("store/in-use")
def views_while_the_store_overflows(ray):
    import numpy

    arrays = [ray.get(ray.put(numpy.full(20 * MEGABYTE, number, dtype="uint8"))) for number in range(8)]
    return [(int(array.min()), int(array.max()), array.flags.writeable) for array in arrays]
