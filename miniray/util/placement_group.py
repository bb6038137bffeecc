"""Placement groups: bundles of resources that are reserved together, and tasks and actors that run in them.

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
    get(group.ready())
    f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()

Source: https://docs.ray.io/en/latest/ray-core/scheduling/placement-group.html
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

from miniray import options as option_table
from miniray.ids import NodeID, PlacementGroupID
from miniray.ids import placement_group_id as new_group_id
from miniray.label_selectors import check_label_selector
from miniray.messages.control import Query
from miniray.messages.placement import PlacementGroupSpec
from miniray.processes import current, placement_client
from miniray.processes.auto_init import require_core
from miniray.processes.other_engine import handed_over
from miniray.refs import ObjectRef
from miniray.scheduling_options import check_bundle_index, check_fits, fits_a_bundle

VALID_PLACEMENT_GROUP_STRATEGIES = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}
NODE_ID_LABEL_KEY = "ray.io/node-id"
#: accelerators that come in domains, whose bundles must all ask for them
_DOMAIN_ACCELERATORS = ("GB200", "GB300")


class PlacementGroup:
    """A handle of a placement group; copies of it are equal.

    Args:
        id: of the group.
        bundle_cache: its bundles, if they are known.
    """

    @staticmethod
    def empty() -> PlacementGroup:
        """No group."""
        return PlacementGroup(PlacementGroupID.nil())

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @property
    def is_empty(self) -> bool:
        """Whether it is no group."""
        return self.id.is_nil()

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref of this handle, ready when all bundles are reserved.

        Getting it raises TaskPlacementGroupRemoved when the group is removed before.
        """
        core = require_core()
        if self.is_empty:
            return core.objects.put(self)
        return placement_client.ready_ref(core, self.id.binary(), self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether all bundles are reserved within so many seconds.

        Raises:
            Exception: there is no such group (any more).
        """
        reserved = placement_client.wait_for_group(require_core(), self.id.binary(), timeout_seconds)
        if reserved is None:
            raise Exception(f"Placement group {self.id} does not exist.")
        return reserved

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The bundles: resources by name.

        Raises:
            KeyError: there is no such group.
        """
        self._fill_bundle_cache_if_needed()
        assert self.bundle_cache is not None
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def _fill_bundle_cache_if_needed(self) -> None:
        if not self.bundle_cache:
            row = placement_client.group_row(require_core(), self.id.binary())
            if row is None:
                raise KeyError("bundles")
            self.bundle_cache = row["bundles"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@handed_over
def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, now or as soon as there is room; returns before they are reserved.

    Args:
        bundles: resources by name, for each bundle.
        strategy: "PACK" (few nodes; the default), "SPREAD" (many), "STRICT_PACK" (one), "STRICT_SPREAD" (a node each).
        name: under which `get_placement_group` finds it in this namespace.
        lifetime: "detached" if it is to outlive its job, or the detached actor that makes it; else None.
        _soft_target_node_id: with STRICT_PACK, the id in hex of the node that is tried first.
        bundle_label_selector: a label selector for each bundle.
        topology_strategy: label to strategy, in place of `strategy`: "ray.io/node-id" to one of the above; another
            label to "STRICT_PACK": all nodes have the same value of it.

    Raises:
        ValueError: an argument is malformed.
        RaySystemError: the name is taken.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.placement_group.html
    """
    core = require_core()
    validate_placement_group(
        bundles, strategy, lifetime, _soft_target_node_id, bundle_label_selector, topology_strategy
    )
    context = current.task_context.get() or core.main_context
    group_id = new_group_id(core.job_id, os.urandom(14))
    topology = next((key for key in topology_strategy or () if key != NODE_ID_LABEL_KEY), "")
    spec = PlacementGroupSpec(
        group_id,
        core.job_id,
        name or "",
        core.namespace,
        _derive_node_level_strategy(strategy, topology_strategy),
        [
            {key: units for key, value in bundle.items() if (units := option_table.to_units(value))}
            for bundle in bundles
        ],
        detached=lifetime == "detached",
        depth=context.depth + 1,
        soft_target=bytes.fromhex(_soft_target_node_id) if _soft_target_node_id else b"",
        label_selectors=bundle_label_selector or [],
        topology=topology,
    )
    placement_client.create_group(core, spec)
    cache = [{key: float(value) for key, value in bundle.items()} for bundle in bundles]
    return PlacementGroup(PlacementGroupID(group_id), cache)


@handed_over
def remove_placement_group(placement_group: PlacementGroup) -> None:
    """End a group: its resources are free again, its tasks and actors are killed.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.remove_placement_group.html
    """
    assert placement_group is not None
    placement_client.remove_group(require_core(), placement_group.id.binary())


@handed_over
def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of this name in the namespace of the job.

    Raises:
        ValueError: there is none.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.get_placement_group.html
    """
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    core = require_core()
    arguments = {"name": placement_group_name, "namespace": core.namespace}
    row = core.head_client.request(lambda number: Query(number, "placement_group", arguments))
    if row is None:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")
    return PlacementGroup(PlacementGroupID.from_hex(row["placement_group_id"]))


@handed_over
def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What the head knows of a group, or of all groups by id.

    Returns:
        placement_group_id, name, bundles and bundles_to_node_id by index, strategy, state (PENDING, CREATED,
        RESCHEDULING or REMOVED), stats; {} for a group that is not known.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.placement_group_table.html
    """
    core = require_core()
    if placement_group is not None:
        row = placement_client.group_row(core, placement_group.id.binary())
        return {} if row is None else _shown(row)
    rows = core.head_client.request(lambda number: Query(number, "placement_groups"))
    return {row["placement_group_id"]: _shown(row) for row in rows}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "placement_group_id": row["placement_group_id"],
        "name": row["name"],
        "bundles": dict(enumerate(row["bundles"])),
        "bundles_to_node_id": dict(enumerate(row["nodes"])),
        "strategy": row["strategy"],
        "state": row["state"],
        "stats": row["stats"],
    }


@handed_over
def get_current_placement_group() -> PlacementGroup | None:
    """The group in which the caller runs; None outside of one, and in a driver.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.util.get_current_placement_group.html
    """
    core = require_core()
    group_id = (current.task_context.get() or core.main_context).placement_group_id
    return PlacementGroup(PlacementGroupID(group_id)) if group_id else None


# ---- checks, which programs also call directly ----


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """ValueError unless the group has a bundle of this number, or it is -1."""
    assert placement_group is not None
    if not placement_group.is_empty:
        check_bundle_index(placement_group.bundle_specs, bundle_index)
    elif bundle_index != -1:
        raise ValueError("If placement group is not set, the value of bundle index must be -1.")


def _derive_node_level_strategy(strategy: str | None, topology_strategy: dict[str, str] | None) -> str:
    if topology_strategy is not None:
        return topology_strategy.get(NODE_ID_LABEL_KEY, "PACK")
    return strategy if strategy is not None else "PACK"


def validate_placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> None:
    """ValueError, in Ray's words, for arguments of `placement_group` that are malformed."""
    if topology_strategy is not None and strategy is not None:
        raise ValueError(
            "`strategy` and `topology_strategy` cannot both be specified. Pass node-level packing via "
            f"`topology_strategy['{NODE_ID_LABEL_KEY}']`."
        )
    if strategy is not None and strategy not in VALID_PLACEMENT_GROUP_STRATEGIES:
        raise ValueError(
            f"Invalid placement group strategy {strategy}. "
            f"Supported strategies are: {VALID_PLACEMENT_GROUP_STRATEGIES}."
        )
    if topology_strategy is not None:
        _validate_topology_strategy(topology_strategy)
    resolved = _derive_node_level_strategy(strategy, topology_strategy)
    if _soft_target_node_id:
        if resolved != "STRICT_PACK":
            raise ValueError(f"_soft_target_node_id currently only works with STRICT_PACK but got {resolved}")
        if NodeID.from_hex(_soft_target_node_id).is_nil():
            raise ValueError(f"Invalid hex ID of _soft_target_node_id, got {_soft_target_node_id}")
    _validate_bundles(bundles)
    if bundle_label_selector is not None:
        if len(bundles) != len(bundle_label_selector):
            raise ValueError(
                f"Invalid bundle label selector {bundle_label_selector}. The length of `bundle_label_selector` should "
                "equal the length of `bundles`."
            )
        _validate_bundle_label_selector(bundle_label_selector)
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")


def _validate_topology_strategy(topology_strategy: Any) -> None:
    if not isinstance(topology_strategy, dict):
        raise ValueError(f"`topology_strategy` must be a dict, got {type(topology_strategy).__name__}.")
    if len(topology_strategy) > 2:
        raise ValueError(
            f"`topology_strategy` must contain 0, 1, or 2 entries: `{NODE_ID_LABEL_KEY}` plus an optional topology "
            f"label. Got {len(topology_strategy)} entries."
        )
    labels = []
    for key, value in topology_strategy.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"`topology_strategy` keys must be non-empty strings, got {key!r}.")
        if value not in VALID_PLACEMENT_GROUP_STRATEGIES:
            raise ValueError(
                f"Invalid topology strategy {value!r} for label {key!r}. "
                f"Supported strategies are: {VALID_PLACEMENT_GROUP_STRATEGIES}."
            )
        if key != NODE_ID_LABEL_KEY:
            labels.append(key)
            if value != "STRICT_PACK":
                raise ValueError(
                    f"Topology strategy {value!r} for label {key!r} is not supported yet; only 'STRICT_PACK' is "
                    f"supported for topology labels other than `{NODE_ID_LABEL_KEY}` for now."
                )
    if len(labels) > 1:
        raise ValueError(
            f"`topology_strategy` currently supports at most one topology label other than `{NODE_ID_LABEL_KEY}`. "
            f"Got {labels}."
        )


def _validate_bundles(bundles: Any) -> None:
    """ValueError, in Ray's words, unless it is a list of dicts of resources, none of them empty."""
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError(
            "Bundles must be a non-empty list of resource dictionaries. For example: "
            '`[{"CPU": 1.0}, {"GPU": 1.0}]`. Got empty list instead.'
        )
    for bundle in bundles:
        if (
            not isinstance(bundle, dict)
            or not all(isinstance(name, str) for name in bundle)
            or not all(isinstance(quantity, (int, float)) for quantity in bundle.values())
        ):
            raise ValueError(
                "Bundles must be a non-empty list of resource dictionaries. For example: "
                '`[{"CPU": 1.0}, {"GPU": 1.0}]`.'
            )
        if not any(bundle.values()):
            raise ValueError(
                f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}"
            )
        if "object_store_memory" in bundle:
            warnings.warn(
                "Setting 'object_store_memory' for bundles is deprecated since it doesn't actually reserve the "
                "required object store memory. Use object spilling that's enabled by default "
                "(https://docs.ray.io/en/releases-2.60.0/ray-core/objects/object-spilling.html) "
                "instead to bypass the object store memory size limitation.",
                DeprecationWarning,
                stacklevel=1,
            )


