"""Formulas: nodes as expressions, by the notation that their primitives declare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from microgrid.errors import OperandError
from microgrid.explain.blocks import blocks
from microgrid.explain.expression import STEPS, Expression, When, common_shape, number, symbol
from microgrid.explain.notation import filled, parsed
from microgrid.explain.simplify import product, product_sign, simplified
from microgrid.ops.index import SCATTER_ADD
from microgrid.ops.pick import place
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.shape import broadcast_to, expand_dims, reshape
from microgrid.ops.time import TIME_SUM
from microgrid.primitive import primitive_of
from microgrid.tensor import Tensor

MANY = 12
"""Arguments of a call, from which on those in the middle are left out."""

BROADCAST, EXPAND_DIMS, RESHAPE = primitive_of(broadcast_to), primitive_of(expand_dims), primitive_of(reshape)
SUM, PLACE = primitive_of(sum_along), primitive_of(place)


def formula(node: Tensor, operands: list[Expression], varies: list[bool]) -> Expression:
    """The operation of a node, written with its operands; `varies` says which of those do.

    Raises OperandError where the notation of a user's primitive is no formula of its operands.
    """
    primitive = node.primitive
    assert primitive is not None
    if primitive is BROADCAST:
        return operands[0]  # broadcasting goes without saying, until an operation needs the shape: see `spread`
    if not (primitive.elementwise or primitive.over_time or primitive in (PLACE, SCATTER_ADD)):
        operands = [spread(e, x) for e, x in zip(operands, node.operands, strict=True)]
    shape = common_shape(*operands) if primitive.elementwise else node.shape
    if primitive.over_time is not None and not any(varies):  # of what has one value for all timesteps
        if primitive.over_time(list(range(3))) != [0, 1, 2] and len(operands) == 1:
            return operands[0]
        if len(operands) > 1:
            return default_call(node, operands)
    if primitive is TIME_SUM and operands[0].kind == "number":
        return product([STEPS, operands[0]])
    notation = primitive.notation(**node.params) if callable(primitive.notation) else primitive.notation
    if notation is None:
        return default_call(node, operands)
    try:
        found = filled(parsed(notation), operands)
    except (ValueError, IndexError) as error:
        raise OperandError(
            f"the primitive {primitive.name!r} of {len(operands)} operands is declared with the notation "
            f"{notation!r}: {error}"
        ) from None
    if found.kind == "infix" and found.word == "⊙":
        left, right = found.parts
        if left is right:
            found = Expression("infix", "^", (left, number(2)))
        else:
            found = replace(found, word=product_sign(left, right))
    return replace(found, shape=shape) if found not in operands else found


def spread(e: Expression, node: Tensor) -> Expression:
    """The expression as an operand of an operation to which its shape matters."""
    if e.shape == node.shape or not node.shape:
        return e
    return Expression("call", "broadcast", (e, Expression("raw", f"shape={node.shape}")), shape=node.shape)


def default_call(node: Tensor, operands: list[Expression]) -> Expression:
    """name(arguments, setting=value), for an operation without a notation."""
    assert node.primitive is not None
    if len(operands) > MANY:
        operands = [*operands[:3], Expression("raw", "…"), operands[-1]]
    settings = [
        Expression("raw", f"{key}={value!r}")
        for key, value in node.params.items()
        if value is not None and value is not False
    ]
    return Expression("call", node.primitive.name, (*operands, *settings), shape=node.shape)


def constant(node: Tensor) -> Expression | None:
    """An array of one number as that number; None for other arrays."""
    values = np.asarray(node.value)
    if not values.size:
        return None
    first: Any = values.flat[0].item()
    return number(first) if values.ndim == 0 or np.all(values == first) else None


# --- the adjoint's -----------------------------------------------------------------------------------


def adjoint_formula(node: Tensor, operands: list[Expression], varies: list[bool]) -> Expression:
    """The same in its short form, without changes of shape that broadcasting would make by itself."""
    primitive = node.primitive
    assert primitive is not None
    (x, *_), (given, *_) = operands, node.operands
    if primitive is RESHAPE and without_ones(node.shape) == without_ones(given.shape):
        return x if x.shape != given.shape else replace(x, shape=node.shape)
    if primitive is EXPAND_DIMS and given.ndim == 1 and x.shape == given.shape:
        kind = "column" if node.shape[-1] == 1 else "row"
        return Expression("call", kind, (x,), shape=node.shape)
    if primitive is EXPAND_DIMS and given.ndim == 0:
        return x
    if primitive is SUM and without_ones(node.shape) == without_ones(given.shape):
        return replace(x, shape=node.shape) if x.shape == given.shape else x
    if primitive is SCATTER_ADD:
        piece = as_blocks(node, x)
        if piece is not None:
            return piece
    if primitive.elementwise and all(e.kind == "number" for e in operands):
        try:
            return number(np.asarray(primitive.compute([e.value for e in operands], node.params)).item())
        except ArithmeticError:
            pass
    return simplified(formula(node, operands, varies), operands)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def as_blocks(node: Tensor, piece: Expression) -> Expression | None:
    """A scatter into one slice of one axis, as blocks."""
    shape, template = node.params["shape"], node.params["template"]
    parts = template if isinstance(template, tuple) else (template,)
    if sum(part is Ellipsis for part in parts) == 1:
        where = [part is Ellipsis for part in parts].index(True)
        missing = len(shape) - (len(parts) - 1)
        parts = (*parts[:where], *(slice(None),) * missing, *parts[where + 1 :])
    parts = (*parts, *(slice(None),) * (len(shape) - len(parts)))
    if not all(isinstance(part, slice) for part in parts):
        return None
    ranges = [part.indices(n) for part, n in zip(parts, shape, strict=True)]
    cut = [axis for axis, (found, n) in enumerate(zip(ranges, shape, strict=True)) if found != (0, n, 1)]
    if len(cut) != 1 or ranges[cut[0]][2] != 1:
        return None
    (axis,) = cut
    return blocks([(*ranges[axis][:2], spread(piece, node.operands[0]))], axis, tuple(shape))


def read_state(name: str, reverse: bool, shape: tuple[int, ...]) -> Expression:
    """A state where it is read: what it was one timestep ago, in a reverse state one later."""
    return symbol(name, When("t", 1 if reverse else -1), shape)
