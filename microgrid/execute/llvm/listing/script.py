"""The script of a program: its kernels, the products over all timesteps, and what NumPy computes as comments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from microgrid.execute.llvm.contract import Contraction, Factor, contraction_of
from microgrid.execute.llvm.elements import NoExpression, expression, written
from microgrid.execute.llvm.kernels import Kernel
from microgrid.execute.llvm.listing.kernel import KernelText
from microgrid.execute.llvm.listing.names import Names, is_named
from microgrid.execute.llvm.listing.text import plain, shape_text, wrapped
from microgrid.execute.llvm.roles import MATMUL, TRANSPOSE
from microgrid.execute.memory import is_view
from microgrid.leaves import State
from microgrid.ops.time import FIRST, LAST, TIME_DOT, TIME_MATMUL
from microgrid.schedule import Block, heading
from microgrid.tensor import Tensor, is_fixed_number

if TYPE_CHECKING:
    from microgrid.execute.on_llvm import Program

SIGMOID = "def sigmoid(x):\n    return 1 / (1 + exp(-x))"


def listing(program: Program) -> str:
    """What the machine code of a program computes, as a Python script."""
    return Script(program).text()


class Script:
    """The text as it grows.

    Attributes
    ----------
    names : Names
    rows : int
        How many rows all kernels of several rows have; 0 if there are none, or of different numbers.
    functions : set of str
        Which functions the lines use.
    """

    def __init__(self, program: Program) -> None:
        self.graph, self.plan, self.layout = program.graph, program.plan, program.layout
        self.names = Names(self.layout)
        self.lines: list[str] = []
        self.depth = 0
        self.functions: set[str] = set()
        self.given: dict[Tensor, None] = {}
        parts = [part for _, parts in self.plan.parts for part in parts]
        self.kernels = [part.kernel for part in parts if part.kernel is not None and part.kernel.sections]
        rows = {kernel.rows for kernel in self.kernels if kernel.rows > 1}
        self.rows = rows.pop() if len(rows) == 1 else 0
        varying = self.graph.varying
        self.views = [node for node in self.graph.nodes if node in varying and is_view(node) and is_named(node)]

    def text(self) -> str:
        for phase, parts in self.plan.parts:
            if phase.once:
                self.write_once(phase.blocks[0])
            for part in parts:
                if part.block is not None:
                    self.write_by_numpy(part.block, part.block.nodes)
                elif part.kernel in self.kernels and part.kernel is not None:
                    self.write_kernel(part.kernel)
        return "\n".join([*self.head(), *self.lines, ""])

    def head(self) -> Iterator[str]:
        names = self.names
        ends = [node for node in self.graph.outputs if node.primitive in (FIRST, LAST) and not is_named(node)]
        outputs = [node for node in self.graph.outputs if not any(node is end for end in ends)] or ends
        said = [names.own[node] for node in outputs]
        yield from wrapped('"""What the machine code computes, number by number: ', said, "    ")
        yield ""
        loops = [word for word in (names.row, names.k) if any(f"for {word} in" in line for line in self.lines)]
        place = f"a[{', '.join([names.t, *loops])}]"
        yield f"{place} is in memory; a_{names.t}, which was written there just now, is still in a register;"
        yield "a name without an index is in a register only."
        yield ""
        inputs = [f"{names.own[node]} {shape_text((names.T, *node.shape))}" for node in self.graph.inputs]
        leaves = sorted((node for node in self.given if node.primitive is None), key=lambda node: not node.ndim)
        statics = [f"{names.own[node]} {shape_text(node.shape)}" if node.ndim else names.own[node] for node in leaves]
        for what, found in (("Inputs", inputs), ("Parameters and constants", statics)):
            if found:
                yield from wrapped(f"{what}: ", found, "    ")
        yield '"""'
        yield ""
        functions = {"exp" if word == "sigmoid" else word for word in self.functions}
        functions |= {"empty"} if any("empty(" in line for line in self.lines) else set()
        if functions:
            yield f"from numpy import {', '.join(sorted(functions))}"
            yield ""
        if "sigmoid" in self.functions:
            yield from ("", *SIGMOID.split("\n"), "", "")
        if self.graph.inputs:
            yield f"{names.T} = len({names.own[self.graph.inputs[0]]})"
        else:
            yield f"# {names.T}: the number of timesteps"
        if self.rows:
            yield f"{names.batch} = {self.rows}  # rows: each thread takes some of them"

    def write(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def block(self, line: str) -> Iterator[None]:
        """A line, and those of the `with` statement behind it."""
        self.write(line)
        self.depth += 1
        yield
        self.depth -= 1

    def write_kernel(self, kernel: Kernel) -> None:
        number = next(i for i, each in enumerate(self.kernels) if each is kernel)
        written, self.lines = self.lines, []
        text = KernelText(self, kernel)
        text.write()
        body, self.lines = self.lines, written
        direction = "backwards" if kernel.reverse else "forwards"
        self.lines += ["", f"# --- kernel {number}, {direction} in time ---", *text.comments()]
        text.write_memory()
        self.lines += body

    # --- what NumPy computes ---

    def write_by_numpy(self, block: Block, nodes: Iterable[Tensor]) -> None:
        computed = [self.formula(node) for node in nodes if not isinstance(node, State)]
        self.lines += ["", *wrapped(f"# NumPy, {heading(block)}: ", computed, "#     ")]

    def formula(self, node: Tensor) -> str:
        """How a node is computed, in short."""
        assert node.primitive is not None
        name, operands = self.names.own[node], [self.word(x) for x in node.operands]
        if node.primitive is TRANSPOSE and node.params["axes"] is None:
            return f"{name} = {operands[0]}.T"
        if node.primitive is MATMUL:
            return f"{name} = {operands[0]} @ {operands[1]}"
        try:
            return f"{name} = {written(plain(expression(node)), operands)}"
        except NoExpression:
            return f"{name} = {node.primitive.name}({', '.join(operands)})"

    def word(self, node: Tensor) -> str:
        """What a comment calls a node: the next of a state by the name of their array."""
        if node not in self.graph.varying:
            return self.static(node)
        return self.names.own[node] if self.names.state_of(node) is None else self.names.array(node)

    # --- products over all timesteps ---

    def write_once(self, block: Block) -> None:
        found = {node: each for node in block.nodes if (each := contraction_of(node, self.layout)) is not None}
        names = self.names
        if found:
            self.lines += ["", "# products over all timesteps: each thread takes a part of the result"]
        for node, contraction in found.items():
            self.write(f"{names.own[node]} = sum({self.term(contraction)} for {names.t} in range({names.T}))")
        rest = [node for node in block.nodes if node not in found]
        if rest:
            self.write_by_numpy(block, rest)

    def term(self, contraction: Contraction) -> str:
        """What one timestep adds to a product over all of them."""
        node = contraction.node
        factors = [self.factor(each, x) for each, x in zip(contraction.factors, node.operands, strict=True)]
        if node.primitive is TIME_MATMUL:
            return f"{factors[0]}.T @ {factors[1]}"
        if node.primitive is TIME_DOT:
            return f"({factors[0]} * {factors[1]}).sum()"
        return f"{factors[0]}.sum(axis=0)"

    def factor(self, factor: Factor, x: Tensor) -> str:
        """The rows of a factor at one timestep, which may be a view of what lies in memory."""
        whole = self.at(factor.node)
        if x is factor.node:
            return whole
        if factor.stride == factor.columns and factor.node.size == x.size:
            return f"{whole}.reshape{shape_text(x.shape)}"
        part = f"{factor.offset}:{factor.offset + factor.columns}"
        if factor.node.shape == (factor.rows, factor.stride):
            return f"{whole[:-1]}, :, {part}]"
        return f"{whole}.reshape({factor.rows}, -1)[:, {part}].reshape{shape_text(x.shape)}"

    # --- where things are ---

    def time(self, node: Tensor) -> str:
        """The index of a node's row at this timestep; "" where there is one row only."""
        buffer, t = self.layout.buffer[node], self.names.t
        if buffer.kind == "step":
            return ""
        is_past = buffer.state is not None and node is buffer.state
        if is_past:
            t = f"{t} + 1" if buffer.state is not None and buffer.state.reverse else f"{t} - 1"
        if buffer.kind == "ring":
            t = f"({t}) % 2" if is_past else f"{t} % 2"
        return t

    def at(self, node: Tensor) -> str:
        """The array of a varying node at this timestep."""
        time = self.time(node)
        return f"{self.names.array(node)}[{time}]" if time else self.names.array(node)

    def static(self, node: Tensor) -> str:
        """The name of a static value, or the number itself."""
        if is_fixed_number(node):
            return repr(np.asarray(node.value).item())
        self.given[node] = None
        return self.names.own[node]
