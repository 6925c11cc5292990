"""Diagram: what a picture shows as boxes and edges, between the recorded graph and where things stand.

At level "op" every tensor is a node of its own; parts.py decides what level "cell" folds into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from microgrid.graph import Graph, Nodes
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from viz.labels import is_folded


@dataclass(eq=False, slots=True)
class Node:
    """What is drawn as one box, in every timestep if it varies.

    Attributes
    ----------
    tensor : Tensor
        Of the recorded graph: the one it shows; of a folded part, the last that others read.
    members : tuple of Tensor
        All for which it stands.
    varies : bool
        Whether it stands in every timestep.
    part : str or None
        The name of a folded part.
    """

    tensor: Tensor
    members: tuple[Tensor, ...]
    varies: bool
    part: str | None = None

    @property
    def state(self) -> State | None:
        """The state that it shows, if that is what it is."""
        return self.tensor if self.part is None and isinstance(self.tensor, State) else None

    @property
    def reduces_time(self) -> bool:
        return any(is_time_reduction(member) for member in self.members)


Read = tuple[Tensor, int]
"""A reader in the recorded graph, and the number of its operand."""


@dataclass(frozen=True, eq=False, slots=True)
class Link:
    """An edge within a timestep, or between a timestep and what all share: the reads for which it stands."""

    tail: Node
    head: Node
    reads: tuple[Read, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Delay:
    """An edge to the next timestep (`ahead` is 1), or to the one before (−1)."""

    tail: Node
    head: Node
    ahead: int
    states: tuple[State, ...]

    @property
    def is_loop(self) -> bool:
        """Whether a box reads itself: the neuron whose output feeds into itself."""
        return self.tail is self.head

    @property
    def label(self) -> str:
        return delay_label(self.ahead)


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """An edge from an initial value to the state that starts with it, or to the box that holds the state."""

    tail: Node
    head: Node
    ahead: int
    state: State


@dataclass(frozen=True, eq=False)
class Diagram:
    """Boxes and edges; `nodes` are in an order in which a timestep can be computed."""

    graph: Graph
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    delays: tuple[Delay, ...]
    starts: tuple[Start, ...]

    @property
    def numbers(self) -> dict[Node, int]:
        """A number for each node, that of the tensor it shows: the same at both levels."""
        order = {tensor: number for number, tensor in enumerate(self.graph.nodes)}
        return {node: order[node.tensor] for node in self.nodes}


def direction(state: State) -> int:
    """Which way a state's delay runs: 1 to the next timestep, −1, of a reverse state, to the one before."""
    return -1 if state.reverse else 1


def delay_label(ahead: int) -> str:
    """When the value that arrives over a delay was, or will be."""
    return "t−1" if ahead > 0 else "t+1"


def diagram(graph: Graph, parts: Sequence[Node] = ()) -> Diagram:
    """The diagram of a graph in which the tensors of each part are one node, and all others nodes of their own."""
    node_of = {member: part for part in parts for member in part.members}
    for tensor in graph.nodes:
        if tensor not in node_of and (not is_folded(tensor) or tensor in graph.outputs or tensor in graph.varying):
            node_of[tensor] = Node(tensor, (tensor,), tensor in graph.varying)
    links: dict[tuple[Node, Node, int], list[Read]] = {}
    delays: dict[tuple[Node, Node, int], list[State]] = {}
    starts = []
    for tensor in graph.nodes:
        head = node_of.get(tensor)
        if head is None:
            continue
        if isinstance(tensor, State):
            following = tensor.next
            if head.state is tensor:
                delays.setdefault((node_of[following], head, direction(tensor)), []).append(tensor)
            elif isinstance(following, State):  # both inside one part: what the first delays arrives there
                held = delays.setdefault((node_of[following.next], head, direction(following)), [])
                if following not in Nodes(held):
                    held.append(following)
            if node_of.get(tensor.initial, head) is not head:
                starts.append(Start(node_of[tensor.initial], head, direction(tensor), tensor))
            continue
        for index, operand in enumerate(tensor.operands):
            tail = node_of.get(operand)
            if isinstance(operand, State) and tail is not None and tail.state is None:
                held = delays.setdefault((node_of[operand.next], head, direction(operand)), [])
                if operand not in Nodes(held):  # a state inside a part: its delay runs to whoever reads it
                    held.append(operand)
            elif tail is not None and tail is not head:
                number = 0 if head.part or tail.part else index
                links.setdefault((tail, head, number), []).append((tensor, index))
    nodes = tuple(dict.fromkeys(node_of[tensor] for tensor in graph.nodes if tensor in node_of))
    return Diagram(
        graph,
        in_order(nodes, links) if parts else nodes,
        tuple(Link(tail, head, tuple(reads)) for (tail, head, _), reads in links.items()),
        tuple(Delay(tail, head, ahead, tuple(states)) for (tail, head, ahead), states in delays.items()),
        tuple(starts),
    )


def in_order(nodes: Sequence[Node], links: Iterable[tuple[Node, Node, int]]) -> tuple[Node, ...]:
    """The nodes in an order in which a timestep can be computed."""
    number = {node: i for i, node in enumerate(nodes)}
    quotient: nx.DiGraph[Node] = nx.DiGraph()
    quotient.add_nodes_from(nodes)
    quotient.add_edges_from((tail, head) for tail, head, _ in links)
    return tuple(nx.lexicographical_topological_sort(quotient, key=number.__getitem__))


def behind_time(graph: Graph) -> set[Tensor]:
    """The static nodes behind a reduction over time."""
    late: set[Tensor] = set()
    for node in graph.nodes:
        if node not in graph.varying and (is_time_reduction(node) or any(x in late for x in node.operands)):
            late.add(node)
    return late
