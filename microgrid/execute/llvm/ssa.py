"""LLVM IR in SSA form: a function whose loops carry values along, so that they stay in registers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SUFFIX = {"float": "_f32", "double": "_f64"}


class Value(NamedTuple):
    """A value in SSA form; as text, an operand with its type."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


Index = Value | int
Body = Callable[..., Sequence[Value] | None]


def index(x: Index) -> Value:
    return x if isinstance(x, Value) else Value("i64", str(x))


def flag(x: bool) -> Value:
    return Value("i1", "true" if x else "false")


class Function:
    """One function as it is written: its methods append instructions and return what these compute."""

    def __init__(self, signature: str, number: str, lanes: int) -> None:
        self.number = number
        self.bytes = 4 if number == "float" else 8
        self.lanes = lanes
        self.vector = f"<{lanes} x {number}>"
        self.zero = Value(self.vector, "zeroinitializer")
        self.arguments = [Value(*found) for found in re.findall(r"[(,] *(\w+)[^,]*? (%\w+)", signature)]
        own = " noinline" if signature.startswith("internal") else ""  # registers are for one loop at a time
        self.lines = [f"define {signature}{own} nounwind {{", "entry:"]
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
        return index(x) if y == 0 else self.value("i64", f"sub nsw {index(x)}, {index(y).name}")

    def multiply(self, x: Index, y: Index) -> Value:
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
        return self.value("ptr", f"getelementptr {self.number}, {pointer}, {index(offset)}")

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

    def load_lanes(self, pointer: Value, mask: Value) -> Value:
        """A vector of which only the lanes of a mask are read; the others are 0."""
        name = f"@llvm.masked.load.{self.overload}.p0"
        return self.value(self.vector, f"call {self.vector} {name}({pointer}, i32 {self.bytes}, {mask}, {self.zero})")

    def store(self, x: Value, pointer: Value) -> None:
        self.do(f"store {x}, {pointer}, align {self.bytes}")

    def clear(self, pointer: Value, count: Value) -> None:
        self.call("@llvm.memset.p0.i64", pointer, Value("i8", "0"), self.multiply(count, self.bytes), flag(False))

    def copy(self, target: Value, origin: Value, count: Value) -> None:
        self.call("@llvm.memcpy.p0.p0.i64", target, origin, self.multiply(count, self.bytes), flag(False))

    def prefetch(self, row: Value, count: int, is_written: bool) -> None:
        """Has numbers fetched that will soon be used, fewer than two lines of a cache hold; they need not exist."""
        for place in (row, self.at(row, count - 1)):
            self.do(f"call void @llvm.prefetch.p0({place}, i32 {int(is_written)}, i32 3, i32 1)")

    # numbers and vectors

    @property
    def overload(self) -> str:
        """How the name of an intrinsic on vectors ends."""
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
        """Sums of two lanes that are so far apart: of x where this bit of the lane's number is 0, of y elsewhere."""
        low = [i + self.lanes - distance if i & distance else i for i in range(self.lanes)]
        parts = []
        for lanes in (low, [i + distance for i in low]):
            mask = ", ".join(f"i32 {i}" for i in lanes)
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
        return self.value(f"<{self.lanes} x i1>", f"icmp sgt {self.splat(count)}, <{lanes}>")

    # control

    def loop(self, start: Index, stop: Index, step: int, carried: Sequence[Value], body: Body) -> list[Value]:
        """Runs `body(i, *carried)` as long as i < stop; returns what is carried out, which the body returns.

        The test stands at the end of a round, as it does in machine code.
        """
        inside, after, before = self.name(), self.name(), self.block
        i, *inner = (Value(x.type, self.name()) for x in (index(start), *carried))
        self.do(f"br {self.compare('slt', start, stop)}, label {inside}, label {after}")
        self.enter(inside)
        top = len(self.lines)
        following = list(body(i, *inner) or ())
        end = self.add(i, step)
        self.do(f"br {self.compare('slt', end, stop)}, label {inside}, label {after}")
        self.lines[top:top] = [
            f"  {x.name} = phi {x.type} [ {first.name}, {before} ], [ {next.name}, {self.block} ]"
            for x, first, next in zip([i, *inner], [index(start), *carried], [end, *following], strict=True)
        ]
        came = self.block
        self.enter(after)
        return self.joined(carried, before, following, came)

    def choose(self, condition: Value, yes: Body, no: Body = lambda: None) -> list[Value]:
        """What one of two bodies returns."""
        labels, after = [self.name(), self.name()], self.name()
        self.do(f"br {condition}, label {labels[0]}, label {labels[1]}")
        found, ends = [], []
        for label, body in zip(labels, (yes, no), strict=True):
            self.enter(label)
            found.append(body() or ())
            self.do(f"br label {after}")
            ends.append(self.block)
        self.enter(after)
        return self.joined(found[0], ends[0], found[1], ends[1])

    def joined(self, xs: Sequence[Value], left: str, ys: Sequence[Value], right: str) -> list[Value]:
        """Values that depend on which of two blocks came before."""
        return [
            self.value(x.type, f"phi {x.type} [ {x.name}, {left} ], [ {y.name}, {right} ]")
            for x, y in zip(xs, ys, strict=True)
        ]

    def enter(self, label: str) -> None:
        self.lines.append(f"{label[1:]}:")
        self.block = label
