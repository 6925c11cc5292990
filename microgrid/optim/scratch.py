"""Memory for intermediate results, so that a step of an optimiser allocates nothing large."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Scratch:
    """One array per dtype and number, as large as the largest parameter; all parameters use views of it in turn.

    >>> scratch = Scratch()
    >>> first, second = scratch.like(np.zeros((2, 3))), scratch.like(np.zeros(4))
    >>> first.shape, second.shape, np.shares_memory(first, second)
    ((2, 3), (4,), True)
    """

    def __init__(self) -> None:
        self._held: dict[tuple[np.dtype[Any], int], npt.NDArray[Any]] = {}

    def like(self, array: npt.NDArray[Any], number: int = 0) -> npt.NDArray[Any]:
        """An array of the same shape, dtype and order in memory, filled with anything; equal numbers share memory."""
        key = array.dtype, number
        held = self._held.get(key)
        if held is None or held.size < array.size:
            held = self._held[key] = np.empty(array.size, array.dtype)
        return held[: array.size].reshape(array.shape, order="F" if array.flags.fnc else "C")
