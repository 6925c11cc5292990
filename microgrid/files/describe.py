"""From a graph to JSON and arrays: what a model file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid.errors import FileFormatError
from microgrid.files.arrays import Arrays
from microgrid.files.leaf_kinds import LEAF_KINDS, leaf_kind_of
from microgrid.files.values import as_array, encoded
from microgrid.graph import Graph
from microgrid.leaves import Parameter, State
from microgrid.ops.time import DELAY_BACK
from microgrid.primitive import DECLARED, Primitive
from microgrid.tensor import Tensor

OPERATIONS_OF_ONE_NAME = {"delay_back": DELAY_BACK}
"""Operations that share their name with another, by their name in files."""


def description_of(graph: Graph) -> tuple[dict[str, Any], Arrays]:
    """The graph as JSON, and its arrays by the keys that stand in the JSON.

    Nodes are an object each, in the order of `graph.nodes`; operands, initial values, nexts and outputs are
    given as positions in that order.

    Raises
    ------
    FileFormatError
        If a node cannot be described, naming it.
    """
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    arrays: Arrays = {}
    nodes = []
    for node, number in numbers.items():
        try:
            described = of_node(node, number, numbers, arrays, graph.names[node])
        except (FileFormatError, TypeError, ValueError) as error:
            raise FileFormatError(f"the graph cannot be saved, for its node {graph.names[node]!r}: {error}") from error
        if node.name is not None:  # under another name than the graph's, where that is an output's keyword
            described["name"] = node.name if node in graph.aliases else graph.names[node]
        described["grad"] = bool(node.requires_grad)
        nodes.append(described)
    named = graph._named_outputs
    outputs = [numbers[output] for output in graph.outputs[: len(graph.outputs) - len(named)]]
    return {"nodes": nodes, "outputs": outputs, "named": {name: numbers[node] for name, node in named.items()}}, arrays


def of_node(node: Tensor, number: int, numbers: Mapping[Tensor, int], arrays: Arrays, name: str) -> dict[str, Any]:
    """What is particular to a node's kind."""
    if isinstance(node, State):
        return {
            "kind": "state",
            "initial": numbers[node.initial],
            "next": numbers[node.next],
            "reverse": node.reverse,
            "any_batch": node.any_batch,
        }
    if node.primitive is None:
        kind = leaf_kind_of(node)
        described: dict[str, Any] = {"kind": kind}
        described["value"] = (
            as_array(node.value, name, arrays)  # where other readers of safetensors find it
            if isinstance(node, Parameter)
            else encoded(node.value, f"#{number}", arrays)
        )
        return described | of_settings(LEAF_KINDS[kind].settings_of(node), number, arrays)
    return {
        "kind": "operation",
        "op": name_of(node.primitive),
        "operands": [numbers[operand] for operand in node.operands],
        "shape": list(node.shape),
        "dtype": node.dtype.name,
    } | of_settings(node.params, number, arrays)


def of_settings(settings: Mapping[str, Any], number: int, arrays: Arrays) -> dict[str, Any]:
    if not settings:
        return {}
    return {
        "settings": {
            key: encoded(as_dtype(value) if key == "dtype" else value, f"#{number}.{key}", arrays)
            for key, value in settings.items()
        }
    }


def as_dtype(value: Any) -> Any:
    """A dtype that is written in any way, as np.dtype: "float32" too, which in a file would be any text."""
    return value if value is None else np.dtype(value)


def name_of(primitive: Primitive) -> str:
    """The name by which a file tells an operation from all others."""
    for name in (primitive.name, *OPERATIONS_OF_ONE_NAME):
        if operation_named(name) is primitive:
            return name
    raise FileFormatError(
        f"another operation is declared by the name {primitive.name!r}, and a file tells operations apart by name: "
        "rename it, or record the graph with the one that was declared last"
    )


def operation_named(name: str) -> Primitive | None:
    """The operation of a name in a file."""
    return OPERATIONS_OF_ONE_NAME.get(name) or DECLARED.get(name)
