"""The NumPy executor: a schedule → Python functions of NumPy calls, and the memory they run on.

A program is written once for all lengths: one function per block. A workspace holds, for one length,
the buffers and all views of them, so that a run makes none.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microgrid.execute.memory import (
    CONCATENATE,
    Buffer,
    Layout,
    Phase,
    is_contiguous,
    is_view,
    lay_out,
    raw,
    rows_of_part,
    shaped,
)
from microgrid.graph import Graph
from microgrid.leaves import Input, State
from microgrid.ops.elementwise import positive
from microgrid.ops.linalg import matmul
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import FIRST, LAST, TIME_MATMUL, TIME_MEAN, TIME_STACK, TIME_SUM
from microgrid.rebuild import kept, rebuilt
from microgrid.schedule import Block, schedule
from microgrid.tensor import PYTHON_NUMBERS, Tensor
from microgrid.time_axis import aligned, later_axis

Array = np.ndarray[Any, Any]
MATMUL, SUM = matmul.primitive, sum_along.primitive  # type: ignore[attr-defined]


# --- the code of a block -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """How a block's function sees a node: which form of its rows it is given.

    form : "rows" for one row after the other in a loop, "chunk" for the rows of a chunk of timesteps as
    one array, "flat" for the same as a matrix, "all" for those of all timesteps, "step" for the one row
    that every timestep of a loop writes anew; `rank` aligns a chunk for broadcasting, `part` selects the
    place of a part in a concatenation.
    """

    node: Tensor
    form: str
    rank: int = -1
    part: int = -1

    @property
    def key(self) -> tuple[int, str, int, int]:
        return id(self.node), self.form, self.rank, self.part


class Code:
    """The source of one function as it grows: its arguments, the objects it refers to, its lines."""

    def __init__(self, layout: Layout, slots: Mapping[Tensor, int]) -> None:
        self.layout = layout
        self.slots = slots
        self.globals: dict[str, Any] = {}
        self.constants: dict[int, str] = {}
        self.views: dict[tuple[int, str, int, int], tuple[str, View]] = {}
        self.read: dict[int, str] = {}
        self.written: dict[int, str] = {}
        self.lines: list[str] = []

    def refer(self, thing: Any, hint: str = "k") -> str:
        """A name for an object outside the function."""
        if id(thing) not in self.constants:
            self.constants[id(thing)] = name = f"{hint}{len(self.constants)}"
            self.globals[name] = thing
        return self.constants[id(thing)]

    def call(self, function: Callable[..., Any], *args: str) -> str:
        name = getattr(function, "__name__", "")
        hint = name if name.isidentifier() else "k"
        return f"{self.refer(function, hint + '_')}({', '.join(args)})"

    def see(self, view: View) -> str:
        """The name of an argument."""
        if view.key not in self.views:
            prefix = {"rows": "r", "step": "x"}.get(view.form, "a")
            self.views[view.key] = f"{prefix}{len(self.views)}", view
        return self.views[view.key][0]

    def static(self, node: Tensor) -> str:
        """The name of a static value."""
        slot = self.slots[node]
        if slot in self.written:
            return self.written[slot]
        return self.read.setdefault(slot, f"s{slot}")

    def define(self, node: Tensor, expression: str) -> None:
        """Give a static node its value."""
        slot = self.slots[node]
        self.written[slot] = f"s{slot}"
        self.lines.append(f"s{slot} = {expression}")

    def source(self, loop: bool) -> str:
        arguments = [name for name, _ in self.views.values()]
        body = [f"{name} = S[{slot}]" for slot, name in self.read.items()]
        rows = [name for name, view in self.views.values() if view.form == "rows"]
        if loop:
            together = ", ".join(rows)
            iterated = f"zip({', '.join(f'{name}s' for name in rows)})" if len(rows) > 1 else f"{rows[0]}s"
            body.append(f"for {together} in {iterated}:")
            body += [f"    {line}" for line in self.lines]
            arguments = [f"{name}s" if name in rows else name for name in arguments]
        else:
            body += self.lines
        body += [f"S[{slot}] = {name}" for slot, name in self.written.items()]
        return f"def block(S, {', '.join(arguments)}):\n" + "\n".join(f"    {line}" for line in body or ["pass"])

    def compiled(self, loop: bool = False) -> tuple[Callable[..., None], list[View]]:
        """The function, called with the list of static values and what its views resolve to; and those views."""
        namespace = dict(self.globals)
        exec(compile(self.source(loop), "<microgrid block>", "exec"), namespace)
        return namespace["block"], [view for _, view in self.views.values()]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A function of a program and what it is given.

    when : "start" before the first chunk of its phase, "once", or "chunk" for each chunk of timesteps.
    """

    run: Callable[..., None]
    views: list[View]
    when: str
    block: Block | None
    source: str


