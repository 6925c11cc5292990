"""The rewriter: a graph with cycles becomes an ordinary acyclic one, one copy per timestep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.cycles import is_cyclic, shortest_loop, strong_components, word
from microgrid.errors import (
    CausalityError,
    GradientError,
    OperandError,
    SequenceError,
    TimestepError,
    UnknownNameError,
    did_you_mean,
)
from microgrid.graph import Graph, nodes_behind
from microgrid.leaves import State
from microgrid.ops.elementwise import positive
from microgrid.primitive import record
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Tensor, describe, number_array


class Unrolled:
    """An unrolled network: an ordinary acyclic graph of Tensors.

    `dag["h", 3]` is the node `h` at timestep 3 (−1 is the last one); `dag["loss"]` a node with one
    value for the whole sequence. Parameters are the rolled graph's own, in every timestep.

    Attributes
    ----------
    graph : Graph
        The rolled graph it was made from.
    steps : int
        The number of timesteps.
    copies : dict of Tensor → list of Tensor
        Each varying node of the rolled graph, and its copy per timestep.
    static : dict of Tensor → Tensor
        Each static node of the rolled graph, and the one node that stands for it.
    """

    def __init__(
        self, graph: Graph, steps: int, copies: dict[Tensor, list[Tensor]], static: dict[Tensor, Tensor]
    ) -> None:
        self.graph = graph
        self.steps = steps
        self.copies = copies
        self.static = static

    def __getitem__(self, key: str | Tensor | tuple[str | Tensor, int]) -> Tensor:
        if not isinstance(key, tuple):
            node = self.graph.find(key)
            if node in self.copies:
                name = self.graph.names[node]
                raise TimestepError(
                    f"{name!r} has one value per timestep: dag[{name!r}, t] with t from 0 to {self.steps - 1}, "
                    f"or dag.values({name!r}) for all of them"
                )
            return self.static[node]
        if len(key) != 2:
            raise TimestepError(f"dag[name, t] takes a name and a timestep, not {key!r}: index .value for the rest")
        where, t = key
        node = self.graph.find(where)
        if not isinstance(t, int | np.integer) or not -self.steps <= t < self.steps:
            hint = f"; dag.values({where!r})[{t.start}:{t.stop}] has several" if isinstance(t, slice) else ""
            raise TimestepError(f"there is no timestep {t!r}: the graph was unrolled for 0 to {self.steps - 1}{hint}")
        return self.static[node] if node in self.static else self.copies[node][t]

    def __contains__(self, key: object) -> bool:
        return key in self.graph

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def nodes(self) -> list[Tensor]:
        """All nodes of the unrolled graph, operands before the operations that read them."""
        return nodes_behind([*self.static.values(), *(copy for each in self.copies.values() for copy in each)])

    def over_time(self, key: str | Tensor) -> list[Tensor]:
        """The copies of a node, one per timestep; one for a static node."""
        node = self.graph.find(key)
        return self.copies[node] if node in self.copies else [self.static[node]]

    def values(self, key: str | Tensor) -> np.ndarray[Any, Any]:
        """The values of a node at all timesteps: (time, *shape)."""
        arrays = [np.asarray(copy.value) for copy in self.over_time(key)]
        if len({array.shape for array in arrays}) > 1:
            raise SequenceError(
                f"{self.graph.names[self.graph.find(key)]!r} has shape {arrays[0].shape} at timestep 0 and "
                f"{arrays[-1].shape} at the last: take them one by one with over_time"
            )
        return np.stack(arrays)

    def grads(self, key: str | Tensor) -> np.ndarray[Any, Any]:
        """The gradients of a node at all timesteps: (time, *shape); zero where none arrived."""
        return np.stack(
            [np.zeros(copy.shape) if copy.grad is None else np.asarray(copy.grad) for copy in self.over_time(key)]
        )

    @property
    def output(self) -> Tensor:
        """The only output, where it has one value for the whole sequence."""
        return self[self.graph.output]

    @property
    def state(self) -> dict[str, Any]:
        """The value of each state after the last timestep, by name.

        Pass it on as `initial=` to unroll the next window: truncated backpropagation through time.
        """
        after = {}
        for state in self.graph.states:
            node = state.next
            after[self.graph.names[state]] = self.over_time(node)[-1].value
        return after

    def backward(self, gradient: Any = None) -> None:
        """Backpropagation through time: plain reverse mode from the output over all timesteps.

        Raises
        ------
        GradientError
            If the output has a value per timestep, or is no scalar and `gradient` is missing.

        Source: P. J. Werbos, Backpropagation through time: what it does and how to do it,
        Proc. IEEE 78 (1990).
        """
        output = self.graph.output
        if output in self.copies:
            name = self.graph.names[output]
            raise GradientError(
                f"the output {name!r} has one value per timestep, and a gradient starts from one number. Reduce it "
                f"over time (mg.time_mean, mg.time_sum, mg.last), or call dag[{name!r}, t].backward() for one timestep."
            )
        self.static[output].backward(gradient)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, the same objects as in the rolled graph."""
        return self.graph.parameters

    def zero_grad(self) -> None:
        """Forget the gradients of all nodes, those of the shared parameters included."""
        for node in self.nodes:
            node.zero_grad()

    def __repr__(self) -> str:
        per_step = len(self.copies)
        return (
            f"Unrolled({self.steps} steps × {per_step} nodes + {len(self.static)} shared nodes, "
            f"of which {len(self.graph.parameters)} parameters)"
        )


