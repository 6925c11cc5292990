"""The operators and methods of Tensor, bound to the functions that record them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microgrid.ops import compare, elementwise, index, linalg, reduce, shape
from microgrid.primitive import STOP_GRADIENT, record
from microgrid.tensor import ArrayLike, Tensor


def swapped(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The same operation with the operands exchanged, for `2 - tensor`."""
    return lambda x, y: function(y, x)


def comparison(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Any]:
    """The operator of a comparison, which leaves None and text to Python: they are equal to no number."""
    return lambda x, y: NotImplemented if y is None or isinstance(y, str) else function(x, y)


def detach(x: Tensor) -> Tensor:
    """The same value, through which no gradient flows.

    Of a leaf, and of anything that depends on an input or a state, it is an operation, computed anew
    whenever the network runs; of anything else a new leaf, so that the history behind `x` can be freed.

    >>> x = mg.tensor(3.0)
    >>> (x * x.detach()).backward(); x.grad
    3.0
    """
    return record(STOP_GRADIENT, (x,)) if not x.operands or x.depends_on_time() else Tensor(x.value)


def flatten(x: ArrayLike) -> Tensor:
    return shape.reshape(x, -1)


OPERATORS: dict[str, Callable[..., Any]] = {
    "__neg__": elementwise.negative,
    "__pos__": elementwise.positive,
    "__abs__": elementwise.absolute,
    "__invert__": compare.invert,
    "__getitem__": index.getitem,
    "__iter__": lambda x: iter(shape.unstack(x)),
    "reshape": lambda x, *sizes: shape.reshape(x, shape.one_sequence(sizes)),
    "transpose": lambda x, *axes: shape.transpose(x, shape.one_sequence(axes) if axes else None),
    "permute": shape.permute,
    "flatten": flatten,
    "detach": detach,
    "abs": elementwise.absolute,
    "astype": elementwise.astype,
    "clip": elementwise.clip,
    "swapaxes": shape.swapaxes,
    "squeeze": shape.squeeze,
}
for symbol, function in {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "pow": elementwise.power,
    "matmul": linalg.matmul,
    "and": compare.bitwise_and,
    "or": compare.bitwise_or,
}.items():
    OPERATORS[f"__{symbol}__"] = function
    OPERATORS[f"__r{symbol}__"] = swapped(function)
for symbol, function in {
    "lt": compare.less,
    "le": compare.less_equal,
    "gt": compare.greater,
    "ge": compare.greater_equal,
    "eq": compare.equal,
    "ne": compare.not_equal,
}.items():
    OPERATORS[f"__{symbol}__"] = comparison(function)
NAMED_AS_THEIR_FUNCTION: tuple[Any, ...] = (
    elementwise.exp,
    elementwise.log,
    elementwise.sqrt,
    elementwise.square,
    elementwise.tanh,
    elementwise.sigmoid,
    elementwise.relu,
    reduce.sum,
    reduce.mean,
    reduce.max,
    reduce.min,
    reduce.var,
    reduce.std,
    reduce.prod,
    reduce.cumsum,
    reduce.softmax,
    reduce.log_softmax,
)
OPERATORS |= {function.__name__: function for function in NAMED_AS_THEIR_FUNCTION}
for attribute, bound in OPERATORS.items():
    setattr(Tensor, attribute, bound)
