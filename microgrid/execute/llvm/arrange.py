"""The order within a kernel: what moves into which loop, what is one sweep, and in which pieces of a row it works."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from microgrid.execute.llvm.elements import Value
from microgrid.execute.llvm.kernels import Group, Kernel, Level, Section
from microgrid.execute.llvm.roles import (
    Element,
    Fold,
    Given,
    Move,
    Product,
    Read,
    Reader,
    Role,
    inputs_of,
    operands_of,
    row_size,
    runs,
)
from microgrid.execute.memory import is_view
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.tensor import Tensor, is_fixed_number

PIECES = 16
"""Into how many pieces of equal width a row may fall where a sweep reads parts of it."""


def arrange(kernel: Kernel, graph: Graph) -> None:
    """Move element-by-element work into loops, and divide each section into levels and sweeps."""
    for section in kernel.sections:
        section.nodes = [node for node in section.nodes if not is_view(node)]
    find_starts(kernel, graph)
    move_into_loops(kernel)
    kernel.sections = [section for section in kernel.sections if section.nodes]
    for section in kernel.sections:
        section.depth = depths(section, kernel)
        last = max(section.depth.values(), default=0)
        section.levels = [Level() for _ in range(last + 1)]
        for number, level in enumerate(section.levels):
            here = [node for node in section.nodes if section.depth[node] == number]
            level.products = [node for node in here if isinstance(kernel.roles[node], Product)]
            sweeping = [node for node in here if isinstance(kernel.roles[node], Element | Move | Fold)]
            level.groups = groups(sweeping, kernel)


def readers_of(kernel: Kernel) -> dict[Tensor, list[Tensor]]:
    """Node → the nodes of a kernel that read it, also through views, and the state of which it is the next."""
    found: dict[Tensor, list[Tensor]] = {node: [] for node in kernel.nodes}
    for node in kernel.nodes:
        for operand in [node.next] if isinstance(node, State) else operands_of(kernel.roles[node]):
            if operand in found:
                found[operand].append(node)
    return found


def move_into_loops(kernel: Kernel) -> None:
    """Bring what is computed for all timesteps into the loop behind it that alone reads it, or the one before it."""
    home = {node: i for i, section in enumerate(kernel.sections) for node in section.nodes}
    order = {node: i for i, node in enumerate(kernel.nodes)}
    readers = readers_of(kernel)
    loops = [i for i, section in enumerate(kernel.sections) if section.kind == "loop"]
    movable = [
        node
        for node in kernel.nodes
        if kernel.sections[home[node]].kind == "all" and isinstance(kernel.roles[node], Element | Move | Fold | Given)
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


def piece_width(read: Read, role: Role, rows: int, in_registers: bool) -> int:
    """The widest pieces of a row that each read one piece of the operand, or one element; 0 if none are wide enough."""
    size = role.size if isinstance(role, Fold) else row_size(role.node, rows)
    width = math.gcd(size, role.length) if isinstance(role, Fold) else size
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
    if row_size(role.node, kernel.rows) == 1 and not isinstance(role, Fold):
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
                near = not isinstance(roles[x], Product | Fold) and (
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
                and (isinstance(role, Fold) or row_size(node, kernel.rows) > 1)
            ):
                leader[find(node)] = find(x)
            elif x not in member and row_size(node, kernel.rows) > 1 and not isinstance(role, Fold):
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
        if size == 1 and not isinstance(role, Fold):
            continue
        for read in inputs_of(role):
            from_registers = read.operand in member and row_size(read.operand, kernel.rows) > 1
            width = math.gcd(width, piece_width(read, role, kernel.rows, from_registers) or 1)
        width = math.gcd(width, role.length if isinstance(role, Fold) else size)
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
