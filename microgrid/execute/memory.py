"""Which node lives in which memory: what may share, what must outlast the loop that writes it.

Varying nodes live in buffers of rows, one row per timestep. Nodes that are one another's views, a
state and its next, and the parts of a concatenation share a buffer; buffers whose last reader has run
serve the next node of their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from microgrid.execute.phases import Phase, phases
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.linalg import matmul
from microgrid.ops.shape import concatenate, transpose
from microgrid.ops.time import is_spread_over_time
from microgrid.primitive import primitive_of
from microgrid.schedule import Block, Schedule
from microgrid.tensor import Tensor

CONCATENATE, TRANSPOSE = primitive_of(concatenate), primitive_of(transpose)
MATMUL = primitive_of(matmul)

Kind = Literal["given", "kept", "chunk", "ring", "step", "none"]
"""How long rows live: as long as the user's own array, for the whole run, for one chunk of timesteps, for two timesteps
in turns, for one timestep of a loop; or not at all, as no one reads them from memory."""


def is_filled_at_start(node: Tensor) -> bool:
    """Whether the rows of a node are known before its phase begins: a state of a static next, or an unstacked value."""
    return isinstance(node, State) or is_spread_over_time(node)


def is_view(node: Tensor) -> bool:
    """Whether a varying node's rows are views of its first operand's rows."""
    primitive = node.primitive
    if primitive is None or isinstance(node, State):
        return False
    if not (primitive.view(**node.params) if callable(primitive.view) else primitive.view):
        return False
    return primitive.name != "reshape" or is_whole(node.operands[0])


def is_whole(node: Tensor) -> bool:
    """Whether a node's rows hold its elements in order, without gaps: it is no view, or only a reshaped one."""
    while is_view(node):
        assert node.primitive is not None
        if node.primitive.name not in ("reshape", "squeeze", "expand_dims", "stop_gradient"):
            return False
        node = node.operands[0]
    return True


@dataclass(slots=True, eq=False)
class Buffer:
    """Memory for rows: of one node, and of those that are views or parts of it.

    Attributes
    ----------
    owner : Tensor
        The node whose shape and dtype a row has.
    state : State or None
        The state of which the owner is the next: it is the same rows, shifted by one.
    first, last : int
        When the buffer is first written and last read, as numbers of instructions.
    slot : int
        Which allocation it occupies; buffers that do not live at the same time may share one.
    """

    owner: Tensor
    kind: Kind = "step"
    state: State | None = None
    first: int = -1
    last: int = -1
    slot: int = -1

    def shift(self, node: Tensor) -> int:
        """At which row the first timestep of a node stands: a state and its next are one row apart.

        The owner, with its parts, is the next of the state; or the state and its next are parts of the owner.
        """
        if self.state is None:
            return 0
        is_past = node is self.state if self.owner is self.state.next else node is not self.state.next
        return int(self.state.reverse == is_past)

    @property
    def row_bytes(self) -> int:
        return int(self.owner.size * self.owner.dtype.itemsize)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.owner.shape


@dataclass(frozen=True, slots=True)
class Allocation:
    """One piece of memory: rows of `row_bytes` bytes, with one more than timesteps where a state shares it."""

    kind: Kind
    row_bytes: int
    extra: bool


@dataclass(slots=True, eq=False)
class Layout:
    """The memory plan of a schedule.

    Attributes
    ----------
    phases : list of Phase
    buffer : dict of Tensor → Buffer
        For every varying node that has rows of its own or shares those of another.
    placed : dict of Tensor → (concatenation, number of the part)
        Nodes that are written straight into their place in a concatenation.
    static_placed : dict of Tensor → (concatenation, number of the part)
        The same among static nodes.
    parted : dict of Tensor → Tensor
        Outputs that are views of a sum over time, no two of them of the same elements: each user may have them as
        they are; and that sum.
    fixed : set of Tensor
        Static nodes that follow from numbers and the number of timesteps alone.
    copied : set of Tensor
        Transposed weights that a loop multiplies matrices with: worth a copy, once a run.
    allocations : list of Allocation
    """

    graph: Graph
    phases: list[Phase]
    buffer: dict[Tensor, Buffer] = field(default_factory=dict)
    placed: dict[Tensor, tuple[Tensor, int]] = field(default_factory=dict)
    static_placed: dict[Tensor, tuple[Tensor, int]] = field(default_factory=dict)
    parted: dict[Tensor, Tensor] = field(default_factory=dict)
    fixed: set[Tensor] = field(default_factory=set)
    copied: set[Tensor] = field(default_factory=set)
    allocations: list[Allocation] = field(default_factory=list)

    def buffers(self) -> list[Buffer]:
        return list({id(buffer): buffer for buffer in self.buffer.values()}.values())


