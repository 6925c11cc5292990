"""Where the nodes of one timestep stand: Graphviz's `dot`, asked until states and their next stand right."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import graphviz
import networkx as nx

from viz import theme
from viz.diagram import Delay, Link, Node, direction
from viz.plan import Plan
from viz.render import layout
from viz.scene import Point, Route

Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions by node name, and routes by edge name."""

    at: dict[str, Point]
    routes: dict[str, Route]


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge to lay out; one that is `backwards` runs downwards."""

    id: str
    tail: str
    head: str
    backwards: bool = False


def lay_out(
    sizes: Mapping[str, Size],
    edges: Sequence[Edge],
    *,
    rows: Iterable[Sequence[str]] = (),
    above: Iterable[tuple[str, str]] = (),
    lowest: Sequence[str] = (),
    highest: Sequence[str] = (),
    ellipses: Collection[str] = (),
    ported: Collection[str] = (),
) -> Layout:
    """Lay out with `dot`, computation flowing upwards.

    `rows` are nodes that stand side by side in this order; `above` are pairs of which the second
    stands higher; `lowest` and `highest` stand on the borders. Edges end at the outline of `ellipses`,
    at the middle of the top and bottom of the `ported`, and at the box of all others.
    """
    graph = graphviz.Digraph(
        graph_attr={
            "rankdir": "BT",
            "ranksep": f"{theme.RANK_GAP / 72:.3f}",
            "nodesep": f"{theme.NODE_GAP / 72:.3f}",
        },
        node_attr={"label": "", "fixedsize": "true"},
        edge_attr={"arrowsize": "0.7"},
    )
    for name, (width, height) in sizes.items():
        shape = "ellipse" if name in ellipses else "box"
        graph.node(name, width=f"{width / 72:.4f}", height=f"{height / 72:.4f}", shape=shape)
    for edge in edges:
        lower, higher = (edge.head, edge.tail) if edge.backwards else (edge.tail, edge.head)
        settings = {"id": edge.id} | ({"dir": "back"} if edge.backwards else {})
        settings |= ({"tailport": "n"} if lower in ported else {}) | ({"headport": "s"} if higher in ported else {})
        graph.edge(lower, higher, **settings)
    for lower, higher in above:
        graph.edge(lower, higher, style="invis", weight="0")
    for row in rows:
        with graph.subgraph() as same:
            same.attr(rank="same")
            for name in row:
                same.node(name)
        for left, right in itertools.pairwise(row):
            graph.edge(left, right, style="invis", weight="1")  # dot orders a row only by edges of weight
    for names, rank in ((lowest, "source"), (highest, "sink")):
        if names:
            with graph.subgraph() as border:
                border.attr(rank=rank)
                for name in names:
                    border.node(name)
    found = layout(str(graph.source))
    at = {item["name"]: point(item["pos"]) for item in found.get("objects", []) if "pos" in item}
    backwards = {edge.id for edge in edges if edge.backwards}
    routes = {
        item["id"]: route(item["pos"], item["id"] in backwards)
        for item in found.get("edges", [])
        if "id" in item and "pos" in item
    }
    return Layout(at, routes)


def point(text: str) -> Point:
    x, y = text.split(",")
    return float(x), float(y)


def route(text: str, backwards: bool) -> Route:
    """Graphviz's spline with its arrowhead's tip as the last point, in the direction of the data."""
    points: list[Point] = []
    tip: Point | None = None
    for part in text.replace("\\\n", "").split():
        if part.startswith(("e,", "s,")):
            tip = point(part[2:])
        else:
            points.append(point(part))
    if backwards:
        points.reverse()
    if tip is not None:
        points[-1] = tip
    return tuple(points)


@dataclass(frozen=True, slots=True)
class StepLayout:
    """One timestep: where its nodes stand and its edges run, and where shared nodes connect.

    What comes from outside the timestep enters at its port: an operand, or by a delay a next that is the same in
    every timestep. `out` are the ways on which values leave towards a reduction over time.
    """

    at: dict[Node, Point]
    routes: dict[Link | Delay, Route]
    ports: dict[Node, Point]
    out: dict[Node, Route]
    left: float
    right: float
    bottom: float
    top: float

    @property
    def crossings(self) -> list[float]:
        """Where lines cross the upper border."""
        entering = [x for x, y in self.ports.values() if y > self.bottom + 1]
        return entering + [route[-1][0] for route in self.out.values()]

    def clear_x(self, left: float, right: float, width: float) -> float:
        """The leftmost centre between `left` and `right` for a text that lines across the border leave free."""
        spots = [left + width / 2 + (right - left - width) * share / 20 for share in range(21)]
        return max(spots, key=lambda x: min([abs(x - line) for line in self.crossings] + [width / 2 + 6]))


LOOP_ROOM = 44.0
"""Beside a box that reads itself, for the edge that comes back; in points."""


def lay_out_step(
    plan: Plan, sizes: Mapping[Node, Size], round: Collection[Node], reduced: Sequence[Node], label_width: float
) -> StepLayout:
    """Lay out one timestep; `round` are nodes drawn as ellipses, `reduced` those whose values leave it upwards."""
    names = {node: f"v{i}" for i, node in enumerate(plan.varying)}
    nodes = {name: node for node, name in names.items()}
    delays = plan.diagram.delays
    ports = {node: f"p{i}" for i, node in enumerate([*plan.below, *plan.above, *plan.after])}
    below = set(plan.below)
    level = {delay.head: delay.tail for delay in delays if delay.tail in names and can_be_level(delay, plan)}
    used: dict[Node, None] = {}
    edges: list[Edge] = []
    drawn: dict[str, Link | Delay] = {}
    order: nx.DiGraph[str] = nx.DiGraph()  # lower → higher; a state counts as its next, beside which it stands
    order.add_nodes_from(names.values())

    def add(what: Link | Delay, tail: str, head: str, backwards: bool = False) -> None:
        drawn[id := f"e{len(drawn)}"] = what
        edges.append(Edge(id, tail, head, backwards))

    inside = [link for node in plan.varying for link in plan.links_into[node]]
    from_states = [link for link in inside if link.tail.state is not None]
    for link in inside:
        if link.tail.state is not None:
            continue
        if link.tail in names:
            order.add_edge(names[link.tail], names[link.head])
            add(link, names[link.tail], names[link.head])
        elif link.tail in ports:
            used[link.tail] = None
            add(link, ports[link.tail], names[link.head], backwards=link.tail not in below)
    for delay in delays:
        if delay.tail in ports:  # a static next
            used[delay.tail] = None
            add(delay, ports[delay.tail], names[delay.head], backwards=delay.tail not in below)
    for link in from_states:
        state, reader = link.tail, link.head
        beside = names[level.get(state, state)]
        in_row = names[reader] == beside  # read by its own next: an edge along the row, for dot from left to right
        downwards = direction_of(state) < 0 if in_row else nx.has_path(order, names[reader], beside)
        order.add_edge(*((names[reader], beside) if downwards else (beside, names[reader])))
        add(link, names[state], names[reader], backwards=downwards)
    out = {node: f"o{i}" for i, node in enumerate(reduced)}
    edges += [Edge(name, names[node], name) for node, name in out.items()]
    low = [ports[node] for node in used if node in below]
    high = [*(ports[node] for node in used if node not in below), *out.values()]
    loops = {delay.head for delay in delays if delay.is_loop}
    boxes = {
        names[node]: (sizes[node][0] + 2 * LOOP_ROOM * (node in loops), sizes[node][1]) for node in plan.varying
    } | dict.fromkeys([*low, *high], (1.0, 1.0))
    rows = {following: [names[following]] for following in level.values()}
    for state, following in level.items():
        rows[following].insert(len(rows[following]) if direction_of(state) < 0 else 0, names[state])
    ellipses = {names[node] for node in round if node in names}
    ported = {names[node] for node in loops}  # with room beside them that is not theirs
    place = functools.partial(lay_out, edges=edges, lowest=low, highest=high, ellipses=ellipses, ported=ported)
    alone = [[names[node]] for node in plan.varying if node in loops]
    above = stacked(plan, names, level, order)
    found = lay_out_rows(place, boxes, list(rows.values()), alone, above, [*low, *high])

    bends = [point for route in found.routes.values() for point in route]
    sides = [(found.at[name], boxes[name], side) for name in nodes for side in (-0.5, 0.5)]
    xs = [x + side * width for (x, _), (width, _), side in sides] + [x for x, _ in bends]
    ys = [y + side * height for (_, y), (_, height), side in sides] + [y for _, y in bends]
    borders = [found.at[name][1] for name in [*low, *high]]
    spare = max(0.0, label_width - (max(xs) - min(xs))) / 2
    step = StepLayout(
        at={nodes[name]: point for name, point in found.at.items() if name in nodes},
        routes={drawn[id]: route for id, route in found.routes.items() if id in drawn},
        ports={node: found.at[name] for node, name in ports.items() if name in found.at},
        out={node: found.routes[name] for node, name in out.items()},
        left=min(xs) - 8 - spare,
        right=max(xs) + 8 + spare,
        bottom=min([*borders, *ys]) if low else min(ys) - 12,
        top=max([*borders, max(ys) + 24]),
    )
    return with_room_for_label(step, label_width)


def direction_of(node: Node) -> int:
    assert node.state is not None
    return direction(node.state)


def stacked(
    plan: Plan, names: Mapping[Node, str], level: Mapping[Node, Node], order: nx.DiGraph[str]
) -> list[tuple[str, str]]:
    """The states that cannot stand beside their next: each on a row of its own, above another node."""
    first: dict[Node, Node] = {}
    found = []
    for delay in plan.diagram.delays:
        if delay.head.state is None or delay.tail not in names:
            continue
        beside = first.setdefault(delay.tail, delay.head)
        if delay.head not in level:
            lower, higher = names[delay.tail if delay.tail.state is not None else beside], names[delay.head]
            if lower != higher and not nx.has_path(order, higher, lower):
                order.add_edge(lower, higher)
                found.append((lower, higher))
    return found


def with_room_for_label(step: StepLayout, label_width: float) -> StepLayout:
    """The timestep, wider to the left where lines that cross its upper border leave no room for its label."""
    label_x = step.clear_x(step.left + 8, step.right - 8, label_width)
    if any(abs(label_x - x) < label_width / 2 + 4 for x in step.crossings):
        return replace(step, left=min(step.left, min(step.crossings) - label_width - 16))
    return step


def can_be_level(delay: Delay, plan: Plan) -> bool:
    """Whether a state may stand beside its next: not where its side is taken, or where the next is a state."""
    if delay.head.state is None or delay.tail.state is not None:
        return False
    from_there = [d for d in plan.diagram.delays if d.tail is delay.tail and d.ahead == delay.ahead]
    return next(d for d in from_there if d.head.state is not None) is delay


def lay_out_rows(
    place: Callable[..., Layout],
    sizes: Mapping[str, Size],
    rows: Sequence[Sequence[str]],
    alone: Sequence[Sequence[str]],
    stacked: Sequence[tuple[str, str]],
    border: Collection[str],
) -> Layout:
    """Lay out so that the nodes of each row, a next and its states, stand in this order with its ends to themselves.

    Boxes that read themselves stand at different heights, too, each `alone`.
    """
    above = list(stacked)
    for _ in range(len(rows) + len(alone) + 1):
        found = place(sizes, rows=rows, above=above)
        clash = next(
            (
                (first[-1], second[-1])
                for first, second in itertools.combinations([*rows, *alone], 2)
                if abs(found.at[first[-1]][1] - found.at[second[-1]][1]) < 1
            ),
            None,
        )
        if clash is None:
            break
        above.append(clash)

    def misplaced(layout: Layout) -> int:
        return sum(out_of_place(row, layout, border) for row in rows)

    for _ in rows:  # a node may come onto a row only when others are kept on it
        whole = [[row[0], *beside(row, found, border), row[-1]] for row in rows]
        found = place(sizes, rows=whole, above=above)
        if misplaced(found):  # dot does not always keep the order of a row: turn the picture round, or try another
            again = place(dict(reversed(list(sizes.items()))), rows=whole, above=above)
            found = min([found, mirrored(found), again, mirrored(again)], key=misplaced)
        if not misplaced(found):
            break
    return found


def beside(row: Sequence[str], layout: Layout, border: Collection[str]) -> list[str]:
    """The nodes at the height of a row, its ends left out, from left to right."""
    height = layout.at[row[-1]][1]
    apart = {row[0], row[-1], *border}
    level = [name for name, (_, y) in layout.at.items() if abs(y - height) < 1 and name not in apart]
    return sorted(level, key=lambda name: layout.at[name][0])


def out_of_place(row: Sequence[str], layout: Layout, border: Collection[str]) -> int:
    """How many nodes of a row are not in its order, or stand beyond its ends."""
    xs = [layout.at[name][0] for name in row]
    turned = sum(left > right for left, right in itertools.pairwise(xs))
    return turned + sum(not min(xs) <= layout.at[name][0] <= max(xs) for name in beside(row, layout, border))


def mirrored(layout: Layout) -> Layout:
    """The layout with left and right exchanged."""
    return Layout(
        {name: (-x, y) for name, (x, y) in layout.at.items()},
        {id: tuple((-x, y) for x, y in route) for id, route in layout.routes.items()},
    )
