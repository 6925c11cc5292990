"""Where the nodes of a diagram are drawn: in every timestep, below, above, or beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microgrid.graph import Graph
from microgrid.tensor import Tensor
from viz.diagram import Diagram, Link, Node
from viz.labels import is_folded


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

    diagram: Diagram
    varying: tuple[Node, ...]
    below: tuple[Node, ...]
    above: tuple[Node, ...]
    after: tuple[Node, ...]
    starts: tuple[Node, ...]
    links_into: dict[Node, list[Link]]

    @property
    def graph(self) -> Graph:
        return self.diagram.graph


def plan(diagram: Diagram) -> Plan:
    """Sort the nodes of a recurrent network into the parts of its picture."""
    readers: dict[Node, list[Node]] = {node: [] for node in diagram.nodes}
    links_into: dict[Node, list[Link]] = {node: [] for node in diagram.nodes}
    for link in diagram.links:
        readers[link.tail].append(link.head)
        links_into[link.head].append(link)
    initial = {start.tail for start in diagram.starts}
    both_ways = set.intersection(*({s.tail for s in diagram.starts if s.ahead == ahead} for ahead in (1, -1)))
    initial_only = {node for node in initial - both_ways if not links_into[node] and not readers[node]}
    delayed = {delay.tail for delay in diagram.delays}

    late: set[Node] = set()
    for node in diagram.nodes:
        if not node.varies and (node.reduces_time or any(link.tail in late for link in links_into[node])):
            late.add(node)
    feeds: set[Node] = set()  # static nodes that timesteps read, directly or through static operations
    for node in reversed(diagram.nodes):
        if not node.varies and node not in late and node not in initial_only:
            direct = any(reader.varies for reader in readers[node]) or node in delayed or node in initial
            if direct or any(reader in feeds for reader in readers[node]):
                feeds.add(node)
    height = heights(diagram, links_into)
    top = max(height.values(), default=0)

    def is_high(node: Node) -> bool:
        levels = [height[reader] for reader in readers[node] if reader.varies]
        return not links_into[node] and bool(levels) and 2 * sum(levels) > top * len(levels)

    def drawn(condition: Callable[[Node], bool]) -> tuple[Node, ...]:
        return tuple(node for node in diagram.nodes if not is_folded(node.tensor) and condition(node))

    mixed = {node for node in feeds if any(reader in feeds for reader in readers[node])}
    static = [node for node in diagram.nodes if not node.varies]
    rest = {node for node in static if node not in feeds and node not in initial_only}
    return Plan(
        diagram,
        varying=tuple(node for node in diagram.nodes if node.varies),
        below=drawn(lambda node: node in feeds and (node in mixed or not is_high(node))),
        above=drawn(lambda node: node in feeds and node not in mixed and is_high(node)),
        after=drawn(lambda node: node in rest),
        starts=drawn(lambda node: node in initial_only and is_worth_showing(node)),
        links_into=links_into,
    )


def is_worth_showing(start: Node) -> bool:
    """Whether an initial value is more than the numbers that a state was made with."""
    return start.part is not None or start.tensor.name is not None or type(start.tensor) is not Tensor


def heights(diagram: Diagram, links_into: dict[Node, list[Link]]) -> dict[Node, int]:
    """How many nodes of the same timestep lie below each varying node."""
    height: dict[Node, int] = {}
    for node in diagram.nodes:
        if node.varies:
            height[node] = 1 + max((height[link.tail] for link in links_into[node] if link.tail in height), default=-1)
    return height
