"""compile: a recorded network → a program that computes it, and its gradients, at any length.

The unrolled graph says what the numbers mean; the program is the fast way to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid import rewrite
from microgrid.differentiate import check_output, gradients, wanted_nodes
from microgrid.errors import GradientError, OperandError, SequenceError, UnknownNameError, did_you_mean
from microgrid.execute.on_numpy import Program
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.time import TIME_STACK, first, is_spread_over_time, last
from microgrid.rebuild import recorded_on
from microgrid.schedule import Schedule
from microgrid.sequences import batch_hint, initial_values, number_of_steps, sequence_array
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Tensor, is_number


class Gradients(Mapping[str, Any]):
    """Gradients by the name of a node or by the node itself.

    >>> u = mg.parameter(2.0, name="u")
    >>> run = mg.compile(u * u)(steps=1)
    >>> run.grads["u"], run.grads[u]
    (4.0, 4.0)
    """

    def __init__(self, names: Mapping[Tensor, str], values: Mapping[str, Any]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: str | Tensor) -> Any:
        name = self._names.get(key) if isinstance(key, Tensor) else key
        if name is None or name not in self._values:
            raise UnknownNameError(
                f"no gradient by {key!r} was computed. {did_you_mean(str(name or key), self._values)}"
            )
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name}: {np.shape(g)}' for name, g in self._values.items())})"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one run of a compiled program gave; its arrays belong to the user.

    Attributes
    ----------
    outputs : dict of str → number or array
        Each output of the graph: (time, *shape) if it has a value per timestep.
    grads : mapping of str or Tensor → array
        The gradient of the loss by each parameter, or by each node in `wrt`.
    state : dict of str → array
        The value of each state after the last timestep, a reverse state's after the first: what
        `initial=` takes for the next window, as in truncated backpropagation through time.

    Examples
    --------
    >>> x, total = mg.input(0.0, name="x"), mg.state(0.0, name="total")
    >>> total.next = total + x
    >>> step = mg.compile(mg.Graph(mean=mg.time_mean(x), so_far=total.next))
    >>> run = step(x=[1.0, 2.0, 3.0])
    >>> run.outputs["so_far"].tolist(), float(run.state["total"])
    ([1.0, 3.0, 6.0], 6.0)
    >>> float(step(x=[4.0], initial=run.state).state["total"])
    10.0
    """

    outputs: dict[str, Any]
    grads: Gradients
    state: dict[str, Any]
    differentiated: tuple[Tensor, ...]

    @property
    def value(self) -> Any:
        """The value of the only output."""
        if len(self.outputs) > 1:
            raise UnknownNameError(f"the graph has several outputs, {', '.join(self.outputs)}: take one of run.outputs")
        return next(iter(self.outputs.values()))

    def backward(self) -> None:
        """Add the gradients to `.grad` of the parameters, as `dag.backward()` does, for an optimiser to read."""
        for node in self.differentiated:
            if isinstance(node, Input):
                continue
            found = self.grads[node]
            node.grad = found if node.grad is None else node.grad + found


