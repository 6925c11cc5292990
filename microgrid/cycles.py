"""find_cycles: which nodes of a graph really recur."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import networkx as nx

from microgrid.errors import CausalityError
from microgrid.graph import Graph, Nodes
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor, describe


@dataclass(frozen=True, slots=True, eq=False)
class Cycle:
    """A recurrence: a strongly connected component that contains a delay.

    Attributes
    ----------
    states : tuple of State
        The states in it, whose delay edges close it.
    nodes : tuple of Tensor
        All nodes in it, operands before the operations that read them.
    path : tuple of Tensor
        A shortest way from the first state back to itself.
    """

    states: tuple[State, ...]
    nodes: tuple[Tensor, ...]
    path: tuple[Tensor, ...]

    @property
    def reverse(self) -> bool:
        """Whether it runs backwards in time."""
        return self.states[0].reverse

    def __str__(self) -> str:
        return words(self.path)

    def __repr__(self) -> str:
        return f"Cycle({self})"


def word(node: Tensor) -> str:
    """The node in a path: the user's name for it, or its operation."""
    if node.name is not None:
        return node.name
    if isinstance(node, State) or node.primitive is None:
        return "state"
    return node.primitive.name


def words(path: Iterable[Tensor]) -> str:
    """A path as errors and pictures write it."""
    return " → ".join(map(word, path))


def strong_components(graph: Graph) -> list[list[Tensor]]:
    """The strongly connected components in an order in which they can be computed.

    A delay counts as an edge from `next` to the state. Within a component, operands come first.
    Source: R. Tarjan, Depth-first search and linear graph algorithms, SIAM J. Comput. 1 (1972).
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    complete = len(position)
    lowest: dict[Tensor, int] = {}  # node → the first on the path of the search that is known to need it
    path: list[Tensor] = []
    components: list[list[Tensor]] = []
    for root in graph.nodes:
        trail = [] if root in lowest else [enter(root, lowest, path)]
        while trail:
            node, number, needed = trail[-1]
            for other in needed:
                if other not in lowest:
                    trail.append(enter(other, lowest, path))
                    break
                if lowest[other] < lowest[node]:
                    lowest[node] = lowest[other]
            else:
                trail.pop()
                if lowest[node] == number:
                    start = next(i for i in reversed(range(len(path))) if path[i] is node)
                    component, path[start:] = path[start:], []
                    lowest.update(dict.fromkeys(component, complete))
                    components.append(sorted(component, key=position.__getitem__))
                elif lowest[node] < lowest[trail[-1][0]]:
                    lowest[trail[-1][0]] = lowest[node]
    return components


def enter(node: Tensor, lowest: dict[Tensor, int], path: list[Tensor]) -> tuple[Tensor, int, Iterator[Tensor]]:
    """A node that the search reaches: (itself, its number, what it needs)."""
    number = lowest[node] = len(lowest)
    path.append(node)
    return node, number, iter((*node.operands, node.next) if isinstance(node, State) else node.operands)


def cyclic_components(graph: Graph) -> list[list[Tensor]]:
    """The strongly connected components that contain a delay."""
    return [nodes for nodes in graph.components if is_cyclic(nodes)] if graph.states else []


def find_cycles(graph: Graph) -> list[Cycle]:
    """The cycles of a graph, in the order in which they can be computed.

    A state whose `next` does not depend on it is a pure delay, and no cycle.

    >>> x, h, past = mg.input(1.0, name="x"), mg.state(0.0, name="h"), mg.state(0.0, name="past")
    >>> h.next = mg.tanh(x + h)
    >>> past.next = x
    >>> mg.find_cycles(mg.Graph(h.next * past))
    [Cycle(h → add → tanh → h)]
    """
    return [
        Cycle(
            states=Nodes(node for node in component if isinstance(node, State)),
            nodes=Nodes(component),
            path=shortest_loop(component),
        )
        for component in graph.components
        if is_cyclic(component)
    ]


def is_cyclic(component: list[Tensor]) -> bool:
    """Whether a strongly connected component contains a delay: has several nodes, or feeds itself."""
    node = component[0]
    return len(component) > 1 or (isinstance(node, State) and node.next is node)


def shortest_loop(component: list[Tensor]) -> tuple[Tensor, ...]:
    """A shortest path from the component's first state back to itself."""
    start = next(i for i, node in enumerate(component) if isinstance(node, State))
    readers = readers_within(component)
    if readers.has_edge(start, start):
        loop = [start]
    else:
        loop = min((nx.shortest_path(readers, reader, start) for reader in readers.successors(start)), key=len)
    return Nodes(component[i] for i in [start, *loop])


def readers_within(component: list[Tensor]) -> nx.DiGraph[int]:
    """The edges inside a component, by the positions of its nodes."""
    position = {node: i for i, node in enumerate(component)}
    readers: nx.DiGraph[int] = nx.DiGraph()
    for node, i in position.items():
        readers.add_edges_from((position[operand], i) for operand in node.operands if operand in position)
        if isinstance(node, State):
            readers.add_edge(position[node.next], i)
    return readers


def check_causal(component: list[Tensor]) -> None:
    """Refuse a cycle that no order of the timesteps can compute.

    Raises
    ------
    CausalityError
        If a reduction over time stands in it, or both a forward and a reverse state.
    """
    for node in component:
        if is_time_reduction(node):
            raise CausalityError(
                f"{describe(node)} stands inside the cycle {words(shortest_loop(component))}: its value needs every "
                "timestep, and every timestep needs its value. Reduce over time outside the cycle."
            )
    states = {i: node for i, node in enumerate(component) if isinstance(node, State)}
    forwards = next((i for i, state in states.items() if not state.reverse), None)
    backwards = next((i for i, state in states.items() if state.reverse), None)
    if forwards is not None and backwards is not None:
        readers = readers_within(component)
        there = nx.shortest_path(readers, forwards, backwards)
        back = nx.shortest_path(readers, backwards, forwards)
        path = words(component[i] for i in [*there, *back[1:]])
        raise CausalityError(
            f"{describe(component[forwards])} runs forwards in time and {describe(component[backwards])} backwards, "
            f"but each needs the other: {path}. Let one of them only read the other, or give both the same direction."
        )
