"""Operations that move elements without changing them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from microgrid import time_axis
from microgrid.errors import OperandError
from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.ops.index import getitem
from microgrid.primitive import Rule, primitive
from microgrid.tensor import ArrayLike, Axis, Tensor, constant


def reshaped_back(g: Any, out: Any, x: Any, **settings: Any) -> Any:
    """The VJP rule of every operation that keeps the elements in order."""
    return np.reshape(g, np.shape(x))


@primitive(np.reshape, vjp=reshaped_back, view=True, batched=time_axis.reshaped)
def reshape(x: Any, shape: Any = -1) -> Any:
    """The same elements in another shape; one size may be −1, for whatever is left.

    >>> mg.reshape(mg.tensor([1.0, 2.0, 3.0, 4.0]), (2, 2)).value.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return np.reshape(x, shape)


@primitive(np.squeeze, vjp=reshaped_back, view=True, batched=time_axis.reshaped)
def squeeze(x: Any, axis: Axis = None) -> Any:
    """Without the axes of size 1, or without those named.

    >>> mg.squeeze(mg.tensor([[1.0, 2.0]])).shape
    (2,)
    """
    return np.squeeze(x, axis=axis)


@primitive(np.expand_dims, vjp=reshaped_back, view=True, batched=time_axis.reshaped)
def expand_dims(x: Any, axis: Axis = 0) -> Any:
    """With new axes of size 1 at `axis` of the result.

    >>> mg.expand_dims(mg.tensor([1.0, 2.0]), axis=1).shape
    (2, 1)
    """
    return np.expand_dims(x, axis)  # type: ignore[arg-type]


def transpose_vjp(g: Any, out: Any, x: Any, *, axes: Sequence[int] | None) -> Any:
    return np.transpose(g, None if axes is None else tuple(np.argsort([axis % len(axes) for axis in axes]).tolist()))


def transpose_over_time(forward: Any) -> time_axis.TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...], *, axes: Sequence[int] | None) -> Any:
        rank = len(shape)
        order = range(rank)[::-1] if axes is None else [axis % rank for axis in axes]
        return np.transpose(values[0], (0, *(axis + 1 for axis in order)))

    return rule


@primitive(
    np.transpose,
    np.permute_dims,
    vjp=transpose_vjp,
    label="T",
    view=True,
    batched=transpose_over_time,
    notation=lambda axes: "xᵀ" if axes is None else None,
)
def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """With the axes in another order; reversed by default.

    >>> mg.transpose(mg.tensor([[1.0, 2.0]])).shape
    (2, 1)
    """
    return np.transpose(x, axes)


def permute(x: ArrayLike, *axes: Any) -> Tensor:
    """`transpose` in PyTorch's spelling: the order of the axes, each given.

    >>> mg.permute(mg.tensor([[[1.0, 2.0]]]), 2, 0, 1).shape
    (2, 1, 1)
    """
    return transpose(x, tuple(one_sequence(axes)))


def swapaxes_over_time(forward: Any) -> time_axis.TimeRule:
    return lambda values, varies, shape, *, axis1, axis2: np.swapaxes(
        values[0], time_axis.later_axis(axis1), time_axis.later_axis(axis2)
    )


@primitive(
    np.swapaxes,
    vjp=lambda g, out, x, *, axis1, axis2: np.swapaxes(g, axis1, axis2),
    label="T",
    view=True,
    batched=swapaxes_over_time,
    notation=lambda axis1, axis2: "xᵀ" if {axis1, axis2} == {-1, -2} else None,
)
def swapaxes(x: Any, axis1: int = -1, axis2: int = -2) -> Any:
    """With two axes exchanged; by default the last two.

    >>> mg.swapaxes(mg.tensor([[1.0, 2.0]]), 0, 1).shape
    (2, 1)
    """
    return np.swapaxes(x, axis1, axis2)


def broadcast_over_time(forward: Any) -> time_axis.TimeRule:
    def rule(values: Any, varies: Any, result: tuple[int, ...], /, *, shape: Any) -> Any:
        return np.broadcast_to(time_axis.aligned(values[0], True, len(result)), (len(values[0]), *result))

    return rule


@primitive(np.broadcast_to, vjp=lambda g, out, x, *, shape: g, view=True, batched=broadcast_over_time)
def broadcast_to(x: Any, shape: Any = ()) -> Any:
    """Repeated along new or size-1 axes until it has `shape`.

    >>> mg.broadcast_to(mg.tensor([1.0, 2.0]), (3, 2)).shape
    (3, 2)
    """
    return np.broadcast_to(x, shape)


@primitive(np.flip, vjp=lambda g, out, x, *, axis: np.flip(g, axis), view=True, batched=time_axis.along_axes)
def flip(x: Any, axis: Axis = None) -> Any:
    """With the elements along `axis` in reverse order.

    >>> mg.flip(mg.tensor([1.0, 2.0])).value.tolist()
    [2.0, 1.0]
    """
    return np.flip(x, axis)