def lay_out(schedule: Schedule, *, share: bool = True) -> Layout:
    """The memory plan. Without `share` every node has a buffer of its own that lasts: for looking at all values."""
    graph = schedule.graph
    layout = Layout(graph, phases(schedule))
    place_parts(layout, share)
    assign_buffers(layout)
    layout.copied = transposed_in_loops(layout)
    choose_kinds(layout, share)
    allocate(layout, share)
    return layout


def blocks_of(layout: Layout) -> Iterator[tuple[int, int, Block]]:
    """(phase number, block number, block), in order."""
    number = 0
    for p, phase in enumerate(layout.phases):
        for block in phase.blocks:
            yield p, number, block
            number += 1


def place_parts(layout: Layout, share: bool) -> None:
    """Find the operations whose result can be written straight into the concatenation that reads it."""
    if not share:
        return
    home = {node: block for _, _, block in blocks_of(layout) for node in block.nodes}
    for node, block in home.items():
        if block.kind == "once" or node.primitive is not CONCATENATE or node.params["axis"] is None:
            continue
        for index, part in enumerate(node.operands):
            if isinstance(part, State):
                if can_live_in(node, part, home, layout):
                    layout.placed[part] = layout.placed[part.next] = node, index
            elif can_be_written_into(node, part, home, layout):
                layout.placed[reshaped_from(part)] = node, index


def can_live_in(whole: Tensor, state: State, home: Mapping[Tensor, Block], layout: Layout) -> bool:
    """Whether a state can live in the concatenation that reads it, and its next where it is read a timestep later."""
    following, block, readers = state.next, home[whole], layout.graph.readers
    axis = whole.params["axis"] % whole.ndim
    return (
        block.kind == "loop"
        and home.get(following) is block
        and state not in layout.placed
        and following in layout.graph.varying
        and following.primitive is not CONCATENATE
        and not is_next(whole, layout)
        and sum(isinstance(part, State) for part in whole.operands) == 1
        and state.dtype == whole.dtype
        and can_have_gaps(state, axis, readers)
        and can_have_gaps(following, axis, readers)
    )


def can_be_written_into(whole: Tensor, part: Tensor, home: Mapping[Tensor, Block], layout: Layout) -> bool:
    """Whether the operation behind a part of a concatenation can be computed in its place there."""
    source, axis = reshaped_from(part), whole.params["axis"] % whole.ndim
    return (
        home.get(source) is home[whole]
        and source not in layout.placed
        and not is_next(source, layout)
        and source.primitive is not None
        and source.primitive.ufunc is not None
        and source.dtype == whole.dtype
        and source.shape[:axis] == part.shape[:axis]
        and can_have_gaps(source, axis, layout.graph.readers)
    )


def is_next(node: Tensor, layout: Layout) -> bool:
    return any(state.next is node for state in layout.graph.states)


def reshaped_from(node: Tensor) -> Tensor:
    """The operation whose elements, all of them in order, a node shows in another shape; itself if it is none such."""
    while is_view(node) and is_whole(node):
        node = node.operands[0]
    return node


def can_have_gaps(node: Tensor, axis: int, readers: Mapping[Tensor, Sequence[Tensor | None]]) -> bool:
    """Whether views of a node stay views if it lies in a larger array, of which it takes a part along `axis`."""
    views = [reader for reader in readers[node] if reader is not None and is_view(reader) and is_whole(reader)]
    return all(view.shape[:axis] == node.shape[:axis] and can_have_gaps(view, axis, readers) for view in views)


