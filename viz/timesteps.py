"""Timesteps side by side, and the ways out of and into each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microgrid.tensor import Tensor
from viz import theme
from viz.diagram import Link, Node, Read
from viz.fold import Fold
from viz.labels import Content, Line, text_width
from viz.layout import StepLayout, lay_out_step
from viz.plan import Plan
from viz.scene import Box, Frame, Point, Route, Scene, moved, rounded

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


@dataclass(frozen=True, slots=True)
class Shown:
    """What a picture of a recurrent network shows.

    Attributes
    ----------
    contents : what to write on each node, once per shown timestep or once for all
    fold : which timesteps are shown
    repeats_weights : whether every timestep has copies of the leaves in the rows above and below, tied to one another
    step : a timestep that is laid out already, for another picture too
    """

    plan: Plan
    contents: Mapping[Node, Sequence[Content]]
    fold: Fold
    repeats_weights: bool = False
    step: Step | None = None


class Timesteps:
    """The same timestep again and again."""

    def __init__(self, show: Shown) -> None:
        self.plan, self.contents, self.fold = show.plan, show.contents, show.fold
        self.diagram = show.plan.diagram
        self.repeats_weights = show.repeats_weights
        one = show.step or step_of(show.plan, show.contents, show.fold.label(show.fold.shown[-1]))
        self.sizes, self.step = one.sizes, one.layout
        step, fold = self.step, self.fold
        self.pitch = step.right - step.left + theme.STEP_GAP
        self.gap_width = max(theme.STEP_GAP, 0.5 * (step.right - step.left), 110.0)
        self.scene = Scene()
        self.number = self.diagram.numbers
        if self.repeats_weights:
            self.pitch = max(self.pitch, self.width_of_copies() + theme.NODE_GAP)
        self.width = (len(fold.shown) - 1) * self.pitch + step.right - step.left
        if fold.hidden:
            self.width += self.gap_width + theme.STEP_GAP

    def width_of_copies(self) -> float:
        """How much room the copies of shared nodes beside one timestep take."""
        return 0.0

    # --- what a node is on this picture ---

    def shows(self, node: Node, t: int | None) -> Tensor:
        """The tensor that the copy of a node at a timestep shows."""
        return node.tensor

    def carries(self, reads: Sequence[Read], t: int | None, read_at: int | None) -> list[tuple[Tensor, int]]:
        """The reads at timestep `t` of what was computed at `read_at`, as the shown tensors hold them."""
        return list(reads)

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

    # --- where the timesteps stand ---

    def first_step(self, ahead: int) -> int:
        """The timestep at which a state has its initial value."""
        return 0 if ahead > 0 else self.fold.steps - 1

    def offset(self, t: int) -> float:
        after_gap = self.gap_width + theme.STEP_GAP if self.fold.is_behind(t) else 0.0
        return self.fold.column[t] * self.pitch + after_gap - self.step.left

    @property
    def middle(self) -> float:
        return self.width / 2

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

    # --- out of and into them ---

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
