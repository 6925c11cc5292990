"""What a kernel keeps in memory, and for how long: rows that someone reads who cannot have them from registers."""

from __future__ import annotations

from collections.abc import Sequence

from microgrid.execute.llvm.kernels import Kernel, Part, Section
from microgrid.execute.llvm.roles import (
    Fold,
    Given,
    Product,
    Read,
    inputs_of,
    is_leaf,
    operands_of,
    row_size,
)
from microgrid.execute.memory import Allocation, Layout, is_view
from microgrid.execute.phases import Phase
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.tensor import Tensor

CACHE_BYTES = 1 << 18
"""What the rows that one part of a kernel leaves to the next may occupy; at least LEAST_CHUNK timesteps of them."""

LEAST_CHUNK = 8


def root(node: Tensor) -> Tensor:
    """The node whose memory a view shows."""
    while is_view(node):
        node = node.operands[0]
    return node


def stored_nodes(graph: Graph, parts: Sequence[tuple[Phase, list[Part]]], by_numpy: set[Tensor]) -> set[Tensor]:
    """The varying nodes whose rows someone reads from memory."""
    stored: set[Tensor] = set()
    kernels = [part.kernel for _, found in parts for part in found if part.kernel is not None]
    place = {node: (kernel, section) for kernel in kernels for section in kernel.sections for node in section.nodes}

    def require(node: Tensor) -> None:
        if node in graph.varying:
            stored.add(root(node))

    for output in graph.outputs:
        require(output)
    for node in graph.nodes:
        if isinstance(node, State):
            require(node.next)
            stored.add(node)
            continue
        if is_leaf(node) and node in graph.varying:
            stored.add(node)
        if node in by_numpy:
            require(node)
        if node not in place:
            if not is_view(node):
                for operand in node.operands:
                    require(operand)
            continue
        kernel, section = place[node]
        role = kernel.roles[node]
        if isinstance(role, Product):
            require(role.source)
            require(node)
        for read in inputs_of(role):
            if not hands_over(read, node, section, kernel):
                require(read.operand)
        if isinstance(role, Fold) and row_size(node, kernel.rows) > 1:
            require(node)
    return stored


def hands_over(read: Read, node: Tensor, section: Section, kernel: Kernel) -> bool:
    """Whether a node takes an operand from registers."""
    x = read.operand
    depth = section.depth
    if x not in depth or isinstance(kernel.roles[x], Given | Product):
        return False
    if row_size(x, kernel.rows) == 1:  # one number of a row, while that row lasts
        between = section.levels[depth[x] : depth[node]]
        return not any(level.products for level in between)
    return depth[x] == depth[node] and not isinstance(kernel.roles[x], Fold)


def choose_kinds(
    layout: Layout, parts: Sequence[tuple[Phase, list[Part]]], stored: set[Tensor], by_numpy: set[Tensor]
) -> None:
    """How many rows each buffer has: those of the whole run, of a chunk of timesteps, of two, of one, or none."""
    graph = layout.graph
    homes: dict[int, set[tuple[int, int]]] = {}  # buffer → (kernel, section) that touch it
    in_loops: set[tuple[int, int]] = set()
    batched: set[int] = set()  # those that are touched between products of all timesteps
    number = 0

    def touch(node: Tensor, home: tuple[int, int]) -> None:
        if node in layout.buffer:
            homes.setdefault(id(layout.buffer[node]), set()).add(home)

    for phase, found in parts:
        for block in phase.blocks if phase.once else ():
            for node in block.nodes:
                for operand in node.operands:
                    touch(operand, (-1, -1))
        for part in found:
            number += 1
            if part.block is not None:
                for node in part.block.nodes:
                    for each in (node, *(() if isinstance(node, State) else node.operands)):
                        touch(each, (-number, -1))
                continue
            assert part.kernel is not None
            for i, section in enumerate(part.kernel.sections):
                if section.kind == "loop":
                    in_loops.add((number, i))
                for node in section.nodes:
                    role = part.kernel.roles[node]
                    for each in (node, *operands_of(role)):
                        touch(root(each), (number, i))
                    if section.kind == "all" and any(level.products for level in section.levels):
                        touched = [root(each) for each in (node, *operands_of(role))]
                        batched.update(id(layout.buffer[each]) for each in touched if each in layout.buffer)
    outputs = {id(layout.buffer[output]) for output in graph.outputs if output in layout.buffer}
    for buffer in layout.buffers():
        places = homes.get(id(buffer), set())
        members = [node for node in (buffer.owner, buffer.state) if node is not None]
        source = any(is_leaf(node) or (isinstance(node, State) and node.next not in graph.varying) for node in members)
        if source or id(buffer) in outputs or len({k for k, _ in places}) > 1 or any(k < 0 for k, _ in places):
            buffer.kind = "kept"
        elif buffer.owner not in stored:
            buffer.kind = "none"
        elif buffer.state is not None:
            buffer.kind = "ring" if len(places) == 1 and places <= in_loops else "kept"
        elif len(places) > 1 or id(buffer) in batched:
            buffer.kind = "chunk"
        else:
            buffer.kind = "step"
        if isinstance(buffer.owner, Input) and id(buffer) not in outputs:
            buffer.kind = "given"
            continue
        if buffer.kind != "none":
            buffer.slot = len(layout.allocations)
            extra = buffer.state is not None and buffer.kind == "kept"
            layout.allocations.append(Allocation(buffer.kind, buffer.row_bytes, extra))


def chunk_length(kernel: Kernel, layout: Layout, steps: int) -> int:
    """How many timesteps the sections of a kernel take at a time: what they hand on shall stay in the cache."""
    if len(kernel.sections) == 1 and not any(level.products for level in kernel.sections[0].levels):
        return steps
    buffers = {id(layout.buffer[root(node)]): layout.buffer[root(node)] for node in kernel.nodes}
    row_bytes = sum(buffer.row_bytes for buffer in buffers.values() if buffer.kind == "chunk")
    return min(steps, max(LEAST_CHUNK, CACHE_BYTES // max(1, row_bytes))) if row_bytes else steps
