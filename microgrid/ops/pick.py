"""Reading by whole numbers that must lie in range: rows of a table (embeddings), one element of each row (targets).

Each is the adjoint of the other's adjoint: `lookup` and `add_rows`, `pick` and `place`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microgrid.primitive import primitive, primitive_of, record
from microgrid.tensor import Tensor
from microgrid.time_axis import TimeRule, every_step, number_of_steps


def checked(index: Any, count: int, what: str) -> Any:
    """Whole numbers from 0 to count − 1, or an error that says which is not."""
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"what picks a {what} is whole numbers, not {index.dtype}: give an array of integers")
    if index.size and (index.min() < 0 or index.max() >= count):
        found = index[(index < 0) | (index >= count)].flat[0]
        raise IndexError(f"{what} {found} is out of range: it must be from 0 to {count - 1}")
    return index


def made_by(recorder: Any, g: Any, index: Any, **params: Any) -> Any:
    """A primitive recorded on Tensors, computed on arrays, as VJP rules are."""
    if isinstance(g, Tensor):
        return record(primitive_of(recorder), (g, index), params)
    return primitive_of(recorder).compute((g, index), params)


def lookup_over_time(forward: Any) -> TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...]) -> Any:
        table, index = values
        if not varies[0]:
            return forward(table, index)
        index = every_step(index, varies[1], len(table))
        return np.stack([forward(rows, at) for rows, at in zip(table, index, strict=True)])

    return rule


@primitive(
    vjp=(lambda g, out, table, index: rows_of(g, index, np.shape(table)[0]), None),
    batched=lookup_over_time,
    notation="x[y]",
)
def lookup(table: Any, index: Any) -> Any:
    """Rows of a table by whole numbers: (rows, *features), (…) → (…, *features).

    Unlike `table[index]` it takes no negative numbers, which are more often a mistake in the data.

    Raises
    ------
    OperandIndexError
        If a number is not from 0 to rows − 1, naming it.

    >>> mg.lookup(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 1, 0]).value.tolist()
    [[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]]
    """
    return np.take(table, checked(index, np.shape(table)[0], "token"), axis=0)


def sum_by_row(g: Any, index: Any, rows: int) -> Any:
    """The sum of the entries of `g` that go into each row: (…, *features), (…) → (rows, *features).

    Sorted by row, so that each row is one sum of neighbours; `np.add.at` takes ten times as long.
    """
    features = np.shape(g)[np.ndim(index) :]
    out = np.zeros((rows, *features), np.result_type(g))
    flat = np.reshape(index, -1)
    if not flat.size:
        return out
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    out[ordered[starts]] = np.add.reduceat(np.reshape(g, (flat.size, *features))[order], starts, axis=0)
    return out


def add_rows_over_time(forward: Any) -> TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...], *, rows: int) -> Any:
        steps = number_of_steps(values, varies)
        g, index = (every_step(value, v, steps) for value, v in zip(values, varies, strict=True))
        apart = index.astype(np.intp) + rows * np.arange(steps).reshape(steps, *(1,) * (index.ndim - 1))
        return sum_by_row(g, apart, steps * rows).reshape(steps, *shape)

    return rule


@primitive(
    vjp=(lambda g, out, x, index, *, rows: lookup_of(g, index), None),
    batched=add_rows_over_time,
    notation=lambda rows: "onehot(y)ᵀ x",
)
def add_rows(x: Any, index: Any, rows: int = 0) -> Any:
    """A table of so many rows, to which each entry of `x` is added at the row that `index` says; see `lookup`."""
    return sum_by_row(np.asarray(x), np.asarray(index), rows)


def lookup_of(table: Any, index: Any) -> Any:
    return made_by(lookup, table, index)


def rows_of(x: Any, index: Any, rows: int) -> Any:
    return made_by(add_rows, x, index, rows=rows)


def spread_index(index: Any, shape: tuple[int, ...]) -> Any:
    """One number per row, with an axis for what it picks."""
    if np.ndim(index) != len(shape):
        raise ValueError(f"for rows of shape {shape} there are numbers of shape {np.shape(index)}: give one for each")
    return np.broadcast_to(index, shape)[..., None]


def by_rows_over_time(forward: Any) -> TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...], **params: Any) -> Any:
        steps = number_of_steps(values, varies)
        return forward(*(every_step(value, v, steps) for value, v in zip(values, varies, strict=True)), **params)

    return rule


@primitive(
    vjp=(lambda g, out, x, index: placed(g, index, np.shape(x)[-1]), None), batched=by_rows_over_time, notation="x[y]"
)
def pick(x: Any, index: Any) -> Any:
    """One element of each row of `x`: (…, count), (…) → (…).

    Raises
    ------
    OperandIndexError
        If a number is not from 0 to count − 1, naming it.

    >>> mg.pick(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0]).value.tolist()
    [2.0, 3.0]
    """
    index = checked(index, np.shape(x)[-1], "class")
    return np.take_along_axis(np.asarray(x), spread_index(index, np.shape(x)[:-1]), axis=-1)[..., 0]


@primitive(
    vjp=(lambda g, out, x, index, *, count: made_by(pick, g, index), None),
    batched=by_rows_over_time,
    notation=lambda count: "x ⊙ onehot(y)",
)
def place(x: Any, index: Any, count: int = 0) -> Any:
    """Rows of `count` zeros with one element of `x` in each, where `index` says: (…), (…) → (…, count)."""
    out = np.zeros((*np.shape(x), count), np.result_type(x))
    index = spread_index(checked(index, count, "class"), np.shape(x))
    np.put_along_axis(out, index, np.asarray(x)[..., None], axis=-1)
    return out


def placed(x: Any, index: Any, count: int) -> Any:
    return made_by(place, x, index, count=count)


LOOKUP, ADD_ROWS, PICK = primitive_of(lookup), primitive_of(add_rows), primitive_of(pick)
