"""Joined parts: gradients that arrive at slices of an array, and what is done to all parts of a join."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from microgrid.graph import Graph
from microgrid.ops.elementwise import add, multiply
from microgrid.ops.index import SCATTER_ADD
from microgrid.ops.shape import broadcast_to, concatenate, expand_dims, reshape
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import ADD, CONCATENATE, MULTIPLY, STATIC, has, zones_of
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.rewrite.slices import Span, part_of, span_of
from microgrid.rewrite.sums import factors_of, is_whole, terms_of
from microgrid.tensor import Tensor


@Rewrite
def join_scatters(graph: Graph) -> Rule | None:
    """The graph in which gradients that arrive at slices of an array are joined, not added to zeros and summed."""
    if not has(graph, SCATTER_ADD):
        return None
    readers = graph.readers

    def span(node: Tensor) -> Span | None:
        if node.primitive is not SCATTER_ADD or len(node.operands) > 1:
            return None
        return span_of(node.params["template"], tuple(node.params["shape"]))

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if is_whole(node, readers) and node.primitive is ADD:
            terms = terms_of(node, readers)
        elif span(node) and not any(reader is not None and reader.primitive is ADD for reader in readers[node]):
            terms = [node]
        else:
            return None
        by_axis: dict[int, list[tuple[int, int, Tensor]]] = {}
        rest: list[Tensor] = []
        for term in terms:
            found = span(term) if term.shape == node.shape else None
            row = by_axis.setdefault(found[0], []) if found else []
            if found and all(found[2] <= start or stop <= found[1] for start, stop, _ in row):
                row.append((found[1], found[2], term))
            else:
                rest.append(term)
        if len(rest) == len(terms):
            return None
        total: Tensor | None = None
        for axis, pieces in by_axis.items():
            if pieces:
                joined = join(node, axis, sorted(pieces, key=lambda piece: piece[0]), made)
                total = joined if total is None else add(total, joined)
        assert total is not None
        for term in rest:
            total = add(total, made[term])
        return renamed(total, node)

    return rule


def join(node: Tensor, axis: int, pieces: Sequence[tuple[int, int, Tensor]], made: Made) -> Tensor:
    """The pieces side by side, with zeros between them, in the shape of `node`."""
    parts: list[Tensor] = []
    size = list(node.shape)
    reached = 0

    def zeros_until(start: int) -> None:
        if start > reached:
            size[axis] = start - reached
            parts.append(Tensor(np.zeros(size, node.dtype)))

    for start, stop, scatter in pieces:
        zeros_until(start)
        size[axis] = stop - start
        piece = made[scatter.operands[0]]
        parts.append(piece if piece.shape == tuple(size) else broadcast_to(piece, tuple(size)))
        reached = stop
    zeros_until(node.shape[axis])
    return concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def distribute_over_parts(graph: Graph) -> Graph:
    """The graph in which joined parts times a factor from outside the cycle are products, joined: written in place."""
    if not has(graph, CONCATENATE):
        return graph
    for _ in range(4):  # a product of a product of joined parts
        before = graph
        graph = flat_joins(distribute_once(graph))
        if graph is before:
            break
    return graph


@Rewrite
def distribute_once(graph: Graph) -> Rule | None:
    joins = [node for node in graph.nodes if is_last_axis_join(node)]
    readers = graph.readers
    if not any(len(readers[node]) == 1 and is_product(readers[node][0]) for node in joins):
        return None
    zones = zones_of(graph)
    products: dict[Tensor, tuple[Tensor, Tensor]] = {}
    for whole in joins:
        node = readers[whole][0] if len(readers[whole]) == 1 else None
        if node is None or not is_product(node) or zones[node] == STATIC or whole.shape != node.shape:
            continue
        factor = node.operands[1] if node.operands[0] is whole else node.operands[0]
        if zones[factor] != zones[node] and factor.shape[-1:] in ((), (1,), node.shape[-1:]):
            products[node] = whole, factor
    if not products:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in products:
            return None
        whole, factor = products[node]
        parts, start = [], 0
        for part in whole.operands:
            stop = start + part.shape[-1]
            every = factor.shape[-1:] in ((), (1,))
            parts.append(multiply(made[part], made[factor] if every else part_of(made[factor], start, stop)))
            start = stop
        joined = concatenate(parts, axis=-1)
        return renamed(joined, node)

    return rule


@Rewrite
def merge_products_by_one(graph: Graph) -> Rule | None:
    """The graph in which neighbouring parts a·x and b·x of a join, where only x recurs, are one product [a, b]·x."""
    if not has(graph, CONCATENATE):
        return None
    zones = zones_of(graph)

    def factors(part: Tensor, own: int) -> tuple[Tensor, Tensor] | None:
        """(what recurs, what does not) of a product of two arrays of its shape, in the cycle `own`."""
        found = factors_of(part, own, zones)
        same = found is not None and found[0].dtype == found[1].dtype == part.dtype and found[1].shape == part.shape
        return found if same else None

    def run_of(part: Tensor, own: int) -> tuple[bool, int]:
        """The same for parts with the same recurring factor, a key of its own for any other."""
        found = factors(part, own)
        return found is not None, id(found[0] if found else part)

    runs: dict[Tensor, list[list[Tensor]]] = {}  # join → its parts, those that share a factor together
    for node in graph.nodes:
        if zones[node] >= 0 and is_last_axis_join(node):
            own = functools.partial(run_of, own=zones[node])
            parts = [list(run) for _, run in itertools.groupby(node.operands, own)]
            if any(is_worth_merging(run) and factors(run[0], zones[node]) for run in parts):
                runs[node] = parts
    if not runs:
        return None

    def merged(run: Sequence[Tensor], own: int, made: Made) -> list[Tensor]:
        shape = run[0].shape
        if not is_worth_merging(run) or factors(run[0], own) is None:
            return [made[part] for part in run]
        pairs = [found for part in run if (found := factors(part, own)) is not None]
        outside = concatenate([made[other] for _, other in pairs], axis=-1)
        stacked = reshape(outside, (*shape[:-1], len(run), shape[-1]))
        product = multiply(stacked, expand_dims(made[pairs[0][0]], -2))
        return [reshape(product, outside.shape)]

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in runs:
            return None
        parts = [part for run in runs[node] for part in merged(run, zones[node], made)]
        return renamed(concatenate(parts, axis=-1) if len(parts) > 1 else parts[0], node)

    return rule


def is_worth_merging(run: Sequence[Tensor]) -> bool:
    """Whether one product that broadcasts takes less time than several: of single rows, two are as fast."""
    return len(run) > (1 if math.prod(run[0].shape[:-1]) > 1 else 2)


def is_product(node: Tensor | None) -> bool:
    return node is not None and node.primitive is MULTIPLY


def is_last_axis_join(node: Tensor) -> bool:
    axis = node.params["axis"] if node.primitive is CONCATENATE else None
    return axis is not None and axis % node.ndim == node.ndim - 1


@Rewrite
def flat_joins(graph: Graph) -> Rule | None:
    """The graph in which joined parts that are joined parts themselves are joined at once."""
    joins = {node for node in graph.nodes if is_last_axis_join(node)}
    if not any(part in joins for node in joins for part in node.operands):
        return None
    readers, zones = graph.readers, zones_of(graph)

    def is_nested(part: Tensor, whole: Tensor) -> bool:
        """In a loop also where others read the part: it need not be made there."""
        return part in joins and (len(readers[part]) == 1 or zones[whole] >= 0)

    outer = {node for node in joins if any(is_nested(part, node) for part in node.operands)}
    if not outer:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in outer:
            return None
        parts: list[Tensor] = []
        for part in node.operands:
            parts += made[part].operands if is_nested(part, node) else (made[part],)
        joined = concatenate(parts, axis=-1)
        return renamed(joined, node)

    return rule
