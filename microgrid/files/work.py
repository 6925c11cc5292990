"""How much an operation computes, told before it does: a small file may ask for terabytes, or for years."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.ops.index import fill
from microgrid.outline import stand_in
from microgrid.primitive import Primitive
from microgrid.tensor import Tensor

PRODUCTS_AT_ONCE = 64
"""So many multiplications of a matrix product take about as long as making one element does."""


def work_of(primitive: Primitive, operands: Sequence[Tensor], settings: Mapping[str, Any]) -> int:
    """About how many elements an operation reads and makes.

    Most operations make no more than they read; those that do more have a rule. One without, as a user
    declares it, is trusted. Settings that make no sense may raise any error.

    Examples
    --------
    >>> from microgrid.ops.shape import pad
    >>> work_of(pad.primitive, [mg.tensor([1.0, 2.0])], {"pad_width": 10**12})
    2000000000004
    """
    shapes = [node.shape for node in operands]
    rule = RULES.get(primitive.name)
    if rule is not None:
        made = rule(operands, **settings)
    elif primitive.elementwise or primitive.over_time is not None:
        sums = 1 if primitive.elementwise else len(operands)
        made = math.prod(np.broadcast_shapes(*shapes)) * sums
    else:
        made = 0
    return made + sum(map(math.prod, shapes))


def of_matmul(operands: Sequence[Tensor]) -> int:
    x, y = (node.shape for node in operands)
    rows = math.prod(np.broadcast_shapes(x[:-2], y[:-2])) * math.prod(x[-2:-1]) * math.prod(y[1:][-1:])
    return rows * math.prod(x[-1:]) // PRODUCTS_AT_ONCE + rows


def of_time_matmul(operands: Sequence[Tensor]) -> int:
    half = len(operands) // 2
    return sum(x.size * y.size for x, y in zip(operands[:half], operands[half:], strict=True)) // PRODUCTS_AT_ONCE


def of_einsum(operands: Sequence[Tensor], inputs: Sequence[str], output: str) -> int:
    sizes: dict[str, int] = {}
    for term, node in zip(inputs, operands, strict=True):
        for letter, size in zip(term, node.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 0))
    return math.prod(sizes.values()) // PRODUCTS_AT_ONCE + math.prod(sizes[letter] for letter in output)


def of_power(operands: Sequence[Tensor]) -> int:
    x, y = (node.value for node in operands)
    if type(x) is int and type(y) is int:  # Python writes out all digits
        return abs(y) * x.bit_length()
    return math.prod(np.broadcast_shapes(np.shape(x), np.shape(y)))


def of_index(operands: Sequence[Tensor], template: Any) -> int:
    x, *indices = operands
    return read_by(fill(template, tuple([node.value for node in indices])), x.shape)


def read_by(index: Any, shape: tuple[int, ...]) -> int:
    """How many elements an index reads: for each entry of its arrays, all that slices leave of the other axes."""
    entries, others = [], []
    for part in index if isinstance(index, tuple) else (index,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            others.append(part)
            continue
        array = np.asarray(part)
        is_mask = array.dtype == np.bool_
        entries.append((np.count_nonzero(array),) if is_mask else array.shape)
        others += [slice(1)] * (array.ndim if is_mask else 1)
    rest = stand_in(shape, np.dtype(np.bool_))[tuple(others)].size
    return math.prod(np.broadcast_shapes(*entries)) * rest


def of_scatter(operands: Sequence[Tensor], shape: tuple[int, ...], template: Any) -> int:
    _, *indices = operands
    return math.prod(shape) + read_by(fill(template, tuple([node.value for node in indices])), shape)


def of_take(operands: Sequence[Tensor], axis: int | None) -> int:
    x, indices = operands
    return indices.size * (1 if axis is None else math.prod(x.shape) // max(x.shape[axis], 1))


def of_pad(operands: Sequence[Tensor], pad_width: Any, **_: Any) -> int:
    (x,) = operands
    widths = np.broadcast_to(pad_width, (x.ndim, 2)).tolist()
    return math.prod(size + before + after for size, (before, after) in zip(x.shape, widths, strict=True))


def of_add_rows(operands: Sequence[Tensor], rows: int) -> int:
    x, index = operands[0], operands[len(operands) // 2]
    return rows * math.prod(x.shape[index.ndim :])


def of_shape(operands: Sequence[Tensor], shape: Any) -> int:
    return math.prod(np.atleast_1d(shape).tolist())


RULES: dict[str, Callable[..., int]] = {
    "add_rows": of_add_rows,
    "broadcast_to": of_shape,
    "einsum": of_einsum,
    "getitem": of_index,
    "lookup": lambda operands: of_take(operands, 0),
    "matmul": of_matmul,
    "pad": of_pad,
    "place": lambda operands, count: operands[0].size * count,
    "power": of_power,
    "scatter_add": of_scatter,
    "take": of_take,
    "time_add_rows": of_add_rows,
    "time_matmul": of_time_matmul,
}
"""How many elements those operations make that may make more than they read, by the name of the operation."""
