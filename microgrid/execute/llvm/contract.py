"""Products over all timesteps, such as a weight's gradient Σₜ xₜᵀ gₜ: threads compute parts of each result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microgrid.execute.llvm import products
from microgrid.execute.llvm.elements import TYPES
from microgrid.execute.llvm.roles import Read, Reader, row_size
from microgrid.execute.llvm.table import Table
from microgrid.execute.llvm.text import SUFFIX, Function
from microgrid.execute.memory import Layout
from microgrid.ops.time import TIME_DOT, TIME_MATMUL, TIME_ROWS
from microgrid.tensor import Tensor

CONTRACTIONS = (TIME_MATMUL, TIME_ROWS, TIME_DOT)

LEAST_WORK = 1 << 23
"""From how many multiplications on a product over all timesteps is shared among threads."""

DECLARES = """
declare void @mg_contract_{0}(i64, i64, i64, ptr, i64, ptr, i64, ptr, i64, ptr)
declare void @mg_column_sums_{0}(i64, i64, ptr, i64, ptr)
declare {1} @mg_dot_{0}(i64, ptr, ptr)
"""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """The rows of a factor, of all timesteps one after the other, in the memory of a node; in elements.

    node : whose memory it is
    offset, stride : where the first row begins, and how far the rows are apart
    rows, columns : of one timestep
    """

    node: Tensor
    offset: int
    stride: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Contraction:
    """A product over all timesteps, and its factors."""

    node: Tensor
    factors: list[Factor]


def contraction_of(node: Tensor, layout: Layout) -> Contraction | None:
    """A static node as a product over all timesteps that machine code computes; None if it is none."""
    if node.primitive not in CONTRACTIONS or TYPES.get(node.dtype) not in ("float", "double"):
        return None
    found = [factor_of(operand, node, layout) for operand in node.operands]
    factors = [each for each in found if each is not None]
    return Contraction(node, factors) if len(factors) == len(found) else None


def factor_of(x: Tensor, result: Tensor, layout: Layout) -> Factor | None:
    """Where the rows of an operand lie; None where they do not lie one after the other, or in another dtype."""
    if x.dtype != result.dtype or x not in layout.graph.varying or not x.size:
        return None
    lines = result.primitive is TIME_DOT
    rows = 1 if lines else x.shape[0]
    read = Reader(rows, not lines, layout.graph.varying).behind_views(Read(x, None, True))
    if read is None:
        return None
    offset = 0 if read.index is None else int(read.index[0])
    if read.index is not None and not np.array_equal(read.index, offset + np.arange(len(read.index))):
        return None
    stride = row_size(read.operand, rows)
    columns = x.size // rows
    if (lines or rows * stride != read.operand.size) and stride != columns:
        return None
    return Factor(read.operand, offset, stride, rows, columns)


def text(number: int, contractions: Sequence[Contraction], layout: Layout, table: Table) -> str:
    """@contract_k(table, steps, part, parts): the share of one thread of every product of a block."""
    f = Function()
    for each in contractions:
        if each.node.primitive is TIME_MATMUL:
            table.need_scratch(TYPES[each.node.dtype], *each.node.shape)
    for each in contractions:
        Writer(f, each, layout, table).write()
    return f.text(f"void @contract_{number}(ptr noalias readonly %table, i64 %steps, i64 %part, i64 %parts) nounwind")


class Writer:
    """One product over all timesteps."""

    def __init__(self, f: Function, contraction: Contraction, layout: Layout, table: Table) -> None:
        self.f = f
        self.node = contraction.node
        self.factors = contraction.factors
        self.layout = layout
        self.table = table
        self.kind = TYPES[self.node.dtype]
        self.suffix = SUFFIX[self.kind]

    def write(self) -> None:
        f, first, last = self.f, self.factors[0], self.factors[-1]
        count = f.times("%steps", first.rows)
        places = [self.place(each) for each in self.factors]
        if self.node.primitive is TIME_DOT:
            size = f.times(count, first.columns)
            a, b, _ = self.share(size, size, 64)
            x, y = (f.at(place, a, self.kind) for place in places)
            part = f.let(
                f"call {self.kind} @mg_dot_{self.suffix}(i64 {f.let(f'sub nsw i64 {b}, {a}')}, ptr {x}, ptr {y})"
            )
            cells = self.f.from_table(self.table.number(("cells", self.node)))
            f.do(f"store {self.kind} {part}, ptr {f.at(cells, '%part', self.kind)}")
            return
        out = self.f.from_table(self.table.number(("result", self.node)))
        if self.node.primitive is TIME_ROWS:
            a, b, some = self.share(str(first.columns), f.times(count, first.columns), 64)
            with f.when(some):
                width = f.let(f"sub nsw i64 {b}, {a}")
                x, to = f.at(places[0], a, self.kind), f.at(out, a, self.kind)
                sizes = f"i64 {count}, i64 {width}"
                f.do(f"call void @mg_column_sums_{self.suffix}({sizes}, ptr {x}, i64 {first.stride}, ptr {to})")
            return
        inner, outer = first.columns, last.columns
        by_columns = outer >= inner
        tile = products.tile(*self.table.sizes(self.kind))
        extent, unit = (outer, tile.columns) if by_columns else (inner, tile.rows)
        a, b, some = self.share(str(extent), f.times(count, inner * outer), unit)
        with f.when(some):
            width = f.let(f"sub nsw i64 {b}, {a}")
            scratch = self.f.from_table(self.table.number(("scratch", self.kind)))
            scratch = f.at(scratch, f.times("%part", self.table.scratch[self.kind]), self.kind)
            if by_columns:
                left, right, to = places[0], f.at(places[1], a, self.kind), f.at(out, a, self.kind)
                sizes = f"i64 {count}, i64 {inner}, i64 {width}"
            else:
                left, right = f.at(places[0], a, self.kind), places[1]
                to = f.at(out, f.times(a, outer), self.kind)
                sizes = f"i64 {count}, i64 {width}, i64 {outer}"
            factors = f"ptr {left}, i64 {first.stride}, ptr {right}, i64 {last.stride}"
            f.do(f"call void @mg_contract_{self.suffix}({sizes}, {factors}, ptr {to}, i64 {outer}, ptr {scratch})")

    def place(self, factor: Factor) -> str:
        """Where the first row of the first timestep begins."""
        buffer = self.layout.buffer[factor.node]
        base = self.f.from_table(self.table.number(("buffer", id(buffer))))
        offset = buffer.shift(factor.node) * buffer.row_bytes + factor.offset * factor.node.dtype.itemsize
        return self.f.at(base, offset)

    def share(self, size: str, work: str, unit: int) -> tuple[str, str, str]:
        """Which part of the result is this thread's: (from, to, whether there is any)."""
        f = self.f
        much = f.let(f"icmp sge i64 {work}, {LEAST_WORK}")
        parts = f.let(f"select i1 {much}, i64 %parts, i64 1")
        units = f.let(f"sdiv i64 {f.add(size, unit - 1)}, {unit}")

        def border(part: str) -> str:
            up = f.add(f.times(units, part), f.let(f"sub nsw i64 {parts}, 1"))
            at = f.times(f.let(f"sdiv i64 {up}, {parts}"), unit)
            return f.let(f"call i64 @llvm.smin.i64(i64 {at}, i64 {size})")

        mine = f.let(f"call i64 @llvm.smin.i64(i64 %part, i64 {parts})")  # with one part, the others begin at the end
        following = f.let(f"call i64 @llvm.smin.i64(i64 {f.add('%part', 1)}, i64 {parts})")
        a, b = border(mine), border(following)
        return a, b, f.let(f"icmp slt i64 {a}, {b}")
