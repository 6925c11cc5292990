"""Matrix products as LLVM IR: a recurrent network's weights are packed once a run, and read at every timestep.

The blocking is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a tile of
the result stays in registers, the panel of B that it needs in a near cache. Nothing is kept between calls, so several
threads may compute parts of one result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from microgrid.execute.llvm.ssa import SUFFIX, Body, Function, Index, Value, flag

DEPTH = 512
"""Longest stretch of the summed axis that a product sweeps at once: a packed panel streams from the second cache."""

STRETCH = 256
"""The same for a contraction, which packs its panels itself: what it has packed is still in the first cache."""

HEIGHT = 64
"""Rows of A that are swept at once: so many of that depth fit the second cache."""

UNPACKED = 1 << 14
"""A contraction reads its A where it stands if a stretch of it has no more numbers than this."""

APART = 4
"""Columns by which packed strips of A are further apart than long: distances of a power of two crowd one cache set."""

AHEAD = 16
"""How many rows ahead a matrix that is not packed is fetched: from the third cache takes longer than a few rows."""

PENDING = 8
"""Sums that a core adds to at the same time: an addition has to wait for the one before it to the same sum."""

LINE = 16
"""Numbers in a line of a cache; of doubles, in two."""


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
    """The IR of a module of products; it is quickest where packed matrices and scratch begin at a multiple of 64 bytes.

    Parameters
    ----------
    dtype : "float" or "double"
    lanes : int
        Numbers in a vector register, a power of two.
    registers : int
        Vector registers that the CPU has.
    """
    return Products(dtype, lanes, tile(lanes, registers)).source()


@dataclass(frozen=True, slots=True)
class Products:
    """The functions for one type of number and one CPU."""

    number: str
    lanes: int
    tile: Tile

    def source(self) -> str:
        vector, number = f"<{self.lanes} x {self.number}>", self.number
        one, many = SUFFIX[number][1:], f"v{self.lanes}{SUFFIX[number][1:]}"
        return "\n".join(
            [
                "declare i64 @llvm.smin.i64(i64, i64)",
                "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
                "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
                "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
                f"declare {number} @llvm.fmuladd.{one}({number}, {number}, {number})",
                f"declare {vector} @llvm.fmuladd.{many}({vector}, {vector}, {vector})",
                f"declare {vector} @llvm.masked.load.{many}.p0(ptr, i32, <{self.lanes} x i1>, {vector})",
                f"@one = internal constant {number} 1.0",
                *(self.tile_product(rows, vectors) for rows in self.heights for vectors in self.widths(rows)),
                self.packing_tile_product(),
                self.part_of_a_tile(),
                self.panel_product(),
                self.product(),
                self.contract(),
                self.pack(),
                self.panel_copy(),
                self.strips_copy(),
                self.rows_sum(),
                self.row_product(),
                self.column_sums(),
                self.dot(),
                self.row_product_transposed(),
            ]
        )

    def function(self, signature: str) -> Function:
        return Function(signature, self.number, self.lanes)

    def external(self, name: str, arguments: str, result: str = "void") -> Function:
        return self.function(f"{result} @mg_{name}{SUFFIX[self.number]}({arguments})")

    # tiles

    @property
    def heights(self) -> list[int]:
        """The rows of the tiles there are: fewer than four have no tile for each number of them."""
        return [self.tile.rows, 4, 1] if self.tile.rows > 4 else [4, 1]

    def widths(self, rows: int) -> list[int]:
        """The vectors in a row of tiles of that height: narrower ones would take as long, waiting for sums."""
        return [2, 3] if 2 * rows >= PENDING else [3]

    def tile_product(self, rows: int, vectors: int) -> str:
        """C = or += A B for a few rows of A and the first vectors of a packed panel of B.

        Element (i, p) of A stands at a[i * a_row + p * a_step].
        """
        f = self.function(
            f"internal void @tile_{rows}x{vectors}(i64 %k, ptr noalias readonly %a, i64 %a_row, i64 %a_step, "
            "ptr noalias readonly %b, ptr noalias %c, i64 %c_row, i1 %accumulate)"
        )
        k, a, a_row, a_step, b, c, c_row, accumulate = f.arguments
        lines = f.each(c, c_row, rows)
        for line in lines:
            f.prefetch(line, vectors * self.lanes, is_written=True)
        offsets = self.row_offsets(f, a_row, rows)
        sums = rows * vectors
        sets = 1  # few sums take turns with others, which are added to them at the end
        while sums * sets < PENDING:
            sets *= 2

        def rounds(count: int) -> Body:
            def body(_: Value, a: Value, b: Value, *before: Value) -> list[Value]:
                after = list(before)
                for first in range(0, count * sums, sums):
                    row = [f.load(x) for x in f.each(b, self.lanes, vectors)]
                    after[first : first + sums] = self.step(f, a, offsets, row, before[first : first + sums])
                    a, b = f.at(a, a_step), f.at(b, self.tile.columns)
                return [a, b, *after]

            return body

        whole = f.floor(k, sets)
        carried = f.loop(0, whole, sets, [a, b, *[f.zero] * (sums * sets)], rounds(sets))
        if sets > 1:
            carried = f.loop(whole, k, 1, carried, rounds(1))
        found = carried[2:]
        while len(found) > sums:
            half = len(found) // 2
            found = [f.plus(x, y) for x, y in zip(found[:half], found[half:], strict=True)]
        self.put_all(f, found, [place for line in lines for place in f.each(line, self.lanes, vectors)], accumulate)
        return f.text()

    def packing_tile_product(self) -> str:
        """The same for a full tile and a panel of B that is packed on the way, which takes no time of its own."""
        f = self.function(
            "internal void @packing_tile(i64 %k, ptr noalias readonly %a, i64 %a_row, i64 %a_step, "
            "ptr noalias readonly %b, i64 %b_row, ptr noalias %packed, ptr noalias %c, i64 %c_row, i1 %accumulate)"
        )
        k, a, a_row, a_step, b, b_row, packed, c, c_row, accumulate = f.arguments
        lines = f.each(c, c_row, self.tile.rows)
        for line in lines:
            f.prefetch(line, self.tile.columns, is_written=True)
        offsets = self.row_offsets(f, a_row, self.tile.rows)
        far = f.multiply(b_row, AHEAD)

        def body(_: Value, a: Value, b: Value, packed: Value, *sums: Value) -> list[Value]:
            f.prefetch(f.at(b, far), self.tile.columns, is_written=False)
            row = [f.load(x) for x in f.each(b, self.lanes, 3)]
            for x, place in zip(row, f.each(packed, self.lanes, 3), strict=True):
                f.store(x, place)
            after = self.step(f, a, offsets, row, sums)
            return [f.at(a, a_step), f.at(b, b_row), f.at(packed, self.tile.columns), *after]

        found = f.loop(0, k, 1, [a, b, packed, *[f.zero] * (3 * self.tile.rows)], body)[3:]
        self.put_all(f, found, [place for line in lines for place in f.each(line, self.lanes, 3)], accumulate)
        return f.text()

    def row_offsets(self, f: Function, a_row: Value, rows: int) -> list[Index]:
        return [0, *(f.multiply(a_row, i) for i in range(1, rows))]

    def step(self, f: Function, a: Value, offsets: list[Index], row: list[Value], sums: Sequence[Value]) -> list[Value]:
        """A tile's sums, to which the products of a column of A with a row of B are added."""
        found = []
        for i, offset in enumerate(offsets):
            x = f.splat(f.load_number(f.at(a, offset)))
            found += [f.multiply_add(x, y, sums[i * len(row) + j]) for j, y in enumerate(row)]
        return found

    def put_all(self, f: Function, xs: Sequence[Value], places: Sequence[Value], accumulate: Value) -> None:
        """Stores values, or adds them to what stands there."""
        pairs = list(zip(xs, places, strict=True))
        results = f.choose(accumulate, lambda: [f.plus(x, f.load(place, x.type)) for x, place in pairs], lambda: xs)
        for x, place in zip(results, places, strict=True):
            f.store(x, place)

    def part_of_a_tile(self) -> str:
        """Puts that part of a tile where it belongs that the result has room for."""
        f = self.function(
            "internal void @put_part(i64 %rows, i64 %width, ptr noalias readonly %spare, ptr noalias %c, i64 %c_row, "
            "i1 %accumulate)"
        )
        rows, width, spare, c, c_row, accumulate = f.arguments

        def row(_: Value, spare: Value, c: Value) -> list[Value]:
            def number(j: Value) -> None:
                self.put_all(f, [f.load_number(f.at(spare, j))], [f.at(c, j)], accumulate)

            f.loop(0, width, 1, [], number)
            return [f.at(spare, self.tile.columns), f.at(c, c_row)]

        f.loop(0, rows, 1, [spare, c], row)
        return f.text()

    # sweeps

    def panel_product(self) -> str:
        """C = or += A B for a packed panel of B, of which `width` columns are stored.

        A's next strip, of as many rows as a tile has, begins a_strip behind the one before.
        """
        full, columns = self.tile.rows, self.tile.columns
        f = self.function(
            "internal void @panel_product(i64 %m, i64 %width, i64 %k, ptr noalias readonly %a, i64 %a_row, "
            "i64 %a_step, i64 %a_strip, ptr noalias readonly %b, ptr noalias %c, i64 %c_row, i1 %accumulate)"
        )
        m, width, k, a, a_row, a_step, a_strip, b, c, c_row, accumulate = f.arguments
        spare = f.value("ptr", f"alloca [{full * columns} x {self.number}], align 64")
        is_narrow = f.compare("sle", width, 2 * self.lanes)
        start: Index = 0
        for height in self.heights:
            stop = f.add(start, f.floor(f.subtract(m, start), height))
            tiles = [Value("ptr", f"@tile_{height}x{vectors}") for vectors in self.widths(height)]
            function = f.select(is_narrow, tiles[0], tiles[-1])
            is_part = f.compare("ne", width, f.select(is_narrow, self.widths(height)[0] * self.lanes, columns))

            def strip(
                _: Value, a: Value, c: Value, height: int = height, tile: str = function.name, is_part: Value = is_part
            ) -> list[Value]:
                def part() -> None:
                    f.call(tile, k, a, a_row, a_step, b, spare, columns, flag(False))
                    f.call("@put_part", height, width, spare, c, c_row, accumulate)

                f.choose(is_part, part, lambda: f.call(tile, k, a, a_row, a_step, b, c, c_row, accumulate))
                below = a_strip if height == full else f.multiply(a_row, height)
                return [f.at(a, below), f.at(c, f.multiply(c_row, height))]

            a, c = f.loop(start, stop, height, [a, c], strip)
            start = stop
        return f.text()

    def product(self) -> str:
        f = self.external(
            "product",
            "i64 %m, i64 %n, i64 %k, ptr noalias readonly %a, i64 %a_row, ptr noalias readonly %packed, "
            "ptr noalias %c, i64 %c_row, i1 %accumulate",
        )
        m, n, k, a, a_row, packed, c, c_row, accumulate = f.arguments
        columns = self.tile.columns
        a_strip, panel_size = f.multiply(a_row, self.tile.rows), f.multiply(k, columns)

        def stretch(p: Value, accumulate: Value) -> list[Value]:
            depth = f.smaller(f.subtract(k, p), DEPTH)
            first = f.at(packed, f.multiply(p, columns))

            def block(i: Value) -> None:
                height = f.smaller(f.subtract(m, i), HEIGHT)
                left, result = f.at(f.at(a, f.multiply(i, a_row)), p), f.at(c, f.multiply(i, c_row))

                def panel(j: Value, b: Value, c: Value) -> list[Value]:
                    width = f.smaller(f.subtract(n, j), columns)
                    f.call("@panel_product", height, width, depth, left, a_row, 1, a_strip, b, c, c_row, accumulate)
                    return [f.at(b, panel_size), f.at(c, columns)]

                f.loop(0, n, columns, [first, result], panel)

            f.loop(0, m, HEIGHT, [], block)
            return [flag(True)]

        f.loop(0, k, DEPTH, [accumulate], stretch)
        return f.text()

    def contract(self) -> str:
        f = self.external(
            "contract",
            "i64 %p, i64 %k, i64 %n, ptr noalias readonly %a, i64 %a_row, ptr noalias readonly %g, i64 %g_row, "
            "ptr noalias %c, i64 %c_row, ptr noalias %scratch",
        )
        p, k, n, a, a_row, g, g_row, c, c_row, scratch = f.arguments
        full, columns = self.tile.rows, self.tile.columns
        strips = f.at(scratch, STRETCH * columns)
        has_strips = f.compare("sge", k, full)
        below = f.multiply(c_row, full)

        def stretch(start: Value, a: Value, g: Value, accumulate: Value) -> list[Value]:
            depth = f.smaller(f.subtract(p, start), STRETCH)
            is_large = f.compare("sgt", f.multiply(depth, k), UNPACKED)
            f.choose(is_large, lambda: f.call("@copy_strips", a, a_row, depth, k, strips))
            left = f.select(is_large, strips, a)
            step = f.select(is_large, full, a_row)
            strip = f.select(is_large, f.multiply(f.add(depth, APART), full), full)

            def panel(j: Value, g: Value, c: Value) -> list[Value]:
                width = f.smaller(f.subtract(n, j), columns)

                def first_strip() -> list[Value]:
                    f.call("@packing_tile", depth, left, 1, step, g, g_row, scratch, c, c_row, accumulate)
                    return [f.subtract(k, full), f.at(left, strip), f.at(c, below)]

                def no_strip() -> list[Value]:
                    f.call("@copy_panel", g, g_row, depth, width, scratch)
                    return [k, left, c]

                is_whole = f.both(has_strips, f.compare("eq", width, columns))
                rows, rest, result = f.choose(is_whole, first_strip, no_strip)
                f.call("@panel_product", rows, width, depth, rest, 1, step, strip, scratch, result, c_row, accumulate)
                return [f.at(g, columns), f.at(c, columns)]

            f.loop(0, n, columns, [g, c], panel)
            return [f.at(a, f.multiply(a_row, STRETCH)), f.at(g, f.multiply(g_row, STRETCH)), flag(True)]

        f.loop(0, p, STRETCH, [a, g, flag(False)], stretch)
        return f.text()

    # packing

    def pack(self) -> str:
        f = self.external(
            "pack",
            "ptr noalias readonly %b, i64 %row_stride, i64 %column_stride, i64 %k, i64 %n, ptr noalias %packed",
        )
        b, row_stride, column_stride, k, n, packed = f.arguments
        columns = self.tile.columns
        is_of_rows = f.compare("eq", column_stride, 1)
        size = f.multiply(k, columns)

        def panel(j: Value, b: Value, packed: Value) -> list[Value]:
            width = f.smaller(f.subtract(n, j), columns)

            def turned() -> None:
                f.choose(f.compare("slt", width, columns), lambda: f.clear(packed, size))
                f.loop(0, k, LINE, [b, packed], lines)

            def lines(p: Value, b: Value, packed: Value) -> list[Value]:
                count = f.smaller(f.subtract(k, p), LINE)

                def line(_: Value, b: Value, packed: Value) -> list[Value]:
                    f.loop(0, count, 1, [b, packed], number)
                    return [f.at(b, column_stride), f.at(packed, 1)]

                f.loop(0, width, 1, [b, packed], line)
                return [f.at(b, f.multiply(row_stride, LINE)), f.at(packed, LINE * columns)]

            def number(_: Value, b: Value, packed: Value) -> list[Value]:
                f.store(f.load_number(b), packed)
                return [f.at(b, row_stride), f.at(packed, columns)]

            f.choose(is_of_rows, lambda: f.call("@copy_panel", b, row_stride, k, width, packed), turned)
            return [f.at(b, f.multiply(column_stride, columns)), f.at(packed, size)]

        f.loop(0, n, columns, [b, packed], panel)
        return f.text()

    def panel_copy(self) -> str:
        """Copies up to a panel's columns of a matrix of rows; those that lack are 0."""
        f = self.function(
            "internal void @copy_panel(ptr noalias readonly %b, i64 %b_row, i64 %k, i64 %width, ptr noalias %packed)"
        )
        b, b_row, k, width, packed = f.arguments
        columns = self.tile.columns

        def row(_: Value, b: Value, packed: Value) -> list[Value]:
            f.store(f.load(b, f"<{columns} x {self.number}>"), packed)
            return [f.at(b, b_row), f.at(packed, columns)]

        def part(_: Value, b: Value, packed: Value) -> list[Value]:
            f.copy(packed, b, width)
            return [f.at(b, b_row), f.at(packed, columns)]

        def parts() -> None:
            f.clear(packed, f.multiply(k, columns))
            f.loop(0, k, 1, [b, packed], part)

        def rows() -> None:
            f.loop(0, k, 1, [b, packed], row)

        f.choose(f.compare("eq", width, columns), rows, parts)
        return f.text()

    def strips_copy(self) -> str:
        """Copies a matrix, transposed, into strips of as many rows as a tile has."""
        f = self.function(
            "internal void @copy_strips(ptr noalias readonly %a, i64 %a_row, i64 %depth, i64 %k, ptr noalias %strips)"
        )
        a, a_row, depth, k, strips = f.arguments
        full = self.tile.rows
        whole = f.floor(k, full)
        rest = f.subtract(k, whole)
        size = f.multiply(f.add(depth, APART), full)

        def column(_: Value, a: Value, strips: Value) -> list[Value]:
            def piece(_: Value, origin: Value, target: Value) -> list[Value]:
                f.store(f.load(origin, f"<{full} x {self.number}>"), target)
                return [f.at(origin, full), f.at(target, size)]

            origin, target = f.loop(0, whole, full, [a, strips], piece)
            f.choose(f.compare("ne", rest, 0), lambda: f.copy(target, origin, rest))
            return [f.at(a, a_row), f.at(strips, full)]

        f.loop(0, depth, 1, [a, strips], column)
        return f.text()

    # single rows

    def rows_sum(self) -> str:
        """c += a B for numbers that are a_step apart and a matrix of rows."""
        f = self.function(
            "internal void @add_rows(i64 %n, i64 %k, ptr noalias readonly %a, i64 %a_step, ptr noalias readonly %b, "
            "i64 %b_row, ptr noalias %c)"
        )
        n, k, a, a_step, b, b_row, c = f.arguments
        whole, together = f.floor(n, self.lanes), f.floor(k, 4)

        def rows(count: int) -> Body:
            def body(_: Value, a: Value, b: Value) -> list[Value]:
                weights = [f.load_number(x) for x in f.each(a, a_step, count)]
                lines = f.each(b, b_row, count)

                def columns(weights: list[Value]) -> Callable[[Value], None]:
                    def some(j: Value) -> None:
                        place = f.at(c, j)
                        total = f.load(place, weights[0].type)
                        for x, line in zip(weights, lines, strict=True):
                            total = f.multiply_add(x, f.load(f.at(line, j), x.type), total)
                        f.store(total, place)

                    return some

                f.loop(0, whole, self.lanes, [], columns([f.splat(x) for x in weights]))
                f.loop(whole, n, 1, [], columns(weights))
                return [f.at(a, f.multiply(a_step, count)), f.at(b, f.multiply(b_row, count))]

            return body

        carried = f.loop(0, together, 4, [a, b], rows(4))
        f.loop(together, k, 1, carried, rows(1))
        return f.text()

    def row_product(self) -> str:
        f = self.external(
            "row_product",
            "i64 %n, i64 %k, ptr noalias readonly %a, ptr noalias readonly %b, i64 %b_row, ptr noalias %c, "
            "i1 %accumulate",
        )
        n, k, a, b, b_row, c, accumulate = f.arguments
        f.choose(accumulate, lambda: None, lambda: f.clear(c, n))
        f.call("@add_rows", n, k, a, 1, b, b_row, c)
        return f.text()

    def column_sums(self) -> str:
        f = self.external("column_sums", "i64 %p, i64 %n, ptr noalias readonly %g, i64 %g_row, ptr noalias %c")
        p, n, g, g_row, c = f.arguments
        f.clear(c, n)
        f.call("@add_rows", n, p, Value("ptr", "@one"), 0, g, g_row, c)
        return f.text()

    def dot(self) -> str:
        f = self.external("dot", "i64 %n, ptr noalias readonly %a, ptr noalias readonly %b", self.number)
        n, a, b = f.arguments
        whole = f.floor(n, 4 * self.lanes)

        def four(p: Value, *sums: Value) -> list[Value]:
            xs, ys = (f.each(f.at(start, p), self.lanes, 4) for start in (a, b))
            return [f.multiply_add(f.load(x), f.load(y), total) for x, y, total in zip(xs, ys, sums, strict=True)]

        def rest(p: Value, total: Value) -> list[Value]:
            mask = f.first_lanes(f.subtract(n, p))
            x, y = (f.load_lanes(f.at(start, p), mask) for start in (a, b))
            return [f.multiply_add(x, y, total)]

        s = f.loop(0, whole, 4 * self.lanes, [f.zero] * 4, four)
        total = f.plus(f.plus(s[0], s[1]), f.plus(s[2], s[3]))
        return f.text(f.total(*f.loop(whole, n, self.lanes, [total], rest)))

    def row_product_transposed(self) -> str:
        f = self.external(
            "row_product_transposed",
            "i64 %n, i64 %k, ptr noalias readonly %a, ptr noalias readonly %b, i64 %b_row, ptr noalias %c, "
            "i1 %accumulate",
        )
        n, k, a, b, b_row, c, accumulate = f.arguments
        whole, together = f.floor(k, self.lanes), f.floor(n, self.lanes)
        mask = f.first_lanes(f.subtract(k, whole))

        def several(j: Value, b: Value) -> list[Value]:
            lines = f.each(b, b_row, self.lanes)

            def products(load: Callable[[Value], Value]) -> Body:
                def body(p: Value, *sums: Value) -> list[Value]:
                    x = load(f.at(a, p))
                    return [f.multiply_add(x, load(f.at(y, p)), total) for y, total in zip(lines, sums, strict=True)]

                return body

            sums = f.loop(0, whole, self.lanes, [f.zero] * self.lanes, products(f.load))
            sums = f.loop(whole, k, self.lanes, sums, products(lambda place: f.load_lanes(place, mask)))
            self.put_all(f, [f.totals(sums)], [f.at(c, j)], accumulate)
            return [f.at(b, f.multiply(b_row, self.lanes))]

        def single(j: Value, b: Value) -> list[Value]:
            dot = f.value(self.number, f"call {self.number} @mg_dot{SUFFIX[self.number]}({k}, {a}, {b})")
            self.put_all(f, [dot], [f.at(c, j)], accumulate)
            return [f.at(b, b_row)]

        carried = f.loop(0, together, self.lanes, [b], several)
        f.loop(together, n, 1, carried, single)
        return f.text()
