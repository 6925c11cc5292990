"""Draw one LSTM with viz, torchviz and torchview, and measure the pictures: `python docs/make_comparison.py`.

    pip install -e '.[bench]'

The same cell with the same weights is written for both engines, and its outputs must agree before anything is drawn.
The pictures go to docs/comparison, the measured table into docs/comparison.md and onto the terminal.

What is measured is read off the SVG that Graphviz makes of each picture, so the same code judges all of them.
"""

from __future__ import annotations

import importlib.metadata
import io
import itertools
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from networks import lstm

import microgrid as mg
import viz
from viz.render import render

try:
    import torch
    import torchview
    import torchviz
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageFont
except ImportError as missing:
    sys.exit(f"{missing.name} is not installed, and this compares with it: pip install -e '.[bench]'")

DOCS = Path(__file__).parent
OUT, PAGE = DOCS / "comparison", DOCS / "comparison.md"

STEPS, UNITS = 4, 16
WIDTH, SCREEN_HEIGHT = 1200, 800
"""Pixels: the width at which all pictures are judged, and the height of a screen of that width."""

READABLE = 10
"""Pixels: a label is called readable from this font size on."""

SAME_PLACE = 3.0
"""Points: crossings of two edges this near to an end that they share are not counted, nor are two so near twice."""

TOGETHER = 3.0
"""Points: edges of one tail that are this near to one another run as one line."""

NAMES = ("x", "h", "c", "W", "U", "b", "V", "z", "i", "f", "o", "g", "y")
"""What the equations of an LSTM are written with."""

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"


# The model, three times -------------------------------------------------------------------------------------------


