"""Comparisons and logic, elementwise. Their results are booleans: no gradient flows through them."""

from __future__ import annotations

from typing import Any

import numpy as np

from microgrid.primitive import primitive


@primitive(np.equal, label="=")
def equal(x: Any, y: Any) -> Any:
    """Whether the elements are equal.

    >>> mg.equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [False, True]
    """
    return x == y


@primitive(np.not_equal, label="≠")
def not_equal(x: Any, y: Any) -> Any:
    """Whether the elements differ.

    >>> mg.not_equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [True, False]
    """
    return x != y


@primitive(np.less, label="<")
def less(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are smaller.

    >>> mg.less(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [True, False]
    """
    return x < y


@primitive(np.less_equal, label="≤")
def less_equal(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are smaller or equal.

    >>> mg.less_equal(mg.tensor([1.0, 3.0]), 2.0).value.tolist()
    [True, False]
    """
    return x <= y


@primitive(np.greater, label=">")
def greater(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are larger.

    >>> mg.greater(mg.tensor([1.0, 3.0]), 2.0).value.tolist()
    [False, True]
    """
    return x > y


@primitive(np.greater_equal, label="≥")
def greater_equal(x: Any, y: Any) -> Any:
    """Whether the elements of `x` are larger or equal.

    >>> mg.greater_equal(mg.tensor([1.0, 2.0]), 2.0).value.tolist()
    [False, True]
    """
    return x >= y


@primitive(np.logical_and, np.bitwise_and, label="and")
def logical_and(x: Any, y: Any) -> Any:
    """Whether both elements are true.

    >>> mg.logical_and(mg.tensor([True, True]), mg.tensor([True, False])).value.tolist()
    [True, False]
    """
    return np.logical_and(x, y)


@primitive(np.logical_or, np.bitwise_or, label="or")
def logical_or(x: Any, y: Any) -> Any:
    """Whether either element is true.

    >>> mg.logical_or(mg.tensor([True, False]), mg.tensor([False, False])).value.tolist()
    [True, False]
    """
    return np.logical_or(x, y)


@primitive(np.logical_not, np.invert, label="not")
def logical_not(x: Any) -> Any:
    """Whether each element is false.

    >>> mg.logical_not(mg.tensor([True, False])).value.tolist()
    [False, True]
    """
    return np.logical_not(x)
