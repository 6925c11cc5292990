"""Reductions and normalisations along axes. An `axis` is an int, a tuple of ints, or None for all."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from microgrid.primitive import Notation, primitive
from microgrid.tensor import Axis
from microgrid.time_axis import along_axes, along_one_axis

numpy: Any = np  # untyped: the stubs of reductions with a variable `keepdims` differ between NumPy's releases


def axes_of(ndim: int, axis: Axis) -> tuple[int, ...]:
    """`axis` as a tuple of axes counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(i % ndim for i in ((axis,) if isinstance(axis, int | np.integer) else axis)) if ndim else ()


def spread(reduced: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """What was reduced from `x`, with the reduced axes kept at size 1, ready to broadcast against `x`."""
    if keepdims or np.ndim(reduced) == np.ndim(x):
        return reduced
    axes = axes_of(np.ndim(x), axis)
    return np.reshape(reduced, tuple(1 if i in axes else n for i, n in enumerate(np.shape(x))))


def count(x: Any, axis: Axis) -> int:
    """How many elements of `x` go into each reduced one."""
    return math.prod(np.shape(x)[i] for i in axes_of(np.ndim(x), axis))


def along(sign: str, operand: str, default: Axis = None) -> Notation:
    """The notation of an operation along an axis, which is written as a subscript where it is not the usual one."""

    def notation(axis: Axis = None, **_: Any) -> str:
        if axis == default:
            return sign + operand
        axes = "all" if axis is None else ", ".join(map(str, (axis,) if isinstance(axis, int | np.integer) else axis))
        return f"{sign}_{{axis {axes}}}{operand}"

    return notation


def sum_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(spread(g, x, axis, keepdims), np.shape(x))


@primitive(np.sum, vjp=sum_vjp, batched=along_axes, label="Σ", notation=along("Σ", " x"))
def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum of the elements along `axis`.

    >>> mg.sum(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).value.tolist()
    [4.0, 6.0]
    """
    return numpy.sum(x, axis=axis, keepdims=keepdims)


def mean_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(spread(g / count(x, axis), x, axis, keepdims), np.shape(x))


@primitive(np.mean, vjp=mean_vjp, batched=along_axes, notation=along("mean", "(x)"))
def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean along `axis`.

    >>> float(mg.mean(mg.tensor([1.0, 2.0, 6.0])))
    3.0
    """
    return numpy.mean(x, axis=axis, keepdims=keepdims)


def extreme_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    attained = x == spread(out, x, axis, keepdims)
    return attained * spread(g / numpy.sum(attained, axis=axis, keepdims=keepdims), x, axis, keepdims)


@primitive(np.max, vjp=extreme_vjp, batched=along_axes, notation=along("max", "(x)"))
def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element along `axis`; elements that tie share the gradient equally.

    >>> float(mg.max(mg.tensor([1.0, 5.0, 2.0])))
    5.0
    """
    return numpy.max(x, axis=axis, keepdims=keepdims)


@primitive(np.min, vjp=extreme_vjp, batched=along_axes, notation=along("min", "(x)"))
def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest element along `axis`; elements that tie share the gradient equally.

    >>> float(mg.min(mg.tensor([1.0, 5.0, 2.0])))
    1.0
    """
    return numpy.min(x, axis=axis, keepdims=keepdims)


def var_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool, ddof: int) -> Any:
    deviation = x - np.mean(x, axis=axis, keepdims=True)
    return spread(g * (2 / (count(x, axis) - ddof)), x, axis, keepdims) * deviation


@primitive(np.var, vjp=var_vjp, batched=along_axes, notation=along("var", "(x)"))
def var(x: Any, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Any:
    """Variance along `axis`, with divisor N − `ddof` (NumPy's default 0; PyTorch's is 1).

    >>> float(mg.var(mg.tensor([1.0, 3.0])))
    1.0
    """
    return numpy.var(x, axis=axis, keepdims=keepdims, ddof=ddof)


def std_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool, ddof: int) -> Any:
    deviation = x - np.mean(x, axis=axis, keepdims=True)
    return spread(g / (out * (count(x, axis) - ddof)), x, axis, keepdims) * deviation


