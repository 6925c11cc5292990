"""Minibatches: independent sequences of equal length, so many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.data.batch import Batch
from microgrid.data.epochs import batches_left, checked_seed, generator_of, order_of
from microgrid.data.given import Array, arrays_by_name, common_number, whole_number
from microgrid.errors import SequenceError


class Minibatches:
    """Independent sequences of equal length, in batches whose order each epoch draws anew.

    The sequences come with the items first, as other libraries keep them, and go out with time first. Only the items
    of a batch are read and copied, when the batch is due.

    Parameters
    ----------
    sequences : mapping of str → array (count, time, *features)
        For each input of the network.
    batch_size : int
        How many sequences a batch has; the last of an epoch may have fewer.
    labels : mapping of str → array (count, *features), optional
        Inputs with one value for a whole sequence, given at each of its timesteps without a copy.
    seed : int, optional
        Shuffles: the order of an epoch follows from the seed and the epoch's number. Without it the order is as given.
    drop_last : bool
        Leave the last batch out where it would have fewer sequences.

    Raises
    ------
    SequenceError
        If arrays are empty, no numbers, or differ in count or time, or if there are fewer items than `batch_size`.

    Examples
    --------
    >>> data = mg.data.Minibatches({"x": np.zeros((10, 7, 3))}, 4, labels={"kind": np.arange(10)}, seed=0)
    >>> [batch.inputs["x"].shape for batch in data.epoch(0)]
    [(7, 4, 3), (7, 4, 3), (7, 2, 3)]
    >>> next(data.epoch(0)).inputs["kind"].shape
    (7, 4)
    """

    def __init__(
        self,
        sequences: Mapping[str, npt.ArrayLike],
        batch_size: int,
        *,
        labels: Mapping[str, npt.ArrayLike] | None = None,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self.sequences = arrays_by_name("Minibatches", sequences, "count, time")
        common_number({name: array.shape[1] for name, array in self.sequences.items()}, "timesteps")
        counts = {name: len(array) for name, array in self.sequences.items()}
        self.labels = checked_labels(labels, counts)
        self.count = common_number(counts, "sequences")
        self.batch_size = checked_batch_size(batch_size, self.count)
        self.seed = checked_seed(seed)
        self.drop_last = drop_last

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from the `start`-th on."""
        left = batches_left(number, start, len(self))
        order = order_of(self.count, generator_of(self.seed, number))
        return (self.batch(order[i * self.batch_size : (i + 1) * self.batch_size]) for i in left)

    def batch(self, chosen: Array) -> Batch:
        """The batch of the chosen items."""
        inputs = {name: np.ascontiguousarray(x[chosen].swapaxes(0, 1)) for name, x in self.sequences.items()}
        steps = len(next(iter(inputs.values())))
        return Batch(inputs | at_every_timestep(self.labels, chosen, steps))


def checked_labels(labels: Any, counts: Mapping[str, int]) -> dict[str, Array]:
    """Labels as arrays, of as many items as there are sequences by each name.

    >>> checked_labels({"kind": [1, 2]}, {"x": 2})
    {'kind': array([1, 2])}
    """
    if labels is None or (isinstance(labels, Mapping) and not labels):
        return {}
    arrays = arrays_by_name("labels", labels, "count")
    for name, array in arrays.items():
        if name in counts:
            raise SequenceError(f"{name!r} is among both sequences and labels: an input takes one of them")
        common_number({**counts, name: len(array)}, "sequences")
    return arrays


def checked_batch_size(batch_size: int, count: int) -> int:
    """How many items a batch has, no more than there are.

    >>> checked_batch_size(4, count=10)
    4
    """
    if whole_number("batch_size", batch_size, least=1) > count:
        raise SequenceError(f"batch_size={batch_size} is more than the {count} sequences that there are")
    return int(batch_size)


def at_every_timestep(labels: Mapping[str, Array], chosen: Array, steps: int) -> dict[str, Array]:
    """The labels of the chosen items as sequences, (time, batch, *features), in which one value stands for all.

    >>> at_every_timestep({"kind": np.array([5, 6, 7])}, np.array([0, 2]), steps=2)
    {'kind': array([[5, 7],
           [5, 7]])}
    """
    values = {name: array[chosen] for name, array in labels.items()}
    return {name: np.broadcast_to(value, (steps, *value.shape)) for name, value in values.items()}
