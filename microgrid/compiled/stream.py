"""A compiled network one timestep at a time, for generation and online use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.errors import CausalityError, SequenceError, UnknownNameError, did_you_mean
from microgrid.leaves import State
from microgrid.ops.time import is_spread_over_time, is_time_reduction
from microgrid.sequences import by_input_name
from microgrid.tensor import ArrayLike, Tensor

if TYPE_CHECKING:
    from microgrid.compiled.program import Compiled


class Stream:
    """A network that has run up to some timestep: call it with the inputs of the next one. Made by `stream`.

    Attributes
    ----------
    state : dict of str → array
        The value of each state after the timesteps so far; assign to it to go on from elsewhere.

    Examples
    --------
    >>> x, total = mg.input(0.0, name="x"), mg.state(0.0, name="total")
    >>> total.next = total + x
    >>> so_far = mg.compile(mg.Graph(total.next), wrt=()).stream()
    >>> float(so_far(x=1.0)), float(so_far(x=2.0))
    (1.0, 3.0)
    """

    def __init__(self, network: Compiled, initial: Mapping[Any, ArrayLike] | None) -> None:
        graph = network.graph
        for node in graph.nodes:
            over_time = (is_time_reduction(node) and node.operands[0] in graph.varying) or is_spread_over_time(node)
            if over_time or (isinstance(node, State) and node.reverse):
                raise CausalityError(
                    f"{graph.names[node]!r} needs the whole sequence, and a stream knows it up to now only. Compile "
                    "the graph of what every timestep gives, as in mg.compile(mg.Graph(y), wrt=()).stream()"
                )
        self.network = network
        self.state: dict[str, Any] = {
            graph.names[key] if isinstance(key, Tensor) else key: value for key, value in (initial or {}).items()
        }

    def __call__(self, values: Mapping[Any, ArrayLike] | None = None, /, **named_values: ArrayLike) -> Any:
        """Run one timestep on one value per input; returns the output, or a dict of them if there are several."""
        graph = self.network.graph
        if values is not None and not isinstance(values, Mapping):
            raise SequenceError(
                "the values come by the names of the inputs, as in stream(x=...) or stream({'x': ...}), not as "
                f"{type(values).__name__}"
            )
        given = {**by_input_name(graph, values), **named_values}
        names = [name for name, _ in self.network.inputs]
        for name in given:
            if name not in names:
                raise UnknownNameError(f"the graph has no input {name!r}. {did_you_mean(name, names)}")
        for name, node in self.network.inputs:
            if name not in given and not node.draws_itself:
                raise SequenceError(f"no value was given for the input {name!r} at this timestep")
        arrays = {
            name: np.asarray(value.value if isinstance(value, Tensor) else value) for name, value in given.items()
        }
        for name, node in self.network.inputs:
            if name in arrays and arrays[name].ndim == node.ndim + 1:
                raise SequenceError(
                    f"{name!r} was given {arrays[name].shape}, a whole sequence: a stream takes one timestep at a "
                    f"time, of shape {node.shape} for any batch. For the whole, call the compiled network itself"
                )
        run = self.network({name: array[None] for name, array in arrays.items()}, steps=1, initial=self.state)
        self.state = run.state
        outputs = {
            name: value[0] if output in graph.varying else value
            for (name, value), output in zip(run.outputs.items(), graph.outputs, strict=True)
        }
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))
