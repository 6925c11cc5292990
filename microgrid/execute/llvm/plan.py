"""The plan of the LLVM executor: which nodes are computed together, in which order, and what is kept in memory.

Element-by-element work that waits for the same products is one sweep over the rows, and what only it
reads never leaves the registers. What a schedule computes for all timesteps at once moves into the
loop that reads or feeds it, where its data is hot; products of all timesteps stay outside.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from microgrid.execute.llvm.elements import Value
from microgrid.execute.llvm.roles import (
    Element,
    Given,
    Move,
    Product,
    Read,
    Reader,
    Role,
    Sum,
    inputs_of,
    is_leaf,
    row_size,
    runs,
)
from microgrid.execute.memory import Allocation, Buffer, Layout, is_view
from microgrid.execute.phases import Phase, phases
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.schedule import Block, Schedule
from microgrid.tensor import Tensor, is_fixed_number

PIECES = 16
"""Into how many pieces of equal width a row may fall where a sweep reads parts of it."""

CACHE_BYTES = 1 << 18
"""What the rows that one part of a kernel leaves to the next may occupy; at least LEAST_CHUNK timesteps of them."""

LEAST_CHUNK = 8


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
    """A part of a phase: a kernel, or a block that NumPy computes."""

    kernel: Kernel | None
    block: Block | None


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


def assign_buffers(layout: Layout) -> None:
    """A buffer for every varying node that is no view; a state shares that of its next."""
    graph = layout.graph
    for node in graph.nodes:
        if node in graph.varying and not isinstance(node, State) and not is_view(node):
            layout.buffer[node] = Buffer(node)
    for state in graph.states:
        if state.next in graph.varying:
            layout.buffer[state] = layout.buffer[state.next]
            layout.buffer[state].state = state
        else:
            layout.buffer[state] = Buffer(state)
    for node in graph.nodes:
        if node in graph.varying and is_view(node):
            layout.buffer[node] = layout.buffer[node.operands[0]]


# --- which blocks are emitted ---------------------------------------------------------------------------


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
            found.append(Part(None, block))
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
    """How a whole block is emitted: (number of rows, whether they are those of the first axis), or not at all."""
    for mode in ((rows, True), (1, False)):
        if mode[0]:
            roles = Reader(*mode, graph.varying).roles_of(block.nodes)
            if len(roles) == len(block.nodes):
                return mode, roles
    return None, {}


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


def find_starts(kernel: Kernel, graph: Graph) -> None:
    """The initial values that the kernel writes by itself; NumPy writes those of other dtypes or layouts."""
    reader = Reader(kernel.rows, kernel.by_rows, graph.varying)
    for state in kernel.nodes:
        if not isinstance(state, State) or state.next not in graph.varying:
            continue
        initial = state.initial
        if is_fixed_number(initial) and state.dtype.kind == "f":
            number = Value("constant", (float(initial.value),), state.dtype)
            kernel.starts[state] = Element(state, number, (None,))
        elif initial.dtype == state.dtype:
            read = reader.read_of(state, initial)
            if read is not None:
                kernel.starts[state] = Move(state, None, (read,))


def start_width(role: Role, kernel: Kernel) -> int:
    """The width of the pieces in which an initial value is written."""
    size = row_size(role.node, kernel.rows)
    if size == 1 or isinstance(role, Element):
        return size
    return math.gcd(size, *(at for at, _, _ in runs(inputs_of(role)[0])))


# --- the order within a kernel --------------------------------------------------------------------------


def arrange(kernel: Kernel, graph: Graph) -> None:
    """Move element-by-element work into loops, and divide each section into levels and sweeps."""
    for section in kernel.sections:
        section.nodes = [node for node in section.nodes if not is_view(node)]
    find_starts(kernel, graph)
    move_into_loops(kernel, graph)
    kernel.sections = [section for section in kernel.sections if section.nodes]
    for section in kernel.sections:
        section.depth = depths(section, kernel)
        last = max(section.depth.values(), default=0)
        section.levels = [Level() for _ in range(last + 1)]
        for number, level in enumerate(section.levels):
            here = [node for node in section.nodes if section.depth[node] == number]
            level.products = [node for node in here if isinstance(kernel.roles[node], Product)]
            sweeping = [node for node in here if isinstance(kernel.roles[node], Element | Move | Sum)]
            level.groups = groups(sweeping, kernel)


def readers_of(kernel: Kernel) -> dict[Tensor, list[Tensor]]:
    """Node → the nodes of a kernel that read it, also through views, and the state of which it is the next."""
    found: dict[Tensor, list[Tensor]] = {node: [] for node in kernel.nodes}
    for node in kernel.nodes:
        for operand in [node.next] if isinstance(node, State) else operands_of(kernel.roles[node]):
            if operand in found:
                found[operand].append(node)
    return found


def move_into_loops(kernel: Kernel, graph: Graph) -> None:
    """Bring what is computed for all timesteps into the loop behind it that alone reads it, or the one before it."""
    home = {node: i for i, section in enumerate(kernel.sections) for node in section.nodes}
    order = {node: i for i, node in enumerate(kernel.nodes)}
    readers = readers_of(kernel)
    loops = [i for i, section in enumerate(kernel.sections) if section.kind == "loop"]
    movable = [
        node
        for node in kernel.nodes
        if kernel.sections[home[node]].kind == "all" and isinstance(kernel.roles[node], Element | Move | Sum | Given)
    ]
    for node in reversed(movable):  # into the first loop that reads it; a delay too, or its next could not follow
        first = min((home[reader] for reader in readers[node]), default=-1)
        if first > home[node] and first in loops:
            home[node] = first
    for node in movable:  # into the loop that computed what it reads
        if isinstance(kernel.roles[node], Given):
            continue
        before = [i for i in loops if i < home[node]]
        if kernel.sections[home[node]].kind == "all" and before:
            needed = max((home[x] for x in operands_of(kernel.roles[node]) if x in home), default=-1)
            if needed <= before[-1]:
                home[node] = before[-1]
    for i, section in enumerate(kernel.sections):
        section.nodes = sorted((node for node in home if home[node] == i), key=order.__getitem__)


def operands_of(role: Role) -> list[Tensor]:
    return [role.source] if isinstance(role, Product) else [read.operand for read in inputs_of(role)]


def piece_width(read: Read, role: Role, rows: int, in_registers: bool) -> int:
    """The widest pieces of a row that each read one piece of the operand, or one element; 0 if none are wide enough."""
    size = role.size if isinstance(role, Sum) else row_size(role.node, rows)
    width = math.gcd(size, role.length) if isinstance(role, Sum) else size
    longest = size
    for at, first, one in runs(read):
        width = math.gcd(width, at)
        if in_registers and not one:
            width = math.gcd(width, first)
    if in_registers:
        longest = max(size, row_size(read.operand, rows))
        width = math.gcd(width, row_size(read.operand, rows))
    if isinstance(role, Move) and role.source is not None:
        for at in np.flatnonzero(np.diff(role.source)).tolist():
            width = math.gcd(width, at + 1)
    return width if longest // width <= PIECES else 0


def is_in_registers(read: Read, role: Role, kernel: Kernel) -> bool:
    """Whether a node can take an operand of its own level from registers."""
    if row_size(read.operand, kernel.rows) == 1:
        return True
    if row_size(role.node, kernel.rows) == 1 and not isinstance(role, Sum):
        return False
    return bool(piece_width(read, role, kernel.rows, True)) and not any(one for _, _, one in runs(read))


def needs(role: Role) -> list[tuple[Tensor, Read | None]]:
    """What a node reads, and how, if it does so piece by piece."""
    return [(role.source, None)] if isinstance(role, Product) else [(read.operand, read) for read in inputs_of(role)]


def depths(section: Section, kernel: Kernel) -> dict[Tensor, int]:
    """How many products, sums, or passes through memory come before a node in a timestep."""
    roles = kernel.roles
    found = {node: 0 for node in section.nodes if isinstance(roles[node], Given)}
    inside = [node for node in section.nodes if node not in found]
    member = set(inside)
    readers: dict[Tensor, list[tuple[Tensor, int]]] = {node: [] for node in inside}
    for node in inside:
        earliest = 0
        for x, read in needs(roles[node]):
            if x in member:
                near = not isinstance(roles[x], Product | Sum) and (
                    read is None or is_in_registers(read, roles[node], kernel)
                )
                readers[x].append((node, 0 if near else 1))
                earliest = max(earliest, found[x] + (0 if near else 1))
        found[node] = earliest

    def comes_along(node: Tensor) -> bool:
        """Whether what a node takes from registers is there for it alone, and so on."""
        waiting = [node]
        while waiting:
            reader = waiting.pop()
            near = [x for x in operands_of(roles[reader]) if x in member and found[x] == found[node]]
            if any(len(readers[x]) > 1 or not isinstance(roles[x], Element | Move) for x in near):
                return False
            waiting += near
        return True

    for node in reversed(inside):  # as late as its readers allow, if what it reads comes from memory in any case
        latest = min((found[reader] - later for reader, later in readers[node]), default=0)
        if latest > found[node] and not isinstance(roles[node], Product) and comes_along(node):
            found[node] = latest
    return found


def groups(nodes: Sequence[Tensor], kernel: Kernel) -> list[Group]:
    """The sweeps of one level: nodes that hand one another pieces of rows are in one sweep, operands first."""
    member = set(nodes)
    leader = {node: node for node in nodes}

    def find(node: Tensor) -> Tensor:
        while leader[node] is not node:
            node = leader[node]
        return node

    sources: dict[Tensor, Tensor] = {}
    for node in nodes:
        role = kernel.roles[node]
        for read in inputs_of(role):
            x = read.operand
            if (
                x in member
                and row_size(x, kernel.rows) > 1
                and (isinstance(role, Sum) or row_size(node, kernel.rows) > 1)
            ):
                leader[find(node)] = find(x)
            elif x not in member and row_size(node, kernel.rows) > 1 and not isinstance(role, Sum):
                sources.setdefault(x, node)  # rows read by two sweeps in the same pieces are read once
                other = sources[x]
                if own_width(other, kernel) == own_width(node, kernel):
                    leader[find(node)] = find(other)
    sets: dict[Tensor, list[Tensor]] = {}
    for node in nodes:
        sets.setdefault(find(node), []).append(node)
    found = [Group(members, width_of(members, member, kernel)) for members in sets.values()]
    return in_order(found, kernel)


def own_width(node: Tensor, kernel: Kernel) -> tuple[int, int]:
    """How many elements a row of a node has, and in which pieces it could be computed by itself."""
    role, size = kernel.roles[node], row_size(node, kernel.rows)
    return size, math.gcd(size, *(piece_width(read, role, kernel.rows, False) or 1 for read in inputs_of(role)))


def width_of(nodes: Sequence[Tensor], member: set[Tensor], kernel: Kernel) -> int:
    """The width of the pieces of a sweep."""
    width = 0
    for node in nodes:
        role = kernel.roles[node]
        size = row_size(node, kernel.rows)
        if size == 1 and not isinstance(role, Sum):
            continue
        for read in inputs_of(role):
            from_registers = read.operand in member and row_size(read.operand, kernel.rows) > 1
            width = math.gcd(width, piece_width(read, role, kernel.rows, from_registers) or 1)
        width = math.gcd(width, role.length if isinstance(role, Sum) else size)
    return width or 1


def in_order(found: list[Group], kernel: Kernel) -> list[Group]:
    """Sweeps whose numbers others read come first."""
    home = {node: group for group in found for node in group.nodes}
    ordered: list[Group] = []
    waiting = list(found)
    while waiting:
        for group in waiting:
            needed = {id(home[x]) for node in group.nodes for x in operands_of(kernel.roles[node]) if x in home} - {
                id(group)
            }
            if not needed & {id(other) for other in waiting}:
                ordered.append(group)
                waiting.remove(group)
                break
        else:
            raise AssertionError("sweeps of one level wait for each other")
    return ordered


# --- what is kept in memory -----------------------------------------------------------------------------


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
        if isinstance(role, Sum) and row_size(node, kernel.rows) > 1:
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
    return depth[x] == depth[node] and not isinstance(kernel.roles[x], Sum)


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
