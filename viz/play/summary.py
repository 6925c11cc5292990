"""Numbers and arrays as JSON: a number as it is, of an array its shape, its norm and up to 64 of its elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

MOST_CELLS, MOST_ROWS = 64, 8
"""Of the map that stands for an array."""

DIGITS = 4
"""Significant digits of the elements in a map."""

JSON = Any


def summary(value: Any) -> JSON:
    """A value as JSON; infinities and nan, which JSON lacks, as text.

    >>> summary(0.5), summary(float("nan"))
    (0.5, 'nan')
    >>> summary(np.array([3.0, -4.0]))
    {'shape': [2], 'norm': 5.0, 'cells': [[3, -4]]}
    """
    if np.ndim(value) == 0:
        return number(value)
    array = np.asarray(value, dtype=float)
    return {"shape": list(array.shape), "norm": norm(array), "cells": [list(map(short, row)) for row in cells(array)]}


def number(value: Any) -> float | int | str:
    """One number, with all its digits."""
    plain = value.item() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(plain, bool):
        return int(plain)
    if isinstance(plain, float) and not math.isfinite(plain):
        return str(plain)
    return plain  # type: ignore[no-any-return]


def norm(value: Any) -> float | str:
    """The Euclidean norm."""
    with np.errstate(all="ignore"):
        return number(np.sqrt(np.sum(np.square(np.asarray(value, dtype=float)))))


def short(value: float) -> float | int | str:
    """An element with a few digits: it is shown as a colour."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e6 else rounded


def cells(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Up to 64 elements in rows and columns: all of them, or some at even distances."""
    if not array.size:
        return np.zeros((0, 0))
    table = array.reshape(-1, array.shape[-1])
    rows = spread(len(table), MOST_ROWS)
    columns = spread(table.shape[1], max(MOST_CELLS // len(rows), 1))
    return np.asarray(table[np.ix_(rows, columns)])


def spread(count: int, most: int) -> np.ndarray[Any, Any]:
    """At most so many of the numbers below `count`, at even distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
