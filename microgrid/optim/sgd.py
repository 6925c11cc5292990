"""SGD: stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from microgrid.errors import OperandError
from microgrid.optim.groups import Parameters
from microgrid.optim.optimiser import Optimiser
from microgrid.optim.settings import NOT_NEGATIVE, NUMBER, POSITIVE, SWITCH, Kind
from microgrid.optim.state import Memory


class SGD(Optimiser):
    """Stochastic gradient descent, with momentum if asked.

    Arrays change in place: see `Optimiser`, which also says what all optimisers have in common.

    Parameters
    ----------
    parameters : iterable of Tensor, or list of groups
    lr : float
        Learning rate.
    momentum : float
        Decay of the running sum of gradients that the parameters move along; 0 is without.
    dampening : float
        How much less than whole a gradient enters that sum, after the first one.
    nesterov : bool
        Look ahead: move along what the sum will be if the gradient stays.
    weight_decay : float
        Added to the gradient, times the parameter.

    Raises
    ------
    OperandError
        If there are no parameters, a setting is out of range, or `nesterov` is asked for without
        momentum or with dampening.

    Source: I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of initialization and
    momentum in deep learning (2013).

    Examples
    --------
    >>> x = mg.parameter([1.0, -2.0], name="x")
    >>> sgd = mg.optim.SGD([x], lr=0.25)
    >>> mg.sum(x * x).backward()
    >>> sgd.step()
    >>> x.value.tolist()
    [0.5, -1.0]
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "lr": POSITIVE,
        "momentum": NOT_NEGATIVE,
        "dampening": NUMBER,
        "nesterov": SWITCH,
        "weight_decay": NOT_NEGATIVE,
    }

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(parameters, {**settings, "weight_decay": weight_decay})

    def check_together(self, settings: Mapping[str, Any]) -> None:
        momentum, dampening = settings["momentum"], settings["dampening"]
        if settings["nesterov"] and (not momentum or dampening):
            raise OperandError(f"SGD with nesterov takes momentum > 0 and dampening 0, not {momentum=}, {dampening=}")

    def buffers(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum",) if settings["momentum"] else ()

    def move(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        momentum, dampening = settings["momentum"], settings["dampening"]
        g = self.with_decay(g, value, settings)
        way = self.scratch.like(value)
        if momentum:
            total = memory.buffers["momentum"]
            if memory.steps == 1:
                np.copyto(total, g)  # the first gradient is not dampened
            else:
                total *= momentum
                total += np.multiply(g, 1 - dampening, out=way) if dampening else g
            if settings["nesterov"]:
                np.multiply(total, momentum, out=way)
                way += g
                g = way
            else:
                g = total
        value -= np.multiply(g, lr, out=way)
