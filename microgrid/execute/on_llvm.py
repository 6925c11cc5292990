"""The LLVM executor: a schedule → machine code in which a whole recurrence runs without Python, its work fused.

What has no scalar expression is computed by the NumPy executor's functions in between. What is fused and
what is kept is decided in llvm/plan.py; llvm/emit.py writes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.execute import on_numpy
from microgrid.execute.blocks import write_block
from microgrid.execute.code import Array, Step
from microgrid.execute.llvm import code, machine, threads
from microgrid.execute.llvm.contract import CONTRACTIONS, Contraction, Factor, factor_of
from microgrid.execute.llvm.elements import TYPES
from microgrid.execute.llvm.emit import Table, module
from microgrid.execute.llvm.plan import Kernel, Plan, chunk_length, plan
from microgrid.execute.llvm.roles import Element, Product
from microgrid.execute.memory import Layout
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
        return self.plan.layout

    def write(self) -> None:
        self.kernels: list[Kernel] = []
        self.items: list[Together | tuple[Step, Phase] | list[Contraction]] = []
        for phase, parts in self.plan.parts:
            if phase.once:
                self.write_once(phase)
                continue
            self.write_step(self.write_starts(phase), phase)
            for part in parts:
                if part.block is not None:
                    self.write_step(write_block(part.block, self.layout, self.slots), phase, last=True)
                elif part.kernel is not None and part.kernel.sections:
                    self.write_kernel(part.kernel)
        self.table = Table()
        self.source = ""
        kinds = {TYPES[node.dtype] for kernel in self.kernels for node in kernel.nodes} - {"i1"}
        kinds |= {each.kind for item in self.items if isinstance(item, list) for each in item}
        self.libraries = {kind: code.library(kind) for kind in sorted(kinds)}
        if not self.kernels:
            return
        self.source = module(self.kernels, self.plan, self.table, machine.cpu().vector_bytes)
        self.module = machine.load(self.source)
        self.functions = [
            code.function(self.module.address(f"kernel_{number}"), code.KERNEL) for number in range(len(self.kernels))
        ]

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
        found: list[Contraction] = []
        rest: list[Tensor] = []
        for node in block.nodes:
            factors = self.factors_of(node)
            if factors is None:
                rest.append(node)
            else:
                found.append(Contraction(node, self.slots[node], factors))
        if found:
            self.items.append(found)
        self.write_step(write_block(Block("once", tuple(rest)), self.layout, self.slots), phase, last=True)

    def factors_of(self, node: Tensor) -> list[Factor] | None:
        """The factors of a product over all timesteps that machine code computes."""
        if node.primitive not in CONTRACTIONS or TYPES.get(node.dtype) not in ("float", "double"):
            return None
        found = [factor_of(operand, node, self.layout) for operand in node.operands]
        return [each for each in found if each is not None] if None not in found else None

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


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A matrix as products read it."""

    slot: int
    transposed: bool
    pack: Callable[..., None]
    array: Array

    def fill(self, values: Sequence[Any]) -> None:
        matrix = np.asarray(values[self.slot], self.array.dtype)
        matrix = matrix.T if self.transposed else matrix
        item = matrix.itemsize
        across, along = matrix.strides[0] // item, matrix.strides[1] // item
        self.pack(address_of(matrix), across, along, *matrix.shape, address_of(self.array))


