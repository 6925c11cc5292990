"""Sequences that nobody gives: inputs that draw their own, such as dropout masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid import recording
from microgrid.graph import Graph
from microgrid.leaves import Input
from microgrid.ops.time import is_time_reduction
from microgrid.rebuild import recorded_on
from microgrid.sequences import length_of, starts_for_any_batch
from microgrid.tensor import Tensor

Shape = tuple[int, ...]


def with_drawn(graph: Graph, sequences: Mapping[str, Any], *, dropping: bool) -> dict[str, Any]:
    """The sequences, and those of the inputs that draw their own, of the same batch and length.

    With `dropping` they draw, as training asks for, unless inside `no_grad`; without, they have no effect.
    Where no sequence is given, they keep their example.
    """
    found = dict(sequences)
    drawing = [node for node in graph.inputs if node.draws_itself and graph.names[node] not in sequences]
    length = min([length_of(name, each) for name, each in sequences.items()], default=0)
    if not drawing or not length:
        return found
    rows: dict[Tensor, Shape] = {
        node: row_shape(sequences[name]) for node in graph.inputs if (name := graph.names[node]) in sequences
    }
    for node in drawing:
        rows[node] = shape = shape_for(graph, node, rows)
        draw = node.drawn if dropping and recording.is_recording() else node.without_drawing
        found[graph.names[node]] = draw(length, shape)
    return found


def row_shape(sequence: Any) -> Shape:
    """The shape of one timestep."""
    return tuple(sequence.shape[1:]) if isinstance(sequence, Tensor | np.ndarray) else np.shape(value_of(sequence[0]))


def value_of(row: Any) -> Any:
    return row.value if isinstance(row, Tensor) else row


def shape_for(graph: Graph, node: Input, rows: Mapping[Tensor, Shape]) -> Shape:
    """The shape that a drawn input has at one timestep where the other inputs have those of `rows`.

    It is that of what it is combined with, recorded anew.
    """
    if all(shape == other.shape for other, shape in rows.items()):
        return node.shape
    own: Tensor = node
    reader = graph.readers[node][0]
    while reader is not None and is_time_reduction(reader):
        own, reader = reader, graph.readers[reader][0]
    others = [] if reader is None else [operand for operand in reader.operands if operand is not own]
    if not others:
        return node.shape
    behind = Graph.of_checked(others[:1])
    examples: dict[Tensor, Tensor] = {
        other: Input(np.zeros(rows[other], other.dtype)) for other in behind.inputs if other in rows and other.shape
    }
    given = [examples.get(other, other) for other in behind.inputs]
    with recording.outlines():
        return recorded_on(behind, examples, starts_for_any_batch(behind, given), 1).outputs[0].shape