def write_block(block: Block, layout: Layout, slots: Mapping[Tensor, int]) -> Step | None:
    """The function of a block; None if there is nothing to compute."""
    code = Code(layout, slots)
    for node in block.nodes:
        if block.kind == "once":
            write_once(node, code)
        elif isinstance(node, State) or is_view(node):
            continue
        elif block.kind == "all":
            write_all(node, code)
        else:
            write_step(node, code)
    if not code.lines:
        return None
    loop = block.kind == "loop"
    run, views = code.compiled(loop)
    return Step(run, views, "once" if block.kind == "once" else "chunk", block, code.source(loop))


def static_call(node: Tensor, code: Code, operands: Sequence[str]) -> str:
    """The expression of an operation on values as they are."""
    primitive = node.primitive
    assert primitive is not None
    given = f"[{', '.join(operands)}]" if primitive.variadic else ", ".join(operands)
    params = f", **{code.refer(dict(node.params), 'p')}" if node.params else ""
    numbers = primitive.scalar is not None and any(type(operand.value) in PYTHON_NUMBERS for operand in node.operands)
    if numbers:  # Python's numbers stay what they are
        return f"{code.refer(primitive.compute)}([{', '.join(operands)}], {code.refer(dict(node.params), 'p')})"
    return f"{code.refer(primitive.forward, 'f')}({given}{params})"


def write_once(node: Tensor, code: Code) -> None:
    primitive = node.primitive
    assert primitive is not None
    if primitive.over_time is None:
        code.define(node, static_call(node, code, [code.static(operand) for operand in node.operands]))
        return
    varies = node.operands[0] in code.layout.graph.varying
    sources = [code.see(View(operand, "all")) if varies else code.static(operand) for operand in node.operands]
    rule = OVER_ALL[primitive] if varies else OVER_REPEATS[primitive]
    code.define(node, code.call(rule, *sources, code.see(View(node, "steps"))))


OVER_ALL: dict[Any, Callable[..., Any]] = {
    TIME_SUM: lambda x, steps: np.add.reduce(x, 0),
    TIME_MEAN: lambda x, steps: np.add.reduce(x, 0) / steps,
    FIRST: lambda x, steps: x[0].copy(),
    LAST: lambda x, steps: x[-1].copy(),
    TIME_STACK: lambda x, steps: x.copy(),
    TIME_MATMUL: lambda x, y, steps: np.dot(x.reshape(-1, x.shape[-1]).T, y.reshape(-1, y.shape[-1])),
}
"""How a reduction over time computes from the rows of all timesteps."""

OVER_REPEATS: dict[Any, Callable[[Any, int], Any]] = {
    TIME_SUM: lambda x, steps: x * steps,
    TIME_MEAN: lambda x, steps: x + 0,
    FIRST: lambda x, steps: +x,
    LAST: lambda x, steps: +x,
    TIME_STACK: lambda x, steps: np.repeat(np.asarray(x)[None], steps, axis=0),
}
"""The same from one value that every timestep shares."""


