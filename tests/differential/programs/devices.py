"""Tasks that ask for GPUs: which devices they are given, and what their environment says."""

# mypy: ignore-errors
from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from ..catalog import program

AREA = "devices"
SESSION = {"num_cpus": 3, "num_gpus": 4}


def both_came(folder):
    """Leaves a mark, and waits until there are two."""
    Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + 20
    while len(os.listdir(folder)) < 2 and time.monotonic() < end:
        time.sleep(0.02)


@program("devices/environment", "devices/ids")
def gpus_of_a_task(ray):
    def look():
        ids = ray.get_gpu_ids()
        accelerators = ray.get_runtime_context().get_accelerator_ids()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return [
            len(ids),
            type(ids[0]).__name__ if ids else None,
            accelerators["GPU"] == [str(i) for i in ids],
            visible == ",".join(map(str, ids)),
        ]

    def visible():
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    task = ray.remote(look)
    return [
        ray.get(task.options(num_gpus=1).remote()),
        ray.get(task.options(num_gpus=3).remote()),
        ray.get(task.options(num_gpus=0.5).remote()),
        ray.get(ray.remote(visible).remote()),
        ray.get(ray.remote(visible).options(num_gpus=0).remote()),
        ray.get(ray.remote(lambda: ray.get_gpu_ids()).remote()),
        ray.get_gpu_ids(),
    ]


@program("devices/fractions")
def fractions_of_gpus_share_a_device(ray):
    @ray.remote(num_gpus=0.5, num_cpus=0)
    def half(folder):
        mine = ray.get_gpu_ids()
        both_came(folder)
        return mine

    with tempfile.TemporaryDirectory() as folder:
        return [len(ids) for ids in ray.get([half.remote(folder), half.remote(folder)])]


@program("devices/ids")
def accelerator_ids_of_a_task(ray):
    @ray.remote
    def look():
        return {key: len(ids) for key, ids in ray.get_runtime_context().get_accelerator_ids().items() if ids}

    return ray.get([look.remote(), look.options(num_gpus=1).remote(), look.options(num_gpus=2).remote()])
