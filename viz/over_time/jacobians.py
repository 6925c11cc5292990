"""jacobians: by what each timestep, and all after it together, can multiply a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.errors import TimestepError
from microgrid.jacobians import chosen_states
from microgrid.jacobians import jacobians as of_timesteps
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.over_time.canvas import QUIET, axes_for, figure_of, label, legend, unrolled, whole_ticks, written
from viz.over_time.lines import DASHES, draw_positive, factor_per_step, logarithmic, marks_drawn, rate
from viz.theme import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_SYMBOL = 10
"""Characters of a state's name in a formula; a longer one is in the title, and h in the formula."""

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def jacobians(dag: Unrolled, *states: str | Tensor, batch: int = 0, ax: Axes | None = None) -> Figure:
    """Plot the largest singular value of the Jacobian of each timestep, and of their product from the end.

    The dashed line is by what one timestep can at most multiply a gradient, ‖∂hₜ₊₁/∂hₜ‖₂; the full one by
    what all timesteps from the last one back to t can together, ‖∂h/∂hₜ‖₂: what backpropagation
    through time sees. Below 1 a gradient vanishes, above it may explode. Of reverse states, whose gradients travel
    forwards in time, the product starts at timestep 0.

    Parameters
    ----------
    dag : Unrolled
        It need not have been backpropagated through.
    *states : str or Tensor
        Which states, taken together; by default those of the first cycle. See `mg.jacobians`.
    batch : int
        Which sequence of the batch.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    TimestepError
        If there is a single timestep.
    MissingExtraError
        Without matplotlib.

    Source: R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training recurrent neural
    networks, ICML (2013).

    Examples
    --------
    >>> import viz
    >>> U, h = mg.parameter(0.9 * np.eye(3), name="U"), mg.state(np.zeros(3), name="h")
    >>> h.next = mg.tanh(h @ U)
    >>> whole, one, _ = viz.jacobians(mg.Graph(h.next).unroll(steps=3)).axes[0].lines
    >>> one.get_ydata().round(3).tolist(), whole.get_ydata().round(3).tolist()
    ([0.9, 0.9], [0.81, 0.9, 1.0])
    """
    unrolled(dag, "jacobians")
    chosen = chosen_states(dag.graph, states)
    if dag.steps < 2:
        raise TimestepError("there is one timestep, so no way from one to the next: unroll for more")
    found = of_timesteps(dag, *chosen, batch=batch).astype(np.float64)
    reverse = chosen[0].reverse
    one = np.array([largest_singular_value(matrix) for matrix in found])
    whole = products(found) if reverse else products(found[::-1])[::-1]  # in the order in which a gradient meets them
    ax = axes_for(ax, "jacobians")
    t = np.arange(dag.steps, dtype=float)
    names = ", ".join(dag.graph.names[state] for state in chosen)
    symbol = names if len(chosen) == 1 and len(written(names)) <= LONGEST_SYMBOL else "h"
    end, following = ("₀", "ₜ₋₁") if reverse else (str(dag.steps - 1).translate(SUBSCRIPTS), "ₜ₊₁")
    lines = [
        draw_positive(ax, t, whole, color=SERIES[0], linewidth=2.0),
        draw_positive(ax, t[1:] if reverse else t[:-1], one, color=SERIES[1], linestyle=DASHES[1], linewidth=1.5),
    ]
    ax.axhline(1.0, color=QUIET, linewidth=0.9, zorder=1)
    logarithmic(ax)
    whole_ticks(ax.xaxis)
    marks, meanings = marks_drawn(ax)
    per_step = rate(factor_per_step(whole, backwards=not reverse))
    s = written(symbol)
    entries = [f"all timesteps: ‖∂{s}{end}/∂{s}ₜ‖₂{per_step}", f"one timestep: ‖∂{s}{following}/∂{s}ₜ‖₂"]
    legend(ax, lines + marks, [*entries, *meanings])
    whose = names if len(chosen) == 1 else f"({names})"
    label(
        ax,
        x="timestep t",
        y="largest singular value",
        title="Jacobians of the timesteps" + ("" if symbol == names else f", h = {written(whose)}"),
    )
    return figure_of(ax)


def largest_singular_value(matrix: Any) -> float:
    """NaN for a matrix that is not finite."""
    if not np.isfinite(matrix).all():
        return float("nan")
    return float(np.linalg.norm(matrix, 2)) if matrix.size else 0.0


def products(matrices: Any) -> Any:
    """The largest singular value of 1, of the first matrix, of the first two multiplied, and so on.

    The product is divided by it each time, so that it neither overflows nor vanishes. What is smaller than
    any number is masked: it is not 0.

    >>> products(np.array([[[0.5]], [[0.5]]])).tolist()
    [1.0, 0.5, 0.25]
    """
    product = np.eye(matrices.shape[-1])
    size, found, too_small = 0.0, [1.0], [False]
    for matrix in matrices:
        product = product @ matrix
        largest = largest_singular_value(product)
        if largest > 0:
            product = product / largest
            size += np.log(largest)
        with np.errstate(over="ignore"):
            found.append(float(np.exp(size)) if largest > 0 else largest)
        too_small.append(largest > 0 and found[-1] == 0)
    return np.ma.array(found, mask=too_small)
