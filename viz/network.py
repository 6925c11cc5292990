"""The picture of a recurrent network, its delays left out: timesteps, and rows of shared nodes around them."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from viz import theme
from viz.labels import Content, text_width
from viz.layout import FROM_NEXT, Edge, StepLayout, lay_out, lay_out_step
from viz.plan import Plan, direction
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


def largest(contents: Sequence[Content]) -> tuple[float, float]:
    """The size that fits all copies of a node, so that it is the same in every timestep."""
    sizes = [c.size for c in contents]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def step_of(the_plan: Plan, sizes: dict[Tensor, tuple[float, float]], label: str) -> StepLayout:
    varying = set(the_plan.varying)
    reduced = {x: None for node in the_plan.after for x in node.operands if x in varying}
    return lay_out_step(the_plan, sizes, list(reduced), text_width(label, theme.LABEL_SIZE))


def source(node: Tensor, index: int) -> Tensor:
    """The node from which an edge of a timestep comes."""
    return node.next if index == FROM_NEXT and isinstance(node, State) else node.operands[index]


def timesteps_read(node: Tensor, steps: int) -> list[int]:
    """Which timesteps a reduction over time reads."""
    every = list(range(steps))
    return every if node.primitive is None or node.primitive.over_time is None else node.primitive.over_time(every)


def box(id: str, what: Content, at: Point, size: tuple[float, float] | None = None) -> Box:
    width, height = size or what.size
    return Box(id, what, at[0], at[1], width, height)


class Network(abc.ABC):
    """What the rolled and the unrolled picture share: rows of shared nodes above and below the timesteps.

    `contents` are what to write on each node, once per timestep or once for all; `labels` name the
    timesteps. The pictures differ in how they draw delays.
    """

    def __init__(self, the_plan: Plan, contents: dict[Tensor, list[Content]], labels: Sequence[str]) -> None:
        self.plan = the_plan
        self.graph = the_plan.graph
        self.contents = contents
        self.labels = labels
        self.sizes = {node: largest(each) for node, each in contents.items()}
        self.step = step = step_of(the_plan, self.sizes, labels[-1])
        self.steps = steps = len(labels)
        self.pitch = step.right - step.left + theme.STEP_GAP
        self.scene = Scene()
        self.number = {node: i for i, node in enumerate(self.graph.nodes)}
        self.head_room = 0.0
        self.ways_down: dict[str, Route] = {}
        self.width = steps * self.pitch - theme.STEP_GAP
        self.fan = theme.ROW_GAP + min(140.0, 0.035 * self.width)

    # --- what the two pictures do differently ---

    @abc.abstractmethod
    def connect_states(self) -> None:
        """Draw the delays from varying nodes."""

    @abc.abstractmethod
    def connect_static_next(self, following: Tensor, state: State, way: Route, t: int) -> None:
        """Draw the delay from a node that is the same in every timestep, along `way`."""

    # --- what they share ---

    def write(self, node: Tensor, t: int = 0) -> Content:
        return self.contents[node][t if node in self.graph.varying else 0]

    def id(self, node: Tensor, t: int = 0) -> str:
        return f"n{self.number[node]}t{t}" if node in self.graph.varying else f"n{self.number[node]}"

    def box_of(self, node: Tensor, t: int = 0) -> Box:
        return self.scene.boxes[self.id(node, t)]

    def draw(self) -> Scene:
        for t in range(self.steps):
            self.stamp(t)
        self.connect_states()
        self.place_below()
        self.place_above()
        self.place_after()
        self.place_starts()
        self.connect_shared()
        return self.scene

    def first_step(self, state: State) -> int:
        """The timestep at which a state has its initial value."""
        return 0 if direction(state) > 0 else self.steps - 1

    def offset(self, t: int) -> float:
        return t * self.pitch - self.step.left

    def stamp(self, t: int) -> None:
        step, dx = self.step, self.offset(t)
        label = self.labels[t]
        label_x = step.clear_x(step.left + 8, step.right - 8, text_width(label, theme.LABEL_SIZE)) + dx
        frame = Frame(f"t{t}", label, label_x, step.left + dx, step.bottom, step.right + dx, step.top)
        self.scene.frames[frame.id] = frame
        for node in self.plan.varying:
            x, y = step.at[node]
            self.scene.add(box(self.id(node, t), self.write(node, t), (x + dx, y), self.sizes[node]))
        for (node, index), route in step.routes.items():
            operand = source(node, index)
            if operand in self.graph.varying:
                kind = "state" if isinstance(operand, State) else "operand"
                self.scene.wire(self.id(operand, t), self.id(node, t), kind, moved(route, dx, 0))

    def row(self, nodes: Sequence[Tensor], y: float, avoid: Sequence[float] = ()) -> None:
        """Shared nodes side by side around the middle, none across a vertical line at `avoid`."""

        def port_x(node: Tensor) -> float:
            return self.step.ports[node][0] if node in self.step.ports else 0.0

        ordered = sorted(nodes, key=port_x) if not any(node.operands for node in nodes) else nodes
        sizes = [self.write(node).size for node in ordered]
        total = sum(width + 2 * theme.NODE_GAP for width, _ in sizes)
        x = self.middle - total / 2
        for node, (width, height) in zip(ordered, sizes, strict=True):
            x += theme.NODE_GAP + width / 2
            while any(abs(x - line) < width / 2 + 8 for line in avoid):
                x += 4
            self.scene.add(box(self.id(node), self.write(node), (x, y), (width, height)))
            x += theme.NODE_GAP + width / 2

    @property
    def middle(self) -> float:
        return self.width / 2

    def place_below(self) -> None:
        """Shared nodes in one row, so that none stands between another and the timesteps."""
        nodes = self.plan.below
        highest = max((self.write(node).size[1] for node in nodes), default=0)
        self.row(nodes, self.step.bottom - self.fan - highest / 2)
        for node in nodes:
            for operand in node.operands:
                if self.id(operand) in self.scene.boxes:
                    tail, head = self.box_of(operand), self.box_of(node)
                    low = min(tail.bottom[1], head.bottom[1]) - 16
                    route = (tail.bottom, (tail.x, low), (head.x, low), head.bottom)
                    self.scene.wire(tail.id, head.id, "operand", route)

    def place_above(self) -> None:
        if self.plan.above:
            highest = max(self.write(node).size[1] for node in self.plan.above)
            y = self.step.top + self.head_room + self.fan + highest / 2
            crossing = [route[-1][0] for route in self.step.out.values()]
            crossing += [self.step.ports[node][0] for node in self.plan.after if node in self.step.ports]
            self.row(self.plan.above, y, [x + self.offset(t) for x in crossing for t in range(self.steps)])

    def place_after(self) -> None:
        """The static nodes behind reductions over time, laid out as a graph of their own above all others."""
        if not self.plan.after:
            return
        base = max((self.box_of(node).top[1] for node in self.plan.above), default=self.step.top + self.head_room)
        boxes = {self.id(node): self.write(node) for node in self.plan.after}
        edges, lowest = self.edges_after()
        doors = self.doors(lowest)
        sizes = {id: what.size for id, what in boxes.items()} | {door.head: (1.0, 1.0) for door in doors}
        found = lay_out(sizes, [*edges, *doors], lowest=[*lowest, *(door.head for door in doors)])
        xs = [x for x, _ in found.at.values()]
        dx = self.middle - (min(xs) + max(xs)) / 2
        bottom = base + self.fan
        dy = bottom - min(found.at[id][1] - what.size[1] / 2 for id, what in boxes.items())
        for id, what in boxes.items():
            x, y = found.at[id]
            self.scene.add(box(id, what, (x + dx, y + dy)))
        for edge in edges:
            self.scene.wire(edge.tail, edge.head, "operand", moved(found.routes[edge.id], dx, dy))
        for door in doors:
            way = moved(found.routes[door.id], dx, dy)
            self.ways_down[door.tail] = chained(way, straight(way[-1], (way[-1][0], bottom)))

    def edges_after(self) -> tuple[list[Edge], list[str]]:
        """The edges among the nodes behind reductions over time, and the reductions that stand lowest there."""
        nodes, inside = self.plan.after, set(self.plan.after)
        edges = [
            Edge(f"{self.id(node)}.{index}", self.id(operand), self.id(node))
            for node in nodes
            for index, operand in enumerate(node.operands)
            if operand in inside
        ]
        return edges, [self.id(n) for n in nodes if is_time_reduction(n) and not inside.intersection(n.operands)]

    def doors(self, lowest: Sequence[str]) -> list[Edge]:
        """From each node there that timesteps read and others may stand below: an edge down to a door."""
        read = {*self.step.ports, *(state.initial for state in self.graph.states)}
        ids = [self.id(node) for node in self.plan.after if node in read]
        return [Edge(f"{id}.down", id, f"{id}.door", backwards=True) for id in ids if id not in lowest]

    def way_out_of_row(self, start: Box) -> Route:
        """From a shared node towards the timesteps, past others of its row: often its border alone."""
        return self.ways_down.get(start.id, (start.top if start.y < self.step.bottom else start.bottom,))

    def place_starts(self) -> None:
        """Learnable initial values, outside the timestep at which their state starts, at its height."""
        beside = set(self.plan.starts)
        for state in self.graph.states:
            if not self.starts_at(state):
                continue
            start, t, side = state.initial, self.first_step(state), -direction(state)
            head = self.box_of(state, t)
            if start in beside and self.id(start) not in self.scene.boxes:
                what = self.write(start)
                away = 1.3 * theme.STEP_GAP + self.loop_room + what.size[0] / 2
                x = self.scene.frames[f"t{t}"].side(side) + side * away
                self.scene.add(box(self.id(start), what, (x, head.y - self.start_below)))
            if self.id(start) in self.scene.boxes:
                way = self.from_beside if start in beside else self.around_corner
                self.scene.wire(self.id(start), head.id, "weight", way(self.box_of(start), head, t, side))

    loop_room = 0.0
    start_below = 0.0
    """How much lower than its state a start stands, to keep clear of the delay that comes in there."""

    def starts_at(self, state: State) -> bool:
        """Whether the picture's first timestep starts from the state's own initial value."""
        return True

    def from_beside(self, start: Box, head: Box, t: int, side: int) -> Route:
        """From an initial value on a side of the timestep to the state `head`, under boxes that stand in the way."""
        border = self.scene.frames[f"t{t}"].side(side)
        blocking = self.blocking(head, t, border)
        end = (head.x + side * 0.42 * head.width, head.y - self.start_below / 4)
        if not blocking:
            return level(start.side(-side), end)
        low, turn = min(other.bottom[1] for other in blocking) - 7, head.x + side * 0.3 * head.width
        inside = rounded([(border, low), (turn, low), (turn, head.y - 0.4 * head.height)], 6)
        return chained(level(start.side(-side), (border, low)), inside)

    def around_corner(self, start: Box, head: Box, t: int, side: int) -> Route:
        """From an initial value in a row below or above, around the corner of the timestep."""
        turn = self.scene.frames[f"t{t}"].side(side) + side * theme.STEP_GAP / 2
        way, run = self.way_out_of_row(start), self.step.bottom - 12
        (_, high), *entry = self.corners(head, t, side, bend=12)[::-1]
        if start.y > self.step.bottom:
            turn, run = turn + side * self.loop_room, way[-1][1] - 12
            if len(entry) == 1:  # level: over the delay that comes in there
                entry = [head.outline(side, self.start_below / 4)]
                high = entry[0][1]
        return chained(way, rounded([way[-1], (way[-1][0], run), (turn, run), (turn, high), *entry], 10))

    def connect_shared(self) -> None:
        """Edges between the timesteps and the shared nodes, and between shared rows."""
        for t in range(self.steps):
            for (node, index), route in self.step.routes.items():
                operand = source(node, index)
                if operand in self.graph.varying:
                    continue
                way = self.into(operand, moved(route, self.offset(t), 0))
                if isinstance(node, State):
                    self.connect_static_next(operand, node, way, t)
                else:
                    self.scene.wire(self.id(operand), self.id(node, t), "weight", way)
        after = set(self.plan.after)
        for node in self.plan.after:
            for operand in node.operands:
                if operand in self.step.out:
                    for t in timesteps_read(node, self.steps):
                        inside = moved(self.step.out[operand], self.offset(t), 0)
                        self.scene.wire(self.id(operand, t), self.id(node), "over time", self.out_of(inside, node))
                elif operand not in after and self.id(operand) in self.scene.boxes:
                    self.scene.wire(self.id(operand), self.id(node), "weight", self.around(operand, node))

    def into(self, operand: Tensor, inside: Route) -> Route:
        """From a shared node to its port on a timestep, and on inside."""
        way, port = self.way_out_of_row(self.box_of(operand)), inside[0]
        clear = self.above_the_row(port)
        if way[-1][1] < clear[1] or clear == port:
            return chained(way, upright_into(way[-1], inside))
        return chained(way, upright(way[-1], clear), straight(clear, port), inside)

    def out_of(self, inside: Route, node: Tensor) -> Route:
        """From inside a timestep to its border, and on to a reduction over time."""
        port = inside[-1]
        clear = self.above_the_row(port)
        if clear == port and self.head_room:
            clear = (port[0], self.step.top + self.head_room)
        way = straight(port, clear) if clear != port else (port,)
        return chained(inside, way, upright(clear, self.box_of(node).bottom))

    def above_the_row(self, port: Point) -> Point:
        """Over a port on a timestep, clear of the row of shared nodes between; the port itself if there is none."""
        return (port[0], max([self.box_of(node).top[1] + 6 for node in self.plan.above], default=port[1]))

    def around(self, tail: Tensor, head: Tensor) -> Route:
        """From a shared node below to one above, outside all timesteps."""
        start, end = self.box_of(tail), self.box_of(head)
        turn = self.width + theme.STEP_GAP / 2 + self.loop_room
        low, high = start.bottom[1] - 14, end.bottom[1] - 12
        if start.y > self.step.top:
            return upright(start.top, end.bottom)
        return rounded([start.bottom, (start.x, low), (turn, low), (turn, high), (end.x, high), end.bottom], 10)

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
        return rounded(self.corners(tail, t, side, bend=8), 6)

    def way_in(self, head: Box, t: int, side: int) -> Route:
        return rounded(self.corners(head, t, side, bend=12)[::-1], 6)
