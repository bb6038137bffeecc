"""The environment variables that follow from what a task was given: threads for its CPUs, and the devices it may see.

Ray's rules: ``OMP_NUM_THREADS`` is the task's CPUs (at least 1) unless the user has set it. ``CUDA_VISIBLE_DEVICES``
(and its kin) name the assigned devices while the task runs, and are put back after it; a task without devices finds
them as they were, or empty with ``RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1``; with
``RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1`` they are left alone.

A worker that only runs plain one-CPU tasks never gets here.
"""

from __future__ import annotations

import os

from miniray.messages.tasks import TaskExtras
from miniray.system import blas_threads

_UNIT = 10000

#: resource -> (the variable that lists the devices, the switch that leaves it alone)
_DEVICE_VARIABLES = {
    "GPU": ("CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"),
    "neuron_cores": ("NEURON_RT_VISIBLE_CORES", "RAY_EXPERIMENTAL_NOSET_NEURON_RT_VISIBLE_CORES"),
    "TPU": ("TPU_VISIBLE_CHIPS", "RAY_EXPERIMENTAL_NOSET_TPU_VISIBLE_CHIPS"),
    "HPU": ("HABANA_VISIBLE_MODULES", "RAY_EXPERIMENTAL_NOSET_HABANA_VISIBLE_MODULES"),
    "NPU": ("ASCEND_RT_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"),
}


class TaskEnvironment:
    """Sets and restores the variables of one worker."""

    def __init__(self) -> None:
        self._threads = 1
        self._changed: dict[str, str | None] = {}  #: variables to be put back, with what they were

    def enter(self, extras: TaskExtras) -> None:
        """A task with these settings begins. An actor's stay for its life."""
        resources = extras.resources
        cpus = _UNIT if resources is None else resources.get("CPU", 0)
        self._set_threads(max(1, cpus // _UNIT))
        if self._changed:
            self.restore()
        for resource, ids in extras.accelerator_ids.items():
            variable, switch = _DEVICE_VARIABLES.get(resource, ("", ""))
            if variable and os.environ.get(switch, "") not in ("1", "true"):
                self._set(variable, ",".join(ids))
        if not extras.accelerator_ids and os.environ.get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "") == "1":
            self._set("CUDA_VISIBLE_DEVICES", "")

    def restore(self) -> None:
        """Put the device variables back."""
        for name, value in self._changed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._changed.clear()

    def _set(self, name: str, value: str) -> None:
        self._changed.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def _set_threads(self, count: int) -> None:
        if count != self._threads and blas_threads.variable_is_ours:
            self._threads = count
            os.environ["OMP_NUM_THREADS"] = str(count)
            blas_threads.set_threads(count)