class ByHand(torch.nn.Module):
    """The cell of networks.lstm, line for line."""

    def __init__(self, weights: dict[str, Array]) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))
        self.steps: list[list[object]] = []
        """What torchviz draws of z, c, h and y, at each timestep."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(1, UNITS, dtype=x.dtype)
        ys = []
        self.steps.clear()
        for row in x:
            z = row @ self.W + h @ self.U + self.b
            i, f, o, g = z.chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h @ self.V)
            self.steps.append([result.grad_fn for result in (z, c, h, ys[-1])])
        return torch.stack(ys)


class CellInALoop(torch.nn.Module):
    """The same with torch.nn.LSTMCell and torch.nn.Linear."""

    def __init__(self, weights: dict[str, Array]) -> None:
        super().__init__()
        self.cell = torch.nn.LSTMCell(8, UNITS, dtype=torch.float64)
        self.readout = readout(weights)
        fill(self.cell, weights, "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(1, UNITS, dtype=x.dtype)
        ys = []
        for row in x:
            h, c = self.cell(row, (h, c))
            ys.append(self.readout(h))
        return torch.stack(ys)


class WholeLayer(torch.nn.Module):
    """The same with torch.nn.LSTM, which runs its own loop."""

    def __init__(self, weights: dict[str, Array]) -> None:
        super().__init__()
        self.layer = torch.nn.LSTM(8, UNITS, dtype=torch.float64)
        self.readout = readout(weights)
        fill(self.layer, weights, "_l0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.readout(self.layer(x)[0])
        return y


def readout(weights: dict[str, Array]) -> torch.nn.Linear:
    linear = torch.nn.Linear(UNITS, 2, bias=False, dtype=torch.float64)
    linear.weight.data = torch.tensor(weights["V"].T)
    return linear


def fill(module: torch.nn.Module, weights: dict[str, Array], suffix: str) -> None:
    """Torch keeps the gates in the order i, f, g, o, its matrices transposed, and two biases."""
    i, f, o, g = (np.arange(UNITS) + UNITS * k for k in range(4))
    order = np.concatenate([i, f, g, o])
    for name, value in {
        "weight_ih": weights["W"].T[order],
        "weight_hh": weights["U"].T[order],
        "bias_ih": weights["b"][order],
        "bias_hh": np.zeros(4 * UNITS),
    }.items():
        getattr(module, name + suffix).data = torch.tensor(np.ascontiguousarray(value))


def check_that_all_agree(net: mg.Graph, models: Sequence[torch.nn.Module]) -> float:
    """The largest difference between our outputs and theirs; an error if it is more than 1e-6."""
    xs = np.random.default_rng(0).normal(size=(STEPS, 1, 8))
    dag = net.unroll(x=xs)
    ours = np.stack([dag["y", t].value for t in range(STEPS)])
    furthest = max(float(np.abs(model(torch.tensor(xs)).detach().numpy() - ours).max()) for model in models)
    if furthest > 1e-6:
        raise ValueError(f"the models differ by {furthest:.1g}: there is nothing to compare")
    return furthest


# Their pictures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """A picture to judge.

    `steps` names nodes of each timestep, the same ones in the same order, as the SVG does; empty where the picture
    has none.
    """

    source: str
    engine: str
    steps: list[list[str]] = field(default_factory=list)


def by_viz(net: mg.Graph, level: str, steps: int) -> Drawing:
    picture = viz.draw(net.unroll(steps=steps), level=level)
    boxes = picture.scene.boxes.values()
    return Drawing(picture.source, "nop2", [[box.id for box in boxes if box.timestep == t] for t in range(steps)])


def by_torchviz(model: torch.nn.Module, steps: int) -> Drawing:
    y = model(torch.zeros(steps, 1, 8))
    dot = torchviz.make_dot(y, params=dict(model.named_parameters()))
    rows = model.steps if isinstance(model, ByHand) else []
    return Drawing(dot.source, "dot", [[str(id(drawn)) for drawn in row] for row in rows])


def by_torchview(model: torch.nn.Module, steps: int, *, every_operation: bool = False, roll: bool = False) -> Drawing:
    x = torch.zeros(steps, 1, 8)
    shown = torchview.draw_graph(
        model, input_data=(x,), device="cpu", hide_module_functions=not every_operation, roll=roll
    )
    source = shown.visual_graph.source
    called: dict[str, list[str]] = {}
    for title, name in re.findall(r'^\t(\d+) \[label=.*?<TD ROWSPAN="2">(\w+)<BR', source, re.MULTILINE | re.DOTALL):
        called.setdefault(name, []).append(title)
    if roll:
        return Drawing(source, "dot")
    if every_operation:
        # in a timestep: x @ W, h @ U, their sum, z; f × c, i × g, c; h; y
        first, second = called["add"], called["mul"]
        products = called["matmul"]
        rows = [[first[3 * t + 1], first[3 * t + 2], second[3 * t + 2], products[3 * t + 2]] for t in range(steps)]
        return Drawing(source, "dot", rows)
    cells = zip(called.get("LSTMCell", []), called.get("Linear", []), strict=False)  # nn.LSTM has one box for all steps
    return Drawing(source, "dot", [list(cell) for cell in cells])


# What is on a picture ---------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Text:
    """A line of text: its size and its rectangle, in points."""

    words: str
    size: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Line:
    """An edge as points along its curve."""

    tail: str
    head: str
    look: tuple[str, ...]
    points: Array


@dataclass(frozen=True)
class Sheet:
    """An SVG of Graphviz, read back, in points."""

    width: float
    height: float
    nodes: dict[str, tuple[float, float, float, float]]
    texts: dict[str, list[Text]]
    others: list[Text]
    lines: list[Line]
    frames: int

    @property
    def all_texts(self) -> list[Text]:
        return [*itertools.chain(*self.texts.values()), *self.others]


def read(svg: bytes) -> Sheet:
    root = ET.fromstring(svg)
    width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    whole = next(root.iter(f"{SVG}g"))
    found = re.search(r"scale\(([\d.]+)", whole.attrib["transform"])
    scale = float(found.group(1)) if found else 1.0
    nodes, texts, lines, frames = {}, {}, [], 0
    others: list[Text] = []
    for group in whole.iter(f"{SVG}g"):
        kind, title = group.get("class"), group.findtext(f"{SVG}title", "")
        if kind == "node":
            outline = np.concatenate(
                [points(shape) for shape in group.iter() if shape.tag in SHAPES] or [np.zeros((1, 2))]
            )
            (left, top), (right, bottom) = outline.min(0) * scale, outline.max(0) * scale
            nodes[title] = (left, top, right, bottom)
            texts[title] = [text_of(element, scale) for element in group.iter(f"{SVG}text")]
        elif kind == "edge":
            path = next(group.iter(f"{SVG}path"))
            tail, _, head = title.partition("->")
            look = tuple(path.get(name, "") for name in ("stroke", "stroke-width", "stroke-dasharray"))
            lines.append(Line(tail.split(":")[0], head.split(":")[0], look, curve(points(path)) * scale))
            others += [text_of(element, scale) for element in group.iter(f"{SVG}text")]
        elif kind == "cluster":
            frames += 1
            others += [text_of(element, scale) for element in group.iter(f"{SVG}text")]
    return Sheet(width, height, nodes, texts, others, lines, frames)


SHAPES = {f"{SVG}polygon", f"{SVG}path", f"{SVG}ellipse"}


def points(shape: ET.Element) -> Array:
    if shape.tag == f"{SVG}ellipse":
        cx, cy, rx, ry = (float(shape.attrib[name]) for name in ("cx", "cy", "rx", "ry"))
        return np.array([[cx - rx, cy - ry], [cx + rx, cy + ry]])
    numbers = re.findall(r"-?\d+(?:\.\d+)?", shape.get("points") or shape.get("d") or "")
    return np.array(numbers, float).reshape(-1, 2)


def curve(handles: Array, samples: int = 33) -> Array:
    """Points along a piecewise cubic Bézier curve."""
    s = np.linspace(0, 1, samples)[:, None]
    pieces = [handles[start : start + 4] for start in range(0, len(handles) - 1, 3)]
    return np.concatenate(
        [(1 - s) ** 3 * a + 3 * (1 - s) ** 2 * s * b + 3 * (1 - s) * s**2 * c + s**3 * d for a, b, c, d in pieces]
    )


def text_of(element: ET.Element, scale: float) -> Text:
    """The rectangle of its ink, as matplotlib's own fonts write it: as wide as any that Graphviz would take."""
    words = "".join(element.itertext()).strip()
    family = "DejaVu Sans Mono" if "mono" in element.attrib["font-family"] else "DejaVu Sans"
    size = float(element.attrib["font-size"]) * scale
    x, y = float(element.attrib["x"]) * scale, float(element.attrib["y"]) * scale
    font = ImageFont.truetype(findfont(family), 100)
    width = font.getlength(words) * size / 100
    x -= {"middle": width / 2, "end": width}.get(element.get("text-anchor", "start"), 0.0)
    left, top, right, bottom = (side * size / 100 for side in font.getbbox(words, anchor="ls"))
    return Text(words, size, x + left, y + top, x + right, y + bottom)