def pad_vjp(g: Any, out: Any, x: Any, *, pad_width: Any, mode: str, constant_values: float) -> Any:
    before = np.broadcast_to(pad_width, (np.ndim(x), 2))[:, 0].tolist()
    return g[tuple(slice(start, start + n) for start, n in zip(before, np.shape(x), strict=True))]


def pad_over_time(forward: Any) -> time_axis.TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...], *, pad_width: Any, **params: Any) -> Any:
        widths = np.broadcast_to(pad_width, (len(shape), 2)).tolist()
        return forward(values[0], [(0, 0), *widths], **params)

    return rule


@primitive(
    np.pad,
    vjp=pad_vjp,
    batched=pad_over_time,
    notation=lambda pad_width, mode, constant_values: None if constant_values else f"pad_{{{pad_width}}}(x)",
)
def pad(x: Any, pad_width: Any = 0, mode: str = "constant", constant_values: float = 0) -> Any:
    """With a border of a constant; `pad_width` is one int, (before, after), or one such pair per axis.

    Raises
    ------
    OperandError
        If `mode` is not "constant".

    >>> mg.pad(mg.tensor([1.0]), (1, 2)).value.tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    if mode != "constant":
        raise OperandError(f"pad knows mode='constant', not {mode!r}; use getitem with repeated indices for others")
    return np.pad(x, pad_width, constant_values=constant_values)


def along(axis: int, index: Any) -> tuple[Any, ...]:
    """The index that applies `index` to `axis` and keeps all others."""
    return (slice(None),) * axis + (index,) if axis >= 0 else (..., index) + (slice(None),) * (-axis - 1)


def concatenate_vjp_of(index: int) -> Rule:
    def rule(g: Any, out: Any, operands: Any, *, axis: int | None) -> Any:
        if axis is None:  # all operands flattened
            first = sum(int(np.size(operand)) for operand in operands[:index])
            own = operands[index]
            return np.reshape(g[first : first + int(np.size(own))], np.shape(own))
        start = sum(operand.shape[axis] for operand in operands[:index])
        return g[along(axis, slice(start, start + operands[index].shape[axis]))]

    return rule


@primitive(
    np.concatenate,
    vjp_of=concatenate_vjp_of,
    label="concat",
    batched=time_axis.joined,
    notation=lambda axis: "[x; …]" if axis in (0, None) else "[x, …]",
)
def concatenate(arrays: Any, axis: int | None = 0) -> Any:
    """A sequence of arrays joined along an axis they have; with None, flattened and joined.

    >>> mg.concatenate([mg.tensor([1.0]), mg.tensor([2.0, 3.0])]).value.tolist()
    [1.0, 2.0, 3.0]
    """
    return np.concatenate(arrays, axis=axis)


def stack_vjp_of(index: int) -> Rule:
    return lambda g, out, operands, *, axis: g[along(axis, index)]


@primitive(np.stack, vjp_of=stack_vjp_of, batched=time_axis.joined)
def stack(arrays: Any, axis: int = 0) -> Any:
    """A sequence of arrays of one shape joined along a new axis.

    >>> mg.stack([mg.tensor(1.0), mg.tensor(2.0)]).value.tolist()
    [1.0, 2.0]
    """
    return np.stack(arrays, axis=axis)


def split(x: ArrayLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut along `axis` into equal sections, or at the given indices, as `np.split` does.

    Raises
    ------
    OperandError
        If the axis does not divide into that many sections.

    >>> [part.value.tolist() for part in mg.split(mg.tensor([1.0, 2.0, 3.0, 4.0]), 2)]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    x = constant(x)
    if not -x.ndim <= axis < x.ndim:
        raise OperandError(f"split: axis {axis} is outside the {x.ndim} axes of shape {x.shape}")
    size = x.shape[axis]
    if isinstance(indices_or_sections, int | np.integer):
        if indices_or_sections < 1 or size % indices_or_sections:
            raise OperandError(f"split: axis {axis} of size {size} does not divide into {indices_or_sections} sections")
        width = size // int(indices_or_sections)
        cuts = list(range(width, size, width))
    else:
        cuts = list(indices_or_sections)
    return [getitem(x, along(axis, slice(start, stop))) for start, stop in itertools.pairwise([0, *cuts, size])]


NUMPY_FUNCTIONS[np.split] = split


def unstack(x: ArrayLike) -> list[Tensor]:
    """The slices along the first axis, by halving: their adjoints copy T log T numbers, not T².

    Raises
    ------
    OperandTypeError
        If `x` is a scalar.

    >>> [float(row) for row in mg.unstack(mg.tensor([1.0, 2.0, 3.0]))]
    [1.0, 2.0, 3.0]
    """
    x = constant(x)
    parts = [x] if len(x) else []
    while len(parts) < len(x):
        halves = []
        for part in parts:
            middle = len(part) // 2
            halves += [part[:middle], part[middle:]] if middle else [part]
        parts = halves
    return [part[0] for part in parts]


def one_sequence(items: tuple[Any, ...]) -> Any:
    """The arguments of a method that takes either several ints or one sequence of them."""
    return items[0] if len(items) == 1 and not isinstance(items[0], int | np.integer) else items
