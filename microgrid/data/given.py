"""What a user gives: arrays of numbers by name, and settings, checked without reading the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid import counts
from microgrid.errors import SequenceError

Array = np.ndarray[Any, Any]


def number_array(what: str, value: Any) -> Array:
    """`value` as an array of real numbers, without a copy where it is one (a `np.memmap` stays on disk).

    >>> number_array("'x'", [[1.0, 2.0]]).shape
    (1, 2)
    """
    if isinstance(value, np.ma.MaskedArray):
        raise SequenceError(f"{what} is a masked array, whose mask would be lost: fill it, or give sequences lengths")
    try:
        array = np.asarray(value)
    except ValueError:  # its parts differ in shape
        array = np.empty((), object)
    if array.dtype.kind == "O":
        raise SequenceError(
            f"{what} is no array of numbers, but a {type(value).__name__} whose parts differ in shape or are no "
            "numbers. Sequences of different length: use mg.data.Buckets or mg.data.pad, and lengths="
        )
    if array.dtype.kind in "SU":
        raise SequenceError(f"{what} holds text: turn it into numbers first, with mg.data.Vocabulary")
    if array.dtype.kind not in "fiub":
        raise SequenceError(f"{what} holds {array.dtype}, but networks compute with real numbers")
    return array


def by_name(what: str, given: Any) -> dict[str, Any]:
    """A mapping from names of inputs, which is not empty.

    >>> by_name("Windows", {"x": [1.0]})
    {'x': [1.0]}
    """
    if not isinstance(given, Mapping):
        raise SequenceError(
            f"{what} takes sequences by the names of the network's inputs, as in {{'x': ..., 'target': ...}}, not as "
            f"{type(given).__name__}"
        )
    if not given:
        raise SequenceError(f"{what} was given no sequences: name at least one, as in {{'x': ...}}")
    for name in given:
        if not isinstance(name, str):
            raise SequenceError(f"{what} takes sequences by the names of inputs, which are str, not {name!r:.60}")
    return dict(given)


def arrays_by_name(what: str, given: Any, layout: str, hint: str = "") -> dict[str, Array]:
    """Arrays by name whose first axes are as in `layout`, such as "time, batch", and not empty.

    >>> list(arrays_by_name("Windows", {"x": np.zeros((5, 2))}, "time, batch"))
    ['x']
    """
    arrays = {name: number_array(repr(name), value) for name, value in by_name(what, given).items()}
    for name, array in arrays.items():
        if array.ndim < len(layout.split(", ")):
            raise SequenceError(f"{name!r} has shape {array.shape}, but {what} takes ({layout}, *features){hint}")
        if not array.size:
            raise SequenceError(f"{name!r} is empty: it has shape {array.shape}")
    return arrays


def common_number(counts: Mapping[str, int], noun: str) -> int:
    """How many there are by every name.

    >>> common_number({"x": 3, "y": 3}, "timesteps")
    3
    >>> common_number({"x": 3, "y": 2}, "timesteps")
    Traceback (most recent call last):
    ...
    microgrid.errors.SequenceError: 'x' has 3 timesteps, but 'y' has 2: they must agree
    """
    (first, number), *others = counts.items()
    for name, other in others:
        if other != number:
            raise SequenceError(f"{first!r} has {number} {noun}, but {name!r} has {other}: they must agree")
    return number


def whole_number(what: str, value: Any, least: int) -> int:
    """A setting that counts something.

    >>> whole_number("batch_size", 8, least=1)
    8
    """
    return counts.whole_number(what, value, least, SequenceError)


def fraction(what: str, value: Any) -> float:
    """A share of the data, more than nothing and less than all.

    >>> fraction("validation", 0.2)
    0.2
    """
    if not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise SequenceError(f"{what} is a share of the data, more than 0 and less than 1, not {value!r:.60}")
    return float(value)