def assign_buffers(layout: Layout) -> None:
    """Give every varying node its buffer, shared with the node it is a view, a part or the past of."""
    graph = layout.graph
    for node in graph.nodes:
        if node not in graph.varying or isinstance(node, State) or is_view(node) or node in layout.placed:
            continue
        layout.buffer[node] = Buffer(node)
    for part, (whole, _) in layout.placed.items():
        layout.buffer[part] = layout.buffer[whole]
    for state in graph.states:
        if state in layout.placed:
            layout.buffer[state].state = state
        elif state.next in graph.varying:
            shared = layout.buffer[state.next]
            assert shared.owner is state.next
            assert shared.state is None
            shared.state = state
            layout.buffer[state] = shared
        else:
            layout.buffer[state] = Buffer(state)
    for node in graph.nodes:
        if node in graph.varying and is_view(node):
            layout.buffer[node] = layout.buffer[node.operands[0]]


def transposed_in_loops(layout: Layout) -> set[Tensor]:
    """The static transposes by which loops multiply matrices of several rows."""
    return {
        node.operands[1]
        for _, _, block in blocks_of(layout)
        if block.kind == "loop"
        for node in block.nodes
        if node.primitive is MATMUL
        and node.ndim == 2
        and node.shape[0] > 1
        and node.operands[1].primitive is TRANSPOSE
        and node.operands[1] not in layout.graph.varying
    }


def choose_kinds(layout: Layout, share: bool) -> None:
    """How long the rows of each buffer must live, from where they are written and read."""
    graph = layout.graph
    homes: dict[int, set[tuple[int, int]]] = {}
    made_in: dict[int, Block] = {}
    for p, number, block in blocks_of(layout):
        for node in block.nodes:
            for touched in (node, *(() if isinstance(node, State) else node.operands)):
                if touched in layout.buffer:
                    homes.setdefault(id(layout.buffer[touched]), set()).add((p, number))
            if node in layout.buffer:
                made_in.setdefault(id(layout.buffer[node]), block)
    outputs = {id(layout.buffer[output]) for output in graph.outputs if output in layout.buffer}
    for buffer in layout.buffers():
        places = homes.get(id(buffer), set())
        is_loop = id(buffer) in made_in and made_in[id(buffer)].kind == "loop"
        source = isinstance(buffer.owner, Input) or is_filled_at_start(buffer.owner)
        if not share or source or id(buffer) in outputs or len({p for p, _ in places}) > 1:
            buffer.kind = "kept"
        elif len(places) > 1 or buffer.state is not None or not is_loop:
            buffer.kind = "chunk"
        else:
            buffer.kind = "step"
    if share:
        in_rows = read_row_by_row(layout)
        for node in graph.inputs:
            buffer = layout.buffer[node]
            if buffer.row_bytes >= LARGE_ROW and id(buffer) not in in_rows and id(buffer) not in outputs:
                buffer.kind = "given"


LARGE_ROW = 1024
"""From how many bytes on an input's row is read where it is, if no loop reads it: to copy less is faster."""


def read_row_by_row(layout: Layout) -> set[int]:
    """The buffers that loops read one row at a time, by identity."""
    found: set[int] = set()
    for _, _, block in blocks_of(layout):
        for node in block.nodes if block.kind == "loop" else ():
            joined = node.primitive is CONCATENATE and layout.buffer[node].kind != "step"  # copied before the loop
            if not joined and not isinstance(node, State):
                found.update(id(layout.buffer[operand]) for operand in node.operands if operand in layout.buffer)
    return found


