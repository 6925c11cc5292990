"""Products over all timesteps, such as a weight's gradient Σₜ xₜᵀ gₜ: threads compute parts of the result."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.execute.llvm.code import Library
from microgrid.execute.llvm.elements import TYPES
from microgrid.execute.llvm.roles import Read, Reader, row_size
from microgrid.execute.llvm.threads import shares
from microgrid.execute.memory import Layout
from microgrid.ops.time import TIME_DOT, TIME_MATMUL, TIME_ROWS
from microgrid.tensor import Tensor

if TYPE_CHECKING:
    from microgrid.execute.on_llvm import Workspace

CONTRACTIONS = (TIME_MATMUL, TIME_ROWS, TIME_DOT)

LEAST_WORK = 1 << 20
"""From how many multiplications on a product over all timesteps is shared among threads."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Contraction:
    """A product over all timesteps, and the slot of its value."""

    node: Tensor
    slot: int
    factors: list[Factor]

    @property
    def kind(self) -> str:
        return TYPES[self.node.dtype]

    def add_tasks(self, tasks: list[list[Callable[[], Any]]], workspace: Workspace) -> Any:
        """Add what each thread has to do; returns the result, or a function that gives it afterwards."""
        library = workspace.program.libraries[self.kind]
        dtype, item = self.node.dtype, self.node.dtype.itemsize
        places = [workspace.address_of_rows(each.node) + each.offset * item for each in self.factors]
        first, last = self.factors[0], self.factors[-1]
        count = workspace.steps * first.rows
        if self.node.primitive is TIME_DOT:
            total: list[float] = []
            size = count * first.columns
            for mine, (a, b) in zip(tasks, self.parts(size, size, 64, tasks), strict=False):
                mine.append(functools.partial(add_dot, total, library, b - a, *(place + a * item for place in places)))
            return lambda: dtype.type(math.fsum(total))
        out = np.empty(self.node.shape, dtype)
        place: int = out.__array_interface__["data"][0]
        if self.node.primitive is TIME_ROWS:
            for mine, (a, b) in zip(tasks, self.parts(first.columns, out.size * count, 64, tasks), strict=False):
                call = library.column_sums
                mine.append(functools.partial(call, count, b - a, places[0] + a * item, first.stride, place + a * item))
            return out
        inner, outer = first.columns, last.columns
        work = count * inner * outer
        if outer >= inner:
            for mine, (a, b) in zip(tasks, self.parts(outer, work, library.columns, tasks), strict=False):
                scratch = workspace.scratch(library, inner, outer, dtype)
                right = (places[1] + a * item, last.stride, place + a * item, outer, scratch)
                mine.append(functools.partial(library.contract, count, inner, b - a, places[0], first.stride, *right))
        else:
            for mine, (a, b) in zip(tasks, self.parts(inner, work, 8, tasks), strict=False):
                scratch = workspace.scratch(library, inner, outer, dtype)
                left = (places[0] + a * item, first.stride)
                right = (places[1], last.stride, place + a * outer * item, outer, scratch)
                mine.append(functools.partial(library.contract, count, b - a, outer, *left, *right))
        return out

    def parts(self, size: int, work: int, unit: int, tasks: list[list[Callable[[], Any]]]) -> list[tuple[int, int]]:
        """The result in parts, one for each thread, if it is worth while."""
        return shares(size, len(tasks) if work >= LEAST_WORK else 1, unit)


def add_dot(total: list[float], library: Library, count: int, x: int, y: int) -> None:
    """Add Σ x·y over so many numbers to the parts of a sum."""
    total.append(library.dot(count, x, y))
