"""The picture of a recurrent network, its delays left out: what stands on top of all timesteps, and beside them."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from microgrid.tensor import Tensor
from viz import theme
from viz.diagram import Delay, Link, Node, Start
from viz.layout import Edge, lay_out
from viz.rows import Rows
from viz.scene import Box, Route, Scene, chained, level, moved, rounded, straight, upright
from viz.timesteps import GAP, Shown


def timesteps_read(link: Link, steps: int) -> list[int]:
    """Which timesteps an edge from a timestep to what stands behind a reduction over time reads."""
    every = list(range(steps))
    found: set[int] = set()
    for reader, _ in link.reads:
        over_time = reader.primitive.over_time if reader.primitive is not None else None
        found.update(every if over_time is None else over_time(every))
    return sorted(found)


class Network(Rows, abc.ABC):
    """What the rolled and the unrolled picture share; they differ in how they draw delays."""

    def __init__(self, show: Shown) -> None:
        super().__init__(show)
        self.ways_up: dict[str, Route] = {}

    @abc.abstractmethod
    def connect_delays(self) -> None:
        """Draw the delays from varying nodes."""

    @abc.abstractmethod
    def connect_static_next(self, delay: Delay, way: Route, t: int) -> None:
        """Draw the delay from a node that is the same in every timestep, along `way`."""

    def starts_at(self, start: Start) -> bool:
        """Whether the picture's first timestep starts from the state's own initial value."""
        return True

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

    def out_of(self, inside: Route, node: Node) -> Route:
        """From inside a timestep to its border, and on to a reduction over time."""
        port = inside[-1]
        clear = self.above_the_row(port)
        if clear == port and self.head_room:
            clear = (port[0], self.step.top + self.head_room)
        way = straight(port, clear) if clear != port else (port,)
        up = self.way_up(node)
        return chained(inside, way, upright(clear, up[0]), up)

    def around(self, tail: Node, head: Node) -> Route:
        """From a shared node below to one above, outside all timesteps."""
        start, way = self.box_of(tail), self.way_up(head)
        (x, y), right = way[0], max([self.width, *(self.box_of(node).right[0] for node in self.plan.below)])
        turn = right + theme.STEP_GAP / 2 + self.loop_room
        low, high = start.bottom[1] - 14, y - 12
        if start.y > self.step.top:
            return chained(upright(start.top, way[0]), way)
        return chained(rounded([start.bottom, (start.x, low), (turn, low), (turn, high), (x, high), (x, y)], 10), way)