def unroll(
    graph: Graph,
    sequences: Mapping[str, Sequence[ArrayLike] | ArrayLike],
    *,
    steps: int | None = None,
    initial: Mapping[Any, ArrayLike] | None = None,
) -> Unrolled:
    """Rewrite a graph with cycles into an acyclic one, with one copy of the varying nodes per timestep.

    Parameters
    ----------
    graph : Graph
    sequences : mapping of input or its name → array of shape (time, *shape of the input)
        A list of arrays, one per timestep, serves as well. A Tensor receives its gradient.
    steps : int, optional
        How many timesteps; by default as many as the sequences have. Without sequences, every
        timestep reads the inputs' example values: enough to draw the graph.
    initial : mapping of state name → array or Tensor, optional
        Where the states start, instead of their own initial values. An array stops the gradient at
        the border of the window; a Tensor lets it pass.

    Raises
    ------
    SequenceError
        If sequences differ in length, are missing, or do not have the inputs' shape or dtype.
    UnknownNameError
        If an input or state of that name does not exist.
    CausalityError
        If a reduction over time stands inside a cycle, which would need the future.

    Examples
    --------
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = u * h + x
    >>> dag = mg.unroll(mg.Graph(mg.last(h.next)), {"x": [1.0, 0.0, 0.0]})
    >>> dag.output.value, dag["h", 1].value
    (0.25, 1.0)
    >>> dag.backward()
    >>> u.grad, dag["x", 0].grad
    (1.0, 0.25)
    """
    sequences = {graph.names.get(key, "") if isinstance(key, Tensor) else key: x for key, x in sequences.items()}
    steps = number_of_steps(graph, sequences, steps)
    static: dict[Tensor, Tensor] = {}
    copies: dict[Tensor, list[Tensor]] = {
        node: input_copies(node, graph.names[node], sequences.get(graph.names[node]), steps) for node in graph.inputs
    }
    starts = initial_values(graph, initial or {})

    def start(state: State) -> Tensor:
        return starts[state] if state in starts else static[state.initial]

    for component in strong_components(graph):
        node = component[0]
        if is_cyclic(component) or (node in graph.varying and node not in copies):
            check_causal(component)
            for node in component:
                copies[node] = []
            makers = [(copies[node], copy_maker(node, graph.names[node], copies, static, start)) for node in component]
            for t in range(steps):
                try:
                    for made, make in makers:
                        made.append(make(t))
                except OperandError as error:
                    raise OperandError(f"at timestep {t}: {error}{batch_hint(graph, copies)}") from None
        elif node in graph.varying:
            continue  # an input
        elif node.primitive is None:
            static[node] = node
        else:
            static[node] = compute_static(node, copies, static, steps)
    return Unrolled(graph, steps, copies, static)