class Compiled:
    """A network as a program: call it with sequences. Made by `mg.compile`.

    >>> x = mg.input(0.0, name="x")
    >>> total = mg.compile(mg.time_sum(x * x))
    >>> float(total(x=[1.0, 2.0]).value), float(total(x=[1.0, 2.0, 3.0]).value)
    (5.0, 14.0)
    """

    def __init__(self, graph: Graph, wrt: Iterable[Tensor | str] | Tensor | str | None = None) -> None:
        self.graph = graph
        self.wrt = () if wrt is None and not graph.parameters else tuple(wanted_nodes(graph, wrt))
        self.loss = loss_of(graph) if self.wrt else None
        self.names = {node: graph.names[node] for node in (*self.wrt, *graph.states)}
        self.inputs = [(graph.names[node], node) for node in graph.inputs]
        leaves = [node for node in graph.nodes if node.primitive is None and not isinstance(node, Input)]
        self.numbers = [node for node in leaves if is_number(node)]
        self.arrays = [node for node in leaves if not is_number(node)]
        self.shaped_by_length = any(node.primitive is TIME_STACK or is_spread_over_time(node) for node in graph.nodes)
        self.programs: dict[Any, Specialised] = {}

    def __call__(
        self,
        sequences: Mapping[Any, Any] | None = None,
        /,
        *,
        steps: int | None = None,
        initial: Mapping[Any, ArrayLike] | None = None,
        **named_sequences: Any,
    ) -> Run:
        """Run the network on sequences of shape (time, *shape of the input).

        Parameters
        ----------
        sequences : mapping of input or its name → array, optional
            Or each by its name as a keyword.
        steps : int, optional
            How many timesteps; by default as many as the sequences have.
        initial : mapping of state name → array, optional
            Where the states start, instead of their own initial values; the gradient stops there.

        Raises
        ------
        SequenceError
            If sequences differ in length, are missing, or do not have the inputs' shape or dtype.
        UnknownNameError
            If an input or state of that name does not exist.
        """
        if sequences:
            given = {self.graph.names.get(k, "") if isinstance(k, Tensor) else k: x for k, x in sequences.items()}
            given.update(named_sequences)
        else:
            given = named_sequences
        length = number_of_steps(self.graph, given, steps)
        arrays = [sequence_array(node, name, given.get(name), length) for name, node in self.inputs]
        starts = initial_values(self.graph, initial) if initial else {}
        return self.specialised(length, arrays, starts).run(length, arrays, starts)

    @property
    def schedule(self) -> Schedule:
        """What runs once, what for all timesteps at once and what step by step, for the shapes as recorded."""
        examples = [np.asarray(node.value)[None] for _, node in self.inputs]
        return self.specialised(1, examples, {}).program.schedule

    def specialised(self, length: int, arrays: list[Any], starts: Mapping[Tensor, Tensor]) -> Specialised:
        """The program for these shapes, made when they are met first."""
        key = (
            tuple([(array.shape[1:], array.dtype) for array in arrays]),
            tuple([(self.names[state], start.shape) for state, start in starts.items()]),
            tuple([getattr(leaf.value, "shape", None) for leaf in self.arrays]),
            tuple([leaf.value for leaf in self.numbers]),  # they are part of the program
            length if self.shaped_by_length else None,
        )
        found = self.programs.get(key)
        if found is None:
            if len(self.programs) >= SHAPES_KEPT:
                self.programs.pop(next(iter(self.programs)), None)
            examples: dict[Tensor, Tensor] = {}
            for (name, node), array in zip(self.inputs, arrays, strict=True):
                value = array[0] if array.ndim > 1 or type(node.value) not in PYTHON_NUMBERS else array[0].item()
                examples[node] = example = Input(value, requires_grad=node.requires_grad)
                example._name = (name, None)
            found = self.programs[key] = Specialised(self, examples, starts, length)
        return found


SHAPES_KEPT = 16
"""For how many combinations of shapes a compiled network keeps its program."""


