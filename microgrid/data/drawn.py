"""Drawn: batches that are made when they are due and never again, as synthetic tasks and noisy copies are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from microgrid.data.batch import Batch
from microgrid.data.epochs import batches_left
from microgrid.data.given import arrays_by_name, whole_number
from microgrid.errors import SequenceError


class Drawn:
    """Batches that a function draws anew each time: no epoch sees one of another.

    Parameters
    ----------
    draw : callable numpy.random.Generator → mapping of str → array (time, batch, *features), or Batch
        Makes one batch with the random numbers that it is given, and no others: then a run that was stopped goes
        on with the batches that it would have had.
    batches : int
        How many to an epoch.
    seed : int

    Raises
    ------
    SequenceError
        If what `draw` gives is no batch.

    Examples
    --------
    >>> def parity(rng):
    ...     bits = rng.integers(0, 2, (10, 4))
    ...     return {"bit": bits, "parity": bits.cumsum(axis=0) % 2}
    >>> data = mg.data.Drawn(parity, batches=100, seed=0)
    >>> next(data.epoch(0))
    Batch(bit (10, 4), parity (10, 4))
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Mapping[str, Any] | Batch], batches: int, seed: int = 0
    ) -> None:
        if not callable(draw):
            raise SequenceError(f"Drawn takes a function that makes a batch, not {draw!r:.60}")
        self.draw = draw
        self.batches = whole_number("batches", batches, least=1)
        self.seed = whole_number("seed", seed, least=0)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.batches

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the `start`-th on; each depends on its number and that of the epoch alone."""
        return (self.batch(number, i) for i in batches_left(number, start, len(self)))

    def batch(self, number: int, i: int) -> Batch:
        """The i-th batch of an epoch."""
        found = self.draw(np.random.default_rng([self.seed, number, i]))
        return found if isinstance(found, Batch) else Batch(arrays_by_name("what draw gives", found, "time, batch"))
