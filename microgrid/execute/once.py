"""Static values: how what needs no timestep is computed, and in which memory it stays from run to run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from microgrid.execute.code import Code, Step, View, out_argument
from microgrid.execute.memory import CONCATENATE, Layout, is_contiguous, is_view
from microgrid.graph import Graph
from microgrid.ops.pick import sum_by_row
from microgrid.ops.time import (
    FIRST,
    LAST,
    TIME_ADD_ROWS,
    TIME_DOT,
    TIME_MATMUL,
    TIME_MEAN,
    TIME_ROWS,
    TIME_STACK,
    TIME_SUM,
)
from microgrid.tensor import PYTHON_NUMBERS, Tensor, is_fixed_number


def lay_out_statics(layout: Layout) -> None:
    """Find what of the static values is known by the length, is an output's own, or lies in a larger value."""
    layout.fixed = known_by_length(layout.graph)
    layout.parted = parted_among_outputs(layout.graph)
    place_static_parts(layout)


def parted_among_outputs(graph: Graph) -> dict[Tensor, Tensor]:
    """Outputs that are views of one product over all timesteps, no two of the same elements; and that product."""
    views: dict[Tensor, list[Tensor]] = {}
    for output in graph.outputs:
        root = output
        while root not in graph.varying and is_view(root):
            root = root.operands[0]
        if root.primitive in (TIME_MATMUL, TIME_ROWS):
            views.setdefault(root, []).append(output)
    found: dict[Tensor, Tensor] = {}
    for root, outputs in views.items():
        array = np.empty(root.shape, np.uint8)
        places = [place_in(array, root, output) for output in outputs]
        if not any(np.may_share_memory(one, two) for one, two in itertools.combinations(places, 2)):
            found.update((output, root) for output in outputs if output is not root)
    return found


def place_in(array: np.ndarray[Any, Any], root: Tensor, view: Tensor) -> np.ndarray[Any, Any]:
    """The part of the value of `root` that a view of it shows."""
    if view is root:
        return array
    assert view.primitive is not None
    part: np.ndarray[Any, Any] = view.primitive.compute([place_in(array, root, view.operands[0])], view.params)
    return part


def known_by_length(graph: Graph) -> set[Tensor]:
    """The operations on numbers alone, such as the number of elements in a mean over time."""
    found: set[Tensor] = set()
    for node in graph.nodes:
        known = [operand in found or is_fixed_number(operand) for operand in node.operands]
        if known and all(known) and node not in graph.varying:
            found.add(node)
    return found


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
    rule = functools.partial(rule, **node.params) if node.params else rule
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
    TIME_ADD_ROWS: lambda x, index, steps, *, rows: sum_by_row(x, index, rows),
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
