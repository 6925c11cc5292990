"""A network and its gradients as one program over the whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid import recording
from microgrid.compiled.shapes import Recorded
from microgrid.differentiate import gradients
from microgrid.execute import on_numpy
from microgrid.execute.executors import NUMPY, Executor
from microgrid.graph import Graph
from microgrid.ops.time import first, last
from microgrid.tensor import Name, Tensor


class Whole:
    """The program of a network, its adjoint, and the last values of its states.

    Attributes
    ----------
    program : Program
    """

    program: on_numpy.Program

    def __init__(self, network: Recorded, executor: Executor = NUMPY, *, simplify: bool = True) -> None:
        grads: list[Tensor] = []
        if network.loss is not None:
            with recording.outlines():
                found = gradients(network.graph, network.outputs[network.loss], network.wrt)
            grads = [found[node] for node in network.wrt]
            for node, grad in zip(network.wrt, grads, strict=True):
                if grad.name is None and grad.primitive is not None:
                    grad._name = Name(f"{network.graph.names[node]}.grad")
        ends = [first(state.next) if state.reverse else last(state.next) for state in network.states]
        joint = Graph.of_checked([*network.outputs, *grads, *ends])
        if simplify:
            self.program = executor.program(executor.rewrites.program(joint))
        else:
            self.program = on_numpy.Program(joint, share=False)
        self.given = network.given
        self.inputs = {node.name: node for node in self.program.graph.inputs}
        self.counts = len(network.outputs), len(grads)
        found_graph = self.program.graph
        self.repeated = [  # gradients at every timestep that are the same at all of them
            node in network.graph.varying and grad not in found_graph.varying
            for node, grad in zip(network.wrt, found_graph.outputs[len(network.outputs) :], strict=False)
        ]

        self.repeats = any(self.repeated)

    def operands(
        self, sequences: Mapping[str, Any], starts: Mapping[str, Any]
    ) -> tuple[dict[Tensor, Any], dict[Tensor, Any]]:
        """The sequences by input, and the given initial values by leaf."""
        by_input: dict[Tensor, Any] = {node: sequences[name] for name, node in self.inputs.items() if name is not None}
        return by_input, {self.given[name]: value for name, value in starts.items()}

    def run(
        self, length: int, sequences: Mapping[str, Any], starts: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """The values of the outputs, of the gradients, and of the states after the last timestep."""
        values = self.program.run(length, *self.operands(sequences, starts))
        count, grads = self.counts
        found = values[count : count + grads]
        if self.repeats:
            found = [
                np.repeat(np.asarray(grad)[None], length, axis=0) if repeated else grad
                for grad, repeated in zip(found, self.repeated, strict=True)
            ]
        return values[:count], found, values[count + grads :]
