"""A kernel as Python: its memory, its loops over timesteps and rows, and its products of matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from microgrid.execute.llvm.kernels import Group, Kernel, Level, Section
from microgrid.execute.llvm.listing.row import RowText
from microgrid.execute.llvm.listing.text import WIDTH, shape_text, unravelled, wrapped
from microgrid.execute.llvm.roles import Product, Read, Reader, row_size
from microgrid.execute.llvm.storage import root
from microgrid.execute.memory import Buffer
from microgrid.leaves import Parameter, State
from microgrid.tensor import Tensor

if TYPE_CHECKING:
    from microgrid.execute.llvm.listing.script import Script

KEPT = {
    "kept": "kept for all timesteps",
    "chunk": "for the timesteps of a chunk",
    "ring": "a ring of two timesteps",
    "step": "for one timestep",
}


class KernelText:
    """The lines of one kernel.

    Attributes
    ----------
    registers : dict of str
        The names of what lies only in registers.
    view_names : dict of (node, first element, size) → str
        What parts of rows are called after the views that show them.
    """

    def __init__(self, script: Script, kernel: Kernel) -> None:
        self.script = script
        self.names = script.names
        self.kernel = kernel
        self.layout, self.stored = script.layout, script.plan.stored
        self.section: Section = kernel.sections[0]
        self.registers: dict[str, None] = {}
        self.view_names: dict[tuple[Tensor, int, int], str] = {}
        reader = Reader(kernel.rows, kernel.by_rows, script.graph.varying)
        for view in script.views:
            read = reader.behind_views(Read(view, None, True)) if reader.fits(view) else None
            if read is not None and read.index is not None and read.operand in kernel.roles:
                first, size = int(read.index[0]), row_size(view, kernel.rows)
                if np.array_equal(read.index, first + np.arange(size)):
                    self.view_names[read.operand, first, size] = self.names.own[view]

    def write(self) -> None:
        for section in self.kernel.sections:
            self.section = section
            if section.kind == "loop":
                with self.timesteps():
                    self.write_levels(section.levels)
            else:
                self.write_over_all(section)

    def comments(self) -> list[str]:
        """What is to be said of the kernel once it is written."""
        in_chunks = any(self.layout.buffer[root(node)].kind == "chunk" for node in self.kernel.nodes)
        found = ["# takes a chunk of timesteps that fits into the cache, then the next"] if in_chunks else []
        if self.registers:
            found += wrapped("# in registers only: ", list(self.registers), "#     ")
        return found

    # --- memory ---

    def write_memory(self) -> None:
        """The arrays that the kernel writes, and the initial values of its states."""
        script, names = self.script, self.names
        inside = set(self.kernel.nodes)
        states = [node for node in self.kernel.nodes if isinstance(node, State)]
        alike: dict[tuple[Any, ...], list[Buffer]] = {}
        for buffer in self.layout.buffers():
            if buffer.owner not in inside or buffer.kind in ("given", "none"):
                continue
            if buffer.state is not None and buffer.state in script.plan.by_numpy:  # which reads it, and knows no start
                states.append(buffer.state)
            if not self.makes_its_array(buffer.owner):
                looks = buffer.kind, buffer.state is not None, buffer.row_shape, buffer.owner.dtype
                alike.setdefault(looks, []).append(buffer)
        for (kind, has_past, shape, dtype), buffers in alike.items():
            what = KEPT[kind] + ("; [-1] is the initial value" if has_past and kind == "kept" else "")
            steps = {"step": [], "ring": ["2"]}.get(kind, [f"{names.T} + 1" if has_past else names.T])
            if dtype == np.float32:
                script.functions.add("float32")
            for line in wrapped("", [names.array(buffer.owner) for buffer in buffers], "", WIDTH // 2):
                count = line.count(",") + (not line.endswith(","))
                sizes = [*([count] if count > 1 else []), *steps, *self.row_shape(shape)]
                given = [str(sizes[0]) if len(sizes) == 1 else shape_text(sizes)]
                given += [str(dtype)] if dtype != np.float64 else []
                made = f"{line.removesuffix(',')} = empty({', '.join(given)})"
                script.lines += [f"{made}  # {what}"] if len(made + what) < WIDTH - 4 else [f"# {what}", made]
        self.write_starts(states)

    def row_shape(self, shape: tuple[int, ...]) -> list[Any]:
        """The shape of a row, in which the batch goes by its name."""
        if self.script.rows and self.kernel.by_rows and shape[:1] == (self.script.rows,):
            return [self.names.batch, *shape[1:]]
        return list(shape)

    def makes_its_array(self, node: Tensor) -> bool:
        """Whether the line that computes a node makes what it is kept in: a product of matrices, or one number."""
        buffer = self.layout.buffer[node]
        if not isinstance(self.kernel.roles[node], Product):
            return buffer.kind == "step" and not node.shape
        in_loop = any(section.kind == "loop" and node in section.depth for section in self.kernel.sections)
        return buffer.kind == "step" or (not in_loop and buffer.state is None and self.is_of_whole_arrays(node))

    def write_starts(self, states: Sequence[State]) -> None:
        """The initial values, where the index of the timestep before the first one finds them."""
        script = self.script
        starts: dict[str, list[str]] = {}
        for state in states:
            buffer, name = self.layout.buffer[state], self.names.array(state)
            place = "-1"
            if buffer.owner is state:  # its next is the same at all timesteps
                script.write(f"{name}[:] = {script.static(state.next)}")
                place = "-1" if state.reverse else "0"
            elif buffer.kind == "ring" and state.reverse:
                place = f"{self.names.T} % 2"
            starts.setdefault(self.start(state), []).append(f"{name}[{place}]")
        for value, places in starts.items():
            script.write(" = ".join([*places, value]))

    def start(self, state: State) -> str:
        """The initial value of a state: as a number, if it is one that nobody named."""
        initial = state.initial
        if initial.primitive is None and initial._name is None and not isinstance(initial, Parameter) and initial.size:
            numbers = np.asarray(initial.value)
            if np.all(numbers == numbers.flat[0]):
                return repr(numbers.flat[0].item())
        return self.script.static(initial)

    # --- loops ---

    @contextmanager
    def timesteps(self) -> Iterator[None]:
        names = self.names
        steps = f"reversed(range({names.T}))" if self.kernel.reverse else f"range({names.T})"
        order = "" if self.section.kind == "loop" else "  # in any order"
        with self.script.block(f"for {names.t} in {steps}:{order}"):
            yield

    def write_over_all(self, section: Section) -> None:
        """Level by level over all timesteps: sweeps between products in one loop."""
        waiting: list[Level] = []

        def sweep() -> None:
            if any(level.groups for level in waiting):
                with self.timesteps():
                    self.write_levels(waiting)
            waiting.clear()

        for level in section.levels:
            waiting.append(Level(level.groups))
            if level.products:
                sweep()
                for node in level.products:
                    self.write_product_of_all(node)
        sweep()

    def write_levels(self, levels: Sequence[Level]) -> None:
        """One timestep: rows, through all sweeps up to the next product."""
        waiting: list[Group] = []
        for level in levels:
            waiting += level.groups
            if level.products:
                self.write_rows(waiting)
                waiting = []
                for node in level.products:
                    what = f"  # {KEPT['step']}" if self.layout.buffer[node].kind == "step" else ""
                    self.script.write(f"{self.script.at(node)} = {self.product(node)}{what}")
        self.write_rows(waiting)

    def write_rows(self, groups: Sequence[Group]) -> None:
        script, names = self.script, self.names
        if not groups:
            return
        if self.kernel.rows == 1:
            RowText(self, groups).write()
            return
        with script.block(f"for {names.row} in range({names.batch if script.rows else self.kernel.rows}):"):
            RowText(self, groups).write()

    # --- products ---

    def role_of(self, product: Tensor) -> Product:
        role = self.kernel.roles[product]
        assert isinstance(role, Product)
        return role

    def is_of_whole_arrays(self, node: Tensor) -> bool:
        """Whether a product of all timesteps is one expression."""
        source = self.role_of(node).source
        buffer = self.layout.buffer[source]
        is_read_as_it_is = any(source is x for x in node.operands)
        return is_read_as_it_is and buffer.kind in ("given", "kept", "chunk") and buffer.state is not source

    def write_product_of_all(self, node: Tensor) -> None:
        script, buffer, role = self.script, self.layout.buffer[node], self.role_of(node)
        if not self.is_of_whole_arrays(node):
            with self.timesteps():
                script.write(f"{script.at(node)} = {self.product(node)}")
            return
        target, source = (
            self.names.array(x) if self.layout.buffer[x].state is None else f"{self.names.array(x)}[:{self.names.T}]"
            for x in (node, role.source)
        )
        script.write(f"{target} = {source} @ {self.weight(role)}  # {KEPT[buffer.kind]}, at once")

    def weight(self, role: Product, left: bool = False) -> str:
        """The matrix by which rows are multiplied; on their left side it is the other way round."""
        name = self.script.static(role.weight)
        return f"{name}.T" if role.transposed != left else name

    def product(self, node: Tensor) -> str:
        """A product at one timestep."""
        role, (x, y) = self.role_of(node), node.operands
        if x in self.script.graph.varying:
            return f"{self.rows_of(role, x)} @ {self.weight(role)}"
        return f"{self.weight(role, left=True)} @ {self.rows_of(role, y)}"

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

    def element(self, x: Tensor, first: int, width: int, per_row: bool = True) -> str:
        """Element `first` of a row of a node in memory, or that of each column k < width behind it."""
        script, names = self.script, self.names
        varying, shape = x in self.layout.buffer, x.shape
        index = [time] if varying and (time := script.time(x)) else []
        if per_row and self.kernel.by_rows and self.kernel.rows > 1:
            index.append(names.row)
            shape = shape[1:]
        index += unravelled(shape, first, names.k, width)
        name = names.array(x) if varying else script.static(x)
        return f"{name}[{', '.join(index)}]" if index else name
