"""Rails: one level line for each shared weight, from which it rises into every timestep, ordered to cross little."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RAIL_GAP, RAIL_ROOM = 9.0, 18.0
"""Between two rails; between the nearest and the timesteps, and between the farthest and the row; in points."""

TRIED = 6
"""So many rails are tried in all orders; more stand in the order of their weights."""


@dataclass(frozen=True, slots=True)
class Rail:
    """Where a weight stands, and where it enters the timesteps."""

    stem: float
    risers: tuple[float, ...]

    @property
    def start(self) -> float:
        return min(self.stem, *self.risers)

    @property
    def end(self) -> float:
        return max(self.stem, *self.risers)

    def spans(self, x: float) -> bool:
        return self.start < x < self.end

    def crossings(self, nearer: Rail) -> int:
        """How often its risers cross a rail that is nearer to the timesteps, and the stem of that one it."""
        return sum(nearer.spans(x) for x in self.risers) + self.spans(nearer.stem)


def nearest_first(rails: Sequence[Rail]) -> list[int]:
    """The numbers of the rails, the one nearest to the timesteps first, in an order with few crossings.

    >>> left, right = Rail(10.0, (0.0, 100.0)), Rail(20.0, (8.0, 108.0))
    >>> nearest_first([left, right])
    [0, 1]
    """
    numbers = range(len(rails))
    if len(rails) > TRIED:
        return list(numbers)
    cost = [[far.crossings(near) for near in rails] for far in rails]

    def crossings(order: Iterable[int]) -> int:
        return sum(cost[far][near] for near, far in itertools.combinations(order, 2))

    return list(min(itertools.permutations(numbers), key=crossings))


def room_for(count: int) -> float:
    """The height that so many rails take between a row and the timesteps."""
    return 2 * RAIL_ROOM + RAIL_GAP * (count - 1)
