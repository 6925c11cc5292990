"""Operations by others that cost less, or that other rewrites understand."""

from __future__ import annotations

from microgrid.graph import Graph
from microgrid.ops import elementwise
from microgrid.ops.elementwise import square, tanh
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.rewrite.reading import is_float, is_number, primitive_of
from microgrid.tensor import Tensor

SIGMOID, POWER = primitive_of(elementwise.sigmoid), primitive_of(elementwise.power)


def sigmoid_by_tanh(graph: Graph) -> Graph:
    """σ(x) = ½ + ½ tanh(x/2): one transcendental function for all gates, without overflow."""

    def remake(node: Tensor, made: Made) -> Tensor:
        if node.primitive is SIGMOID and is_float(node):
            (x,) = (made[operand] for operand in node.operands)
            return renamed(tanh(x * 0.5) * 0.5 + 0.5, node)
        return kept(node, made)

    return rebuilt(graph, remake)


def squares(graph: Graph) -> Graph:
    """x ** 2 is x · x, also in its gradient."""

    def remake(node: Tensor, made: Made) -> Tensor:
        if node.primitive is POWER:
            base, exponent = node.operands
            if is_number(exponent) and exponent.value == 2 and is_float(base):
                return renamed(square(made[base]), node)
        return kept(node, made)

    return rebuilt(graph, remake)


def renamed(new: Tensor, old: Tensor) -> Tensor:
    """The node that stands for another, under its name."""
    new._name = old._name
    return new
