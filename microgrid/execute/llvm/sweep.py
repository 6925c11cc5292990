"""One sweep over the pieces of a row as LLVM IR: vectors from memory, through scalar expressions, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.execute.llvm import functions
from microgrid.execute.llvm.elements import TYPES, Value, as_hex
from microgrid.execute.llvm.kernels import Group
from microgrid.execute.llvm.roles import Element, Fold, Move, Read, row_size
from microgrid.execute.llvm.storage import hands_over
from microgrid.tensor import Tensor

if TYPE_CHECKING:
    from microgrid.execute.llvm.emit import Emitter

INSTRUCTIONS = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
COMPARISONS = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
FIRST = {"add": 0.0, "maximum": -math.inf}
"""What a fold begins with."""
ELEMENTARY = ("tanh", "sigmoid", "exp", "log", "log1p", "expm1")


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
        self.sums = [node for node in group.nodes if isinstance(self.kernel.roles[node], Fold)]
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
            assert isinstance(role, Fold)
            kind = TYPES[node.dtype]
            wide = self.type_of(node.dtype, self.lanes)
            found = []
            for _ in range(role.size // role.length):
                pair = f.variable(wide), f.variable(kind)
                first = as_hex(FIRST[role.op], node.dtype)
                f.do(f"store {wide} {f'splat ({kind} {first})' if self.lanes > 1 else first}, ptr {pair[0]}")
                f.do(f"store {kind} {first}, ptr {pair[1]}")
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
            if isinstance(role, Fold):
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
            return self.larger("ogt" if op == "maximum" else "olt", x.dtype, given[0], given[1])
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

    def add_to_sum(self, node: Tensor, role: Fold) -> None:
        f = self.f
        kind = self.type_of(node.dtype, self.now)
        for piece in range(role.size // self.group.width):
            variable = self.sum_variables[node][piece * self.group.width // role.length] if self.sum_variables else None
            value = self.read(role.read, node, piece, self.group.width)
            if variable is not None:
                place = variable[0] if self.now > 1 else variable[1]
                before = f.let(f"load {kind}, ptr {place}")
                f.do(f"store {kind} {self.folded(role.op, node.dtype, before, value)}, ptr {place}")

    def folded(self, op: str, dtype: np.dtype[Any], x: str, y: str) -> str:
        """The sum, or the larger, of two values."""
        kind = self.type_of(dtype, self.now)
        return self.f.let(f"fadd {kind} {x}, {y}") if op == "add" else self.larger("ogt", dtype, x, y)

    def larger(self, relation: str, dtype: np.dtype[Any], x: str, y: str) -> str:
        """The one of two values that stands in such a relation to the other; a nan if either is."""
        f, kind, truths = self.f, self.type_of(dtype, self.now), self.type_of(np.dtype(np.bool_), self.now)
        better = f.let(f"fcmp {relation} {kind} {x}, {y}")
        chosen = f.let(f"select {truths} {better}, {kind} {x}, {kind} {y}")
        unknown = f.let(f"fcmp uno {kind} {x}, {x}")
        return f.let(f"select {truths} {unknown}, {kind} {x}, {kind} {chosen}")

    def over_lanes(self, op: str, dtype: np.dtype[Any], total: str, vector: str) -> str:
        """A number and all lanes of a vector, folded."""
        f, kind, wide = self.f, TYPES[dtype], self.type_of(dtype, self.lanes)
        lanes = f.let(f"load {wide}, ptr {vector}")
        if op == "add":
            symbol = f"@llvm.vector.reduce.fadd.v{self.lanes}f{8 * dtype.itemsize}"
            self.e.declares.add(f"declare {kind} {symbol}({kind}, {wide})")
            return f.let(f"call reassoc {kind} {symbol}({kind} {total}, {wide} {lanes})")
        self.now = 1
        for lane in range(self.lanes):
            total = self.folded(op, dtype, total, f.let(f"extractelement {wide} {lanes}, i64 {lane}"))
        return total

    def finish_sums(self) -> None:
        f = self.f
        for node in self.sums:
            role = self.kernel.roles[node]
            assert isinstance(role, Fold)
            kind = TYPES[node.dtype]
            for place, (vector, scalar) in enumerate(self.sum_variables[node]):
                total = f.let(f"load {kind}, ptr {scalar}")
                if self.lanes > 1:
                    total = self.over_lanes(role.op, node.dtype, total, vector)
                if row_size(node, self.kernel.rows) == 1:
                    self.e.numbers[node] = total
                if node in self.e.stored:
                    pointer = f.at(self.e.pointer(node), place, kind)
                    f.do(f"store {kind} {total}, ptr {pointer}, align {node.dtype.itemsize}")
