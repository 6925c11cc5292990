"""The rolled and the unrolled picture of a recurrent network: how each draws the delays."""

from __future__ import annotations

from collections.abc import Sequence

from microgrid.graph import Nodes
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.diagram import Delay, Node, Read, Start, direction
from viz.fold import Fold
from viz.network import Network
from viz.scene import Box, Route, chained, level, moved, rounded, straight
from viz.timesteps import GAP, Shown

EVERY_STEP = Fold(1, label_of_all="every timestep t")


class RolledNetwork(Network):
    """One timestep, its delays going back around it."""

    LOOP_GAP = 12.0
    start_below = 34.0

    def connect_delays(self) -> None:
        varying = [delay for delay in self.diagram.delays if delay.tail.varies]
        inner_first = sorted(varying, key=lambda delay: -self.box_of(delay.head).y)
        self.going_around = [delay for delay in inner_first if not delay.is_loop]
        for number, delay in enumerate(self.going_around):
            self.connect_around(delay, number)
        for delay in inner_first:
            if delay.is_loop:
                self.connect_loop(delay)

    def connect_loop(self, delay: Delay) -> None:
        """Out of a side of a box and back into its top, around the corner."""
        box, side = self.box_of(delay.head), delay.ahead
        if any(
            other.tail is delay.tail and len(self.corners(box, 0, other.ahead, 8)) > 2 for other in self.going_around
        ):
            side = -side  # another delay has to leave that way, bending
        (x, y), top = box.side(side), box.top[1]
        low, inner = y + 0.2 * box.height, x - side * 0.18 * box.width
        route = ((x, low), (x + side * 36, low), (inner, top + 36), (inner, top))
        label_at = (x + side * 32, top + 8)
        self.scene.wire(box.id, box.id, "delay back", route, label=delay.label, label_at=label_at)

    def connect_around(self, delay: Delay, number: int) -> None:
        """Out of the timestep, around it and in again."""
        frame = self.scene.frames["t0"]
        out = 16 + number * self.LOOP_GAP
        head, tail, ahead = self.box_of(delay.head), self.box_of(delay.tail), delay.ahead
        above = frame.top + out + 6 * number
        x_out, x_in = frame.side(ahead) + ahead * out, frame.side(-ahead) - ahead * out
        way_out, way_in = self.way_out(tail, 0, ahead), self.way_in(head, 0, -ahead)
        leave, enter = way_out[-1], way_in[0]
        loop = rounded([leave, (x_out, leave[1]), (x_out, above), (x_in, above), (x_in, enter[1]), enter], 12)
        self.scene.wire(
            tail.id,
            head.id,
            "delay back",
            chained(way_out, loop, way_in),
            label=delay.label,
            label_at=(self.step.clear_x(self.step.left, self.step.right, 40) + self.offset(0), above + 8),
        )
        self.loop_room = out
        self.head_room = above - frame.top + 16

    def connect_static_next(self, delay: Delay, way: Route, t: int) -> None:
        x, y = moved(self.step.routes[delay], self.offset(t), 0)[0]
        tail, head = self.id(delay.tail), self.id(delay.head, t)
        self.scene.wire(tail, head, "delay back", way, label=delay.label, label_at=(x + 14, y - 8))


class UnrolledNetwork(Network):
    """One copy of the timestep after the other, its delays running to the right, of reverse states to the left."""

    def __init__(self, show: Shown, dag: Unrolled) -> None:
        super().__init__(show)
        self.dag = dag

    def shows(self, node: Node, t: int | None) -> Tensor:
        return self.copy(node.tensor, t)

    def copy(self, tensor: Tensor, t: int | None) -> Tensor:
        """What stands in the unrolled graph for a tensor at a timestep."""
        copies = self.dag.copies
        return copies[tensor][t or 0] if tensor in copies else self.dag.static[tensor]

    def carries(self, reads: Sequence[Read], t: int | None, read_at: int | None) -> list[tuple[Tensor, int]]:
        found = []
        for reader, index in reads:
            place = index
            if is_time_reduction(reader) and reader.primitive is not None and reader.primitive.over_time is not None:
                timesteps = reader.primitive.over_time(list(range(self.fold.steps)))
                if read_at not in timesteps:
                    continue
                place = timesteps.index(read_at)
            found.append((self.copy(reader, t), place))
        return found

    def starts_at(self, start: Start) -> bool:
        first = self.dag.copies[start.state][self.first_step(start.ahead)]
        return first.operands[0] is self.dag.static.get(start.state.initial)

    def connect_delays(self) -> None:
        for delay in self.diagram.delays:
            for t in self.fold.shown:
                if delay.tail.varies and t != self.first_step(delay.ahead):
                    self.connect_delay(delay, t)

    def connect_static_next(self, delay: Delay, way: Route, t: int) -> None:
        if t != self.first_step(delay.ahead):
            self.scene.wire(self.id(delay.tail), self.id(delay.head, t), "delay", way, self.carried(delay, t))

    def carried(self, delay: Delay, t: int) -> list[tuple[Tensor, int]]:
        """What reads, at the head of a delay that arrives at timestep `t`, the values that were delayed."""
        if delay.head.state is not None:
            return [(self.copy(state, t), 0) for state in delay.states]
        found = []
        for reader in delay.head.members:
            for index, operand in enumerate([reader.next] if isinstance(reader, State) else reader.operands):
                read_at = t + direction(reader) if isinstance(reader, State) else t
                if operand in Nodes(delay.states) and 0 <= read_at < self.fold.steps:
                    found.append((self.copy(reader, read_at), index))
        return found

    def connect_delay(self, delay: Delay, t: int) -> None:
        """Out over the border of one timestep and in over the border of the one that lies ahead."""
        before, ahead = t - delay.ahead, delay.ahead
        head = self.box_of(delay.head, t)
        way_in = self.way_in(head, t, -ahead)
        enter = way_in[0]
        carries = self.carried(delay, t)
        if before in self.fold.hidden:
            border = (self.scene.boxes[GAP].side(ahead)[0], enter[1])
            self.scene.wire(GAP, head.id, "delay", chained(straight(border, enter), way_in), carries)
            return
        tail = self.box_of(delay.tail, before)
        way_out = self.way_out(tail, before, ahead)
        leave = way_out[-1]
        between = straight(leave, enter) if leave[1] == enter[1] else level(leave, enter)
        self.scene.wire(tail.id, head.id, "delay", chained(way_out, between, way_in), carries)

    def place_gap(self) -> None:
        """The box that stands for the timesteps left out, and the delays into it."""
        super().place_gap()
        gap = self.scene.boxes[GAP]
        for delay in self.diagram.delays:
            last = self.fold.hidden[0] - 1 if delay.ahead > 0 else self.fold.hidden[-1] + 1
            if delay.tail.varies:
                tail: Box = self.box_of(delay.tail, last)
                way_out = self.way_out(tail, last, delay.ahead)
                border = (gap.side(-delay.ahead)[0], way_out[-1][1])
                route = chained(way_out, straight(way_out[-1], border))
                self.scene.wire(tail.id, GAP, "delay", route, self.carried(delay, last + delay.ahead))
