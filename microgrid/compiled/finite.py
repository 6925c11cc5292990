"""check=True: the first node and timestep at which a NaN or an infinity appears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid.compiled.whole import Whole
from microgrid.errors import NotFiniteError
from microgrid.execute.on_numpy import Workspace
from microgrid.leaves import State
from microgrid.tensor import Tensor


def check_finite(whole: Whole, length: int, sequences: Mapping[str, Any], starts: Mapping[str, Any]) -> None:
    """Run a network that keeps all values, and raise at the first that is not finite.

    Raises
    ------
    NotFiniteError
        Naming the node, as the network's user named it, and the timestep.
    """
    program = whole.program
    workspace = Workspace(program, length)
    with np.errstate(all="ignore"):
        static = workspace.compute(*whole.operands(sequences, starts))
    graph = program.graph
    values = {node: static[slot] for node, slot in program.slots.items()}
    finite: dict[Tensor, Any] = {}  # node → whether it is finite, at each timestep if it varies
    rows: dict[Tensor, Any] = {}
    for node in graph.nodes:
        if node in values:
            finite[node] = bool(np.all(np.isfinite(values[node])))
        else:
            rows[node] = workspace.rows(node, 0, length)
            finite[node] = np.isfinite(rows[node]).all(axis=tuple(range(1, rows[node].ndim)))

    def came_in(node: Tensor) -> Any:
        """Whether something that the node reads is not finite already."""
        if isinstance(node, State):
            start = np.broadcast_to(not finite[node.initial], length).copy()
            before = np.broadcast_to(~np.asarray(finite[node.next]), length)
            if node.reverse:
                start[:-1] = before[1:]
            else:
                start[1:] = before[:-1]
            return start
        inherited: Any = False
        for operand in node.operands:
            bad = ~np.asarray(finite[operand])
            inherited = inherited | (bad if node in rows or operand not in rows else bad.any())
        return inherited

    for block in (None, *program.schedule.blocks):
        leaves = [node for node in graph.nodes if not node.operands]
        origins: list[tuple[int, Tensor, int | None]] = []
        for node in leaves if block is None else block.nodes:
            bad = ~np.asarray(finite[node]) & ~np.asarray(came_in(node))
            for t in np.flatnonzero(bad):
                backwards = block is not None and block.reverse
                origins.append((-int(t) if backwards else int(t), node, int(t) if node in rows else None))
        if origins:
            _, node, at = min(origins, key=lambda origin: origin[0])
            array = np.asarray(rows[node][at] if at is not None else values[node])
            bad_value = array[~np.isfinite(array)].flat[0]
            where = "" if at is None else f" at timestep {at}"
            starts_of = {leaf: name for name, leaf in whole.given.items()}
            what = f"initial value of {starts_of[node]!r}" if node in starts_of else f"value of {graph.names[node]!r}"
            raise NotFiniteError(f"the {what} is {bad_value}{where}")
