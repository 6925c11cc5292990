"""The LLVM executor: a schedule → machine code in which a whole recurrence runs without Python, its work fused.

What has no scalar expression is computed by the NumPy executor's functions in between. What is fused and
what is kept is decided in llvm/plan.py; llvm/emit.py writes it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microgrid.execute import on_numpy
from microgrid.execute.blocks import write_block
from microgrid.execute.code import Array, Step
from microgrid.execute.llvm import code, machine, threads
from microgrid.execute.llvm.contract import LEAST_WORK, Contraction, contraction_of
from microgrid.execute.llvm.elements import TYPES
from microgrid.execute.llvm.emit import module
from microgrid.execute.llvm.kernels import Kernel, Plan
from microgrid.execute.llvm.plan import plan
from microgrid.execute.llvm.products import packed_size, tile
from microgrid.execute.llvm.roles import Element, Product
from microgrid.execute.llvm.storage import chunk_length
from microgrid.execute.llvm.table import Table
from microgrid.execute.memory import Layout, raw
from microgrid.execute.phases import Phase
from microgrid.graph import Graph
from microgrid.schedule import Block
from microgrid.tensor import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Kernels that each thread runs one after the other on its rows; `seconds` says about how long a timestep takes."""

    numbers: list[int]
    rows: int
    seconds: float


class Program(on_numpy.Program):
    """A graph ready to run as machine code, at any length.

    Attributes
    ----------
    plan : Plan
    source : str
        The kernels as LLVM IR.
    """

    plan: Plan

    def __init__(self, graph: Graph, *, share: bool = True) -> None:
        machine.require()
        super().__init__(graph, share=share)

    def laid_out(self, share: bool) -> Layout:
        self.plan = plan(self.schedule)
        self.schedule = replace(self.schedule, notes=self.notes())
        return self.plan.layout

    def notes(self) -> dict[Block, str]:
        """Which blocks of the schedule NumPy computes, and because of which operations."""
        by_numpy = [part for _, parts in self.plan.parts for part in parts if part.block is not None]
        found: dict[Block, str] = {}
        for block in self.schedule.blocks:
            member = set(block.nodes)
            blamed = [node for part in by_numpy for node in part.because if node in member]
            names = ", ".join(self.graph.names[node] for node in blamed)
            if blamed:
                found[block] = f"by NumPy, because of {names}" if block.kind == "loop" else f"by NumPy: {names}"
        return found

    def write(self) -> None:
        self.kernels: list[Kernel] = []
        self.contractions: list[list[Contraction]] = []
        self.items: list[Together | tuple[Step, Phase] | int] = []
        """What a run does: kernels, functions of NumPy calls, or the products over all timesteps of that number."""
        for phase, parts in self.plan.parts:
            if phase.once:
                self.write_once(phase)
                continue
            own = {state for part in parts if part.kernel is not None for state in part.kernel.starts}
            self.write_step(self.write_starts(phase, own), phase)
            for part in parts:
                if part.block is not None:
                    self.write_step(write_block(part.block, self.layout, self.slots), phase, last=True)
                elif part.kernel is not None and part.kernel.sections:
                    self.write_kernel(part.kernel)
        self.emit()

    def emit(self) -> None:
        """The machine code of all kernels and products."""
        cpu = machine.cpu()
        self.table = Table(cpu.vector_bytes, cpu.registers)
        kinds = {TYPES[node.dtype] for kernel in self.kernels for node in kernel.nodes} - {"i1"}
        kinds |= {TYPES[each.node.dtype] for block in self.contractions for each in block}
        self.libraries = [code.library(kind) for kind in sorted(kinds)]
        self.tiles = [tile(*self.table.sizes(kind)) for kind in sorted(kinds)]
        self.source = ""
        if not self.kernels and not self.contractions:
            return
        found = module(self.kernels, self.contractions, self.plan, self.table)
        self.source = found.source
        self.module = machine.load(self.source)
        self.statics, self.packed = found.statics, found.packed

        def function(name: str, arguments: tuple[Any, ...]) -> Callable[..., None]:
            return code.function(self.module.address(name), arguments)

        self.functions = [function(f"kernel_{k}", code.KERNEL) for k in range(len(self.kernels))]
        self.pack = [function(f"pack_{k}", code.PACK) for k in range(len(self.kernels))]
        self.contract = [function(f"contract_{k}", code.CONTRACT) for k in range(len(self.contractions))]

    def write_step(self, step: Step | None, phase: Phase, last: bool = False) -> None:
        """Add a function of NumPy calls; initial values may as well be written before kernels that do not know them."""
        if step is None:
            return
        behind = not last and self.items and isinstance(self.items[-1], Together)
        self.items.insert(len(self.items) - bool(behind), (step, phase))

    def write_kernel(self, kernel: Kernel) -> None:
        number = len(self.kernels)
        self.kernels.append(kernel)
        before = self.items[-1] if self.items else None
        if isinstance(before, Together) and before.rows == kernel.rows:
            self.items[-1] = Together([*before.numbers, number], kernel.rows, before.seconds + seconds_of(kernel))
        else:
            self.items.append(Together([number], kernel.rows, seconds_of(kernel)))

    def write_once(self, phase: Phase) -> None:
        """Products over all timesteps first, then the rest by NumPy."""
        (block,) = phase.blocks
        found = [each for node in block.nodes if (each := contraction_of(node, self.layout)) is not None]
        if found:
            self.items.append(len(self.contractions))
            self.contractions.append(found)
        done = {each.node for each in found}
        for node in done:
            self.layout.static_placed.pop(node, None)  # it gets memory of its own: whoever joins it copies it
        rest = tuple(node for node in block.nodes if node not in done)
        self.write_step(write_block(Block("once", rest), self.layout, self.slots), phase, last=True)

    def new_workspace(self, steps: int) -> Workspace:
        return Workspace(self, steps)


