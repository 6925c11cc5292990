"""Optimiser: what all optimisers share. Each adds its settings, its buffers and its rule for one array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from microgrid.backward import fit
from microgrid.errors import OperandError, OperandTypeError
from microgrid.optim import state
from microgrid.optim.groups import Group, Parameters, groups_of
from microgrid.optim.scratch import Scratch
from microgrid.optim.settings import NOT_NEGATIVE, POSITIVE, Kind
from microgrid.optim.state import Memory
from microgrid.tensor import Tensor, describe

FLOAT = np.dtype(np.float64)


class Optimiser(ABC):
    """Moves parameters by their gradients: SGD, RMSprop, Adam, AdamW, or one of your own.

    A step changes the arrays of the parameters in place and allocates no others: whoever holds
    `parameter.value` sees it move, `parameter.numpy()` is a copy that does not. An array that may not be
    written to is replaced by a new one. Gradients are only read.

    Parameters
    ----------
    parameters : iterable of Tensor, or list of groups
        Leaves that need a gradient. A group is a dict of "parameters" (or "params"), a list of leaves,
        and settings that differ from those of the optimiser, such as "lr".
    settings : mapping of str → number
        The learning rate, "lr", and what else the kind of optimiser takes.

    Attributes
    ----------
    parameters : list of Tensor
        Those of all groups, in order.
    groups : list of Group
        Each with its `parameters` and its `settings`. To change one is meant for "lr": buffers hold sums
        that were made with the others.
    factor : float
        Every learning rate is multiplied by it; a schedule sets it before each step.

    Raises
    ------
    OperandError
        If there are no parameters, one is given twice, or a setting is unknown or out of range.
    OperandTypeError
        If a parameter is no leaf that needs a gradient.

    Examples
    --------
    >>> W, b = mg.parameter(np.ones((2, 3)), name="W"), mg.parameter(0.0, name="b")
    >>> sgd = mg.optim.SGD([{"parameters": [W], "weight_decay": 0.01}, {"parameters": [b], "lr": 1.0}], lr=0.1)
    >>> [group.settings["lr"] for group in sgd.groups]
    [0.1, 1.0]

    One of your own says how an array `value` moves by its gradient `g`. It writes into `value`, never into
    `g`; `memory` holds how many steps the parameter took, and what `buffers` names, zeros at first:

    >>> class SignDescent(mg.optim.Optimiser):
    ...     def move(self, value, g, memory, settings, lr):
    ...         value -= lr * np.sign(g)
    >>> descent = SignDescent([W, b], {"lr": 0.5})
    >>> mg.sum(W * W + b).backward()
    >>> descent.step()
    >>> W.value.tolist(), b.value
    ([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], -0.5)
    """

    kinds: ClassVar[Mapping[str, Kind]] = {"lr": POSITIVE}
    """What each setting may be."""

    def __init__(self, parameters: Parameters, settings: Mapping[str, Any]) -> None:
        self.groups: list[Group] = groups_of(parameters, settings, self.kinds, type(self).__name__)
        for group in self.groups:
            self.check_together(group.settings)
        self.moved = [(parameter, group, Memory()) for group in self.groups for parameter in group.parameters]
        self.parameters: list[Tensor] = [parameter for parameter, _, _ in self.moved]
        self.scratch = Scratch()
        self._factor = 1.0

    @abstractmethod
    def move(
        self, value: npt.NDArray[Any], g: npt.NDArray[Any], memory: Memory, settings: Mapping[str, Any], lr: float
    ) -> None:
        """Move `value` in place by its gradient `g`, of the same shape and dtype; `memory` counts this step."""

    def buffers(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the arrays that are remembered of a parameter with these settings."""
        return ()

    def check_together(self, settings: Mapping[str, Any]) -> None:  # noqa: B027
        """Raise OperandError for settings that are in range each, but do not go together; most always do."""

    def with_decay(self, g: npt.NDArray[Any], value: npt.NDArray[Any], settings: Mapping[str, Any]) -> npt.NDArray[Any]:
        """The gradient of the loss with weight decay: g + weight_decay · value, in scratch memory number 1."""
        if not settings["weight_decay"]:
            return g
        total = self.scratch.like(value, 1)
        np.multiply(value, settings["weight_decay"], out=total)
        total += g
        return total

    @property
    def lr(self) -> float:
        """The learning rate, with several groups that of the first; set, it is that of all groups."""
        return float(self.groups[0].settings["lr"])

    @lr.setter
    def lr(self, lr: float) -> None:
        taken = self.kinds["lr"].take(lr, "lr", type(self).__name__)
        for group in self.groups:
            group.settings["lr"] = taken

    @property
    def factor(self) -> float:
        """What every learning rate is multiplied by."""
        return self._factor

    @factor.setter
    def factor(self, factor: float) -> None:
        self._factor = NOT_NEGATIVE.take(factor, "factor", type(self).__name__)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.zero_grad()

    def step(self) -> None:
        """Move every parameter that has a gradient.

        Raises OperandError, before any has moved, if a gradient is not of its parameter's shape, or a
        parameter is not of the shape and dtype that it had.
        """
        moving = [each for each in self.moved if each[0].grad is not None]
        for parameter, _, memory in moving:
            check_movable(parameter, memory)
        for parameter, group, memory in moving:
            value = parameter.value
            in_place = isinstance(value, np.ndarray) and value.flags.writeable
            array = value if in_place else np.array(value)
            for name in self.buffers(group.settings):
                if name not in memory.buffers:
                    memory.buffers[name] = np.zeros_like(array)
            memory.steps += 1
            lr = float(group.settings["lr"]) * self._factor
            self.move(array, np.asarray(parameter.grad, array.dtype), memory, group.settings, lr)
            if not in_place:
                parameter.value = float(array) if type(value) is float else fit(array, value)

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on beside the parameters: with it training goes on bit for bit.

        Returns
        -------
        dict
            "arrays": a dict from "<number of the parameter>.<buffer>" to a copy of the array, which
            `np.savez(file, **arrays)` saves; "settings": numbers, lists and strings, which JSON holds.

        Examples
        --------
        >>> x = mg.parameter([1.0, 2.0], name="x")
        >>> sgd = mg.optim.SGD([x], lr=0.1, momentum=0.9)
        >>> mg.sum(x * x).backward()
        >>> sgd.step()
        >>> state = sgd.state_dict()
        >>> state["arrays"]["0.momentum"].tolist(), state["settings"]["steps"]
        ([2.0, 4.0], [1])
        """
        return state.written(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, of an optimiser of the same parameters in the same order.

        Raises
        ------
        OperandError
            If it is the state of another kind of optimiser, or of other parameters, or not whole. The
            optimiser is then as it was before.
        OperandTypeError
            If a part of it is not of the type that `state_dict` gives.

        Examples
        --------
        >>> x = mg.parameter([1.0, 2.0], name="x")
        >>> first, second = mg.optim.Adam([x], lr=0.1), mg.optim.Adam([x])
        >>> second.load_state_dict(first.state_dict())
        >>> second.lr
        0.1
        """
        found = state.read(self, state_dict)
        for group, settings in zip(self.groups, found.settings, strict=True):
            group.settings = settings
        self.moved = [
            (parameter, group, memory) for (parameter, group, _), memory in zip(self.moved, found.memories, strict=True)
        ]
        self._factor = found.factor


def check_movable(parameter: Tensor, memory: Memory) -> None:
    """Raise unless the gradient and the buffers are those of the parameter's array."""
    value, g = parameter.value, parameter.grad
    shape, dtype = ((), FLOAT) if type(value) is float else (parameter.shape, parameter.dtype)
    if dtype.kind != "f":
        raise OperandTypeError(f"{describe(parameter)} holds {dtype}, and only floats can be moved by a gradient")
    found = () if type(g) is float else np.shape(g)
    if found != shape:
        raise OperandError(
            f"the gradient of {describe(parameter)} has shape {found}, and the parameter has shape {shape}"
        )
    for name, buffer in memory.buffers.items():
        if buffer.shape != shape or buffer.dtype != dtype:
            raise OperandError(
                f"{describe(parameter)} has shape {shape} and dtype {dtype}, and at its last step had "
                f"{buffer.shape} and {buffer.dtype}, which its {name!r} still has: make a new optimiser"
            )
