"""Clipping: gradients made smaller before an optimiser reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.backward import fit
from microgrid.errors import NotFiniteError, OperandTypeError
from microgrid.optim.settings import LIMIT
from microgrid.tensor import Tensor, describe

FAST_DTYPES = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients down together so that their joint Euclidean norm is at most `max_norm`.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient count nothing. Where gradients are scaled, `.grad` becomes a new array:
        the old one may be in other hands.
    max_norm : float
        With `math.inf` the norm is only measured.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    NotFiniteError
        If a gradient holds a NaN or an infinity, or the norm is no finite number; no gradient is scaled then.

    Source: R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training recurrent neural networks
    (2013), section 3.2.

    Examples
    --------
    >>> x = mg.parameter(3.0)
    >>> (x * x).backward()
    >>> mg.optim.clip_grad_norm([x], 1.0), round(x.grad, 6)
    (6.0, 1.0)
    """
    max_norm = LIMIT.take(max_norm, "max_norm", "clip_grad_norm")
    held = with_gradient(parameters, "clip_grad_norm")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norm = math.hypot(*[euclidean_norm(np.asarray(parameter.grad)) for parameter in held])
    if not math.isfinite(norm):
        bad = next((p for p in held if not np.all(np.isfinite(p.grad))), None)
        what = "the norm of all gradients together" if bad is None else f"the gradient of {describe(bad)}"
        raise NotFiniteError(f"{what} is not finite: lower the learning rate or clip earlier")
    if norm > max_norm:
        for parameter in held:
            parameter.grad = scaled(parameter.grad, max_norm / norm)
    return norm


def clip_grad_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Bring every element of every gradient into the range from −`limit` to `limit`.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient are passed over. `.grad` becomes a new array: the old one may be in other
        hands.
    limit : float
        An infinity in a gradient becomes it, too.

    Raises
    ------
    NotFiniteError
        If a gradient holds a NaN; no gradient is clipped then.

    Source: A. Graves, Generating sequences with recurrent neural networks (2013), section 2.1.

    Examples
    --------
    >>> x = mg.parameter([3.0, -0.25])
    >>> mg.sum(x * x).backward()
    >>> mg.optim.clip_grad_value([x], 1.0)
    >>> x.grad.tolist()
    [1.0, -0.5]
    """
    limit = LIMIT.take(limit, "limit", "clip_grad_value")
    held = with_gradient(parameters, "clip_grad_value")
    clipped = []
    for parameter in held:
        g = np.asarray(parameter.grad)
        bound = min(limit, float(np.finfo(g.dtype).max))  # one past it would be an infinity
        clipped.append(np.clip(g, -bound, bound))
        if np.isnan(np.min(clipped[-1], initial=bound)):
            raise NotFiniteError(f"the gradient of {describe(parameter)} holds a NaN, which no limit bounds")
    for parameter, g in zip(held, clipped, strict=True):
        parameter.grad = fit(g, parameter.grad)


def with_gradient(parameters: Iterable[Tensor], whose: str) -> list[Tensor]:
    """The parameters that hold a gradient."""
    if isinstance(parameters, Tensor):
        raise OperandTypeError(f"{whose} takes a list of parameters: write [{parameters.name or 'parameter'}]")
    return [parameter for parameter in parameters if parameter.grad is not None]


def euclidean_norm(g: npt.NDArray[Any]) -> float:
    """The root of the sum of squares, whatever the size of the entries; NaN or infinity if one is that."""
    if g.dtype in FAST_DTYPES:
        flat = g.ravel(order="K")
        square = float(np.dot(flat, flat))
        if flat.size * np.finfo(g.dtype).tiny <= square < math.inf:  # squares that underflowed cannot matter
            return math.sqrt(square)
    largest = float(np.max(np.abs(g), initial=0.0))
    if not largest or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float(np.sum(np.square(np.asarray(g, np.float64) / largest))))


def scaled(g: Any, factor: float) -> Any:
    """A gradient times a factor, which its dtype may be too small to hold."""
    if isinstance(g, np.ndarray) and factor < np.finfo(g.dtype).tiny:
        return fit(np.multiply(g, factor, dtype=np.float64), g)
    return fit(g * factor, g)
