"""Which input held a number out of range: a program computes all timesteps at once and does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from microgrid.errors import OperandIndexError
from microgrid.graph import Graph
from microgrid.ops.pick import LOOKUP, PICK


def out_of_range(
    graph: Graph, sequences: Mapping[str, Any], lengths: Any, values: Callable[[Graph, Mapping[str, Any]], Any]
) -> OperandIndexError | None:
    """The error in the user's words, with the input, the timestep and the sequence of the batch; None if none is.

    `values` computes the output of a graph at all timesteps.
    """
    for node in graph.nodes:
        if node.primitive not in (LOOKUP, PICK):
            continue
        behind = Graph.of_checked([node.operands[1]])
        if len(behind.inputs) != 1 or behind.states or node.operands[1] not in behind.varying:
            continue
        name = graph.names[behind.inputs[0]]
        if name not in sequences:
            continue
        index = np.asarray(values(behind, {name: sequences[name]}))
        count = node.operands[0].shape[0 if node.primitive is LOOKUP else -1]
        wrong = (index < 0) | (index >= count)
        if lengths is not None and wrong.ndim > 1:  # what lies past a sequence's end is not read
            going = np.arange(len(wrong))[:, None] < np.asarray(lengths)
            wrong &= going.reshape(*going.shape, *(1,) * (wrong.ndim - 2))
        outside = np.argwhere(wrong)
        if len(outside):
            t, *rest = map(int, outside[0])
            where = f"timestep {t}" + (f", sequence {rest[0]} of the batch" if rest else "")
            what = f"rows of {graph.names[node.operands[0]]!r}" if node.primitive is LOOKUP else "classes"
            return OperandIndexError(
                f"the input {name!r} holds {index[tuple(outside[0])]} at {where}, but there are {count} {what}: it "
                f"must be from 0 to {count - 1}"
            )
    return None
