"""What layers are given, checked: sizes, dtypes and random generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.errors import OperandTypeError

Random = np.random.Generator | int | None
"""A generator, shared by all that are given it; a seed; or None for numbers that differ from run to run."""


def generator(rng: Random) -> np.random.Generator:
    """The generator that a layer draws from."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise OperandTypeError(
            f"rng is a numpy.random.Generator, as np.random.default_rng(0) makes, or a seed, not {rng!r:.60}"
        ) from None


def float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of a layer's parameters, checked."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind != "f":
        raise OperandTypeError(f"the dtype of a layer is one of floats, such as np.float32, not {dtype!r:.40}")
    return found
