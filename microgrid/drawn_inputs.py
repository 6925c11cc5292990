"""Sequences that nobody gives: inputs that draw their own, such as dropout masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from microgrid import recording
from microgrid.graph import Graph
from microgrid.leaves import Input
from microgrid.ops.time import is_time_reduction
from microgrid.rebuild import recorded_wide
from microgrid.sequences import initial_values, length_of, starts_for_any_batch
from microgrid.tensor import ArrayLike, Tensor

Shape = tuple[int, ...]

FOUND: WeakKeyDictionary[Graph, dict[Any, dict[Tensor, Shape]]] = WeakKeyDictionary()
"""For each graph the shapes of its drawn inputs that were found for shapes of the others."""


def with_drawn(
    graph: Graph,
    sequences: Mapping[str, Any],
    steps: int | None = None,
    initial: Mapping[Any, ArrayLike] | None = None,
    *,
    dropping: bool,
) -> dict[str, Any]:
    """The sequences, and those of the inputs that draw their own, of the same batch and length.

    With `dropping` they draw, as training asks for, unless inside `no_grad`; without, they have no effect.
    Where only a number of steps is given, all other inputs keep their example.
    """
    found = dict(sequences)
    drawing = [node for node in graph.inputs if node.draws_itself and graph.names[node] not in sequences]
    if not drawing:
        return found
    length = min([length_of(name, each) for name, each in sequences.items()], default=0)
    if not sequences and isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
        length = steps
        others = [node for node in graph.inputs if not node.draws_itself]
        found |= {graph.names[node]: np.broadcast_to(node.value, (steps, *node.shape)) for node in others}
    if not length:
        return found
    rows = {node: row_shape(found[name]) for node in graph.inputs if (name := graph.names[node]) in found}
    shapes = shapes_for(graph, drawing, rows, initial)
    for node in drawing:
        draw = node.drawn if dropping and recording.is_recording() else node.without_drawing
        found[graph.names[node]] = draw(length, shapes[node])
    return found


def row_shape(sequence: Any) -> Shape:
    """The shape of one timestep."""
    if isinstance(sequence, Tensor | np.ndarray):
        return tuple(sequence.shape[1:])
    return np.shape(sequence[0].value if isinstance(sequence[0], Tensor) else sequence[0])


def shapes_for(
    graph: Graph, drawing: list[Input], rows: Mapping[Input, Shape], initial: Mapping[Any, ArrayLike] | None
) -> dict[Tensor, Shape]:
    """The shapes that drawn inputs have at one timestep where the other inputs have those of `rows`.

    Each is that of what it is combined with, recorded anew.
    """
    starts = initial_values(graph, initial) if initial is not None else {}
    alike = all(shape == node.shape for node, shape in rows.items())
    if alike and all(start.shape == state.shape for state, start in starts.items()):
        return {node: node.shape for node in drawing}
    key = (*rows.values(), *((state, start.shape) for state, start in starts.items()))
    known = FOUND.setdefault(graph, {})
    if key not in known:
        known[key] = {node: shape_for(graph, node, rows, starts) for node in drawing}
    return known[key]


def shape_for(graph: Graph, node: Input, rows: Mapping[Input, Shape], starts: Mapping[Tensor, Tensor]) -> Shape:
    own: Tensor = node
    reader = graph.readers[node][0]
    while reader is not None and is_time_reduction(reader):
        own, reader = reader, graph.readers[reader][0]
    others = [] if reader is None else [operand for operand in reader.operands if operand is not own]
    if not others:
        return node.shape
    behind = Graph.of_checked(others[:1])
    examples: dict[Tensor, Tensor] = {}
    for other in behind.inputs:
        if other in rows:
            examples[other] = Input(np.zeros(rows[other], other.dtype))
        elif other.draws_itself:  # not known yet: it broadcasts
            examples[other] = Input(np.ones((1,) * other.ndim, other.dtype))
    given = [examples.get(other, other) for other in behind.inputs]
    known = {state: start for state, start in starts.items() if state in behind.names}
    with recording.outlines():
        copy = recorded_wide(behind, examples, {**starts_for_any_batch(behind, given), **known}, 1)
    return copy.outputs[0].shape
