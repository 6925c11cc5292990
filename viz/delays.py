"""The rolled and the unrolled picture of a recurrent network: how each draws the delays."""

from __future__ import annotations

from collections.abc import Sequence

from microgrid.leaves import State
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.labels import Content
from viz.layout import FROM_NEXT
from viz.network import Network
from viz.plan import Plan, delay_label, direction
from viz.scene import Route, chained, level, moved, rounded, straight

EVERY_STEP = "every timestep t"


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
            head, tail, ahead = self.box_of(state), self.box_of(following), direction(state)
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
                label=delay_label(state),
                label_at=(self.step.clear_x(self.step.left, self.step.right, 40) + self.offset(0), above + 8),
            )
            self.loop_room = out
            self.head_room = above - frame.top + 16

    def connect_static_next(self, following: Tensor, state: State, way: Route, t: int) -> None:
        x, y = moved(self.step.routes[state, FROM_NEXT], self.offset(t), 0)[0]
        tail, head = self.id(following), self.id(state, t)
        self.scene.wire(tail, head, "delay back", way, label=delay_label(state), label_at=(x + 14, y - 8))


class UnrolledNetwork(Network):
    """One copy of the timestep after the other, its delays running to the right, of reverse states to the left."""

    def __init__(
        self, the_plan: Plan, contents: dict[Tensor, list[Content]], labels: Sequence[str], dag: Unrolled
    ) -> None:
        super().__init__(the_plan, contents, labels)
        self.dag = dag

    def starts_at(self, state: State) -> bool:
        first = self.dag.copies[state][self.first_step(state)]
        return first.operands[0] is self.dag.static.get(state.initial)

    def connect_states(self) -> None:
        for state in self.graph.states:
            for t in range(self.steps):
                if state.next in self.graph.varying and t != self.first_step(state):
                    self.connect_state(state, t, direction(state))

    def connect_static_next(self, following: Tensor, state: State, way: Route, t: int) -> None:
        if t != self.first_step(state):
            self.scene.wire(self.id(following), self.id(state, t), "delay", way)

    def connect_state(self, state: State, t: int, ahead: int) -> None:
        """Out over the border of one timestep and in over the border of the one that lies `ahead`."""
        tail, head = self.box_of(state.next, t - ahead), self.box_of(state, t)
        way_out, way_in = self.way_out(tail, t - ahead, ahead), self.way_in(head, t, -ahead)
        leave, enter = way_out[-1], way_in[0]
        between = straight(leave, enter) if leave[1] == enter[1] else level(leave, enter)
        self.scene.wire(tail.id, head.id, "delay", chained(way_out, between, way_in))
