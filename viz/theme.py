"""Every colour, shape, font and distance of the pictures."""

from __future__ import annotations

from dataclasses import dataclass

FONT = "Helvetica"
"""Graphviz writes it to SVG with a sans-serif fallback; widths are reckoned in labels.py."""

MAIN_SIZE, LABEL_SIZE, SMALL_SIZE = 12.0, 11.0, 9.0
"""Font sizes in points: names and operations; timesteps and delays; shapes, values and gradients."""

INK, QUIET_INK = "#1f2933", "#5b6875"
BACKGROUND = "white"


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


NODES = {
    "input": NodeStyle("ellipse", "#dbe9fb", "#33659e"),
    "parameter": NodeStyle("cylinder", "#dcf3e3", "#2f7d4f"),
    "state": NodeStyle("ellipse", "#ffe38a", "#8a5a00", pen=2.2),
    "next": NodeStyle("box", "#ffe38a", "#8a5a00", "rounded,filled", pen=2.2),
    "operation": NodeStyle("box", "#ffffff", "#4a5562", "rounded,filled"),
    "reduction": NodeStyle("hexagon", "#ece6f7", "#5f4b97"),
    "output": NodeStyle("box", "#fbdfe3", "#a02c44", peripheries=2),
    "leaf": NodeStyle("box", "#f1f3f5", "#4a5562", "filled"),
}

EDGES = {
    "operand": EdgeStyle("#4a5562"),
    "state": EdgeStyle("#c46a00"),
    "delay": EdgeStyle("#c46a00", pen=2.4, arrow=0.9),
    "delay back": EdgeStyle("#c46a00", pen=2.4, style="dashed", arrow=0.9),
    "weight": EdgeStyle("#8cbfa0", pen=0.9, arrow=0.6),
    "over time": EdgeStyle("#8d7fb8", pen=1.1),
}

CLUSTER_FILL, CLUSTER_LINE = "#f5f7f9", "#c3ccd5"

RANK_GAP, NODE_GAP = 28.0, 18.0
"""Distances within a timestep, in points."""

STEP_GAP, ROW_GAP, MARGIN = 44.0, 44.0, 12.0
"""Between timesteps; between the timesteps and the rows of shared nodes; around the picture."""
