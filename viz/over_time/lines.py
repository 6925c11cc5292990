"""Lines on a logarithmic axis that tell what such an axis cannot show: zeros, infinities and NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from viz.over_time.canvas import QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Of one line after the other, beside their colours."""

MARKS = {"exactly 0": ("v", 0.02), "not finite": ("x", 0.98)}
"""What stands for values that have no place on an axis, and at which share of its height."""

FEW_STEPS = 24
"""Up to which number of timesteps each gets a dot."""


def draw_finite(ax: Axes, x: Any, y: Any, **looks: Any) -> Line2D:
    """A line through the finite values, broken where there is none; × at the top for each infinity and NaN.

    Values that are masked are left out.
    """
    values, masked = np.ma.getdata(y), np.ma.getmaskarray(y)
    there = np.isfinite(values) & ~masked
    dots = there if len(values) <= FEW_STEPS else is_alone(there)
    shown = np.where(there, values, np.nan)
    if dots.any():
        looks = {"marker": "o", "markersize": 3.5, "markevery": np.flatnonzero(dots).tolist(), **looks}
    (line,) = ax.plot(x, shown, **looks)
    mark(ax, x[~np.isfinite(values) & ~masked], "not finite", line.get_color())
    return line


def draw_positive(ax: Axes, x: Any, y: Any, **looks: Any) -> Line2D:
    """The same on a logarithmic axis, with ▽ at the bottom for each 0."""
    zero = np.ma.getdata(y) == 0
    line = draw_finite(ax, x, np.ma.masked_where(zero, y), **looks)
    mark(ax, x[zero & ~np.ma.getmaskarray(y)], "exactly 0", line.get_color())
    return line


def mark(ax: Axes, x: Any, meaning: str, colour: Any) -> None:
    """A mark at the edge of the Axes for each x."""
    shape, height = MARKS[meaning]
    if len(x):
        ax.plot(
            x,
            np.full(len(x), height),
            shape,
            transform=ax.get_xaxis_transform(),
            markersize=6,
            markerfacecolor="none",
            color=colour,
            clip_on=False,
            gid=meaning,
        )


def is_alone(there: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which points have no neighbour to draw a line to."""
    padded = np.pad(there, 1)
    found: np.ndarray[Any, np.dtype[np.bool_]] = there & ~padded[:-2] & ~padded[2:]
    return found


def marks_drawn(ax: Axes) -> tuple[list[Any], list[str]]:
    """Handles and entries that explain the marks there are."""
    from matplotlib.lines import Line2D

    drawn = {line.get_gid() for line in ax.lines}
    entries = [meaning for meaning in MARKS if meaning in drawn]
    handles = [
        Line2D([], [], marker=MARKS[meaning][0], color=QUIET, markerfacecolor="none", linestyle="none")
        for meaning in entries
    ]
    return handles, entries


def logarithmic(ax: Axes) -> None:
    """A logarithmic axis of values, with a quiet grid; without numbers where none is above 0."""
    drawn = [np.asarray(line.get_ydata(), float) for line in ax.lines if line.get_gid() is None]
    ys = np.concatenate([np.zeros(0), *drawn])
    ys = np.log10(ys[np.isfinite(ys) & (ys > 0)])
    low, high = (ys.min(), ys.max()) if ys.size else (0.0, 0.0)
    margin = max(0.05 * (high - low), 0.5 * (1 - (high - low)))  # a decade at least: noise should not fill the axis
    ax.set_ylim(10.0 ** max(low - margin, -307), 10.0 ** min(high + margin, 307))
    ax.set_yscale("log")
    ax.grid(alpha=0.25, which="major")
    if not ys.size:
        ax.set_yticks([])


def factor_per_step(norms: Any, *, backwards: bool = True) -> float | None:
    """By what each timestep multiplies, on the way back: the slope of a line through the logarithms, if it fits.

    >>> factor_per_step(np.array([1.0, 2.0, 4.0, 8.0]))
    0.5
    """
    usable = np.isfinite(norms) & (norms > 0)
    t = np.flatnonzero(usable)
    if len(t) < 3:
        return None
    slope, at_0 = np.polyfit(t, np.log(norms[usable]), 1)
    off = np.sqrt(np.mean((np.log(norms[usable]) - slope * t - at_0) ** 2))
    if off > max(0.35, 0.15 * abs(slope) * (t[-1] - t[0])):
        return None  # no straight line
    return round(float(np.exp(-slope if backwards else slope)), 12)


def rate(factor: float | None) -> str:
    """The factor as a legend writes it."""
    return "" if factor is None else f"  × {factor:.3g} per step"
