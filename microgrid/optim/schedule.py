"""Schedules: the factor of the learning rate as a function of the step number alone, so that they have no state.

An optimiser takes it as `optimiser.factor = schedule(step)`, before the step with that number; the first is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from microgrid.errors import OperandTypeError
from microgrid.optim.settings import COUNT, FRACTION, NOT_NEGATIVE, STEP_NUMBER


@dataclass(frozen=True, slots=True)
class Step:
    """Multiply the learning rate by `factor` every so many steps.

    Parameters
    ----------
    every : int
        How many steps the learning rate stays the same.
    factor : float

    Raises
    ------
    OperandError
        If `every` is no whole number ≥ 1 or `factor` no number ≥ 0; when called, if the step is negative.

    Examples
    --------
    >>> schedule = mg.optim.Step(every=2, factor=0.5)
    >>> [schedule(step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        COUNT.take(self.every, "every", "Step")
        NOT_NEGATIVE.take(self.factor, "factor", "Step")

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at a step."""
        step = STEP_NUMBER.take(step, "the step", "Step")
        return math.pow(self.factor, step // self.every)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Anneal the learning rate along half a cosine: from 1 down to `floor` over `steps`, where it stays.

    Parameters
    ----------
    steps : int
        The number of the first step at the floor.
    floor : float
        From 0 to 1.

    Raises
    ------
    OperandError
        If `steps` is no whole number ≥ 1 or `floor` not from 0 to 1; when called, if the step is negative.

    Source: I. Loshchilov and F. Hutter, SGDR: stochastic gradient descent with warm restarts (2017), equation 5.

    Examples
    --------
    >>> schedule = mg.optim.Cosine(steps=4, floor=0.1)
    >>> [round(schedule(step), 3) for step in range(6)]
    [1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        COUNT.take(self.steps, "steps", "Cosine")
        FRACTION.take(self.floor, "floor", "Cosine")

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at a step."""
        part = min(STEP_NUMBER.take(step, "the step", "Cosine") / self.steps, 1.0)
        return float(self.floor + (1 - self.floor) * (1 + math.cos(math.pi * part)) / 2)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Raise the learning rate linearly over the first steps, from 1/`steps` to 1; then follow another schedule.

    Parameters
    ----------
    steps : int
    then : callable, int → float, optional
        The schedule after that, which counts its own steps from 0; by default the factor stays 1.

    Raises
    ------
    OperandError
        If `steps` is no whole number ≥ 1; when called, if the step is negative.
    OperandTypeError
        If `then` cannot be called.

    Source: P. Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour (2017), section 2.2.

    Examples
    --------
    >>> schedule = mg.optim.WarmUp(4, then=mg.optim.Step(every=2, factor=0.5))
    >>> [schedule(step) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5]

    In a loop:

    >>> x = mg.parameter(1.0)
    >>> sgd = mg.optim.SGD([x], lr=0.1)
    >>> for step in range(8):
    ...     sgd.factor = schedule(step)
    ...     sgd.zero_grad()
    ...     (x * x).backward()
    ...     sgd.step()
    """

    steps: int
    then: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        COUNT.take(self.steps, "steps", "WarmUp")
        if self.then is not None and not callable(self.then):
            raise OperandTypeError(f"WarmUp takes a schedule for then, such as Cosine(steps), not {self.then!r}")

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at a step."""
        step = STEP_NUMBER.take(step, "the step", "WarmUp")
        if step < self.steps:
            return (step + 1) / self.steps
        return 1.0 if self.then is None else self.then(step - self.steps)
