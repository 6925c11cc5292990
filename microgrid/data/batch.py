"""Batch: what one step of training takes. Batches: what gives them, epoch by epoch, as `Windows` and others do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from microgrid.data.given import Array, by_name, common_number, whole_number
from microgrid.errors import SequenceError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences side by side, for one run of a compiled network.

    Attributes
    ----------
    inputs : dict of str → array
        For each input of the network its sequence: (time, batch, *features).
    lengths : integers of shape (batch,), optional
        How many timesteps each sequence has, where sequences end on their own.
    carried : bool
        Whether the states are carried on from the batch before it in the epoch, instead of starting anew.
    counted : int, optional
        Only the last so many timesteps count in the loss; all, if None.
    start : int
        The timestep of the whole sequence at which the batch starts. A carried batch takes the states that the batch
        before it has there, after `start - before.start` of its timesteps; at `before.end` these are its last states.

    Raises
    ------
    SequenceError
        If there are no inputs, they differ in time or batch, or `lengths` or `counted` do not fit them.

    Examples
    --------
    >>> batch = mg.data.Batch({"x": np.zeros((20, 8, 3))}, start=40)
    >>> batch
    Batch(x (20, 8, 3), start 40)
    >>> batch.steps, batch.size, batch.end, batch.timesteps
    (20, 8, 60, 160)
    """

    inputs: dict[str, Array]
    lengths: Array | None = None
    carried: bool = False
    counted: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        for name, array in by_name("a batch", self.inputs).items():
            if not isinstance(array, np.ndarray) or array.ndim < 2:
                found = f"has shape {array.shape}" if isinstance(array, np.ndarray) else f"is {type(array).__name__}"
                raise SequenceError(f"{name!r} {found}, but a batch takes arrays of shape (time, batch, *features)")
        common_number({name: len(array) for name, array in self.inputs.items()}, "timesteps")
        common_number({name: array.shape[1] for name, array in self.inputs.items()}, "sequences")
        if self.lengths is not None and (
            not isinstance(self.lengths, np.ndarray)
            or self.lengths.shape != (self.size,)
            or self.lengths.dtype.kind not in "iu"
        ):
            raise SequenceError(f"lengths is an array of {self.size} whole numbers, not {self.lengths!r:.60}")
        if self.lengths is not None and not 1 <= self.lengths.min() <= self.lengths.max() <= self.steps:
            raise SequenceError(f"lengths go from 1 to the {self.steps} timesteps of a batch, not {self.lengths!r:.60}")
        if self.counted is not None and whole_number("counted", self.counted, least=1) > self.steps:
            raise SequenceError(f"counted={self.counted} is more than the {self.steps} timesteps of the batch")
        whole_number("start", self.start, least=0)

    def __repr__(self) -> str:
        parts = [f"{name} {array.shape}" for name, array in self.inputs.items()]
        parts += [] if self.lengths is None else [f"lengths {self.lengths.min()} to {self.lengths.max()}"]
        parts += ["carried"] if self.carried else []
        parts += [] if self.counted is None else [f"counted {self.counted}"]
        parts += [f"start {self.start}"] if self.start else []
        return f"Batch({', '.join(parts)})"

    @property
    def steps(self) -> int:
        """How many timesteps the batch has, those past a sequence's end included."""
        return len(next(iter(self.inputs.values())))

    @property
    def size(self) -> int:
        """How many sequences the batch has."""
        return int(next(iter(self.inputs.values())).shape[1])

    @property
    def end(self) -> int:
        """The timestep of the whole sequence before which the batch ends."""
        return self.start + self.steps

    @property
    def timesteps(self) -> int:
        """How many timesteps of all sequences together count in the loss: the weight of its mean in an epoch's."""
        skipped = 0 if self.counted is None else self.steps - self.counted
        ends = np.full(self.size, self.steps) if self.lengths is None else self.lengths
        return int(np.maximum(ends - skipped, 0).sum())


@runtime_checkable
class Batches(Protocol):
    """Anything that gives the batches of any epoch, from any batch on.

    An epoch is a function of its number alone: asked again, also in another process, it gives the same batches. So
    training goes on where it stopped without the state of a random generator, and has only the networks' states to
    keep where `carried` batches need them.

    Examples
    --------
    >>> class Noise:
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def epoch(self, number, start=0):
    ...         for i in range(start, 3):
    ...             yield mg.data.Batch({"x": np.random.default_rng([number, i]).normal(size=(20, 8, 1))})
    >>> isinstance(Noise(), mg.data.Batches)
    True
    """

    def __len__(self) -> int:
        """How many batches an epoch has."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` (0, 1, ...), from the `start`-th on."""
        ...
