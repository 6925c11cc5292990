"""What follows from numbers alone is computed once and for all."""

from __future__ import annotations

from microgrid.graph import Graph
from microgrid.ops.time import is_spread_over_time, is_time_reduction
from microgrid.primitive import record
from microgrid.rebuild import Made
from microgrid.rewrite.reading import MULTIPLY
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.tensor import Tensor, is_number


@Rewrite
def fold_constants(graph: Graph) -> Rule | None:
    """The graph in which operations on plain numbers are their results, and products by 1 are gone."""
    folded: set[Tensor] = set()
    outputs = set(graph.outputs)

    def is_constant(node: Tensor) -> bool:
        return node in folded or is_number(node)

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is None:
            return None
        operands = [made[operand] for operand in node.operands]
        timed = is_time_reduction(node) or is_spread_over_time(node)
        if not timed and operands and all(map(is_constant, operands)):
            value = record(node.primitive, operands, node.params).value
            constant = Tensor(value)
            folded.add(constant)
            return constant
        if node.primitive is MULTIPLY and node not in outputs:
            for one, other in (operands, operands[::-1]):
                if is_constant(one) and other.shape == node.shape and other.dtype == node.dtype and is_one(one):
                    return other
        return None

    return rule


def is_one(node: Tensor) -> bool:
    """Whether all of a constant's elements are 1."""
    return bool((node.value == 1) if node.shape == () else (node.value == 1).all())