@primitive(np.std, vjp=std_vjp, batched=along_axes, notation=along("std", "(x)"))
def std(x: Any, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Any:
    """Standard deviation along `axis`, with divisor N − `ddof`; no gradient exists where it is 0.

    >>> float(mg.std(mg.tensor([1.0, 3.0])))
    1.0
    """
    return numpy.std(x, axis=axis, keepdims=keepdims, ddof=ddof)


def prod_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    """g times the product of the other elements: of those before and of those after, so that 0 needs no care."""
    axes = axes_of(np.ndim(x), axis)
    order = [i for i in range(np.ndim(x)) if i not in axes] + list(axes)
    last = np.transpose(x, order)
    rows = np.reshape(last, (*np.shape(last)[: np.ndim(x) - len(axes)], math.prod(np.shape(x)[i] for i in axes)))
    others = product_before(rows) * np.flip(product_before(np.flip(rows, -1)), -1)
    back = tuple(np.argsort(order).tolist())
    return spread(g, x, axis, keepdims) * np.transpose(np.reshape(others, np.shape(last)), back)


def product_before(rows: Any) -> Any:
    """For each element, the product of those before it along the last axis: a scan in log₂ n multiplications.

    Source: W. D. Hillis and G. L. Steele, Data parallel algorithms, CACM 29 (1986).
    """
    *leading, count = np.shape(rows)

    def shifted(values: Any, by: int) -> Any:
        ones = np.ones((*leading, builtins.min(by, count)), dtype=values.dtype)
        return np.concatenate([ones, values[..., : builtins.max(count - by, 0)]], axis=-1)

    product, by = shifted(rows, 1), 1
    while by < count:
        product, by = product * shifted(product, by), 2 * by
    return product


@primitive(np.prod, vjp=prod_vjp, batched=along_axes, label="∏", notation=along("∏", " x"))
def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product of the elements along `axis`.

    Its gradients, of every order, are exact also where elements are 0.

    >>> float(mg.prod(mg.tensor([2.0, 3.0, 4.0])))
    24.0
    """
    return numpy.prod(x, axis=axis, keepdims=keepdims)


def cumsum_vjp(g: Any, out: Any, x: Any, *, axis: int | None) -> Any:
    along = 0 if axis is None else axis
    return np.reshape(np.flip(np.cumsum(np.flip(g, along), along), along), np.shape(x))


@primitive(np.cumsum, vjp=cumsum_vjp, batched=along_one_axis, notation=along("cumsum", "(x)"))
def cumsum(x: Any, axis: int | None = None) -> Any:
    """Running sum along `axis`, or over all elements in order.

    >>> mg.cumsum(mg.tensor([1.0, 2.0, 3.0])).value.tolist()
    [1.0, 3.0, 6.0]
    """
    return np.cumsum(x, axis=axis)


def logsumexp_vjp(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    return spread(g, x, axis, keepdims) * np.exp(x - spread(out, x, axis, keepdims))


@primitive(vjp=logsumexp_vjp, batched=along_axes, notation=along("logsumexp", "(x)", default=-1))
def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(Σ exp(x)) along `axis`, without overflow.

    >>> round(float(mg.logsumexp(mg.tensor([1000.0, 1000.0]))), 4)
    1000.6931
    """
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, np.zeros_like(top))
    summed = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return summed if keepdims else np.squeeze(summed, axis=axes_of(np.ndim(x), axis))


def softmax_vjp(g: Any, out: Any, x: Any, *, axis: Axis) -> Any:
    weighted = g * out
    return weighted - out * np.sum(weighted, axis=axis, keepdims=True)


@primitive(vjp=softmax_vjp, batched=along_axes, notation=along("softmax", "(x)", default=-1))
def softmax(x: Any, axis: Axis = -1) -> Any:
    """exp(x) / Σ exp(x) along `axis`, without overflow.

    >>> mg.softmax(mg.tensor([0.0, 0.0])).value.tolist()
    [0.5, 0.5]
    """
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def log_softmax_vjp(g: Any, out: Any, x: Any, *, axis: Axis) -> Any:
    return g - np.exp(out) * np.sum(g, axis=axis, keepdims=True)


@primitive(vjp=log_softmax_vjp, batched=along_axes, notation=along("log_softmax", "(x)", default=-1))
def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """log(softmax(x)) along `axis`, without overflow.

    >>> [round(v, 4) for v in mg.log_softmax(mg.tensor([0.0, 0.0])).value.tolist()]
    [-0.6931, -0.6931]
    """
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
