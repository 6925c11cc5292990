"""The plan of the LLVM executor: which nodes are computed together, in which order, and what is kept in memory.

Element-by-element work that waits for the same products is one sweep over the rows, and what only it
reads never leaves the registers. What a schedule computes for all timesteps at once moves into the
loop that reads or feeds it, where its data is hot; products of all timesteps stay outside.
"""

from __future__ import annotations

from collections import Counter

from microgrid.execute.llvm.arrange import arrange
from microgrid.execute.llvm.kernels import Kernel, Part, Plan, Section
from microgrid.execute.llvm.roles import (
    Product,
    Reader,
    Role,
)
from microgrid.execute.llvm.storage import choose_kinds, stored_nodes
from microgrid.execute.memory import Layout, assign_buffers
from microgrid.execute.phases import Phase, phases
from microgrid.graph import Graph
from microgrid.schedule import Block, Schedule
from microgrid.tensor import Tensor


def plan(schedule: Schedule) -> Plan:
    graph = schedule.graph
    layout = Layout(graph, phases(schedule))
    assign_buffers(layout)
    parts = [(phase, [] if phase.once else parts_of(phase, graph)) for phase in layout.phases]
    for _, found in parts:
        for part in found:
            if part.kernel is not None:
                arrange(part.kernel, graph)
    by_numpy = {node for _, found in parts for part in found if part.block is not None for node in part.block.nodes}
    stored = stored_nodes(graph, parts, by_numpy)
    choose_kinds(layout, parts, stored, by_numpy)
    return Plan(layout, parts, stored, by_numpy)


def parts_of(phase: Phase, graph: Graph) -> list[Part]:
    """The blocks of a phase as kernels, and blocks for NumPy."""
    rows = batch_of(phase, graph)
    pieces: list[tuple[Block, tuple[int, bool] | None, dict[Tensor, Role]]] = []
    for block in phase.blocks:
        if block.kind == "loop" or block.directed:
            pieces.append((block, *mode_of(block, rows, graph)))
        else:
            pieces += split(block, rows, graph)
    found: list[Part] = []
    for block, mode, roles in pieces:
        if mode is None:
            found.append(Part(None, block, tuple(node for node in block.nodes if node not in roles)))
            continue
        section = Section("loop" if block.kind == "loop" else "all", list(block.nodes))
        before = found[-1].kernel if found else None
        if before is not None and (before.rows, before.by_rows) == mode:
            before.sections.append(section)
            before.roles.update(roles)
        else:
            found.append(Part(Kernel([section], *mode, phase.reverse, dict(roles)), None))
    return found


def batch_of(phase: Phase, graph: Graph) -> int:
    """How many rows the arrays of a phase have most often: the batch. 0 if they have no axes."""
    counts: Counter[int] = Counter()
    for block in phase.blocks:
        for node in block.nodes:
            if node in graph.varying and node.ndim > 1:
                counts[node.shape[0]] += 1 + 1000 * (block.kind == "loop")
    return counts.most_common(1)[0][0] if counts else 0


def mode_of(block: Block, rows: int, graph: Graph) -> tuple[tuple[int, bool] | None, dict[Tensor, Role]]:
    """How a whole block is emitted: (number of rows, whether they are those of the first axis), or not at all.

    Then the roles are those of the nodes that are not to blame.
    """
    most: dict[Tensor, Role] = {}
    for mode in ((rows, True), (1, False)):
        if mode[0]:
            roles = Reader(*mode, graph.varying).roles_of(block.nodes)
            if len(roles) == len(block.nodes):
                return mode, roles
            most = max(most, roles, key=len)
    return None, most


def split(block: Block, rows: int, graph: Graph) -> list[tuple[Block, tuple[int, bool] | None, dict[Tensor, Role]]]:
    """A block over all timesteps as blocks that are emitted and blocks that are not, in turns."""
    mode = (rows, True) if rows else (1, False)
    roles = Reader(*mode, graph.varying).roles_of(block.nodes)
    turn: dict[Tensor, int] = {}  # emitted in even turns, by NumPy in odd ones
    for node in block.nodes:
        least = max((turn[operand] for operand in node.operands if operand in turn), default=0)
        turn[node] = least + ((least % 2 == 1) == (node in roles))
    last = max(turn.values())
    latest = dict.fromkeys(block.nodes, last + last % 2)
    for node in reversed(block.nodes):  # near the loop that reads it, and not kept on the way there
        if node in roles and not isinstance(roles[node], Product):
            turn[node] = latest[node] - latest[node] % 2
        for operand in node.operands:
            if operand in turn:
                latest[operand] = min(latest[operand], turn[node])
    found = []
    for number in sorted(set(turn.values())):
        nodes = tuple(node for node in block.nodes if turn[node] == number)
        mine = {node: roles[node] for node in nodes if node in roles}
        found.append((Block("all", nodes, block.reverse), mode if mine else None, mine))
    return found
