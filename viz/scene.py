"""A picture as data: boxes, wires and frames with positions, in points, y upwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from microgrid.tensor import Tensor
from viz import theme
from viz.labels import Content, text_width

Point = tuple[float, float]
Route = tuple[Point, ...]
"""A piecewise cubic Bézier curve: 3n + 1 points, the last where the arrowhead touches."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node: its content, its centre and its size; the tensor that it shows, and at which timestep."""

    id: str
    content: Content
    x: float
    y: float
    width: float
    height: float
    tensor: Tensor | None = None
    timestep: int | None = None

    @property
    def left(self) -> Point:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        return self.x + self.width / 2, self.y

    def side(self, direction: int) -> Point:
        """The middle of the right side, towards 1, or of the left, towards −1."""
        return self.right if direction > 0 else self.left

    def outline(self, direction: int, higher: float) -> Point:
        """The point of an ellipse's outline on a side, `higher` than the middle."""
        half = self.width / 2 * max(0.0, 1 - (2 * higher / self.height) ** 2) ** 0.5
        return self.x + direction * half, self.y + higher

    @property
    def top(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y - self.height / 2


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge along a route, with a label where it has one.

    `carries` are the reads for which it stands: the reader, and the number of its operand. `strength` is the size of
    the gradient through it, from 0 to 1 on the picture's scale; −1 where none flows, None where it is not shown.
    """

    tail: str
    head: str
    kind: str
    route: Route
    carries: tuple[tuple[Tensor, int], ...] = ()
    label: str = ""
    label_at: Point = (0.0, 0.0)
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle around a timestep."""

    id: str
    label: str
    label_x: float
    left: float
    bottom: float
    right: float
    top: float

    def side(self, direction: int) -> float:
        """The right border, towards 1, or the left, towards −1."""
        return self.right if direction > 0 else self.left


@dataclass(frozen=True, slots=True)
class Caption:
    """A line of text on its own, by its centre."""

    id: str
    text: str
    x: float
    y: float
    size: float = 13.0


@dataclass(frozen=True, slots=True)
class Legend:
    """The scale of the edges' strengths, by the middle of its left end: a title, and texts along it, from 0 to 1."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    x: float
    y: float
    width: float = 180.0


@dataclass(slots=True)
class Scene:
    """Everything on one picture."""

    boxes: dict[str, Box] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    frames: dict[str, Frame] = field(default_factory=dict)
    captions: list[Caption] = field(default_factory=list)
    legend: Legend | None = None

    def add(self, box: Box) -> Box:
        self.boxes[box.id] = box
        return box

    def wire(
        self,
        tail: str,
        head: str,
        kind: str,
        route: Route,
        carries: Sequence[tuple[Tensor, int]] = (),
        *,
        label: str = "",
        label_at: Point = (0.0, 0.0),
    ) -> None:
        self.wires.append(Wire(tail, head, kind, route, tuple(carries), label, label_at))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of all there is."""
        xs: list[float] = []
        ys: list[float] = []
        for box in self.boxes.values():
            xs += [box.left[0], box.right[0]]
            ys += [box.bottom[1], box.top[1]]
        for frame in self.frames.values():
            xs += [frame.left, frame.right]
            ys += [frame.bottom, frame.top]
        for wire in self.wires:
            xs += [x for x, _ in wire.route]
            ys += [y for _, y in wire.route]
            if wire.label:
                half = text_width(wire.label, theme.LABEL_SIZE) / 2
                xs += [wire.label_at[0] - half, wire.label_at[0] + half]
                ys += [wire.label_at[1] - 8, wire.label_at[1] + 8]
        for caption in self.captions:
            half = text_width(caption.text, caption.size) / 2
            xs += [caption.x - half, caption.x + half]
            ys += [caption.y - caption.size, caption.y + caption.size]
        if self.legend is not None:
            xs += [self.legend.x - 24, self.legend.x + self.legend.width + 24]
            ys += [self.legend.y - 24, self.legend.y + 24]
        return min(xs), min(ys), max(xs), max(ys)

    def moved(self, dx: float, dy: float, prefix: str = "") -> Scene:
        """The same scene elsewhere, its ids behind `prefix`."""
        return Scene(
            {prefix + k: replace(b, id=prefix + b.id, x=b.x + dx, y=b.y + dy) for k, b in self.boxes.items()},
            [
                replace(
                    wire,
                    tail=prefix + wire.tail,
                    head=prefix + wire.head,
                    route=moved(wire.route, dx, dy),
                    label_at=(wire.label_at[0] + dx, wire.label_at[1] + dy),
                )
                for wire in self.wires
            ],
            {
                prefix + k: replace(
                    f,
                    id=prefix + f.id,
                    label_x=f.label_x + dx,
                    left=f.left + dx,
                    right=f.right + dx,
                    bottom=f.bottom + dy,
                    top=f.top + dy,
                )
                for k, f in self.frames.items()
            },
            [replace(c, id=prefix + c.id, x=c.x + dx, y=c.y + dy) for c in self.captions],
            replace(self.legend, x=self.legend.x + dx, y=self.legend.y + dy) if self.legend is not None else None,
        )

    def joined(self, others: Iterable[Scene]) -> Scene:
        """This scene and others on one picture; their ids must differ."""
        whole = Scene(dict(self.boxes), list(self.wires), dict(self.frames), list(self.captions), self.legend)
        for other in others:
            whole.boxes |= other.boxes
            whole.wires += other.wires
            whole.frames |= other.frames
            whole.captions += other.captions
        return whole


def moved(route: Route, dx: float, dy: float) -> Route:
    return tuple((x + dx, y + dy) for x, y in route)


def straight(start: Point, end: Point) -> Route:
    """A straight line as a curve."""
    (x0, y0), (x1, y1) = start, end
    return (
        start,
        (x0 + (x1 - x0) / 3, y0 + (y1 - y0) / 3),
        (x0 + 2 * (x1 - x0) / 3, y0 + 2 * (y1 - y0) / 3),
        end,
    )


def upright(start: Point, end: Point) -> Route:
    """A curve that leaves and arrives vertically."""
    middle = (start[1] + end[1]) / 2
    return (start, (start[0], middle), (end[0], middle), end)


def upright_into(start: Point, inside: Route) -> Route:
    """A curve that leaves vertically and runs on into `inside` without a bend; then `inside` itself."""
    port, ahead = inside[0], inside[1]
    rise = (port[1] - start[1]) / 2
    slope = (ahead[0] - port[0]) / (ahead[1] - port[1]) if (ahead[1] - port[1]) * rise > 0 else 0.0
    lean = max(-2.0, min(2.0, slope))
    way = (start, (start[0], start[1] + rise), (port[0] - lean * rise, port[1] - rise), port)
    return chained(way, inside)


def level(start: Point, end: Point) -> Route:
    """A curve that leaves and arrives horizontally."""
    middle = (start[0] + end[0]) / 2
    return (start, (middle, start[1]), (middle, end[1]), end)


def chained(*routes: Route) -> Route:
    """Routes one after the other, as one."""
    whole = routes[0]
    for route in routes[1:]:
        whole = whole + route[1:]
    return whole


def rounded(corners: list[Point], radius: float) -> Route:
    """A line through right-angled corners, with rounded bends."""
    route: Route = ()
    start = corners[0]
    for corner, after in itertools.pairwise(corners[1:]):
        into, out = towards(corner, start, radius), towards(corner, after, radius)
        piece = chained(straight(start, into), (into, corner, corner, out))
        route = chained(route, piece) if route else piece
        start = out
    last = straight(start, corners[-1])
    return chained(route, last) if route else last


def towards(start: Point, end: Point, distance: float) -> Point:
    """The point `distance` from `start` on the way to `end`, at most half-way."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(distance / length, 0.5)
    return start[0] + dx * share, start[1] + dy * share
