"""Operations on slices of one array become one operation on the array; its adjoint is written in place."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from microgrid.graph import Graph
from microgrid.ops.elementwise import multiply
from microgrid.ops.index import GETITEM, getitem
from microgrid.ops.shape import concatenate
from microgrid.primitive import record
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import (
    ADD,
    MATMUL,
    MULTIPLY,
    has,
    is_float,
)
from microgrid.rewrite.repeated import content
from microgrid.rewrite.rule import Rewrite, Rule
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
