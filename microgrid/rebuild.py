"""Graphs made from graphs: a copy in which some nodes are others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import numpy as np

from microgrid import recording
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops.shape import broadcast_to
from microgrid.ops.time import TIME_STACK
from microgrid.primitive import record
from microgrid.tensor import Tensor

Made = Mapping[Tensor, Tensor]
"""The nodes of the old graph that are done, and those that stand for them in the new one."""

Remake = Callable[[Tensor, Made], Tensor]
"""(a node of the old graph, those made before it) → the node that stands for it in the new graph."""


def rebuilt(
    graph: Graph,
    remake: Remake,
    starts: Mapping[Tensor, Tensor] | None = None,
    wide: Mapping[Tensor, tuple[int, ...]] | None = None,
    made: dict[Tensor, Tensor] | None = None,
) -> Graph:
    """A copy of the graph, each node remade after its operands, and what depends on no timestep before all else.

    States are new; they start from what stands for their initial value, or from the node in `starts`,
    broadcast to the shape in `wide`, and take on the node that stands for their next. The outputs are, in
    order, those of `graph`. What stands for each node is put into `made`.
    """
    made = {} if made is None else made
    states: dict[State, State] = {}
    with recording.always(), np.errstate(all="ignore"):  # example values may be anything
        for node in sorted(graph.nodes, key=Tensor.depends_on_time):
            if isinstance(node, State):
                start = starts[node] if starts and node in starts else made[node.initial]
                if wide and node in wide:
                    start = broadcast_to(start, wide[node])
                made[node] = states[node] = state_like(node, start)
            else:
                made[node] = remake(node, made)
    for old, new in states.items():
        new._next = made[old.next]
    return Graph.of_checked([made[output] for output in graph.outputs])


def state_like(node: State, initial: Tensor) -> State:
    """A state without a next yet, of the name and direction of `node`."""
    copy = State(initial.value, node.primitive, initial, requires_grad=node.requires_grad)
    copy._name, copy._next, copy._next_place, copy.reverse = node._name, None, "", node.reverse
    copy.any_batch, copy.scope = node.any_batch, node.scope
    return copy


def kept(node: Tensor, made: Made) -> Tensor:
    """The same operation on what stands for its operands, which has the same value."""
    old = node.operands
    operands = tuple([made[operand] for operand in old])
    if all(map(operator.is_, operands, old)):
        return node
    copy = Tensor(node.value, node.primitive, params=node.params, requires_grad=node.requires_grad)
    copy.operands = operands
    copy._name, copy._timed, copy.scope = node._name, node._timed, node.scope
    return copy


def renamed(new: Tensor, old: Tensor) -> Tensor:
    """The node that stands for another, under its name."""
    new._name = old._name
    return new


def recorded_on(
    graph: Graph,
    examples: Mapping[Tensor, Tensor],
    starts: Mapping[Tensor, Tensor],
    steps: int,
    wide: Mapping[Tensor, tuple[int, ...]] | None = None,
    made: dict[Tensor, Tensor] | None = None,
) -> Graph:
    """The graph recorded anew on other examples, as other shapes need: its operations compute.

    `examples` stand for leaves, `starts` for initial values of states, which are broadcast to the shapes
    in `wide`; a stack over time holds `steps` timesteps. All other leaves are the graph's own.
    """

    def remake(node: Tensor, made: Made) -> Tensor:
        if node.primitive is None:
            return examples.get(node, node)
        copy = record(node.primitive, [made[operand] for operand in node.operands], node.params)
        if node.primitive is TIME_STACK:
            copy.value = np.repeat(copy.value, steps, axis=0)
        copy._name = node._name
        return copy

    return rebuilt(graph, remake, starts, wide, made)


def recorded_wide(
    graph: Graph,
    examples: Mapping[Tensor, Tensor],
    starts: Mapping[Tensor, Tensor],
    steps: int,
    made: dict[Tensor, Tensor] | None = None,
) -> Graph:
    """The graph recorded on other examples, where a start of one row serves every batch."""
    copy = recorded_on(graph, examples, starts, steps, made=made)
    wide: dict[Tensor, tuple[int, ...]] = {
        old: new.next.shape
        for old, new in zip(graph.states, copy.states, strict=True)
        if new.next.shape != new.shape and broadcasts_to(new.shape, new.next.shape)
    }
    return recorded_on(graph, examples, starts, steps, wide, made) if wide else copy


def broadcasts_to(shape: tuple[int, ...], larger: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, larger) == larger
    except ValueError:
        return False
