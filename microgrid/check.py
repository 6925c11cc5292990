"""check_gradients: the engine against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.errors import GradientCheckError, GradientError
from microgrid.functional import value_and_grad
from microgrid.ops.reduce import sum as total
from microgrid.tensor import Tensor


def check_gradients(
    f: Callable[..., Tensor],
    *arrays: npt.ArrayLike,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    step: float = 3e-4,
) -> float:
    """Compare the gradient of `f` with central differences in float64, entry by entry.

    A result that is no scalar is contracted with fixed random numbers first, which checks all of it.
    The differences are of fourth order: (8 (f(x+h) − f(x−h)) − (f(x+2h) − f(x−2h))) / 12 h.

    Parameters
    ----------
    f : callable
        Takes one Tensor per array, returns a Tensor of any shape.
    *arrays : array of floats
        Where to check.
    rtol, atol : float
        An entry agrees if the difference is at most atol + rtol · the larger of the two.
    step : float
        h, relative to entries larger than 1.

    Returns
    -------
    float
        The largest difference, relative to the largest entry of its argument's gradient (or to 1).

    Raises
    ------
    GradientCheckError
        Naming the entries of the argument that disagree, and both numbers.

    Examples
    --------
    >>> import numpy as np
    >>> mg.check_gradients(lambda x, w: mg.tanh(x @ w), np.ones((2, 3)), np.ones((3, 1))) < 1e-9
    True
    """
    points = [np.array(array, dtype=np.float64) for array in arrays]
    result = f(*map(Tensor, points))
    if not isinstance(result, Tensor):
        raise GradientError(f"the function returned {type(result).__name__}, not a Tensor: compute with Tensors inside")
    shape = result.shape
    weights = np.random.default_rng(0).uniform(0.5, 1.5, size=shape)

    def scalar(*variables: Any) -> Tensor:
        return total(f(*variables) * weights)

    _, gradients = value_and_grad(scalar, argnums=tuple(range(len(points))))(*points)

    def value() -> float:
        return float(scalar(*map(Tensor, points)))

    worst = 0.0
    for number, (point, gradient) in enumerate(zip(points, gradients, strict=True)):
        differences = np.zeros_like(point)
        for index in np.ndindex(point.shape):
            differences[index] = central_difference(value, point, index, step)
        error = np.abs(gradient - differences)
        allowed = atol + rtol * np.maximum(np.abs(gradient), np.abs(differences))
        wrong = np.argwhere(~(error <= allowed))
        if len(wrong):
            raise GradientCheckError(disagreement(number, np.asarray(gradient), differences, wrong))
        if point.size:
            worst = max(worst, float(error.max() / max(1.0, np.abs(differences).max())))
    return worst


def central_difference(value: Callable[[], float], point: Any, index: tuple[int, ...], step: float) -> float:
    """The slope of `value` along one entry of `point`, which is put back afterwards."""
    centre = float(point[index])
    h = step * max(1.0, abs(centre))
    slope: float = 0.0
    for distance, weight in ((1, 8), (2, -1)):
        for side in (1, -1):
            point[index] = centre + side * distance * h
            slope += side * weight * value()
    point[index] = centre
    return slope / (12 * h)


def disagreement(number: int, gradient: Any, differences: Any, wrong: Any) -> str:
    lines = [
        f"argument {number}{list(map(int, index)) if len(index) else ''}: gradient {gradient[tuple(index)]:.10g}, "
        f"central differences {differences[tuple(index)]:.10g}"
        for index in wrong[:5]
    ]
    more = f"\n(and {len(wrong) - 5} more entries of {gradient.size})" if len(wrong) > 5 else ""
    return "gradients disagree with central differences at\n" + "\n".join(lines) + more
