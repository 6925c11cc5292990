"""What training runs: a graph on batches, and the numbers of it that are averaged over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.compiled.program import Compiled, loss_of
from microgrid.compiled.run import Run
from microgrid.data.batch import Batch
from microgrid.drawn_inputs import with_drawn
from microgrid.errors import OperandTypeError, SequenceError
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops import elementwise
from microgrid.ops.time import TIME_MEAN, TIME_SUM
from microgrid.primitive import primitive_of
from microgrid.tensor import Tensor
from microgrid.training.counting import COUNTED, counting

ByNode = Mapping[Tensor, Any]
DIVIDE, MAXIMUM = primitive_of(elementwise.divide), primitive_of(elementwise.maximum)


class Program:
    """A compiled graph, for batches of which all timesteps count and for those of which only the last do."""

    def __init__(self, graph: Graph, wrt: Sequence[Tensor], executor: str = "numpy") -> None:
        self.graph, self.wrt, self.executor = graph, wrt, executor
        self.inputs = {graph.names[node]: node for node in graph.inputs}
        self.carried = [state for state in graph.states if not state.reverse]
        self.whole = Compiled(graph, wrt, executor=executor)
        self.partly: tuple[Compiled, dict[State, State]] | None = None
        self.middle: Compiled | None = None

    def sequences(
        self, batch: Batch, initial: ByNode, *, dropping: bool, others: Mapping[str, Any] | None = None
    ) -> dict[Tensor, Any]:
        """The sequence of each input: those of the batch, and those that inputs draw themselves.

        A name that is no input is refused unless it is one of `others`.
        """
        own: dict[str, Any] = {}
        for name, array in batch.inputs.items():
            if name in self.inputs:
                own[name] = array
            elif name not in (others or ()):
                known = ", ".join(map(repr, self.inputs)) or "none"
                raise SequenceError(f"the data has {name!r}, which is no input of the network (its inputs: {known})")
        missing = [name for name, node in self.inputs.items() if name not in own and not node.draws_itself]
        if missing:
            given = ", ".join(map(repr, batch.inputs))
            raise SequenceError(
                f"the network has the input {', '.join(map(repr, missing))}, for which the data has no sequence (it "
                f"has {given})"
            )
        return {
            self.inputs[name]: array
            for name, array in with_drawn(self.graph, own, initial=initial, dropping=dropping).items()
        }

    def run(
        self, batch: Batch, sequences: ByNode, initial: ByNode, *, check: bool = False
    ) -> tuple[Run, dict[Tensor, Any]]:
        """What a run on a batch gives, and the states after it."""
        if batch.counted is None:
            run = self.whole(sequences, initial=initial or None, lengths=batch.lengths, check=check)
            return run, {state: run.state[self.graph.names[state]] for state in self.graph.states}
        if self.partly is None:
            copy, states = counting(self.graph)
            self.partly = Compiled(copy, self.wrt, executor=self.executor), states
        compiled, twins = self.partly
        here = np.arange(batch.steps) >= batch.steps - batch.counted
        starts = {twins[state]: value for state, value in initial.items() if isinstance(state, State)}
        names = compiled.graph.names
        counted = {COUNTED: here} if any(names[node] == COUNTED for node in compiled.graph.inputs) else {}
        run = compiled({**sequences, **counted}, initial=starts or None, lengths=batch.lengths, check=check)
        return run, {state: run.state[names[twin]] for state, twin in twins.items()}

    def states_at(
        self, steps: int, batch: Batch, sequences: ByNode, initial: ByNode, after: ByNode
    ) -> dict[Tensor, Any]:
        """The states that run forwards, after so many timesteps of a batch; `after` are those at its end."""
        if steps == batch.steps or not self.carried:
            return {state: after[state] for state in self.carried}
        if self.middle is None:
            self.middle = Compiled(Graph(*dict.fromkeys([*self.carried, *(state.next for state in self.carried)])), ())
        graph = self.middle.graph
        starts = {state: value for state, value in initial.items() if state in graph.names}
        causal = not any(state.reverse for state in graph.states)
        end = steps if causal else batch.steps  # what runs backwards needs all of the batch
        lengths = None if batch.lengths is None else np.minimum(batch.lengths, end)
        inputs = {node: sequences[node][:end] for node in graph.inputs}
        run = self.middle(inputs, steps=end, initial=starts or None, lengths=lengths)
        if causal:
            return {state: run.state[graph.names[state]] for state in self.carried}
        values = dict(zip(graph.outputs, run.outputs.values(), strict=True))
        return {
            state: values[state.next][steps - 1] if state.next in graph.varying else values[state.next]
            for state in self.carried
        }


class Watch:
    """Numbers of a network, each with what it weighs in a mean over batches.

    A mean over timesteps weighs as much as there are, another as there are sequences. A quotient by a count, as a
    loss that ignores targets is, weighs as much as the count, which is computed with it.

    Attributes
    ----------
    outputs : dict of str → Tensor
    program : Program
    """

    def __init__(self, outputs: Mapping[str, Tensor], wrt: Sequence[Tensor] = (), executor: str = "numpy") -> None:
        for name, output in outputs.items():
            if not isinstance(output, Tensor) or output.shape != ():
                found = f"of shape {output.shape}" if isinstance(output, Tensor) else type(output).__name__
                raise OperandTypeError(
                    f"the metric {name!r} is one number for a whole batch, not {found}: reduce it, as nn.accuracy does"
                )
        self.outputs = dict(outputs)
        self.counts = {name: count for name, output in outputs.items() if (count := count_in(output)) is not None}
        graph = Graph(*self.outputs.values(), *self.counts.values())
        for name, output in self.outputs.items():
            if output in graph.varying:
                raise OperandTypeError(
                    f"the metric {name!r} is one number for a whole batch, but has a value per timestep: reduce it "
                    "over time, by mg.time_mean or mg.last for example"
                )
        self.program = Program(graph, wrt, executor)
        self.by_time = {name: is_over_time(output) for name, output in self.outputs.items()}

    def values(self, run: Run, batch: Batch) -> dict[str, tuple[float, float]]:
        """Each number, and its weight."""
        numbers = list(map(float, run.outputs.values()))
        weights = dict(zip(self.counts, numbers[len(self.outputs) :], strict=True))
        return {
            name: (value, weights.get(name, float(batch.timesteps if self.by_time[name] else batch.size)))
            for name, value in zip(self.outputs, numbers, strict=False)
        }


def count_in(output: Tensor) -> Tensor | None:
    """The count by which a number is a quotient, as total / maximum(count, 1)."""
    if output.primitive is DIVIDE and output.operands[1].primitive is MAXIMUM:
        count = output.operands[1].operands[0]
        return count if not count.requires_grad else None
    return None


def is_over_time(output: Tensor) -> bool:
    """Whether a number is made of sums or means of numbers over time, and not, say, of a mean of hidden states."""
    stack = [output]
    while stack:
        node = stack.pop()
        if node.primitive in (TIME_MEAN, TIME_SUM):
            return True
        stack += [operand for operand in node.operands if operand.shape == ()]
    return False


def watched_loss(
    loss: Tensor | Graph, wrt: Sequence[Tensor] | None, executor: str = "numpy"
) -> tuple[Watch, dict[Tensor, str]]:
    """The loss with its gradients, and the names of the parameters that it is differentiated by."""
    if not isinstance(loss, Tensor | Graph):
        raise OperandTypeError(f"mg.fit takes the loss, a Tensor or its Graph, not {type(loss).__name__}")
    graph = Graph(loss) if isinstance(loss, Tensor) else loss
    if not graph.parameters:
        raise OperandTypeError("the loss depends on no parameter, so there is nothing to train: make some, or layers")
    output = loss_of(graph)
    wanted = [node for node in (graph.parameters if wrt is None else wrt) if node in graph.names and node.requires_grad]
    if not wanted:
        raise OperandTypeError(
            "the optimiser moves no parameter of this loss: give it those of the network, as in "
            "mg.optim.Adam(mg.Graph(loss).parameters)"
        )
    watch = Watch({"loss": output}, wanted, executor)
    return watch, {node: watch.program.graph.names[node] for node in wanted}
