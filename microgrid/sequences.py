"""What a user gives to run a network on: sequences and initial values, checked and made into leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid.errors import SequenceError, UnknownNameError, did_you_mean
from microgrid.graph import Graph
from microgrid.ops.elementwise import positive
from microgrid.ops.shape import unstack
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Tensor, number_array


def number_of_steps(graph: Graph, sequences: Mapping[str, Any], steps: int | None) -> int:
    """How many timesteps to unroll, from the sequences or from `steps`."""
    expected = [graph.names[node] for node in graph.inputs]
    for name in sequences:
        if name not in expected:
            raise UnknownNameError(f"the graph has no input {name!r}. {did_you_mean(name, expected)}")
    missing = [name for name in expected if name not in sequences]
    if sequences and missing:
        raise SequenceError(
            f"no sequence was given for the input {', '.join(map(repr, missing))} (given: {', '.join(sequences)}). "
            "Give all inputs a sequence, or only steps= to use the example values."
        )
    lengths = {name: length_of(name, sequence) for name, sequence in sequences.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name!r} has {n} timesteps" for name, n in lengths.items())
        raise SequenceError(f"sequences differ in length: {found}")
    if steps is None:
        if not lengths:
            hint = ", ".join(f"{name}=..." for name in expected)
            with_sequences = f"unroll({hint}) with sequences, or " if expected else ""
            raise SequenceError(f"how many timesteps? Call {with_sequences}unroll(steps=4)")
        steps = next(iter(lengths.values()))
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise SequenceError(f"steps is a whole number, not {steps!r}")
    empty = next((name for name, n in lengths.items() if n == 0), None)
    if empty is not None:
        raise SequenceError(f"the sequence of {empty!r} is empty: it takes at least one timestep")
    if steps < 1:
        raise SequenceError(f"steps is at least 1, not {steps}")
    for name, n in lengths.items():
        if n < steps:
            raise SequenceError(f"{name!r} has {n} timesteps, fewer than steps={steps}")
    return int(steps)


def length_of(name: str, sequence: Any) -> int:
    """How many timesteps a sequence has."""
    is_array = isinstance(sequence, Tensor | np.ndarray | np.generic)
    if isinstance(sequence, str | Mapping) or (sequence.ndim == 0 if is_array else not hasattr(sequence, "__len__")):
        raise SequenceError(
            f"{name!r} takes a sequence, with one value per timestep along its first axis, not the single {sequence!r}"
        )
    return len(sequence)


def input_copies(node: Tensor, name: str, sequence: Any, steps: int) -> list[Tensor]:
    """The leaves that an input becomes, one per timestep."""
    if isinstance(sequence, Tensor):
        sequence = unstack(sequence)
    copies = []
    for t in range(steps):
        leaf = given_value(node, f"timestep {t} of {name!r}", node.value if sequence is None else sequence[t])
        if not same_but_for_batch(leaf, node):
            whole = f"(time, {', '.join(map(str, node.shape))})" if node.shape else "(time,)"
            raise SequenceError(
                f"the input {name!r} has shape {node.shape} at each timestep, but timestep {t} of its sequence has "
                f"shape {leaf.shape}. A sequence has shape {whole}, where only the batch, the first axis of a "
                "timestep, may be another."
            )
        leaf._name = (f"{name}[{t}]", None)
        copies.append(leaf)
    return copies


def same_but_for_batch(given: Tensor, recorded: Tensor) -> bool:
    """Whether two shapes agree in rank and in all axes but the first."""
    return given.ndim == recorded.ndim and given.shape[1:] == recorded.shape[1:]


def given_value(node: Tensor, what: str, value: Any) -> Tensor:
    """A value given for an input or a state, as a node of its own in the kind and dtype of the example."""
    if not isinstance(value, Tensor) and type(value) not in PYTHON_NUMBERS:
        value = np.array(number_array(value))  # the record's own: the user may reuse a buffer
    dtype = value.dtype if isinstance(value, Tensor | np.ndarray | np.generic) else np.result_type(type(value))
    if dtype != node.dtype and not np.can_cast(dtype, node.dtype, "same_kind"):
        raise SequenceError(
            f"{what} holds {dtype}, but the network was recorded with {node.dtype} there. "
            "Record it with an example of that kind, such as 0.0 instead of 0."
        )
    if isinstance(value, Tensor):  # the user's own tensor keeps its name, and receives its gradient
        return positive(value) if dtype == node.dtype else value.astype(node.dtype)
    if type(node.value) in PYTHON_NUMBERS and np.ndim(value) == 0:
        value = type(node.value)(value)
    elif dtype != node.dtype:
        value = np.asarray(value).astype(node.dtype)
    return Tensor(value, requires_grad=node.requires_grad)


def initial_values(graph: Graph, initial: Mapping[Any, ArrayLike]) -> dict[Tensor, Tensor]:
    """The nodes from which states start where `initial` says so."""
    starts: dict[Tensor, Tensor] = {}
    if not isinstance(initial, Mapping):
        raise SequenceError(f"initial maps names of states to values, as in initial={{'h': ...}}, not {initial!r:.60}")
    names = [graph.names[state] for state in graph.states]
    for key, value in initial.items():
        name = graph.names.get(key) if isinstance(key, Tensor) else key
        if name not in names:
            raise UnknownNameError(f"the graph has no state {key!r}. {did_you_mean(key, names)}")
        state = graph.find(name)
        value = given_value(state, f"initial[{name!r}]", value)
        if not same_but_for_batch(value, state):
            raise SequenceError(f"initial[{name!r}] has shape {value.shape}, but the state has shape {state.shape}")
        starts[state] = value
    return starts
