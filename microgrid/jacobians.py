"""jacobians: how each timestep of a recurrence passes small changes of its states on to the next one."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from microgrid import backward, recording
from microgrid.errors import GradientError, OperandIndexError, OperandTypeError, StateError, did_you_mean
from microgrid.functional import recorded_fit
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops.shape import concatenate, reshape
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled

LARGEST = 2**20
"""Elements of an array at most, where that allows several rows of a Jacobian at once."""


def jacobians(dag: Unrolled, *states: str | Tensor, batch: int = 0) -> np.ndarray[Any, Any]:
    """The Jacobian of the states after each timestep with respect to those before it.

    What backpropagation through time multiplies a gradient by, timestep after timestep: their product
    is ∂h_T/∂h_t, and its largest singular value bounds what is left of a gradient.

    Parameters
    ----------
    dag : Unrolled
        It need not have been backpropagated through.
    *states : str or Tensor
        Whose Jacobian; several are taken together, their features one after the other in this order.
        By default all states of the first of `dag.graph.cycles`, so h and c of an LSTM: what multiplies
        along time is the Jacobian of the two together. Stacked layers are a cycle each. Name one layer's
        states to see its own recurrence, all else held fixed; name those of several layers for their
        joint Jacobian, which is block triangular.
    batch : int
        Which sequence of the batch: the first axis of states of shape (batch, features) or more axes,
        which are flattened. States of shape (features,) or () have none.

    Returns
    -------
    np.ndarray, shape (time − 1, n, n)
        Entry [t, i, j] is ∂h[t+1, i]/∂h[t, j], with h[t] = `dag["h", t]`; of reverse states, which run
        the other way, ∂h[t, i]/∂h[t+1, j]. Only ways within a timestep count, not those through
        reductions over time.

    Raises
    ------
    StateError
        If a node is no state, the graph has no cycle and none is named, or they run in both directions.
    GradientError
        If a state holds integers, or the graph was unrolled inside `no_grad`.
    OperandIndexError
        If the batch has no such sequence.

    Notes
    -----
    Exact, by reverse mode; no `.grad` is changed. The cotangent of a timestep is recorded as a function
    of its seed, and computed for all rows of the identity at once.

    Source: R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training recurrent neural
    networks, ICML (2013).

    Examples
    --------
    >>> U = mg.parameter([[0.5, 0.2], [0.0, 0.4]], name="U")
    >>> h = mg.state(np.zeros(2), name="h")
    >>> h.next = h @ U
    >>> dag = mg.Graph(h.next).unroll(steps=4)
    >>> found = mg.jacobians(dag)
    >>> found.shape, found[0].tolist()
    ((3, 2, 2), [[0.5, 0.0], [0.2, 0.4]])
    """
    if not isinstance(dag, Unrolled):
        raise OperandTypeError(
            f"mg.jacobians takes an unrolled graph, as mg.Graph(loss).unroll(x=...), not {type(dag).__name__}"
        )
    chosen = chosen_states(dag.graph, states)
    first = 1 if chosen[0].reverse else 0
    found = [jacobian_at(dag, chosen, t, batch) for t in range(first, first + dag.steps - 1)]
    if found:
        return np.stack(found)
    n = sum(of_sequence(dag, state, dag[state, 0], batch).size for state in chosen)
    return np.zeros((0, n, n), np.result_type(*[state.dtype for state in chosen]))


def chosen_states(graph: Graph, given: tuple[str | Tensor, ...]) -> list[State]:
    """The states asked for; those of the first cycle by default."""
    if not given:
        if not graph.cycles:
            raise StateError("the graph has no cycle: name the states whose Jacobians to compute")
        states = [state for state in graph.cycles[0].states if np.issubdtype(state.dtype, np.floating)]
        if not states:
            raise GradientError(f"the states of {graph.cycles[0]} hold integers, which have no Jacobian")
        return states
    states = []
    for key in given:
        node = graph.find(key)
        if not isinstance(node, State):
            hint = did_you_mean(graph.names[node], [graph.names[state] for state in graph.states])
            raise StateError(f"{graph.names[node]!r} is no state. {hint}")
        if not np.issubdtype(node.dtype, np.floating):
            raise GradientError(f"the state {graph.names[node]!r} holds {node.dtype}, which has no Jacobian")
        if not any(node is known for known in states):
            states.append(node)
    other = next((state for state in states if state.reverse != states[0].reverse), None)
    if other is not None:
        raise StateError(
            f"{graph.names[states[0]]!r} and {graph.names[other]!r} run in different directions of time: "
            "take the Jacobians of one at a time"
        )
    return states


def jacobian_at(dag: Unrolled, states: list[State], t: int, batch: int) -> np.ndarray[Any, Any]:
    """The Jacobian of the states that timestep t makes by those that it reads, (n, n)."""
    before = [dag[state, t] for state in states]
    after = [dag[state.next, t] for state in states]
    if any(
        made.primitive is None and state.next.primitive is not None for state, made in zip(states, after, strict=True)
    ):
        raise GradientError("the graph was unrolled inside mg.no_grad(), which keeps no history: unroll it outside")
    borders = frozenset([*dag.static.values(), *(dag[state, t] for state in dag.graph.states)])
    with recording.always():
        made = concatenate([of_sequence(dag, state, node, batch) for state, node in zip(states, after, strict=True)])
        seed = Tensor(np.zeros(made.shape, made.dtype), requires_grad=True)
        order = backward.reverse_topological(made, borders)
        found = backward.gradients(order, seed, lambda node: Tensor(node.value), recorded_fit, borders)
        cotangents = [found[node] if node in found else Tensor(np.zeros(node.shape, node.dtype)) for node in before]
        row = concatenate([of_sequence(dag, state, g, batch) for state, g in zip(states, cotangents, strict=True)])
    return for_each_seed(row, seed, np.eye(len(seed), dtype=seed.dtype))


def of_sequence(dag: Unrolled, state: State, node: Tensor, batch: int) -> Tensor:
    """The part of a node of a state's shape that belongs to one sequence of the batch, flat; recorded."""
    if node.ndim > 1:
        index, count = operator.index(batch), dag[state.next, 0].shape[0]
        if not 0 <= index < count:
            name = dag.graph.names[state]
            raise OperandIndexError(f"batch={index}: {name!r} holds {count} sequences, numbered from 0")
        node = node[index if len(node) > 1 else 0]  # a start of one row is that of every sequence
    return reshape(node, (-1,))


def for_each_seed(row: Tensor, seed: Tensor, seeds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What `row`, recorded as a function of `seed`, is for each of several seeds: (seeds, *shape of row)."""
    order = backward.reverse_topological(row)[::-1]  # all of them depend on the seed; nothing else needs a gradient
    if not row.requires_grad:
        return np.broadcast_to(row.value, (len(seeds), *row.shape))
    at_once = max(1, LARGEST // max(node.size for node in order))
    parts = []
    for start in range(0, len(seeds), at_once):
        values = {seed: seeds[start : start + at_once]}  # rows take the place of timesteps
        for node in order:
            if node.primitive is not None:
                given = [values.get(x, x.value) for x in node.operands]
                varies = [x in values for x in node.operands]
                values[node] = node.primitive.compute_all(given, varies, node.shape, node.params)
        parts.append(values[row])
    return np.concatenate(parts)
