"""Adam and AdamW: steps by running means of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from microgrid.optim.groups import Parameters
from microgrid.optim.optimiser import Optimiser
from microgrid.optim.settings import NOT_NEGATIVE, POSITIVE, TWO_DECAYS, Kind
from microgrid.optim.state import Memory


class Adam(Optimiser):
    """Adaptive moment estimation.

    Arrays change in place: see `Optimiser`, which also says what all optimisers have in common.

    Parameters
    ----------
    parameters : iterable of Tensor, or list of groups
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        Added to the gradient, times the parameter; AdamW decays beside the gradient.

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

    kinds: ClassVar[Mapping[str, Kind]] = {
        "lr": POSITIVE,
        "betas": TWO_DECAYS,
        "eps": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    }

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def buffers(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return "gradients", "squares"

    def move(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        self.move_by_moments(value, self.with_decay(g, value, settings), memory, settings, lr)

    def move_by_moments(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        """Algorithm 1 of the paper.

        The buffers hold sums, which spares two passes over memory: a moment is 1 − beta times its sum.
        That factor, and the correction of the bias, enter once per step, into the learning rate and eps.
        """
        beta1, beta2 = settings["betas"]
        way = self.scratch.like(value)
        gradients, squares = memory.buffers["gradients"], memory.buffers["squares"]
        gradients *= beta1
        gradients += g
        squares *= beta2
        squares += np.multiply(g, g, out=way)
        first = (1 - beta1) / (1 - beta1**memory.steps)
        root_of_second = math.sqrt((1 - beta2) / (1 - beta2**memory.steps))
        np.sqrt(squares, out=way)
        way += settings["eps"] / root_of_second
        np.divide(gradients, way, out=way)
        way *= lr * first / root_of_second
        value -= way


class AdamW(Adam):
    """Adam with decoupled weight decay: parameters shrink by lr · weight_decay, whatever their gradients were.

    Arrays change in place: see `Optimiser`, which also says what all optimisers have in common.

    Parameters
    ----------
    parameters : iterable of Tensor, or list of groups
    lr, betas, eps
        As those of Adam.
    weight_decay : float
        The part of itself that a parameter loses in every step, times the learning rate.

    Raises
    ------
    OperandError
        If there are no parameters, or a setting is out of range.

    Source: I. Loshchilov and F. Hutter, Decoupled weight decay regularization (2019).

    Examples
    --------
    >>> x = mg.parameter([1.0, -2.0], name="x")
    >>> adamw = mg.optim.AdamW([x], lr=0.1, weight_decay=0.5)
    >>> x.grad = np.zeros(2)
    >>> adamw.step()
    >>> x.value.tolist()
    [0.95, -1.9]
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def move(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        if settings["weight_decay"]:
            value *= 1 - lr * settings["weight_decay"]
        self.move_by_moments(value, g, memory, settings, lr)
