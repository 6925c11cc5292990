"""Products of matrices: fewer and larger ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microgrid.graph import Graph
from microgrid.ops.compare import less
from microgrid.ops.elementwise import add, astype, multiply, where
from microgrid.ops.index import SCATTER_ADD, Slot, getitem
from microgrid.ops.linalg import matmul
from microgrid.ops.pick import ADD_ROWS
from microgrid.ops.shape import concatenate, reshape
from microgrid.ops.time import TIME_SUM, time_add_rows, time_dot, time_matmul, time_rows, time_sum
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import (
    ADD,
    MATMUL,
    MULTIPLY,
    RESHAPE,
    SQUARE,
    STATIC,
    SUM,
    TRANSPOSE,
    fits,
    has,
    is_float,
    zones_of,
)
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.rewrite.slices import last_axis_slice
from microgrid.rewrite.sums import Readers
from microgrid.tensor import Tensor, is_number


@Rewrite
def merge_products(graph: Graph) -> Rule | None:
    """The graph in which products of one node with several weights, x@W and x@V, are one with all of them."""
    if not has(graph, MATMUL):
        return None
    zones = zones_of(graph)
    groups: dict[object, list[Tensor]] = {}
    for node in graph.nodes:
        if node.primitive is MATMUL and zones[node] != STATIC:
            x, weight = node.operands
            if (
                weight.ndim == 2
                and zones[weight] == STATIC
                and not weight.depends_on_time()
                and x.dtype == weight.dtype
            ):
                groups.setdefault((x, zones[node], weight.dtype), []).append(node)
    group_of = {node: group for group in groups.values() if len(group) > 1 for node in group}
    if not group_of:
        return None
    joined: dict[int, Tensor] = {}

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in group_of:
            return None
        group = group_of[node]
        if id(group) not in joined:
            weights = concatenate([made[each.operands[1]] for each in group], axis=1)
            joined[id(group)] = matmul(made[node.operands[0]], weights)
        start = sum(each.shape[-1] for each in group[: index_of(node, group)])
        part = getitem(joined[id(group)], (..., slice(start, start + node.shape[-1])))
        return renamed(part, node)

    return rule


def index_of(node: Tensor, group: Sequence[Tensor]) -> int:
    """Where a node stands in a list; == on Tensors compares elements."""
    return next(i for i, each in enumerate(group) if each is node)


@Rewrite
def scale_weights(graph: Graph) -> Rule | None:
    """The graph in which a constant times x@W + b is x@(W times it) + b times it: the weights are scaled once a run."""
    readers = graph.readers
    scaled: dict[Tensor, tuple[Tensor, Tensor]] = {}
    for node in graph.nodes:
        if node.primitive is MULTIPLY and is_float(node) and node.depends_on_time():
            for inner, factor in (node.operands, node.operands[::-1]):
                if is_scale(factor, node) and inner.primitive in (ADD, MATMUL) and takes_scale(inner, factor, readers):
                    scaled[node] = inner, factor
    if not scaled:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in scaled:
            return None
        product = times(*scaled[node], made)
        return renamed(product, node)

    return rule


def is_scale(factor: Tensor, product: Tensor) -> bool:
    """Whether a factor is a number or a constant row, which scales the columns."""
    if is_number(factor):
        return True
    return (
        type(factor) is Tensor
        and factor.primitive is None
        and not factor.requires_grad
        and (factor.shape == product.shape[-1:] and factor.ndim == 1)
    )


def takes_scale(node: Tensor, factor: Tensor, readers: Readers) -> bool:
    """Whether scaling a node can be left to static values alone."""
    if not node.depends_on_time():
        return is_float(node)
    if not all(fits(operand, node) for operand in node.operands):
        return False
    if len(readers[node]) != 1 or not is_float(node) or node.shape[-1:] != (factor.shape or node.shape[-1:]):
        return False
    if node.primitive is ADD:
        return all(takes_scale(operand, factor, readers) for operand in node.operands)
    if node.primitive is MATMUL:
        return node.operands[1].ndim == 2 and not node.operands[1].depends_on_time()
    if node.primitive is MULTIPLY:
        return any(not operand.depends_on_time() for operand in node.operands)
    return last_axis_slice(node) is not None and not factor.shape


def times(node: Tensor, factor: Tensor, made: Made) -> Tensor:
    """What stands for a node that takes a scale, scaled."""
    if not node.depends_on_time():
        return multiply(made[node], factor)
    if node.primitive is ADD:
        one, two = (times(operand, factor, made) for operand in node.operands)
        return add(one, two)
    if node.primitive is MATMUL:
        x, weight = node.operands
        return matmul(made[x], multiply(made[weight], factor))
    if node.primitive is MULTIPLY:
        fixed, other = sorted(node.operands, key=Tensor.depends_on_time)
        return multiply(made[other], multiply(made[fixed], factor))
    return multiply(made[node], factor)


@Rewrite
def static_factors_last(graph: Graph) -> Rule | None:
    """The graph in which a static factor multiplies a sum over time, not each of its terms."""
    if not has(graph, TIME_SUM):
        return None
    zones = zones_of(graph)

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is TIME_SUM and node.operands[0].primitive is MULTIPLY:
            one, two = node.operands[0].operands
            for factor, other in ((one, two), (two, one)):
                moves = zones[factor] == STATIC and zones[other] != STATIC and other.shape == node.shape
                if moves and is_float(node) and fits(factor, node) and fits(other, node):
                    product = multiply(time_sum(made[other]), made[factor])
                    return renamed(product, node)
        return None

    return rule


@Rewrite
def contract_over_time(graph: Graph) -> Rule | None:
    """The graph in which Σₜ xₜᵀ gₜ, Σₜ xₜ · yₜ and sums over rows, or by row, are one operation; no term is made."""
    if not has(graph, TIME_SUM):
        return None
    zones = zones_of(graph)

    def contracted(node: Tensor, made: Made) -> Tensor | None:
        (term,) = node.operands
        if term.primitive is RESHAPE and term.size == term.operands[0].size:
            inner = term.operands[0]
            if inner.primitive is SUM and sums_rows(inner):
                return reshape(time_rows(made[inner.operands[0]]), term.shape)
        if term.primitive is SUM and sums_rows(term):
            return time_rows(made[term.operands[0]])
        if term.primitive is SUM and term.shape == ():
            (x,) = term.operands
            if x.primitive is SQUARE:
                return time_dot(made[x.operands[0]], made[x.operands[0]])
            if x.primitive is MULTIPLY and all(zones[y] != STATIC and y.shape == x.shape for y in x.operands):
                return time_dot(made[x.operands[0]], made[x.operands[1]])
        if term.primitive is MATMUL and term.operands[0].primitive is TRANSPOSE:
            (x,), g = term.operands[0].operands, term.operands[1]
            if x.ndim == 2 == g.ndim and zones[x] != STATIC != zones[g]:
                return time_matmul(made[x], made[g])
        if term.primitive is ADD_ROWS and all(zones[x] != STATIC for x in term.operands):
            x, index = term.operands
            return time_add_rows(made[x], made[index], **term.params)
        if term.primitive is SCATTER_ADD and is_table_index(term) and all(zones[x] != STATIC for x in term.operands):
            x, index = term.operands
            rows, at = term.shape[0], astype(made[index], np.int64)
            return time_add_rows(made[x], where(less(at, 0), add(at, rows), at), rows)
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is TIME_SUM and is_float(node) and zones[node.operands[0]] != STATIC:
            product = contracted(node, made)
            if product is not None and product.shape == node.shape:
                return renamed(product, node)
        return None

    return rule


def sums_rows(node: Tensor) -> bool:
    """Whether a sum is that of the rows of a matrix."""
    x = node.operands[0]
    return x.ndim == 2 and node.params["axis"] in (0, (0,), -2, (-2,)) and is_float(x) and x.depends_on_time()


def is_table_index(scatter: Tensor) -> bool:
    """Whether a scatter is the adjoint of table[index], with whole numbers that vary."""
    template = scatter.params["template"]
    parts = template if isinstance(template, tuple) else (template,)
    by_rows = len(parts) == 1 and isinstance(parts[0], Slot) and len(scatter.operands) == 2
    return by_rows and scatter.operands[1].dtype.kind in "iu"
