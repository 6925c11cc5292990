"""Windows: long sequences in windows with the states carried on, for truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy.typing as npt

from microgrid.data.batch import Batch
from microgrid.data.epochs import batches_left
from microgrid.data.given import Array, arrays_by_name, common_number, number_array, whole_number
from microgrid.errors import SequenceError

ONE_SEQUENCE = ": of one long sequence, mg.data.folded makes such"


class Windows:
    """Consecutive windows of long sequences, each of which carries on the states of the one before.

    A window ends at every `every`-th timestep (k1) and reaches back over `length` of them (k2), or to the start. Its
    last `every` timesteps count in the loss, so each timestep counts once in an epoch; those before them only let
    the gradient flow further back. The last window may be shorter; where `every` is longer than the sequences, they are
    one window. Every epoch is the same. Windows are views: of a `np.memmap`, they alone are read.

    Source: R. J. Williams and J. Peng, An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories (1990), whose BPTT(h; h') has h = k2 and h' = k1.

    Parameters
    ----------
    sequences : mapping of str → array (time, batch, *features)
        For each input of the network. `folded` makes them of one long sequence.
    length : int
        How many timesteps a gradient flows back at most: k2.
    every : int, optional
        How many timesteps lie between the ends of two windows: k1. By default `length`, windows side by side.

    Raises
    ------
    SequenceError
        If sequences are empty, no numbers, or differ in time or batch, or if `every` is more than `length`.

    Examples
    --------
    >>> x = np.arange(10.0)[:, None]
    >>> for batch in mg.data.Windows({"x": x}, length=4).epoch(0):
    ...     print(batch)
    Batch(x (4, 1))
    Batch(x (4, 1), carried, start 4)
    Batch(x (2, 1), carried, start 8)
    >>> for batch in mg.data.Windows({"x": x}, length=6, every=4).epoch(0):
    ...     print(batch)
    Batch(x (4, 1))
    Batch(x (6, 1), carried, counted 4, start 2)
    Batch(x (4, 1), carried, counted 2, start 6)
    """

    def __init__(self, sequences: Mapping[str, npt.ArrayLike], length: int, every: int | None = None) -> None:
        self.sequences = arrays_by_name("Windows", sequences, "time, batch", hint=ONE_SEQUENCE)
        self.steps = common_number({name: len(array) for name, array in self.sequences.items()}, "timesteps")
        common_number({name: array.shape[1] for name, array in self.sequences.items()}, "sequences")
        self.length = whole_number("length", length, least=1)
        self.every = self.length if every is None else whole_number("every", every, least=1)
        if self.every > self.length:
            raise SequenceError(
                f"every={self.every} is more than length={self.length}, so the timesteps between two windows would "
                "never be seen: make length at least as long"
            )

    def __len__(self) -> int:
        """How many windows there are."""
        return -(-self.steps // self.every)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The windows in time, from the `start`-th on; every epoch has the same."""
        return (self.window(i) for i in batches_left(number, start, len(self)))

    def window(self, i: int) -> Batch:
        """The i-th window."""
        start = max(0, (i + 1) * self.every - self.length)
        end = min((i + 1) * self.every, self.steps)
        new = end - i * self.every
        return Batch(
            {name: array[start:end] for name, array in self.sequences.items()},
            carried=start > 0,
            counted=new if new < end - start else None,
            start=start,
        )


def folded(sequence: npt.ArrayLike, batch: int) -> Array:
    """One long sequence cut into `batch` equal stretches side by side, a view where that can be.

    Parameters
    ----------
    sequence : array (time, *features)
    batch : int
        How many stretches. Up to `batch - 1` timesteps at the end are left out.

    Returns
    -------
    array (time // batch, batch, *features)

    Raises
    ------
    SequenceError
        If there are fewer timesteps than stretches.

    Examples
    --------
    >>> mg.data.folded(np.arange(11), batch=2)
    array([[0, 5],
           [1, 6],
           [2, 7],
           [3, 8],
           [4, 9]])
    """
    array = number_array("the sequence", sequence)
    whole_number("batch", batch, least=1)
    if array.ndim < 1 or len(array) < batch:
        raise SequenceError(f"a sequence of shape {array.shape} cannot be folded into {batch} stretches of timesteps")
    steps = len(array) // batch
    stretches: Array = array[: steps * batch].reshape(batch, steps, *array.shape[1:])
    return stretches.swapaxes(0, 1)
