"""The table of addresses by which machine code finds buffers, static arrays, packed matrices and results."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from microgrid.execute.llvm import products
from microgrid.execute.llvm.machine import BYTES


class Table:
    """What stands at which place of the table: keys are pairs of what it is and whose.

    ("buffer", id of a Buffer), ("static", node), ("packed", (node, transposed)), ("result", node), ("cells", node) for
    the parts of a sum, ("scratch", kind of number).

    Attributes
    ----------
    numbers : dict
        Key → place in the table.
    scratch : dict of str → int
        For each kind of number, how many of them a thread needs for a while.
    """

    def __init__(self, vector_bytes: int, registers: int) -> None:
        self.vector_bytes = vector_bytes
        self.registers = registers
        self.numbers: dict[tuple[str, Hashable], int] = {}
        self.scratch: dict[str, int] = {}

    def number(self, key: tuple[str, Any]) -> int:
        """The place of an entry, a new one if need be."""
        return self.numbers.setdefault(key, len(self.numbers))

    def of_kind(self, what: str) -> list[tuple[Any, int]]:
        """(whose, place) of all entries of one kind."""
        return [(key[1], number) for key, number in self.numbers.items() if key[0] == what]

    def sizes(self, kind: str) -> tuple[int, int]:
        """How many numbers a vector register holds, and how many of them there are."""
        return self.vector_bytes // BYTES[kind], self.registers

    def need_scratch(self, kind: str, inner: int, outer: int) -> None:
        """Make sure that a product over all timesteps has the memory it needs for a while."""
        needed = products.contract_scratch(inner, outer, *self.sizes(kind))
        self.scratch[kind] = max(self.scratch.get(kind, 0), needed)
