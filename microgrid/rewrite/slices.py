"""Operations on slices of one array become one operation on the array; its adjoint is written in place."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from microgrid.graph import Graph
from microgrid.ops.elementwise import add, multiply
from microgrid.ops.index import GETITEM, SCATTER_ADD, getitem
from microgrid.ops.shape import broadcast_to, concatenate, expand_dims, reshape
from microgrid.primitive import record
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import (
    ADD,
    CONCATENATE,
    MATMUL,
    MULTIPLY,
    STATIC,
    has,
    is_float,
    zones_of,
)
from microgrid.rewrite.repeated import content
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.rewrite.sums import is_whole, terms_of
from microgrid.tensor import Tensor, is_number

Span = tuple[int, int, int]
"""(axis, start, stop) of a slice along one axis."""


def span_of(template: Any, shape: tuple[int, ...]) -> Span | None:
    """The span of an index that is one slice along one axis of an array of `shape`; None for any other index."""
    parts = template if isinstance(template, tuple) else (template,)
    if not all(part is Ellipsis or isinstance(part, slice) for part in parts):
        return None
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts = (*parts[:at], *[slice(None)] * (len(shape) - len(parts) + 1), *parts[at + 1 :])
    spans = [
        (axis, *part.indices(n)[:2])
        for axis, (part, n) in enumerate(zip(parts, shape, strict=False))
        if part.step in (None, 1) and part.indices(n)[:2] != (0, n)
    ]
    simple = all(part.step in (None, 1) for part in parts)
    return spans[0] if simple and len(spans) == 1 and spans[0][1] < spans[0][2] else None


def last_axis_slice(node: Tensor) -> tuple[Tensor, int, int] | None:
    """(array, start, stop) of a node that is a slice along the last axis; None for any other node."""
    if node.primitive is not GETITEM or len(node.operands) > 1:
        return None
    (source,) = node.operands
    span = span_of(node.params["template"], source.shape)
    return (source, *span[1:]) if span and span[0] == source.ndim - 1 else None


def part_of(whole: Tensor, start: int, stop: int) -> Tensor:
    """A slice along the last axis."""
    return whole if (start, stop) == (0, whole.shape[-1]) else getitem(whole, (..., slice(start, stop)))


# --- neighbours ----------------------------------------------------------------------------------------


@Rewrite
def merge_neighbours(graph: Graph) -> Rule | None:
    """The graph in which an element-by-element operation on adjoining slices of an array is one operation on all."""
    if not has(graph, GETITEM):
        return None
    groups: dict[Hashable, list[tuple[int, int, Tensor]]] = {}
    outputs = set(graph.outputs)
    for node in graph.nodes:
        if any(operand in outputs and last_axis_slice(operand) for operand in node.operands):
            continue  # a gradient by the slice may be asked for: do not pass it by
        found = description(node)
        if found is not None:
            key, start, stop = found
            groups.setdefault(key, []).append((start, stop, node))
    run_of: dict[Tensor, list[tuple[int, int, Tensor]]] = {}
    for group in groups.values():
        for run in adjoining(sorted(group, key=lambda each: each[:2])):
            run_of.update({node: run for _, _, node in run})
    if not run_of:
        return None
    merged: dict[int, Tensor] = {}

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in run_of:
            return None
        run = run_of[node]
        if id(run) not in merged:
            assert node.primitive is not None
            operands = [joined_operand(index, run, made) for index in range(len(node.operands))]
            merged[id(run)] = record(node.primitive, operands, node.params)
        start, stop = next((start, stop) for start, stop, each in run if each is node)
        part = part_of(merged[id(run)], start - run[0][0], stop - run[0][0])
        return renamed(part, node)

    return rule


def description(node: Tensor) -> tuple[Hashable, int, int] | None:
    """(what must be equal for nodes to be merged, start, stop), for an operation on slices along the last axis."""
    if node.primitive is None or not node.primitive.elementwise or node.ndim == 0 or not is_float(node):
        return None
    slices = {last_axis_slice(operand) for operand in node.operands} - {None}
    spans = {found[1:] for found in slices if found}
    if len(spans) != 1:
        return None
    ((start, stop),) = spans
    width = stop - start
    if node.shape[-1] != width:
        return None
    keys: list[Hashable] = []
    for operand in node.operands:
        found = last_axis_slice(operand)
        if found:
            keys.append(("slice", found[0]))
        elif is_number(operand):
            keys.append(("number", type(operand.value), repr(operand.value)))
        elif operand.shape[-1:] == (width,) and width > 1 and not operand.depends_on_time():
            keys.append(("static", operand.shape[:-1], operand.dtype))
        elif operand.shape[-1:] in ((), (1,)):
            keys.append(("same", operand))
        else:
            return None
    return (node.primitive, content(dict(node.params)), tuple(keys), node.shape[:-1], node.dtype), start, stop


def adjoining(spans: Sequence[tuple[int, int, Tensor]]) -> list[list[tuple[int, int, Tensor]]]:
    """Runs of two or more spans, each starting where the one before stops."""
    runs: list[list[tuple[int, int, Tensor]]] = []
    for span in spans:
        if runs and runs[-1][-1][1] == span[0]:
            runs[-1].append(span)
        elif not runs or span[0] > runs[-1][-1][1]:
            runs.append([span])
    return [run for run in runs if len(run) > 1]


def joined_operand(index: int, run: Sequence[tuple[int, int, Tensor]], made: Made) -> Tensor:
    """What all operations of a run read as their operand `index`."""
    operand = run[0][2].operands[index]
    found = last_axis_slice(operand)
    if found:
        return part_of(made[found[0]], run[0][0], run[-1][1])
    if operand.shape[-1:] in ((), (1,)):
        return made[operand]
    return concatenate([made[node.operands[index]] for _, _, node in run], axis=-1)


@Rewrite
def flat_slices(graph: Graph) -> Rule | None:
    """The graph in which a slice of a slice is one slice."""
    if not has(graph, GETITEM):
        return None
    outputs = set(graph.outputs)

    def rule(node: Tensor, made: Made) -> Tensor | None:
        found = last_axis_slice(node)
        inner = last_axis_slice(found[0]) if found and found[0] not in outputs else None
        if found is None or inner is None:
            return None
        return renamed(part_of(made[inner[0]], inner[1] + found[1], inner[1] + found[2]), node)

    return rule


# --- scales ----------------------------------------------------------------------------------------------


@Rewrite
def scale_before_slicing(graph: Graph) -> Rule | None:
    """The graph in which slices of a sum or product, each times a number of its own, are slices of it times a row."""
    if not has(graph, GETITEM):
        return None
    readers = graph.readers
    scales: dict[Tensor, dict[Tensor, float]] = {}  # array → its slices and their factors
    product_of: dict[Tensor, Tensor] = {}  # slice → the product that scales it
    for array in graph.nodes:
        slices = [reader for reader in readers[array] if reader is not None]
        if array.primitive not in (ADD, MATMUL) or not array.depends_on_time() or len(slices) != len(readers[array]):
            continue
        if not all((found := last_axis_slice(each)) is not None and found[0] is array for each in slices):
            continue
        factors: dict[Tensor, float] = {}
        for each in slices:
            factor, product = factor_of(each, readers[each])
            factors[each] = factor
            if product is not None:
                product_of[each] = product
        if any(factor != 1 for factor in factors.values()) and disjoint(slices):
            scales[array] = factors
    if not scales:
        return None
    products = {product_of[each]: each for factors in scales.values() for each in factors if each in product_of}
    scaled: dict[Tensor, Tensor] = {}

    def slice_of_scaled(each: Tensor, made: Made) -> Tensor:
        array, start, stop = last_axis_slice(each) or (each, 0, 0)
        if array not in scaled:
            row = np.ones(array.shape[-1], array.dtype)
            for other, factor in scales[array].items():
                found = last_axis_slice(other)
                assert found is not None
                row[found[1] : found[2]] = factor
            every = bool((row == row[0]).all())
            scaled[array] = multiply(made[array], Tensor(float(row[0]) if every else row))
        return part_of(scaled[array], start, stop)

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node in products:
            return slice_of_scaled(products[node], made)
        found = last_axis_slice(node)
        if found and found[0] in scales and scales[found[0]][node] == 1:
            return slice_of_scaled(node, made)
        return None

    return rule


def factor_of(each: Tensor, readers: Sequence[Tensor | None]) -> tuple[float, Tensor | None]:
    """The number by which the one reader of a slice multiplies it, and that reader; 1 where there is none."""
    reader = readers[0] if len(readers) == 1 else None
    if reader is not None and reader.primitive is MULTIPLY:
        other = reader.operands[0] if reader.operands[1] is each else reader.operands[1]
        if is_number(other):
            return float(other.value), reader
    return 1.0, None


def disjoint(slices: Sequence[Tensor]) -> bool:
    spans = sorted(found[1:] for each in slices if (found := last_axis_slice(each)))
    return all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


# --- the adjoint of slicing ------------------------------------------------------------------------------


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
        if part.primitive is MULTIPLY and is_float(part):
            for one, two in (part.operands, part.operands[::-1]):
                if zones[one] == own != zones[two] and one.shape == two.shape == part.shape:
                    return (one, two) if one.dtype == two.dtype == part.dtype else None
        return None

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
