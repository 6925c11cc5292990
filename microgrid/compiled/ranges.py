"""Which input held a number out of range: a program computes all timesteps at once and does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid.errors import OperandIndexError
from microgrid.graph import Graph
from microgrid.leaves import Input
from microgrid.ops.pick import LOOKUP, PICK


def out_of_range(graph: Graph, sequences: Mapping[str, Any], error: IndexError) -> OperandIndexError:
    """The error in the user's words: the input, the timestep and the sequence of the batch."""
    for node in graph.nodes:
        if node.primitive in (LOOKUP, PICK) and isinstance(node.operands[1], Input):
            name = graph.names[node.operands[1]]
            array = np.asarray(sequences[name])
            count = node.operands[0].shape[0 if node.primitive is LOOKUP else -1]
            outside = np.argwhere((array < 0) | (array >= count))
            if len(outside):
                t, *rest = map(int, outside[0])
                where = f"timestep {t}" + (f", sequence {rest[0]} of the batch" if rest else "")
                what = f"rows of {graph.names[node.operands[0]]!r}" if node.primitive is LOOKUP else "classes"
                return OperandIndexError(
                    f"the input {name!r} holds {array[tuple(outside[0])]} at {where}, but there are {count} {what}: "
                    f"it must be from 0 to {count - 1}"
                )
    return OperandIndexError(str(error))
