"""Products of matrices: matmul with NumPy's rules for every rank, and einsum."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np

from microgrid.errors import OperandError
from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.primitive import Primitive, Rule, primitive, record
from microgrid.tensor import ArrayLike, Tensor, constant
from microgrid.time_axis import TimeRule, aligned


def matmul_vjp_x(g: Any, out: Any, x: Any, y: Any) -> Any:
    if y.ndim == 1:  # (..., n) @ (n,)
        return np.expand_dims(g, -1) * y
    if x.ndim == 1:  # (n,) @ (..., n, m)
        return (y @ np.expand_dims(g, -1)).reshape(y.shape[:-1])
    return g @ (y.T if y.ndim == 2 else np.swapaxes(y, -1, -2))


def matmul_vjp_y(g: Any, out: Any, x: Any, y: Any) -> Any:
    if y.ndim == 1:  # (..., n) @ (n,)
        return x * np.expand_dims(g, -1)
    if x.ndim == 1:  # (n,) @ (..., n, m)
        return np.expand_dims(x, -1) * np.expand_dims(g, -2)
    if x.ndim == 2:
        return x.T @ g
    if y.ndim == 2:  # one product over all rows, not one per leading index
        rows = math.prod(x.shape[:-1])
        return x.reshape((rows, x.shape[-1])).T @ g.reshape((rows, g.shape[-1]))
    return np.swapaxes(x, -1, -2) @ g


def matmul_over_time(forward: Any) -> TimeRule:
    def rule(values: Any, varies: Any, shape: tuple[int, ...]) -> Any:
        """One product over the rows of all timesteps where the right operand is a static matrix."""
        (x, y), (x_varies, y_varies) = values, varies
        if not y_varies and np.ndim(y) == 2:
            return np.matmul(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), y).reshape(len(x), *shape)
        if np.ndim(x) == x_varies + 1:  # a vector at each timestep: a matrix of one row
            x = np.expand_dims(x, -2)
        if np.ndim(y) == y_varies + 1:
            y = np.expand_dims(y, -1)
        rank = max(np.ndim(x) - x_varies, np.ndim(y) - y_varies)
        product = np.matmul(aligned(x, x_varies, rank), aligned(y, y_varies, rank))
        return product.reshape(len(product), *shape)

    return rule


def matmul_shape(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...] | None:
    if not x or not y or x[-1] != y[-2:][0]:
        return None
    return (*np.broadcast_shapes(x[:-2], y[:-2]), *x[-2:-1], *(y[-1:] if len(y) > 1 else ()))


@primitive(
    np.matmul,
    vjp=(matmul_vjp_x, matmul_vjp_y),
    label="@",
    batched=matmul_over_time,
    shape_of=matmul_shape,
    notation="x y",
)
def matmul(x: Any, y: Any) -> Any:
    """Matrix product, with `np.matmul`'s rules: (..., n, k) @ (..., k, m) → (..., n, m).

    A vector on the left is a row, on the right a column, and its axis is dropped from the result;
    leading axes broadcast.

    Raises
    ------
    OperandError
        If the inner sizes differ, or an operand is a scalar.

    >>> mg.matmul(mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0], [4.0]])).value.tolist()
    [[11.0]]
    """
    if np.ndim(x) and np.ndim(y) and x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ValueError(
            f"the last axis of the first, of size {x.shape[-1]}, must be as long as the "
            f"{'second-last' if y.ndim > 1 else 'only'} axis of the second, of size {y.shape[-2 if y.ndim > 1 else 0]}"
        )
    return np.matmul(x, y)


def einsum_vjp_of(index: int) -> Rule:
    def rule(g: Any, out: Any, operands: Any, *, inputs: tuple[str, ...], output: str) -> Any:
        """An einsum again: the cotangent and the other operands, contracted to operand `index`."""
        others = [operand for i, operand in enumerate(operands) if i != index]
        terms = [output, *(term for i, term in enumerate(inputs) if i != index)]
        factors = [g, *others]
        wanted, dtype = "", g.dtype
        spare = (letter for letter in string.ascii_letters if letter not in output + "".join(inputs))
        for letter, size in zip(inputs[index], np.shape(operands[index]), strict=True):
            if letter in wanted:  # a repeated letter is a diagonal: g goes there, 0 elsewhere
                twin = next(spare)
                terms.append(letter + twin)
                factors.append(np.eye(size, dtype=dtype))
                letter = twin
            elif not any(letter in term for term in terms):  # summed away: spread g along it
                terms.append(letter)
                factors.append(np.ones(size, dtype=dtype))
            wanted += letter
        return np.einsum(",".join(terms) + "->" + wanted, *factors)

    return rule


def einsum_over_time(values: Any, varies: Any, shape: tuple[int, ...], *, inputs: tuple[str, ...], output: str) -> Any:
    """The einsum with one more letter, for time."""
    time = next(letter for letter in string.ascii_letters if letter not in output + "".join(inputs))
    terms = [time + term if v else term for term, v in zip(inputs, varies, strict=True)]
    return np.einsum(",".join(terms) + "->" + time + output, *values)


EINSUM = Primitive(
    name="einsum",
    forward=lambda operands, inputs, output: np.einsum(",".join(inputs) + "->" + output, *operands),
    vjp_of=einsum_vjp_of,
    label="einsum",
    notation=lambda inputs, output: f"einsum_{{{','.join(inputs)}→{output}}}(x, …)",
    variadic=True,
    batched=einsum_over_time,
)


def einsum(subscripts: str, *operands: ArrayLike) -> Tensor:
    """Einstein summation: products of the operands, summed over the letters left out of the output.

    Parameters
    ----------
    subscripts : str
        `np.einsum`'s notation, "ij,jk->ik"; "..." stands for leading axes, and without "->" the
        output has the letters that occur once, in alphabetical order.
    *operands : array-like
        One per comma-separated term.

    Raises
    ------
    OperandError
        If the notation does not fit the operands.

    >>> A, x = mg.tensor([[1.0, 2.0], [3.0, 4.0]]), mg.tensor([1.0, 1.0])
    >>> mg.einsum("ij,j->i", A, x).value.tolist()
    [3.0, 7.0]
    """
    nodes = tuple(map(constant, operands))
    inputs, output = explicit_subscripts(subscripts, [node.ndim for node in nodes])
    return record(EINSUM, nodes, {"inputs": inputs, "output": output})


NUMPY_FUNCTIONS[np.einsum] = einsum


def explicit_subscripts(subscripts: str, ranks: list[int]) -> tuple[tuple[str, ...], str]:
    """The terms and output of an einsum with "..." and "->" written out.

    >>> explicit_subscripts("...ij,jk", [3, 2])
    (('Aij', 'jk'), 'Aik')
    """
    if not isinstance(subscripts, str):
        raise OperandError(f"einsum takes its subscripts first, as a string such as 'ij,jk->ik', not {subscripts!r}")
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise OperandError(f"einsum {subscripts!r} names {len(terms)} operands, but {len(ranks)} were given")
    spare = [letter for letter in string.ascii_uppercase + string.ascii_lowercase if letter not in subscripts]
    leading = 0
    for term, rank in zip(terms, ranks, strict=True):
        letters = len(term.replace("...", ""))
        if letters > rank or ("..." not in term and letters < rank):
            raise OperandError(f"einsum {subscripts!r}: the term {term!r} does not fit an operand of {rank} axes")
        leading = max(leading, rank - letters)
    dots = "".join(spare[:leading])
    inputs = tuple(
        term.replace("...", dots[leading - (rank - len(term.replace("...", ""))) :])
        for term, rank in zip(terms, ranks, strict=True)
    )
    if arrow:
        return inputs, output.replace("...", dots)
    once = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
    return inputs, dots + "".join(once)
