"""Buckets: sequences of different length, padded together with those that are about as long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.data.batch import Batch
from microgrid.data.epochs import batches_left, checked_seed, generator_of, order_of
from microgrid.data.given import Array, by_name, common_number, number_array
from microgrid.data.minibatches import at_every_timestep, checked_batch_size, checked_labels
from microgrid.errors import SequenceError


class Buckets:
    """Independent sequences of different length, in batches of like length.

    Sequences are sorted by length and cut into batches, each padded to its longest, so that little is padded. Each
    epoch draws the order of the batches anew, and which of the sequences of one length come together.

    Source: V. Khomenko et al., Accelerating recurrent neural network training using sequence bucketing and multi-GPU
    data parallelization (2016).

    Parameters
    ----------
    sequences : mapping of str → list of arrays (time, *features)
        For each input of the network; each item as long by every name.
    batch_size : int
        How many sequences a batch has; one batch may have fewer.
    labels : mapping of str → array (count, *features), optional
        Inputs with one value for a whole sequence, given at each of its timesteps without a copy.
    seed : int, optional
        Shuffles: an epoch follows from the seed and its number. Without it the shortest come first, as given.
    pad_value : number
        What stands past the end of a sequence. With `lengths`, no loss and no gradient depends on it.

    Raises
    ------
    SequenceError
        If sequences are empty, no numbers, or of another length or count by another name, naming the item.

    Examples
    --------
    >>> data = mg.data.Buckets({"x": [np.ones(n) for n in (5, 2, 4, 2)]}, batch_size=2)
    >>> for batch in data.epoch(0):
    ...     print(batch.inputs["x"].shape, batch.lengths)
    (2, 2) [2 2]
    (5, 2) [4 5]
    >>> round(data.padding, 2)
    0.07
    """

    def __init__(
        self,
        sequences: Mapping[str, Iterable[npt.ArrayLike]],
        batch_size: int,
        *,
        labels: Mapping[str, npt.ArrayLike] | None = None,
        seed: int | None = None,
        pad_value: float = 0,
    ) -> None:
        self.sequences = {
            name: sequence_list(repr(name), items) for name, items in by_name("Buckets", sequences).items()
        }
        counts = {name: len(items) for name, items in self.sequences.items()}
        self.labels = checked_labels(labels, counts)
        self.batch_size = checked_batch_size(batch_size, common_number(counts, "sequences"))
        self.lengths = common_lengths(self.sequences)
        self.seed = checked_seed(seed)
        self.pad_values = {name: padding_of(pad_value, items) for name, items in self.sequences.items()}

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from the `start`-th on."""
        left = batches_left(number, start, len(self))
        generator = generator_of(self.seed, number)
        order = order_of(len(self.lengths), generator)
        by_length = order[np.argsort(self.lengths[order], kind="stable")]
        buckets = [by_length[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        turns = order_of(len(buckets), generator)
        return (self.batch(buckets[turns[i]]) for i in left)

    def batch(self, chosen: Array) -> Batch:
        """The batch of the chosen items, padded to the longest of them."""
        padded = {
            name: stacked([items[i] for i in chosen], self.pad_values[name]) for name, items in self.sequences.items()
        }
        lengths = self.lengths[chosen]
        return Batch(padded | at_every_timestep(self.labels, chosen, int(lengths.max())), lengths)

    @property
    def padding(self) -> float:
        """The share of an epoch's timesteps that are padding, from 0 to less than 1."""
        by_length = np.sort(self.lengths)
        computed = sum(int(part.size * part[-1]) for part in np.split(by_length, self.borders()))
        return 1 - int(by_length.sum()) / computed

    def borders(self) -> range:
        """Where one bucket ends and the next begins among the sequences sorted by length."""
        return range(self.batch_size, len(self.lengths), self.batch_size)


def pad(sequences: Iterable[npt.ArrayLike], value: float = 0) -> tuple[Array, Array]:
    """Sequences of different length side by side in one array, each followed by `value` up to the longest.

    Parameters
    ----------
    sequences : list of arrays (time, *features)
    value : number
        What stands past the end of a sequence.

    Returns
    -------
    array (time, batch, *features) and lengths (batch,)
        What a compiled network takes as a sequence and as `lengths=`.

    Raises
    ------
    SequenceError
        If sequences are empty, no numbers, or differ in their features, or their numbers cannot hold `value`.

    Examples
    --------
    >>> padded, lengths = mg.data.pad([[1, 2, 3], [4]])
    >>> padded
    array([[1, 4],
           [2, 0],
           [3, 0]])
    >>> lengths
    array([3, 1])
    """
    items = sequence_list("the sequences", sequences)
    return stacked(items, padding_of(value, items)), np.array([len(item) for item in items])


def sequence_list(what: str, given: Any) -> list[Array]:
    """Sequences of any length as arrays of the same features, (time, *features), none of them empty.

    >>> [item.shape for item in sequence_list("'x'", [[1.0], [2.0, 3.0]])]
    [(1,), (2,)]
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise SequenceError(f"{what}: expected a list of arrays of shape (time, *features), not {given!r:.60}")
    items = [number_array(f"item {i} of {what}", item) for i, item in enumerate(given)]
    if not items:
        raise SequenceError(f"{what}: the list of sequences is empty")
    for i, item in enumerate(items):
        if item.ndim < 1 or not item.size:
            raise SequenceError(f"item {i} of {what} has shape {item.shape}, but a sequence has at least one timestep")
        if item.shape[1:] != items[0].shape[1:]:
            raise SequenceError(
                f"item {i} of {what} has features of shape {item.shape[1:]}, but item 0 of {items[0].shape[1:]}: "
                "sequences may differ in length alone"
            )
    return items


def common_lengths(sequences: Mapping[str, list[Array]]) -> Array:
    """How many timesteps each item has, by every name: (count,).

    >>> common_lengths({"x": [np.zeros(3), np.zeros(2)], "y": [np.ones(3), np.ones(2)]})
    array([3, 2])
    """
    for i, parts in enumerate(zip(*sequences.values(), strict=True)):
        (first, length), *others = zip(sequences, map(len, parts), strict=True)
        for name, other in others:
            if other != length:
                raise SequenceError(
                    f"item {i} has {length} timesteps in {first!r}, but {other} in {name!r}: they must agree"
                )
    return np.array([len(item) for item in next(iter(sequences.values()))])


def padding_of(value: float, items: list[Array]) -> Array:
    """The value as a number of the kind that the sequences hold.

    >>> padding_of(0, [np.ones(2)])
    array(0.)
    """
    number, dtype = number_array("the padding", value), np.result_type(*{item.dtype for item in items})
    with np.errstate(invalid="ignore"):  # a NaN among integers
        padding = number.astype(dtype)
    if number.ndim or (dtype.kind != "f" and padding != number):
        raise SequenceError(f"sequences of {dtype} cannot be padded with {value!r}")
    return padding


def stacked(items: list[Array], padding: Array) -> Array:
    """Arrays of different length side by side, (time, batch, *features), in the padding's dtype.

    >>> stacked([np.array([1, 2]), np.array([3])], np.array(9)).tolist()
    [[1, 3], [2, 9]]
    """
    out = np.full((max(map(len, items)), len(items), *items[0].shape[1:]), padding, padding.dtype)
    for i, item in enumerate(items):
        out[: len(item), i] = item
    return out
