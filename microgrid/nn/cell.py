"""Cell: one timestep of a recurrence, from which a layer makes the cycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from microgrid.errors import OperandError, OperandTypeError, StateError
from microgrid.leaves import State, state
from microgrid.nn.module import Module, as_dtype, check_features, check_varies
from microgrid.scope import current_scope
from microgrid.tensor import Name, Tensor


class Cell(Module):
    """One timestep of a recurrence: say in `step` what the next states are, and it closes the cycle by itself.

    Set `hidden_size` and the parameters as attributes, name the states in `states` ("h" alone by default), and
    return from `step` as many next states, the output first. All start at 0. Called on an input of shape
    (..., input_size), a cell gives the next of its first state, (..., hidden_size). `nn.Recurrent` stacks
    cells and runs them in both directions; it makes them as cell(input_size, hidden_size, rng=...).

    Examples
    --------
    A minimal gated unit:

    >>> class MinimalGate(mg.nn.Cell):
    ...     def __init__(self, input_size, hidden_size, rng=None):
    ...         self.hidden_size = hidden_size
    ...         self.W = mg.parameter(mg.nn.init.glorot((input_size, 2 * hidden_size), rng, gates=2))
    ...         self.U = mg.parameter(mg.nn.init.orthogonal((hidden_size, 2 * hidden_size), rng, gates=2))
    ...     def step(self, x, h):
    ...         forget, new = mg.split(x @ self.W + h @ self.U, 2, axis=-1)
    ...         f = mg.sigmoid(forget)
    ...         return f * h + (1 - f) * mg.tanh(new)
    >>> x = mg.input(np.zeros((8, 3), np.float32), name="x")
    >>> h = MinimalGate(3, 16)(x)
    >>> [state.name for state in mg.Graph(h).states]
    ['h']
    >>> two_layers = mg.nn.Recurrent(MinimalGate, 3, 16, num_layers=2, bidirectional=True)
    >>> two_layers(x).shape
    (8, 32)

    Source of that cell: G.-B. Zhou et al., Minimal gated unit for recurrent neural networks (2016).
    """

    hidden_size: int
    states: ClassVar[Sequence[str]] = ("h",)

    def __init_subclass__(cls, **settings: Any) -> None:
        if "forward" in vars(cls):
            raise OperandTypeError(
                f"a cell closes its cycle in forward by itself: {cls.__name__} says one timestep in step(self, x, h)"
            )
        super().__init_subclass__(**settings)

    def step(self, x: Tensor, *states: Tensor) -> Tensor | Sequence[Tensor]:
        """The next states from the input and the states, in the order of `states`."""
        raise NotImplementedError(f"{type(self).__name__} defines no step: return the next states from it")

    def forward(self, x: Tensor, *, reverse: bool = False) -> Tensor:  # type: ignore[override]
        check_varies(self, x)
        features = getattr(self, "input_size", None)
        if features is not None:
            check_features(self, x, features)
        parameters = self.parameters()
        x = as_dtype(x, parameters[0]) if parameters else x
        names = (self.states,) if isinstance(self.states, str) else self.states
        made = [self.make_state(name, x, reverse) for name in names]
        found = self.step(x, *made)
        following = [found] if isinstance(found, Tensor) else list(found) if isinstance(found, list | tuple) else []
        if len(following) != len(made) or not all(isinstance(each, Tensor) for each in following):
            raise OperandTypeError(
                f"{type(self).__name__}.step returns the next of each of its states, {', '.join(names)}: "
                f"{len(made)} tensor{'s' if len(made) > 1 else ''}, not {found!r:.60}"
            )
        for each, after in zip(made, following, strict=True):
            if (after.shape, after.dtype) != (each.shape, each.dtype):
                raise StateError(
                    f"{type(self).__name__}.step gives a next of shape {after.shape} and {after.dtype}, but "
                    f"{each.name!r} starts with shape {each.shape}, of hidden_size={self.hidden_size}, and {each.dtype}"
                )
            each.next = after
        return following[0]

    def make_state(self, name: str, x: Tensor, reverse: bool) -> State:
        """A state for the batch of `x`, in its dtype; it starts at 0, for any batch."""
        size = getattr(self, "hidden_size", None)
        if size is None:
            raise OperandError(f"{type(self).__name__} does not say how large its states are: set self.hidden_size")
        made = state(np.zeros((*x.shape[:-1], size), x.dtype), reverse=reverse)
        made.any_batch = x.ndim > 1
        made._name = Name(name, None, current_scope())
        return made
