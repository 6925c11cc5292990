"""Every colour, shape, font and distance of the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from microgrid.errors import OperandError, did_you_mean
from viz.colour import oklch

FONT = "Helvetica"
"""Graphviz writes it to SVG with a sans-serif fallback; widths are reckoned in labels.py."""

MAIN_SIZE, LABEL_SIZE, SMALL_SIZE = 12.0, 11.0, 11.0
"""Font sizes in points: names and operations; timesteps and delays; shapes, values and gradients."""

RANK_GAP, NODE_GAP = 28.0, 13.0
"""Distances within a timestep, in points."""

STEP_GAP, ROW_GAP, MARGIN = 28.0, 44.0, 12.0
"""Between timesteps; between the timesteps and the rows of shared nodes; around the picture."""

CELL_WIDTH, CELL_HEIGHT, MOST_CELLS = 4.0, 8.0, 24
"""Of the strip that shows an array on a node."""


@dataclass(frozen=True, slots=True)
class NodeStyle:
    """How one kind of node looks; shape and outline tell kinds apart without colour."""

    shape: str
    fill: str
    line: str
    style: str = "filled"
    pen: float = 1.2
    peripheries: int = 1


@dataclass(frozen=True, slots=True)
class EdgeStyle:
    """How one kind of edge looks."""

    color: str
    pen: float = 1.2
    style: str = "solid"
    arrow: float = 0.7


@dataclass(frozen=True)
class Theme:
    """The looks of a whole picture.

    Attributes
    ----------
    nodes, edges : mapping of kind → style
    ink, quiet_ink, background, cluster_fill, cluster_line : str
        Colours of text, of small text, and behind it.
    forward, focus : str
        In the player: of what the forward pass computes now, and of what the keyboard points at.
    weakest, strongest : (lightness, chroma, hue)
        The ends of the scale for the size of a gradient: of one hue, in equal steps of lightness.
    negative, zero, positive : (lightness, chroma, hue)
        The ends and the middle of the scale for signed numbers.
    """

    name: str
    forward: str
    focus: str
    nodes: Mapping[str, NodeStyle]
    edges: Mapping[str, EdgeStyle]
    ink: str
    quiet_ink: str
    background: str
    cluster_fill: str
    cluster_line: str
    weakest: tuple[float, float, float]
    strongest: tuple[float, float, float]
    negative: tuple[float, float, float]
    zero: tuple[float, float, float]
    positive: tuple[float, float, float]

    def strength(self, share: float) -> str:
        """The colour of a size between the weakest (0) and the strongest (1)."""
        return between(self.weakest, self.strongest, share)

    def signed(self, number: float) -> str:
        """The colour of a number from −1 to 1."""
        return between(self.zero, self.negative if number < 0 else self.positive, abs(number))


def between(start: tuple[float, float, float], end: tuple[float, float, float], share: float) -> str:
    (l0, c0, _), (l1, c1, hue) = start, end
    share = min(1.0, max(0.0, share))
    return oklch(l0 + share * (l1 - l0), c0 + share * (c1 - c0), hue)


def theme(name: str | Theme) -> Theme:
    """The theme of a name: "light", "dark" or "print"."""
    if isinstance(name, Theme):
        return name
    if name not in THEMES:
        raise OperandError(f"there is no theme {name!r}. {did_you_mean(str(name), THEMES)}")
    return THEMES[name]


LIGHT = Theme(
    name="light",
    forward="#0b62c4",
    focus="#0a66d6",
    nodes={
        "input": NodeStyle("ellipse", "#dbe9fb", "#33659e"),
        "parameter": NodeStyle("cylinder", "#dcf3e3", "#2f7d4f"),
        "state": NodeStyle("ellipse", "#ffe38a", "#8a5a00", pen=2.2),
        "next": NodeStyle("box", "#ffe38a", "#8a5a00", "rounded,filled", pen=2.2),
        "operation": NodeStyle("box", "#ffffff", "#4a5562", "rounded,filled"),
        "reduction": NodeStyle("hexagon", "#ece6f7", "#5f4b97"),
        "output": NodeStyle("box", "#fbdfe3", "#a02c44", peripheries=2),
        "leaf": NodeStyle("box", "#f1f3f5", "#4a5562", "filled"),
        "cell": NodeStyle("box", "#ffe38a", "#8a5a00", "rounded,filled", pen=3.0),
        "part": NodeStyle("box", "#e4e9ee", "#4a5562", "rounded,filled", pen=3.0),
        "output cell": NodeStyle("box", "#ffe38a", "#8a5a00", "rounded,filled", pen=2.0, peripheries=2),
        "output part": NodeStyle("box", "#e4e9ee", "#4a5562", "rounded,filled", pen=2.0, peripheries=2),
        "gap": NodeStyle("box", "#f5f7f9", "#6f7b87", "rounded,filled,dashed"),
    },
    edges={
        "operand": EdgeStyle("#4a5562"),
        "state": EdgeStyle("#ad5b00"),
        "delay": EdgeStyle("#ad5b00", pen=2.4, arrow=0.9),
        "delay back": EdgeStyle("#ad5b00", pen=2.4, style="dashed", arrow=0.9),
        "weight": EdgeStyle("#5f9c79", pen=0.9, arrow=0.6),
        "over time": EdgeStyle("#8172b0", pen=1.1),
        "tie": EdgeStyle("#2f7d4f", pen=1.6, style="dotted", arrow=0.0),
    },
    ink="#1f2933",
    quiet_ink="#4f5b67",
    background="#ffffff",
    cluster_fill="#f5f7f9",
    cluster_line="#c3ccd5",
    weakest=(0.65, 0.07, 300.0),
    strongest=(0.36, 0.22, 300.0),
    negative=(0.45, 0.15, 255.0),
    zero=(0.97, 0.0, 0.0),
    positive=(0.58, 0.17, 50.0),
)

DARK = Theme(
    name="dark",
    forward="#6fb4ff",
    focus="#7db6ff",
    nodes={
        "input": NodeStyle("ellipse", "#1d3a5c", "#7fb2ec"),
        "parameter": NodeStyle("cylinder", "#1c4430", "#79cf9c"),
        "state": NodeStyle("ellipse", "#5a4300", "#f0c040", pen=2.2),
        "next": NodeStyle("box", "#5a4300", "#f0c040", "rounded,filled", pen=2.2),
        "operation": NodeStyle("box", "#262d35", "#a9b4bf", "rounded,filled"),
        "reduction": NodeStyle("hexagon", "#372d57", "#b7a5ee"),
        "output": NodeStyle("box", "#5a1f2d", "#f08ca0", peripheries=2),
        "leaf": NodeStyle("box", "#2f363e", "#a9b4bf", "filled"),
        "cell": NodeStyle("box", "#5a4300", "#f0c040", "rounded,filled", pen=3.0),
        "part": NodeStyle("box", "#343c45", "#a9b4bf", "rounded,filled", pen=3.0),
        "output cell": NodeStyle("box", "#5a4300", "#f0c040", "rounded,filled", pen=2.0, peripheries=2),
        "output part": NodeStyle("box", "#343c45", "#a9b4bf", "rounded,filled", pen=2.0, peripheries=2),
        "gap": NodeStyle("box", "#1b2026", "#84909c", "rounded,filled,dashed"),
    },
    edges={
        "operand": EdgeStyle("#a9b4bf"),
        "state": EdgeStyle("#f2a33c"),
        "delay": EdgeStyle("#f2a33c", pen=2.4, arrow=0.9),
        "delay back": EdgeStyle("#f2a33c", pen=2.4, style="dashed", arrow=0.9),
        "weight": EdgeStyle("#5b9b77", pen=0.9, arrow=0.6),
        "over time": EdgeStyle("#9a8ad0", pen=1.1),
        "tie": EdgeStyle("#79cf9c", pen=1.6, style="dotted", arrow=0.0),
    },
    ink="#eef1f4",
    quiet_ink="#c4ccd4",
    background="#12161b",
    cluster_fill="#1b2026",
    cluster_line="#46505a",
    weakest=(0.54, 0.07, 300.0),
    strongest=(0.86, 0.16, 300.0),
    negative=(0.62, 0.15, 255.0),
    zero=(0.28, 0.0, 0.0),
    positive=(0.72, 0.16, 60.0),
)

PRINT = Theme(
    name="print",
    forward="#000000",
    focus="#000000",
    nodes={
        "input": NodeStyle("ellipse", "#ffffff", "#000000"),
        "parameter": NodeStyle("cylinder", "#ffffff", "#000000"),
        "state": NodeStyle("ellipse", "#dddddd", "#000000", pen=2.2),
        "next": NodeStyle("box", "#dddddd", "#000000", "rounded,filled", pen=2.2),
        "operation": NodeStyle("box", "#ffffff", "#000000", "rounded,filled"),
        "reduction": NodeStyle("hexagon", "#ffffff", "#000000"),
        "output": NodeStyle("box", "#ffffff", "#000000", peripheries=2),
        "leaf": NodeStyle("box", "#ffffff", "#000000", "filled"),
        "cell": NodeStyle("box", "#dddddd", "#000000", "rounded,filled", pen=3.0),
        "part": NodeStyle("box", "#ffffff", "#000000", "rounded,filled", pen=3.0),
        "output cell": NodeStyle("box", "#dddddd", "#000000", "rounded,filled", pen=2.0, peripheries=2),
        "output part": NodeStyle("box", "#ffffff", "#000000", "rounded,filled", pen=2.0, peripheries=2),
        "gap": NodeStyle("box", "#ffffff", "#555555", "rounded,filled,dashed"),
    },
    edges={
        "operand": EdgeStyle("#333333"),
        "state": EdgeStyle("#000000"),
        "delay": EdgeStyle("#000000", pen=2.6, arrow=0.9),
        "delay back": EdgeStyle("#000000", pen=2.6, style="dashed", arrow=0.9),
        "weight": EdgeStyle("#777777", pen=0.7, arrow=0.6),
        "over time": EdgeStyle("#777777", pen=1.1, style="dotted"),
        "tie": EdgeStyle("#333333", pen=1.6, style="dotted", arrow=0.0),
    },
    ink="#000000",
    quiet_ink="#333333",
    background="#ffffff",
    cluster_fill="#ffffff",
    cluster_line="#999999",
    weakest=(0.66, 0.0, 0.0),
    strongest=(0.0, 0.0, 0.0),
    negative=(0.25, 0.0, 0.0),
    zero=(1.0, 0.0, 0.0),
    positive=(0.55, 0.0, 0.0),
)

THEMES = {each.name: each for each in (LIGHT, DARK, PRINT)}

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Lines of a plot, apart for the colour-blind. Source: M. Okabe and K. Ito, Color universal design (2008)."""
