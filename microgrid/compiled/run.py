"""What a run of a compiled network gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.errors import UnknownNameError, did_you_mean
from microgrid.leaves import Input
from microgrid.tensor import Tensor


class Gradients(Mapping[str, Any]):
    """Gradients by the name of a node or by the node itself.

    >>> u = mg.parameter(2.0, name="u")
    >>> run = mg.compile(u * u)(steps=1)
    >>> run.grads["u"], run.grads[u]
    (4.0, 4.0)
    """

    def __init__(self, names: Mapping[Tensor, str], values: Mapping[str, Any]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: str | Tensor) -> Any:
        name = self._names.get(key) if isinstance(key, Tensor) else key
        if name is None or name not in self._values:
            raise UnknownNameError(
                f"no gradient by {key!r} was computed. {did_you_mean(str(name or key), self._values)}"
            )
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name}: {np.shape(g)}' for name, g in self._values.items())})"


@dataclass(slots=True, eq=False)
class Run:
    """What one run of a compiled program gave; its arrays belong to the user.

    Attributes
    ----------
    outputs : dict of str → number or array
        Each output of the graph: (time, *shape) if it has a value per timestep.
    grads : mapping of str or Tensor → array
        The gradient of the loss by each parameter, or by each node in `wrt`.
    state : dict of str → array
        The value of each state after the last timestep, a reverse state's after the first: what
        `initial=` takes for the next window, as in truncated backpropagation through time.

    Examples
    --------
    >>> x, total = mg.input(0.0, name="x"), mg.state(0.0, name="total")
    >>> total.next = total + x
    >>> step = mg.compile(mg.Graph(mean=mg.time_mean(x), so_far=total.next))
    >>> run = step(x=[1.0, 2.0, 3.0])
    >>> run.outputs["so_far"].tolist(), float(run.state["total"])
    ([1.0, 3.0, 6.0], 6.0)
    >>> float(step(x=[4.0], initial=run.state).state["total"])
    10.0
    """

    outputs: dict[str, Any]
    grads: Gradients
    state: dict[str, Any]
    differentiated: tuple[Tensor, ...]

    def __repr__(self) -> str:
        def shown(values: Mapping[str, Any]) -> str:
            return ", ".join(f"{name} {np.shape(value) or value}" for name, value in values.items())

        return f"Run(outputs: {shown(self.outputs)}; grads: {shown(self.grads)}; state: {shown(self.state)})"

    @property
    def value(self) -> Any:
        """The value of the only output."""
        if len(self.outputs) > 1:
            raise UnknownNameError(f"the graph has several outputs, {', '.join(self.outputs)}: take one of run.outputs")
        return next(iter(self.outputs.values()))

    def backward(self) -> None:
        """Add the gradients to `.grad` of the parameters, as `dag.backward()` does, for an optimiser to read."""
        for node in self.differentiated:
            if isinstance(node, Input):
                continue
            found = self.grads[node]
            node.grad = found if node.grad is None else node.grad + found
