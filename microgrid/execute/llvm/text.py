"""LLVM IR as text: a function that grows line by line, with loops and variables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

SUFFIX = {"float": "f32", "double": "f64"}
"""How the names of functions on a kind of number end."""


class Function:
    """The body of one function.

    Variables are memory on the stack, which LLVM turns into registers; so loops need no phi nodes.
    """

    def __init__(self) -> None:
        self.entry: list[str] = []
        """Lines before all loops."""
        self.lines: list[str] = []
        self.count = 0
        self.addresses: dict[int, str] = {}

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def let(self, expression: str) -> str:
        """A new value."""
        name = self.name()
        self.lines.append(f"  {name} = {expression}")
        return name

    def let_at_entry(self, expression: str) -> str:
        """A new value that is known before all loops."""
        name = self.name()
        self.entry.append(f"  {name} = {expression}")
        return name

    def do(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def from_table(self, number: int) -> str:
        """An address from the table that is the function's argument."""
        if number not in self.addresses:
            place = self.let_at_entry(f"getelementptr inbounds ptr, ptr %table, i64 {number}")
            self.addresses[number] = self.let_at_entry(f"load ptr, ptr {place}")
        return self.addresses[number]

    def variable(self, kind: str) -> str:
        return self.let_at_entry(f"alloca {kind}")

    def add(self, x: str, y: str | int) -> str:
        return x if y in (0, "0") else self.let(f"add nsw i64 {x}, {y}")

    def times(self, x: str, y: str | int) -> str:
        return self.let(f"mul nsw i64 {x}, {y}")

    def at(self, pointer: str, index: str | int, kind: str = "i8") -> str:
        """The address of an element behind a pointer."""
        return pointer if index in (0, "0") else self.let(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {index}")

    @contextlib.contextmanager
    def loop(self, start: str | int, stop: str | int, step: str | int = 1) -> Iterator[str]:
        """A loop over start, start + step, … as long as the number is less than `stop`; gives the number."""
        self.count += 1
        label = f"l{self.count}"
        variable = self.variable("i64")
        self.do(f"store i64 {start}, ptr {variable}")
        self.do(f"br label %{label}.test")
        self.lines.append(f"{label}.test:")
        index = self.let(f"load i64, ptr {variable}")
        inside = self.let(f"icmp slt i64 {index}, {stop}")
        self.do(f"br i1 {inside}, label %{label}.do, label %{label}.end")
        self.lines.append(f"{label}.do:")
        yield index
        self.do(f"store i64 {self.add(index, step)}, ptr {variable}")
        self.do(f"br label %{label}.test")
        self.lines.append(f"{label}.end:")

    @contextlib.contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is done only if a condition holds."""
        self.count += 1
        label = f"w{self.count}"
        self.do(f"br i1 {condition}, label %{label}.do, label %{label}.end")
        self.lines.append(f"{label}.do:")
        yield
        self.do(f"br label %{label}.end")
        self.lines.append(f"{label}.end:")

    def text(self, signature: str) -> str:
        body = [*self.entry, "  br label %body", "body:", *self.lines, "  ret void"]
        return "\n".join([f"define {signature} {{", "entry:", *body, "}", ""])
