"""Operations that know of time: the delay behind a state, the reductions over timesteps, and their opposite.

Recorded, a network has one timestep, and each of these reads one operand. Unrolled, a time reduction
reads one operand per timestep it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microgrid.ops.index import getitem, getitem_vjp
from microgrid.ops.pick import lookup_of, sum_by_row
from microgrid.outline import ShapeRule
from microgrid.primitive import Primitive, Rule, record
from microgrid.tensor import ArrayLike, Tensor

DELAY = Primitive(name="delay", forward=lambda x: x, vjps=(lambda g, out, x: g,), label="t−1", notation="x")
DELAY_BACK = Primitive(name="delay", forward=lambda x: x, vjps=(lambda g, out, x: g,), label="t+1", notation="x")
"""The delay of a reverse state."""


def sum_of(values: list[Any]) -> Any:
    total = 0 + values[0]  # counts booleans
    for value in values[1:]:
        total = total + value
    return total


def reduction(
    name: str,
    forward: Callable[..., Any],
    vjp_of: Callable[[int], Rule],
    label: str,
    reads: Callable[[list[Any]], list[Any]] = lambda steps: steps,
    shape_of: ShapeRule | None = None,
    notation: str | None = None,
) -> Primitive:
    """A reduction over time; `reads` picks the timesteps it needs."""
    return Primitive(
        name,
        forward,
        vjp_of=vjp_of,
        label=label,
        over_time=reads,
        variadic=True,
        shape_of=shape_of,
        notation=notation,
    )


TIME_SUM = reduction("time_sum", sum_of, lambda index: lambda g, out, steps: g, "Σ over t", notation="Σ_t x")
TIME_MEAN = reduction(
    "time_mean",
    lambda values: sum_of(values) / len(values),
    lambda index: lambda g, out, steps: g / len(steps),
    "mean over t",
    notation="1 / T ⊙ Σ_t x",
)
FIRST = reduction(
    "first",
    lambda values: values[0],
    lambda index: lambda g, out, step: g,
    "first t",
    lambda steps: steps[:1],
    notation="x_{0}",
)
LAST = reduction(
    "last",
    lambda values: values[0],
    lambda index: lambda g, out, step: g,
    "last t",
    lambda steps: steps[-1:],
    notation="x_{T−1}",
)
TIME_STACK = reduction(
    "time_stack",
    lambda values: np.stack([np.asarray(value) for value in values]),
    lambda index: lambda g, out, steps: g[index],
    "stack over t",
    notation="stack_t(x)",
)


def of_pairs(product: Callable[..., Any]) -> Callable[..., Any]:
    """The forward rule Σₜ product(xₜ, yₜ), on all xₜ and then all yₜ."""

    def forward(values: list[Any], **params: Any) -> Any:
        steps = len(values) // 2
        return sum_of([product(x, y, **params) for x, y in zip(values[:steps], values[steps:], strict=True)])

    return forward


def pair_vjp_of(rule_x: Callable[[Any, Any, Any], Any], rule_y: Callable[[Any, Any, Any], Any]) -> Any:
    """The VJP rules of Σₜ product(xₜ, yₜ) from those of the product: (cotangent, x, y) → that of x, of y."""

    def vjp_of(index: int) -> Rule:
        def rule(g: Any, out: Any, operands: Any, **_: Any) -> Any:
            steps = len(operands) // 2
            t = index % steps
            return (rule_x if index < steps else rule_y)(g, operands[t], operands[t + steps])

        return rule

    return vjp_of


TIME_MATMUL = reduction(
    "time_matmul",
    of_pairs(lambda x, y: x.T @ y),
    pair_vjp_of(lambda g, x, y: y @ g.T, lambda g, x, y: x @ g),
    "Σ xᵀy over t",
    notation="Σ_t xᵀ y",
    shape_of=lambda x, y: (x[1], y[1]),
)
TIME_DOT = reduction(
    "time_dot",
    of_pairs(lambda x, y: np.sum(x * y)),
    pair_vjp_of(lambda g, x, y: g * y, lambda g, x, y: g * x),
    "Σ x·y over t",
    notation="Σ_t Σ x ⊙ y",
)
TIME_ROWS = reduction(
    "time_rows",
    lambda values: sum_of([np.sum(value, axis=0) for value in values]),
    lambda index: lambda g, out, steps: np.broadcast_to(g, np.shape(steps[index])),
    "Σ over t and rows",
    notation="Σ_t Σ_{axis 0} x",
)
TIME_ADD_ROWS = reduction(
    "time_add_rows",
    of_pairs(sum_by_row),
    pair_vjp_of(lambda g, x, index: lookup_of(g, index), lambda g, x, index: None),
    "Σ by row over t",
    notation="Σ_t onehot(y)ᵀ x",
)
TIME_UNSTACK = Primitive(
    "time_unstack",
    lambda x: x[0],
    vjps=(lambda g, out, x: getitem_vjp(g, out, [x], template=0),),
    label="·[t]",
    notation="x[t]",
    at_timestep=getitem,
    batched=lambda values, varies, shape: values[0],
)


def is_time_reduction(node: Tensor) -> bool:
    """Whether a node reads a value per timestep and has one for the whole sequence."""
    return node.primitive is not None and node.primitive.over_time is not None


def is_spread_over_time(node: Tensor) -> bool:
    """Whether a node has a value per timestep though what it reads has one for the whole sequence."""
    return node.primitive is not None and node.primitive.at_timestep is not None


def has_value_per_timestep(x: Tensor) -> bool:
    """Whether a node that was just recorded has a value at every timestep, or one for the whole sequence."""
    seen, stack = {x}, [x]
    while stack:
        node = stack.pop()
        if node.is_new_at_every_timestep or is_spread_over_time(node):
            return True
        if not is_time_reduction(node):
            new = [operand for operand in node.operands if operand not in seen]
            seen.update(new)
            stack += new
    return False


def time_sum(x: ArrayLike) -> Tensor:
    """The sum of `x` over all timesteps: one value for the whole sequence, of the shape of `x`.

    >>> x = mg.input(0.0, name="x")
    >>> mg.Graph(mg.time_sum(x)).unroll(x=[1.0, 2.0, 3.0]).output.value
    6.0
    """
    return record(TIME_SUM, (x,))


def time_mean(x: ArrayLike) -> Tensor:
    """The mean of `x` over all timesteps: one value for the whole sequence, of the shape of `x`.

    >>> x = mg.input(0.0, name="x")
    >>> mg.Graph(mg.time_mean(x)).unroll(x=[1.0, 2.0, 3.0]).output.value
    2.0
    """
    return record(TIME_MEAN, (x,))


def first(x: ArrayLike) -> Tensor:
    """The value of `x` at the first timestep.

    >>> x = mg.input(0.0, name="x")
    >>> mg.Graph(mg.first(x)).unroll(x=[1.0, 2.0, 3.0]).output.value
    1.0
    """
    return record(FIRST, (x,))


def last(x: ArrayLike) -> Tensor:
    """The value of `x` at the last timestep.

    >>> x = mg.input(0.0, name="x")
    >>> mg.Graph(mg.last(x)).unroll(x=[1.0, 2.0, 3.0]).output.value
    3.0
    """
    return record(LAST, (x,))


def time_stack(x: ArrayLike) -> Tensor:
    """The values of `x` at all timesteps, stacked along a new first axis: (time, *shape of x).

    >>> x = mg.input(0.0, name="x")
    >>> mg.Graph(mg.time_stack(x)).unroll(x=[1.0, 2.0, 3.0]).output.value.tolist()
    [1.0, 2.0, 3.0]
    """
    return record(TIME_STACK, (x,))


def time_matmul(x: ArrayLike, y: ArrayLike) -> Tensor:
    """Σₜ xₜᵀ yₜ: one value for the whole sequence; (n, i), (n, j) → (i, j)."""
    return record(TIME_MATMUL, (x, y))


def time_dot(x: ArrayLike, y: ArrayLike) -> Tensor:
    """The sum of x · y over all elements and timesteps: a scalar."""
    return record(TIME_DOT, (x, y))


def time_rows(x: ArrayLike) -> Tensor:
    """The sum over rows and timesteps: (n, i) → (i,)."""
    return record(TIME_ROWS, (x,))


def time_add_rows(x: ArrayLike, index: ArrayLike, rows: int) -> Tensor:
    """Σₜ of a table of so many rows, to which each entry of xₜ is added at the row that indexₜ says."""
    return record(TIME_ADD_ROWS, (x, index), {"rows": rows})


def time_unstack(x: ArrayLike) -> Tensor:
    """The value of `x`, of shape (time, ...), that belongs to each timestep: the opposite of `time_stack`.

    >>> bias = mg.parameter([1.0, 2.0, 3.0], name="bias")
    >>> mg.Graph(mg.time_sum(mg.time_unstack(bias) ** 2)).unroll(steps=3).output.item()
    14.0
    """
    return record(TIME_UNSTACK, (x,))
