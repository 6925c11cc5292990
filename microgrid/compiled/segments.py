"""Checkpoints: a long sequence in segments, of which only the states in between are kept.

Forwards, each segment starts from the state at the end of the one before; reductions over time are put
together from those of the segments. What follows from the reductions, such as the loss, is computed once.
Then, from the last segment to the first, each is computed again together with its adjoint, which receives
the cotangents of the reductions and of the state that the next segment started from.

Source: T. Chen, B. Xu, C. Zhang and C. Guestrin, Training deep nets with sublinear memory cost (2016);
A. Gruslys et al., Memory-efficient backpropagation through time, NeurIPS 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microgrid import recording
from microgrid.compiled.shapes import Recorded
from microgrid.differentiate import gradients, gradients_from
from microgrid.errors import CausalityError
from microgrid.execute.executors import NUMPY, Executor
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops.time import FIRST, LAST, TIME_STACK, is_spread_over_time, is_time_reduction, last
from microgrid.primitive import Primitive
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.tensor import Tensor

Values = Mapping[Tensor, Any]
Span = tuple[int, int]


class Segments:
    """The programs by which a network runs in segments of `every` timesteps."""

    def __init__(self, network: Recorded, every: int, executor: Executor = NUMPY) -> None:
        self.every = every
        self.executor = executor
        self.network = network
        self.reductions = reductions_of(network)
        late = behind(self.reductions, network.graph)
        self.early = [node for node in network.wrt if node not in late]  # their gradients come from the segments
        known = set(network.states)
        self.states = [*network.states, *(state for state in network.graph.states if state not in known)]
        with recording.outlines():
            self.build_forward()
            self.build_end()
            self.build_backward()
            self.build_beginning()

    # --- programs ---

    def build_forward(self) -> None:
        """One segment: its reductions, what varies, and its last states, from the states it starts from."""
        network = self.network
        varying = [output for output in network.outputs if output in network.graph.varying]
        base = Graph(*self.reductions, *varying, *self.early, *self.states)
        self.starts: dict[Tensor, Tensor] = {state: placeholder(state) for state in self.states}
        segment = rebuilt(base, kept, self.starts).outputs
        count, shown = len(self.reductions), len(self.reductions) + len(varying)
        self.reduced, outputs = list(segment[:count]), list(segment[count:shown])
        self.wrt = list(segment[shown : shown + len(self.early)])
        self.ends = [last(s.next) for s in segment[shown + len(self.early) :] if isinstance(s, State)]
        self.forward = Runner([*self.reduced, *outputs, *self.ends], self.executor)

    def build_end(self) -> None:
        """What follows from the reductions: static outputs, and the cotangents of the reductions and static nodes."""
        network = self.network
        held = {node: placeholder(node) for node in self.reductions}

        def remake(node: Tensor, made: Made) -> Tensor:
            return held[node] if node in held else kept(node, made)

        static = [output for output in network.outputs if output not in network.graph.varying]
        fixed = [node for node in network.wrt if node not in network.graph.varying]
        self.held = list(held.values())
        if not static:
            self.end = Runner([], self.executor)
            return
        tail = rebuilt(Graph(*static, *fixed), remake)
        outputs, by = list(tail.outputs[: len(static)]), list(tail.outputs[len(static) :])
        found: list[Tensor] = []
        if network.loss is not None:
            loss = outputs[index_of(network.outputs[network.loss], static)]
            wanted = [*self.held, *by]
            by_node = gradients(Graph(*tail.outputs), loss, wanted)
            found = [by_node[node] for node in wanted]
        self.end = Runner([*outputs, *found], self.executor)

    def build_backward(self) -> None:
        """The adjoint of one segment, from the cotangents of its reductions and of its last states."""
        network = self.network
        self.seeds = [placeholder(node) for node in (*self.reduced, *self.ends)]
        self.differentiable = [state for state in self.states if state.dtype.kind == "f"]
        if network.loss is None:
            return
        roots = [*self.reduced, *self.ends]
        segment = Graph(*roots, *self.wrt, *self.starts.values())
        seeds = {root: seed for root, seed in zip(roots, self.seeds, strict=True) if root.requires_grad}
        wanted = [*self.wrt, *(self.starts[state] for state in self.differentiable)]
        found = gradients_from(segment, seeds, wanted)
        self.backward = Runner([found[node] for node in wanted], self.executor)

    def build_beginning(self) -> None:
        """The states' own initial values, and the adjoint of those."""
        network = self.network
        initial = [state.initial for state in self.states]
        self.beginning = Runner(initial, self.executor)
        self.first_seeds = [placeholder(state) for state in self.differentiable]
        fixed = [node for node in self.early if node not in network.graph.varying]
        if network.loss is None or not initial or not fixed:
            self.adjoint_of_beginning = Runner([], self.executor)
            return
        graph = Graph(*initial, *fixed)
        received: dict[Tensor, Tensor] = {}
        for state, seed in zip(self.differentiable, self.first_seeds, strict=True):
            start = state.initial  # which may be that of several states
            received[start] = received[start] + seed if start in received else seed
        seeds = {node: seed for node, seed in received.items() if node.requires_grad}
        found = gradients_from(graph, seeds, fixed)
        self.adjoint_of_beginning = Runner([found[node] for node in fixed], self.executor)

    # --- a run ---

    def run(
        self, length: int, sequences: Mapping[str, Any], starts: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """The values of the outputs, of the gradients, and of the states after the last timestep."""
        network = self.network
        given = {network.given[name]: value for name, value in starts.items()}
        spans = [(a, min(a + self.every, length)) for a in range(0, length, self.every)]
        state = self.beginning.run(1, {}, given)
        saved: list[list[Any]] = []
        pieces: list[list[Any]] = []
        for a, b in spans:
            saved.append(state)
            found = self.forward.run(b - a, part(sequences, a, b), self.starting(state))
            state = found[len(found) - len(self.states) :]
            pieces.append(found[: len(found) - len(self.states)])
        count = len(self.reductions)
        totals = [together(node.primitive, [piece[i] for piece in pieces]) for i, node in enumerate(self.reductions)]
        tail = self.end.run(length, {}, dict(zip(self.held, totals, strict=True)))
        static, varying = iter(tail), iter(range(count, len(pieces[0]) if pieces else count))
        outputs = [
            np.concatenate([piece[i] for piece in pieces]) if i is not None else value
            for i, value in (
                (next(varying), None) if output in network.graph.varying else (None, next(static))
                for output in network.outputs
            )
        ]
        ends = list(state[: len(network.states)])
        if network.loss is None:
            return outputs, [], ends
        cotangents = [next(static) for _ in self.held]
        return outputs, self.gradients(spans, sequences, saved, cotangents, list(static)), ends

    def gradients(
        self,
        spans: Sequence[Span],
        sequences: Mapping[str, Any],
        saved: list[list[Any]],
        cotangents: Sequence[Any],
        direct: list[Any],
    ) -> list[Any]:
        """The gradients, from the last segment to the first; `direct` are those past all reductions."""
        network = self.network
        direct_of = iter(direct)
        grads: dict[Tensor, Any] = {
            node: [] if node in network.graph.varying else next(direct_of) for node in network.wrt
        }
        later = [np.zeros(state.shape, state.dtype) for state in self.states]
        for number, (a, b) in reversed(list(enumerate(spans))):
            seeds = [
                share(node.primitive, cotangent, (a, b), number == 0, number == len(spans) - 1)
                for node, cotangent in zip(self.reductions, cotangents, strict=True)
            ]
            given = {**self.starting(saved.pop()), **dict(zip(self.seeds, [*seeds, *later], strict=True))}
            found = self.backward.run(b - a, part(sequences, a, b), given)
            for node, grad, varies in zip(self.early, found, self.backward.varies, strict=False):
                if node in network.graph.varying:
                    grads[node].append(grad if varies else np.repeat(np.asarray(grad)[None], b - a, axis=0))
                else:
                    grads[node] = grads[node] + grad
            by_state = dict(zip(self.differentiable, found[len(self.early) :], strict=True))
            later = [by_state.get(state, zero) for state, zero in zip(self.states, later, strict=True)]
        first = dict(zip(self.first_seeds, (by_state[state] for state in self.differentiable), strict=True))
        at_start = iter(self.adjoint_of_beginning.run(1, {}, first))
        for node in self.early:
            varies = node in network.graph.varying
            grads[node] = np.concatenate(grads[node][::-1]) if varies else grads[node] + next(at_start, 0)
        return [grads[node] for node in network.wrt]

    def starting(self, state: Sequence[Any]) -> dict[Tensor, Any]:
        """What the states of a segment start from."""
        return dict(zip(self.starts.values(), state, strict=True))


class Runner:
    """The program of some nodes; of none, nothing."""

    def __init__(self, outputs: Sequence[Tensor], executor: Executor) -> None:
        self.program = executor.program(executor.rewrites.program(Graph(*outputs))) if outputs else None
        graph = self.program.graph if self.program else None
        self.varies = [output in graph.varying for output in graph.outputs] if graph else []

    def run(self, length: int, sequences: Mapping[str, Any], given: Values) -> list[Any]:
        if self.program is None:
            return []
        by_input: dict[Tensor, Any] = {
            node: sequences[node.name] for node in self.program.graph.inputs if node.name is not None
        }
        return self.program.run(length, by_input, given)


def placeholder(node: Tensor) -> Tensor:
    """A leaf for a value that is known at a run only."""
    return Tensor(node.value, requires_grad=node.dtype.kind == "f")


def reductions_of(network: Recorded) -> list[Tensor]:
    """The reductions over time of what varies.

    Raises CausalityError where the timesteps themselves need more than one segment.
    """
    graph = network.graph
    after: set[Tensor] = set()
    for node in graph.nodes:
        if is_time_reduction(node) or any(operand in after for operand in node.operands):
            after.add(node)
    for node in graph.nodes:
        if isinstance(node, State) and node.reverse:
            raise CausalityError(
                f"checkpoint_every runs forwards through segments, but {graph.names[node]!r} is a reverse state"
            )
        read = (*node.operands, node.next) if isinstance(node, State) else node.operands
        whole = [x for x in read if x in after and x not in graph.varying] if node in graph.varying else []
        if whole or is_spread_over_time(node):
            raise CausalityError(
                "checkpoint_every needs timesteps that know only the past, but "
                f"{graph.names[whole[0] if whole else node]!r} depends on the whole sequence and is read at every step"
            )
    return [node for node in graph.nodes if is_time_reduction(node) and node.operands[0] in graph.varying]


def behind(reductions: Sequence[Tensor], graph: Graph) -> set[Tensor]:
    """The reductions and the static nodes that depend on them."""
    found = set(reductions)
    for node in graph.nodes:
        if node not in graph.varying and not found.isdisjoint(node.operands):
            found.add(node)
    return found


def index_of(node: Tensor, nodes: Sequence[Tensor]) -> int:
    return next(i for i, each in enumerate(nodes) if each is node)


def part(sequences: Mapping[str, Any], a: int, b: int) -> dict[str, Any]:
    return {name: sequence[a:b] for name, sequence in sequences.items()}


def together(primitive: Primitive | None, values: Sequence[Any]) -> Any:
    """A reduction over time from those of the segments."""
    if primitive is FIRST:
        return values[0]
    if primitive is LAST:
        return values[-1]
    if primitive is TIME_STACK:
        return np.concatenate(values)
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def share(primitive: Primitive | None, cotangent: Any, span: Span, is_first: bool, is_last: bool) -> Any:
    """The part of a reduction's cotangent that belongs to one segment."""
    if primitive is TIME_STACK:
        return cotangent[span[0] : span[1]]
    elsewhere = (primitive is FIRST and not is_first) or (primitive is LAST and not is_last)
    return np.zeros_like(cotangent) if elsewhere else cotangent