def write_all(node: Tensor, code: Code) -> None:
    """All timesteps of a chunk at once."""
    layout, primitive = code.layout, node.primitive
    assert primitive is not None
    varies = [operand in layout.graph.varying for operand in node.operands]
    out = code.see(View(node, "chunk"))

    def operand(index: int, form: str = "chunk", rank: int = -1) -> str:
        x = node.operands[index]
        return code.see(View(x, form, rank)) if varies[index] else code.static(x)

    if primitive is CONCATENATE and node.params["axis"] is not None:
        write_parts(node, code, "chunk")
    elif primitive.ufunc is not None:
        given = [operand(i, "chunk", node.ndim) for i in range(len(varies))]
        code.lines.append(code.call(primitive.ufunc, *given, out))
    elif primitive is MATMUL and is_product_of_rows(node, layout):
        code.lines.append(code.call(np.dot, operand(0, "flat"), operand(1), code.see(View(node, "flat"))))
    elif primitive is SUM and varies[0] and node.dtype == node.operands[0].dtype:
        axis = node.params["axis"]
        rank = node.operands[0].ndim
        axes = range(rank) if axis is None else [axis] if isinstance(axis, int | np.integer) else axis
        shifted = tuple(later_axis(int(a)) for a in axes)
        keep = bool(node.params["keepdims"])
        code.lines.append(code.call(np.add.reduce, operand(0), repr(shifted), "None", out, repr(keep)))
    else:
        rule = bound_rule(node, varies)
        given = [operand(i) for i in range(len(varies))]
        code.lines.append(f"{out}[...] = {code.call(rule, *given)}")


def bound_rule(node: Tensor, varies: list[bool]) -> Callable[..., Any]:
    """The rule by which a node computes all timesteps at once, as a function of its operands."""
    primitive, shape, params = node.primitive, node.shape, dict(node.params)
    assert primitive is not None
    compute_all = primitive.compute_all
    return lambda *values: compute_all(values, varies, shape, params)


def is_product_of_rows(node: Tensor, layout: Layout) -> bool:
    """Whether a product over all timesteps is one product of matrices: (time · rows, n) @ static (n, m)."""
    x, y = node.operands
    return (
        x in layout.graph.varying
        and y not in layout.graph.varying
        and x.ndim >= 1
        and y.ndim == 2
        and x.dtype == y.dtype == node.dtype
        and node.dtype.kind == "f"
        and is_contiguous(x, layout)
        and is_contiguous(node, layout)
    )


def write_parts(node: Tensor, code: Code, form: str) -> None:
    """A concatenation: copy the parts that were not written in place."""
    for index, part in enumerate(node.operands):
        if code.layout.placed.get(part) == (node, index):
            continue
        place = code.see(View(node, form, part=index))
        source = code.see(row_view(part, code, form)) if part in code.layout.graph.varying else code.static(part)
        code.lines.append(code.call(np.copyto, place, source))


def row_view(node: Tensor, code: Code, form: str = "rows") -> View:
    """How a loop sees a node at one timestep."""
    if form == "rows" and code.layout.buffer[node].kind == "step":
        form = "step"
    return View(node, form)


def write_step(node: Tensor, code: Code) -> None:
    """One timestep of a loop."""
    layout, primitive = code.layout, node.primitive
    assert primitive is not None
    operands = [code.see(row_view(x, code)) if x in layout.graph.varying else code.static(x) for x in node.operands]
    form = "step" if layout.buffer[node].kind == "step" else "rows"
    if primitive is CONCATENATE and node.params["axis"] is not None:
        write_parts(node, code, form)
        return
    out = code.see(View(node, form))
    if primitive.ufunc is not None:
        code.lines.append(code.call(primitive.ufunc, *operands, out))
    elif primitive is MATMUL and all(x.dtype == node.dtype for x in node.operands) and node.dtype.kind == "f":
        flat = all(1 <= x.ndim <= 2 for x in node.operands) and node.ndim and is_contiguous(node, layout)
        code.lines.append(code.call(np.dot if flat else np.matmul, *operands, out))
    else:
        code.lines.append(f"{out}[...] = {static_call(node, code, operands)}")


# --- the program ---------------------------------------------------------------------------------------