def _validate_bundle_label_selector(bundle_label_selector: Any) -> None:
    """ValueError, in Ray's words, unless it is a list of well-formed label selectors."""
    if not isinstance(bundle_label_selector, list):
        raise ValueError(f"Placement group bundle_label_selector must be a list, got {type(bundle_label_selector)}.")
    for selector in bundle_label_selector:
        if not isinstance(selector, dict) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in selector.items()
        ):
            raise ValueError(
                "Bundle label selector must be a list of string dictionary label selectors. For example: "
                '`[{ray.io/market_type": "spot"}, {"ray.io/accelerator-type": "A100"}]`.'
            )
        try:
            check_label_selector(selector)
        except ValueError as error:
            raise ValueError(
                f"Invalid label selector provided in bundle_label_selector list. Detailed error: '{error}'"
            ) from None
    wanted = [selector.get("ray.io/accelerator-type") for selector in bundle_label_selector]
    domain = next((accelerator for accelerator in wanted if accelerator in _DOMAIN_ACCELERATORS), None)
    for selector, accelerator in zip(bundle_label_selector, wanted, strict=True):
        if domain is not None and accelerator != domain:
            raise ValueError(
                f"Invalid bundle label selector {selector}. GPU-domain scheduling requires all bundles to have "
                f"'ray.io/accelerator-type: {domain}' in their label selector."
            )


def _units(request: Mapping[str, float]) -> dict[str, int]:
    return {name: option_table.to_units(quantity) for name, quantity in request.items()}


def _valid_resource_shape(resources: Mapping[str, float], bundle_specs: list[dict[str, float]]) -> bool:
    """Whether one of the bundles offers all that is asked for."""
    return fits_a_bundle({name: units for name, units in _units(resources).items() if name != "bundle"}, bundle_specs)


def _validate_resource_shape(
    placement_group: PlacementGroup,
    resources: Mapping[str, float],
    placement_resources: Mapping[str, float],
    task_or_actor_repr: str,
) -> None:
    """ValueError, in Ray's words, unless one of the group's bundles offers all that is asked for."""
    check_fits(placement_group.bundle_specs, _units(resources), _units(placement_resources), task_or_actor_repr)
