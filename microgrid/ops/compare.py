"""Comparisons and logic, elementwise. Their results are booleans: no gradient flows through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microgrid.errors import OperandTypeError
from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.primitive import primitive
from microgrid.tensor import ArrayLike, Tensor, constant, describe


@primitive(np.equal, label="=", notation="x = y")
def equal(x: Any, y: Any) -> Any:
    """Whether the elements are equal.

    >>> mg.equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [False, True]
    """
    return x == y


@primitive(np.not_equal, label="≠", notation="x ≠ y")
def not_equal(x: Any, y: Any) -> Any:
    """Whether the elements differ.

    >>> mg.not_equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [True, False]
    """
    return x != y


@primitive(np.less, label="<", notation="x < y")
def less(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are smaller.

    >>> mg.less(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [True, False]
    """
    return x < y


@primitive(np.less_equal, label="≤", notation="x ≤ y")
def less_equal(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are smaller or equal.

    >>> mg.less_equal(mg.tensor([1.0, 3.0]), 2.0).value.tolist()
    [True, False]
    """
    return x <= y


@primitive(np.greater, label=">", notation="x > y")
def greater(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are larger.

    >>> mg.greater(mg.tensor([1.0, 3.0]), 2.0).value.tolist()
    [False, True]
    """
    return x > y


@primitive(np.greater_equal, label="≥", notation="x ≥ y")
def greater_equal(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are larger or equal.

    >>> mg.greater_equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [False, True]
    """
    return x >= y


@primitive(np.logical_and, label="and", notation="x ∧ y")
def logical_and(x: Any, y: Any) -> Any:
    """Whether both elements are true.

    >>> mg.logical_and(mg.tensor([True, True]), mg.tensor([True, False])).value.tolist()
    [True, False]
    """
    return np.logical_and(x, y)


@primitive(np.logical_or, label="or", notation="x ∨ y")
def logical_or(x: Any, y: Any) -> Any:
    """Whether either element is true.

    >>> mg.logical_or(mg.tensor([True, False]), mg.tensor([False, False])).value.tolist()
    [True, False]
    """
    return np.logical_or(x, y)


@primitive(np.logical_not, label="not", notation="¬x")
def logical_not(x: Any) -> Any:
    """Whether each element is false.

    >>> mg.logical_not(mg.tensor([True, False])).value.tolist()
    [False, True]
    """
    return np.logical_not(x)


def of_booleans(symbol: str, logical: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The operator `&`, `|` or `~`: logic on booleans, as in NumPy; on integers NumPy's would work on bits."""

    def operation(*operands: ArrayLike) -> Tensor:
        nodes = [constant(operand) for operand in operands]
        for node in nodes:
            if node.dtype != np.bool_:
                raise OperandTypeError(
                    f"{symbol} is for booleans, but {describe(node)} holds {node.dtype}; "
                    f"mg.{logical.__name__} takes any numbers"
                )
        return logical(*nodes)

    return operation


bitwise_and = NUMPY_FUNCTIONS[np.bitwise_and] = of_booleans("&", logical_and)
bitwise_or = NUMPY_FUNCTIONS[np.bitwise_or] = of_booleans("|", logical_or)
invert = NUMPY_FUNCTIONS[np.invert] = of_booleans("~", logical_not)
