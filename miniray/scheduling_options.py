"""Where a task or actor may run, from its options: strategy, labels, placement group; and Ray's errors about them.

A placement group is known here by its `id` and its `bundle_specs` alone; the class is `util.placement_group`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from miniray import options as option_table
from miniray.processes import current

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

_KEPT_BUNDLES = 1000
#: bundles of groups that tasks here run in, so that each of their calls does not ask the head
_bundles: dict[bytes, list[dict[str, float]]] = {}

_DEPRECATED = (
    "{} parameter is deprecated. Use scheduling_strategy=PlacementGroupSchedulingStrategy(...) instead, see the usage "
    "at https://docs.ray.io/en/releases-2.60.0/ray-core/package-ref.html#ray-remote."
)


class Scheduling(NamedTuple):
    """The parts of a `LeaseSpec` that say where, and whether children follow."""

    strategy: bytes = b""
    group_id: bytes = b""
    bundle_index: int = -1
    captures: bool = False
    fallback_selectors: tuple[dict[str, str], ...] = ()


PLAIN = Scheduling()
_PLACED_BY = ("scheduling_strategy", "placement_group", "placement_group_bundle_index", "fallback_strategy")


def scheduling(
    core: CoreWorker,
    options: Mapping[str, Any],
    resources: Mapping[str, int],
    placement: Mapping[str, int],
    what: str,
) -> Scheduling:
    """What the options, and the group that the caller runs in, say.

    Args:
        resources: what it holds, in units.
        placement: of an actor that says nothing of CPUs, what has to be free for it to start; else nothing.
        what: the name of the function or class, for errors.

    Raises:
        ValueError: with Ray's texts: an unknown strategy, a bundle index out of range, a request that fits no bundle.
    """
    context = current.task_context.get() or core.main_context
    if not context.captures_children and not any(name in options for name in _PLACED_BY):
        return PLAIN
    fallback = tuple(entry.get("label_selector") or {} for entry in options.get("fallback_strategy") or ())
    strategy = options.get("scheduling_strategy")
    option_table.check_scheduling_strategy(strategy)
    in_group = hasattr(strategy, "placement_group")
    if not in_group:
        _warn_of_deprecated(options)
    if strategy is not None and not in_group:
        return Scheduling(strategy_bytes(strategy), fallback_selectors=fallback)
    source: Any = options
    if in_group:
        source = {name: getattr(strategy, name) for name in ("placement_group", *_GROUP_OPTIONS)}
    captures = source.get("placement_group_capture_child_tasks")
    captures = context.captures_children if captures is None else captures
    index = source.get("placement_group_bundle_index", -1)
    group = source.get("placement_group", "default")
    group_id, bundles = b"", None
    if group == "default":
        if captures and context.placement_group_id:
            group_id = context.placement_group_id
            bundles = _bundles_of(core, group_id)
    elif group is not None and not group.is_empty:
        group_id, bundles = group.id.binary(), group.bundle_specs
    if bundles is None:
        if index != -1:
            raise ValueError("If placement group is not set, the value of bundle index must be -1.")
        return Scheduling(fallback_selectors=fallback)
    check_bundle_index(bundles, index)
    check_fits(bundles, resources, placement, what)
    return Scheduling(b"", group_id, index, bool(captures), fallback)


_GROUP_OPTIONS = ("placement_group_bundle_index", "placement_group_capture_child_tasks")


def _warn_of_deprecated(options: Mapping[str, Any]) -> None:
    given = [
        name
        for name, default in (("placement_group", "default"), ("placement_group_bundle_index", -1))
        if options.get(name, default) != default
    ]
    if options.get("placement_group_capture_child_tasks"):
        given.append("placement_group_capture_child_tasks")
    if given:
        import warnings  # few programs use them

        for name in given:
            warnings.warn(_DEPRECATED.format(name), DeprecationWarning, stacklevel=7)


def _bundles_of(core: CoreWorker, group_id: bytes) -> list[dict[str, float]]:
    found = _bundles.get(group_id)
    if found is None:
        from miniray.processes.placement_client import group_row

        found = (group_row(core, group_id) or {}).get("bundles") or []
        if len(_bundles) >= _KEPT_BUNDLES:
            _bundles.clear()
        _bundles[group_id] = found
    return found


def check_bundle_index(bundles: Sequence[Mapping[str, float]], index: int) -> None:
    """ValueError, in Ray's words, unless the group has a bundle of this number, or it is -1."""
    if not -1 <= index < len(bundles):
        raise ValueError(
            f"placement group bundle index {index} is invalid. Valid placement group indexes: 0-{len(bundles)}"
        )


def check_fits(
    bundles: Sequence[Mapping[str, float]], resources: Mapping[str, int], placement: Mapping[str, int], what: str
) -> None:
    """ValueError, in Ray's words, unless some bundle could hold the request."""
    if not fits_a_bundle(resources, bundles):
        asked = {name: _number(units) for name, units in resources.items()}
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the resource request {asked} cannot fit into any "
            f"bundles for the placement group, {list(bundles)}."
        )
    if not fits_a_bundle(placement, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the actor requires "
            f"{_number(placement.get('CPU', 0))} CPU for creation, but it cannot fit into any bundles for the "
            f"placement group, {list(bundles)}. Consider creating a placement group with CPU resources."
        )


def fits_a_bundle(request: Mapping[str, int], bundles: Sequence[Mapping[str, float]]) -> bool:
    """Whether one of the bundles offers all that is asked for (in units)."""
    return any(
        all(option_table.to_units(bundle.get(name, 0)) >= units for name, units in request.items())
        for bundle in bundles
    )


def _number(units: int) -> float:
    quantity = units / option_table.RESOURCE_UNITS
    return int(quantity) if quantity.is_integer() else quantity


def strategy_bytes(strategy: Any) -> bytes:
    """A strategy as `LeaseSpec` has it; what stands there is written in `state_machines.node_choice`."""
    if strategy is None or strategy == "DEFAULT":
        return b""
    if isinstance(strategy, str):
        return msgspec.msgpack.encode(strategy)
    node_id = getattr(strategy, "node_id", None)
    if node_id is not None:
        spill, fail = strategy._spill_on_unavailable, strategy._fail_on_unavailable
        return msgspec.msgpack.encode(["node", bytes.fromhex(node_id), bool(strategy.soft), bool(spill), bool(fail)])
    return msgspec.msgpack.encode(["labels", _expressions(strategy.hard), _expressions(strategy.soft)])


def _expressions(expressions: Sequence[Any]) -> list[list[Any]]:
    return [
        [expression.key, type(expression.operator).__name__, getattr(expression.operator, "values", [])]
        for expression in expressions
    ]
