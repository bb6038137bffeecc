"""Where tasks and actors run, if not anywhere: strategies for the option `scheduling_strategy`.

Source: https://docs.ray.io/en/latest/ray-core/scheduling/index.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from miniray.util.placement_group import PlacementGroup


class PlacementGroupSchedulingStrategy:
    """Run in a placement group.

    Args:
        placement_group: the group; None for none.
        placement_group_bundle_index: which of its bundles, counted from 0; -1 for any.
        placement_group_capture_child_tasks: whether tasks and actors that are started from there run in the group
            too; None: as the caller does.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: in hex.
        soft: whether other nodes will do if that one is gone, or could never run it. If it is only busy, the task
            waits. A hard one fails instead.
        _spill_on_unavailable: a soft one takes another node also if that one is busy.
        _fail_on_unavailable: a hard one fails also if the node is busy.

    Raises:
        ValueError: no node can have that id, or the arguments contradict each other.
    """

    def __init__(
        self, node_id: str, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False
    ) -> None:
        self.node_id: str = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable
        self._validate_attributes()

    def _validate_attributes(self) -> None:
        from miniray.ids import NodeID

        invalid = ValueError(
            f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string. To get a list of all nodes and "
            "their IDs in your cluster, use ray.nodes(). See "
            "https://docs.ray.io/en/latest/ray-core/miscellaneous.html#node-information for more details."
        )
        try:
            node_id = NodeID.from_hex(self.node_id)
        except Exception as error:
            raise invalid from error
        if node_id.is_nil():
            raise invalid
        if self._spill_on_unavailable and not self.soft:
            raise ValueError(
                "_spill_on_unavailable cannot be set when soft is False. Please set soft to True to use "
                "_spill_on_unavailable."
            )
        if self._fail_on_unavailable and self.soft:
            raise ValueError(
                "_fail_on_unavailable cannot be set when soft is True. Please set soft to False to use "
                "_fail_on_unavailable."
            )


class In:
    """The label is there and has one of these values. ValueError: no values, or not text."""

    def __init__(self, *values: str) -> None:
        _check_values(values, "In")
        self.values = list(values)


class NotIn:
    """The label is not there, or has another value. ValueError: no values, or not text."""

    def __init__(self, *values: str) -> None:
        _check_values(values, "NotIn")
        self.values = list(values)


class Exists:
    """The label is there."""


class DoesNotExist:
    """The label is not there."""


def _check_values(values: tuple[Any, ...], operator: str) -> None:
    if not values:
        raise ValueError(
            f"The variadic parameter of the {operator} operator must be a non-empty tuple: e.g. "
            f'{operator}("value1", "value2").'
        )
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(
                f"Type of value in position {index} for the {operator} operator must be str (e.g. "
                f'{operator}("value1", "value2")) but got {value} of type {type(value)}.'
            )


LabelMatchExpressionsT = dict[str, Union[In, NotIn, Exists, DoesNotExist]]


class _LabelMatchExpression:
    """A label and what is asked of it."""

    def __init__(self, key: str, operator: In | NotIn | Exists | DoesNotExist) -> None:
        self.key = key
        self.operator = operator


class NodeLabelSchedulingStrategy:
    """Run on a node with certain labels: ``NodeLabelSchedulingStrategy({"region": In("us"), "gpu": Exists()})``.

    Args:
        hard: label to operator; all must hold.
        soft: these are tried first.

    Raises:
        ValueError: not such a dict, or both empty.
    """

    def __init__(self, hard: LabelMatchExpressionsT | None, *, soft: LabelMatchExpressionsT | None = None) -> None:
        self.hard = _convert(hard, "hard")
        self.soft = _convert(soft, "soft")
        if not (self.hard or self.soft):
            raise ValueError("The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty.")


def _convert(expressions: Any, parameter: str) -> list[_LabelMatchExpression]:
    if expressions is None:
        return []
    example = '(e.g. {"key1": In("value1")})'
    if not isinstance(expressions, dict):
        raise ValueError(f"The {parameter} parameter must be a map {example} but got type {type(expressions)}.")
    converted = []
    for key, operator in expressions.items():
        if not isinstance(key, str):
            raise ValueError(
                f"The map key of the {parameter} parameter must be of type str {example} but got {key} of type "
                f"{type(key)}."
            )
        if not isinstance(operator, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(
                f"The map value for key {key} of the {parameter} parameter must be one of the `In`, `NotIn`, `Exists` "
                f"or `DoesNotExist` operator {example} but got {operator} of type {type(operator)}."
            )
        converted.append(_LabelMatchExpression(key, operator))
    return converted


SchedulingStrategyT = Union[
    None,
    str,
    PlacementGroupSchedulingStrategy,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
]
