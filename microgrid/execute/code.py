"""The source of a block: a Python function of NumPy calls, one line per operation, none of which makes an array."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.execute.memory import (
    CONCATENATE,
    MATMUL,
    Layout,
    is_contiguous,
    is_filled_at_start,
    is_view,
    reshaped_from,
)
from microgrid.leaves import State
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import FIRST, LAST, TIME_DOT, TIME_MATMUL, TIME_MEAN, TIME_ROWS, TIME_STACK, TIME_SUM
from microgrid.primitive import primitive_of
from microgrid.schedule import Block
from microgrid.tensor import PYTHON_NUMBERS, Tensor, is_number
from microgrid.time_axis import later_axis

Array = np.ndarray[Any, Any]
SUM = primitive_of(sum_along)


@dataclass(frozen=True, slots=True)
class View:
    """How a block's function sees a node: which form of its rows it is given.

    form : "rows" for one row after the other in a loop, "chunk" for the rows of a chunk of timesteps as
    one array, "flat" for the same as a matrix, "step" for the one row that every timestep of a loop
    writes anew; "all" for the rows of all timesteps, "matrix", "transposed" and "line" for the same as a
    matrix and a vector, "ones" for as many ones as that matrix has rows, "static" for the array of a
    static value; `rank` aligns a chunk for
    broadcasting, `part` selects the place of a part in a concatenation, `vector` takes the one row of a
    matrix.
    """

    node: Tensor
    form: str
    rank: int = -1
    part: int = -1
    vector: bool = False

    @property
    def key(self) -> tuple[int, str, int, int, bool]:
        return id(self.node), self.form, self.rank, self.part, self.vector


class Code:
    """The source of one function as it grows: its arguments, the objects it refers to, its lines."""

    def __init__(self, layout: Layout, slots: Mapping[Tensor, int], vector: bool = False) -> None:
        self.layout = layout
        self.slots = slots
        self.vector = vector
        self.globals: dict[str, Any] = {}
        self.numbers: dict[Hashable, Array] = {}
        self.constants: dict[int, str] = {}
        self.views: dict[Hashable, tuple[str, View]] = {}
        self.read: dict[int, str] = {}
        self.written: dict[int, str] = {}
        self.lines: list[str] = []
        self.before: list[str] = []
        """Lines before the loop."""

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

    def static(self, node: Tensor, dtype: Any = None) -> str:
        """The name of a static value; with `dtype`, of a number that NumPy need not convert each time."""
        if dtype is not None and is_number(node):
            key = (node.value, np.dtype(dtype))
            if key not in self.numbers:
                self.numbers[key] = np.array(node.value, dtype)
            return self.refer(self.numbers[key], "n")
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
            body += self.before
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
        exec(bytecode(self.source(loop)), namespace)
        return namespace["block"], [view for _, view in self.views.values()]


@functools.lru_cache(maxsize=512)
def bytecode(source: str) -> Any:
    """What Python makes of a function's source: the same for the same network at all shapes."""
    return compile(source, "<microgrid block>", "exec")


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
    code = Code(layout, slots, vector=block.kind == "loop" and has_one_row(block, layout))
    inside = set(block.nodes)
    for node in block.nodes:
        if node in layout.fixed:
            continue
        if block.kind == "once":
            write_once(node, code)
        elif is_filled_at_start(node) or is_view(node):
            continue
        elif block.kind == "all":
            write_all(node, code)
        else:
            write_step(node, inside, code)
    if not code.lines:
        return None
    loop = block.kind == "loop"
    run, views = code.compiled(loop)
    return Step(run, views, "once" if block.kind == "once" else "chunk", block, code.source(loop))


def write_fixed(layout: Layout, slots: Mapping[Tensor, int]) -> Step | None:
    """The function of all that follows from numbers and the number of timesteps: it runs once per length."""
    code = Code(layout, slots)
    for node in layout.graph.nodes:
        if node in layout.fixed:
            write_once(node, code)
    if not code.lines:
        return None
    run, views = code.compiled()
    return Step(run, views, "once", None, code.source(False))


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
    if keeps_its_array(node, code.layout):
        held = code.see(View(node, "static"))
        code.lines.append(static_call_into(node, code, held))
        code.define(node, held)
        return
    if primitive.over_time is None:
        code.define(node, static_call(node, code, [code.static(operand) for operand in node.operands]))
        return
    if contracts_in_place(node, code.layout):
        code.define(node, code.call(np.dot, *contracted(node, code)))
        return
    varies = node.operands[0] in code.layout.graph.varying
    sources = [code.see(View(operand, "all")) if varies else code.static(operand) for operand in node.operands]
    rule = OVER_ALL[primitive] if varies else OVER_REPEATS[primitive]
    code.define(node, code.call(rule, *sources, code.see(View(node, "steps"))))


LARGE = 256
"""From how many elements on a static value is written into the same array in every run."""