# What is measured -------------------------------------------------------------------------------------------------


def crossings(lines: Sequence[Line]) -> int:
    """At how many places two edges cross, but for the ends that they share.

    Edges of one tail that run as one line cross another one once.
    """
    found: dict[frozenset[str], list[Array]] = {}
    for one, other in itertools.combinations(lines, 2):
        known = found.setdefault(frozenset((one.tail, other.tail)), [])
        known += [place for place in places(one, other) if all(np.hypot(*(place - k)) > SAME_PLACE for k in known)]
    return sum(map(len, found.values()))


def alone(line: Line, other: Line) -> Array:
    """The points of a line behind the part on which it runs together with another of the same tail."""
    if line.tail != other.tail:
        return line.points
    away = np.array([np.hypot(*(other.points - point).T).min() for point in line.points]) > TOGETHER
    return line.points[int(np.argmax(away)) :] if away.any() else line.points[-1:]


def places(one: Line, other: Line) -> Iterator[Array]:
    a, b = alone(one, other), alone(other, one)
    if (a.max(0) < b.min(0)).any() or (b.max(0) < a.min(0)).any():
        return
    p, r, q, s = a[:-1, None], np.diff(a, axis=0)[:, None], b[None, :-1], np.diff(b, axis=0)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        t, u = cross(q - p, s) / cross(r, s), cross(q - p, r) / cross(r, s)
    shared = {one.tail, one.head} & {other.tail, other.head}
    ends = [
        line.points[end] for line in (one, other) for end, node in ((0, line.tail), (-1, line.head)) if node in shared
    ]
    if one.tail == other.tail:
        ends += [a[0], b[0]]  # where they part
    kept: list[Array] = []
    for i, j in zip(*np.nonzero((t >= 0) & (t < 1) & (u >= 0) & (u < 1)), strict=True):
        place = a[i] + t[i, j] * (a[i + 1] - a[i])
        if all(np.hypot(*(place - near)) > SAME_PLACE for near in [*ends, *kept]):
            kept.append(place)
            yield place


