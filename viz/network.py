"""The picture of a recurrent network, its delays left out: timesteps, and rows of shared nodes around them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microgrid.tensor import Tensor
from viz import theme
from viz.diagram import Delay, Link, Node, Read, Start
from viz.fold import Fold
from viz.labels import Content, Line, text_width
from viz.layout import Edge, StepLayout, lay_out, lay_out_step
from viz.plan import Plan
from viz.rails import RAIL_GAP, RAIL_ROOM, Rail, nearest_first, room_for
from viz.scene import (
    Box,
    Frame,
    Point,
    Route,
    Scene,
    chained,
    level,
    moved,
    rounded,
    straight,
    upright,
    upright_into,
)

GAP = "gap"
"""The id of the box that stands for the timesteps left out."""


def largest(contents: Sequence[Content]) -> tuple[float, float]:
    """The size that fits all copies of a node, so that it is the same in every timestep."""
    sizes = [c.size for c in contents]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


@dataclass(frozen=True, slots=True)
class Step:
    """The size of every node, and where those of a timestep stand."""

    sizes: dict[Node, tuple[float, float]]
    layout: StepLayout


def step_of(the_plan: Plan, contents: Mapping[Node, Sequence[Content]], label: str) -> Step:
    """One timestep, with room for all contents and the label."""
    reduced = {link.tail: None for node in the_plan.after for link in the_plan.links_into[node] if link.tail.varies}
    sizes = {node: largest(each) for node, each in contents.items()}
    ellipses = [node for node, each in contents.items() if theme.LIGHT.nodes[each[0].kind].shape == "ellipse"]
    return Step(sizes, lay_out_step(the_plan, sizes, ellipses, list(reduced), text_width(label, theme.LABEL_SIZE)))


def side_by_side(widths: Sequence[float], middle: float, gap: float, avoid: Sequence[float]) -> list[float]:
    """The centres of boxes around `middle`, none of them across a vertical line at `avoid`."""
    x = middle - (sum(widths) + gap * len(widths)) / 2
    centres = []
    for width in widths:
        x += (gap + width) / 2
        while any(abs(x - line) < width / 2 + 8 for line in avoid):
            x += 4
        centres.append(x)
        x += (gap + width) / 2
    return centres


def extent(columns: Sequence[tuple[Node, float, tuple[float, float]]]) -> tuple[float, float]:
    """The left and the right end of nodes side by side."""
    return min(x - width / 2 for _, x, (width, _) in columns), max(x + width / 2 for _, x, (width, _) in columns)


def timesteps_read(link: Link, steps: int) -> list[int]:
    """Which timesteps an edge from a timestep to what stands behind a reduction over time reads."""
    every = list(range(steps))
    found: set[int] = set()
    for reader, _ in link.reads:
        over_time = reader.primitive.over_time if reader.primitive is not None else None
        found.update(every if over_time is None else over_time(every))
    return sorted(found)


class Network(abc.ABC):
    """What the rolled and the unrolled picture share: rows of shared nodes above and below the timesteps.

    `contents` are what to write on each node, once per shown timestep or once for all; `fold` says which timesteps
    are shown. With `repeats_weights` every timestep has copies of the leaves in the rows above and below, tied to one
    another. A `shared_step` is laid out already, for another picture too. The pictures differ in how they draw delays.
    """

    def __init__(
        self,
        the_plan: Plan,
        contents: Mapping[Node, Sequence[Content]],
        fold: Fold,
        *,
        repeats_weights: bool = False,
        shared_step: Step | None = None,
    ) -> None:
        self.plan = the_plan
        self.repeats_weights = repeats_weights
        self.diagram = the_plan.diagram
        self.contents = contents
        self.fold = fold
        one = shared_step or step_of(the_plan, contents, fold.label(fold.shown[-1]))
        self.sizes, self.step = one.sizes, one.layout
        step = self.step
        self.pitch = step.right - step.left + theme.STEP_GAP
        self.gap_width = max(theme.STEP_GAP, 0.5 * (step.right - step.left), 110.0)
        self.scene = Scene()
        self.number = self.diagram.numbers
        self.head_room = 0.0
        self.ways_down: dict[str, Route] = {}
        self.ways_up: dict[str, Route] = {}
        self.tie_room: dict[int, float] = {}
        self.rails: dict[str, float] = {}
        if repeats_weights:
            for nodes, side in ((the_plan.below, -1), (the_plan.above, 1)):
                if self.can_repeat(nodes):
                    left, right = extent(self.columns(nodes, side))
                    self.pitch = max(self.pitch, right - left + theme.NODE_GAP)
        self.width = (len(fold.shown) - 1) * self.pitch + step.right - step.left
        if fold.hidden:
            self.width += self.gap_width + theme.STEP_GAP
        self.fan = theme.ROW_GAP + min(60.0, 0.02 * self.width)

    # --- what the two pictures do differently ---

    @abc.abstractmethod
    def connect_delays(self) -> None:
        """Draw the delays from varying nodes."""

    @abc.abstractmethod
    def connect_static_next(self, delay: Delay, way: Route, t: int) -> None:
        """Draw the delay from a node that is the same in every timestep, along `way`."""

    def shows(self, node: Node, t: int | None) -> Tensor:
        """The tensor that the copy of a node at a timestep shows."""
        return node.tensor

    def carries(self, reads: Sequence[Read], t: int | None, read_at: int | None) -> list[tuple[Tensor, int]]:
        """The reads at timestep `t` of what was computed at `read_at`, as the shown tensors hold them."""
        return list(reads)

    def starts_at(self, start: Start) -> bool:
        """Whether the picture's first timestep starts from the state's own initial value."""
        return True

    # --- what they share ---

    def write(self, node: Node, t: int = 0) -> Content:
        return self.contents[node][self.fold.column[t] if node.varies else 0]

    def id(self, node: Node, t: int = 0) -> str:
        return f"n{self.number[node]}t{t}" if node.varies else f"n{self.number[node]}"

    def box_of(self, node: Node, t: int = 0) -> Box:
        id = self.id(node, t)
        return self.scene.boxes[id if id in self.scene.boxes else f"{id}t{t}"]  # a shared node, or its copy there

    def place(self, node: Node, t: int | None, at: Point, size: tuple[float, float] | None = None) -> Box:
        """Put a copy of a node on the picture."""
        what = self.write(node, t or 0)
        width, height = size or what.size
        id = self.id(node, t or 0)
        return self.scene.add(Box(id, what, at[0], at[1], width, height, self.shows(node, t), t))

    def draw(self) -> Scene:
        for t in self.fold.shown:
            self.stamp(t)
        if self.fold.hidden:
            self.place_gap()
        self.connect_delays()
        self.place_below()
        self.place_above()
        self.place_after()
        self.place_starts()
        self.connect_shared()
        return self.scene

    def first_step(self, ahead: int) -> int:
        """The timestep at which a state has its initial value."""
        return 0 if ahead > 0 else self.fold.steps - 1

    def offset(self, t: int) -> float:
        after_gap = self.gap_width + theme.STEP_GAP if self.fold.is_behind(t) else 0.0
        return self.fold.column[t] * self.pitch + after_gap - self.step.left

    def stamp(self, t: int) -> None:
        step, dx = self.step, self.offset(t)
        label = self.fold.label(t)
        label_x = step.clear_x(step.left + 8, step.right - 8, text_width(label, theme.LABEL_SIZE)) + dx
        frame = Frame(f"t{t}", label, label_x, step.left + dx, step.bottom, step.right + dx, step.top)
        self.scene.frames[frame.id] = frame
        for node in self.plan.varying:
            x, y = step.at[node]
            self.place(node, t, (x + dx, y), self.sizes[node])
        for link, route in step.routes.items():
            if isinstance(link, Link) and link.tail.varies:
                kind = "state" if link.tail.state is not None else "operand"
                carries = self.carries(link.reads, t, t)
                self.scene.wire(self.id(link.tail, t), self.id(link.head, t), kind, moved(route, dx, 0), carries)

    def place_gap(self) -> None:
        """The box that stands for the timesteps left out."""
        step = self.step
        x = self.offset(self.fold.hidden[0] - 1) + step.right + theme.STEP_GAP + self.gap_width / 2
        first, last = self.fold.hidden[0], self.fold.hidden[-1]
        lines = (
            Line("⋯", 2 * theme.MAIN_SIZE),
            Line(f"{len(self.fold.hidden):,} more", theme.MAIN_SIZE),
            Line("timesteps" if first != last else "timestep", theme.MAIN_SIZE),
            Line(f"t = {first:,} … {last:,}" if first != last else f"t = {first:,}", theme.SMALL_SIZE),
        )
        what = Content(lines, "gap", f"timesteps {first} to {last} are not drawn")
        middle, height = (step.top + step.bottom) / 2, step.top - step.bottom
        self.scene.add(Box(GAP, what, x, middle, self.gap_width, height))

    def row(self, nodes: Sequence[Node], y: float, avoid: Sequence[float] = ()) -> None:
        """Shared nodes side by side around the middle, none across a vertical line at `avoid`."""

        def port_x(node: Node) -> float:
            return self.step.ports[node][0] if node in self.step.ports else 0.0

        ordered = sorted(nodes, key=port_x) if not any(self.plan.links_into[node] for node in nodes) else nodes
        sizes = [self.write(node).size for node in ordered]
        xs = side_by_side([width for width, _ in sizes], self.middle, 2 * theme.NODE_GAP, avoid)
        for node, x, size in zip(ordered, xs, sizes, strict=True):
            self.place(node, None, (x, y), size)

    @property
    def middle(self) -> float:
        return self.width / 2

    def place_below(self) -> None:
        """Shared nodes in one row, so that none stands between another and the timesteps."""
        nodes = self.plan.below
        if self.repeats_weights and self.can_repeat(nodes):
            self.repeat(nodes, -1)
            return
        highest = max((self.write(node).size[1] for node in nodes), default=0)
        self.row(nodes, self.step.bottom - max(self.fan, room_for(len(nodes))) - highest / 2)
        self.lay_rails(nodes, self.step.bottom, -1)
        for node in nodes:
            for link in self.plan.links_into[node]:
                if self.id(link.tail) in self.scene.boxes:
                    tail, head = self.box_of(link.tail), self.box_of(node)
                    low = min(tail.bottom[1], head.bottom[1]) - 16
                    route = (tail.bottom, (tail.x, low), (head.x, low), head.bottom)
                    self.scene.wire(tail.id, head.id, "operand", route, self.carries(link.reads, None, None))

    def place_above(self) -> None:
        if self.repeats_weights and self.can_repeat(self.plan.above):
            self.repeat(self.plan.above, 1)
        elif self.plan.above:
            highest = max(self.write(node).size[1] for node in self.plan.above)
            border = self.step.top + self.head_room
            y = border + max(self.fan, room_for(len(self.plan.above))) + highest / 2
            self.row(self.plan.above, y, [x + self.offset(t) for x in self.crossing() for t in self.fold.shown])
            self.lay_rails(self.plan.above, border, 1)

    def lay_rails(self, nodes: Sequence[Node], border: float, side: int) -> None:
        """A level line for each node of a row that more than one timestep reads."""
        if len(self.fold.shown) < 2:
            return
        read = [node for node in nodes if node in self.step.ports]
        rails = [
            Rail(self.box_of(node).x, tuple(self.step.ports[node][0] + self.offset(t) for t in self.fold.shown))
            for node in read
        ]
        for number, which in enumerate(nearest_first(rails)):
            self.rails[self.id(read[which])] = border + side * (RAIL_ROOM + number * RAIL_GAP)

    def crossing(self) -> list[float]:
        """Where lines between a timestep and what stands on top cross the row above the timestep."""
        leaving = [route[-1][0] for route in self.step.out.values()]
        return leaving + [self.step.ports[node][0] for node in self.plan.after if node in self.step.ports]

    def can_repeat(self, nodes: Sequence[Node]) -> bool:
        """Whether timesteps may have copies of these: leaves that nothing else reads."""
        read = {link.tail for link in self.diagram.links if not link.head.varies}
        read.update(*((delay.tail, delay.head) for delay in self.diagram.delays if not delay.tail.varies))
        read.update(start.tail for start in self.diagram.starts)
        return bool(nodes) and all(not self.plan.links_into[node] and node not in read for node in nodes)

    def columns(self, nodes: Sequence[Node], side: int) -> list[tuple[Node, float, tuple[float, float]]]:
        """The copies of shared nodes below (−1) or above (1) a timestep: where each stands, and its size."""
        ordered = sorted(nodes, key=lambda node: self.step.ports[node][0])
        sizes = [self.write(node).size for node in ordered]
        middle, avoid = (self.step.left + self.step.right) / 2, self.crossing() if side > 0 else []
        xs = side_by_side([width for width, _ in sizes], middle, theme.NODE_GAP, avoid)
        return list(zip(ordered, xs, sizes, strict=True))

    def repeat(self, nodes: Sequence[Node], side: int) -> None:
        """Copies of shared nodes below (−1) or above (1) every timestep, and the ties between them."""
        columns = self.columns(nodes, side)
        highest = max(height for _, _, (_, height) in columns)
        border = self.step.top + self.head_room if side > 0 else self.step.bottom
        y = border + side * (theme.ROW_GAP + highest / 2)
        before: dict[Node, Box] = {}
        for t in self.fold.shown:
            for number, (node, x, (width, height)) in enumerate(columns):
                what, at = self.write(node), x + self.offset(t)
                box = Box(f"{self.id(node)}t{t}", what, at, y, width, height, self.shows(node, t), t)
                self.scene.add(box)
                if node in before:
                    self.tie(before[node], box, y + side * (highest / 2 + 10 + 7 * number), side)
                before[node] = box
        self.tie_room[side] = highest + theme.ROW_GAP + 10 + 7 * len(nodes)

    def tie(self, tail: Box, head: Box, y: float, side: int) -> None:
        """A line without direction between two copies, around others of their row."""
        start, end = (tail.top, head.top) if side > 0 else (tail.bottom, head.bottom)
        route = rounded([start, (start[0], y), (end[0], y), end], 6)
        self.scene.wire(tail.id, head.id, "tie", route)

    def place_after(self) -> None:
        """The static nodes behind reductions over time, laid out as a graph of their own above all others."""
        if not self.plan.after:
            return
        base = self.top_of_rows()
        boxes = {self.id(node): node for node in self.plan.after}
        edges, carries = self.edges_after()
        lowest = self.lowest_after()
        doors, stairs = self.doors(lowest), self.stairs(lowest)
        ends = [*(door.head for door in doors), *(stair.tail for stair in stairs)]
        sizes = {id: self.write(node).size for id, node in boxes.items()} | dict.fromkeys(ends, (1.0, 1.0))
        found = lay_out(sizes, [*edges, *doors, *stairs], lowest=[*lowest, *ends])
        xs = [x for x, _ in found.at.values()]
        dx = self.middle - (min(xs) + max(xs)) / 2
        bottom = base + self.fan
        dy = bottom - min(found.at[id][1] - height / 2 for id, (_, height) in sizes.items())
        for id, node in boxes.items():
            x, y = found.at[id]
            self.place(node, None, (x + dx, y + dy))
        for edge in edges:
            self.scene.wire(edge.tail, edge.head, "operand", moved(found.routes[edge.id], dx, dy), carries[edge.id])
        for door in doors:
            way = moved(found.routes[door.id], dx, dy)
            self.ways_down[door.tail] = chained(way, straight(way[-1], (way[-1][0], bottom)))
        for stair in stairs:
            way = moved(found.routes[stair.id], dx, dy)
            self.ways_up[stair.head] = chained(straight((way[0][0], bottom), way[0]), way)

    def edges_after(self) -> tuple[list[Edge], dict[str, list[tuple[Tensor, int]]]]:
        """The edges among the nodes behind reductions over time, and what each carries."""
        inside = set(self.plan.after)
        edges, carries = [], {}
        for node in self.plan.after:
            for number, link in enumerate(self.plan.links_into[node]):
                if link.tail in inside:
                    edges.append(Edge(f"{self.id(node)}.{number}", self.id(link.tail), self.id(node)))
                    carries[edges[-1].id] = self.carries(link.reads, None, None)
        return edges, carries

    def lowest_after(self) -> list[str]:
        """The reductions over time that stand lowest there."""
        inside = set(self.plan.after)
        return [
            self.id(node)
            for node in self.plan.after
            if node.reduces_time and not any(link.tail in inside for link in self.plan.links_into[node])
        ]

    def doors(self, lowest: Sequence[str]) -> list[Edge]:
        """From each node there that timesteps read and others may stand below: an edge down to a door."""
        read = {*self.step.ports, *(start.tail for start in self.diagram.starts)}
        ids = [self.id(node) for node in self.plan.after if node in read]
        return [Edge(f"{id}.down", id, f"{id}.door", backwards=True) for id in ids if id not in lowest]

    def stairs(self, lowest: Sequence[str]) -> list[Edge]:
        """To each node there that reads others and some may stand below: an edge up from the foot of a stair."""
        inside = set(self.plan.after)
        reading = [node for node in self.plan.after if any(x.tail not in inside for x in self.plan.links_into[node])]
        ids = [self.id(node) for node in reading]
        return [Edge(f"{id}.up", f"{id}.stair", id) for id in ids if id not in lowest]

    def way_up(self, node: Node) -> Route:
        """Into a node on top, past others below it: often its border alone."""
        return self.ways_up.get(self.id(node), (self.box_of(node).bottom,))

    def way_out_of_row(self, start: Box) -> Route:
        """From a shared node towards the timesteps, past others of its row: often its border alone."""
        return self.ways_down.get(start.id, (start.top if start.y < self.step.bottom else start.bottom,))

    def place_starts(self) -> None:
        """Learnable initial values, outside the timestep at which their state starts, at its height."""
        beside = set(self.plan.starts)
        placed: list[Box] = []
        for start in self.diagram.starts:
            if not self.starts_at(start):
                continue
            node, t, side = start.tail, self.first_step(start.ahead), -start.ahead
            head = self.box_of(start.head, t)
            if node in beside and self.id(node) not in self.scene.boxes:
                width, height = self.write(node).size
                x = self.scene.frames[f"t{t}"].side(side) + side * (1.3 * theme.STEP_GAP + self.loop_room + width / 2)
                y = head.y - self.start_below
                near = [other for other in placed if abs(x - other.x) < (width + other.width) / 2]
                while any(abs(y - other.y) < (height + other.height) / 2 + 8 for other in near):
                    y -= 4
                placed.append(self.place(node, None, (x, y)))
            if self.id(node) in self.scene.boxes:
                way = self.from_beside if node in beside else self.around_corner
                route = way(self.box_of(node), head, t, side)
                self.scene.wire(self.id(node), head.id, "weight", route, self.carries([(start.state, 0)], t, None))

    loop_room = 0.0
    start_below = 0.0
    """How much lower than its state a start stands, to keep clear of the delay that comes in there."""

    def from_beside(self, start: Box, head: Box, t: int, side: int) -> Route:
        """From an initial value on a side of the timestep to the state `head`, under boxes that stand in the way."""
        border = self.scene.frames[f"t{t}"].side(side)
        blocking = self.blocking(head, t, border)
        wide, high = (0.42, 0.4) if head.content.kind == "state" else (0.5, 0.5)  # of an ellipse's outline
        end = (head.x + side * wide * head.width, head.y - self.start_below / 4)
        if not blocking:
            return level(start.side(-side), end)
        low, turn = min(other.bottom[1] for other in blocking) - 7, head.x + side * 0.3 * head.width
        inside = rounded([(border, low), (turn, low), (turn, head.y - high * head.height)], 6)
        return chained(level(start.side(-side), (border, low)), inside)

    def around_corner(self, start: Box, head: Box, t: int, side: int) -> Route:
        """From an initial value in a row below or above, around the corner of the timestep."""
        turn = self.scene.frames[f"t{t}"].side(side) + side * theme.STEP_GAP / 2
        way, run = self.way_out_of_row(start), self.step.bottom - 12
        (_, high), *entry = self.corners(head, t, side, bend=10)[::-1]
        if start.y > self.step.bottom:
            turn, run = turn + side * self.loop_room, way[-1][1] - 12
            if len(entry) == 1:  # level: over the delay that comes in there
                entry = [head.outline(side, self.start_below / 4)]
                high = entry[0][1]
        return chained(way, rounded([way[-1], (way[-1][0], run), (turn, run), (turn, high), *entry], 10))

    def connect_shared(self) -> None:
        """Edges between the timesteps and the shared nodes, and between shared rows."""
        for t in self.fold.shown:
            for link, route in self.step.routes.items():
                if link.tail.varies:
                    continue
                way = self.into(self.box_of(link.tail, t), moved(route, self.offset(t), 0))
                if isinstance(link, Delay):
                    self.connect_static_next(link, way, t)
                else:
                    carries = self.carries(link.reads, t, None)
                    self.scene.wire(self.box_of(link.tail, t).id, self.id(link.head, t), "weight", way, carries)
        after = set(self.plan.after)
        for node in self.plan.after:
            for link in self.plan.links_into[node]:
                if link.tail in self.step.out:
                    self.connect_over_time(link)
                elif link.tail not in after and self.id(link.tail) in self.scene.boxes:
                    carries = self.carries(link.reads, None, None)
                    self.scene.wire(self.id(link.tail), self.id(node), "weight", self.around(link.tail, node), carries)

    def connect_over_time(self, link: Link) -> None:
        """From every timestep that a reduction over time reads."""
        read = timesteps_read(link, self.fold.steps)
        for t in self.fold.shown:
            if t in read:
                inside = moved(self.step.out[link.tail], self.offset(t), 0)
                carries = self.carries(link.reads, None, t)
                route = self.out_of(inside, link.head)
                self.scene.wire(self.id(link.tail, t), self.id(link.head), "over time", route, carries)
        if not set(read).isdisjoint(self.fold.hidden):
            way = self.way_up(link.head)
            route = chained(upright(self.scene.boxes[GAP].top, way[0]), way)
            carries = [each for t in self.fold.hidden if t in read for each in self.carries(link.reads, None, t)]
            self.scene.wire(GAP, self.id(link.head), "over time", route, carries)

    def into(self, operand: Box, inside: Route) -> Route:
        """From a shared node to its port on a timestep, and on inside."""
        way, port = self.way_out_of_row(operand), inside[0]
        if operand.id in self.rails:
            (x, y), rail = way[-1], self.rails[operand.id]
            return chained(way, rounded([(x, y), (x, rail), (port[0], rail), port], 7), inside)
        clear = self.above_the_row(port)
        if way[-1][1] < clear[1] or clear == port:
            return chained(way, upright_into(way[-1], inside))
        return chained(way, upright(way[-1], clear), straight(clear, port), inside)

    def out_of(self, inside: Route, node: Node) -> Route:
        """From inside a timestep to its border, and on to a reduction over time."""
        port = inside[-1]
        clear = self.above_the_row(port)
        if clear == port and self.head_room:
            clear = (port[0], self.step.top + self.head_room)
        way = straight(port, clear) if clear != port else (port,)
        up = self.way_up(node)
        return chained(inside, way, upright(clear, up[0]), up)

    def above_the_row(self, port: Point) -> Point:
        """Over a port on a timestep, clear of the row of shared nodes between; the port itself if there is none."""
        if not self.plan.above:
            return port
        return (port[0], self.top_of_rows() + 6)

    def top_of_rows(self) -> float:
        """The upper border of the timesteps and the row above them."""
        if 1 in self.tie_room:
            return self.step.top + self.head_room + self.tie_room[1]
        return max([self.box_of(node).top[1] for node in self.plan.above], default=self.step.top + self.head_room)

    def around(self, tail: Node, head: Node) -> Route:
        """From a shared node below to one above, outside all timesteps."""
        start, way = self.box_of(tail), self.way_up(head)
        (x, y), right = way[0], max([self.width, *(self.box_of(node).right[0] for node in self.plan.below)])
        turn = right + theme.STEP_GAP / 2 + self.loop_room
        low, high = start.bottom[1] - 14, y - 12
        if start.y > self.step.top:
            return chained(upright(start.top, way[0]), way)
        return chained(rounded([start.bottom, (start.x, low), (turn, low), (turn, high), (x, high), (x, y)], 10), way)

    def blocking(self, own: Box, t: int, x: float) -> list[Box]:
        """The boxes of a timestep that stand at the height of `own` on its way to `x`."""
        left, right = min(own.x, x), max(own.x, x)
        others = (self.box_of(node, t) for node in self.plan.varying)
        return [
            other
            for other in others
            if other.id != own.id and left < other.x < right and other.bottom[1] - 3 < own.y < other.top[1] + 3
        ]

    def corners(self, own: Box, t: int, side: int, bend: float) -> list[Point]:
        """From a side of a box to the border of its timestep on that side, clear of other boxes."""
        start, x = own.side(side), self.scene.frames[f"t{t}"].side(side)
        blocking = self.blocking(own, t, x)
        if not blocking:
            return [start, (x, own.y)]
        turn, high = start[0] + side * bend, max(other.top[1] for other in blocking) + 7
        return [start, (turn, own.y), (turn, high), (x, high)]

    def way_out(self, tail: Box, t: int, side: int) -> Route:
        return rounded(self.corners(tail, t, side, bend=5), 6)

    def way_in(self, head: Box, t: int, side: int) -> Route:
        return rounded(self.corners(head, t, side, bend=10)[::-1], 6)
