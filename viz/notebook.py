"""Graphs, unrolled graphs and tensors show themselves in notebooks, once viz is imported there."""

from __future__ import annotations

import html
import sys
from typing import Any

import numpy as np

from microgrid.graph import Graph
from microgrid.names import kind_of
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz import theme
from viz.picture import draw

MOST_NODES, MOST_CHARACTERS = 2_000, 1_500_000
"""Up to which size of a timestep, and of its picture, a graph is drawn by itself; `viz.draw` draws larger ones."""

ROWS, COLUMNS = 8, 32
"""Up to how many numbers of an array are shown as colours."""

SIDE = 12
"""Pixels from one of these to the next."""

CELL = "text-align: left; padding: 1px 8px; border: 0"


def register() -> None:
    """Tell IPython, where it runs, how to show what microgrid makes; elsewhere do nothing.

    >>> register()
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    for kind in (Graph, Unrolled):
        formatters["image/svg+xml"].for_type(kind, picture_or_none)
    formatters["text/html"].for_type(Tensor, card_or_none)


def picture_or_none(what: Graph | Unrolled) -> str | None:
    """A drawing as SVG; None, for which a notebook shows text, where it would be too large or drawing fails."""
    try:
        rolled = what if isinstance(what, Graph) else what.graph
        if len(rolled) > MOST_NODES:
            return None
        drawn = draw(what)._repr_svg_()
        return drawn if len(drawn) <= MOST_CHARACTERS else None
    except Exception:  # to look at something must not fail
        return None


def card_or_none(tensor: Tensor) -> str | None:
    """What a tensor is, as HTML; None where that fails."""
    try:
        return card(tensor)
    except Exception:
        return None


def card(tensor: Tensor) -> str:
    """A tensor as an HTML table: name, operation, shape, dtype, value and gradient, all text escaped.

    >>> "&lt;b&gt;" in card(mg.tensor(1.0, name="<b>"))
    True
    """
    title = "" if tensor.name is None else f"<b>{html.escape(tensor.name)}</b> "
    rows = {
        "": title + html.escape("tensor" if kind_of(tensor) == "constant" else kind_of(tensor)),
        "shape": " × ".join(map(str, tensor.shape)) or "scalar",
        "dtype": html.escape(str(tensor.dtype)),
        "value": numbers(tensor.value),
    }
    if tensor.grad is not None:
        rows["gradient"] = numbers(tensor.grad)
    return (
        f'<table style="border-left: 3px solid {theme.LIGHT.edges["delay"].color}">'
        + "".join(
            f'<tr style="background: none"><td style="{CELL}; opacity: 0.7">{what}</td>'
            f'<td style="{CELL}">{content}</td></tr>'
            for what, content in rows.items()
        )
        + "</table>"
    )


def numbers(held: Any) -> str:
    """A number as it is; of an array the range, and its first rows and columns as colours."""
    array = np.asarray(held)
    if array.ndim == 0:
        return html.escape(f"{array.item():.6g}")
    if array.size == 0:
        return "no elements"
    table = array.reshape(-1, array.shape[-1])
    corner = np.asarray(table[:ROWS, :COLUMNS], np.float64)
    finite = array[np.isfinite(array)].astype(np.float64)
    said = "nothing finite"
    if finite.size:
        with np.errstate(over="ignore"):
            said = f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    if finite.size < array.size:
        said += f", {array.size - finite.size} not finite"
    if corner.size < array.size:
        said += f"; the first {corner.shape[0]} × {corner.shape[1]} as colours"
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    squares = "".join(
        f'<rect x="{SIDE * j}" y="{SIDE * i}" width="{SIDE - 1}" height="{SIDE - 1}" fill="{colour(value / largest)}">'
        f"<title>{value:.6g}</title></rect>"
        for i, row in enumerate(corner)
        for j, value in enumerate(row)
    )
    width, height = SIDE * corner.shape[1], SIDE * corner.shape[0]
    return f'<svg width="{width}" height="{height}" style="display: block">{squares}</svg>{html.escape(said)}'


def colour(share: float) -> str:
    """The colour of a number from −1 to 1; grey where there is none."""
    return theme.LIGHT.signed(share) if np.isfinite(share) else theme.LIGHT.cluster_line