def with_own_nexts(graph: Graph) -> Graph:
    """The graph in which every state's next is an operation of its own, whose rows the state can share."""
    copy = rebuilt(graph, kept)
    taken: set[Tensor] = set()
    for state in copy.states:
        following = state.next
        if following not in copy.varying:
            continue
        if following in taken or isinstance(following, Input | State) or is_view(following):
            state._next = positive(following)
        taken.add(state.next)
    return Graph(*copy.outputs)


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
        self.layout = layout = lay_out(self.schedule, share=share)
        static = [node for node in graph.nodes if node not in graph.varying]
        self.slots = {node: i for i, node in enumerate(static)}
        self.leaves = [(self.slots[node], node) for node in static if node.primitive is None]
        self.steps: list[tuple[Phase, list[Step]]] = []
        for phase in layout.phases:
            written = [write_block(block, layout, self.slots) for block in phase.blocks]
            starts = [self.write_starts(phase)] if not phase.once else []
            self.steps.append((phase, [step for step in (*starts, *written) if step is not None]))
        self.idle: dict[int, collections.deque[Workspace]] = {}

    def write_starts(self, phase: Phase) -> Step | None:
        """The function that writes the states' initial values, before a phase begins."""
        code = Code(self.layout, self.slots)
        inside = {node for block in phase.blocks for node in block.nodes}
        for state in self.graph.states:
            owner = self.layout.buffer[state].owner
            if owner is state and state in inside:  # its next is the same at all timesteps
                code.lines.append(f"{code.see(View(state, 'all'))}[...] = {code.static(state.next)}")
            if (owner if owner is not state else state) in inside:
                code.lines.append(f"{code.see(View(state, 'start'))}[...] = {code.static(state.initial)}")
        if not code.lines:
            return None
        run, views = code.compiled()
        return Step(run, views, "start", None, code.source(False))

    def workspace(self, steps: int) -> Workspace:
        """Memory for a run of so many timesteps: one that is idle, or a new one."""
        idle = self.idle.get(steps)
        if idle:
            try:
                return idle.pop()
            except IndexError:  # another thread was faster
                pass
        return Workspace(self, steps)

    def give_back(self, workspace: Workspace) -> None:
        """Keep a workspace for the next run of its length."""
        if workspace.steps not in self.idle and len(self.idle) >= LENGTHS_KEPT:
            self.idle.pop(next(iter(self.idle)), None)
        self.idle.setdefault(workspace.steps, collections.deque(maxlen=2)).append(workspace)

    def run(self, steps: int, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any] = NOTHING) -> list[Any]:
        """The values of the graph's outputs, (time, *shape) for those that vary; nothing else holds on to them.

        `sequences` are the inputs'; `given` replaces the values of leaves.
        """
        workspace = self.workspace(steps)
        try:
            return workspace.run(sequences, given)
        finally:
            self.give_back(workspace)


LENGTHS_KEPT = 8
"""For how many lengths a program keeps memory."""