def batch_hint(graph: Graph, copies: Mapping[Tensor, list[Tensor]]) -> str:
    """What to do where a sequence has another batch size than the example with which a state was made."""
    if not graph.states or all(copies[node][0].shape == node.shape for node in graph.inputs):
        return ""
    name = graph.names[graph.states[0]]
    return (
        ". The inputs have another shape than their examples: give the states a start of that shape, as in "
        f"initial={{{name!r}: np.zeros(...)}}"
    )


def copy_maker(
    node: Tensor,
    name: str,
    copies: Mapping[Tensor, list[Tensor]],
    static: Mapping[Tensor, Tensor],
    start: Callable[[State], Tensor],
) -> Callable[[int], Tensor]:
    """A function that makes the copy of a varying node at timestep t, once those it reads are made."""
    primitive, params = node.primitive, node.params
    assert primitive is not None
    if isinstance(node, State):
        following = node.next
        before = copies.get(following)

        def make(t: int) -> Tensor:
            made = record(
                primitive, (start(node) if not t else before[t - 1] if before is not None else static[following],)
            )
            made._name = (f"{name}[{t}]", None)
            return made

    else:
        sources = [(copies.get(operand), static.get(operand)) for operand in node.operands]  # one of them is there

        def make(t: int) -> Tensor:
            operands = [fixed if each is None else each[t] for each, fixed in sources]
            made = record(primitive, operands, params)  # type: ignore[arg-type]
            made._name = (f"{name}[{t}]", None)
            return made

    return make


def compute_static(
    node: Tensor, copies: Mapping[Tensor, list[Tensor]], static: Mapping[Tensor, Tensor], steps: int
) -> Tensor:
    """The one copy of a static operation; a reduction over time reads every timestep."""
    assert node.primitive is not None
    if node.primitive.over_time:
        (operand,) = node.operands
        operands = node.primitive.over_time(copies[operand] if operand in copies else [static[operand]] * steps)
    else:
        operands = [static[operand] for operand in node.operands]
    made = record(node.primitive, operands, node.params)
    if node.name is not None:
        made._name = (node.name, None)
    return made


def check_causal(component: list[Tensor]) -> None:
    """Refuse a cycle through a reduction over time."""
    for node in component:
        if node.primitive is not None and node.primitive.over_time:
            path = " → ".join(word(node) for node in shortest_loop(component))
            raise CausalityError(
                f"{describe(node)} stands inside the cycle {path}: its value needs every timestep, and every timestep "
                "needs its value. Reduce over time outside the cycle."
            )


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
    if isinstance(sequence, np.ndarray):
        sequence = np.array(sequence)  # the record's own: the user may reuse a buffer
    elif isinstance(sequence, Tensor):
        sequence = timesteps_of(sequence)
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


def timesteps_of(sequence: Tensor) -> list[Tensor]:
    """The timesteps of a Tensor, by halving: its gradient is put together in T log T, not T², copied numbers."""
    parts = [sequence]
    while len(parts) < len(sequence):
        parts = [
            half
            for part in parts
            for half in ([part] if len(part) == 1 else [part[: len(part) // 2], part[len(part) // 2 :]])
        ]
    return [part[0] for part in parts]


def same_but_for_batch(given: Tensor, recorded: Tensor) -> bool:
    """Whether two shapes agree in rank and in all axes but the first."""
    return given.ndim == recorded.ndim and given.shape[1:] == recorded.shape[1:]


def given_value(node: Tensor, what: str, value: Any) -> Tensor:
    """A value given for an input or a state, as a node of its own in the kind and dtype of the example."""
    if not isinstance(value, Tensor) and type(value) not in PYTHON_NUMBERS:
        value = number_array(value)
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
        value = given_value(state, f"initial[{name!r}]", np.array(value) if isinstance(value, np.ndarray) else value)
        if not same_but_for_batch(value, state):
            raise SequenceError(f"initial[{name!r}] has shape {value.shape}, but the state has shape {state.shape}")
        starts[state] = value
    return starts
