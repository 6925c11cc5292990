"""Where a training run stands: all that it needs, beside parameters and optimiser, to go on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from microgrid.tensor import Tensor
from microgrid.training.history import Row


@dataclass(slots=True)
class Position:
    """Where a run stands between two batches.

    Attributes
    ----------
    epoch, batch : int
        The next batch.
    steps : int
        How many steps the optimiser has made.
    total, weight, norms, norm_count
        The sums of the epoch so far, from which its means come.
    states : dict of State → array
        What the next batch carries on.
    rows : list of Row
        The epochs that are done.
    best, best_epoch, since_best
        The lowest validation loss, its epoch counted from 1, and how many epochs ago that was.
    best_values : dict of str → array
        The parameters of that epoch.
    seconds : float
        For how long the run has trained.
    size : int
        How many sequences the batch before had: those of the states.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    total: float = 0.0
    weight: float = 0.0
    norms: float = 0.0
    norm_count: int = 0
    states: dict[Tensor, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    since_best: int = 0
    best_values: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    size: int = 0

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.batch, self.total, self.weight, self.norms, self.norm_count = 0, 0.0, 0.0, 0.0, 0
        self.states = {}
