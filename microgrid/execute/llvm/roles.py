"""What each node of a block is to the code that is emitted: which elements of a row it computes from which others.

Everything is told by rows. Where the first axis of all that varies is the batch, a row is one sequence of
it, and rows can be computed by different threads; otherwise the whole array is one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from microgrid.execute.llvm.elements import TYPES, NoExpression, Value, expression
from microgrid.execute.memory import is_view
from microgrid.leaves import Input, State
from microgrid.ops import index as index_ops
from microgrid.ops import reduce, shape
from microgrid.ops.linalg import matmul
from microgrid.ops.reduce import axes_of
from microgrid.ops.time import is_spread_over_time
from microgrid.primitive import STOP_GRADIENT, primitive_of
from microgrid.tensor import Tensor, is_fixed_number

MATMUL = primitive_of(matmul)
FOLDS = {primitive_of(reduce.sum): "add", primitive_of(reduce.max): "maximum"}
TRANSPOSE = primitive_of(shape.transpose)
MOVING: tuple[Callable[..., Any], ...] = (
    *(shape.reshape, shape.squeeze, shape.expand_dims, shape.transpose, shape.swapaxes),
    *(shape.broadcast_to, shape.flip, shape.concatenate, shape.stack),
)
MOVES = {STOP_GRADIENT, index_ops.GETITEM, index_ops.SCATTER_ADD, *(primitive_of(each) for each in MOVING)}
"""Operations that only bring elements elsewhere."""

STRETCHES = 64
"""How many stretches of an operand a row may read: each is code of its own."""

Map: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What a row of a node reads of an operand.

    Attributes
    ----------
    operand : Tensor
    index : array of int, or None
        For each element of the row, the element of the operand's row, −1 where it reads another; None: the same.
    per_row : bool
        Whether each row reads a row of its own; a static operand may be the same for all.
    """

    operand: Tensor
    index: Map | None
    per_row: bool


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """A scalar expression of elements."""

    node: Tensor
    expression: Value
    reads: tuple[Read | None, ...]
    """By operand; None for a number, which is part of the expression."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Elements of operands in another order."""

    node: Tensor
    source: Map | None
    """For each element of the row, the number of the operand it is from, −1 for a zero; None: all of the first."""
    reads: tuple[Read, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Sums of neighbours among the elements read, `length` at a time, or the largest of them.

    op : "add" or "maximum"
    """

    node: Tensor
    op: str
    read: Read
    length: int
    size: int
    """How many elements are read for each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product of rows with a static matrix: (m, k) @ (k, n), or with its transpose.

    `offset` and `stride` say where the rows of the left operand lie in a row of `source`, in elements.
    """

    node: Tensor
    source: Tensor
    offset: int
    stride: int
    weight: Tensor
    transposed: bool
    rows: int
    """Rows of the product for each row of the block."""
    inner: int
    outer: int


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Nothing to compute: a state, which is what its next was a timestep before, or a view."""

    node: Tensor


Role: TypeAlias = Element | Move | Fold | Product | Given


def runs(read: Read) -> list[tuple[int, int, bool]]:
    """The stretches of a row that read neighbours, or one element alone: (from, first element read, is one element)."""
    if read.index is None:
        return [(0, 0, False)]
    found: list[tuple[int, int, bool]] = []
    before, apart = -1, None  # the element read last, and by how much the stretch's elements are apart
    for at, element in enumerate(read.index.tolist()):
        step = element - before if before >= 0 else None
        if element >= 0:
            if step in (0, 1) and apart in (None, step):
                apart = step
                found[-1] = (*found[-1][:2], step == 0)
            else:
                apart = None
                found.append((at, element, False))
        before = element
    return found


class Reader:
    """What nodes are, in a block of so many rows.

    Parameters
    ----------
    rows : int
    by_rows : bool
        Whether the rows are those along the first axis of everything; otherwise there is one.
    varying : collection of Tensor
    """

    def __init__(self, rows: int, by_rows: bool, varying: Collection[Tensor]) -> None:
        self.rows = rows
        self.by_rows = by_rows
        self.varying = varying
        self.moves: dict[Tensor, Move | None] = {}

    def roles_of(self, nodes: Sequence[Tensor]) -> dict[Tensor, Role]:
        """The roles of those nodes that have one; NumPy computes the others."""
        return {node: role for node in nodes if (role := self.role_of(node)) is not None}

    def role_of(self, node: Tensor) -> Role | None:
        """The role of a node; None also where a row would fall into too many stretches to write out."""
        role = self.any_role_of(node)
        many = role is not None and any(len(runs(read)) > STRETCHES for read in inputs_of(role))
        return None if many else role

    def any_role_of(self, node: Tensor) -> Role | None:
        operands = () if isinstance(node, State) else node.operands
        touched = [node, *(operand for operand in operands if operand in self.varying)]
        if is_spread_over_time(node) or not all(self.fits(each) for each in touched):
            return None
        if isinstance(node, State) or is_view(node):
            return Given(node)
        if node.primitive is MATMUL:
            return self.product_of(node)
        if node.primitive in FOLDS:
            return self.fold_of(node)
        if node.primitive in MOVES:
            return self.move_of(node)
        try:
            found = expression(node)
        except NoExpression:
            return None
        reads = [None if is_fixed_number(operand) else self.read_of(node, operand) for operand in node.operands]
        if any(read is None and not is_fixed_number(x) for read, x in zip(reads, node.operands, strict=True)):
            return None
        return Element(node, found, tuple(reads))

    def fits(self, node: Tensor) -> bool:
        in_rows = not self.by_rows or (node.ndim >= 1 and node.shape[0] == self.rows)
        return node.dtype in TYPES and node.size > 0 and in_rows

    def row_size(self, node: Tensor) -> int:
        return row_size(node, self.rows)

    def read_of(self, node: Tensor, operand: Tensor) -> Read | None:
        """What an element-by-element operation reads of an operand; None if rows would mix."""
        if operand.dtype not in TYPES:
            return None
        if operand.shape == node.shape:
            return self.behind_views(Read(operand, None, True))
        places = np.arange(operand.size).reshape(operand.shape)
        found = self.read_from(operand, np.broadcast_to(places, node.shape).reshape(self.rows, -1))
        return self.behind_views(found) if found is not None else None

    def read_from(self, operand: Tensor, places: Map) -> Read | None:
        """The read of an operand's elements `places`, one row of them for each row of the block."""
        own = self.row_size(operand) if operand.size % self.rows == 0 else 0
        first = places[0]
        step = own * np.arange(self.rows)[:, None]
        if own and first.max() < own and np.array_equal(places - step, np.broadcast_to(first, places.shape)):
            return Read(operand, None if np.array_equal(first, np.arange(own)) else first, True)
        if operand not in self.varying and np.array_equal(places, np.broadcast_to(first, places.shape)):
            return Read(operand, None if np.array_equal(first, np.arange(operand.size)) else first, False)
        return None

    def behind_views(self, read: Read) -> Read | None:
        """The same elements, read of the operation whose memory a view shows."""
        while read.operand in self.varying and is_view(read.operand):
            move = self.move_of(read.operand)
            if move is None or move.source is not None:
                return None
            inner = move.reads[0]
            if inner.index is None:
                index = read.index
            else:
                index = inner.index if read.index is None else inner.index[read.index]
            read = Read(inner.operand, index, True)
        return read

    def move_of(self, node: Tensor) -> Move | None:
        if node not in self.moves:
            self.moves[node] = self.moved(node)
        return self.moves[node]

    def moved(self, node: Tensor) -> Move | None:
        """Where the elements of a row come from: found by moving the numbers of the operands' elements."""
        primitive, operands = node.primitive, node.operands
        assert primitive is not None
        if any(operand.dtype != node.dtype for operand in operands):  # indices that are operands among them
            return None
        if primitive is index_ops.SCATTER_ADD and not index_ops.reads_once(node.params["template"]):
            return None  # some elements are sums
        starts = np.cumsum([1, *(operand.size for operand in operands)])
        values = [
            np.arange(start, start + operand.size).reshape(operand.shape)
            for start, operand in zip(starts, operands, strict=False)
        ]
        try:
            moved = np.asarray(primitive.compute(values, dict(node.params)))
        except Exception:  # whatever it is, NumPy computes it
            return None
        if moved.shape != node.shape or moved.dtype.kind != "i":
            return None
        places = moved.reshape(self.rows, -1)
        source = np.searchsorted(starts, places, side="right") - 1
        if not np.array_equal(source, np.broadcast_to(source[0], source.shape)):
            return None
        reads: list[Read] = []
        for k, operand in enumerate(operands):
            chosen = source[0] == k
            index = np.full(places.shape[1], -1)
            read = Read(operand, index, operand in self.varying)
            if chosen.any():
                found = self.read_from(operand, places[:, chosen] - starts[k])
                if found is None:
                    return None
                index[chosen] = np.arange(int(chosen.sum())) if found.index is None else found.index
                read = Read(operand, None if chosen.all() and found.index is None else index, found.per_row)
            behind = read if is_view(node) else self.behind_views(read)
            if behind is None:
                return None
            reads.append(behind)
        return Move(node, None if (source[0] == 0).all() else source[0], tuple(reads))

    def fold_of(self, node: Tensor) -> Fold | None:
        """A sum, or the largest element, along the last axes."""
        assert node.primitive is not None
        (x,) = node.operands
        axes = sorted(axes_of(x.ndim, node.params["axis"]))
        last = list(range(x.ndim - len(axes), x.ndim))
        if node.dtype != x.dtype or node.dtype.kind != "f" or axes != last or not axes or (self.by_rows and 0 in axes):
            return None
        read = self.behind_views(Read(x, None, True))
        if read is None:
            return None
        return Fold(node, FOLDS[node.primitive], read, math.prod(x.shape[axis] for axis in axes), self.row_size(x))

    def product_of(self, node: Tensor) -> Product | None:
        x, weight = node.operands
        transposed = False
        if x not in self.varying and weight.ndim == 1:  # W @ h is h @ Wᵀ
            x, weight, transposed = weight, x, True
        if x not in self.varying or weight in self.varying or weight.ndim != 2 or x.ndim < 1 or node.dtype.kind != "f":
            return None
        if not x.dtype == weight.dtype == node.dtype or x.size // x.shape[-1] % self.rows:
            return None
        while weight.primitive is TRANSPOSE and weight.params["axes"] is None:
            weight, transposed = weight.operands[0], not transposed
        inner, outer = x.shape[-1], weight.shape[0 if transposed else 1]
        rows = x.size // inner // self.rows
        read = self.behind_views(Read(x, None, True))
        if read is None:
            return None
        offset = 0 if read.index is None else int(read.index[0])
        neighbours = read.index is None or np.array_equal(read.index, offset + np.arange(len(read.index)))
        if not neighbours:
            return None
        stride = self.row_size(read.operand) if rows == 1 else inner
        if rows > 1 and self.rows > 1 and self.row_size(read.operand) != self.row_size(x):
            return None
        return Product(node, read.operand, offset, stride, weight, transposed, rows, inner, outer)


def inputs_of(role: Role) -> list[Read]:
    """What a node reads in a sweep."""
    if isinstance(role, Element):
        return [read for read in role.reads if read is not None]
    if isinstance(role, Move):
        return list(role.reads)
    return [role.read] if isinstance(role, Fold) else []


def operands_of(role: Role) -> list[Tensor]:
    return [role.source] if isinstance(role, Product) else [read.operand for read in inputs_of(role)]


def row_size(node: Tensor, rows: int) -> int:
    return node.size // rows


def is_leaf(node: Tensor) -> bool:
    """Whether the rows of a varying node are there before a run computes anything."""
    return isinstance(node, Input) or is_spread_over_time(node)
