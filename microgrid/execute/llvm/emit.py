"""A kernel of the plan as LLVM IR: loops over chunks of timesteps, timesteps, rows, and pieces of rows in vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.execute.llvm import contract, functions
from microgrid.execute.llvm.contract import Contraction
from microgrid.execute.llvm.elements import TYPES, Value, as_hex
from microgrid.execute.llvm.plan import Group, Kernel, Level, Plan, Section, hands_over, start_width
from microgrid.execute.llvm.roles import Element, Move, Product, Read, Sum, row_size
from microgrid.execute.llvm.table import Table
from microgrid.execute.llvm.text import Function
from microgrid.tensor import Tensor

SUFFIX = {"float": "f32", "double": "f64"}
INSTRUCTIONS = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
COMPARISONS = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
ELEMENTARY = ("tanh", "sigmoid", "exp", "log", "log1p", "expm1")

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

    def address(key: tuple[str, object]) -> str:
        place = f.let_at_entry(f"getelementptr inbounds ptr, ptr %table, i64 {table.number(key)}")
        return f.let_at_entry(f"load ptr, ptr {place}")

    for weight, transposed in packed:
        rows, columns = weight.shape
        strides = f"i64 1, i64 {columns}, i64 {columns}, i64 {rows}"
        if not transposed:
            strides = f"i64 {columns}, i64 1, i64 {rows}, i64 {columns}"
        source, to = address(("static", weight)), address(("packed", (weight, transposed)))
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
        self.addresses: dict[int, str] = {}
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
        packed = self.address(self.table.number(("packed", (role.weight, role.transposed))))
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

    def address(self, number: int) -> str:
        """An entry of the table."""
        if number not in self.addresses:
            place = self.f.let_at_entry(f"getelementptr inbounds ptr, ptr %table, i64 {number}")
            self.addresses[number] = self.f.let_at_entry(f"load ptr, ptr {place}")
        return self.addresses[number]

    def static(self, node: Tensor) -> str:
        self.statics[node] = None
        return self.address(self.table.number(("static", node)))

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
            base = self.address(self.table.number(("buffer", id(buffer))))
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


class Sweep:
    """One sweep over the pieces of a row."""

    def __init__(self, emitter: Emitter, group: Group) -> None:
        self.e = emitter
        self.f = emitter.f
        self.group = group
        self.kernel = emitter.kernel
        self.members = set(group.nodes)
        sizes = [node.dtype.itemsize for node in group.nodes if node.dtype.kind == "f"]
        self.lanes = emitter.table.vector_bytes // max(sizes, default=4)
        self.sums = [node for node in group.nodes if isinstance(self.kernel.roles[node], Sum)]
        self.values: dict[tuple[Tensor, int], str] = {}
        self.sum_variables: dict[Tensor, list[tuple[str, str]]] = {}
        self.touched: list[tuple[Tensor, bool, bool]] = []
        self.j = "0"
        self.now = 1

    def emit(self) -> None:
        f, width = self.f, self.group.width
        self.look_up_pointers()
        for node in self.sums:
            role = self.kernel.roles[node]
            assert isinstance(role, Sum)
            kind = TYPES[node.dtype]
            wide = self.type_of(node.dtype, self.lanes)
            found = []
            for _ in range(role.size // role.length):
                pair = f.variable(wide), f.variable(kind)
                f.do(f"store {wide} zeroinitializer, ptr {pair[0]}")
                f.do(f"store {kind} {as_hex(0.0, node.dtype)}, ptr {pair[1]}")
                found.append(pair)
            self.sum_variables[node] = found
        whole = width // self.lanes * self.lanes
        if whole == self.lanes:
            self.body("0", self.lanes)
        elif whole:
            with f.loop(0, whole, self.lanes) as j:
                self.body(j, self.lanes)
        rest = width - whole
        if rest and whole and not self.sums:  # the last vector overlaps: nothing here reads what it writes
            self.body(str(width - self.lanes), self.lanes)
        elif rest == 1:
            self.body(str(whole), 1)
        elif rest:
            with f.loop(whole, width) as j:
                self.body(j, 1)
        self.finish_sums()

    def look_up_pointers(self) -> None:
        """Find the addresses of all rows before the loop, where they serve all that follows."""
        lines, pointers, numbers = self.f.lines, dict(self.e.pointers), dict(self.e.numbers)
        self.f.lines = []
        self.body("0", 1)
        self.f.lines, self.e.pointers, self.e.numbers = lines, pointers, numbers
        for node, varying, per_row in dict.fromkeys(self.touched):
            if varying:
                self.e.pointer(node)
            else:
                self.e.static_pointer(node, per_row)

    def body(self, j: str, lanes: int) -> None:
        """All pieces of all nodes at place `j` of a piece."""
        self.j, self.now, self.values = j, lanes, {}
        for node in self.group.nodes:
            role = self.kernel.roles[node]
            if isinstance(role, Sum):
                self.add_to_sum(node, role)
                continue
            for piece in range(row_size(node, self.kernel.rows) // self.piece_width(node)):
                value = self.value(node, piece)
                if node in self.e.stored:
                    self.store(node, piece, value)

    def piece_width(self, node: Tensor) -> int:
        return 1 if row_size(node, self.kernel.rows) == 1 else self.group.width

    # --- values ---

    def type_of(self, dtype: np.dtype[Any], lanes: int) -> str:
        kind = TYPES[dtype]
        return f"<{lanes} x {kind}>" if lanes > 1 else kind

    def value(self, node: Tensor, piece: int) -> str:
        """A piece of a node, in a register."""
        if row_size(node, self.kernel.rows) == 1:
            if node not in self.e.numbers:
                now, self.now, j, self.j = self.now, 1, self.j, "0"
                self.e.numbers[node] = self.computed(node, 0)
                self.now, self.j = now, j
            return self.e.numbers[node]
        key = node, piece
        if key not in self.values:
            self.values[key] = self.computed(node, piece)
        return self.values[key]

    def computed(self, node: Tensor, piece: int) -> str:
        role = self.kernel.roles[node]
        if isinstance(role, Move):
            at = piece * self.piece_width(node)
            k = 0 if role.source is None else int(role.source[at])
            if k < 0:
                return self.constant(0.0, node.dtype)
            return self.read(role.reads[k], node, piece, self.piece_width(node))
        assert isinstance(role, Element)
        operands = ["" if read is None else self.read(read, node, piece, self.piece_width(node)) for read in role.reads]
        return self.evaluated(role.expression, operands)

    def read(self, read: Read, node: Tensor, piece: int, width: int) -> str:
        """What a piece of a node reads of an operand."""
        at = piece * width
        first, one = at, False
        if read.index is not None:
            first = int(read.index[at])
            one = width > 1 and int(read.index[at + 1]) == first
        x = read.operand
        size = row_size(x, self.kernel.rows) if read.per_row else x.size
        varying = x in self.e.layout.buffer
        if varying and hands_over(read, node, self.e.section, self.kernel):
            if size == 1:
                return self.spread(self.value(x, 0) if x in self.members else self.e.numbers[x], x.dtype)
            return self.value(x, first // self.group.width)
        if not varying and x.size == 1:
            return self.spread(self.e.static_number(x), x.dtype)
        one = one or size == 1
        self.touched.append((x, varying, read.per_row))
        pointer = self.e.pointer(x) if varying else self.e.static_pointer(x, read.per_row)
        return self.load(pointer, first, x.dtype, one)

    def load(self, pointer: str, first: int, dtype: np.dtype[Any], one: bool) -> str:
        f = self.f
        lanes = 1 if one else self.now
        kind = "i8" if dtype.kind == "b" else TYPES[dtype]
        place = f.at(pointer, first, kind)
        if not one:
            place = f.at(place, self.j, kind)
        wide = f"<{lanes} x {kind}>" if lanes > 1 else kind
        value = f.let(f"load {wide}, ptr {place}, align {dtype.itemsize}")
        if dtype.kind == "b":
            value = f.let(f"icmp ne {wide} {value}, zeroinitializer" if lanes > 1 else f"icmp ne i8 {value}, 0")
        return self.spread(value, dtype) if one else value

    def spread(self, value: str, dtype: np.dtype[Any]) -> str:
        """One number in all lanes."""
        if self.now == 1:
            return value
        wide, kind = self.type_of(dtype, self.now), TYPES[dtype]
        one = self.f.let(f"insertelement {wide} poison, {kind} {value}, i64 0")
        return self.f.let(f"shufflevector {wide} {one}, {wide} poison, <{self.now} x i32> zeroinitializer")

    def constant(self, number: float, dtype: np.dtype[Any]) -> str:
        bits = as_hex(number, dtype)
        return f"splat ({TYPES[dtype]} {bits})" if self.now > 1 else bits

    def store(self, node: Tensor, piece: int, value: str) -> None:
        f = self.f
        self.touched.append((node, True, True))
        is_number = row_size(node, self.kernel.rows) == 1
        lanes = 1 if is_number else self.now
        wide = self.type_of(node.dtype, lanes)
        kind = "i8" if node.dtype.kind == "b" else TYPES[node.dtype]
        if kind == "i8":
            new = f"<{lanes} x i8>" if lanes > 1 else "i8"
            value = f.let(f"zext {wide} {value} to {new}")
            wide = new
        place = f.at(self.e.pointer(node), piece * self.piece_width(node), kind)
        if not is_number:
            place = f.at(place, self.j, kind)
        f.do(f"store {wide} {value}, ptr {place}, align {node.dtype.itemsize}")

    # --- expressions ---

    def evaluated(self, value: Value, operands: Sequence[str]) -> str:
        done: dict[int, str] = {}

        def visit(x: Value) -> str:
            if x.op == "operand":
                return str(operands[x.args[0]])
            if x.op == "constant":
                return self.constant(x.args[0], x.dtype)
            if id(x) not in done:
                done[id(x)] = self.operation(x, [visit(each) for each in x.args])
            return done[id(x)]

        return visit(value)

    def operation(self, x: Value, given: Sequence[str]) -> str:
        """An instruction, or a few."""
        f, op = self.f, x.op
        kind = self.type_of(x.args[0].dtype, self.now)
        if op in INSTRUCTIONS:
            fused = "" if op == "subtract" else "contract "  # x·y − x·y stays 0
            return f.let(f"{INSTRUCTIONS[op]} {fused}{kind} {given[0]}, {given[1]}")
        if op == "negative":
            return f.let(f"fneg {kind} {given[0]}")
        if op in ("absolute", "sqrt"):
            return self.intrinsic("fabs" if op == "absolute" else "sqrt", x.dtype, given[0])
        if op in ELEMENTARY:
            function = functions.definition(op, TYPES[x.dtype], self.now)
            text = function.text  # one number at a time is for what is left over: a call is short to compile
            text = text.replace("alwaysinline", "noinline") if self.now == 1 else text
            self.e.definitions.setdefault(function.symbol, text)
            self.e.declares.update(function.declares)
            return f.let(f"call {kind} {function.symbol}({kind} {given[0]})")
        if op in COMPARISONS:
            return f.let(f"fcmp {COMPARISONS[op]} {kind} {given[0]}, {given[1]}")
        truths = self.type_of(np.dtype(np.bool_), self.now)
        if op in ("maximum", "minimum"):  # nan wins
            better = f.let(f"fcmp {'ogt' if op == 'maximum' else 'olt'} {kind} {given[0]}, {given[1]}")
            chosen = f.let(f"select {truths} {better}, {kind} {given[0]}, {kind} {given[1]}")
            unknown = f.let(f"fcmp uno {kind} {given[0]}, {given[0]}")
            return f.let(f"select {truths} {unknown}, {kind} {given[0]}, {kind} {chosen}")
        if op in ("and", "or"):
            return f.let(f"{op} {truths} {given[0]}, {given[1]}")
        if op == "not":
            return f.let(f"xor {truths} {given[0]}, {self.constant(True, np.dtype(np.bool_))}")
        if op == "select":
            wide = self.type_of(x.dtype, self.now)
            return f.let(f"select {truths} {given[0]}, {wide} {given[1]}, {wide} {given[2]}")
        assert op == "cast"
        return self.cast(given[0], x.args[0].dtype, x.dtype)

    def cast(self, value: str, old: np.dtype[Any], new: np.dtype[Any]) -> str:
        f = self.f
        one, two = self.type_of(old, self.now), self.type_of(new, self.now)
        if new.kind == "b":
            return f.let(f"fcmp une {one} {value}, {self.constant(0.0, old)}")
        if old.kind == "b":
            return f.let(f"uitofp {one} {value} to {two}")
        return f.let(f"{'fpext' if old.itemsize < new.itemsize else 'fptrunc'} {one} {value} to {two}")

    def intrinsic(self, name: str, dtype: np.dtype[Any], value: str) -> str:
        kind = self.type_of(dtype, self.now)
        suffix = f"v{self.now}" if self.now > 1 else ""
        symbol = f"@llvm.{name}.{suffix}f{8 * dtype.itemsize}"
        self.e.declares.add(f"declare {kind} {symbol}({kind})")
        return self.f.let(f"call {kind} {symbol}({kind} {value})")

    # --- sums ---

    def add_to_sum(self, node: Tensor, role: Sum) -> None:
        f = self.f
        kind = self.type_of(node.dtype, self.now)
        for piece in range(role.size // self.group.width):
            variable = self.sum_variables[node][piece * self.group.width // role.length] if self.sum_variables else None
            value = self.read(role.read, node, piece, self.group.width)
            if variable is not None:
                place = variable[0] if self.now > 1 else variable[1]
                before = f.let(f"load {kind}, ptr {place}")
                f.do(f"store {kind} {f.let(f'fadd {kind} {before}, {value}')}, ptr {place}")

    def finish_sums(self) -> None:
        f = self.f
        for node in self.sums:
            kind, wide = TYPES[node.dtype], self.type_of(node.dtype, self.lanes)
            for place, (vector, scalar) in enumerate(self.sum_variables[node]):
                total = f.let(f"load {kind}, ptr {scalar}")
                if self.lanes > 1:
                    symbol = f"@llvm.vector.reduce.fadd.v{self.lanes}f{8 * node.dtype.itemsize}"
                    self.e.declares.add(f"declare {kind} {symbol}({kind}, {wide})")
                    lanes = f.let(f"load {wide}, ptr {vector}")
                    total = f.let(f"call reassoc {kind} {symbol}({kind} {total}, {wide} {lanes})")
                if row_size(node, self.kernel.rows) == 1:
                    self.e.numbers[node] = total
                if node in self.e.stored:
                    pointer = f.at(self.e.pointer(node), place, kind)
                    f.do(f"store {kind} {total}, ptr {pointer}, align {node.dtype.itemsize}")