def cross(a: Array, b: Array) -> Array:
    product: Array = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def without_weights(sheet: Sheet) -> list[Line]:
    """The edges that do not start at a weight, or at the node that torchviz puts behind one."""
    weights = {title for title, texts in sheet.texts.items() if texts and texts[0].words in (*"WUbV", "AccumulateGrad")}
    return [line for line in sheet.lines if line.tail not in weights]


def through_nodes(sheet: Sheet) -> int:
    """How many edges run through a node that is not theirs."""
    count = 0
    for line in sheet.lines:
        for title, (left, top, right, bottom) in sheet.nodes.items():
            if title not in (line.tail, line.head):
                x, y = line.points.T
                count += bool(((x > left + 2) & (x < right - 2) & (y > top + 2) & (y < bottom - 2)).any())
    return count


def touching(texts: Sequence[Text]) -> int:
    """How many pairs of texts there are whose rectangles of ink share some of their area."""
    return sum(
        min(a.right, b.right) > max(a.left, b.left) and min(a.bottom, b.bottom) > max(a.top, b.top)
        for a, b in itertools.combinations(texts, 2)
    )


def drawn_names(sheet: Sheet) -> list[str]:
    """Those of the equations' names that stand in the picture: alone, in an equation or before its sign."""
    said = (re.sub(r"\d+ x \(", "", text.words) for text in sheet.all_texts)  # torchview's "2 x (1, 16)" names no x
    words = {word for text in said for word in re.findall(r"(?<!\w)[^\W\d_]+(?!\w)", text)}
    return [name for name in NAMES if name in words]


def times_drawn(sheet: Sheet) -> str:
    """How often each of the weights has a node of its own."""
    counts = [sum(bool(t) and t[0].words == name for t in sheet.texts.values()) for name in "WUbV"]
    return f"{counts[0]}" if len(set(counts)) == 1 else ", ".join(map(str, counts))


def drift(sheet: Sheet, steps: list[list[str]]) -> tuple[str, str]:
    """Where a step's first node goes from step to step; how far the others leave their places in the step."""
    if len(steps) < 2:
        return "–", "–"
    scale = WIDTH / sheet.width
    at = np.array([[middle(sheet.nodes[title]) for title in row] for row in steps]) * scale
    ways = np.diff(at[:, 0], axis=0)
    moves = "; ".join(dict.fromkeys(f"{x:+.0f}, {y:+.0f}" for x, y in ways))
    inside = at - at[:, :1]
    return moves, f"{np.abs(inside - inside[0]).max():.0f}"


def middle(rectangle: tuple[float, float, float, float]) -> tuple[float, float]:
    left, top, right, bottom = rectangle
    return (left + right) / 2, (top + bottom) / 2


def facts(make: Callable[[int], Drawing]) -> dict[str, str]:
    """Everything that is measured of a picture, which `make` draws for so many timesteps."""
    drawing = make(STEPS)
    sheet, shorter = (read(render(d.source, "svg", d.engine)) for d in (drawing, make(STEPS - 1)))
    texts = sheet.all_texts
    scale = WIDTH / sheet.width
    fits = min(scale, SCREEN_HEIGHT / sheet.height)
    smallest = min(text.size for text in texts)
    names = drawn_names(sheet)
    moves, left_place = drift(sheet, drawing.steps)
    return {
        "nodes": str(len(sheet.nodes)),
        "nodes for one more timestep": str(len(sheet.nodes) - len(shorter.nodes)),
        "edges": str(len(sheet.lines)),
        "crossings of edges": str(crossings(sheet.lines)),
        "crossings without the weights' edges": str(crossings(without_weights(sheet))),
        "edges through other nodes": str(through_nodes(sheet)),
        "looks of edges": str(len({line.look for line in sheet.lines})),
        "width × height, pt": f"{sheet.width:.0f} × {sheet.height:.0f}",
        f"height at {WIDTH:,} px wide": f"{sheet.height * scale:,.0f}",
        f"smallest label at {WIDTH:,} px wide, px": f"{smallest * scale:.1f}",
        f"labels below {READABLE} px there": f"{sum(t.size * scale < READABLE for t in texts)} of {len(texts)}",
        f"smallest label when all fits {WIDTH:,} × {SCREEN_HEIGHT}, px": f"{smallest * fits:.1f}",
        "timesteps marked": str(sum(bool(re.fullmatch(r"t = \d+", text.words)) for text in texts)),
        "way to the next timestep, px": moves,
        "leaves its place in the step by, px": left_place,
        "W, U, b, V drawn, times each": times_drawn(sheet),
        f"of {len(NAMES)} names in the equations": f"{len(names)}: {' '.join(names)}" if names else "0",
        "longest line of text": f"`{max((text.words for text in texts), key=len)}`",
        "pairs of labels that touch": str(touching(texts)),
    }