def allocate(layout: Layout, share: bool) -> None:
    """Assign buffers to allocations: a linear scan over the instructions in the order in which they run.

    Source: M. Poletto and V. Sarkar, Linear scan register allocation, ACM TOPLAS 21 (1999).
    """
    order = [(p, node) for p, _, block in blocks_of(layout) for node in block.nodes]
    of_phase: dict[int, list[int]] = {}
    for i, (p, node) in enumerate(order):
        of_phase.setdefault(p, []).append(i)
        for touched in (node, *(() if isinstance(node, State) else node.operands)):
            buffer = layout.buffer.get(touched)
            if buffer is not None:
                buffer.first = i if buffer.first < 0 else buffer.first
                buffer.last = i
    start = 0
    for _, _, block in blocks_of(layout):
        for node in block.nodes if block.kind == "loop" else ():
            if node.primitive is CONCATENATE and not set(block.nodes).issuperset(node.operands):
                buffer = layout.buffer[node]  # the parts from outside are copied before the loop begins
                buffer.first = min(buffer.first, start - 1)
        start += len(block.nodes)
    for buffer in layout.buffers():
        if isinstance(buffer.owner, Input):
            buffer.first = -1  # filled before everything else
        if (buffer.state is not None or is_filled_at_start(buffer.owner)) and buffer.first >= 0:
            # written before its phase begins, and read at other steps than it is written
            buffer.first = of_phase[order[buffer.first][0]][0] - 1
            buffer.last = of_phase[order[buffer.last][0]][-1]
    outputs = {id(layout.buffer[output]) for output in layout.graph.outputs if output in layout.buffer}
    forever = {id(b) for b in layout.buffers() if id(b) in outputs or is_filled_at_start(b.owner)}

    starts: dict[int, list[Buffer]] = {}
    ends: dict[int, list[Buffer]] = {}
    for buffer in layout.buffers():
        starts.setdefault(buffer.first, []).append(buffer)
        if share and id(buffer) not in forever:
            ends.setdefault(buffer.last, []).append(buffer)
    free: dict[Allocation, list[int]] = {}

    def take(buffer: Buffer) -> None:
        if buffer.kind == "given":
            return
        wanted = Allocation(buffer.kind, buffer.row_bytes, buffer.state is not None)
        if free.get(wanted):
            buffer.slot = free[wanted].pop()
        else:
            buffer.slot = len(layout.allocations)
            layout.allocations.append(wanted)

    def release(buffer: Buffer) -> None:
        if buffer.kind == "given":
            return
        held = Allocation(buffer.kind, buffer.row_bytes, buffer.state is not None)
        free.setdefault(held, []).append(buffer.slot)

    for buffer in starts.get(-1, ()):
        take(buffer)
    for i, (_, node) in enumerate(order):
        ending = ends.get(i, [])
        if can_write_over_operands(node, layout):
            early = [buffer for buffer in ending if buffer.slot >= 0]
            for buffer in early:
                release(buffer)
            ending = [buffer for buffer in ending if buffer not in early]
        for buffer in starts.get(i, ()):
            take(buffer)
        for buffer in ending:
            release(buffer)


def can_write_over_operands(node: Tensor, layout: Layout) -> bool:
    """Whether an operation may write into the rows it reads: element by element, each of its own shape."""
    if node.primitive is None or node.primitive.ufunc is None or isinstance(node, State):
        return False
    varying = [operand for operand in node.operands if operand in layout.graph.varying]
    return all(operand.shape == node.shape and is_whole(operand) for operand in varying)


def rows_of_part(whole: Tensor, index: int) -> tuple[Any, ...]:
    """The index, behind the time axis, of part `index` in the rows of a concatenation."""
    axis = int(whole.params["axis"]) % whole.ndim
    start = sum(part.shape[axis] for part in whole.operands[:index])
    return (slice(None),) * axis + (slice(start, start + whole.operands[index].shape[axis]),)


LINE = 64
"""Bytes of a cache line."""


def raw(rows: int, row_bytes: int) -> np.ndarray[Any, Any]:
    """Memory for so many rows, from the beginning of a cache line on."""
    memory = np.empty(rows * row_bytes + LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % LINE
    return memory[start : start + rows * row_bytes]


def shaped(memory: np.ndarray[Any, Any], rows: int, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """The memory as rows of a shape and dtype."""
    rows_of: np.ndarray[Any, Any] = memory.view(dtype).reshape(rows, *shape)
    return rows_of


def is_contiguous(node: Tensor, layout: Layout) -> bool:
    """Whether the rows of a varying node lie in memory one after the other, without gaps."""
    return is_whole(node) and layout.buffer[node].owner.size == node.size
