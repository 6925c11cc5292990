"""The source of a block: a Python function of NumPy calls, one line per operation, none of which makes an array."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.execute.memory import Layout
from microgrid.schedule import Block
from microgrid.tensor import Tensor, is_number

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class View:
    """How a block's function sees a node: which form of its rows it is given.

    form : "rows" for one row after the other in a loop, "chunk" for the rows of a chunk of timesteps as
    one array, "flat" for the same as a matrix, "step" for the one row that every timestep of a loop
    writes anew; "all" for the rows of all timesteps, "matrix", "transposed" and "line" for the same as a
    matrix and a vector, "ones" for as many ones as that matrix has rows, "static" for the array of a
    static value; `rank` aligns a chunk for broadcasting, `part` selects the place of a part in a
    concatenation, `vector` takes the one row of a matrix.
    """

    node: Tensor
    form: str
    rank: int = -1
    part: int = -1
    vector: bool = False

    @property
    def key(self) -> tuple[int, str, int, int, bool]:
        return id(self.node), self.form, self.rank, self.part, self.vector


class Code:
    """The source of one function as it grows: its arguments, the objects it refers to, its lines."""

    def __init__(self, layout: Layout, slots: Mapping[Tensor, int], vector: bool = False) -> None:
        self.layout = layout
        self.slots = slots
        self.vector = vector
        self.globals: dict[str, Any] = {}
        self.numbers: dict[Hashable, Array] = {}
        self.constants: dict[int, str] = {}
        self.views: dict[Hashable, tuple[str, View]] = {}
        self.read: dict[int, str] = {}
        self.written: dict[int, str] = {}
        self.lines: list[str] = []
        self.before: list[str] = []
        """Lines before the loop."""

    def refer(self, thing: Any, hint: str = "k") -> str:
        """A name for an object outside the function."""
        if id(thing) not in self.constants:
            self.constants[id(thing)] = name = f"{hint}{len(self.constants)}"
            self.globals[name] = thing
        return self.constants[id(thing)]

    def call(self, function: Callable[..., Any], *args: str) -> str:
        name = getattr(function, "__name__", "")
        hint = name if name.isidentifier() else "k"
        return f"{self.refer(function, hint + '_')}({', '.join(args)})"

    def see(self, view: View) -> str:
        """The name of an argument."""
        if view.key not in self.views:
            prefix = {"rows": "r", "step": "x"}.get(view.form, "a")
            self.views[view.key] = f"{prefix}{len(self.views)}", view
        return self.views[view.key][0]

    def static(self, node: Tensor, dtype: Any = None) -> str:
        """The name of a static value; with `dtype`, of a number that NumPy need not convert each time."""
        if dtype is not None and is_number(node):
            key = (node.value, np.dtype(dtype))
            if key not in self.numbers:
                self.numbers[key] = np.array(node.value, dtype)
            return self.refer(self.numbers[key], "n")
        slot = self.slots[node]
        if slot in self.written:
            return self.written[slot]
        return self.read.setdefault(slot, f"s{slot}")

    def define(self, node: Tensor, expression: str) -> None:
        """Give a static node its value."""
        slot = self.slots[node]
        self.written[slot] = f"s{slot}"
        self.lines.append(f"s{slot} = {expression}")

    def source(self, loop: bool) -> str:
        arguments = [name for name, _ in self.views.values()]
        body = [f"{name} = S[{slot}]" for slot, name in self.read.items()]
        rows = [name for name, view in self.views.values() if view.form == "rows"]
        if loop:
            together = ", ".join(rows)
            iterated = f"zip({', '.join(f'{name}s' for name in rows)})" if len(rows) > 1 else f"{rows[0]}s"
            body += self.before
            body.append(f"for {together} in {iterated}:")
            body += [f"    {line}" for line in self.lines]
            arguments = [f"{name}s" if name in rows else name for name in arguments]
        else:
            body += self.lines
        body += [f"S[{slot}] = {name}" for slot, name in self.written.items()]
        return f"def block(S, {', '.join(arguments)}):\n" + "\n".join(f"    {line}" for line in body or ["pass"])

    def compiled(self, loop: bool = False) -> tuple[Callable[..., None], list[View]]:
        """The function, called with the list of static values and what its views resolve to; and those views."""
        namespace = dict(self.globals)
        exec(bytecode(self.source(loop)), namespace)
        return namespace["block"], [view for _, view in self.views.values()]


@functools.lru_cache(maxsize=512)
def bytecode(source: str) -> Any:
    """What Python makes of a function's source: the same for the same network at all shapes."""
    return compile(source, "<microgrid block>", "exec")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A function of a program and what it is given.

    when : "start" before the first chunk of its phase, "once", or "chunk" for each chunk of timesteps.
    """

    run: Callable[..., None]
    views: list[View]
    when: str
    block: Block | None
    source: str


def out_argument(ufunc: np.ufunc, out: str) -> str:
    """How to name where a result goes: by position, which is faster, but NumPy wants maximum's by name."""
    return f"out={out}" if ufunc in (np.maximum, np.minimum) else out


def number_dtype(node: Tensor) -> Any:
    """The dtype in which an element-by-element operation uses the numbers among its operands; None if unknown."""
    floats = node.primitive is not None and node.primitive.ufunc is not None and node.dtype.kind == "f"
    return node.dtype if floats else None
