"""The NumPy executor: a schedule → Python functions of NumPy calls, and the memory they run on.

A program is written once for all lengths: one function per block. A workspace holds, for one length,
the buffers and all views of them, so that a run makes none.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np

from microgrid.execute.blocks import write_block
from microgrid.execute.code import Array, Code, Step, View
from microgrid.execute.memory import Buffer, Layout, is_view, lay_out, raw, rows_of_part, shaped
from microgrid.execute.once import lay_out_statics, write_fixed
from microgrid.execute.phases import Phase
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.elementwise import positive
from microgrid.ops.time import is_spread_over_time
from microgrid.rebuild import kept, rebuilt
from microgrid.schedule import schedule
from microgrid.tensor import Tensor, is_fixed_number
from microgrid.time_axis import aligned

# --- the program ---------------------------------------------------------------------------------------


def with_own_nexts(graph: Graph) -> Graph:
    """The graph in which every state's next is an operation of its own, whose rows the state can share."""
    taken: set[Tensor] = set()
    shared: set[State] = set()
    for state in graph.states:
        following = state.next
        is_own = not (isinstance(following, Input | State) or is_view(following) or is_spread_over_time(following))
        if following in graph.varying and not (is_own and following not in taken):
            shared.add(state)
        taken.add(following)
    if not shared:
        return graph
    made: dict[Tensor, Tensor] = {}
    copy = rebuilt(graph, kept, made=made)
    for state in shared:
        new = made[state]
        assert isinstance(new, State)
        new._next = positive(new.next)
    return Graph.of_checked(copy.outputs)


NOTHING: Mapping[Tensor, Any] = {}


class Program:
    """A graph ready to run on NumPy, at any length.

    Attributes
    ----------
    schedule : Schedule
    layout : Layout
    """

    def __init__(self, graph: Graph, *, share: bool = True) -> None:
        self.graph = graph = with_own_nexts(graph)
        self.schedule = schedule(graph)
        self.layout = layout = self.laid_out(share)
        static = [node for node in graph.nodes if node not in graph.varying]
        self.slots = {node: i for i, node in enumerate(static)}
        leaves = [(self.slots[node], node) for node in static if node.primitive is None]
        self.leaves = [(slot, leaf) for slot, leaf in leaves if not is_fixed_number(leaf)]
        self.constants = [node.value if is_fixed_number(node) else None for node in static]
        lay_out_statics(layout)
        self.fixed = write_fixed(layout, self.slots)
        self.steps: list[tuple[Phase, list[Step]]] = []
        self.write()
        self.idle: dict[int, collections.deque[Workspace]] = {}

    def laid_out(self, share: bool) -> Layout:
        """The memory plan."""
        return lay_out(self.schedule, share=share)

    def write(self) -> None:
        """Write the functions of all blocks."""
        for phase in self.layout.phases:
            written = [write_block(block, self.layout, self.slots) for block in phase.blocks]
            starts = [self.write_starts(phase)] if not phase.once else []
            self.steps.append((phase, [step for step in (*starts, *written) if step is not None]))

    def write_starts(self, phase: Phase, known: Container[Tensor] = ()) -> Step | None:
        """The function that writes the states' initial values before a phase begins, but for those `known` already."""
        code = Code(self.layout, self.slots)
        inside = {node for block in phase.blocks for node in block.nodes}
        for node in self.graph.nodes:
            if isinstance(node, State):
                owner = self.layout.buffer[node].owner
                if owner is node and node in inside:  # its next is the same at all timesteps
                    code.lines.append(f"{code.see(View(node, 'all'))}[...] = {code.static(node.next)}")
                if node in inside and node not in known:
                    code.lines.append(f"{code.see(View(node, 'start'))}[...] = {code.static(node.initial)}")
            elif is_spread_over_time(node) and node in inside:
                code.lines.append(f"{code.see(View(node, 'all'))}[...] = {code.static(node.operands[0])}")
        if not code.lines:
            return None
        run, views = code.compiled()
        return Step(run, views, "start", None, code.source(False))

    def workspace(self, steps: int) -> Workspace:
        """Memory for a run of so many timesteps: one that is idle, or a new one."""
        try:
            return self.idle[steps].pop()
        except (KeyError, IndexError):  # none, or another thread was faster
            return self.new_workspace(steps)

    def new_workspace(self, steps: int) -> Workspace:
        return Workspace(self, steps)

    def give_back(self, workspace: Workspace) -> None:
        """Keep a workspace for the next run of its length, and those of other lengths while they are few and small."""
        held = self.idle.get(workspace.steps)
        if held is None:
            room = BYTES_KEPT - workspace.nbytes
            for number, steps in enumerate(reversed(list(self.idle)), start=1):  # the latest first
                room -= sum(each.nbytes for each in tuple(self.idle.get(steps, ())))
                if number >= LENGTHS_KEPT or room < 0:
                    self.idle.pop(steps, None)
            held = self.idle.setdefault(workspace.steps, collections.deque(maxlen=2))
        held.append(workspace)

    def run(self, steps: int, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any] = NOTHING) -> list[Any]:
        """The values of the graph's outputs, (time, *shape) for those that vary; nothing else holds on to them.

        `sequences` are the inputs'; `given` replaces the values of leaves.
        """
        workspace = self.workspace(steps)
        try:
            return workspace.run(sequences, given)
        finally:
            self.give_back(workspace)


