"""What a setting may be. Optimisers and schedules check theirs with these, given by a user or read from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.errors import OperandError, did_you_mean

LARGEST_INTEGER = 2**53
"""Up to here every integer is a float."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how an error calls it, which values are of it, and the type in which they are kept."""

    words: str
    fits: Callable[[Any], bool]
    kept_as: Callable[[Any], Any] = float

    def take(self, value: Any, name: str, whose: str) -> Any:
        """`value` as it is kept, or an OperandError that says what was found.

        >>> POSITIVE.take(np.float32(0.5), "lr", "Adam")
        0.5
        """
        if not self.fits(value):
            raise OperandError(f"{whose} takes {self.words} for {name}, not {repr(value)[:60]}")
        return self.kept_as(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    return isinstance(value, float | np.floating) or (is_whole(value) and abs(value) <= LARGEST_INTEGER)


def is_finite(value: Any) -> bool:
    return is_real(value) and math.isfinite(value)


def is_decay(value: Any) -> bool:
    return is_finite(value) and 0 <= value < 1


NUMBER = Kind("a number", is_finite)
POSITIVE = Kind("a number > 0", lambda value: is_finite(value) and value > 0)
NOT_NEGATIVE = Kind("a number ≥ 0", lambda value: is_finite(value) and value >= 0)
FRACTION = Kind("a number from 0 to 1", lambda value: is_finite(value) and 0 <= value <= 1)
DECAY = Kind("a number in [0, 1)", is_decay)
TWO_DECAYS = Kind(
    "two numbers in [0, 1)",
    lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(map(is_decay, value)),
    lambda value: tuple(map(float, value)),
)
LIMIT = Kind("a number > 0", lambda value: is_real(value) and value > 0)
SWITCH = Kind("True or False", lambda value: isinstance(value, bool), bool)
COUNT = Kind("a whole number ≥ 1", lambda value: is_whole(value) and value >= 1, int)
STEP_NUMBER = Kind("a whole number ≥ 0", lambda value: is_whole(value) and 0 <= value <= LARGEST_INTEGER, int)


def checked(kinds: Mapping[str, Kind], settings: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """The settings as they are kept. Raises OperandError for one that `whose` does not have, or out of its range."""
    for name in settings:
        if name not in kinds:
            raise OperandError(f"{whose} has no setting {name!r}. {did_you_mean(name, kinds)}")
    return {name: kinds[name].take(value, name, whose) for name, value in settings.items()}
