"""What is emitted: kernels of sections, sections of levels, levels of sweeps and products; and the plan of them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from microgrid.execute.llvm.roles import (
    Role,
)
from microgrid.execute.memory import Layout
from microgrid.execute.phases import Phase
from microgrid.schedule import Block
from microgrid.tensor import Tensor


@dataclass(slots=True, eq=False)
class Group:
    """Nodes that are computed in one sweep over pieces of `width` elements, operands first."""

    nodes: list[Tensor]
    width: int


@dataclass(slots=True, eq=False)
class Level:
    """Sweeps, row after row, and then products of all rows."""

    groups: list[Group] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Section:
    """Part of a kernel: a loop over time, or what is computed for all timesteps of a chunk."""

    kind: Literal["loop", "all"]
    nodes: list[Tensor]
    levels: list[Level] = field(default_factory=list)
    depth: dict[Tensor, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Kernel:
    """What is emitted as one function: sections that take turns on chunks of timesteps."""

    sections: list[Section]
    rows: int
    by_rows: bool
    reverse: bool
    roles: dict[Tensor, Role]
    starts: dict[Tensor, Role] = field(default_factory=dict)
    """What the states of the kernel are before their first timestep."""

    @property
    def nodes(self) -> Iterable[Tensor]:
        return itertools.chain.from_iterable(section.nodes for section in self.sections)


@dataclass(slots=True, eq=False)
class Part:
    """A part of a phase: a kernel, or a block that NumPy computes, because of some of its nodes."""

    kernel: Kernel | None
    block: Block | None
    because: tuple[Tensor, ...] = ()


@dataclass(slots=True, eq=False)
class Plan:
    """What runs one after the other.

    Attributes
    ----------
    layout : Layout
    parts : list of (phase, parts)
    stored : set of Tensor
        The varying nodes whose rows are written to memory.
    by_numpy : set of Tensor
        The varying nodes that have no scalar expression, and what runs with them.
    """

    layout: Layout
    parts: list[tuple[Phase, list[Part]]]
    stored: set[Tensor]
    by_numpy: set[Tensor]
