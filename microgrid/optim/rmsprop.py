"""RMSprop: steps relative to the root of the mean square of recent gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from microgrid.optim.groups import Parameters
from microgrid.optim.optimiser import Optimiser
from microgrid.optim.settings import DECAY, NOT_NEGATIVE, POSITIVE, SWITCH, Kind
from microgrid.optim.state import Memory


class RMSprop(Optimiser):
    """Gradient descent in which each element's step is divided by the root mean square of its gradients.

    Arrays change in place: see `Optimiser`, which also says what all optimisers have in common.

    Parameters
    ----------
    parameters : iterable of Tensor, or list of groups
    lr : float
        Learning rate.
    alpha : float
        Decay of the running mean of squares.
    eps : float
        Added to the denominator.
    momentum : float
        Decay of the running sum of steps that the parameters move along; 0 is without.
    centered : bool
        Divide by the standard deviation instead, which a running mean of the gradient gives.
    weight_decay : float
        Added to the gradient, times the parameter.

    Raises
    ------
    OperandError
        If there are no parameters, or a setting is out of range.

    Source: T. Tieleman and G. Hinton, Lecture 6.5: RMSProp, Coursera: Neural networks for machine learning
    (2012); centered and with momentum: A. Graves, Generating sequences with recurrent neural networks
    (2013), section 4.2.

    Examples
    --------
    >>> x = mg.parameter([1.0, -2.0], name="x")
    >>> rmsprop = mg.optim.RMSprop([x], lr=0.1, alpha=0.0)    # the first steps are ±lr / √(1 − alpha)
    >>> mg.sum(x * x).backward()
    >>> rmsprop.step()
    >>> x.value.round(6).tolist()
    [0.9, -1.9]
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "lr": POSITIVE,
        "alpha": DECAY,
        "eps": POSITIVE,
        "momentum": NOT_NEGATIVE,
        "centered": SWITCH,
        "weight_decay": NOT_NEGATIVE,
    }

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(parameters, {**settings, "weight_decay": weight_decay})

    def buffers(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        centered = ("gradients",) if settings["centered"] else ()
        return "squares", *centered, *(("momentum",) if settings["momentum"] else ())

    def move(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        # sums instead of means spare a pass over memory each: a running mean is 1 − alpha times the sum
        alpha, rest = settings["alpha"], 1 - settings["alpha"]
        root_of_rest = math.sqrt(rest)
        g = self.with_decay(g, value, settings)
        way = self.scratch.like(value)
        squares = memory.buffers["squares"]
        squares *= alpha
        squares += np.multiply(g, g, out=way)
        if settings["centered"]:
            gradients = memory.buffers["gradients"]
            gradients *= alpha
            gradients += g
            np.multiply(gradients, gradients, out=way)
            way *= rest
            np.subtract(squares, way, out=way)
            np.maximum(way, 0.0, out=way)  # rounding may leave a variance of 0 below it
            np.sqrt(way, out=way)
        else:
            np.sqrt(squares, out=way)
        way += settings["eps"] / root_of_rest
        np.divide(g, way, out=way)
        if settings["momentum"]:
            total = memory.buffers["momentum"]
            total *= settings["momentum"]
            total += way
            np.multiply(total, lr / root_of_rest, out=way)
        else:
            way *= lr / root_of_rest
        value -= way
