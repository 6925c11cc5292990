"""Blocks: what the nodes of a schedule are as lines of code, for all timesteps of a chunk or one step of a loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from microgrid.execute.code import Code, Step, View, number_dtype, out_argument
from microgrid.execute.memory import (
    CONCATENATE,
    MATMUL,
    Layout,
    is_contiguous,
    is_filled_at_start,
    is_view,
    reshaped_from,
)
from microgrid.execute.once import static_call, write_once
from microgrid.leaves import State
from microgrid.ops.reduce import sum as sum_along
from microgrid.primitive import primitive_of
from microgrid.schedule import Block
from microgrid.tensor import Tensor
from microgrid.time_axis import later_axis

SUM = primitive_of(sum_along)


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
