"""What all plots over time share: where they are drawn, how names are written, and the axis of timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from microgrid.errors import MissingExtraError, OperandTypeError, TimestepError
from microgrid.graph import Graph
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

LONGEST = 32
"""Characters of a name; a longer one is cut."""

QUIET = "0.5"
"""A grey that is seen on light and on dark backgrounds."""


def axes_for(ax: Axes | None, caller: str, width: float = 7.0, height: float = 4.0) -> Axes:
    """The Axes given, or those of a new figure of so many inches.

    Raises MissingExtraError where matplotlib is not installed.
    """
    try:
        from matplotlib.axes import Axes

        from viz.over_time.chart import Chart
    except ImportError:
        raise MissingExtraError(
            f"viz.{caller} draws with matplotlib, which is not installed: pip install 'microgrid-autodiff[plots]'"
        ) from None
    if ax is None:
        ax = Chart(figsize=(width, height), layout="constrained").add_subplot()
        ax.spines[["top", "right"]].set_visible(False)
    elif not isinstance(ax, Axes):
        raise OperandTypeError(
            f"ax is where to draw, one Axes as in figure, ax = plt.subplots(), not {type(ax).__name__}"
        )
    return ax


def figure_of(ax: Axes) -> Figure:
    """The whole figure in which Axes stand."""
    figure: Any = ax.figure
    return figure.figure or figure  # type: ignore[no-any-return]  # that of a subfigure


def is_own(ax: Axes) -> bool:
    """Whether the figure is one of ours, laid out so that nothing outside the Axes is cut off."""
    from viz.over_time.chart import Chart

    return isinstance(figure_of(ax), Chart)


def unrolled(dag: Any, caller: str) -> Unrolled:
    """`dag`, or an error that says what to give instead."""
    if not isinstance(dag, Unrolled):
        advice = "unroll it first: graph.unroll(x=...)" if isinstance(dag, Graph | Tensor) else "mg.Graph(...).unroll()"
        raise OperandTypeError(f"viz.{caller} takes an unrolled graph, not {type(dag).__name__}; {advice}")
    return dag


def varying_node(dag: Unrolled, key: str | Tensor) -> Tensor:
    """The node of a name, which must have a value per timestep."""
    node = dag.graph.find(key)
    if node not in dag.copies:
        name = dag.graph.names[node]
        raise TimestepError(f"{name!r} has one value for the whole sequence, not one per timestep: see dag[{name!r}]")
    return node


def written(name: str) -> str:
    """A name in one line of characters that can be printed."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"


def plain(text: Text, content: str) -> None:
    """Write as it stands what may hold a user's names: no formulas, no TeX."""
    text.set_usetex(False)
    text.set_parse_math(False)
    text.set_text(content)


def label(ax: Axes, *, x: str, y: str, title: str) -> None:
    for text, content in ((ax.xaxis.label, x), (ax.yaxis.label, y), (ax.title, title)):
        plain(text, content)


def legend(ax: Axes, handles: Sequence[Any], entries: Sequence[str]) -> None:
    """A legend below the Axes of a figure of ours, or inside those given."""
    if not handles:
        return
    placeholders = ["-"] * len(handles)  # a label that begins with _ would be left out
    if is_own(ax):
        columns = max(1, min(len(handles), int(14 * figure_of(ax).get_figwidth()) // (max(map(len, entries)) + 9)))
        made = figure_of(ax).legend(
            handles,
            placeholders,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            columnspacing=1.5,
            handlelength=3.2,
        )
    else:
        made = ax.legend(handles, placeholders, fontsize="small", handlelength=3.2)
    for text, entry in zip(made.get_texts(), entries, strict=True):
        plain(text, entry)


def whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    axis.set_major_formatter(ScalarFormatter(useOffset=False))
