"""Windows that overlap: a graph in which only some timesteps count, while the gradient flows through all."""

from __future__ import annotations

import numpy as np

from microgrid.errors import SequenceError
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.elementwise import where
from microgrid.ops.time import FIRST, TIME_MEAN, TIME_STACK, TIME_SUM, is_time_reduction, time_sum
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.tensor import Name, Tensor

COUNTED = "timesteps that count"
"""The name of the input that says which timesteps count."""


def counting(graph: Graph) -> tuple[Graph, dict[State, State]]:
    """The graph with one more input, `counted`: only those timesteps count in its sums and means over time.

    Returns it, and for each state the one that stands for it.

    Raises
    ------
    SequenceError
        If something else than a sum, a mean or the last value is taken over time.
    """
    here = Input(np.ones((), np.bool_)[()])
    here._name = Name(COUNTED)

    def remake(node: Tensor, made: Made) -> Tensor:
        if not is_time_reduction(node) or node.operands[0] not in graph.varying:
            return kept(node, made)
        if node.primitive in (FIRST, TIME_STACK):
            raise SequenceError(
                f"{graph.names[node]!r} reads timesteps that do not count: windows that overlap (every < length) "
                "need a loss that is a sum or mean over time, or its last value"
            )
        if node.primitive not in (TIME_SUM, TIME_MEAN):
            return kept(node, made)
        x = made[node.operands[0]]
        one, nothing = np.ones((), x.dtype)[()], np.zeros((), x.dtype)[()]
        total = time_sum(where(here, x, nothing))
        return total if node.primitive is TIME_SUM else total / time_sum(where(here, one, nothing))

    made: dict[Tensor, Tensor] = {}
    copy = rebuilt(graph, remake, made=made)
    twins = {state: twin for state in graph.states if isinstance(twin := made[state], State)}
    for old in graph.nodes:
        new = made[old]
        if new is not old and old.name is not None:
            new._name = Name(graph.names[old])
    return Graph(*copy.outputs), twins
