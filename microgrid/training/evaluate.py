"""mg.evaluate: the values of some numbers of a network over all batches of some data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.data.batch import Batches
from microgrid.data.windows import Windows
from microgrid.errors import OperandTypeError, SequenceError
from microgrid.graph import Graph
from microgrid.ops.time import TIME_MEAN, TIME_SUM, is_time_reduction
from microgrid.tensor import Tensor
from microgrid.training.neighbours import with_next
from microgrid.training.program import Watch

WINDOW = 1000
"""How many timesteps of long sequences are in memory at a time, where nothing needs them all at once."""


def evaluate(
    what: Tensor | Graph | Mapping[str, Tensor],
    data: Batches | Mapping[str, npt.ArrayLike],
    *,
    executor: str = "numpy",
) -> Any:
    """The mean of a loss, or of several numbers, over all batches of some data, without dropout or gradients.

    Parameters
    ----------
    what : Tensor or Graph, or mapping of str → Tensor
        Means of a network, such as `nn.cross_entropy` and `nn.accuracy` give.
    data : Batches, or mapping of input name → array (time, batch, *features)
        As `mg.fit` takes it. Long sequences are read a thousand timesteps at a time, where the number is a mean
        over time and nothing runs backwards.
    executor : "numpy", "llvm" or "auto"
        What runs the network; see `mg.compile`.

    Returns
    -------
    float, or dict of str → float
        Each batch weighs as much as it has timesteps, sequences, or targets that are not ignored.

    Raises
    ------
    SequenceError
        If the data does not fit the network's inputs, or is empty.

    Examples
    --------
    >>> x, target = mg.input(np.zeros((2, 1)), name="x"), mg.input(np.zeros((2, 1)), name="target")
    >>> mg.evaluate(mg.nn.mse(x, target), {"x": np.ones((5, 2, 1)), "target": np.full((5, 2, 1), 3.0)})
    4.0
    """
    if isinstance(what, Graph):
        what = what.output
    if not isinstance(what, Tensor | Mapping):
        raise OperandTypeError(f"mg.evaluate takes numbers of a network, not {type(what).__name__}")
    named = {"value": what} if isinstance(what, Tensor) else dict(what)
    if not named:
        raise OperandTypeError("mg.evaluate was given nothing to evaluate")
    watch = Watch(named, executor=executor)
    found = evaluated(watch, batches_of(data, "data", window_of(watch)))
    return found["value"] if isinstance(what, Tensor) else found


def evaluated(watch: Watch, batches: Batches) -> dict[str, float]:
    """The mean of each number over all batches."""
    totals = dict.fromkeys(watch.outputs, 0.0)
    weights = dict.fromkeys(watch.outputs, 0.0)
    states: dict[Tensor, Any] = {}
    for batch, following in with_next(batches.epoch(0)):
        initial = states if batch.carried else {}
        sequences = watch.program.sequences(batch, initial, dropping=False)
        run, after = watch.program.run(batch, sequences, initial)
        for name, (value, weight) in watch.values(run, batch).items():
            totals[name] += value * weight if weight else 0.0
            weights[name] += weight
        if following is not None and following.carried:
            states = watch.program.states_at(following.start - batch.start, batch, sequences, initial, after)
    return {name: total / weights[name] if weights[name] else np.nan for name, total in totals.items()}


def window_of(watch: Watch) -> int | None:
    """How many timesteps of long sequences to take at a time; None where something needs them all at once."""
    apart = all(adds_up_over_windows(output, watch.counts.get(name)) for name, output in watch.outputs.items())
    return WINDOW if apart and len(watch.program.carried) == len(watch.program.graph.states) else None


def adds_up_over_windows(output: Tensor, count: Tensor | None) -> bool:
    """Whether a number of the whole is the mean of those of its windows: a mean over time, or sum ÷ count of such."""
    ends = [output] if count is None else [output.operands[0], count]
    kind = TIME_MEAN if count is None else TIME_SUM
    reductions = [node for node in Graph.of_checked(ends).nodes if is_time_reduction(node)]
    return all(end.primitive is kind for end in ends) and len(reductions) == len(ends)


def batches_of(data: Any, what: str, window: int | None) -> Batches:
    """The data as batches; a mapping of sequences is one batch, or windows of so many timesteps."""
    if isinstance(data, Mapping):
        steps = Windows(data, length=1).steps
        return Windows(data, length=min(window or steps, steps))
    if not isinstance(data, Batches):
        raise OperandTypeError(
            f"{what} is a mapping of input names to sequences, or what mg.data makes of it, such as mg.data.Windows, "
            f"not {type(data).__name__}"
        )
    if not len(data):
        raise SequenceError(f"{what} is empty: it has no batch")
    return data