def save_png(drawing: Drawing, path: Path) -> None:
    """The picture WIDTH pixels wide, drawn twice as large and then halved, with a palette."""
    width = read(render(drawing.source, "svg", drawing.engine)).width
    source = drawing.source.replace("{", f"{{ dpi={72 * 2 * WIDTH / width:.4f}", 1)  # the last one given counts
    with Image.open(io.BytesIO(render(source, "png", drawing.engine))) as large:
        flat = Image.new("RGB", large.size, "white")
        flat.paste(large, mask=large.getchannel("A") if large.mode == "RGBA" else None)
    height = round(flat.height * WIDTH / flat.width)
    small = flat.resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def table(columns: dict[str, dict[str, str]]) -> str:
    """Markdown: a row for each fact, a column for each picture."""
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[fact, *(column[fact] for column in columns.values())] for fact in next(iter(columns.values()))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    torch.manual_seed(0)
    net = lstm()
    weights = {p.name.split(".")[-1]: np.asarray(p.value, float) for p in net.parameters}
    by_hand, in_a_loop, whole = models = ByHand(weights), CellInALoop(weights), WholeLayer(weights)
    furthest = check_that_all_agree(net, models)
    for model in models:
        model.float()  # as their users have them: torch has another LSTM for float32
    print(f"outputs agree to {furthest:.0e}")
    for name in ("torch", "torchviz", "torchview"):
        print(name, importlib.metadata.version(name))

    operations: dict[str, Callable[[int], Drawing]] = {
        "microgrid": lambda n: by_viz(net, "op", n),
        "torchviz": lambda n: by_torchviz(by_hand, n),
        "torchview": lambda n: by_torchview(by_hand, n, every_operation=True),
    }
    cells: dict[str, Callable[[int], Drawing]] = {
        "microgrid, cells": lambda n: by_viz(net, "cell", n),
        "torchview, `LSTMCell`": lambda n: by_torchview(in_a_loop, n),
    }
    also: dict[str, Callable[[int], Drawing]] = {
        "torchviz, `LSTMCell`": lambda n: by_torchviz(in_a_loop, n),
        "torchviz, `nn.LSTM`": lambda n: by_torchviz(whole, n),
        "torchview, by hand, as it comes": lambda n: by_torchview(by_hand, n),
        "torchview, `nn.LSTM`": lambda n: by_torchview(whole, n),
        "torchview, `LSTMCell`, `roll=True`": lambda n: by_torchview(in_a_loop, n, roll=True),
    }
    OUT.mkdir(exist_ok=True)
    for name, make in (operations | cells).items():
        path = OUT / f"{'_'.join(re.findall(r'[a-z]+', name.lower()))}.png"
        save_png(make(STEPS), path)
        with Image.open(path) as image:
            print(path.relative_to(DOCS.parent), *image.size, f"{path.stat().st_size / 1000:.0f} kB")
    measured = {name: facts(make) for name, make in (operations | cells).items()}
    rest = {name: facts(make) for name, make in also.items()}
    few = ("nodes", "nodes for one more timestep", "edges", "crossings of edges", "W, U, b, V drawn, times each")
    tables = (
        table(measured)
        + "\n\n"
        + "\n".join(
            [
                "| also | " + " | ".join(few) + " |",
                "| --- |" + " ---: |" * len(few),
                *(f"| {name} | " + " | ".join(column[fact] for fact in few) + " |" for name, column in rest.items()),
            ]
        )
    )
    print(f"\n{tables}")
    if PAGE.exists():
        page = PAGE.read_text(encoding="utf-8")
        block = f"<!-- measured -->\n\n{tables}\n\n<!-- end of measured -->"
        PAGE.write_text(
            re.sub(r"<!-- measured -->.*<!-- end of measured -->", lambda _: block, page, flags=re.DOTALL), "utf-8"
        )


if __name__ == "__main__":
    main()
