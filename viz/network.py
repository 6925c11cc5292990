"""The pictures of a recurrent network: rows of shared nodes around its timesteps, rolled or unrolled."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz import theme
from viz.labels import Content, text_width
from viz.layout import FROM_NEXT, Edge, StepLayout, lay_out, lay_out_step
from viz.plan import Plan
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

EVERY_STEP = "every timestep t"


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
        self.width = steps * self.pitch - theme.STEP_GAP
        self.fan = theme.ROW_GAP + min(140.0, 0.035 * self.width)

    # --- what the two pictures do differently ---

    @abc.abstractmethod
    def connect_states(self) -> None:
        """Draw the delays from varying nodes."""

    @abc.abstractmethod
    def connect_static_next(self, following: Tensor, state: Tensor, way: Route, t: int) -> None:
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
            leaving = [route[-1][0] + self.offset(t) for route in self.step.out.values() for t in range(self.steps)]
            self.row(self.plan.above, y, leaving)

    def place_after(self) -> None:
        base = self.step.top + self.head_room
        if self.plan.above:
            base = max(self.box_of(node).top[1] for node in self.plan.above)
        self.place_graph(self.plan.after, bottom=base + self.fan)

    def place_graph(self, nodes: Sequence[Tensor], bottom: float) -> None:
        """Lay out shared nodes as a graph of their own, above `bottom`."""
        if not nodes:
            return
        inside = set(nodes)
        edges = [
            Edge(f"{self.id(node)}.{index}", self.id(operand), self.id(node))
            for node in nodes
            for index, operand in enumerate(node.operands)
            if operand in inside
        ]
        contents = {self.id(node): self.write(node) for node in nodes}
        reductions = [self.id(n) for n in nodes if is_time_reduction(n) and not inside.intersection(n.operands)]
        found = lay_out({id: c.size for id, c in contents.items()}, edges, lowest=reductions)
        xs = [x for x, _ in found.at.values()]
        dx = self.middle - (min(xs) + max(xs)) / 2
        lows = [found.at[id][1] - c.size[1] / 2 for id, c in contents.items()]
        dy = bottom - min(lows)
        for id, c in contents.items():
            x, y = found.at[id]
            self.scene.add(box(id, c, (x + dx, y + dy)))
        for edge in edges:
            self.scene.wire(edge.tail, edge.head, "operand", moved(found.routes[edge.id], dx, dy))

    def place_starts(self) -> None:
        """Learnable initial values, left of the first timestep at the height of their state."""
        starts = set(self.plan.starts)
        for state in self.graph.states:
            start = state.initial
            if not self.starts_at(state):
                continue
            if start in starts and self.id(start) not in self.scene.boxes:
                what = self.write(start)
                x = self.step.left + self.offset(0) - 1.3 * theme.STEP_GAP - self.loop_room - what.size[0] / 2
                self.scene.add(box(self.id(start), what, (x, self.box_of(state).y - self.start_below)))
            if self.id(start) in self.scene.boxes:
                self.connect_start(self.box_of(start), self.box_of(state))

    loop_room = 0.0
    start_below = 0.0
    """How much lower than its state a start stands, to keep clear of the delay that comes in there."""

    def starts_at(self, state: State) -> bool:
        """Whether the picture's first timestep starts from the state's own initial value."""
        return True

    def connect_start(self, start: Box, state: Box) -> None:
        border = self.step.left + self.offset(0)
        if start.x < border:
            route = level(start.right, (state.x - 0.42 * state.width, state.y - self.start_below / 4))
        else:  # a computed start, in the row below
            turn, low = border - theme.STEP_GAP / 2, self.step.bottom - 12
            route = rounded([start.top, (start.x, low), (turn, low), (turn, state.y), state.left], 10)
        self.scene.wire(start.id, state.id, "weight", route)

    def connect_shared(self) -> None:
        """Edges between the timesteps and the shared nodes, and between shared rows."""
        for t in range(self.steps):
            for (node, index), route in self.step.routes.items():
                operand = source(node, index)
                if operand in self.graph.varying:
                    continue
                way = self.into(operand, moved(route, self.offset(t), 0))
                if index == FROM_NEXT:
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
        shared, port = self.box_of(operand), inside[0]
        start = shared.top if shared.y < port[1] else shared.bottom
        return upright_into(start, inside)

    def out_of(self, inside: Route, node: Tensor) -> Route:
        """From inside a timestep to its border, and on to a reduction over time."""
        port = inside[-1]
        clear = port
        if self.plan.above:
            clear = (port[0], max(self.box_of(other).top[1] for other in self.plan.above) + 6)
        elif self.head_room:
            clear = (port[0], self.step.top + self.head_room)
        way = straight(port, clear) if clear != port else (port,)
        return chained(inside, way, upright(clear, self.box_of(node).bottom))

    def around(self, tail: Tensor, head: Tensor) -> Route:
        """From a shared node below to one above, outside all timesteps."""
        start, end = self.box_of(tail), self.box_of(head)
        turn = self.width + theme.STEP_GAP / 2 + self.loop_room
        low, high = start.bottom[1] - 14, end.bottom[1] - 12
        if start.y > self.step.top:
            return upright(start.top, end.bottom)
        return rounded([start.bottom, (start.x, low), (turn, low), (turn, high), (end.x, high), end.bottom], 10)

    def clear_height(self, own: Box, t: int, left: float, right: float) -> float:
        """The height of `own`, or one above the boxes that stand in the way."""
        blocking = [
            other
            for other in (self.box_of(node, t) for node in self.plan.varying)
            if other.id != own.id and left < other.x < right and other.bottom[1] - 3 < own.y < other.top[1] + 3
        ]
        return max(other.top[1] for other in blocking) + 7 if blocking else own.y

    def way_out(self, tail: Box, t: int) -> Route:
        """From the right side of a box to the right border of its timestep, clear of other boxes."""
        right = self.scene.frames[f"t{t}"].right
        border = (right, self.clear_height(tail, t, tail.x, right))
        if border[1] == tail.y:
            return straight(tail.right, border)
        turn = tail.right[0] + 8
        return rounded([tail.right, (turn, tail.y), (turn, border[1]), border], 6)

    def way_in(self, head: Box, t: int) -> Route:
        """From the left border of a timestep to the left side of a box, clear of other boxes."""
        left = self.scene.frames[f"t{t}"].left
        border = (left, self.clear_height(head, t, left, head.x))
        if border[1] == head.y:
            return straight(border, head.left)
        turn = head.left[0] - 12
        return rounded([border, (turn, border[1]), (turn, head.y), head.left], 6)


class RolledNetwork(Network):
    """One timestep, its delays going back around it."""

    LOOP_GAP = 12.0
    start_below = 34.0

    def connect_states(self) -> None:
        inner_first = sorted(self.graph.states, key=lambda state: -self.box_of(state).y)
        frame = self.scene.frames["t0"]
        for number, state in enumerate(inner_first):
            following = state.next
            if following not in self.graph.varying:
                continue
            out = 16 + number * self.LOOP_GAP
            head, tail = self.box_of(state), self.box_of(following)
            above = frame.top + out + 6 * number
            left, right = frame.left - out, frame.right + out
            way_out, way_in = self.way_out(tail, 0), self.way_in(head, 0)
            leave, enter = way_out[-1], way_in[0]
            loop = rounded([leave, (right, leave[1]), (right, above), (left, above), (left, enter[1]), enter], 12)
            self.scene.wire(
                tail.id,
                head.id,
                "delay back",
                chained(way_out, loop, way_in),
                label="t−1",
                label_at=(self.step.clear_x(self.step.left, self.step.right, 40) + self.offset(0), above + 8),
            )
            self.loop_room = out
            self.head_room = above - frame.top + 16

    def connect_static_next(self, following: Tensor, state: Tensor, way: Route, t: int) -> None:
        x, y = way[3]
        self.scene.wire(self.id(following), self.id(state, t), "delay back", way, label="t−1", label_at=(x + 14, y - 8))


class UnrolledNetwork(Network):
    """One copy of the timestep after the other, its delays running to the right."""

    def __init__(
        self, the_plan: Plan, contents: dict[Tensor, list[Content]], labels: Sequence[str], dag: Unrolled
    ) -> None:
        super().__init__(the_plan, contents, labels)
        self.dag = dag

    def starts_at(self, state: State) -> bool:
        return self.dag.copies[state][0].operands[0] is self.dag.static.get(state.initial)

    def connect_states(self) -> None:
        for state in self.graph.states:
            for t in range(1, self.steps):
                if state.next in self.graph.varying:
                    tail, head = self.box_of(state.next, t - 1), self.box_of(state, t)
                    self.scene.wire(tail.id, head.id, "delay", self.delay_route(tail, head, t))

    def connect_static_next(self, following: Tensor, state: Tensor, way: Route, t: int) -> None:
        if t:
            self.scene.wire(self.id(following), self.id(state, t), "delay", way)

    def delay_route(self, tail: Box, head: Box, t: int) -> Route:
        """Out to the right border of one timestep and in from the left border of the next."""
        way_out, way_in = self.way_out(tail, t - 1), self.way_in(head, t)
        leave, enter = way_out[-1], way_in[0]
        between = straight(leave, enter) if leave[1] == enter[1] else level(leave, enter)
        return chained(way_out, between, way_in)
