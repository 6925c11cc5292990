"""Parts to train on and parts to validate with: of long sequences in time, or of independent items at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from microgrid.data.given import Array, by_name, common_number, fraction, number_array, whole_number
from microgrid.errors import SequenceError

Items = TypeVar("Items")


@overload
def split_in_time(
    sequences: Mapping[str, npt.ArrayLike], validation: float = 0.2, gap: int = 0
) -> tuple[dict[str, Array], dict[str, Array]]: ...
@overload
def split_in_time(sequences: npt.ArrayLike, validation: float = 0.2, gap: int = 0) -> tuple[Array, Array]: ...
def split_in_time(sequences: Any, validation: float = 0.2, gap: int = 0) -> tuple[Any, Any]:
    """The earlier part of long sequences to train on, and the later part to validate with. Both are views.

    Parameters
    ----------
    sequences : array (time, *features), or mapping of str → such arrays
    validation : float
        Which share of the timesteps validates.
    gap : int
        How many timesteps between the parts are left out, where a timestep also holds something of up to `gap` others
        before or after it: lagged inputs, running means, targets some timesteps ahead.

    Returns
    -------
    (train, validation)
        Each an array, or a dict of arrays if `sequences` is a mapping.

    Raises
    ------
    SequenceError
        If sequences differ in length, or a part would be empty.

    Examples
    --------
    >>> train, validation = mg.data.split_in_time(np.arange(10), validation=0.3, gap=2)
    >>> train, validation
    (array([0, 1, 2, 3, 4]), array([7, 8, 9]))
    """
    if isinstance(sequences, Mapping):
        arrays = {name: number_array(repr(name), x) for name, x in by_name("split_in_time", sequences).items()}
    else:
        arrays = {"the sequence": number_array("the sequence", sequences)}
    for name, array in arrays.items():
        if not array.ndim:
            raise SequenceError(f"{name!r} is the single number {array}, but a sequence has timesteps to split")
    steps = common_number({name: len(array) for name, array in arrays.items()}, "timesteps")
    border = steps - round(steps * fraction("validation", validation))
    end = border - whole_number("gap", gap, least=0)
    if end < 1 or border == steps:
        raise SequenceError(
            f"{steps} timesteps with {validation=} and {gap=} leave {max(end, 0)} to train on and {steps - border} to "
            "validate with: each part takes at least one"
        )
    if not isinstance(sequences, Mapping):
        return arrays["the sequence"][:end], arrays["the sequence"][border:]
    return {name: x[:end] for name, x in arrays.items()}, {name: x[border:] for name, x in arrays.items()}


@overload
def split(items: Items, /, *, validation: float = 0.1, seed: int = 0) -> tuple[Items, Items]: ...
@overload
def split(*items: Any, validation: float = 0.1, seed: int = 0) -> tuple[Any, ...]: ...
def split(*items: Any, validation: float = 0.1, seed: int = 0) -> tuple[Any, ...]:
    """Independent items in two parts at random, one to train on and one to validate with.

    Parameters
    ----------
    *items : array, list or tuple of items, or mapping of str → such
        Several are split alike. Of an array the items lie along its first axis.
    validation : float
        Which share of the items validates.
    seed : int
        The parts follow from it and the number of items.

    Returns
    -------
    (train, validation), or (train, validation, train, validation, ...) for several
        Each of the kind that was given, with its items in the order in which they were given. Parts of arrays are
        copies; of data larger than memory, split the numbers of the items, `np.arange(count)`.

    Raises
    ------
    SequenceError
        If there are not as many items in each, or a part would be empty.

    Examples
    --------
    >>> mg.data.split(["a", "b", "c", "d"], validation=0.25)
    (['a', 'b', 'd'], ['c'])
    >>> x_train, x_validation, y_train, y_validation = mg.data.split(np.zeros((20, 5, 3)), np.zeros(20))
    >>> x_train.shape, x_validation.shape, y_train.shape
    ((18, 5, 3), (2, 5, 3), (18,))
    """
    counts: dict[str, int] = {}
    for i, each in enumerate(items):
        counts |= item_counts(each, "" if len(items) == 1 else f"argument {i}")
    if not counts:
        raise SequenceError("split was given nothing to split")
    count = common_number(counts, "items")
    order = np.random.default_rng(whole_number("seed", seed, least=0)).permutation(count)
    validating = round(count * fraction("validation", validation))
    if validating in (0, count):
        raise SequenceError(
            f"{count} items with {validation=} leave {count - validating} to train on and {validating} to validate "
            "with: each part takes at least one"
        )
    parts = np.sort(order[validating:]), np.sort(order[:validating])
    return tuple(taken(each, part) for each in items for part in parts)


def item_counts(items: Any, what: str) -> dict[str, int]:
    """How many items there are, by each name of a mapping.

    >>> item_counts({"x": [1, 2], "y": [3, 4]}, "")
    {'x': 2, 'y': 2}
    """
    if isinstance(items, Mapping):
        found = [item_counts(each, f"{key} of {what}" if what else str(key)) for key, each in items.items()]
        return {name: count for counts in found for name, count in counts.items()}
    if isinstance(items, list | tuple) or (isinstance(items, np.ndarray) and items.ndim):
        return {what: len(items)}
    raise SequenceError(
        f"split takes arrays, lists and tuples of items, and mappings of them, but {what or 'the items'} is "
        f"{type(items).__name__}"
    )


def taken(items: Any, chosen: Array) -> Any:
    """The chosen items, in the kind that was given.

    >>> taken({"x": (5, 6, 7)}, np.array([0, 2]))
    {'x': (5, 7)}
    """
    if isinstance(items, Mapping):
        return {name: taken(each, chosen) for name, each in items.items()}
    if isinstance(items, np.ndarray):
        return items[chosen]
    part = [items[i] for i in chosen]
    return tuple(part) if isinstance(items, tuple) else part