LENGTHS_KEPT, BYTES_KEPT = 8, 1 << 28
"""For how many lengths, and of how many bytes in all, a program keeps memory besides that of the last run."""


def chunk_length(phase: Phase, layout: Layout, steps: int) -> int:
    """How many timesteps a phase takes at a time.

    What is computed for all timesteps at once saves calls, and one product of many rows is faster than
    many of a few; but large arrays stream through memory: so as many timesteps as the cache holds, and
    a few in any case.
    """
    if phase.once:
        return 1
    touched: dict[int, Buffer] = {}
    for block in phase.blocks:
        for node in block.nodes:
            for each in (node, *(() if isinstance(node, State) else node.operands)):
                buffer = layout.buffer.get(each)
                if buffer is not None and (block.kind == "all" or buffer.kind == "chunk"):
                    touched[id(buffer)] = buffer
    row_bytes = sum(buffer.row_bytes for buffer in touched.values())
    return min(steps, max(LEAST_CHUNK, CACHE_BYTES // max(1, row_bytes)))


CACHE_BYTES = 1 << 19
"""What a chunk of timesteps may occupy. Between half a megabyte and many, measured times differ by a few percent."""

LEAST_CHUNK = 8


# --- the memory of a run -------------------------------------------------------------------------------


class Workspace:
    """The buffers of a program for one length, and the calls of its functions on views of them."""

    def __init__(self, program: Program, steps: int) -> None:
        self.program = program
        self.steps = steps
        self.chunks = self.chunk_lengths()
        longest = max(self.chunks, default=1)
        self.rows_held = {"kept": steps, "chunk": longest, "ring": 2, "step": 1}
        self.memory = [
            raw(self.rows_held[a.kind] + (a.extra and a.kind != "step"), a.row_bytes)
            for a in program.layout.allocations
        ]
        self.made: dict[Any, Any] = {}
        self.seen: dict[Tensor, Array] = {}
        self.of_given: list[tuple[list[Any], int, View, int, int, Phase]] = []
        self.held: list[Array] = []  # arrays of static values
        inputs, buffer = program.graph.inputs, program.layout.buffer
        self.given = [node for node in inputs if buffer[node].kind == "given"]
        self.inputs = [(node, self.rows(node, 0, steps)) for node in inputs if buffer[node].kind != "given"]
        self.constants = self.known_values()
        self.calls = list(self.all_calls())
        slots, parted = program.slots, program.layout.parted
        self.outputs = [
            (slots.get(output, -1), None if output in slots else self.rows(output, 0, steps), output in parted)
            for output in program.graph.outputs
        ]
        self.held_ids = set(map(id, [*self.held, *self.constants]))
        self.made.clear()
        self.seen = {}

    def chunk_lengths(self) -> list[int]:
        """How many timesteps each phase takes at a time."""
        return [chunk_length(phase, self.program.layout, self.steps) for phase, _ in self.program.steps]

    @property
    def nbytes(self) -> int:
        """How much memory the rows take."""
        return sum(memory.nbytes for memory in self.memory)

    def compute(self, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any]) -> list[Any]:
        """Fill all rows; returns the values of the static nodes by slot."""
        program = self.program
        for node, array in self.inputs:
            array[...] = sequences[node]
        values: list[Any] = self.constants.copy()
        for slot, leaf in program.leaves:
            values[slot] = leaf.value
        for leaf, value in given.items():
            if leaf in program.slots:
                values[program.slots[leaf]] = value
        if self.of_given:
            self.view_given(sequences)
        try:
            for function, arguments in self.calls:
                function(values, *arguments)
        finally:
            for arguments, index, *_ in self.of_given:
                arguments[index] = None  # the array is its user's
        return values

    def view_given(self, sequences: Mapping[Tensor, Any]) -> None:
        """Let the calls see the sequences that are read where they are."""
        self.seen = {node: np.ascontiguousarray(sequences[node]) for node in self.given}
        for arguments, index, view, a, b, phase in self.of_given:
            arguments[index] = self.resolved(view, a, b, phase)
        self.seen = {}

    def run(self, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any]) -> list[Any]:
        """The values of the outputs; arrays that share memory with nothing."""
        values = self.compute(sequences, given)
        not_new = self.held_ids.union([id(values[slot]) for slot, _ in self.program.leaves])
        results: list[Any] = []
        for slot, rows, is_own in self.outputs:
            result = values[slot] if rows is None else rows
            if not is_own and type(result) is np.ndarray and (result.base is not None or id(result) in not_new):
                result = result.copy()
            not_new.add(id(result))
            results.append(result)
        return results

    def known_values(self) -> list[Any]:
        """The static values by slot, as far as they follow from numbers and the number of timesteps."""
        values: list[Any] = self.program.constants.copy()
        fixed = self.program.fixed
        if fixed is not None:
            phase = Phase((), reverse=False)
            fixed.run(values, *self.arguments(fixed, 0, self.steps, phase))
        return values

    # --- calls ---

    def all_calls(self) -> Iterator[tuple[Callable[..., None], list[Any]]]:
        for (phase, steps), chunk in zip(self.program.steps, self.chunks, strict=True):
            if phase.once:
                for step in steps:
                    yield step.run, self.arguments(step, 0, self.steps, phase)
                continue
            chunks = [(a, min(a + chunk, self.steps)) for a in range(0, self.steps, chunk)]
            if phase.reverse:
                chunks.reverse()
            carried = list(self.carried(phase))
            for step in steps:
                if step.when == "start":
                    yield step.run, self.arguments(step, *chunks[0], phase)
            for number, (a, b) in enumerate(chunks):
                if number:
                    before = chunks[number - 1]
                    for buffer in carried:
                        yield carry, self.border_rows(buffer, before, (a, b))
                for step in steps:
                    if step.when == "chunk":
                        yield step.run, self.arguments(step, a, b, phase)

    def carried(self, phase: Phase) -> list[Buffer]:
        """The buffers of a phase whose last row must reach the next chunk."""
        inside = {node for block in phase.blocks for node in block.nodes}
        return [
            b for b in self.program.layout.buffers() if b.kind == "chunk" and b.state is not None and b.owner in inside
        ]

    def border_rows(self, buffer: Buffer, before: tuple[int, int], now: tuple[int, int]) -> list[Any]:
        """(where to, where from) of the row that is the last of one chunk and the first before the next."""
        assert buffer.state is not None
        array = self.array(buffer)
        if buffer.state.reverse:
            return [array[now[1] - now[0], ...], array[0, ...]]
        return [array[0, ...], array[before[1] - before[0], ...]]

    # --- views ---

    def array(self, buffer: Buffer) -> Array:
        """All rows of a buffer."""
        held = self.memory[buffer.slot]
        rows = len(held) // buffer.row_bytes if buffer.row_bytes else self.rows_held[buffer.kind] + 1
        return shaped(held, rows, buffer.row_shape, buffer.owner.dtype)

    def rows(self, node: Tensor, a: int, b: int) -> Array:
        """The rows of a node for the timesteps from a to b, as one array."""
        kind = self.program.layout.buffer[node].kind
        rows = self.all_rows(node)
        return rows[: b - a] if kind == "chunk" else rows if kind == "step" else rows[a:b]

    def all_rows(self, node: Tensor) -> Array:
        """The rows of a node for as many timesteps as its buffer holds."""
        if node not in self.seen:
            self.seen[node] = self.all_rows_anew(node)
        return self.seen[node]

    def all_rows_anew(self, node: Tensor) -> Array:
        layout = self.program.layout
        buffer = layout.buffer[node]
        if is_view(node):
            assert node.primitive is not None
            source = self.all_rows(node.operands[0])
            return np.asarray(node.primitive.compute_all([source], [True], node.shape, node.params))
        start = 0 if buffer.kind == "step" else buffer.shift(node)
        array = self.array(buffer)[start : start + self.rows_held[buffer.kind]]
        if node in layout.placed:
            whole, index = layout.placed[node]
            part = array[(slice(None), *rows_of_part(whole, index))]
            return part.reshape(len(part), *node.shape)  # a view: see can_have_gaps
        return array

    def arguments(self, step: Step, a: int, b: int, phase: Phase) -> list[Any]:
        """What a block's function is given on the timesteps from a to b; None for what comes with the run."""
        found: list[Any] = []
        for view in step.views:
            buffer = self.program.layout.buffer.get(view.node)
            if buffer is not None and buffer.kind == "given" and view.form != "steps":
                self.of_given.append((found, len(found), view, a, b, phase))
                found.append(None)
            else:
                found.append(self.resolve(view, a, b, phase))
        return found

    def resolve(self, view: View, a: int, b: int, phase: Phase) -> Any:
        """What a block's function is given for a view, on the timesteps from a to b."""
        in_chunk = view.form not in WHOLE_FORMS and self.program.layout.buffer[view.node].kind != "kept"
        key = (*view.key, *((0, b - a) if in_chunk else (a, b)), phase.reverse)
        if key not in self.made:
            self.made[key] = self.resolved(view, a, b, phase)
        return self.made[key]

    def resolved(self, view: View, a: int, b: int, phase: Phase) -> Any:
        if view.form == "steps":
            return self.steps
        if view.form == "static":
            return self.static_array(view.node, view.part)
        if view.form == "start":
            return self.start_row(view.node, a, b)
        if view.form in WHOLE_FORMS:
            a, b = 0, self.steps
        array = self.rows(view.node, a, b)
        if view.part >= 0:
            array = array[(slice(None), *rows_of_part(view.node, view.part))]
        if view.vector:
            array = array[:, 0]
        if view.form == "rows":
            rows = list(array) if array.ndim > 1 else [array[t, ...] for t in range(len(array))]
            return rows[::-1] if phase.reverse else rows
        if view.form == "step":
            return array[0, ...]
        if view.form in ("flat", "matrix", "transposed", "ones"):
            matrix = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
            if view.form == "ones":
                return np.ones(len(matrix), array.dtype)
            return matrix.T if view.form == "transposed" else matrix
        if view.form == "line":
            return array.reshape(-1)
        return aligned(array, True, view.rank)

    def static_array(self, node: Tensor, part: int = -1) -> Array:
        """The array that keeps a static value, or the place of a part in it."""
        if node not in self.seen:
            if node in self.program.layout.static_placed:
                self.seen[node] = self.static_array(*self.program.layout.static_placed[node])
            else:
                self.seen[node] = np.empty(node.shape, node.dtype)
                self.held.append(self.seen[node])
        return self.seen[node][rows_of_part(node, part)] if part >= 0 else self.seen[node]

    def start_row(self, node: Tensor, a: int, b: int) -> Array:
        """The row of a state's first timestep, where its initial value goes."""
        assert isinstance(node, State)
        if self.program.layout.buffer[node].kind == "kept":  # its next may be computed in the other direction
            a, b = 0, self.steps
        rows = self.rows(node, a, b)
        return rows[-1, ...] if node.reverse else rows[0, ...]


WHOLE_FORMS = ("all", "matrix", "transposed", "line", "ones", "steps", "static")


def carry(values: list[Any], to: Array, source: Array) -> None:
    """Bring the row at the border of two chunks from the one to the other."""
    to[...] = source