# --- the memory of a run -------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Workspace:
    """The buffers of a program for one length, and the calls of its functions on views of them."""

    program: Program
    steps: int
    memory: list[Array] = field(init=False)
    inputs: list[tuple[Tensor, Array]] = field(init=False)
    calls: list[tuple[Callable[..., None], list[Any]]] = field(init=False)

    def __post_init__(self) -> None:
        layout = self.program.layout
        self.chunk = self.steps
        self.memory = [
            raw(self.rows_held(a.kind) + (a.extra and a.kind != "step"), a.row_bytes) for a in layout.allocations
        ]
        self.made: dict[Any, Any] = {}
        self.inputs = [(node, self.rows(node, 0, self.steps)) for node in self.program.graph.inputs]
        self.calls = list(self.all_calls())
        self.made.clear()

    chunk: int = field(init=False)
    made: dict[Any, Any] = field(init=False)

    def rows_held(self, kind: str) -> int:
        return {"kept": self.steps, "chunk": self.chunk, "step": 1}[kind]

    def run(self, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any]) -> list[Any]:
        program, slots = self.program, self.program.slots
        for node, array in self.inputs:
            array[...] = sequences[node]
        values: list[Any] = [None] * len(slots)
        for slot, leaf in program.leaves:
            values[slot] = leaf.value
        for leaf, value in given.items():
            if leaf in slots:
                values[slots[leaf]] = value
        for function, arguments in self.calls:
            function(values, *arguments)
        results: list[Any] = []
        held = {id(values[slot]) for slot, _ in program.leaves}
        for output in program.graph.outputs:
            result = values[slots[output]] if output in slots else self.rows(output, 0, self.steps)
            if type(result) is np.ndarray and (result.base is not None or id(result) in held):
                result = result.copy()  # the user's own: it shares memory with nothing
            held.add(id(result))
            results.append(result)
        return results

    # --- calls ---

    def all_calls(self) -> Iterator[tuple[Callable[..., None], list[Any]]]:
        for phase, steps in self.program.steps:
            if phase.once:
                for step in steps:
                    yield step.run, [self.resolve(view, 0, self.steps, phase) for view in step.views]
                continue
            chunks = [(a, min(a + self.chunk, self.steps)) for a in range(0, self.steps, self.chunk)]
            if phase.reverse:
                chunks.reverse()
            carried = list(self.carried(phase))
            for step in steps:
                if step.when == "start":
                    yield step.run, [self.resolve(view, *chunks[0], phase) for view in step.views]
            for number, (a, b) in enumerate(chunks):
                if number:
                    before = chunks[number - 1]
                    for buffer in carried:
                        yield carry, self.border_rows(buffer, before, (a, b))
                for step in steps:
                    if step.when == "chunk":
                        yield step.run, [self.resolve(view, a, b, phase) for view in step.views]

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
        rows = len(held) // buffer.row_bytes if buffer.row_bytes else self.rows_held(buffer.kind) + 1
        return shaped(held, rows, buffer.row_shape, buffer.owner.dtype)

    def rows(self, node: Tensor, a: int, b: int) -> Array:
        """The rows of a node for the timesteps from a to b, as one array."""
        layout = self.program.layout
        buffer = layout.buffer[node]
        if is_view(node):
            assert node.primitive is not None
            source = self.rows(node.operands[0], a, b)
            return np.asarray(node.primitive.compute_all([source], [True], node.shape, node.params))
        if node in layout.placed:
            whole, index = layout.placed[node]
            return self.rows(whole, a, b)[(slice(None), *rows_of_part(whole, index))]
        array = self.array(buffer)
        if buffer.kind == "step":
            return array[:1]
        shift = (
            0
            if buffer.state is None or buffer.owner is buffer.state
            else int(buffer.state.reverse == (node is buffer.state))
        )
        start = shift + (a if buffer.kind == "kept" else 0)
        return array[start : start + b - a]

    def resolve(self, view: View, a: int, b: int, phase: Phase) -> Any:
        """What a block's function is given for a view, on the timesteps from a to b."""
        key = (*view.key, a, b, phase.reverse)
        if key not in self.made:
            self.made[key] = self.resolved(view, a, b, phase)
        return self.made[key]

    def resolved(self, view: View, a: int, b: int, phase: Phase) -> Any:
        if view.form == "steps":
            return self.steps
        if view.form == "start":
            return self.start_row(view.node, a, b)
        if view.form == "all":
            a, b = 0, self.steps
        array = self.rows(view.node, a, b)
        if view.part >= 0:
            array = array[(slice(None), *rows_of_part(view.node, view.part))]
        if view.form == "rows":
            rows = list(array) if array.ndim > 1 else [array[t, ...] for t in range(len(array))]
            return rows[::-1] if phase.reverse else rows
        if view.form == "step":
            return array[0, ...]
        if view.form == "flat":
            return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
        return aligned(array, True, view.rank)

    def start_row(self, node: Tensor, a: int, b: int) -> Array:
        """The row of a state's first timestep, where its initial value goes."""
        assert isinstance(node, State)
        rows = self.rows(node, a, b)
        return rows[-1, ...] if node.reverse else rows[0, ...]


def carry(values: list[Any], to: Array, source: Array) -> None:
    """Bring the row at the border of two chunks from the one to the other."""
    to[...] = source
