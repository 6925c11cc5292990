"""Which nodes of a graph are drawn, and where: in every timestep, below, above, or beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microgrid.graph import Graph
from microgrid.leaves import Input, Parameter, State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from viz.labels import Content, content, is_folded


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a picture of a recurrent network.

    Attributes
    ----------
    varying : drawn once per timestep
    below : static nodes that timesteps read, in a row below (parameters, mostly)
    above : parameters read by the upper half of a timestep, in a row above
    after : static nodes behind a reduction over time, on top (the loss)
    starts : nodes read only as the initial value of a state, left of the first timestep, or right of the last
    """

    graph: Graph
    varying: tuple[Tensor, ...]
    below: tuple[Tensor, ...]
    above: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    starts: tuple[Tensor, ...]
    state_of: dict[Tensor, State]
    """next → the (first) state that takes its value."""

    def kind(self, node: Tensor) -> str:
        """The kind of a node that decides its look."""
        if node in self.graph.outputs:
            return "output"
        if isinstance(node, State):
            return "state"
        if node in self.state_of and not isinstance(node, Input | Parameter):
            return "next"
        return looks(node)

    def content(self, node: Tensor, shown: Tensor, *, values: bool = False, gradients: bool = False) -> Content:
        """What to write on the copy `shown` of a node."""
        state = self.state_of.get(node)
        own = self.user_name(node)
        follows = self.graph.names[state] if state is not None else None
        operands = [self.called(operand) for operand in node.operands]
        if own is None and isinstance(node, Input | Parameter | State):
            own = self.graph.names[node]
        return content(
            shown,
            own,
            self.kind(node),
            operation=delay_label(node) if isinstance(node, State) else None,
            follows=follows,
            operands=operands,
            values=values,
            gradients=gradients,
        )

    def user_name(self, node: Tensor) -> str | None:
        return self.graph.aliases.get(node, node.name)

    def called(self, node: Tensor) -> str | None:
        """The name by which a picture writes a node as an operand, if it has one."""
        name = self.user_name(node)
        if name is None and node in self.state_of:
            return f"{self.graph.names[self.state_of[node]]}′"
        return name


def direction(state: State) -> int:
    """Which way a state's delay runs: 1 to the next timestep, −1, of a reverse state, to the one before."""
    return -1 if state.reverse else 1


def delay_label(state: State) -> str:
    """When the value of `state` was, or will be, that of its next."""
    return "t−1" if direction(state) > 0 else "t+1"


def looks(node: Tensor) -> str:
    """The kind of a node by itself."""
    if isinstance(node, Input):
        return "input"
    if isinstance(node, Parameter):
        return "parameter"
    if node.primitive is None:
        return "leaf"
    return "reduction" if is_time_reduction(node) else "operation"


def plan(graph: Graph) -> Plan:
    """Sort the nodes of a recurrent network into the parts of its picture."""
    readers: dict[Tensor, list[Tensor]] = {node: [] for node in graph.nodes}
    initial = {state.initial for state in graph.states}
    both_ways = {s.initial for s in graph.states if s.reverse} & {s.initial for s in graph.states if not s.reverse}
    initial_only = {node for node in initial - both_ways if not node.operands}
    for tail, head, kind in graph.edges():
        if kind == "operand":
            readers[tail].append(head)
            initial_only.discard(tail)
    state_of: dict[Tensor, State] = {}
    for state in graph.states:
        state_of.setdefault(state.next, state)

    late: set[Tensor] = set()
    for node in graph.nodes:
        if node not in graph.varying and (is_time_reduction(node) or any(x in late for x in node.operands)):
            late.add(node)
    feeds: set[Tensor] = set()  # static nodes that timesteps read, directly or through static operations
    for node in reversed(graph.nodes):
        if node not in graph.varying and node not in late and node not in initial_only:
            direct = any(reader in graph.varying for reader in readers[node]) or node in state_of or node in initial
            if direct or any(reader in feeds for reader in readers[node]):
                feeds.add(node)
    height = heights(graph)
    top = max(height.values(), default=0)

    def is_high(node: Tensor) -> bool:
        levels = [height[reader] for reader in readers[node] if reader in graph.varying]
        return not node.operands and bool(levels) and 2 * sum(levels) > top * len(levels)

    def drawn(condition: Callable[[Tensor], bool]) -> tuple[Tensor, ...]:
        return tuple(node for node in graph.nodes if not is_folded(node) and condition(node))

    static = [node for node in graph.nodes if node not in graph.varying]
    rest = {node for node in static if node not in feeds and node not in initial_only}
    mixed = {node for node in feeds if any(reader in feeds for reader in readers[node])}
    return Plan(
        graph,
        varying=tuple(node for node in graph.nodes if node in graph.varying),
        below=drawn(lambda node: node in feeds and (node in mixed or not is_high(node))),
        above=drawn(lambda node: node in feeds and node not in mixed and is_high(node)),
        after=drawn(lambda node: node in rest),
        starts=drawn(lambda node: node in initial_only and (node.name is not None or type(node) is not Tensor)),
        state_of=state_of,
    )


def heights(graph: Graph) -> dict[Tensor, int]:
    """How many operations of the same timestep lie below each varying node."""
    height: dict[Tensor, int] = {}
    for node in graph.nodes:
        if node in graph.varying:
            below = [] if isinstance(node, State) else [height[x] for x in node.operands if x in height]
            height[node] = 1 + max(below, default=-1)
    return height
