"""Which timesteps an unrolled picture shows: all, or the first and the last of many."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_NODES = 300
"""An unrolled picture with more shows only its first and last timesteps, unless all are asked for."""


@dataclass(frozen=True)
class Fold:
    """The timesteps of a picture, `hidden` those between the first and the last that it leaves out.

    `label_of_all` stands on the only timestep of a rolled picture.
    """

    steps: int
    hidden: range = range(0)
    label_of_all: str | None = None
    shown: list[int] = field(init=False)
    column: dict[int, int] = field(init=False)
    """Shown timestep → how many are shown before it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", [t for t in range(self.steps) if t not in self.hidden])
        object.__setattr__(self, "column", {t: i for i, t in enumerate(self.shown)})

    def is_behind(self, t: int) -> bool:
        """Whether a shown timestep stands behind those left out."""
        return bool(self.hidden) and t > self.hidden[-1]

    def label(self, t: int) -> str:
        return self.label_of_all or f"t = {t}"


def folded(steps: int, kept: int | None, nodes_per_step: int) -> Fold:
    """Show the first and the last `kept` timesteps; None shows all, unless those were too many nodes.

    0 shows all in any case.
    """
    if kept is None:
        few = steps * nodes_per_step <= MOST_NODES
        kept = 0 if few else max(2, min(3, MOST_NODES // (4 * max(1, nodes_per_step))))
    if kept == 0 or steps <= 2 * kept + 1:
        return Fold(steps)
    return Fold(steps, range(kept, steps - kept))
