"""What every epoch has in common: the batches that are left of it, and the order that its number draws."""

from __future__ import annotations

import numpy as np

from microgrid.data.given import Array, whole_number
from microgrid.errors import SequenceError


def batches_left(number: int, start: int, count: int) -> range:
    """Which of an epoch's `count` batches come from the `start`-th on.

    >>> batches_left(0, 1, 3)
    range(1, 3)
    """
    whole_number("the number of an epoch", number, least=0)
    if whole_number("start", start, least=0) > count:
        raise SequenceError(f"start={start} lies past the end of an epoch of {count} batches")
    return range(start, count)


def checked_seed(seed: int | None) -> int | None:
    """A seed that `generator_of` can draw with.

    >>> checked_seed(0)
    0
    """
    return None if seed is None else whole_number("seed", seed, least=0)


def generator_of(seed: int | None, number: int) -> np.random.Generator | None:
    """The random numbers of epoch `number`, which depend on no epoch before it; none without a seed.

    >>> generator_of(0, 5).integers(100) == generator_of(0, 5).integers(100)
    np.True_
    """
    return None if seed is None else np.random.default_rng([seed, number])


def order_of(count: int, generator: np.random.Generator | None) -> Array:
    """The order of `count` items: as given, or drawn.

    >>> order_of(3, None).tolist()
    [0, 1, 2]
    """
    return np.arange(count) if generator is None else generator.permutation(count)
