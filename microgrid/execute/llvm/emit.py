"""A kernel of the plan as LLVM IR: loops over chunks of timesteps, timesteps, rows, and pieces of rows in vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microgrid.execute.llvm import contract
from microgrid.execute.llvm.arrange import start_width
from microgrid.execute.llvm.contract import Contraction
from microgrid.execute.llvm.elements import TYPES
from microgrid.execute.llvm.kernels import Group, Kernel, Level, Plan, Section
from microgrid.execute.llvm.roles import Product, row_size
from microgrid.execute.llvm.sweep import Sweep
from microgrid.execute.llvm.table import Table
from microgrid.execute.llvm.text import SUFFIX, Function
from microgrid.tensor import Tensor

PRODUCTS = """
declare void @mg_pack_{0}(ptr, i64, i64, i64, i64, ptr)
declare void @mg_product_{0}(i64, i64, i64, ptr, i64, ptr, ptr, i64, i1)
declare void @mg_row_product_{0}(i64, i64, ptr, ptr, i64, ptr, i1)
declare void @mg_row_product_transposed_{0}(i64, i64, ptr, ptr, i64, ptr, i1)
"""


@dataclass(slots=True, eq=False)
class Emitted:
    """The IR of a program, and what each of its kernels reads.

    statics : for each kernel, the static nodes it finds in the table
    packed : for each kernel, the matrices it multiplies with, as (node, whether transposed)
    """

    source: str
    statics: list[list[Tensor]]
    packed: list[list[tuple[Tensor, bool]]]


def module(kernels: Sequence[Kernel], blocks: Sequence[Sequence[Contraction]], plan: Plan, table: Table) -> Emitted:
    """The IR of a program.

    Kernel k is @kernel_k(table, steps, first row, row to stop at, chunk); before it, once for all threads, runs
    @pack_k(table). Products over all timesteps are @contract_k(table, steps, part, parts).
    """
    definitions: dict[str, str] = {}
    declares = {"declare i64 @llvm.smin.i64(i64, i64)"}
    bodies = []
    found = Emitted("", [], [])
    for number, kernel in enumerate(kernels):
        emitter = Emitter(kernel, plan, table, definitions, declares)
        bodies += [emitter.text(number), pack_text(number, list(emitter.packed), table)]
        found.statics.append(list(emitter.statics))
        found.packed.append(list(emitter.packed))
    for number, contractions in enumerate(blocks):
        bodies.append(contract.text(number, contractions, plan.layout, table))
    for kind, suffix in SUFFIX.items():
        if any(f"_{suffix}(" in body for body in bodies):
            declares.update((PRODUCTS + contract.DECLARES).format(suffix, kind).strip().split("\n"))
    found.source = "\n".join([*sorted(declares), *definitions.values(), *bodies])
    return found


def pack_text(number: int, packed: Sequence[tuple[Tensor, bool]], table: Table) -> str:
    """The function that brings the matrices of a kernel into the form in which products read them."""
    f = Function()
    for weight, transposed in packed:
        rows, columns = weight.shape
        strides = f"i64 1, i64 {columns}, i64 {columns}, i64 {rows}"
        if not transposed:
            strides = f"i64 {columns}, i64 1, i64 {rows}, i64 {columns}"
        source = f.from_table(table.number(("static", weight)))
        to = f.from_table(table.number(("packed", (weight, transposed))))
        f.do(f"call void @mg_pack_{SUFFIX[TYPES[weight.dtype]]}(ptr {source}, {strides}, ptr {to})")
    return f.text(f"void @pack_{number}(ptr noalias readonly %table) nounwind")


class Emitter:
    """The body of one kernel as it grows."""

    def __init__(
        self,
        kernel: Kernel,
        plan: Plan,
        table: Table,
        definitions: dict[str, str],
        declares: set[str],
    ) -> None:
        self.kernel = kernel
        self.layout = plan.layout
        self.stored = plan.stored
        self.table = table
        self.statics: dict[Tensor, None] = {}
        self.packed: dict[tuple[Tensor, bool], None] = {}
        self.definitions = definitions
        self.declares = declares
        self.f = Function()
        self.scalars: dict[Tensor, str] = {}  # static numbers
        self.numbers: dict[Tensor, str] = {}  # nodes of one element a row, while that row lasts
        self.pointers: dict[tuple[Tensor, bool], str] = {}  # rows of nodes and statics, while that row lasts
        self.timestep = self.chunk_start = self.row = ""
        self.section: Section

    # --- the loops ---

    def text(self, number: int) -> str:
        f = self.f
        arguments = "ptr noalias readonly %table, i64 %steps, i64 %from, i64 %to, i64 %chunk"
        signature = f"void @kernel_{number}({arguments}) nounwind"
        whole = f.let_at_entry("sub nsw i64 %to, %from")
        self.has_all_rows = f.let_at_entry(f"icmp eq i64 {whole}, {self.kernel.rows}")
        self.row_count = whole
        more = f.let_at_entry("add nsw i64 %steps, %chunk")
        almost = f.let_at_entry(f"sub nsw i64 {more}, 1")
        chunks = f.let_at_entry(f"sdiv i64 {almost}, %chunk")
        self.write_starts()
        with f.loop(0, chunks) as turn:
            which = turn
            if self.kernel.reverse:
                which = f.let(f"sub nsw i64 {chunks}, {f.add(turn, 1)}")
            self.chunk_start = f.times(which, "%chunk")
            stop = f.add(self.chunk_start, "%chunk")
            self.chunk_stop = f.let(f"call i64 @llvm.smin.i64(i64 {stop}, i64 %steps)")
            for section in self.kernel.sections:
                self.section = section
                if section.kind == "loop":
                    with self.timesteps():
                        self.levels(section.levels)
                else:
                    self.over_all(section)
        return f.text(signature)

    def write_starts(self) -> None:
        """The initial values of the states, in the row before their first timestep."""
        if self.kernel.starts:
            self.timestep = self.f.let("sub nsw i64 %steps, 1") if self.kernel.reverse else "0"
            self.section = Section("all", [])
            before = self.kernel.roles
            self.kernel.roles = {**before, **self.kernel.starts}
            self.rows([Group([state], start_width(role, self.kernel)) for state, role in self.kernel.starts.items()])
            self.kernel.roles = before

    @contextlib.contextmanager
    def timesteps(self) -> Iterator[None]:
        """The loop over the timesteps of a chunk, in the direction of the kernel."""
        f = self.f
        count = f.let(f"sub nsw i64 {self.chunk_stop}, {self.chunk_start}")
        last = f.let(f"sub nsw i64 {self.chunk_stop}, 1")
        with f.loop(0, count) as i:
            if self.kernel.reverse:
                self.timestep = f.let(f"sub nsw i64 {last}, {i}")
            else:
                self.timestep = f.let(f"add nsw i64 {self.chunk_start}, {i}")
            yield

    def over_all(self, section: Section) -> None:
        """Level by level over all timesteps of a chunk: sweeps between products in one loop."""
        waiting: list[Level] = []
        for level in section.levels:
            waiting.append(Level(level.groups))
            if level.products:
                self.sweep_all(waiting)
                waiting = []
                for node in level.products:
                    self.product_of_all(node)
        self.sweep_all(waiting)

    def sweep_all(self, levels: Sequence[Level]) -> None:
        if any(level.groups for level in levels):
            with self.timesteps():
                self.levels(levels)

    def levels(self, levels: Sequence[Level]) -> None:
        """One timestep: rows, through all sweeps up to the next product."""
        waiting: list[Group] = []
        for level in levels:
            waiting += level.groups
            if level.products:
                self.rows(waiting)
                waiting = []
                for node in level.products:
                    self.product(node, self.row_count)
        self.rows(waiting)

    def rows(self, groups: Sequence[Group]) -> None:
        if not groups:
            return
        if self.kernel.rows == 1:
            self.row = "0"
            self.one_row(groups)
            return
        with self.f.loop("%from", "%to") as row:
            self.row = row
            self.one_row(groups)

    def one_row(self, groups: Sequence[Group]) -> None:
        self.numbers, self.pointers = {}, {}
        for group in groups:
            Sweep(self, group).emit()

    # --- products ---

    def product(self, node: Tensor, rows: str, step: str | None = None) -> None:
        """A product of so many rows of the block from the first of this thread on, or of all of several timesteps."""
        f, role = self.f, self.kernel.roles[node]
        assert isinstance(role, Product)
        kind = TYPES[node.dtype]
        self.pointers = {}
        self.row = "0" if step is not None else "%from" if self.kernel.rows > 1 else "0"
        a = f.at(self.pointer(role.source), role.offset, kind)
        c = self.pointer(node)
        if step is None and self.kernel.rows * role.rows == 1:
            weight = self.static(role.weight)
            width = role.weight.shape[1]
            name = "row_product_transposed" if role.transposed else "row_product"
            sizes = f"i64 {role.outer}, i64 {role.inner}"
            f.do(f"call void @mg_{name}_{SUFFIX[kind]}({sizes}, ptr {a}, ptr {weight}, i64 {width}, ptr {c}, i1 false)")
            return
        self.static(role.weight)  # what is packed
        self.packed[role.weight, role.transposed] = None
        packed = self.f.from_table(self.table.number(("packed", (role.weight, role.transposed))))
        count = rows if role.rows == 1 else f.times(rows, role.rows)
        sizes = f"i64 {count}, i64 {role.outer}, i64 {role.inner}"
        places = f"ptr {a}, i64 {role.stride}, ptr {packed}, ptr {c}, i64 {role.outer}"
        f.do(f"call void @mg_product_{SUFFIX[kind]}({sizes}, {places}, i1 false)")

    def product_of_all(self, node: Tensor) -> None:
        """A product of all timesteps of a chunk: at once, where their rows are neighbours."""
        f, role = self.f, self.kernel.roles[node]
        assert isinstance(role, Product)
        if row_size(role.source, self.kernel.rows) != role.rows * role.stride:
            with self.timesteps():
                self.product(node, self.row_count, "each" if self.kernel.rows == 1 else None)
            return
        count = f.let(f"sub nsw i64 {self.chunk_stop}, {self.chunk_start}")
        with f.when(self.has_all_rows):
            self.timestep = self.chunk_start
            self.product(node, f.times(count, self.kernel.rows), "all")
        if self.kernel.rows > 1:
            some = f.let(f"xor i1 {self.has_all_rows}, true")
            with f.when(some), self.timesteps():
                self.product(node, self.row_count)

    # --- addresses ---

    def static(self, node: Tensor) -> str:
        self.statics[node] = None
        return self.f.from_table(self.table.number(("static", node)))

    def static_number(self, node: Tensor) -> str:
        """The value of a static array of one element."""
        if node not in self.scalars:
            pointer, kind = self.static(node), TYPES[node.dtype]
            if kind == "i1":
                byte = self.f.let_at_entry(f"load i8, ptr {pointer}")
                self.scalars[node] = self.f.let_at_entry(f"icmp ne i8 {byte}, 0")
            else:
                self.scalars[node] = self.f.let_at_entry(f"load {kind}, ptr {pointer}")
        return self.scalars[node]

    def pointer(self, node: Tensor) -> str:
        """Where this row of a varying node begins at this timestep."""
        key = node, True
        if key not in self.pointers:
            f, buffer = self.f, self.layout.buffer[node]
            base = self.f.from_table(self.table.number(("buffer", id(buffer))))
            shift = buffer.shift(node)
            if buffer.kind == "step":
                place = base
            else:
                from_start = buffer.kind == "chunk"
                t = self.timestep
                t = f.let(f"sub nsw i64 {t}, {self.chunk_start}") if from_start else f.add(t, shift)
                if buffer.kind == "ring":
                    t = f.let(f"and i64 {t}, 1")
                place = f.at(base, f.times(t, buffer.row_bytes))
            bytes_of_row = row_size(node, self.kernel.rows) * node.dtype.itemsize
            if self.row != "0":
                place = f.at(place, f.times(self.row, bytes_of_row))
            self.pointers[key] = place
        return self.pointers[key]

    def static_pointer(self, node: Tensor, per_row: bool) -> str:
        """Where what this row reads of a static array begins."""
        if not per_row or self.row == "0":
            return self.static(node)
        key = node, False
        if key not in self.pointers:
            bytes_of_row = row_size(node, self.kernel.rows) * node.dtype.itemsize
            self.pointers[key] = self.f.at(self.static(node), self.f.times(self.row, bytes_of_row))
        return self.pointers[key]
