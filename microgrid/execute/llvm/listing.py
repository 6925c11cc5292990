"""The machine code of a program as Python to read: loops over time, rows and columns, and one line per number.

It is a script that runs: given the inputs, the static values and what NumPy computes, by the names of their
nodes, it leaves the arrays that the machine code leaves. `Compiled.source` shows it.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.execute.llvm.contract import Contraction, Factor, contraction_of
from microgrid.execute.llvm.elements import Value, written
from microgrid.execute.llvm.plan import Group, Kernel, Level, Section, hands_over, root
from microgrid.execute.llvm.roles import Element, Move, Product, Read, Reader, Sum, row_size
from microgrid.execute.memory import Buffer, is_view
from microgrid.leaves import Input, Parameter, State
from microgrid.names import short_names
from microgrid.ops.time import TIME_DOT, TIME_MATMUL
from microgrid.schedule import Block, heading
from microgrid.tensor import Tensor, is_fixed_number

if TYPE_CHECKING:
    from microgrid.execute.on_llvm import Program

INDICES = (("T", "steps"), ("t", "step", "time"), ("row", "sample"), ("k", "j", "column"), ("batch", "rows"))
"""What the number of timesteps, a timestep, a row, a column and the number of rows are called: the first free names."""

FUNCTIONS = ("tanh", "sigmoid", "exp", "expm1", "log", "log1p", "sqrt", "maximum", "minimum", "float32", "float64")
RESERVED = {*FUNCTIONS, "empty", "range", "reversed", "sum", "abs", "bool", "len", "inf", "nan"}
SIGMOID = "def sigmoid(x):\n    return 1 / (1 + exp(-x))"

LONGEST = 84
"""Characters up to which an expression takes in the expressions that only it reads."""

WIDTH = 112
"""Characters of a line of names."""

KEPT = {
    "kept": "kept for all timesteps",
    "chunk": "for the timesteps of a chunk",
    "ring": "a ring of two timesteps",
    "step": "for one timestep",
}


def listing(program: Program) -> str:
    """What the machine code of a program computes, as a Python script."""
    return Script(program).text()


def identifier(name: str) -> str:
    """A node's name as one of Python.

    >>> identifier("lstm.h.grad⁺"), identifier("1st"), identifier("lambda")
    ('lstm_h_grad', '_1st', 'lambda_')
    """
    word = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name.replace("⁺", "")))
    word = f"_{word}" if word[:1].isdigit() or not word else word
    return f"{word}_" if keyword.iskeyword(word) or word in RESERVED else word


class Script:
    """The text as it grows, and the names in it.

    Attributes
    ----------
    own : dict of Tensor → str
        What each node is called.
    """

    def __init__(self, program: Program) -> None:
        self.graph, self.plan, self.layout = program.graph, program.plan, program.layout
        self.lines: list[str] = []
        self.depth = 0
        self.functions: set[str] = set()
        self.given: dict[Tensor, None] = {}
        self.kernels = 0
        wanted = {node: identifier(name) for node, name in short_names(self.graph.names).items()}
        words = set(wanted.values())
        self.T, self.t, self.row, self.k, self.batch = (
            next((word for word in choice if word not in words), f"{choice[0]}_") for choice in INDICES
        )
        self.taken = {self.T, self.t, self.row, self.k, self.batch}
        self.own: dict[Tensor, str] = {}
        for node in sorted(self.graph.nodes, key=lambda node: not isinstance(node, State)):
            state = self.state_of(node)
            if state is not None and wanted[state] == wanted[node]:
                self.own[node] = self.own[state]  # h.grad and h.grad⁺ are rows of one array
            else:
                self.own[node] = self.free(wanted[node])
        self.locals: dict[tuple[Tensor, int], str] = {}
        rows = {kernel.rows for kernel in self.all_kernels() if kernel.rows > 1}
        self.rows = rows.pop() if len(rows) == 1 else 0
        self.views = [
            node for node in self.graph.nodes if node in self.graph.varying and is_view(node) and is_named(node)
        ]

    def all_kernels(self) -> Iterator[Kernel]:
        for _, parts in self.plan.parts:
            yield from (part.kernel for part in parts if part.kernel is not None and part.kernel.sections)

    def free(self, word: str) -> str:
        """A name that nothing else has."""
        while word in self.taken:
            word += "_"
        self.taken.add(word)
        return word

    def state_of(self, node: Tensor) -> State | None:
        """The state of which a node is the next."""
        buffer = self.layout.buffer.get(node)
        return buffer.state if buffer is not None and buffer.owner is node else None

    def has_own_name(self, node: Tensor) -> bool:
        """Whether a state's next has a name of its own, by which it is known beside the state."""
        return self.state_of(node) is not None and is_named(node) and self.own[node] != self.array(node)

    def array(self, node: Tensor) -> str:
        """The name of the array in which a node's rows lie: a state's for its next, too."""
        buffer = self.layout.buffer[node]
        return self.own[buffer.owner if buffer.state is None else buffer.state]

    def local(self, node: Tensor, piece: int, name: str) -> str:
        """The name of a register."""
        if (node, piece) not in self.locals:
            self.locals[node, piece] = self.free(name)
        return self.locals[node, piece]

    # --- the text ---

    def text(self) -> str:
        for phase, parts in self.plan.parts:
            if phase.once:
                self.write_once(phase.blocks[0])
            for part in parts:
                if part.block is not None:
                    self.comment(f"NumPy, {heading(part.block)}", self.names_of(part.block.nodes))
                elif part.kernel is not None and part.kernel.sections:
                    KernelText(self, part.kernel).write()
        return "\n".join([*self.head(), *self.lines, ""])

    def head(self) -> Iterator[str]:
        outputs = [self.own[node] for node in self.graph.outputs]
        inputs = [f"{self.own[node]} {shape_text((self.T, *node.shape))}" for node in self.graph.inputs]
        leaves = [node for node in self.given if node.primitive is None]
        statics = [f"{self.own[node]} {shape_text(node.shape)}" for node in leaves if node.ndim] + [
            self.own[node] for node in leaves if not node.ndim
        ]
        yield from wrapped('"""What the machine code computes, number by number: ', f"{', '.join(outputs)}.", "    ")
        yield ""
        loops = [word for word in (self.row, self.k) if any(f"for {word} in" in line for line in self.lines)]
        yield f"a[{', '.join([self.t, *loops])}] is in memory; a_{self.t} is what was written there just now and is still in a register;"
        yield "a name without an index is in a register only."
        yield ""
        for what, found in (("Inputs", inputs), ("Parameters and other values", statics)):
            if found:
                yield from wrapped(f"{what}: ", ", ".join(found), "    ")
        yield '"""'
        yield ""
        functions = (self.functions - {"sigmoid"}) | ({"exp"} if "sigmoid" in self.functions else set())
        imported = sorted(functions | ({"empty"} if any("empty(" in line for line in self.lines) else set()))
        if imported:
            yield f"from numpy import {', '.join(imported)}"
            yield ""
        if "sigmoid" in self.functions:
            yield from ("", *SIGMOID.split("\n"), "", "")
        if self.graph.inputs:
            yield f"{self.T} = len({self.own[self.graph.inputs[0]]})"
        else:
            yield f"# {self.T}: how many timesteps"
        if self.rows:
            yield f"{self.batch} = {self.rows}  # each thread takes some of these rows"

    def write(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def block(self, line: str) -> Iterator[None]:
        self.write(line)
        self.depth += 1
        yield
        self.depth -= 1

    def comment(self, title: str, rest: str) -> None:
        self.lines.append("")
        self.lines.extend(wrapped(f"# {title}: ", rest, "#     "))

    def names_of(self, nodes: Iterable[Tensor]) -> str:
        return ", ".join(self.own[node] for node in nodes)

    # --- what runs once ---

    def write_once(self, block: Block) -> None:
        found = {node: each for node in block.nodes if (each := contraction_of(node, self.layout)) is not None}
        if found:
            self.lines += ["", "# products over all timesteps: each thread takes a part of the result"]
        for node, contraction in found.items():
            self.write(f"{self.own[node]} = sum({self.term(contraction)} for {self.t} in range({self.T}))")
        rest = [node for node in block.nodes if node not in found]
        if rest:
            self.comment("NumPy, once", self.names_of(rest))

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
        """The rows of a factor at one timestep."""
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
        buffer = self.layout.buffer[node]
        if buffer.kind == "step":
            return ""
        time = self.t
        if buffer.state is not None and node is buffer.state:
            time = f"{self.t} + 1" if buffer.state.reverse else f"{self.t} - 1"
        if buffer.kind == "ring":
            time = f"({time}) % 2" if " " in time else f"{time} % 2"
        return time

    def at(self, node: Tensor) -> str:
        """The array of a varying node at this timestep."""
        time = self.time(node)
        return f"{self.array(node)}[{time}]" if time else self.array(node)

    def static(self, node: Tensor) -> str:
        """The name of a static value, or the number itself."""
        if is_fixed_number(node):
            return repr(np.asarray(node.value).item())
        self.given[node] = None
        return self.own[node]


class KernelText:
    """The loops of one kernel."""

    def __init__(self, script: Script, kernel: Kernel) -> None:
        self.script = script
        self.kernel = kernel
        self.layout, self.stored = script.layout, script.plan.stored
        self.registers: dict[str, None] = {}
        self.reader = Reader(kernel.rows, kernel.by_rows, script.graph.varying)
        self.view_names: dict[tuple[Tensor, int, int], str] = {}
        for view in script.views:
            read = self.reader.behind_views(Read(view, None, True)) if self.reader.fits(view) else None
            if read is not None and read.index is not None and read.operand in kernel.roles:
                first, size = int(read.index[0]), row_size(view, kernel.rows)
                if np.array_equal(read.index, first + np.arange(size)):
                    self.view_names[read.operand, first, size] = script.own[view]

    def write(self) -> None:
        script, kernel = self.script, self.kernel
        title = f"# --- kernel {script.kernels}, {'backwards' if kernel.reverse else 'forwards'} in time ---"
        script.kernels += 1
        before = len(script.lines)
        for section in kernel.sections:
            self.section = section
            if section.kind == "loop":
                with self.timesteps():
                    self.levels(section.levels)
            else:
                self.over_all(section)
        body = script.lines[before:]
        del script.lines[before:]
        script.lines += ["", title]
        if self.is_chunked():
            script.write("# one chunk of timesteps that fits into the cache after the other")
        if self.registers:
            script.lines += wrapped("# in registers only: ", ", ".join(self.registers), "#     ")
        self.write_memory()
        script.lines += body

    def is_chunked(self) -> bool:
        """Whether the sections take turns on chunks of timesteps."""
        return any(self.layout.buffer[root(node)].kind == "chunk" for node in self.kernel.nodes)

    # --- memory ---

    def write_memory(self) -> None:
        """The arrays that the kernel writes, and the initial values of its states."""
        script, layout = self.script, self.layout
        made: dict[tuple[Any, ...], list[Buffer]] = {}
        inside = set(self.kernel.nodes)
        for buffer in layout.buffers():
            if buffer.owner not in inside or buffer.kind in ("given", "none") or self.is_made_at_once(buffer.owner):
                continue
            made.setdefault((buffer.kind, buffer.state is not None, buffer.row_shape, buffer.owner.dtype), []).append(
                buffer
            )
        for (kind, has_past, shape, dtype), buffers in made.items():
            names = [script.array(buffer.owner) for buffer in buffers]
            rows = {"step": [], "ring": ["2"]}.get(
                kind, [f"{script.T} + 1" if has_past and kind == "kept" else script.T]
            )
            sizes = [*([str(len(names))] if len(names) > 1 else []), *rows, *map(str, shape)]
            of_dtype = "" if dtype == np.float64 else f", {dtype}"
            if dtype == np.float32:
                script.functions.add("float32")
            what = f"{KEPT[kind]}; [-1] is the initial value" if has_past and kind == "kept" else KEPT[kind]
            made_by = f"empty({shape_text(sizes)}{of_dtype})" if len(sizes) != 1 else f"empty({sizes[0]}{of_dtype})"
            script.lines += [f"{', '.join(names)} = {made_by}  # {what}"]
        self.write_starts()

    def write_starts(self) -> None:
        script = self.script
        starts: dict[str, list[str]] = {}
        for state in self.kernel.nodes:
            if not isinstance(state, State):
                continue
            buffer, name = self.layout.buffer[state], script.array(state)
            first = "-1"
            if buffer.owner is state:  # its next is the same at all timesteps
                script.write(f"{name}[:] = {script.static(state.next)}")
                first = "-1" if state.reverse else "0"
            elif buffer.kind == "ring" and state.reverse:
                first = f"{script.T} % 2"
            starts.setdefault(self.start(state), []).append(f"{name}[{first}]")
        for value, places in starts.items():
            script.write(" = ".join([*places, value]))

    def start(self, state: State) -> str:
        """The initial value of a state."""
        initial = state.initial
        if initial.primitive is None and initial._name is None and not isinstance(initial, Parameter) and initial.size:
            first = np.asarray(initial.value).flat[0]
            if np.all(initial.value == first):
                return repr(first.item())
        return self.script.static(initial)

    def is_made_at_once(self, node: Tensor) -> bool:
        """Whether a product makes its array anew."""
        if not isinstance(self.kernel.roles[node], Product):
            return False
        buffer = self.layout.buffer[node]
        in_loop = any(section.kind == "loop" and node in section.depth for section in self.kernel.sections)
        return buffer.kind == "step" or (not in_loop and buffer.state is None and self.of_all_timesteps(node))

    # --- loops ---

    @contextmanager
    def timesteps(self) -> Iterator[None]:
        script = self.script
        steps = f"range({script.T})"
        with script.block(f"for {script.t} in {f'reversed({steps})' if self.kernel.reverse else steps}:"):
            yield

    def over_all(self, section: Section) -> None:
        """Level by level over all timesteps: sweeps between products in one loop."""
        waiting: list[Level] = []

        def sweep() -> None:
            if any(level.groups for level in waiting):
                with self.timesteps():
                    self.levels(waiting)
            waiting.clear()

        for level in section.levels:
            waiting.append(Level(level.groups))
            if level.products:
                sweep()
                for node in level.products:
                    self.product_of_all(node)
        sweep()

    def levels(self, levels: Sequence[Level]) -> None:
        """One timestep: rows, through all sweeps up to the next product."""
        waiting: list[Group] = []
        for level in levels:
            waiting += level.groups
            if level.products:
                self.rows(waiting)
                waiting = []
                for node in level.products:
                    buffer, script = self.layout.buffer[node], self.script
                    what = f"  # {KEPT['step']}" if buffer.kind == "step" else ""
                    script.write(f"{script.at(node)} = {self.product(node)}{what}")
        self.rows(waiting)

    def rows(self, groups: Sequence[Group]) -> None:
        script = self.script
        if not groups:
            return
        if self.kernel.rows == 1:
            RowText(self, groups).write()
            return
        count = script.batch if script.rows else str(self.kernel.rows)
        with script.block(f"for {script.row} in range({count}):"):
            RowText(self, groups).write()

    # --- products ---

    def of_all_timesteps(self, node: Tensor) -> bool:
        """Whether a product of all timesteps is one expression of whole arrays."""
        role = self.kernel.roles[node]
        assert isinstance(role, Product)
        buffer = self.layout.buffer[role.source]
        return (
            any(role.source is x for x in node.operands)
            and buffer.kind in ("given", "kept", "chunk")
            and buffer.state is not role.source
        )

    def product_of_all(self, node: Tensor) -> None:
        script, layout = self.script, self.layout
        if not self.of_all_timesteps(node):
            with self.timesteps():
                script.write(f"{script.at(node)} = {self.product(node)}")
            return
        role = self.kernel.roles[node]
        assert isinstance(role, Product)
        source, target = script.array(role.source), script.array(node)
        if layout.buffer[role.source].state is not None:
            source = f"{source}[:{script.T}]"
        if layout.buffer[node].state is not None:
            target = f"{target}[:{script.T}]"
        script.write(f"{target} = {source} @ {self.weight(role)}  # {KEPT[layout.buffer[node].kind]}, at once")

    def weight(self, role: Product) -> str:
        name = self.script.static(role.weight)
        return f"{name}.T" if role.transposed else name

    def product(self, node: Tensor) -> str:
        """A product at one timestep."""
        role = self.kernel.roles[node]
        assert isinstance(role, Product)
        x, y = node.operands
        left = x in self.script.graph.varying
        rows, weight = self.rows_of(role, x if left else y), self.weight(role)
        if left:
            return f"{rows} @ {weight}"
        return f"{weight.removesuffix('.T') if role.transposed else f'{weight}.T'} @ {rows}"

    def rows_of(self, role: Product, x: Tensor) -> str:
        """The varying operand of a product, which may be a view of what lies in memory."""
        whole, source = self.script.at(role.source), role.source
        if x is source:
            return whole
        if role.offset == 0 and x.size == source.size:
            return f"{whole}.reshape{shape_text(x.shape)}"
        rows, size = (self.kernel.rows, role.inner) if role.rows == 1 else (1, role.rows * role.inner)
        part = f"{role.offset}:{role.offset + size}"
        if x.shape == (rows, size) and source.ndim == 2 and source.shape[0] == rows and whole.endswith("]"):
            return f"{whole[:-1]}, :, {part}]"
        return f"{whole}.reshape({rows}, -1)[:, {part}].reshape{shape_text(x.shape)}"

    # --- elements ---

    def element(self, x: Tensor, first: int, width: int, per_row: bool) -> str:
        """Element `first` of a row of a node in memory, or that of each column k < width behind it."""
        script, kernel = self.script, self.kernel
        varying = x in self.layout.buffer
        index: list[str] = []
        if varying and (time := script.time(x)):
            index.append(time)
        axes, column = x.shape, script.k if width > 1 else ""
        if per_row and kernel.by_rows and axes[:1] == (kernel.rows,):
            index.append(script.row if kernel.rows > 1 else "0")
            axes = axes[1:]
        elif per_row and kernel.rows > 1:
            own = row_size(x, kernel.rows)
            column, first = f"{script.row} * {own} + {column or first}", first if column else 0
            width = x.size - first
        index += unravelled(axes, first, column, width)
        name = script.array(x) if varying else script.static(x)
        return f"{name}[{', '.join(index)}]" if index else name


class RowText:
    """The sweeps over one row, up to the next product."""

    def __init__(self, kernel: KernelText, groups: Sequence[Group]) -> None:
        self.kernel = kernel
        self.script = kernel.script
        self.groups = groups
        self.rows = kernel.kernel.rows
        self.roles = kernel.kernel.roles
        self.home = {node: group for group in groups for node in group.nodes}
        self.apart: set[Tensor] = set()
        """Nodes whose numbers are long enough for lines of their own."""
        self.texts: list[str] = []
        self.uses: dict[tuple[Tensor, int], int] = {}
        self.outside: set[Tensor] = set()
        for group in groups:
            self.count(group)

    def write(self) -> None:
        script = self.script
        start = len(script.lines)
        while True:
            self.registers: dict[tuple[Tensor, int], Value] = {}
            self.taken_in: dict[int, list[tuple[Tensor, int]]] = {}
            self.longest: Tensor | None = None
            for group in self.groups:
                self.group_lines(group)
            if self.longest is None:
                return
            self.apart.add(self.longest)
            del script.lines[start:]

    def pieces(self, node: Tensor, group: Group) -> range:
        """The numbers of a node's pieces; of what a sum adds up."""
        role = self.roles[node]
        size = role.size if isinstance(role, Sum) else row_size(node, self.rows)
        return range(size // self.width(node, group))

    def width(self, node: Tensor, group: Group) -> int:
        is_number = row_size(node, self.rows) == 1 and not isinstance(self.roles[node], Sum)
        return 1 if is_number else group.width

    # --- who reads what ---

    def read_by(self, node: Tensor, piece: int, group: Group) -> list[tuple[int, Read]]:
        """(number of the operand, how it is read) for a piece of a node."""
        role = self.roles[node]
        if isinstance(role, Sum):
            return [(0, role.read)]
        if isinstance(role, Move):
            k = 0 if role.source is None else int(role.source[piece * self.width(node, group)])
            return [(k, role.reads[k])] if k >= 0 else []
        assert isinstance(role, Element)
        return [(i, read) for i, read in enumerate(role.reads) if read is not None]

    def found_in(
        self, read: Read, node: Tensor, piece: int, group: Group
    ) -> tuple[tuple[Tensor, int] | None, int, int]:
        """Where a piece finds an operand: (which register, if any; first element, width in memory)."""
        width = self.width(node, group)
        at = first = piece * width
        if read.index is not None:
            first = int(read.index[at])
            width = 1 if width > 1 and int(read.index[at + 1]) == first else width
        x, kernel = read.operand, self.kernel
        if x in kernel.layout.buffer and hands_over(read, node, kernel.section, kernel.kernel):
            return (x, 0 if row_size(x, self.rows) == 1 else first // group.width), 0, 0
        size = row_size(x, self.rows) if read.per_row else x.size
        return None, first, 1 if size == 1 else width

    def count(self, group: Group) -> None:
        """Count how often each register is read, and note which are read in another loop."""
        for node in group.nodes:
            role = self.roles[node]
            for piece in self.pieces(node, group):
                for i, read in self.read_by(node, piece, group):
                    register, _, _ = self.found_in(read, node, piece, group)
                    if register is not None:
                        times = occurrences(role.expression, i) if isinstance(role, Element) else 1
                        self.uses[register] = self.uses.get(register, 0) + times
                        if self.in_loop(node) != self.in_loop(register[0]) or isinstance(self.roles[register[0]], Sum):
                            self.outside.add(register[0])
                        elif self.in_loop(node) and self.home[register[0]] is not group:
                            self.outside.add(register[0])

    def in_loop(self, node: Tensor) -> bool:
        """Whether a node is computed in a loop over columns."""
        return isinstance(self.roles[node], Sum) or row_size(node, self.rows) > 1

    # --- lines ---

    def group_lines(self, group: Group) -> None:
        script = self.script
        sums = [node for node in group.nodes if isinstance(self.roles[node], Sum)]
        for node in sums:
            for total in self.totals(node):
                script.write(f"{total} = 0.0")
        if any(self.width(node, group) > 1 for node in group.nodes):
            with script.block(f"for {script.k} in range({group.width}):"):
                self.piece_lines(group)
        else:
            self.piece_lines(group)
        for node in sums:
            for place, total in enumerate(self.totals(node)):
                if node in self.kernel.stored:
                    script.write(f"{self.kernel.element(node, place, 1, True)} = {total}")
            if row_size(node, self.rows) == 1:
                self.registers[node, 0] = self.named(self.totals(node)[0], node)

    def totals(self, node: Tensor) -> list[str]:
        """The registers in which sums grow."""
        role = self.roles[node]
        assert isinstance(role, Sum)
        return [self.register(node, place, role.size // role.length) for place in range(role.size // role.length)]

    def piece_lines(self, group: Group) -> None:
        for node in group.nodes:
            role = self.roles[node]
            for piece in self.pieces(node, group):
                value, parts = self.value(node, piece, group)
                text = written(value, self.texts)
                if len(text) > LONGEST and parts:
                    self.longest = max(parts, key=lambda part: len(written(self.registers[part], self.texts)))[0]
                if isinstance(role, Sum):
                    self.script.write(f"{self.totals(node)[piece * group.width // role.length]} += {text}")
                elif node in self.kernel.stored:
                    self.store(node, piece, group, value, text)
                elif self.is_taken_in(node, piece, value):
                    self.registers[node, piece] = value
                    self.taken_in[id(value)] = [*parts, (node, piece)]
                else:
                    name = self.register(node, piece, len(self.pieces(node, group)))
                    self.script.write(f"{name} = {text}")
                    self.registers[node, piece] = self.named(name, node)

    def is_taken_in(self, node: Tensor, piece: int, value: Value) -> bool:
        """Whether a number has no line of its own: the only line that reads it takes in how it is computed."""
        if is_named(node):
            return False
        once = self.uses.get((node, piece), 0) == 1 and node not in self.apart | self.outside
        return once or value.op in ("operand", "constant")

    def store(self, node: Tensor, piece: int, group: Group, value: Value, text: str) -> None:
        """Write the line of a number that goes to memory, and into a register if that is read."""
        width = self.width(node, group)
        place = self.kernel.element(node, piece * width, width, True)
        is_read = (node, piece) in self.uses and value.op not in ("operand", "constant")
        if place == self.script.array(node):  # a number, for one timestep
            name = place
        elif is_read or self.script.has_own_name(node):
            name = self.register(node, piece, len(self.pieces(node, group)))
            place = f"{name} = {place}"
        else:
            name = ""
        self.script.write(f"{place} = {text}")
        self.registers[node, piece] = self.named(name, node) if name else value

    def register(self, node: Tensor, piece: int, count: int) -> str:
        """The name of the register of a piece of a node, one of so many."""
        script, is_stored = self.script, node in self.kernel.stored
        width = row_size(node, self.rows) // count
        view = self.kernel.view_names.get((node, piece * width, width))
        if count > 1 and view is not None:
            found = view
        elif is_stored and not script.has_own_name(node):
            found = script.local(node, piece, f"{script.array(node)}_{piece if count > 1 else script.t}")
        else:
            found = script.own[node] if count == 1 else script.local(node, piece, f"{script.own[node]}_{piece}")
        if not is_stored:
            self.kernel.registers[found] = None
        return found

    # --- expressions ---

    def named(self, name: str, node: Tensor) -> Value:
        """A name as a value."""
        self.texts.append(name)
        return Value("operand", (len(self.texts) - 1,), node.dtype)

    def value(self, node: Tensor, piece: int, group: Group) -> tuple[Value, list[tuple[Tensor, int]]]:
        """The expression of a piece, and which registers' expressions it takes in."""
        role = self.roles[node]
        operands: dict[int, Value] = {}
        parts: list[tuple[Tensor, int]] = []
        for i, read in self.read_by(node, piece, group):
            register, first, width = self.found_in(read, node, piece, group)
            if register is None:
                operands[i] = self.named(self.kernel.element(read.operand, first, width, read.per_row), read.operand)
            else:
                operands[i] = found = self.registers[register]
                parts += self.taken_in.get(id(found), [])
        if isinstance(role, Element):
            return self.substituted(role.expression, operands), parts
        if not operands:
            return Value("constant", (0.0 if node.dtype.kind == "f" else False,), node.dtype), parts
        return next(iter(operands.values())), parts

    def substituted(self, value: Value, operands: dict[int, Value]) -> Value:
        """An expression in terms of others."""
        if value.op == "operand":
            return operands[value.args[0]]
        if value.op == "constant":
            number = value.args[0]
            plain = bool(number) if value.dtype.kind == "b" else float(number)
            self.script.functions.update({"inf", "nan"} & {repr(abs(plain))})
            return Value("constant", (plain,), value.dtype)
        self.script.functions.update({str(value.dtype) if value.op == "cast" else value.op} & set(FUNCTIONS))
        args = tuple(self.substituted(each, operands) for each in value.args)
        if value.op == "add" and args[1].op == "negative":
            return Value("subtract", (args[0], args[1].args[0]), value.dtype)
        return Value(value.op, args, value.dtype)


# --- small things ----------------------------------------------------------------------------------------


def is_named(node: Tensor) -> bool:
    """Whether someone gave a node its name: it is not made of its operation and a number."""
    if node._name is None or node.primitive is None:
        return node._name is not None
    return not re.fullmatch(rf"{re.escape(node.primitive.name)}_\d+", node._name.text)


def occurrences(value: Value, operand: int) -> int:
    """How often an operand appears in an expression."""
    if value.op == "operand":
        return int(value.args[0] == operand)
    return sum(occurrences(each, operand) for each in value.args) if value.op != "constant" else 0


def unravelled(axes: Sequence[int], first: int, column: str, width: int) -> list[str]:
    """The indices, axis by axis, of element `first` + column of an array's elements, for columns below `width`.

    >>> unravelled((8,), 2, "k", 4), unravelled((2, 4), 4, "k", 4), unravelled((2, 4), 1, "", 1)
    (['k + 2'], ['1', 'k'], ['0', '1'])
    >>> unravelled((2, 4), 0, "k", 8)
    (['k // 4', 'k % 4'])
    """
    found: list[str] = []
    last = first + width - 1 if column else first
    for axis, size in enumerate(axes):
        apart = math.prod(axes[axis + 1 :])
        if first // apart == last // apart:
            found.append(str(first // apart % size))
            continue
        around = first // (apart * size) * apart * size  # what the axes before this one have taken
        stays = last // (apart * size) == first // (apart * size)
        offset = first - around if stays else first
        text = f"{column} + {offset}" if offset else column
        grouped = f"({text})" if " " in text else text
        if apart > 1:
            text = grouped = f"{grouped} // {apart}"
        found.append(text if stays else f"{grouped} % {size}")
    return found


def shape_text(sizes: Sequence[Any]) -> str:
    """A shape as Python writes it.

    >>> shape_text((3, 4)), shape_text(("T",)), shape_text(())
    ('(3, 4)', '(T,)', '()')
    """
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(map(str, sizes))})"


def wrapped(start: str, text: str, indent: str) -> list[str]:
    """A list of names in lines that are not too long."""
    lines = [start]
    for number, word in enumerate(text.split(", ")):
        word = word if number == text.count(", ") else f"{word}, "
        if len(lines[-1]) + len(word) > WIDTH:
            lines.append(indent)
        lines[-1] += word
    return [line.rstrip() for line in lines]
