"""differentiate: a graph → the graph that computes its gradients, its adjoint.

Seen from behind, a delay runs the other way: what `next` receives at step t is what the state receives
at step t+1. So the adjoint of a recurrence is a recurrence backwards in time, and it is written here
with the same nodes as any other: reverse states, and reductions over time for what is shared by all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from microgrid import recording
from microgrid.backward import unbroadcast
from microgrid.errors import GradientError
from microgrid.graph import Graph
from microgrid.leaves import State, state
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import (
    FIRST,
    LAST,
    TIME_MEAN,
    TIME_STACK,
    TIME_SUM,
    first,
    is_spread_over_time,
    last,
    time_stack,
    time_sum,
    time_unstack,
)
from microgrid.primitive import Primitive
from microgrid.tensor import Name, Tensor, constant


def differentiate(loss_or_graph: Tensor | Graph, wrt: Iterable[Tensor | str] | Tensor | str | None = None) -> Graph:
    """The adjoint of a network: the graph whose outputs are the gradients of its output.

    It is recorded from the same primitives, so it can be drawn, unrolled, compiled and differentiated
    again. A cycle that runs forwards in time has an adjoint that runs backwards: its states are
    `reverse`. The state that brings the gradient of h back from the timestep after is named "h.grad⁺".
    Inputs and parameters are those of the network.

    Parameters
    ----------
    loss_or_graph : Tensor or Graph
        With one output, a scalar with one value for the whole sequence.
    wrt : node, name, or several of them, optional
        By what to differentiate; by default all parameters. A node with a value per timestep, such as
        an input, has a gradient per timestep.

    Returns
    -------
    Graph
        With one output for each node in `wrt`, named after it: `adjoint["U.grad"]`.

    Raises
    ------
    GradientError
        If the output is no scalar or has a value per timestep, a node in `wrt` has no gradient, or the
        network stacks or unstacks time, whose adjoint is another for every length.

    Source: P. J. Werbos, Backpropagation through time: what it does and how to do it,
    Proc. IEEE 78 (1990); A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed. (2008), chapter 3.

    Examples
    --------
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = u * h + x
    >>> adjoint = mg.differentiate(mg.Graph(mg.last(h.next)))
    >>> sorted(cycle.reverse for cycle in adjoint.cycles)      # h forwards, its gradient backwards
    [False, True]
    >>> float(adjoint.unroll(x=[1.0, 0.0, 0.0])["u.grad"])
    1.0
    """
    net = loss_or_graph if isinstance(loss_or_graph, Graph) else Graph(loss_or_graph)
    for node in net.nodes:
        if node.primitive is TIME_STACK or is_spread_over_time(node):
            raise GradientError(
                f"{net.names[node]!r} has as many rows as there are timesteps, which a graph for all lengths does not "
                "know. mg.compile differentiates it for each length, and net.unroll(...).backward() for one."
            )
    found = gradients(net, net.output, wanted_nodes(net, wrt))
    return Graph(**{f"{net.names[node]}.grad": gradient for node, gradient in found.items()})


def wanted_nodes(net: Graph, wrt: Iterable[Tensor | str] | Tensor | str | None) -> list[Tensor]:
    """The nodes to differentiate by."""
    if wrt is None:
        if not net.parameters:
            raise GradientError("the graph has no parameters: say by what to differentiate, as in wrt='x'")
        return list(net.parameters)
    nodes = [net.find(key) for key in ([wrt] if isinstance(wrt, Tensor | str) else wrt)]
    for node in nodes:
        if not node.requires_grad:
            raise GradientError(f"{net.names[node]!r} needs no gradient (requires_grad is False), so it has none")
    return nodes


def gradients(net: Graph, output: Tensor, wanted: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """The nodes that hold the gradients of `output` by the nodes in `wanted`."""
    check_output(net, output)
    return gradients_from(net, {output: Tensor(np.ones((), output.dtype)[()])}, wanted)


def gradients_from(net: Graph, seeds: Mapping[Tensor, Tensor], wanted: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """The same from several nodes at once, each with the cotangent it starts from."""
    with recording.always(), np.errstate(all="ignore"):  # on example values, which may be anything
        return Adjoint(net, seeds, wanted).found


def check_output(net: Graph, output: Tensor) -> None:
    name = net.names[output]
    if output in net.varying:
        raise GradientError(
            f"the output {name!r} has one value per timestep, and a gradient starts from one number. Reduce it over "
            "time (mg.time_mean, mg.time_sum, mg.last)."
        )
    if output.shape != ():
        raise GradientError(
            f"the output {name!r} has shape {output.shape}, and a gradient starts from one number: reduce it "
            "(mg.sum, mg.mean)."
        )
    if not output.requires_grad:
        raise GradientError(f"the output {name!r} depends on nothing that needs a gradient")


class Adjoint:
    """The sweep from outputs back through operands and delays, as `backward` does it through a DAG."""

    def __init__(self, net: Graph, seeds: Mapping[Tensor, Tensor], wanted: Iterable[Tensor]) -> None:
        wanted = list(wanted)
        self.net = net
        self.on_path = depending_on(net, wanted)
        self.received: dict[Tensor, list[Tensor]] = {node: [seed] for node, seed in seeds.items()}
        self.from_other_side = {node: self.delay_back(node) for node in net.states if {node, node.next} <= self.on_path}
        totals: dict[Tensor, Tensor] = {}
        for node in reversed(net.nodes):
            if node in self.received and node in self.on_path:
                totals[node] = self.total(node)
                self.pass_on(node, totals[node])
            elif isinstance(node, State) and node in self.from_other_side:
                self.from_other_side[node].next = zeros_of(node)
        self.found = {node: totals[node] if node in totals else zeros_of(node) for node in wanted}

    def delay_back(self, of: State) -> State:
        """The state by which the cotangent of `of` reaches its next, one timestep away."""
        back = state(np.zeros(of.shape, of.dtype) if of.shape else of.dtype.type(0), reverse=not of.reverse)
        back._name = Name(f"{self.net.names[of]}.grad⁺")
        self.received.setdefault(of.next, []).append(back if of.next in self.net.varying else time_sum(back))
        return back

    def total(self, node: Tensor) -> Tensor:
        """The sum of all cotangents a node received, under its name."""
        summed, *rest = self.received[node]
        for cotangent in rest:
            summed = summed + cotangent
        if node.name is not None and summed.name is None and summed.operands and summed not in self.net:
            summed._name = Name(f"{self.net.names[node]}.grad")
        return summed

    def pass_on(self, node: Tensor, g: Tensor) -> None:
        """Send the cotangent of `node` on to its operands, and back or on in time."""
        primitive = node.primitive
        if isinstance(node, State):
            if node in self.from_other_side:
                self.from_other_side[node].next = g
            self.send(last(g) if node.reverse else first(g), node.initial)
        elif primitive is None:
            return
        elif primitive.over_time is not None:
            (operand,) = node.operands
            rules = SPREAD if operand in self.net.varying else REPEATED
            self.send(rules[primitive](g, operand), operand)
        elif primitive.at_timestep is not None:
            self.send(time_stack(g), node.operands[0])
        else:
            given = [list(node.operands)] if primitive.variadic else node.operands
            for index, operand in enumerate(node.operands):
                if operand in self.on_path:
                    cotangent = primitive.rule(index)(g, node, *given, **node.params)
                    if cotangent is not None:
                        cotangent = fitted(constant(cotangent), operand)
                        shared = node in self.net.varying and operand not in self.net.varying
                        self.send(time_sum(cotangent) if shared else cotangent, operand)

    def send(self, cotangent: Tensor, operand: Tensor) -> None:
        if operand in self.on_path:
            self.received.setdefault(operand, []).append(fitted(cotangent, operand))


def depending_on(net: Graph, nodes: Iterable[Tensor]) -> set[Tensor]:
    """The nodes that depend on one of `nodes`, in this timestep or another, and need a gradient; themselves too."""
    seen = set(nodes)
    stack = list(seen)
    while stack:
        readers = [reader for reader in net.readers.get(stack.pop(), ()) if reader is not None]
        new = [reader for reader in readers if reader.requires_grad and reader not in seen]
        seen.update(new)
        stack += new
    return seen


def fitted(cotangent: Tensor, operand: Tensor) -> Tensor:
    """A cotangent in the shape and dtype of its operand."""
    cotangent = unbroadcast(cotangent, operand.shape)
    return cotangent if cotangent.dtype == operand.dtype else cotangent.astype(operand.dtype)


def zeros_of(node: Tensor) -> Tensor:
    return Tensor(np.zeros(node.shape, node.dtype) if node.shape else node.dtype.type(0))


# --- reductions over time ----------------------------------------------------------------------------


def number_of_timesteps() -> Tensor:
    return time_sum(1.0)


def only_at(g: Tensor, operand: Tensor, *, reverse: bool) -> Tensor:
    """A cotangent at the first or, in reverse, at the last timestep, and 0 at all others: a delay of 0 that starts
    from it."""
    there = state(fitted(g, operand), reverse=reverse)
    there._name = Name("grad of the last" if reverse else "grad of the first")
    there.next = zeros_of(there)
    return there


Spread = Mapping[Primitive, Callable[[Tensor, Tensor], Tensor]]
SPREAD: Spread = {
    TIME_SUM: lambda g, x: g,
    TIME_MEAN: lambda g, x: g / number_of_timesteps(),
    FIRST: lambda g, x: only_at(g, x, reverse=False),
    LAST: lambda g, x: only_at(g, x, reverse=True),
    TIME_STACK: lambda g, x: time_unstack(g),
}
"""(cotangent of a reduction over time, its varying operand) → the operand's cotangent at each timestep."""

REPEATED: Spread = {
    TIME_SUM: lambda g, x: g * number_of_timesteps(),
    TIME_MEAN: lambda g, x: g,
    FIRST: lambda g, x: g,
    LAST: lambda g, x: g,
    TIME_STACK: lambda g, x: sum_along(g, axis=0),
}
"""The same where the operand is static: its cotangent, the sum over all timesteps."""
