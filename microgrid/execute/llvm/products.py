"""Matrix products as LLVM IR: a recurrent network's weights are packed once a run, and read at every timestep.

The blocking is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a tile
of the result stays in registers, the panel of B that it needs in the first cache. No function keeps anything
between calls, so several threads may compute parts of one result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

DEPTH = 512
"""Longest stretch of the summed axis that is swept at once: a panel of so many rows fits the first cache."""

STRETCH = 256

HEIGHT = 64
"""Rows of A that are swept at once: so many of that depth fit the second cache."""

UNPACKED = 1 << 14
"""Up to so many numbers of A are read where they stand when it is transposed: they fit the first cache."""

APART = 4
"""Columns by which strips of A stand further apart than they are long: a power of two would crowd one part of a cache."""

PENDING = 8
"""Sums that a core adds to at the same time, as each addition waits for the one before it to the same sum."""

SUFFIX = {"float": "_f32", "double": "_f64"}


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a result that is kept in registers while it is summed, in numbers."""

    rows: int
    columns: int


def tile(lanes: int, registers: int) -> Tile:
    """The tile for a CPU: three vectors wide, and as high as leaves registers for a row of B and a number of A."""
    return Tile(8 if registers >= 32 else 4, 3 * lanes)


def packed_size(k: int, n: int, lanes: int, registers: int) -> int:
    """How many numbers a packed matrix of k × n takes."""
    columns = tile(lanes, registers).columns
    return k * -(-n // columns) * columns


def contract_scratch(k: int, n: int, lanes: int, registers: int) -> int:
    """How many numbers `mg_contract` needs beside its arguments, for a result of k × n."""
    t = tile(lanes, registers)
    return (STRETCH + APART) * -(-k // t.rows) * t.rows + STRETCH * t.columns


def source(dtype: str, lanes: int, registers: int) -> str:
    """The IR of a module of products.

    Parameters
    ----------
    dtype : "float" or "double"
    lanes : int
        Numbers in a vector register, a power of two.
    registers : int
        Vector registers that the CPU has.
    """
    return Products(dtype, lanes, tile(lanes, registers)).source()


# --- writing IR ----------------------------------------------------------------------------------------


class Value(NamedTuple):
    """A value in SSA form; as text, an operand with its type."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


Index = Value | int


def index(x: Index) -> Value:
    return x if isinstance(x, Value) else Value("i64", str(x))


class Function:
    """One function as it is written: its methods append instructions and return what these compute."""

    def __init__(self, signature: str, number: str, lanes: int) -> None:
        self.number = number
        self.bytes = 4 if number == "float" else 8
        self.lanes = lanes
        self.vector = f"<{lanes} x {number}>"
        self.zero = Value(self.vector, "zeroinitializer")
        self.arguments = [Value(*found) for found in re.findall(r"[(,] *(\w+)[^,]*? (%\w+)", signature)]
        self.lines = [f"define {signature} {{", "entry:"]
        self.block = "%entry"
        self.count = 0

    def text(self, result: Value | str = "void") -> str:
        return "\n".join([*self.lines, f"  ret {result}", "}", ""])

    def name(self) -> str:
        self.count += 1
        return f"%x{self.count}"

    def do(self, instruction: str) -> None:
        self.lines.append(f"  {instruction}")

    def value(self, type: str, instruction: str) -> Value:
        found = Value(type, self.name())
        self.do(f"{found.name} = {instruction}")
        return found

    def call(self, function: str, *arguments: Index) -> None:
        self.do(f"call void {function}({', '.join(str(index(x)) for x in arguments)})")

    # whole numbers

    def add(self, x: Index, y: Index) -> Value:
        return index(x) if y == 0 else self.value("i64", f"add nsw {index(x)}, {index(y).name}")

    def subtract(self, x: Index, y: Index) -> Value:
        return self.value("i64", f"sub nsw {index(x)}, {index(y).name}")

    def multiply(self, x: Index, y: int | Value) -> Value:
        return index(x) if y == 1 else self.value("i64", f"mul nsw {index(x)}, {index(y).name}")

    def smaller(self, x: Index, y: Index) -> Value:
        return self.value("i64", f"call i64 @llvm.smin.i64({index(x)}, {index(y)})")

    def floor(self, x: Value, step: int) -> Value:
        """The largest multiple of the step, a power of two, that is not above x."""
        return x if step == 1 else self.value("i64", f"and {x}, {-step}")

    def compare(self, relation: str, x: Index, y: Index) -> Value:
        return self.value("i1", f"icmp {relation} {index(x)}, {index(y).name}")

    def both(self, x: Value, y: Value) -> Value:
        return self.value("i1", f"and {x}, {y.name}")

    def select(self, condition: Value, x: Index, y: Index) -> Value:
        return self.value(index(x).type, f"select {condition}, {index(x)}, {index(y)}")

    # memory

    def at(self, pointer: Value, offset: Index) -> Value:
        """The address so many numbers behind another."""
        if offset == 0:
            return pointer
        return self.value("ptr", f"getelementptr inbounds {self.number}, {pointer}, {index(offset)}")

    def each(self, pointer: Value, stride: Index, count: int) -> list[Value]:
        """Addresses one stride apart, from this one on."""
        found = [pointer]
        while len(found) < count:
            found.append(self.at(found[-1], stride))
        return found

    def load(self, pointer: Value, type: str = "") -> Value:
        type = type or self.vector
        return self.value(type, f"load {type}, {pointer}, align {self.bytes}")

    def load_number(self, pointer: Value) -> Value:
        return self.load(pointer, self.number)

    def load_first(self, pointer: Value, mask: Value) -> Value:
        """A vector of which only the lanes of a mask are read; the others are 0."""
        return self.value(
            self.vector,
            f"call {self.vector} @llvm.masked.load.{self.overload}.p0({pointer}, i32 {self.bytes}, {mask}, {self.zero})",
        )

    def store(self, x: Value, pointer: Value) -> None:
        self.do(f"store {x}, {pointer}, align {self.bytes}")

    def clear(self, pointer: Value, count: Value) -> None:
        size = self.multiply(count, self.bytes)
        self.do(f"call void @llvm.memset.p0.i64({pointer}, i8 0, {size}, i1 false)")

    def copy(self, target: Value, origin: Value, count: Value) -> None:
        size = self.multiply(count, self.bytes)
        self.do(f"call void @llvm.memcpy.p0.p0.i64({target}, {origin}, {size}, i1 false)")

    # numbers and vectors

    @property
    def overload(self) -> str:
        """What LLVM appends to the name of an intrinsic on vectors."""
        return f"v{self.lanes}{SUFFIX[self.number][1:]}"

    def splat(self, x: Value) -> Value:
        vector = f"<{self.lanes} x {x.type}>"
        first = self.value(vector, f"insertelement {vector} poison, {x}, i64 0")
        return self.value(vector, f"shufflevector {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer")

    def plus(self, x: Value, y: Value) -> Value:
        return self.value(x.type, f"fadd {x}, {y.name}")

    def multiply_add(self, x: Value, y: Value, z: Value) -> Value:
        overload = self.overload if x.type == self.vector else SUFFIX[self.number][1:]
        return self.value(x.type, f"call {x.type} @llvm.fmuladd.{overload}({x}, {y}, {z})")

    def folded(self, x: Value, y: Value, distance: int) -> Value:
        """A vector of sums of two lanes that are so far apart: of x where this bit of the lane is 0, and of y."""
        low = [i + self.lanes - distance if i & distance else i for i in range(self.lanes)]
        parts = []
        for order in (low, [i + distance for i in low]):
            mask = ", ".join(f"i32 {i}" for i in order)
            parts.append(self.value(self.vector, f"shufflevector {x}, {y}, <{self.lanes} x i32> <{mask}>"))
        return self.plus(*parts)

    def totals(self, rows: Sequence[Value]) -> Value:
        """The sums over each of as many vectors as there are lanes, as one vector."""
        for bit in range(self.lanes.bit_length() - 1):
            rows = [self.folded(x, y, 1 << bit) for x, y in zip(rows[::2], rows[1::2], strict=True)]
        return rows[0]

    def total(self, x: Value) -> Value:
        for bit in range(self.lanes.bit_length() - 1):
            x = self.folded(x, x, 1 << bit)
        return self.value(self.number, f"extractelement {x}, i64 0")

    def first_lanes(self, count: Value) -> Value:
        """The mask of so many lanes, or of all."""
        lanes = ", ".join(f"i64 {i}" for i in range(self.lanes))
        counts = self.splat(count)
        return self.value(f"<{self.lanes} x i1>", f"icmp sgt {counts}, <{lanes}>")

    # control

    def loop(
        self,
        start: Index,
        stop: Index,
        step: int,
        carried: Sequence[Value],
        body: Callable[..., Sequence[Value] | None],
    ) -> list[Value]:
        """Runs `body(index, *carried)` while the index is below a bound; the body returns what the next round carries.

        The test stands at the end of a round, as the processor's branch does.
        """
        inside, after = self.name(), self.name()
        before = self.block
        counter = Value("i64", self.name())
        inner = [Value(x.type, self.name()) for x in carried]
        self.do(f"br {self.compare('slt', start, stop)}, label {inside}, label {after}")
        self.enter(inside)
        top = len(self.lines)
        following = list(body(counter, *inner) or ())
        end = self.add(counter, step)
        self.do(f"br {self.compare('slt', end, stop)}, label {inside}, label {after}")
        self.lines[top:top] = [
            f"  {x.name} = phi {x.type} [ {first.name}, {before} ], [ {next.name}, {self.block} ]"
            for x, first, next in zip([counter, *inner], [index(start), *carried], [end, *following], strict=True)
        ]
        return self.join(after, before, carried, following)

    def when(
        self, condition: Value, body: Callable[[], Sequence[Value] | None], otherwise: Sequence[Value] = ()
    ) -> list[Value]:
        """What the body returns where the condition holds, and other values where it does not."""
        inside, after = self.name(), self.name()
        before = self.block
        self.do(f"br {condition}, label {inside}, label {after}")
        self.enter(inside)
        found = list(body() or ())
        self.do(f"br label {after}")
        return self.join(after, before, otherwise, found)

    def join(self, label: str, before: str, left: Sequence[Value], right: Sequence[Value]) -> list[Value]:
        came = self.block
        self.enter(label)
        return [
            self.value(x.type, f"phi {x.type} [ {x.name}, {before} ], [ {y.name}, {came} ]")
            for x, y in zip(left, right, strict=True)
        ]

    def enter(self, label: str) -> None:
        self.lines.append(f"{label[1:]}:")
        self.block = label


# --- the products --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Products:
    """The functions for one type of number and one CPU."""

    number: str
    lanes: int
    tile: Tile

    def source(self) -> str:
        vector, one = f"<{self.lanes} x {self.number}>", SUFFIX[self.number][1:]
        many = f"v{self.lanes}{one}"
        heights = self.heights
        return "\n".join(
            [
                "declare i64 @llvm.smin.i64(i64, i64)",
                "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
                "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
                f"declare {self.number} @llvm.fmuladd.{one}({self.number}, {self.number}, {self.number})",
                f"declare {vector} @llvm.fmuladd.{many}({vector}, {vector}, {vector})",
                f"declare {vector} @llvm.masked.load.{many}.p0(ptr, i32, <{self.lanes} x i1>, {vector})",
                f"@one = internal constant {self.number} 1.0",
                *(self.tile_product(rows, vectors) for rows in heights[:-1] for vectors in (2, 3)),
                self.tile_product(1, 3),
                self.packing_tile_product(),
                self.kept(),
                self.panel_product(),
                self.product(),
                self.panel_copy(),
                self.pack(),
                self.strips_copy(),
                self.contract(),
                self.rows_sum(),
                self.row_product(),
                self.column_sums(),
                self.dot(),
                self.row_product_transposed(),
            ]
        )

    def function(self, signature: str) -> Function:
        return Function(signature, self.number, self.lanes)

    def public(self, result: str, name: str, arguments: str) -> Function:
        return self.function(f"{result} @mg_{name}{SUFFIX[self.number]}({arguments}) nounwind")

    @property
    def heights(self) -> list[int]:
        """The rows of the tiles there are: the remainder of a full tile is not worth more than a few of them."""
        return [self.tile.rows, 4, 1] if self.tile.rows > 4 else [4, 1]

    # tiles

    def tile_product(self, rows: int, vectors: int) -> str:
        """C = or += A B for a few rows of A and the first vectors of a packed panel of B.

        Element (i, p) of A stands at a[i * a_row + p * a_step].
        """
        f = self.function(
            f"internal void @tile_{rows}x{vectors}(i64 %k, ptr noalias readonly %a, i64 %a_row, i64 %a_step, "
            "ptr noalias readonly %b, ptr noalias %c, i64 %c_row, i1 %accumulate) noinline nounwind"
        )
        k, a, a_row, a_step, b, c, c_row, accumulate = f.arguments
        results = self.tile_places(f, c, c_row, rows, vectors)
        sums = self.tile_start(f, results, accumulate)
        below = self.row_offsets(f, a_row, rows)
        sets = 1  # few sums take turns with others, which are added at the end
        while rows * vectors * sets < PENDING:
            sets *= 2

        def rounds(count: int) -> Callable[..., list[Value]]:
            def body(_: Value, a: Value, b: Value, *sums: Value) -> list[Value]:
                turns = [list(sums[i : i + len(results)]) for i in range(0, len(sums), len(results))]
                for turn in range(count):
                    row = [f.load(x) for x in f.each(b, self.lanes, vectors)]
                    turns[turn] = self.tile_step(f, a, below, row, turns[turn])
                    a, b = f.at(a, a_step), f.at(b, self.tile.columns)
                return [a, b, *(x for turn in turns for x in turn)]

            return body

        whole = f.floor(k, sets)
        carried = f.loop(0, whole, sets, [a, b, *sums, *[f.zero] * (len(sums) * (sets - 1))], rounds(sets))
        if sets > 1:
            carried = f.loop(whole, k, 1, carried, rounds(1))
        sums = carried[2:]
        while len(sums) > len(results):
            half = len(sums) // 2
            sums = [f.plus(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
        for x, place in zip(sums, results, strict=True):
            f.store(x, place)
        return f.text()

    def packing_tile_product(self) -> str:
        """The full tile's product with a panel of B that is not yet packed, and is on the way: that costs no time."""
        rows, vectors = self.tile.rows, 3
        f = self.function(
            "internal void @packing_tile(i64 %k, ptr noalias readonly %a, i64 %a_row, i64 %a_step, "
            "ptr noalias readonly %b, i64 %b_row, ptr noalias %packed, ptr noalias %c, i64 %c_row, i1 %accumulate) "
            "noinline nounwind"
        )
        k, a, a_row, a_step, b, b_row, packed, c, c_row, accumulate = f.arguments
        results = self.tile_places(f, c, c_row, rows, vectors)
        below = self.row_offsets(f, a_row, rows)

        def body(_: Value, a: Value, b: Value, packed: Value, *sums: Value) -> list[Value]:
            row = [f.load(x) for x in f.each(b, self.lanes, vectors)]
            for x, place in zip(row, f.each(packed, self.lanes, vectors), strict=True):
                f.store(x, place)
            sums_now = self.tile_step(f, a, below, row, sums)
            return [f.at(a, a_step), f.at(b, b_row), f.at(packed, self.tile.columns), *sums_now]

        carried = f.loop(0, k, 1, [a, b, packed, *self.tile_start(f, results, accumulate)], body)
        for x, place in zip(carried[3:], results, strict=True):
            f.store(x, place)
        return f.text()

    def tile_places(self, f: Function, c: Value, c_row: Value, rows: int, vectors: int) -> list[Value]:
        return [place for row in f.each(c, c_row, rows) for place in f.each(row, self.lanes, vectors)]

    def tile_start(self, f: Function, places: list[Value], accumulate: Value) -> list[Value]:
        return f.when(accumulate, lambda: [f.load(place) for place in places], [f.zero] * len(places))

    def row_offsets(self, f: Function, a_row: Value, rows: int) -> list[Index]:
        return [0, *(f.multiply(a_row, i) for i in range(1, rows))]

    def tile_step(
        self, f: Function, a: Value, below: list[Index], row: list[Value], sums: Sequence[Value]
    ) -> list[Value]:
        """The sums and the products of a column of A with a row of B."""
        found = []
        for i, offset in enumerate(below):
            x = f.splat(f.load_number(f.at(a, offset)))
            found += [f.multiply_add(x, y, sums[i * len(row) + v]) for v, y in enumerate(row)]
        return found

    # sweeps

    def kept(self) -> str:
        """Stores, or adds, the part of a tile that a result has room for."""
        f = self.function(
            "internal void @keep(i64 %rows, i64 %width, ptr noalias readonly %spare, ptr noalias %c, i64 %c_row, "
            "i1 %accumulate) noinline nounwind"
        )
        rows, width, spare, c, c_row, accumulate = f.arguments

        def row(_: Value, spare: Value, c: Value) -> list[Value]:
            f.loop(0, width, 1, [], lambda j: self.put(f, f.load_number(f.at(spare, j)), f.at(c, j), accumulate))
            return [f.at(spare, self.tile.columns), f.at(c, c_row)]

        f.loop(0, rows, 1, [spare, c], row)
        return f.text()

    def put(self, f: Function, x: Value, place: Value, accumulate: Value) -> None:
        """Stores a value, or adds it to what stands there."""
        zero = f.zero if x.type == f.vector else Value(x.type, "0.0")
        f.store(f.plus(x, *f.when(accumulate, lambda: [f.load(place, x.type)], [zero])), place)

    def panel_product(self) -> str:
        """C = or += A B for a packed panel of B, of which `width` columns are stored.

        A's next strip, of as many rows as a tile has, begins a_strip behind the one before.
        """
        full, columns = self.tile.rows, self.tile.columns
        f = self.function(
            "internal void @panel(i64 %m, i64 %width, i64 %k, ptr noalias readonly %a, i64 %a_row, i64 %a_step, "
            "i64 %a_strip, ptr noalias readonly %b, ptr noalias %c, i64 %c_row, i1 %accumulate) noinline nounwind"
        )
        m, width, k, a, a_row, a_step, a_strip, b, c, c_row, accumulate = f.arguments
        spare = f.value("ptr", f"alloca [{full * columns} x {self.number}], align 64")
        narrow = f.compare("sle", width, 2 * self.lanes)
        start: Index = 0
        for height in self.heights:
            stop = f.add(start, f.floor(f.subtract(m, start), height))
            if height > 1:
                function = f.select(narrow, *(Value("ptr", f"@tile_{height}x{vectors}") for vectors in (2, 3)))
                written = f.select(narrow, 2 * self.lanes, columns)
            else:
                function, written = Value("ptr", "@tile_1x3"), index(columns)
            ragged = f.compare("ne", width, written)
            added = f.select(ragged, Value("i1", "false"), accumulate)
            row = f.select(ragged, columns, c_row)

            def strip(_: Value, a: Value, c: Value) -> list[Value]:
                f.call(function.name, k, a, a_row, a_step, b, f.select(ragged, spare, c), row, added)
                f.when(ragged, lambda: f.call("@keep", height, width, spare, c, c_row, accumulate))
                return [
                    f.at(a, a_strip if height == full else f.multiply(a_row, height)),
                    f.at(c, f.multiply(c_row, height)),
                ]

            a, c = f.loop(start, stop, height, [a, c], strip)
            start = stop
        return f.text()

    def product(self) -> str:
        columns = self.tile.columns
        f = self.public(
            "void",
            "product",
            "i64 %m, i64 %n, i64 %k, ptr noalias readonly %a, i64 %a_row, ptr noalias readonly %packed, ptr noalias %c, "
            "i64 %c_row, i1 %accumulate",
        )
        m, n, k, a, a_row, packed, c, c_row, accumulate = f.arguments
        strip = f.multiply(a_row, self.tile.rows)
        panel_size = f.multiply(k, columns)

        def stretch(p: Value, added: Value) -> list[Value]:
            depth = f.smaller(f.subtract(k, p), DEPTH)
            part = f.at(packed, f.multiply(p, columns))

            def block(i: Value) -> None:
                height = f.smaller(f.subtract(m, i), HEIGHT)
                rows = f.at(f.at(a, f.multiply(i, a_row)), p)
                results = f.at(c, f.multiply(i, c_row))

                def panel(j: Value, b: Value) -> list[Value]:
                    width = f.smaller(f.subtract(n, j), columns)
                    f.call("@panel", height, width, depth, rows, a_row, 1, strip, b, f.at(results, j), c_row, added)
                    return [f.at(b, panel_size)]

                f.loop(0, n, columns, [part], panel)

            f.loop(0, m, HEIGHT, [], block)
            return [Value("i1", "true")]

        f.loop(0, k, DEPTH, [accumulate], stretch)
        return f.text()

    def contract(self) -> str:
        full, columns = self.tile.rows, self.tile.columns
        f = self.public(
            "void",
            "contract",
            "i64 %p, i64 %k, i64 %n, ptr noalias readonly %a, i64 %a_row, ptr noalias readonly %g, i64 %g_row, "
            "ptr noalias %c, i64 %c_row, ptr noalias %scratch",
        )
        p, k, n, a, a_row, g, g_row, c, c_row, scratch = f.arguments
        strips = f.at(scratch, STRETCH * columns)
        below = f.multiply(c_row, full)

        def stretch(start: Value, a: Value, g: Value, added: Value) -> list[Value]:
            depth = f.smaller(f.subtract(p, start), STRETCH)
            large = f.compare("sgt", f.multiply(depth, k), UNPACKED)
            f.when(large, lambda: f.call("@copy_strips", a, a_row, depth, k, strips))
            here = f.select(large, strips, a)
            step = f.select(large, full, a_row)
            strip = f.select(large, f.multiply(f.add(depth, APART), full), full)
            is_high = f.compare("sge", k, full)

            def panel(j: Value) -> None:
                width = f.smaller(f.subtract(n, j), columns)
                origin, result = f.at(g, j), f.at(c, j)

                def first_strip() -> list[Value]:
                    f.call("@packing_tile", depth, here, 1, step, origin, g_row, scratch, result, c_row, added)
                    return [f.subtract(k, full), f.at(here, strip), f.at(result, below)]

                on_the_way = f.both(is_high, f.compare("eq", width, columns))
                rows, left, result = f.when(on_the_way, first_strip, [k, here, result])
                before = f.value("i1", f"xor {on_the_way}, true")
                f.when(before, lambda: f.call("@copy_panel", origin, g_row, depth, width, scratch))
                f.call("@panel", rows, width, depth, left, 1, step, strip, scratch, result, c_row, added)

            f.loop(0, n, columns, [], panel)
            return [f.at(a, f.multiply(a_row, STRETCH)), f.at(g, f.multiply(g_row, STRETCH)), Value("i1", "true")]

        f.loop(0, p, STRETCH, [a, g, Value("i1", "false")], stretch)
        return f.text()

    # packing

    def panel_copy(self) -> str:
        """Copies up to a panel's columns of a matrix of rows; those that lack are 0."""
        columns = self.tile.columns
        f = self.function(
            "internal void @copy_panel(ptr noalias readonly %b, i64 %b_row, i64 %k, i64 %width, ptr noalias %packed) "
            "noinline nounwind"
        )
        b, b_row, k, width, packed = f.arguments

        def row(_: Value, b: Value, packed: Value) -> list[Value]:
            f.store(f.load(b, f"<{columns} x {self.number}>"), packed)
            return [f.at(b, b_row), f.at(packed, columns)]

        def part(_: Value, b: Value, packed: Value) -> list[Value]:
            f.copy(packed, b, width)
            return [f.at(b, b_row), f.at(packed, columns)]

        def padded() -> None:
            f.clear(packed, f.multiply(k, columns))
            f.loop(0, k, 1, [b, packed], part)

        whole = f.compare("eq", width, columns)
        f.when(whole, lambda: f.loop(0, k, 1, [b, packed], row) and None)
        f.when(f.value("i1", f"xor {whole}, true"), padded)
        return f.text()

    def pack(self) -> str:
        columns, line = self.tile.columns, 16  # numbers of a column that lie in one line of a cache
        f = self.public(
            "void",
            "pack",
            "ptr noalias readonly %b, i64 %row_stride, i64 %column_stride, i64 %k, i64 %n, ptr noalias %packed",
        )
        b, row_stride, column_stride, k, n, packed = f.arguments
        is_rows = f.compare("eq", column_stride, 1)
        size = f.multiply(k, columns)

        def panel(j: Value, b: Value, packed: Value) -> list[Value]:
            width = f.smaller(f.subtract(n, j), columns)

            def turned() -> None:
                f.when(f.compare("slt", width, columns), lambda: f.clear(packed, size))
                f.loop(0, k, line, [b, packed], rows)

            def rows(p: Value, b: Value, packed: Value) -> list[Value]:
                count = f.smaller(f.subtract(k, p), line)

                def column(_: Value, b: Value, packed: Value) -> list[Value]:
                    f.loop(0, count, 1, [b, packed], number)
                    return [f.at(b, column_stride), f.at(packed, 1)]

                f.loop(0, width, 1, [b, packed], column)
                return [f.at(b, f.multiply(row_stride, line)), f.at(packed, columns * line)]

            def number(_: Value, b: Value, packed: Value) -> list[Value]:
                f.store(f.load_number(b), packed)
                return [f.at(b, row_stride), f.at(packed, columns)]

            f.when(is_rows, lambda: f.call("@copy_panel", b, row_stride, k, width, packed))
            f.when(f.value("i1", f"xor {is_rows}, true"), turned)
            return [f.at(b, f.multiply(column_stride, columns)), f.at(packed, size)]

        f.loop(0, n, columns, [b, packed], panel)
        return f.text()

    def strips_copy(self) -> str:
        """Copies a matrix, transposed, into strips of as many rows as a tile has."""
        full = self.tile.rows
        f = self.function(
            "internal void @copy_strips(ptr noalias readonly %a, i64 %a_row, i64 %depth, i64 %k, ptr noalias %strips) "
            "noinline nounwind"
        )
        a, a_row, depth, k, strips = f.arguments
        whole = f.floor(k, full)
        rest = f.subtract(k, whole)
        strip_size = f.multiply(f.add(depth, APART), full)

        def row(_: Value, a: Value, strips: Value) -> list[Value]:
            def piece(_: Value, origin: Value, target: Value) -> list[Value]:
                f.store(f.load(origin, f"<{full} x {self.number}>"), target)
                return [f.at(origin, full), f.at(target, strip_size)]

            origin, target = f.loop(0, whole, full, [a, strips], piece)
            f.when(f.compare("ne", rest, 0), lambda: f.copy(target, origin, rest))
            return [f.at(a, a_row), f.at(strips, full)]

        f.loop(0, depth, 1, [a, strips], row)
        return f.text()

    # one row

    def rows_sum(self) -> str:
        """c += a B for a row of numbers, a_step apart, and a matrix of rows."""
        f = self.function(
            "internal void @add_rows(i64 %n, i64 %k, ptr noalias readonly %a, i64 %a_step, ptr noalias readonly %b, "
            "i64 %b_row, ptr noalias %c) noinline nounwind"
        )
        n, k, a, a_step, b, b_row, c = f.arguments
        whole = f.floor(n, self.lanes)

        def rows(count: int) -> Callable[..., list[Value]]:
            def body(_: Value, a: Value, b: Value) -> list[Value]:
                weights = [f.load_number(x) for x in f.each(a, a_step, count)]
                many = [f.splat(x) for x in weights]
                places = f.each(b, b_row, count)

                def columns(weights: list[Value]) -> Callable[[Value], None]:
                    def column(j: Value) -> None:
                        total = f.load(f.at(c, j), weights[0].type)
                        for x, place in zip(weights, places, strict=True):
                            total = f.multiply_add(x, f.load(f.at(place, j), x.type), total)
                        f.store(total, f.at(c, j))

                    return column

                f.loop(0, whole, self.lanes, [], columns(many))
                f.loop(whole, n, 1, [], columns(weights))
                return [f.at(a, f.multiply(a_step, count)), f.at(b, f.multiply(b_row, count))]

            return body

        together = f.floor(k, 4)
        carried = f.loop(0, together, 4, [a, b], rows(4))
        f.loop(together, k, 1, carried, rows(1))
        return f.text()

    def row_product(self) -> str:
        f = self.public(
            "void",
            "row_product",
            "i64 %n, i64 %k, ptr noalias readonly %a, ptr noalias readonly %b, i64 %b_row, ptr noalias %c, i1 %accumulate",
        )
        n, k, a, b, b_row, c, accumulate = f.arguments
        f.when(f.value("i1", f"xor {accumulate}, true"), lambda: f.clear(c, n))
        f.call("@add_rows", n, k, a, 1, b, b_row, c)
        return f.text()

    def column_sums(self) -> str:
        f = self.public("void", "column_sums", "i64 %p, i64 %n, ptr noalias readonly %g, i64 %g_row, ptr noalias %c")
        p, n, g, g_row, c = f.arguments
        f.clear(c, n)
        f.call("@add_rows", n, p, Value("ptr", "@one"), 0, g, g_row, c)
        return f.text()

    def dot(self) -> str:
        f = self.public(self.number, "dot", "i64 %n, ptr noalias readonly %a, ptr noalias readonly %b")
        n, a, b = f.arguments
        count = 4

        def several(p: Value, *sums: Value) -> list[Value]:
            left, right = (f.each(f.at(x, p), self.lanes, count) for x in (a, b))
            return [f.multiply_add(f.load(x), f.load(y), s) for x, y, s in zip(left, right, sums, strict=True)]

        def rest(p: Value, total: Value) -> list[Value]:
            mask = f.first_lanes(f.subtract(n, p))
            x, y = (f.load_first(f.at(x, p), mask) for x in (a, b))
            return [f.multiply_add(x, y, total)]

        whole = f.floor(n, count * self.lanes)
        s = f.loop(0, whole, count * self.lanes, [f.zero] * count, several)
        total = f.plus(f.plus(s[0], s[1]), f.plus(s[2], s[3]))
        return f.text(f.total(*f.loop(whole, n, self.lanes, [total], rest)))

    def row_product_transposed(self) -> str:
        f = self.public(
            "void",
            "row_product_transposed",
            "i64 %n, i64 %k, ptr noalias readonly %a, ptr noalias readonly %b, i64 %b_row, ptr noalias %c, i1 %accumulate",
        )
        n, k, a, b, b_row, c, accumulate = f.arguments
        whole, stop = f.floor(k, self.lanes), f.floor(n, self.lanes)
        mask = f.first_lanes(f.subtract(k, whole))

        def several(j: Value, b: Value) -> list[Value]:
            rows = f.each(b, b_row, self.lanes)

            def piece(load: Callable[[Value], Value]) -> Callable[..., list[Value]]:
                def body(p: Value, *sums: Value) -> list[Value]:
                    x = load(f.at(a, p))
                    return [f.multiply_add(x, load(f.at(row, p)), s) for row, s in zip(rows, sums, strict=True)]

                return body

            sums = f.loop(0, whole, self.lanes, [f.zero] * self.lanes, piece(f.load))
            sums = f.loop(whole, k, self.lanes, sums, piece(lambda place: f.load_first(place, mask)))
            self.put(f, f.totals(sums), f.at(c, j), accumulate)
            return [f.at(b, f.multiply(b_row, self.lanes))]

        def one(j: Value, b: Value) -> list[Value]:
            dot = f.value(self.number, f"call {self.number} @mg_dot{SUFFIX[self.number]}({k}, {a}, {b})")
            self.put(f, dot, f.at(c, j), accumulate)
            return [f.at(b, b_row)]

        carried = f.loop(0, stop, self.lanes, [b], several)
        f.loop(stop, n, 1, carried, one)
        return f.text()
