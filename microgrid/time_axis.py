"""Rules by which primitives compute all timesteps at once, on arrays with a leading time axis.

Each takes the values of the operands, of which those that vary are of shape (time, *shape); `varies`
says which; `shape` is that of the result at one timestep. It returns (time, *shape). What has no such
rule is computed timestep by timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TimeRule = Callable[..., Any]
"""(operand values, varies, shape, **params) → the result at all timesteps."""


def aligned(value: Any, varies: bool, rank: int) -> Any:
    """A varying value with axes of size 1 after the time axis, so that it broadcasts as one of `rank` would.

    >>> import numpy as np
    >>> aligned(np.zeros((5, 3)), True, 2).shape        # beside (5, 2, 3)
    (5, 1, 3)
    """
    missing = rank + 1 - np.ndim(value)
    return value[(slice(None),) + (None,) * missing] if varies and missing > 0 else value


def elementwise(forward: Callable[..., Any]) -> TimeRule:
    """The rule of an operation on each element by itself."""

    def rule(values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, **params: Any) -> Any:
        return forward(*(aligned(value, v, len(shape)) for value, v in zip(values, varies, strict=True)), **params)

    return rule


def reshaped(forward: Callable[..., Any]) -> TimeRule:
    """The rule of an operation that keeps the elements in order."""

    def rule(values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, **params: Any) -> Any:
        return values[0].reshape(len(values[0]), *shape)

    return rule


def later_axis(axis: int) -> int:
    """Where an axis of one timestep stands behind a leading time axis."""
    return axis + 1 if axis >= 0 else axis


def along_axes(forward: Callable[..., Any]) -> TimeRule:
    """The rule of an operation along `axis`: one, several, or None for all."""

    def rule(
        values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, *, axis: Any, **params: Any
    ) -> Any:
        (x,) = values
        if axis is None:
            axes: Any = tuple(range(1, np.ndim(x)))
        elif isinstance(axis, int | np.integer):
            axes = later_axis(int(axis)) if np.ndim(x) > 1 else ()
        else:
            axes = tuple(map(later_axis, axis))
        return forward(x, axis=axes, **params)

    return rule


def along_one_axis(forward: Callable[..., Any]) -> TimeRule:
    """The rule of an operation along one `axis`, or over all elements in order for None."""

    def rule(
        values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, *, axis: Any, **params: Any
    ) -> Any:
        (x,) = values
        flat = axis is None or np.ndim(x) == 1
        return forward(x.reshape(len(x), -1) if flat else x, axis=1 if flat else later_axis(axis), **params).reshape(
            len(x), *shape
        )

    return rule


def every_step(value: Any, varies: bool, steps: int) -> Any:
    """A value with a time axis: a static one repeated, without copying it."""
    return value if varies else np.broadcast_to(value, (steps, *np.shape(value)))


def number_of_steps(values: Sequence[Any], varies: Sequence[bool]) -> int:
    return next(len(value) for value, v in zip(values, varies, strict=True) if v)


def joined(forward: Callable[..., Any]) -> TimeRule:
    """The rule of `concatenate` and `stack`."""

    def rule(
        values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, *, axis: int | None, **params: Any
    ) -> Any:
        steps = number_of_steps(values, varies)
        rows = [every_step(value, v, steps) for value, v in zip(values, varies, strict=True)]
        if axis is None:
            return forward([row.reshape(steps, -1) for row in rows], axis=1)
        return forward(rows, axis=later_axis(axis), **params)

    return rule


def step_by_step(forward: Callable[..., Any], variadic: bool) -> TimeRule:
    """The rule that always holds: one timestep after the other."""

    def rule(values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], /, **params: Any) -> Any:
        steps = number_of_steps(values, varies)
        made = []
        for t in range(steps):
            given = [value[t] if v else value for value, v in zip(values, varies, strict=True)]
            made.append(np.asarray(forward(given, **params) if variadic else forward(*given, **params)))
        return np.stack(made)

    return rule
