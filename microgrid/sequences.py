"""What a user gives to run a network on: sequences and initial values, checked and made into leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microgrid import recording
from microgrid.errors import SequenceError, UnknownNameError, did_you_mean
from microgrid.graph import Graph
from microgrid.leaves import Input
from microgrid.ops.elementwise import positive
from microgrid.ops.shape import unstack
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Name, Tensor, number_array


def by_input_name(graph: Graph, values: Mapping[Any, Any] | None) -> dict[str, Any]:
    """What is given for inputs, or for their names, by name."""
    return {
        graph.names.get(key, "") if isinstance(key, Tensor) else key: value for key, value in (values or {}).items()
    }


def number_of_steps(graph: Graph, sequences: Mapping[str, Any], steps: int | None) -> int:
    """How many timesteps to unroll, from the sequences or from `steps`."""
    expected = [graph.names[node] for node in graph.inputs]
    for name in sequences:
        if name not in expected:
            raise UnknownNameError(f"the graph has no input {name!r}. {did_you_mean(name, expected)}")
    missing = [
        graph.names[node] for node in graph.inputs if not node.draws_itself and graph.names[node] not in sequences
    ]
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


def input_copies(node: Input, name: str, sequence: Any, steps: int) -> list[Tensor]:
    """The leaves that an input becomes, one per timestep."""
    if isinstance(sequence, Tensor):
        sequence = unstack(sequence)
    copies = []
    for t in range(steps):
        leaf = given_value(node, f"timestep {t} of {name!r}", node.value if sequence is None else sequence[t])
        if not same_but_for_batch(leaf, node) and not node.draws_itself:
            raise SequenceError(wrong_shape(node, name, t, leaf.shape))
        leaf._name = Name(f"{name}[{t}]")
        copies.append(leaf)
    return copies


def sequence_array(node: Input, name: str, sequence: Any, steps: int) -> np.ndarray[Any, Any]:
    """The sequence of an input as one array of the input's dtype, (time, *shape); its example without one."""
    if sequence is None:
        return np.broadcast_to(np.asarray(node.value), (steps, *node.shape))
    if isinstance(sequence, Tensor):
        sequence = sequence.value
    array = sequence if type(sequence) is np.ndarray else whole_array(name, sequence)
    if array.dtype != node.dtype:
        check_dtype(node, f"the sequence of {name!r}", array.dtype)
        array = array.astype(node.dtype)
    fits = array.shape[2:] == node.shape[1:] and array.ndim == node.ndim + 1
    if not fits and not node.draws_itself:
        raise SequenceError(wrong_shape(node, name, 0, array.shape[1:]))
    return array if len(array) == steps else array[:steps]


def whole_array(name: str, sequence: Any) -> np.ndarray[Any, Any]:
    """A list of the values at each timestep as one array."""
    rows = [number_array(row.value if isinstance(row, Tensor) else row) for row in sequence]
    shapes = {np.shape(row) for row in rows}
    if len(shapes) > 1:
        raise SequenceError(f"the timesteps of {name!r} differ in shape: {', '.join(map(str, sorted(shapes)))}")
    return np.stack(rows)


def wrong_shape(node: Tensor, name: str, t: int, found: tuple[int, ...]) -> str:
    """What to say of a timestep whose shape does not fit its input."""
    whole = f"(time, {', '.join(map(str, node.shape))})" if node.shape else "(time,)"
    return (
        f"the input {name!r} has shape {node.shape} at each timestep, but timestep {t} of its sequence has "
        f"shape {found}. A sequence has shape {whole}, where only the batch, the first axis of a "
        "timestep, may be another."
    )


def batch_hint(graph: Graph, examples: Sequence[Tensor]) -> str:
    """What to do where a sequence has another batch size than the example with which a state was made."""
    if not graph.states or all(given.shape == node.shape for node, given in zip(graph.inputs, examples, strict=True)):
        return ""
    name = graph.names[graph.states[0]]
    return (
        ". The inputs have another shape than their examples: give the states a start of that shape, as in "
        f"initial={{{name!r}: np.zeros(...)}}"
    )


def starts_for_any_batch(graph: Graph, examples: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Where inputs have other shapes than their examples: a start of one row for states that fit any batch.

    `examples` are values of the inputs, in order.
    """
    if all(given.shape == node.shape for node, given in zip(graph.inputs, examples, strict=True)):
        return {}
    with recording.always():
        return {state: state.initial[:1] for state in graph.states if state.any_batch}


def same_but_for_batch(given: Tensor, recorded: Tensor) -> bool:
    """Whether two shapes agree in rank and in all axes but the first."""
    return given.ndim == recorded.ndim and given.shape[1:] == recorded.shape[1:]


def given_value(node: Tensor, what: str, value: Any) -> Tensor:
    """A value given for an input or a state, as a node of its own in the kind and dtype of the example."""
    if not isinstance(value, Tensor) and type(value) not in PYTHON_NUMBERS:
        value = np.array(number_array(value))  # the record's own: the user may reuse a buffer
    dtype = value.dtype if isinstance(value, Tensor | np.ndarray | np.generic) else np.result_type(type(value))
    check_dtype(node, what, dtype)
    if isinstance(value, Tensor):  # the user's own tensor keeps its name, and receives its gradient
        return positive(value) if dtype == node.dtype else value.astype(node.dtype)
    if type(node.value) in PYTHON_NUMBERS and np.ndim(value) == 0:
        value = type(node.value)(value)
    elif dtype != node.dtype:
        value = np.asarray(value).astype(node.dtype)
    return Tensor(value, requires_grad=node.requires_grad)


def check_dtype(node: Tensor, what: str, dtype: np.dtype[Any]) -> None:
    """Refuse numbers that would lose their kind, such as floats for integers."""
    if dtype != node.dtype and not np.can_cast(dtype, node.dtype, "same_kind"):
        advice = "Record it with an example of that kind, such as 0.0 instead of 0."
        if node.dtype.kind in "iu" and dtype.kind == "f":
            advice = f"Tokens and classes are whole numbers: give array.astype({node.dtype}), or record it with 0.0."
        raise SequenceError(f"{what} holds {dtype}, but the network was recorded with {node.dtype} there. {advice}")


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
