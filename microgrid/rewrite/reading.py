"""What a rewrite asks about a graph: in which cycle a node stands, and what it is."""

from __future__ import annotations

from microgrid.cycles import cyclic_components
from microgrid.graph import Graph
from microgrid.ops import elementwise, linalg, reduce, shape
from microgrid.primitive import Primitive, primitive_of
from microgrid.tensor import PYTHON_NUMBERS, Tensor

ADD, MULTIPLY = primitive_of(elementwise.add), primitive_of(elementwise.multiply)
MATMUL, SUM = primitive_of(linalg.matmul), primitive_of(reduce.sum)
TRANSPOSE, RESHAPE = primitive_of(shape.transpose), primitive_of(shape.reshape)
NEGATIVE = primitive_of(elementwise.negative)
SQUARE = primitive_of(elementwise.square)
CONCATENATE = primitive_of(shape.concatenate)


STATIC, OUTSIDE = -2, -1


def zones_of(graph: Graph) -> dict[Tensor, int]:
    """For each node the number of the cycle it stands in; OUTSIDE of all cycles, or STATIC."""
    zones = {node: OUTSIDE if node in graph.varying else STATIC for node in graph.nodes}
    for number, component in enumerate(cyclic_components(graph)):
        zones.update(dict.fromkeys(component, number))
    return zones


def has(graph: Graph, *primitives: Primitive) -> bool:
    """Whether a graph holds one of these operations; if not, there is nothing to rewrite."""
    return any(node.primitive in primitives for node in graph.nodes)


def is_float(node: Tensor) -> bool:
    return node.dtype.kind == "f"


def fits(operand: Tensor, node: Tensor) -> bool:
    """Whether an operand has the dtype of a result, or is a Python number, which takes any: no precision changes."""
    return operand.dtype == node.dtype or type(operand.value) in PYTHON_NUMBERS
