"""The rewriter: a graph with cycles becomes an ordinary acyclic one, one copy per timestep."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.cycles import check_causal, is_cyclic
from microgrid.drawn_inputs import with_drawn
from microgrid.errors import (
    GradientError,
    NotFiniteError,
    OperandError,
    SequenceError,
    TimestepError,
)
from microgrid.graph import Graph, nodes_behind
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.primitive import record
from microgrid.sequences import (
    batch_hint,
    by_input_name,
    initial_values,
    input_copies,
    number_of_steps,
    starts_for_any_batch,
)
from microgrid.tensor import ArrayLike, Name, Tensor, describe


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
        return (key[0] if isinstance(key, tuple) else key) in self.graph

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
        """The values of a node at all timesteps: (time, *shape); of a static node (1, *shape)."""
        copies = self.over_time(key)
        self.check_alike(key, copies)
        return np.stack([np.asarray(copy.value) for copy in copies])

    def check_alike(self, key: str | Tensor, copies: Sequence[Tensor]) -> None:
        """Refuse copies of different shape: a state that starts with one row for all sequences has such."""
        if len({copy.shape for copy in copies}) > 1:
            name = self.graph.names[self.graph.find(key)]
            raise SequenceError(
                f"{name!r} has shape {copies[0].shape} at timestep 0 and {copies[-1].shape} at the last: take them one "
                f"by one with over_time, or take those of what it will be next, {name + '.next'!r}"
            )

    def grads(self, key: str | Tensor) -> np.ndarray[Any, Any]:
        """The gradients of a node at all timesteps: (time, *shape); zero where none arrived.

        Raises GradientError before any `backward`.
        """
        copies = self.over_time(key)
        outputs = [copy for output in self.graph.outputs for copy in self.over_time(output)]
        if all(node.grad is None for node in [*outputs, *copies]):
            raise GradientError("there are no gradients yet: call dag.backward() first")
        self.check_alike(key, copies)
        return np.stack(
            [np.zeros(copy.shape, copy.dtype) if copy.grad is None else np.asarray(copy.grad) for copy in copies]
        )

    @property
    def output(self) -> Tensor:
        """The only output, where it has one value for the whole sequence."""
        return self[self.graph.output]

    @property
    def state(self) -> dict[str, Any]:
        """The value of each state after the last timestep, by name; of a reverse state, after the first.

        Pass it on as `initial=` to unroll the next window: truncated backpropagation through time.
        """
        return {
            self.graph.names[state]: self.over_time(state.next)[0 if state.reverse else -1].value
            for state in self.graph.states
        }

    @property
    def outputs(self) -> list[Tensor]:
        """The outputs with one value for the whole sequence."""
        return [self.static[output] for output in self.graph.outputs if output in self.static]

    def backward(self, gradient: Any = None) -> None:
        """Backpropagation through time: plain reverse mode from the output over all timesteps.

        Raises
        ------
        GradientError
            If the output has a value per timestep, or is no scalar and `gradient` is missing.

        Source: P. J. Werbos, Backpropagation through time: what it does and how to do it,
        Proc. IEEE 78 (1990).
        """
        if len(self.graph.outputs) > 1:
            names = ", ".join(repr(self.graph.names[output]) for output in self.graph.outputs)
            raise GradientError(f"the graph has several outputs, {names}: say which, as in dag['loss'].backward()")
        output = self.graph.output
        if output in self.copies:
            name = self.graph.names[output]
            raise GradientError(
                f"the output {name!r} has one value per timestep, and a gradient starts from one number. Reduce it "
                f"over time (mg.time_mean, mg.time_sum, mg.last), or call dag[{name!r}, t].backward() for one timestep."
            )
        self.static[output].backward(gradient)

    def check_finite(self) -> None:
        """Raise at the first NaN or infinity: of the values forwards in time, of the gradients backwards.

        Raises
        ------
        NotFiniteError
            Naming the node and the timestep where it appears.

        Examples
        --------
        >>> x = mg.input(1.0, name="x")
        >>> dag = mg.Graph(mg.time_sum(mg.log(x).named("y"))).unroll(x=[1.0, float("nan"), 2.0])
        >>> dag.check_finite()
        Traceback (most recent call last):
            ...
        microgrid.errors.NotFiniteError: the value of 'x' is nan at timestep 1
        """
        static = [node for node in self.graph.nodes if node in self.static]
        behind_time = {node for node in static if node.depends_on_time()}
        places: list[tuple[Tensor, int | None]] = [
            *((node, None) for node in static if node not in behind_time),
            *((node, t) for t in range(self.steps) for node in self.graph.nodes if node in self.copies),
            *((node, None) for node in static if node in behind_time),
        ]
        known = {*self.static.values(), *(copy for copies in self.copies.values() for copy in copies)}
        for what, sequence in (("value", places), ("gradient", reversed(places))):
            for node, t in sequence:
                copy = self.static[node] if t is None else self.copies[node][t]
                found = copy.value if what == "value" else copy.grad
                inherited = what == "value" and any(
                    x in known and not np.all(np.isfinite(x.value)) for x in copy.operands
                )
                if found is not None and not np.all(np.isfinite(found)) and not inherited:
                    bad = np.asarray(found)[~np.isfinite(found)].flat[0]
                    where = "" if t is None else f" at timestep {t}"
                    raise NotFiniteError(f"the {what} of {self.graph.names[node]!r} is {bad}{where}")

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
            f"Unrolled({self.steps} steps × {per_step} nodes + {len(self.static)} shared nodes; "
            f"parameters: {', '.join(self.graph.names[p] for p in self.graph.parameters) or 'none'})"
        )


def unroll(
    graph: Graph,
    sequences: Mapping[Any, Sequence[ArrayLike] | ArrayLike] | None = None,
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
        If a cycle holds a reduction over time, or states of both directions: it would need the future.

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
    sequences = with_drawn(graph, by_input_name(graph, sequences), steps, initial, dropping=True)
    steps = number_of_steps(graph, sequences, steps)
    static: dict[Tensor, Tensor] = {}
    copies: dict[Tensor, list[Tensor]] = {
        node: input_copies(node, graph.names[node], sequences.get(graph.names[node]), steps) for node in graph.inputs
    }
    starts = starts_for_any_batch(graph, [copies[node][0] for node in graph.inputs])
    starts |= initial_values(graph, {} if initial is None else initial)

    def start(state: State) -> Tensor:
        return starts[state] if state in starts else static[state.initial]

    for component in graph.components:
        node = component[0]
        if is_cyclic(component) or (node in graph.varying and node not in copies):
            check_causal(component)
            for node in component:
                copies[node] = [node] * steps
            makers = [(copies[node], copy_maker(node, graph.names[node], copies, static, start)) for node in component]
            for t in in_order(component, steps):
                try:
                    for made, make in makers:
                        made[t] = make(t)
                except OperandError as error:
                    raise OperandError(
                        f"at timestep {t}: {error}{batch_hint(graph, [copies[x][0] for x in graph.inputs])}"
                    ) from None
        elif node in graph.varying:
            continue  # an input
        elif node.primitive is None:
            static[node] = node
        else:
            static[node] = compute_static(node, graph.names[node], copies, static, steps)
            if node in graph.aliases and static[node] is not node:
                static[node]._name = Name(graph.aliases[node])
    return Unrolled(graph, steps, copies, static)


def in_order(component: list[Tensor], steps: int) -> Sequence[int]:
    """The timesteps in the order in which a component can be computed."""
    backwards = any(isinstance(node, State) and node.reverse for node in component)
    return range(steps)[::-1] if backwards else range(steps)


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
        others = copies.get(following)

        def make(t: int) -> Tensor:
            source = t + 1 if node.reverse else t - 1
            if source in (-1, len(copies[node])):
                operand = start(node)
            else:
                operand = others[source] if others is not None else static[following]
            made = record(primitive, (operand,))
            made._name = Name(f"{name}[{t}]")
            return made

    elif primitive.at_timestep is not None:
        read, whole = primitive.at_timestep, static[node.operands[0]]
        if len(whole) != len(copies[node]):
            raise SequenceError(
                f"{name!r} reads {describe(node.operands[0])}, which has {len(whole)} timesteps, but the network runs "
                f"for {len(copies[node])}"
            )

        def make(t: int) -> Tensor:
            made = read(whole, t)
            made._name = Name(f"{name}[{t}]")
            return made

    else:
        sources = [(copies.get(operand), static.get(operand)) for operand in node.operands]  # one of them is there

        def make(t: int) -> Tensor:
            operands = [fixed if each is None else each[t] for each, fixed in sources]
            made = record(primitive, operands, params)  # type: ignore[arg-type]
            made._name = Name(f"{name}[{t}]")
            return made

    return make


def compute_static(
    node: Tensor, name: str, copies: Mapping[Tensor, list[Tensor]], static: Mapping[Tensor, Tensor], steps: int
) -> Tensor:
    """The one copy of a static operation; a reduction over time reads every timestep."""
    assert node.primitive is not None
    if node.primitive.over_time is not None:
        operands = [
            each
            for operand in node.operands
            for each in node.primitive.over_time(copies[operand] if operand in copies else [static[operand]] * steps)
        ]
    else:
        operands = [static[operand] for operand in node.operands]
    made = record(node.primitive, operands, node.params)
    unchanged = not is_time_reduction(node) and all(map(operator.is_, operands, node.operands))
    if unchanged and same_value(made.value, node.value):
        return node  # no parameter behind it has changed since it was recorded: gradients reach the user's own node
    if node.name is not None:
        made._name = Name(name)
    return made


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are equal element by element, NaN to NaN."""
    return np.shape(a) == np.shape(b) and bool(np.all((a == b) | ((a != a) & (b != b))))
