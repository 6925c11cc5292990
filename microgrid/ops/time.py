"""Operations that know of time: the delay behind a state, and the reductions over timesteps.

Recorded, a network has one timestep, and each of these reads one operand. Unrolled, a time reduction
reads one operand per timestep.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microgrid.primitive import Primitive, Rule, record
from microgrid.tensor import ArrayLike, Tensor

DELAY = Primitive(name="delay", forward=lambda x: x, vjps=(lambda g, out, x: g,), label="t−1")


def sum_of(values: list[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def same_for_each(rule: Rule) -> Any:
    """Operand number → the rule that serves every timestep."""
    return lambda index: rule


def only_at(timestep: int) -> Any:
    """Operand number → a rule by which the gradient flows to one timestep."""

    def vjp_of(index: int) -> Rule:
        return lambda g, out, *steps: g if index == timestep % len(steps) else None

    return vjp_of


TIME_SUM = Primitive(
    "time_sum", sum_of, vjp_of=same_for_each(lambda g, out, *steps: g), label="Σ over t", over_time=True, variadic=True
)
TIME_MEAN = Primitive(
    "time_mean",
    lambda values: sum_of(values) / len(values),
    vjp_of=same_for_each(lambda g, out, *steps: g / len(steps)),
    label="mean over t",
    over_time=True,
    variadic=True,
)
FIRST = Primitive("first", lambda values: values[0], vjp_of=only_at(0), label="first t", over_time=True, variadic=True)
LAST = Primitive("last", lambda values: values[-1], vjp_of=only_at(-1), label="last t", over_time=True, variadic=True)
TIME_STACK = Primitive(
    "time_stack",
    lambda values: np.stack([np.asarray(value) for value in values]),
    vjp_of=lambda index: lambda g, out, *steps: g[index],
    label="stack over t",
    over_time=True,
    variadic=True,
)


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