class Specialised:
    """A compiled network for one combination of shapes."""

    def __init__(
        self, net: Compiled, examples: Mapping[Tensor, Tensor], starts: Mapping[Tensor, Tensor], length: int
    ) -> None:
        self.net = net
        graph = net.graph
        self.given = {graph.names[state]: Tensor(start.value) for state, start in starts.items()}
        wanted = Graph(*graph.outputs, *net.wrt, *graph.states)
        try:
            copy = recorded_on(
                wanted, examples, {state: self.given[graph.names[state]] for state in starts}, length
            ).outputs
        except OperandError as error:
            raise OperandError(f"{error}{batch_hint(graph, list(examples.values()))}") from None
        count, end = len(graph.outputs), len(graph.outputs) + len(net.wrt)

        def parts(nodes: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
            return list(nodes[:count]), list(nodes[count:end]), list(nodes[end:])

        outputs, by, states = parts(copy)
        for state, now in zip(graph.states, states, strict=True):
            assert isinstance(now, State)
            if now.next.shape != now.shape:
                raise SequenceError(
                    f"the state {graph.names[state]!r} starts with shape {now.shape}, but its next has shape "
                    f"{now.next.shape}{batch_hint(graph, list(examples.values()))}"
                )
        for old, new in zip(graph.outputs, outputs, strict=True):
            if new.name is None and new.primitive is not None:
                new._name = (graph.names[old], None)
        network = rewrite.network(Graph(*outputs, *by, *states))
        outputs, by, states = parts(network.outputs)
        grads: list[Tensor] = []
        if net.loss is not None:
            loss = outputs[graph.outputs.index(net.loss)]
            found = gradients(network, loss, by)
            for old, new in zip(net.wrt, by, strict=True):
                grads.append(found[new])
                if found[new].name is None and found[new].primitive is not None:
                    found[new]._name = (f"{graph.names[old]}.grad", None)
        ends = [first(s.next) if s.reverse else last(s.next) for s in states if isinstance(s, State)]
        self.program = Program(rewrite.program(Graph(*outputs, *grads, *ends)))
        by_name = {node.name: node for node in self.program.graph.inputs}
        self.inputs = [by_name.get(name) for name, _ in net.inputs]
        self.output_names = [graph.names[output] for output in graph.outputs]
        computed = self.program.graph
        self.repeated = [  # gradients at every timestep that are the same at all of them
            node in graph.varying and grad not in computed.varying
            for node, grad in zip(net.wrt, computed.outputs[count:], strict=False)
        ]

    def run(self, length: int, arrays: list[Any], starts: Mapping[Tensor, Tensor]) -> Run:
        net = self.net
        sequences: dict[Tensor, Any] = {
            node: array for node, array in zip(self.inputs, arrays, strict=True) if node is not None
        }
        given = {self.given[net.names[state]]: start.value for state, start in starts.items()}
        values = self.program.run(length, sequences, given)
        count, end = len(self.output_names), len(self.output_names) + len(net.wrt)
        outputs = dict(zip(self.output_names, values[:count], strict=True))
        grads = {}
        for node, found, repeated in zip(net.wrt, values[count:end], self.repeated, strict=True):
            if repeated:
                found = np.repeat(np.asarray(found)[None], length, axis=0)
            grads[net.names[node]] = found if type(node.value) is not float or repeated else as_recorded(found, node)
        state = {net.graph.names[s]: v for s, v in zip(net.graph.states, values[end:], strict=True)}
        return Run(outputs, Gradients(net.names, grads), state, net.wrt)


def as_recorded(value: Any, node: Tensor) -> Any:
    """A scalar gradient of a Python float as a Python float."""
    return float(value) if np.ndim(value) == 0 else value


def loss_of(graph: Graph) -> Tensor:
    """The output to differentiate: the only one, or the only scalar with one value for the whole sequence."""
    scalars = [
        output
        for output in graph.outputs
        if output not in graph.varying and output.shape == () and output.requires_grad
    ]
    if len(graph.outputs) > 1 and len(scalars) != 1:
        names = ", ".join(repr(graph.names[output]) for output in graph.outputs)
        raise GradientError(
            f"the graph has several outputs, {names}, and not one of them alone is a scalar to differentiate. Compile "
            "the graph of the loss, or with wrt=() for the values alone."
        )
    loss = scalars[0] if scalars else graph.output
    try:
        check_output(graph, loss)
    except GradientError as error:
        raise GradientError(f"{error} Or compile with wrt=() for the values alone.") from None
    return loss


def compile(loss_or_graph: Tensor | Graph, wrt: Iterable[Tensor | str] | Tensor | str | None = None) -> Compiled:
    """Make a network into a program, which computes the same numbers as `unroll` and `backward`, fast.

    The adjoint is built as a graph with cycles of its own, and both are scheduled together: what is in no
    cycle runs once for all timesteps, only cycles run step by step. One compiled network serves every
    length and batch size. Parameters are read at each run, so an optimiser may change them in place.

    Parameters
    ----------
    loss_or_graph : Tensor or Graph
    wrt : node, name, or several of them, optional
        By what to differentiate; by default all parameters. `wrt=()` computes the outputs alone.

    Returns
    -------
    Compiled
        Call it with the sequences of the inputs, each of shape (time, *shape of the input).

    Raises
    ------
    GradientError
        If there is no scalar to differentiate, and `wrt` is not ().

    Examples
    --------
    >>> import numpy as np
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = u * h + x
    >>> step = mg.compile(mg.last(h.next))
    >>> run = step(x=[1.0, 0.0, 0.0])
    >>> float(run.value), run.grads["u"], float(run.state["h"])
    (0.25, 1.0, 0.25)
    """
    graph = loss_or_graph if isinstance(loss_or_graph, Graph) else Graph(loss_or_graph)
    return Compiled(graph, wrt)