def keeps_its_array(node: Tensor, layout: Layout) -> bool:
    """Whether a static value is computed into an array that stays from run to run: not if it is the user's."""
    primitive = node.primitive
    assert primitive is not None
    if node.size < LARGE or node.dtype.kind != "f" or any(node is output for output in layout.graph.outputs):
        return False
    if any(node is root for root in layout.parted.values()):
        return False
    joins = primitive is CONCATENATE and all(operand.dtype == node.dtype for operand in node.operands)
    return node in layout.copied or joins or primitive.ufunc is not None or contracts_in_place(node, layout)


def place_static_parts(layout: Layout) -> None:
    """Find the static values that can be computed straight into the concatenation that reads them."""
    for node in layout.graph.nodes:
        if node in layout.graph.varying or not is_join_of_arrays(node) or not keeps_its_array(node, layout):
            continue
        for index, part in enumerate(node.operands):
            new = part not in layout.static_placed and part not in layout.graph.varying and part.primitive is not None
            if new and part.dtype == node.dtype and keeps_its_array(part, layout):
                layout.static_placed[part] = node, index


def is_join_of_arrays(node: Tensor) -> bool:
    return node.primitive is CONCATENATE and node.params["axis"] is not None


def static_call_into(node: Tensor, code: Code, out: str) -> str:
    """The line that computes a static value into its array."""
    primitive = node.primitive
    assert primitive is not None
    if contracts_in_place(node, code.layout):
        return code.call(np.dot, *contracted(node, code), out)
    operands = [code.static(operand) for operand in node.operands]
    if node in code.layout.copied:  # products of matrices read a transposed copy faster than a view
        return code.call(np.copyto, out, static_call(node, code, operands))
    if primitive.ufunc is not None:
        return code.call(primitive.ufunc, *operands, out_argument(primitive.ufunc, out))
    places = [code.layout.static_placed.get(part, (None, -1)) for part in node.operands]
    rest = [i for i, (whole, index) in enumerate(places) if not (whole is node and index == i)]
    if len(rest) == len(operands):
        return code.call(np.concatenate, f"[{', '.join(operands)}]", f"axis={node.params['axis']!r}", f"out={out}")
    copies = [code.call(np.copyto, code.see(View(node, "static", part=index)), operands[index]) for index in rest]
    return "; ".join(copies) or "pass"


def contracted(node: Tensor, code: Code) -> tuple[str, str]:
    """The two factors of a product over all timesteps."""
    assert node.primitive is not None
    forms = {TIME_MATMUL: ("transposed", "matrix"), TIME_DOT: ("line", "line"), TIME_ROWS: ("ones", "matrix")}
    one, two = forms[node.primitive]
    return code.see(View(node.operands[0], one)), code.see(View(node.operands[-1], two))


def contracts_in_place(node: Tensor, layout: Layout) -> bool:
    """Whether a product over all timesteps is one product of matrices, or lines, that lie in memory as they are."""
    return node.primitive in (TIME_MATMUL, TIME_DOT, TIME_ROWS) and all(
        is_contiguous(operand, layout) for operand in node.operands
    )


