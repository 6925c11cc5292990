"""Phases: blocks that can take turns on one chunk of timesteps after the other."""

from __future__ import annotations

from dataclasses import dataclass

from microgrid.schedule import Block, Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """Blocks that run one after the other on each chunk of timesteps, all in one direction.

    A phase of one block of kind "once" has no chunks.
    """

    blocks: tuple[Block, ...]
    reverse: bool

    @property
    def once(self) -> bool:
        return self.blocks[0].kind == "once"


def phases(schedule: Schedule) -> list[Phase]:
    """The blocks of a schedule, grouped into as few phases as directions and reductions over time allow."""
    found: list[tuple[list[Block], bool | None]] = []
    for block in schedule.blocks:
        direction = block.reverse if block.directed else None
        blocks, held = found[-1] if found else ([block], None)
        if not found or block.kind == "once" or blocks[0].kind == "once":
            found.append(([block], direction))
        elif held is None or direction is None or held == direction:
            found[-1] = ([*blocks, block], held if direction is None else direction)
        else:  # the other way: what was computed last is computed for this block
            turn = max(i for i, each in enumerate(blocks) if each.directed) + 1
            found[-1] = (blocks[:turn], held)
            found.append(([*blocks[turn:], block], direction))
    return [Phase(tuple(blocks), bool(direction)) for blocks, direction in found]
