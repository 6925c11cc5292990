"""gradient_flow: how much of a gradient reaches each timestep."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.errors import OperandTypeError, SequenceError
from microgrid.leaves import State
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.over_time.canvas import axes_for, figure_of, label, legend, plain, unrolled, varying_node, whole_ticks, written
from viz.over_time.lines import DASHES, draw_positive, factor_per_step, logarithmic, marks_drawn, rate
from viz.theme import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_LABEL = 40

MOST_NAMED = 8
"""Up to how many lines each has an entry in the legend."""


def gradient_flow(dag: Unrolled, *nodes: str | Tensor, ax: Axes | None = None) -> Figure:
    """Plot the norm of the gradient that reaches each timestep, ‖∂loss/∂hₜ‖, on a logarithmic axis.

    A straight line is a gradient that each timestep multiplies by the same factor; the legend gives it. A
    gradient of exactly 0 is marked at the bottom, one that is infinite or NaN at the top.

    Parameters
    ----------
    dag : Unrolled
        After its `backward()`.
    *nodes : str or Tensor
        Nodes with a value per timestep; by default all states. The norm is over all elements, so over
        features and batch; the start of a state that all sequences of a batch share is left out.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure, which belongs to no window. To see one outside
        notebooks, save it, or draw into Axes of your own: `figure, ax = plt.subplots()`.

    Returns
    -------
    matplotlib Figure
        For styling and `savefig`; a new one shows itself as the last value of a notebook's cell.

    Raises
    ------
    GradientError
        Before any `backward`.
    TimestepError
        For a node with one value for the whole sequence.
    MissingExtraError
        Without matplotlib.

    See Also
    --------
    viz.jacobians : the same, whatever the loss.

    Examples
    --------
    >>> import viz
    >>> h = mg.state(1.0, name="h")
    >>> h.next = 0.5 * h
    >>> dag = mg.Graph(loss=mg.last(h.next)).unroll(steps=20)
    >>> dag.backward()
    >>> viz.gradient_flow(dag).axes[0].get_ylabel()
    '‖∂loss/∂hₜ‖'
    """
    unrolled(dag, "gradient_flow")
    drawn = list(dict.fromkeys(varying_node(dag, key) for key in nodes)) if nodes else default_nodes(dag)
    norms = [gradient_norms(dag, node) for node in drawn]
    ax = axes_for(ax, "gradient_flow")
    names = [written(dag.graph.names[node]) for node in drawn]
    reverse = {node for cycle in dag.graph.cycles if cycle.reverse for node in cycle.nodes}
    factors = [
        factor_per_step(np.ma.filled(found, np.nan), backwards=node not in reverse)
        for node, found in zip(drawn, norms, strict=True)
    ]
    entries = [name + rate(factor) for name, factor in zip(names, factors, strict=True)]
    t = np.arange(dag.steps, dtype=float)
    if len(drawn) <= MOST_NAMED:
        handles = [
            draw_positive(ax, t, found, color=SERIES[i % len(SERIES)], linestyle=DASHES[i % len(DASHES)], linewidth=1.8)
            for i, found in enumerate(norms)
        ]
    else:
        handles, entries = draw_many(ax, t, norms, names, factors, entries)
    logarithmic(ax)
    whole_ticks(ax.xaxis)
    marks, meanings = marks_drawn(ax)
    legend(ax, handles + marks, entries + meanings)
    of = f"{names[0]}ₜ" if len(names) == 1 else "stateₜ" if all(isinstance(n, State) for n in drawn) else "nodeₜ"
    what = f"‖∂{loss_name(dag)}/∂{of}‖"
    label(
        ax,
        x="timestep t",
        y=what if len(what) <= LONGEST_LABEL else "norm of the gradient",
        title="Gradient that reaches each timestep",
    )
    return figure_of(ax)


def default_nodes(dag: Unrolled) -> list[Tensor]:
    """The states that can have a gradient."""
    found: list[Tensor] = [state for state in dag.graph.states if np.issubdtype(state.dtype, np.floating)]
    if not found:
        raise OperandTypeError(
            "the graph has no states whose gradients to plot: name nodes, as gradient_flow(dag, 'x')"
        )
    return found


def gradient_norms(dag: Unrolled, node: Tensor) -> Any:
    """The Euclidean norm of a node's gradient at each timestep; masked where the node is another than elsewhere."""
    with contextlib.suppress(SequenceError):  # a start of another shape, which grads refuses only after
        dag.grads(node)  # it has refused a graph without gradients
    copies = dag.over_time(node)
    usual = dag.over_time(node.next if isinstance(node, State) else node)[0].shape
    found = [0.0 if copy.grad is None else norm(copy.grad) for copy in copies]
    return np.ma.array(found, mask=[copy.shape != usual for copy in copies])


def norm(array: Any) -> float:
    """The Euclidean norm, which squares neither overflow nor lose.

    >>> norm(np.array([3e200, 4e200])) / 1e200
    5.0
    """
    x = np.abs(np.asarray(array, np.float64)).reshape(-1)
    largest = float(x.max(initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    with np.errstate(over="ignore"):
        return float(largest * np.sqrt(np.sum(np.square(x / largest))))


def loss_name(dag: Unrolled) -> str:
    """What was differentiated, as far as it has a name."""
    if len(dag.graph.outputs) > 1 or dag.graph.output in dag.copies:
        return "loss"
    output = dag.graph.output
    return written(dag.graph.aliases.get(output) or output.name or "loss")


def draw_many(
    ax: Axes, t: Any, norms: list[Any], names: list[str], factors: list[float | None], entries: list[str]
) -> tuple[list[Any], list[str]]:
    """Thin lines in colours from the first to the last; in the legend those that lose the most and the least."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, len(norms) - 1), matplotlib.colormaps["viridis"])
    rgba = colours.to_rgba(np.arange(len(norms)))
    lines = [draw_positive(ax, t, found, color=rgba[i], linewidth=0.9, markersize=1.0) for i, found in enumerate(norms)]
    bar = ax.figure.colorbar(colours, ax=ax, pad=0.02)
    bar.set_ticks([0, len(norms) - 1], labels=[names[0], names[-1]])
    for text, name in zip(bar.ax.get_yticklabels(), (names[0], names[-1]), strict=True):
        plain(text, name)
    plain(bar.ax.yaxis.label, f"{len(norms)} nodes, from the first to the last")
    known = sorted((factor, i) for i, factor in enumerate(factors) if factor is not None)
    picked = [known[0][1], known[-1][1]] if len(known) > 1 else []
    for i in picked:
        lines[i].set(linewidth=2.6, zorder=3)
    return [lines[i] for i in picked], [entries[i] for i in picked]
