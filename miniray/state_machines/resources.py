"""What a node has to offer, what is taken, and which devices go with it.

Quantities are whole numbers of 1/10000, so that adding and taking away fractions stays exact. Some resources come in
devices (GPUs): a whole number of them takes that many free devices, a fraction takes a part of one, and several
fractions share one. `CPU` alone may go below zero: a task that was blocked in `get` goes on at once when its value is
there, although somebody else was given its CPU meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

UNIT = 10000
CPU = "CPU"
#: those whose use says how full a node is
_CRITICAL = (CPU, "memory")
#: resources that come in devices with ids
DEVICE_RESOURCES = frozenset({"GPU", "neuron_cores", "TPU", "NPU", "HPU"})


def to_units(resources: Mapping[str, float]) -> dict[str, int]:
    """Quantities as users give them, in units."""
    return {name: round(quantity * UNIT) for name, quantity in resources.items()}


def from_units(resources: Mapping[str, int]) -> dict[str, float]:
    """Quantities as users see them; what is used up is absent."""
    return {name: quantity / UNIT for name, quantity in resources.items() if quantity > 0}


class Allocation(Struct, eq=False):
    """What was taken from a node; `devices`: name -> (device number, units) each."""

    resources: dict[str, int]
    devices: dict[str, list[tuple[int, int]]] = {}

    def device_ids(self) -> dict[str, list[str]] | None:
        """Names of the devices, as programs see them; None without any."""
        if not self.devices:
            return None
        return {name: [str(number) for number, _ in taken] for name, taken in self.devices.items()}


class NodeResources:
    """The resources of one node, or of one bundle of a placement group.

    Args:
        total: in units.
        devices: of a bundle, the parts of its node's devices that are its own; by default each whole unit of a device
            resource is a device.

    `version` changes with everything that is taken or given back.
    """

    __slots__ = ("_devices", "available", "total", "version")

    def __init__(self, total: Mapping[str, int], devices: Mapping[str, list[tuple[int, int]]] | None = None) -> None:
        self.total = dict(total)
        self.available = dict(total)
        self.version = 0
        if devices is None:
            self._devices = {
                name: [UNIT] * (quantity // UNIT) for name, quantity in total.items() if name in DEVICE_RESOURCES
            }
        else:
            self._devices = {name: _only(parts) for name, parts in devices.items()}

    def could_fit(self, demand: Mapping[str, int]) -> bool:
        """Whether the node could ever serve it."""
        total = self.total
        return all(total.get(name, 0) >= quantity for name, quantity in demand.items() if quantity > 0)

    def fits(self, demand: Mapping[str, int]) -> bool:
        """Whether the node can serve it now."""
        available = self.available
        for name, quantity in demand.items():
            if quantity > 0 and available.get(name, 0) < quantity:
                return False
            if quantity > 0 and name in self._devices and self._choose_devices(name, quantity) is None:
                return False
        return True

    def missing(self, demand: Mapping[str, int]) -> dict[str, float]:
        """What the node could never offer of it: name -> what it has at most."""
        return {
            name: self.total.get(name, 0) / UNIT
            for name, quantity in demand.items()
            if quantity > self.total.get(name, 0)
        }

    def take(self, demand: Mapping[str, int]) -> Allocation:
        """Take it. It must fit."""
        if not self.fits(demand):
            raise ValueError(f"{dict(demand)} does not fit into {self.available}")
        self.version += 1
        allocation = Allocation({name: quantity for name, quantity in demand.items() if quantity > 0})
        for name, quantity in allocation.resources.items():
            self.available[name] -= quantity
            if name in self._devices:
                chosen = self._choose_devices(name, quantity)
                assert chosen is not None
                for number, units in chosen:
                    self._devices[name][number] -= units
                allocation.devices[name] = chosen
        return allocation

    def adopt(self, demand: Mapping[str, int], devices: Mapping[str, list[str]] | None = None) -> Allocation:
        """Take what an earlier head has given already, whether it fits or not; `devices`: which ones those were."""
        self.version += 1
        allocation = Allocation({name: quantity for name, quantity in demand.items() if quantity > 0})
        for name, quantity in allocation.resources.items():
            self.available[name] = self.available.get(name, 0) - quantity
            numbers = [int(number) for number in (devices or {}).get(name, ()) if number.isdigit()]
            if name in self._devices and numbers:
                each = min(quantity, UNIT)
                chosen = [(number, each) for number in numbers if number < len(self._devices[name])]
                for number, units in chosen:
                    self._devices[name][number] -= units
                allocation.devices[name] = chosen
        return allocation

    def give_back(self, allocation: Allocation) -> None:
        """Put back what `take` took."""
        self.version += 1
        for name, quantity in allocation.resources.items():
            self.available[name] += quantity
        for name, taken in allocation.devices.items():
            for number, units in taken:
                self._devices[name][number] += units

    def release_cpu(self, allocation: Allocation) -> None:
        """The holder is blocked: its CPUs are free until `reclaim_cpu`."""
        if CPU in allocation.resources:
            self.version += 1
            self.available[CPU] += allocation.resources[CPU]

    def reclaim_cpu(self, allocation: Allocation) -> None:
        """The holder goes on, even if that takes more CPUs than there are for a moment."""
        if CPU in allocation.resources:
            self.version += 1
            self.available[CPU] -= allocation.resources[CPU]

    def utilization(self) -> float:
        """How full it is: the fuller of what Ray calls critical, CPUs and memory."""
        fullest = 0.0
        for name in _CRITICAL:
            total = self.total.get(name, 0)
            if total:
                used = (total - self.available[name]) / total
                if used > fullest:
                    fullest = used
        return fullest

    def _choose_devices(self, name: str, quantity: int) -> list[tuple[int, int]] | None:
        free = self._devices[name]
        if quantity >= UNIT:
            whole = [number for number, units in enumerate(free) if units == UNIT]
            count = quantity // UNIT
            return [(number, UNIT) for number in whole[:count]] if len(whole) >= count else None
        # The fullest device that still has room, so that whole ones stay whole.
        fitting = [(units, number) for number, units in enumerate(free) if units >= quantity]
        return [(min(fitting)[1], quantity)] if fitting else None


def _only(parts: list[tuple[int, int]]) -> list[int]:
    """What is free of each device by its number, when only these parts of devices are there."""
    free = [0] * (1 + max((number for number, _ in parts), default=-1))
    for number, units in parts:
        free[number] += units
    return free
