"""A full store and a full disk: the error, and what is still there."""

# mypy: ignore-errors
from __future__ import annotations

from ..catalog import program

AREA = "store"
SESSION = {
    "num_cpus": 2,
    "object_store_memory": 100 * 1024 * 1024,
    "_system_config": {"local_fs_capacity_threshold": 0.0, "local_fs_monitor_interval_ms": 100},
}
MEGABYTE = 1024 * 1024


@program("store/disk-full")
def put_with_a_full_disk(ray):
    import numpy

    kept = []
    try:
        for number in range(10):
            kept.append(ray.put(numpy.full(30 * MEGABYTE, number, dtype="uint8")))
    except ray.exceptions.OutOfDiskError as error:
        text = str(error)
    return text, len(kept), [int(ray.get(ref)[-1]) for ref in kept]


@program("store/disk-full")
def put_of_something_huge_with_a_full_disk(ray):
    import numpy

    try:
        ray.put(numpy.zeros(300 * MEGABYTE, dtype="uint8"))
    except ray.exceptions.OutOfDiskError as error:
        return str(error)


@program("store/disk-full")
def result_with_a_full_disk(ray):
    import numpy

    @ray.remote(max_retries=0)
    def make():
        return numpy.zeros(300 * MEGABYTE, dtype="uint8")

    try:
        ray.get(make.remote())
    except ray.exceptions.RayTaskError as error:
        return type(error).__name__, isinstance(error, ray.exceptions.OutOfDiskError), type(error.cause).__name__
