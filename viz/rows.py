"""The rows of nodes that all timesteps share, below and above them, and the edges from there into every timestep."""

from __future__ import annotations

from collections.abc import Sequence

from viz import theme
from viz.diagram import Node
from viz.rails import RAIL_GAP, RAIL_ROOM, Rail, nearest_first, room_for
from viz.scene import Box, Point, Route, chained, rounded, straight, upright, upright_into
from viz.timesteps import Shown, Timesteps


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


class Rows(Timesteps):
    """Timesteps, and what they share: once with a rail into each of them, or copied for each and tied."""

    def __init__(self, show: Shown) -> None:
        super().__init__(show)
        self.fan = theme.ROW_GAP + min(60.0, 0.02 * self.width)
        self.head_room = 0.0
        self.ways_down: dict[str, Route] = {}
        self.tie_room: dict[int, float] = {}
        self.rails: dict[str, float] = {}

    def width_of_copies(self) -> float:
        widest = 0.0
        for nodes, side in ((self.plan.below, -1), (self.plan.above, 1)):
            if self.can_repeat(nodes):
                left, right = extent(self.columns(nodes, side))
                widest = max(widest, right - left)
        return widest

    def row(self, nodes: Sequence[Node], y: float, avoid: Sequence[float] = ()) -> None:
        """Shared nodes side by side around the middle, none across a vertical line at `avoid`."""

        def port_x(node: Node) -> float:
            return self.step.ports[node][0] if node in self.step.ports else 0.0

        ordered = sorted(nodes, key=port_x) if not any(self.plan.links_into[node] for node in nodes) else nodes
        sizes = [self.write(node).size for node in ordered]
        xs = side_by_side([width for width, _ in sizes], self.middle, 2 * theme.NODE_GAP, avoid)
        for node, x, size in zip(ordered, xs, sizes, strict=True):
            self.place(node, None, (x, y), size)

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

    def way_out_of_row(self, start: Box) -> Route:
        """From a shared node towards the timesteps, past others of its row: often its border alone."""
        return self.ways_down.get(start.id, (start.top if start.y < self.step.bottom else start.bottom,))

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
