"""``ray.dag``: task graphs that are described with ``bind`` and run with ``execute``, as often as wanted.

Nodes are tasks, actors and their methods; `InputNode` stands for what `execute` is given. An execution submits every
node once, as a task that depends on others by their refs. Compiled graphs are not here.

Source: https://docs.ray.io/en/latest/ray-core/ray-dag.html
"""

from miniray.dag.class_node import ClassMethodNode, ClassNode
from miniray.dag.constants import (
    BIND_INDEX_KEY,
    DAGNODE_TYPE_KEY,
    IS_CLASS_METHOD_OUTPUT_KEY,
    PARENT_CLASS_NODE_KEY,
    PREV_CLASS_METHOD_CALL_KEY,
)
from miniray.dag.dag_node import DAGNode
from miniray.dag.function_node import FunctionNode
from miniray.dag.input_node import DAGInputData, InputAttributeNode, InputNode
from miniray.dag.output_node import MultiOutputNode

__all__ = [
    "BIND_INDEX_KEY",
    "DAGNODE_TYPE_KEY",
    "IS_CLASS_METHOD_OUTPUT_KEY",
    "PARENT_CLASS_NODE_KEY",
    "PREV_CLASS_METHOD_CALL_KEY",
    "ClassMethodNode",
    "ClassNode",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]
