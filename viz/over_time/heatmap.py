"""heatmap: the values or gradients of one node, features × timesteps."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.errors import GradientError, OperandIndexError, SequenceError
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.over_time.canvas import axes_for, figure_of, label, plain, unrolled, varying_node, whole_ticks, written
from viz.over_time.gradient_flow import loss_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_LABEL = 20
"""Characters beside the colours of a single row."""

SIGNED, UNSIGNED, NOT_FINITE = "RdBu_r", "cividis", "0.6"
"""Colours from below 0 through 0 to above; of values of one sign; and of infinities and NaN."""


def heatmap(
    dag: Unrolled, node: str | Tensor, *, gradient: bool = False, batch: int = 0, ax: Axes | None = None
) -> Figure:
    """Plot the values of one node over time, or the gradients that reach it, as colours.

    Values of both signs are red above 0, blue below and white at 0; values of one sign go from dark to
    light. What is infinite or NaN is grey, as is the gradient of a start that all sequences of a batch share.

    Parameters
    ----------
    dag : Unrolled
    node : str or Tensor
        A node with a value per timestep.
    gradient : bool
        Show ∂loss/∂node instead, after `dag.backward()`.
    batch : int
        Which sequence of the batch: the first axis of a node of shape (batch, features), or of more axes,
        which are flattened. A node of shape (features,) or () has none.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    UnknownNameError
        If the graph has no such node.
    GradientError
        If gradients are asked for before any `backward`.
    TimestepError
        If the node has one value for the whole sequence.
    OperandIndexError
        If the batch has no such sequence.
    MissingExtraError
        Without matplotlib.

    Examples
    --------
    >>> import viz
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> dag = mg.Graph(y=mg.tanh(x)).unroll(x=np.ones((20, 8, 3)))
    >>> viz.heatmap(dag, "x", batch=5).axes[0].images[0].get_array().shape    # features × timesteps
    (3, 20)
    """
    unrolled(dag, "heatmap")
    found = varying_node(dag, node)
    shape = max((copy.shape for copy in dag.over_time(found)), key=lambda shape: int(np.prod(shape)))
    rows = of_sequence(dag, found, shape, gradient, batch)
    grey = [
        *(["not finite"] if not np.isfinite(rows).all() else []),
        *(["one start for the whole batch"] if np.ma.is_masked(rows) else []),
    ]
    finite = rows.data[np.isfinite(rows.data) & ~np.ma.getmaskarray(rows)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    signed = bool((finite < 0).any()) or gradient
    ax = axes_for(ax, "heatmap", height=min(6.0, 2.4 + 0.14 * len(rows)))
    import matplotlib

    image = ax.imshow(
        np.ma.masked_invalid(rows),
        aspect="auto",
        origin="lower",
        interpolation="antialiased",
        cmap=matplotlib.colormaps[SIGNED if signed else UNSIGNED].with_extremes(bad=NOT_FINITE),
        vmin=-largest if signed else 0.0,
        vmax=largest,
    )
    ax.spines[:].set_visible(False)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    if not shape:
        ax.set_yticks([])
    name = written(dag.graph.names[found])
    what = f"∂{loss_name(dag)}/∂{name}" if gradient else "value"
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.outline.set_visible(False)
    plain(bar.ax.yaxis.label, what if len(what) <= LONGEST_LABEL else "gradient")
    of = f", sequence {batch} of the batch" if len(shape) > 1 and shape[0] > 1 else ""
    label(
        ax,
        x="timestep t" + (f" (grey: {', '.join(grey)})" if grey else ""),
        y=features_of(shape),
        title=("Gradient" if gradient else "Values") + f" of {name} over time{of}",
    )
    return figure_of(ax)


def of_sequence(dag: Unrolled, node: Tensor, shape: tuple[int, ...], gradient: bool, batch: int) -> Any:
    """The numbers of one sequence, (features, time) as floats; masked where all sequences share a gradient."""
    copies = dag.over_time(node)
    if gradient:
        refuse_without_gradients(dag, node)
    if len(shape) > 1 and not 0 <= operator.index(batch) < shape[0]:
        name = dag.graph.names[node]
        raise OperandIndexError(f"batch={batch}: {name!r} holds {shape[0]} sequences, numbered from 0")
    columns: list[Any] = []
    for copy in copies:
        held = copy.grad if gradient else copy.value
        array = np.zeros(copy.shape) if held is None else np.asarray(held, np.float64)
        if len(shape) > 1:
            shared = len(array) < shape[0]
            array = np.ma.array(array[0 if shared else batch], mask=shared and gradient)
        columns.append(array.reshape(-1))
    return np.ma.stack(columns, axis=1)


def features_of(shape: tuple[int, ...]) -> str:
    """What stands on the vertical axis."""
    flat = shape[1:] if len(shape) > 1 else shape
    if len(flat) > 1:
        return f"feature ({' × '.join(map(str, flat))}, flattened)"
    return "feature" if flat else ""


def refuse_without_gradients(dag: Unrolled, node: Tensor) -> None:
    """Refuse a graph without gradients, in the words of `dag.grads`."""
    try:
        dag.grads(node)
    except GradientError:
        raise
    except SequenceError:  # a start of another shape, which is no matter here
        return
