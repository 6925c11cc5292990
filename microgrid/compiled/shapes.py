"""A network recorded anew for the shapes it is run on, simplified, and ready to be differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.compiled.lengths import batch_axes, masked
from microgrid.errors import OperandError, SequenceError
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.time import is_spread_over_time
from microgrid.rebuild import recorded_wide
from microgrid.rewrite import Rewrites
from microgrid.sequences import batch_hint, starts_for_any_batch
from microgrid.tensor import PYTHON_NUMBERS, Name, Tensor, describe


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A network for one combination of shapes.

    Attributes
    ----------
    graph : Graph
        Its outputs are the network's outputs, the nodes to differentiate by, and the states.
    outputs, wrt, states : list of Tensor
        Those of the graph.
    loss : int or None
        Which output is differentiated.
    given : dict of str → Tensor
        The leaves that hold the initial values that the user gave, by the name of the state.
    """

    graph: Graph
    outputs: list[Tensor]
    wrt: list[Tensor]
    states: list[State]
    loss: int | None
    given: dict[str, Tensor]

    def with_graph(self, graph: Graph) -> Recorded:
        """The same network as another graph, whose outputs stand for those of this one in order."""
        count, end = len(self.outputs), len(self.outputs) + len(self.wrt)
        nodes = list(graph.outputs)
        states = [node for node in nodes[end:] if isinstance(node, State)]
        return Recorded(graph, nodes[:count], nodes[count:end], states, self.loss, self.given)


def recorded_for(
    graph: Graph,
    wrt: Sequence[Tensor],
    loss: Tensor | None,
    arrays: Sequence[np.ndarray[Any, Any]],
    starts: Mapping[Tensor, Tensor],
    length: int,
    *,
    with_lengths: bool = False,
    rewrites: Rewrites | None = None,
) -> Recorded:
    """Record `graph` on the first timestep of `arrays`, the sequences of its inputs, in order.

    Raises
    ------
    OperandError, SequenceError
        If the network cannot compute with these shapes.
    """
    wanted = Graph(*graph.outputs, *wrt, *graph.states)
    rows = [array[0].copy() for array in arrays]  # a view would hold on to the user's array
    given = {graph.names[state]: held_for(graph.names[state], start) for state, start in starts.items()}
    made: dict[Tensor, Tensor] = {}
    copy = recorded(graph, wanted, rows, {s: given[graph.names[s]] for s in starts}, length, made)
    for node in copy.nodes:
        if is_spread_over_time(node) and len(node.operands[0]) != length:
            raise SequenceError(
                f"{copy.names[node]!r} reads {describe(node.operands[0])}, which has {len(node.operands[0])} "
                f"timesteps, but the network runs for {length}"
            )
    index = None if loss is None else graph.outputs.index(loss)
    empty = Recorded(copy, list(graph.outputs), list(wrt), [], index, given)
    found = empty.with_graph(copy)
    if with_lengths:
        larger: dict[Tensor, Tensor] = {
            state: Tensor(one_more(like.value))
            for state, like in zip(graph.states, found.states, strict=True)
            if state in starts or state.shape == like.shape  # a start that is broadcast will be so again
        }
        larger_made: dict[Tensor, Tensor] = {}
        try:
            recorded(graph, wanted, [one_more(row) for row in rows], larger, length, larger_made)
        except OperandError as error:
            raise SequenceError(f"lengths= needs a network that takes any number of sequences: {error}") from None
        pairs = {made[node]: larger_made[node] for node in wanted.nodes}
        found = found.with_graph(masked(copy, batch_axes(copy, pairs)))
    return found.with_graph(rewrites.network(found.graph)) if rewrites else found


def held_for(name: str, start: Tensor) -> Tensor:
    """A leaf for the initial value that a user gives to a state; named, so that no rewrite takes it for a constant."""
    leaf = Tensor(start.value)
    leaf._name = Name(f"initial {name}")
    return leaf


def one_more(value: Any) -> Any:
    """A value with one more sequence in its batch."""
    return np.concatenate([value, value[:1]]) if np.ndim(value) else value


def recorded(
    graph: Graph,
    wanted: Graph,
    rows: Sequence[Any],
    starts: Mapping[Tensor, Tensor],
    length: int,
    made: dict[Tensor, Tensor],
) -> Graph:
    """`wanted`, the graph with more outputs, recorded with other examples for the inputs of `graph`.

    Fills `made` with what stands for each node of `wanted`.
    """
    examples: dict[Tensor, Tensor] = {}
    for node, row in zip(graph.inputs, rows, strict=True):
        is_number = type(node.value) in PYTHON_NUMBERS and not np.ndim(row)
        examples[node] = example = Input(row.item() if is_number else row, requires_grad=node.requires_grad)
        example._name = Name(graph.names[node])
    given = [examples[node] for node in graph.inputs]
    hint = batch_hint(graph, given)
    starts = {**starts_for_any_batch(graph, given), **starts}
    try:
        copy = recorded_wide(wanted, examples, starts, length, made)
    except OperandError as error:
        raise OperandError(f"{error}{hint}") from None
    outputs = set(wanted.outputs)
    for old in wanted.nodes:
        new = made[old]
        if new is not old and new.primitive is not None and (old in outputs or old.name is not None):
            new._name = Name(graph.names[old])  # with the numbers that tell parts of one name apart
    for state in copy.states:
        if state.next.shape != state.shape:
            raise SequenceError(
                f"the state {state.name!r} starts with shape {state.shape}, but its next has shape "
                f"{state.next.shape}{hint}"
            )
    return copy
