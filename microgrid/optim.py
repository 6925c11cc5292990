"""Optimisers: change parameters by their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from microgrid import backward
from microgrid.errors import NotFiniteError, OperandError, OperandTypeError
from microgrid.tensor import Tensor, describe


class Adam:
    """Adaptive moment estimation.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
        Step size.
    betas : (float, float)
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the denominator.

    Raises
    ------
    OperandError
        If there are no parameters, or a setting is out of range.

    Source: D. P. Kingma and J. Ba, Adam: a method for stochastic optimization (2015).

    Examples
    --------
    >>> x = mg.parameter(1.0, name="x")
    >>> adam = mg.optim.Adam([x], lr=0.1)
    >>> for _ in range(200):
    ...     adam.zero_grad()
    ...     (x * x).backward()
    ...     adam.step()
    >>> abs(x.value) < 0.01
    True
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if isinstance(parameters, Tensor):
            raise OperandTypeError(f"Adam takes a list of parameters: write Adam([{parameters.name or 'parameter'}])")
        self.parameters = list(parameters)
        if not self.parameters:
            raise OperandError("Adam was given no parameters")
        for parameter in self.parameters:
            if not isinstance(parameter, Tensor) or parameter.operands or not parameter.requires_grad:
                what = describe(parameter) if isinstance(parameter, Tensor) else repr(parameter)
                raise OperandTypeError(
                    f"Adam changes parameters, and {what} is none: give it leaves that need a gradient"
                )
        if len(set(self.parameters)) < len(self.parameters):
            raise OperandError("a parameter was given to Adam twice, and would move twice")
        if not (lr > 0 and all(0 <= beta < 1 for beta in betas) and eps > 0):
            raise OperandError(f"Adam needs lr > 0, betas in [0, 1) and eps > 0, not {lr=}, {betas=}, {eps=}")
        self.lr, self.betas, self.eps = lr, betas, eps
        self._steps = [0 for _ in self.parameters]
        self._moments: list[tuple[Any, Any]] = [(0.0, 0.0) for _ in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.zero_grad()

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for i, parameter in enumerate(self.parameters):
            g = parameter.grad
            if g is None:
                continue
            self._steps[i] += 1
            unbias = math.sqrt(1 - beta2 ** self._steps[i])
            size = self.lr * unbias / (1 - beta1 ** self._steps[i])
            first, second = self._moments[i]
            first = beta1 * first + (1 - beta1) * g
            second = beta2 * second + (1 - beta2) * (g * g)
            self._moments[i] = first, second
            moved = parameter.value - size * first / (second**0.5 + self.eps * unbias)
            parameter.value = backward.fit(moved, parameter.value)


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients down together so that their joint Euclidean norm is at most `max_norm`.

    Returns the norm before. Raises NotFiniteError if a gradient holds a NaN or an infinity.

    Source: R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training recurrent neural networks
    (2013), section 3.2.

    >>> x = mg.parameter(3.0)
    >>> (x * x).backward()
    >>> mg.optim.clip_grad_norm([x], 1.0), round(x.grad, 6)
    (6.0, 1.0)
    """
    if not max_norm > 0:
        raise OperandError(f"clip_grad_norm needs max_norm > 0, not {max_norm}")
    held = [parameter for parameter in parameters if parameter.grad is not None]
    largest = float(np.max([np.max(np.abs(p.grad), initial=0.0) for p in held], initial=0.0))
    if not math.isfinite(largest):
        bad = next(p for p in held if not np.all(np.isfinite(p.grad)))
        raise NotFiniteError(f"the gradient of {describe(bad)} is not finite: lower the learning rate or clip earlier")
    if not largest:
        return 0.0
    # relative to the largest entry, so that no square overflows
    squares = (float(np.sum(np.square(np.asarray(p.grad, np.float64) / largest))) for p in held)
    norm = largest * math.sqrt(sum(squares))
    if norm > max_norm:
        for parameter in held:
            parameter.grad = parameter.grad * (max_norm / norm)
    return norm
