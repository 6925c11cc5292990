"""Operations by others that cost less, or that other rewrites understand."""

from __future__ import annotations

import math

import numpy as np

from microgrid.graph import Graph
from microgrid.ops import elementwise, reduce, shape
from microgrid.ops.elementwise import exp, log, square, tanh, where
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import TIME_MEAN, time_sum
from microgrid.primitive import primitive_of, record
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import ADD, MULTIPLY, RESHAPE, has, is_float
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.tensor import Tensor, is_number

SIGMOID, POWER = primitive_of(elementwise.sigmoid), primitive_of(elementwise.power)
SUBTRACT = primitive_of(elementwise.subtract)
GATED = (ADD, MULTIPLY, SUBTRACT)
"""The operations that read a gate."""
SOFTMAX, LOG_SOFTMAX = primitive_of(reduce.softmax), primitive_of(reduce.log_softmax)
LOGSUMEXP = primitive_of(reduce.logsumexp)
MEAN, BROADCAST_TO = primitive_of(reduce.mean), primitive_of(shape.broadcast_to)


@Rewrite
def sigmoid_by_tanh(graph: Graph) -> Rule | None:
    """σ(x) = ½ + ½ tanh(x/2) where σ is a gate: one transcendental function for all of them, without overflow.

    The digits of a σ next to 0 are lost, so it stays where it is more than a factor or a term.
    """
    if not has(graph, SIGMOID):
        return None
    readers = graph.readers

    def rule(node: Tensor, made: Made) -> Tensor | None:
        gates = all(reader is not None and reader.primitive in GATED for reader in readers.get(node, ()))
        if node.primitive is SIGMOID and is_float(node) and gates:
            (x,) = (made[operand] for operand in node.operands)
            return renamed(tanh(x * 0.5) * 0.5 + 0.5, node)
        return None

    return rule


@Rewrite
def interpolations(graph: Graph) -> Rule | None:
    """(1 − z)·x + z·y = x + z·(y − x), which a gate between old and new is often written as."""
    if not has(graph, SUBTRACT):
        return None
    outputs = set(graph.outputs)  # a gradient by one of them may be asked for: do not pass it by

    def parted(node: Tensor) -> tuple[Tensor, Tensor] | None:
        """(z, x) of (1 − z)·x."""
        if node.primitive is MULTIPLY and node not in outputs:
            for one, x in (node.operands, node.operands[::-1]):
                if one.primitive is not SUBTRACT or one in outputs:
                    continue
                if is_number(one.operands[0]) and one.operands[0].value == 1:
                    return one.operands[1], x
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is not ADD or not is_float(node):
            return None
        for one, two in (node.operands, node.operands[::-1]):
            found = parted(one)
            if found is None or two.primitive is not MULTIPLY or two in outputs:
                continue
            for z, y in (two.operands, two.operands[::-1]):
                if z is found[0] and all(
                    each.shape == node.shape and each.dtype == node.dtype for each in (z, *found, y)
                ):
                    x = made[found[1]]
                    return renamed(x + made[z] * (made[y] - x), node)
        return None

    return rule


@Rewrite
def squares(graph: Graph) -> Rule | None:
    """x ** 2 is x · x, also in its gradient."""
    if not has(graph, POWER):
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is POWER:
            base, exponent = node.operands
            if is_number(exponent) and exponent.value == 2 and is_float(base):
                return renamed(square(made[base]), node)
        return None

    return rule


@Rewrite
def means_as_sums(graph: Graph) -> Rule | None:
    """A mean, along axes or over time, is a sum divided by a number: sums meet other rewrites."""
    if not has(graph, MEAN, TIME_MEAN):
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is MEAN and is_float(node) and node.size and node.dtype.itemsize > 2:
            (x,) = node.operands
            total = sum_along(made[x], **node.params)
            return renamed(total * (node.size / x.size), node)
        if node.primitive is TIME_MEAN and is_float(node) and node.dtype.itemsize > 2:
            (x,) = node.operands
            return renamed(time_sum(made[x]) / time_sum(1.0), node)
        return None

    return rule


@Rewrite
def parts_of_softmax(graph: Graph) -> Rule | None:
    """softmax, log_softmax and logsumexp as what they consist of, which meets other element-by-element work."""
    if not has(graph, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP):
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive not in (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP) or not is_float(node) or node.dtype.itemsize < 4:
            return None
        (x,) = (made[operand] for operand in node.operands)
        if node.primitive is not LOGSUMEXP:
            parted: Tensor = node.primitive.forward(x, **node.params)  # on Tensors it records
            return renamed(parted, node)
        axis, keepdims = node.params["axis"], node.params["keepdims"]
        top = reduce.max(x, axis=axis, keepdims=True)
        top = where(elementwise.absolute(top) < math.inf, top, 0.0)
        total = log(sum_along(exp(x - top), axis=axis, keepdims=True)) + top
        return renamed(total if keepdims else shape.reshape(total, node.shape), node)

    return rule


@Rewrite
def without_broadcasts(graph: Graph) -> Rule | None:
    """Operations that broadcast by themselves read the small operand, not its copies."""
    if not has(graph, BROADCAST_TO):
        return None

    def source(operand: Tensor, made: Made) -> Tensor:
        while operand.primitive is BROADCAST_TO or (operand.primitive is RESHAPE and operand.size == 1):
            operand = operand.operands[0]
        return made[operand]

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is None or not node.primitive.elementwise:
            return None
        sources = [source(operand, made) for operand in node.operands]
        if all(new is made[old] for new, old in zip(sources, node.operands, strict=True)):
            return None
        for index, operand in enumerate(node.operands):
            if np.broadcast_shapes(*(each.shape for each in sources)) != node.shape:
                sources[index] = made[operand]
        copy = record(node.primitive, sources, node.params)
        return renamed(copy, node) if copy.dtype == node.dtype else None

    return rule