def address_of(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


class Workspace(on_numpy.Workspace):
    """The buffers of a program for one length, the table by which kernels find them, and the calls of a run."""

    program: Program

    def chunk_lengths(self) -> list[int]:
        return [chunk_length(kernel, self.program.layout, self.steps) for kernel in self.program.kernels]

    def make_table(self) -> None:
        program = self.program
        table, slots = program.table, program.slots
        self.table = np.zeros(max(1, table.count), np.uintp)
        self.table_address = address_of(self.table)
        self.base: dict[int, int] = {}
        for buffer in program.layout.buffers():
            if buffer.slot >= 0:
                self.base[id(buffer)] = address_of(self.memory[buffer.slot])
        for key, number in table.buffers.items():
            self.table[number] = self.base.get(key, 0)
        self.given_numbers = [(node, table.buffers.get(id(program.layout.buffer[node]), -1)) for node in self.given]
        self.given_addresses: dict[Tensor, int] = {}
        self.statics = [Static(node, slots[node], number) for node, number in table.statics.items()]
        self.packed: list[Packed] = []
        for (weight, transposed), number in table.packed.items():
            library = program.libraries[TYPES[weight.dtype]]
            inner, outer = weight.shape[::-1] if transposed else weight.shape
            array = np.empty(library.packed_size(inner, outer), weight.dtype)
            self.table[number] = address_of(array)
            self.packed.append(Packed(slots[weight], transposed, library.pack, array))

    def compute(self, sequences: Mapping[Tensor, Any], given: Mapping[Tensor, Any]) -> list[Any]:
        arrays = [np.ascontiguousarray(sequences[node]) for node, _ in self.given_numbers]
        for (node, number), array in zip(self.given_numbers, arrays, strict=True):
            self.given_addresses[node] = address = address_of(array)
            if number >= 0:
                self.table[number] = address
        return super().compute(sequences, given)

    # --- calls ---

    def all_calls(self) -> Iterator[tuple[Callable[..., None], list[Any]]]:
        self.make_table()
        for item in self.program.items:
            if isinstance(item, Together):
                yield self.run_kernels, [self.tasks(item)]
            elif isinstance(item, list):
                yield self.contract, [item]
            else:
                step, phase = item
                yield step.run, self.arguments(step, 0, self.steps, phase)

    def tasks(self, item: Together) -> list[Callable[[], None]]:
        """What each thread does."""
        program = self.program
        count = min(threads.get_num_threads(), item.rows)
        if item.seconds * self.steps < threads.LEAST_SECONDS:
            count = 1
        return (
            [functools.partial(self.run_rows, item.numbers, a, b) for a, b in threads.shares(item.rows, count)]
            if program.kernels
            else []
        )

    def run_rows(self, numbers: Sequence[int], a: int, b: int) -> None:
        for number in numbers:
            self.program.functions[number](self.table_address, self.steps, a, b, self.chunks[number])

    def run_kernels(self, values: list[Any], tasks: Sequence[Callable[[], None]]) -> None:
        for static in self.statics:
            static.put(values, self.table)
        for packed in self.packed:
            packed.fill(values)
        threads.run(tasks)

    def contract(self, values: list[Any], contractions: Sequence[Contraction]) -> None:
        """Products over all timesteps; threads take parts of each result."""
        results: list[Any] = []
        self.scratches: list[Array] = []
        tasks: list[list[Callable[[], Any]]] = [[] for _ in range(threads.get_num_threads())]
        for each in contractions:
            results.append(each.add_tasks(tasks, self))
        threads.run([functools.partial(do_all, mine) for mine in tasks if mine])
        for each, result in zip(contractions, results, strict=True):
            values[each.slot] = result() if callable(result) else result
        self.scratches = []

    def scratch(self, library: code.Library, inner: int, outer: int, dtype: np.dtype[Any]) -> int:
        """Memory for one part of a product over all timesteps."""
        array = np.empty(library.contract_scratch(inner, outer), dtype)
        self.scratches.append(array)
        return address_of(array)

    def address_of_rows(self, node: Tensor) -> int:
        """Where the row of a node's first timestep begins."""
        if node in self.given_addresses:
            return self.given_addresses[node]
        buffer = self.program.layout.buffer[node]
        return self.base[id(buffer)] + buffer.shift(node) * buffer.row_bytes

    def start_row(self, node: Tensor, a: int, b: int) -> Array:
        buffer = self.program.layout.buffer[node]
        if buffer.kind == "ring":
            return self.array(buffer)[self.steps & 1 if buffer.state is not None and buffer.state.reverse else 0, ...]
        return super().start_row(node, 0, self.steps)


def do_all(tasks: Sequence[Callable[[], Any]]) -> None:
    for task in tasks:
        task()