def seconds_of(kernel: Kernel) -> float:
    """About how long a kernel takes for a timestep on one thread: enough to know whether a second one pays."""
    total = 0.0
    for node in kernel.nodes:
        role = kernel.roles[node]
        if isinstance(role, Product):
            total += kernel.rows * role.rows * role.inner * role.outer / 2e10
        elif isinstance(role, Element):
            total += node.size * 2e-10
    return total


class Static:
    """A static array as kernels find it: in the table, as long as it is the same array."""

    def __init__(self, node: Tensor, slot: int, number: int) -> None:
        self.slot = slot
        self.number = number
        self.dtype = node.dtype
        self.seen: Any = None
        self.held: Any = None

    def put(self, values: Sequence[Any], table: Array) -> None:
        value = values[self.slot]
        if value is self.seen:
            return
        usable = type(value) is np.ndarray and value.dtype == self.dtype and value.flags.c_contiguous
        self.seen = value if usable else None
        self.held = value if usable else np.array(value, self.dtype, order="C")
        table[self.number] = address_of(self.held)


class Results:
    """Arrays for a result that belongs to the user: one is given again when nobody else holds it any more."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.made: list[tuple[Array, int]] = []

    def next(self) -> tuple[Array, int]:
        """An array that only its user will hold, and its address."""
        for i in range(len(self.made)):
            if references(self.made, i) == UNHELD:
                return self.made[i]
        if len(self.made) == 2:
            del self.made[0]  # its user keeps it
        array = np.empty(self.shape, self.dtype)
        self.made.append((array, address_of(array)))
        return self.made[-1]


def references(made: list[tuple[Array, int]], i: int) -> int:
    """How many references Python counts to an array of a list."""
    return sys.getrefcount(made[i][0])


UNHELD = references([(np.empty(0), 0)], 0)
"""How many there are if nobody else holds it: versions of Python count differently."""


def address_of(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


class Workspace(on_numpy.Workspace):
    """The buffers of a program for one length, the table by which machine code finds them, and the calls of a run."""

    program: Program

    def chunk_lengths(self) -> list[int]:
        return [chunk_length(kernel, self.program.layout, self.steps) for kernel in self.program.kernels]

    def make_table(self) -> None:
        """Fill in what stays from run to run."""
        program, known = self.program, self.program.table
        self.parts = threads.get_num_threads()
        self.table = np.zeros(max(1, len(known.numbers)), np.uintp)
        self.table_address = address_of(self.table)
        self.own: list[Array] = []  # memory that only the table refers to

        def put(number: int, array: Array) -> Array:
            self.own.append(array)
            self.table[number] = address_of(array)
            return array

        buffers = {id(buffer): buffer for buffer in program.layout.buffers()}
        for key, number in known.of_kind("buffer"):
            if buffers[key].slot >= 0:
                put(number, self.memory[buffers[key].slot])
        self.given_numbers = [
            (node, known.numbers.get(("buffer", id(program.layout.buffer[node])))) for node in self.given
        ]
        self.static_of = {node: Static(node, program.slots[node], number) for node, number in known.of_kind("static")}
        for (weight, transposed), number in known.of_kind("packed"):
            inner, outer = weight.shape[::-1] if transposed else weight.shape
            put(number, raw(packed_size(inner, outer, *known.sizes(TYPES[weight.dtype])), weight.dtype.itemsize))
        for kind, number in known.of_kind("scratch"):
            put(number, raw(self.parts * known.scratch[kind], machine.BYTES[kind]))
        cells = {node: put(number, np.zeros(self.parts, node.dtype)) for node, number in known.of_kind("cells")}
        places = dict(known.of_kind("result"))
        blocks = [[each.node for each in block] for block in program.contractions]
        self.sums = [[(program.slots[node], cells[node]) for node in block if node in cells] for block in blocks]
        self.results = [
            [(program.slots[node], places[node], Results(node.shape, node.dtype)) for node in block if node in places]
            for block in blocks
        ]

    def compute(self, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any]) -> list[Any]:
        arrays = [(np.ascontiguousarray(sequences[node]), number) for node, number in self.given_numbers]
        for array, number in arrays:
            if number is not None:
                self.table[number] = address_of(array)
        return super().compute(sequences, given)

    # --- calls ---

    def all_calls(self) -> Iterator[tuple[Callable[..., None], list[Any]]]:
        self.make_table()
        for item in self.program.items:
            if isinstance(item, Together):
                statics = dict.fromkeys(node for number in item.numbers for node in self.program.statics[number])
                yield self.run_kernels, [item, [self.static_of[node] for node in statics], self.tasks(item)]
            elif isinstance(item, int):
                contractions = self.program.contractions[item]
                work = self.steps * sum(each.node.size * each.factors[0].rows for each in contractions)
                yield self.contract, [item, self.parts if work >= LEAST_WORK else 1]
            else:
                step, phase = item
                yield step.run, self.arguments(step, 0, self.steps, phase)

    def tasks(self, item: Together) -> list[Callable[[], None]]:
        """What each thread does."""
        count = min(self.parts, item.rows) if item.seconds * self.steps >= threads.LEAST_SECONDS else 1
        tile = max((each.rows for each in self.program.tiles), default=1)  # rows that products take together stay so
        return [functools.partial(self.run_rows, item.numbers, a, b) for a, b in threads.shares(item.rows, count, tile)]

    def run_rows(self, numbers: Sequence[int], a: int, b: int) -> None:
        for number in numbers:
            self.program.functions[number](self.table_address, self.steps, a, b, self.chunks[number])

    def run_kernels(
        self, values: list[Any], item: Together, statics: Sequence[Static], tasks: Sequence[Callable[[], None]]
    ) -> None:
        for static in statics:
            static.put(values, self.table)
        for number in item.numbers:
            if self.program.packed[number]:
                self.program.pack[number](self.table_address)
        threads.run(tasks)

    def contract(self, values: list[Any], number: int, parts: int) -> None:
        """Products over all timesteps; threads take parts of each result."""
        for slot, place, results in self.results[number]:
            values[slot], self.table[place] = results.next()
        function = self.program.contract[number]
        if parts == 1:
            function(self.table_address, self.steps, 0, 1)
        else:
            call = functools.partial(function, self.table_address, self.steps)
            threads.run([functools.partial(call, part, parts) for part in range(parts)])
        for slot, cells in self.sums[number]:
            values[slot] = cells[0] if parts == 1 else cells.sum()

    def start_row(self, node: Tensor, a: int, b: int) -> Array:
        buffer = self.program.layout.buffer[node]
        if buffer.kind == "ring":
            return self.array(buffer)[self.steps & 1 if buffer.state is not None and buffer.state.reverse else 0, ...]
        return super().start_row(node, 0, self.steps)