OVER_ALL: dict[Any, Callable[..., Any]] = {
    TIME_SUM: lambda x, steps: np.add.reduce(x, 0),
    TIME_MEAN: lambda x, steps: np.add.reduce(x, 0) / steps,
    FIRST: lambda x, steps: x[0].copy(),
    LAST: lambda x, steps: x[-1].copy(),
    TIME_STACK: lambda x, steps: x.copy(),
    TIME_MATMUL: lambda x, y, steps: np.dot(x.reshape(-1, x.shape[-1]).T, y.reshape(-1, y.shape[-1])),
    TIME_DOT: lambda x, y, steps: np.dot(x.reshape(-1), y.reshape(-1)),
    TIME_ROWS: lambda x, steps: np.dot(np.ones(x.shape[0] * x.shape[1], x.dtype), x.reshape(-1, x.shape[-1])),
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
        return code.see(View(x, form, rank)) if varies[index] else code.static(x, number_dtype(node))

    if primitive is CONCATENATE and node.params["axis"] is not None:
        write_parts(node, code, "chunk", range(len(node.operands)))
    elif primitive.ufunc is not None:
        given = [operand(i, "chunk", node.ndim) for i in range(len(varies))]
        code.lines.append(code.call(primitive.ufunc, *given, out_argument(primitive.ufunc, out)))
    elif primitive is MATMUL and is_product_of_rows(node, layout):
        code.lines.append(code.call(np.dot, operand(0, "flat"), operand(1), code.see(View(node, "flat"))))
    elif primitive is SUM and varies[0] and node.dtype == node.operands[0].dtype:
        shifted = tuple(map(later_axis, sum_axes(node)))
        keep = bool(node.params["keepdims"])
        code.lines.append(code.call(np.add.reduce, operand(0), repr(shifted), "None", out, repr(keep)))
    else:
        rule = bound_rule(node, varies)
        given = [operand(i) for i in range(len(varies))]
        code.lines.append(f"{out}[...] = {code.call(rule, *given)}")


def out_argument(ufunc: np.ufunc, out: str) -> str:
    """How to name where a result goes: by position, which is faster, but NumPy wants maximum's by name."""
    return f"out={out}" if ufunc in (np.maximum, np.minimum) else out


def number_dtype(node: Tensor) -> Any:
    """The dtype in which an element-by-element operation uses the numbers among its operands; None if unknown."""
    floats = node.primitive is not None and node.primitive.ufunc is not None and node.dtype.kind == "f"
    return node.dtype if floats else None


def sum_axes(node: Tensor) -> tuple[int, ...]:
    """The axes of one timestep along which a sum adds, as they are written."""
    axis, rank = node.params["axis"], node.operands[0].ndim
    if axis is None:
        return tuple(range(rank))
    return (int(axis),) if isinstance(axis, int | np.integer) else tuple(map(int, axis))


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


def write_parts(node: Tensor, code: Code, form: str, indices: Iterable[int]) -> None:
    """A concatenation: copy those of its parts, by number, that were not written in place."""
    for index in indices:
        part = node.operands[index]
        whole, place_of = code.layout.placed.get(reshaped_from(part), (None, -1))
        if whole is node and place_of == index:
            continue
        place = code.see(View(node, form, part=index, vector=code.vector))
        own_form = "chunk" if form == "chunk" else "rows"
        source = code.see(row_view(part, code, own_form)) if part in code.layout.graph.varying else code.static(part)
        code.lines.append(code.call(np.copyto, place, source))


def write_joined(node: Tensor, inside: Collection[Tensor], code: Code) -> None:
    """A concatenation in a loop: what comes from outside the loop is copied before it begins."""
    form = "step" if code.layout.buffer[node].kind == "step" else "rows"
    lines = code.lines
    if form == "rows":
        outside = [index for index, part in enumerate(node.operands) if part not in inside]
        code.lines = code.before
        write_parts(node, code, "chunk", outside)
        code.lines = lines
        write_parts(node, code, form, [i for i in range(len(node.operands)) if i not in outside])
    else:
        write_parts(node, code, form, range(len(node.operands)))


def row_view(node: Tensor, code: Code, form: str = "rows") -> View:
    """How a loop sees a node at one timestep."""
    if form == "rows" and code.layout.buffer[node].kind == "step":
        form = "step"
    return View(node, form, vector=code.vector)


def has_one_row(block: Block, layout: Layout) -> bool:
    """Whether all that a loop touches are matrices of one row, which it may treat as vectors: BLAS has less to do."""
    varying = layout.graph.varying
    for node in block.nodes:
        touched = (node,) if isinstance(node, State) else (node, *node.operands)
        if any(x.ndim < 2 or x.shape[0] != 1 for x in touched if x in varying):
            return False
        if isinstance(node, State) or is_view(node) or is_join_of_columns(node):
            continue
        if node.primitive is MATMUL:
            x, y = node.operands
            if x not in varying or y in varying or x.ndim != 2 or y.ndim != 2:
                return False
            continue
        if node.primitive is None or node.primitive.ufunc is None:
            return False
        if any(x.ndim > 1 for x in node.operands if x not in varying):
            return False
    return True


def is_join_of_columns(node: Tensor) -> bool:
    return node.primitive is CONCATENATE and node.params["axis"] in (1, -1)


def write_step(node: Tensor, inside: Collection[Tensor], code: Code) -> None:
    """One timestep of a loop over the nodes `inside`."""
    layout, primitive = code.layout, node.primitive
    assert primitive is not None
    dtype = number_dtype(node)
    operands = [
        code.see(row_view(x, code)) if x in layout.graph.varying else code.static(x, dtype) for x in node.operands
    ]
    form = "step" if layout.buffer[node].kind == "step" else "rows"
    if primitive is CONCATENATE and node.params["axis"] is not None:
        write_joined(node, inside, code)
        return
    out = code.see(View(node, form, vector=code.vector))
    if primitive.ufunc is not None:
        code.lines.append(code.call(primitive.ufunc, *operands, out_argument(primitive.ufunc, out)))
    elif primitive is SUM and node.dtype == node.operands[0].dtype and node.operands[0].ndim:
        keep = repr(bool(node.params["keepdims"]))
        code.lines.append(code.call(np.add.reduce, operands[0], repr(sum_axes(node)), "None", out, keep))
    elif primitive is MATMUL and all(x.dtype == node.dtype for x in node.operands) and node.dtype.kind == "f":
        flat = all(1 <= x.ndim <= 2 for x in node.operands) and node.ndim and is_contiguous(node, layout)
        code.lines.append(code.call(np.dot if flat else np.matmul, *operands, out))
    else:
        code.lines.append(f"{out}[...] = {static_call(node, code, operands)}")
