"""The programs that training runs: the loss with its gradients, and the values that are watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.compiled.program import Compiled
from microgrid.compiled.run import Run
from microgrid.data.batch import Batch
from microgrid.drawn import with_drawn
from microgrid.errors import OperandTypeError, SequenceError
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops.time import TIME_MEAN, TIME_SUM
from microgrid.tensor import Tensor
from microgrid.training.counting import COUNTED, counting

ByNode = Mapping[Tensor, Any]


class Program:
    """A compiled graph, for batches of which all timesteps count and for those of which only the last do."""

    def __init__(self, graph: Graph, wrt: Sequence[Tensor]) -> None:
        self.graph, self.wrt = graph, wrt
        self.whole = Compiled(graph, wrt)
        self.partly: tuple[Compiled, dict[State, State]] | None = None

    def run(
        self, batch: Batch, sequences: ByNode, initial: ByNode, *, check: bool = False
    ) -> tuple[Run, dict[Tensor, Any]]:
        """What a run on a batch gives, and the states after it."""
        if batch.counted is None:
            run = self.whole(sequences, initial=initial or None, lengths=batch.lengths, check=check)
            return run, {state: run.state[self.graph.names[state]] for state in self.graph.states}
        if self.partly is None:
            copy, states = counting(self.graph)
            self.partly = Compiled(copy, self.wrt), states
        compiled, twins = self.partly
        here = np.arange(batch.steps) >= batch.steps - batch.counted
        starts = {twins[state]: value for state, value in initial.items() if isinstance(state, State)}
        run = compiled({**sequences, COUNTED: here}, initial=starts or None, lengths=batch.lengths, check=check)
        names = compiled.graph.names
        return run, {state: run.state[names[twin]] for state, twin in twins.items()}


class Programs:
    """The loss with its gradients, and the loss with the metrics, without.

    Attributes
    ----------
    graph : Graph
        That of the loss.
    inputs : dict of str → Input
        Those of the loss and the metrics, by name.
    """

    def __init__(self, loss: Tensor | Graph, wrt: Sequence[Tensor] | None, metrics: Mapping[str, Tensor]) -> None:
        self.graph = graph_of_loss(loss)
        for name, metric in metrics.items():
            if not isinstance(metric, Tensor) or metric.shape != () or metric in self.graph.varying:
                found = f"of shape {metric.shape}" if isinstance(metric, Tensor) else type(metric).__name__
                raise OperandTypeError(
                    f"the metric {name!r} is one number for a whole batch, not {found}: reduce it, as nn.accuracy does"
                )
        self.metrics = list(metrics)
        self.watched = Graph(*self.graph.outputs, *metrics.values())
        wanted = self.graph.parameters if wrt is None else [node for node in wrt if node in self.graph.names]
        if not wanted:
            raise OperandTypeError("the optimiser moves no parameter of this loss: give it net.parameters of its graph")
        self.names = {node: self.graph.names[node] for node in wanted}
        self.carried = [state for state in self.graph.states if not state.reverse]
        self.inputs = {self.watched.names[node]: node for node in self.watched.inputs}
        self.inputs |= {self.graph.names[node]: node for node in self.graph.inputs}
        self.by_time = any(node.primitive in (TIME_MEAN, TIME_SUM) for node in self.graph.nodes)
        self.steps = Program(self.graph, wanted)
        self.values = Program(self.watched, ())
        self.middle: Compiled | None = None

    def sequences(self, batch: Batch, *, training: bool) -> dict[Tensor, Any]:
        """The sequence of each input: those of the batch, and those that inputs draw themselves."""
        graph = self.graph if training else self.watched
        known = ", ".join(map(repr, self.inputs))
        for name in batch.inputs:
            if name not in self.inputs:
                raise SequenceError(f"the data has {name!r}, which is no input of the network (it has {known})")
        asked = [name for name, node in self.inputs.items() if node in graph.names and not node.draws_itself]
        missing = [name for name in asked if name not in batch.inputs]
        if missing:
            given = ", ".join(map(repr, batch.inputs))
            raise SequenceError(
                f"the network has the input {', '.join(map(repr, missing))}, for which the data has no sequence (it "
                f"has {given})"
            )
        own = {graph.names[self.inputs[name]]: array for name, array in batch.inputs.items() if name in asked}
        nodes = {graph.names[node]: node for node in graph.inputs}
        return {nodes[name]: array for name, array in with_drawn(graph, own, dropping=training).items()}

    def evaluated(self, batch: Batch, sequences: ByNode, initial: ByNode) -> tuple[dict[str, float], dict[Tensor, Any]]:
        """The loss and the metrics on a batch, and the states after it."""
        run, states = self.values.run(batch, sequences, initial)
        return dict(zip(["loss", *self.metrics], map(float, run.outputs.values()), strict=True)), states

    def states_at(
        self, steps: int, batch: Batch, sequences: ByNode, initial: ByNode, after: ByNode
    ) -> dict[Tensor, Any]:
        """The states that run forwards, after so many timesteps of a batch; `after` are those at its end."""
        if steps == batch.steps or not self.carried:
            return {state: after[state] for state in self.carried}
        if self.middle is None:
            self.middle = Compiled(Graph(*[state.next for state in self.carried]), ())
        graph = self.middle.graph
        inputs = {node: sequences[node][:steps] for node in graph.inputs}
        starts = {state: value for state, value in initial.items() if state in graph.names}
        run = self.middle(inputs, steps=steps, initial=starts or None)
        return {state: run.state[graph.names[state]] for state in self.carried}

    def weight(self, batch: Batch) -> int:
        """How much a batch's mean loss counts in an epoch's: its timesteps, or its sequences if each has one loss."""
        return batch.timesteps if self.by_time else batch.size


def graph_of_loss(loss: Tensor | Graph) -> Graph:
    """The graph of the loss."""
    graph = Graph(loss) if isinstance(loss, Tensor) else loss
    if not isinstance(graph, Graph):
        raise OperandTypeError(f"mg.fit takes the loss, a Tensor or its Graph, not {type(loss).__name__}")
    if len(graph.outputs) != 1:
        names = ", ".join(repr(graph.names[output]) for output in graph.outputs)
        raise OperandTypeError(f"mg.fit minimises one output, but the graph has {names}: give the rest as metrics=")
    return graph
