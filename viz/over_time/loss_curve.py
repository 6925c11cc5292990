"""loss_curve: how a loss fell, from what mg.fit returns or writes, or from plain numbers."""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.errors import FileFormatError, OperandTypeError, SequenceError
from microgrid.tensor import Tensor
from microgrid.training.history import History
from viz.over_time.canvas import axes_for, figure_of, label, legend, whole_ticks, written
from viz.over_time.lines import DASHES, draw_finite, marks_drawn
from viz.theme import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, float]

LOSSES = ("train", "training", "validation", "valid", "val", "test")
"""Names of losses beside those that end so."""

PROGRESS = ("epoch", "step")
"""Columns that say how far training was, the first one first."""

OTHER = ("seconds", "learning rate", "gradient norm")


def loss_curve(
    log: History | str | os.PathLike[str] | Mapping[str, Iterable[float]] | Sequence[float], *, ax: Axes | None = None
) -> Figure:
    """Plot losses over training: those of the training data, and of validation data where there are any.

    The axis is logarithmic where the losses are above 0 and span a decade. The lowest, of the validation
    losses where there are some, is marked. A loss that is not finite stands as × at the top.

    Parameters
    ----------
    log : History, path, mapping or sequence
        What `mg.fit` returned; a file of comma-separated values that its `log=` wrote; a list of losses
        by name, of which "epoch" or "step" are the horizontal axis; or one list of losses.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    SequenceError
        If there is no loss to plot.
    FileFormatError
        If the file is no such table.
    MissingExtraError
        Without matplotlib.

    Examples
    --------
    >>> import viz
    >>> history = mg.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.02}])
    >>> ax = viz.loss_curve(history).axes[0]
    >>> ax.get_xlabel(), ax.get_yscale(), ax.lines[0].get_ydata().tolist()
    ('epoch', 'log', [0.5, 0.02])
    """
    rows = rows_of(log)
    names = loss_columns(rows)
    across = next((name for name in PROGRESS if any(name in row for row in rows)), None)
    ax = axes_for(ax, "loss_curve")
    handles, entries, shown = [], [], []
    points = {name: curve(rows, name, across) for name in names}
    marked = best_of(points)
    for i, (name, (x, y)) in enumerate(points.items()):
        looks = {"color": SERIES[i % len(SERIES)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.8}
        shown.append(y[np.isfinite(y)])
        handles.append(draw_finite(ax, x, y, **looks))
        entries.append(written(name))
    values = np.concatenate(shown)
    if values.size and values.min() > 0 and values.max() >= 10 * values.min():
        ax.set_yscale("log")
    if marked is not None:
        name, at, lowest = marked
        (ring,) = ax.plot([at], [lowest], "o", markersize=9, markerfacecolor="none", color="0.35", gid="best")
        handles.append(ring)
        of = f" {written(name)}" if len(names) > 1 else ""
        entries.append(f"lowest{of}: {lowest:.4g}, {across or 'number'} {at:g}")
    ax.grid(alpha=0.25)
    whole_ticks(ax.xaxis)
    marks, meanings = marks_drawn(ax)
    legend(ax, handles + marks, entries + meanings)
    label(ax, x=across or "number in the list", y="loss", title="Loss over training")
    return figure_of(ax)


def rows_of(log: Any) -> Sequence[Row]:
    """Whatever tells of losses, as a row per epoch or step."""
    if isinstance(log, History):
        return log.rows
    if isinstance(log, str | os.PathLike):
        return rows_of_file(log)
    if isinstance(log, Mapping):
        columns = {name: [number(value, name) for value in column] for name, column in log.items()}
        return [
            {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            for row in itertools.zip_longest(*columns.values())
        ]
    if isinstance(log, Iterable):
        rows = list(log)
        if rows and all(isinstance(row, Mapping) for row in rows):
            return rows
        return [{"loss": number(value, "the list")} for value in rows]
    raise OperandTypeError(
        f"viz.loss_curve takes what mg.fit returned, the path of its log, or lists of losses, not {type(log).__name__}"
    )


def number(value: Any, where: str) -> float:
    if isinstance(value, Tensor):
        value = value.value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise OperandTypeError(f"{where!r} holds {value!r:.40}, which is no number") from None


def rows_of_file(path: str | os.PathLike[str]) -> Sequence[Row]:
    """The rows of a file of comma-separated values; empty cells are left out."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                {name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file, strict=True)
            ]
    except (csv.Error, ValueError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{os.fspath(path)!r} is no table of losses, as log= of mg.fit writes one: {error}"
        ) from None


def loss_columns(rows: Sequence[Row]) -> list[str]:
    """The columns to plot: those called a loss, or else all that are not known to be something else."""
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in PROGRESS + OTHER]
    named = [name for name in columns if str(name).endswith("loss") or name in LOSSES]
    if not columns:
        found = "it has no rows yet" if not rows else f"its columns are {', '.join(map(repr, rows[0]))}"
        raise SequenceError(f"there is no loss to plot: {found}")
    return named or columns


def curve(rows: Sequence[Row], name: str, across: str | None) -> tuple[Any, Any]:
    """Where a column has values, and these."""
    pairs = [(row.get(across, math.nan) if across else i, row[name]) for i, row in enumerate(rows, 1) if name in row]
    x, y = np.array(pairs, np.float64).T
    return x, y


def best_of(points: Mapping[str, tuple[Any, Any]]) -> tuple[str, float, float] | None:
    """(column, place, value) of the lowest loss: of validation where there is any."""
    for name in [*(name for name in points if "val" in str(name).lower()), *points]:
        x, y = points[name]
        if np.isfinite(y).any():
            lowest = int(np.nanargmin(np.where(np.isfinite(y), y, np.nan)))
            return name, float(x[lowest]), float(y[lowest])
    return None
