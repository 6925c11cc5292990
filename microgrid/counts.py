"""Settings that count something: the one check of a whole number."""

from __future__ import annotations

from typing import Any

import numpy as np

from microgrid.errors import MicrogridError, OperandError


def whole_number(what: str, value: Any, least: int = 1, error: type[MicrogridError] = OperandError) -> int:
    """A whole number of Python or NumPy, at least `least`.

    >>> whole_number("batch_size", 8)
    8
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise error(f"{what} is a whole number, at least {least}, not {value!r:.60}")
    return int(value)
