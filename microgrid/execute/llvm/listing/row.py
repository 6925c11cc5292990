"""The sweeps over one row as lines of Python: one for each number, with what only it reads taken in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from microgrid.execute.llvm.elements import Value, written
from microgrid.execute.llvm.kernels import Group
from microgrid.execute.llvm.listing.names import FUNCTIONS, is_named
from microgrid.execute.llvm.listing.text import WIDTH, occurrences, plain
from microgrid.execute.llvm.roles import Element, Fold, Move, Read, row_size
from microgrid.execute.llvm.storage import hands_over
from microgrid.tensor import Tensor

if TYPE_CHECKING:
    from microgrid.execute.llvm.listing.kernel import KernelText

Piece = tuple[Tensor, int]
"""A node, and the number of a piece of its row."""


class RowText:
    """The sweeps over one row, up to the next product.

    Attributes
    ----------
    values : dict of Piece → Value
        What is in registers: a name, or an expression that the line which reads it takes in.
    apart : set of Tensor
        Nodes with lines of their own, as lines that took them in would be too long.
    """

    def __init__(self, kernel: KernelText, groups: Sequence[Group]) -> None:
        self.kernel = kernel
        self.script, self.names = kernel.script, kernel.names
        self.groups = groups
        self.rows, self.roles = kernel.kernel.rows, kernel.kernel.roles
        self.words: list[str] = []
        self.values: dict[Piece, Value] = {}
        self.taken_in: dict[int, list[Piece]] = {}
        self.apart: set[Tensor] = set()
        self.too_long: Tensor | None = None
        self.uses: dict[Piece, int] = {}
        self.read_elsewhere: set[Tensor] = set()
        """Nodes that another loop over columns reads than computes them."""
        home = {node: group for group in groups for node in group.nodes}
        for group in groups:
            for node in group.nodes:
                for piece in self.pieces(node, group):
                    self.count_uses(node, piece, group, home)

    def write(self) -> None:
        start = len(self.script.lines)
        while True:
            self.values, self.taken_in, self.too_long = {}, {}, None
            for group in self.groups:
                self.write_group(group)
            if self.too_long is None:
                return
            self.apart.add(self.too_long)
            del self.script.lines[start:]

    # --- who reads what ---

    def pieces(self, node: Tensor, group: Group) -> range:
        """The numbers of a node's pieces; of what a sum adds up."""
        role = self.roles[node]
        size = role.size if isinstance(role, Fold) else row_size(node, self.rows)
        return range(size // self.width(node, group))

    def width(self, node: Tensor, group: Group) -> int:
        return group.width if self.is_wide(node) else 1

    def is_wide(self, node: Tensor) -> bool:
        """Whether a node is computed in a loop over columns; otherwise it is one number of a row."""
        return isinstance(self.roles[node], Fold) or row_size(node, self.rows) > 1

    def reads(self, node: Tensor, piece: int, group: Group) -> list[tuple[int, Read]]:
        """(number of the operand, how it is read) for a piece of a node."""
        role = self.roles[node]
        if isinstance(role, Fold):
            return [(0, role.read)]
        if isinstance(role, Move):
            k = 0 if role.source is None else int(role.source[piece * self.width(node, group)])
            return [(k, role.reads[k])] if k >= 0 else []
        assert isinstance(role, Element)
        return [(i, read) for i, read in enumerate(role.reads) if read is not None]

    def register_read(self, read: Read, node: Tensor, piece: int, group: Group) -> Piece | None:
        """The piece in registers that a piece of a node reads; None if it reads memory."""
        x, kernel = read.operand, self.kernel
        if x not in kernel.layout.buffer or not hands_over(read, node, kernel.section, kernel.kernel):
            return None
        at = piece * self.width(node, group)
        first = at if read.index is None else int(read.index[at])
        return x, 0 if row_size(x, self.rows) == 1 else first // group.width

    def memory_read(self, read: Read, node: Tensor, piece: int, group: Group) -> str:
        """The element of memory that a piece of a node reads."""
        width = self.width(node, group)
        at = first = piece * width
        if read.index is not None:
            first = int(read.index[at])
            if width > 1 and int(read.index[at + 1]) == first:
                width = 1
        size = row_size(read.operand, self.rows) if read.per_row else read.operand.size
        return self.kernel.element(read.operand, first, 1 if size == 1 else width, read.per_row)

    def count_uses(self, node: Tensor, piece: int, group: Group, home: dict[Tensor, Group]) -> None:
        role = self.roles[node]
        for i, read in self.reads(node, piece, group):
            found = self.register_read(read, node, piece, group)
            if found is None:
                continue
            self.uses[found] = self.uses.get(found, 0) + (
                occurrences(role.expression, i) if isinstance(role, Element) else 1
            )
            wide = self.is_wide(node), self.is_wide(found[0])
            if wide[0] != wide[1] or (all(wide) and home[found[0]] is not group):
                self.read_elsewhere.add(found[0])

    # --- lines ---

    def write_group(self, group: Group) -> None:
        script = self.script
        totals = {node: self.totals(node) for node in group.nodes if isinstance(self.roles[node], Fold)}
        for node, names in totals.items():
            for name in names:
                script.write(f"{name} = {'0.0' if self.fold(node).op == 'add' else '-inf'}")
        if any(self.width(node, group) > 1 for node in group.nodes):
            with script.block(f"for {self.names.k} in range({group.width}):"):
                self.write_pieces(group)
        else:
            self.write_pieces(group)
        for node, names in totals.items():
            for place, name in enumerate(names):
                if node in self.kernel.stored:
                    script.write(f"{self.kernel.element(node, place, 1)} = {name}")
            if len(names) == 1:
                self.values[node, 0] = self.named(names[0], node)

    def fold(self, node: Tensor) -> Fold:
        role = self.roles[node]
        assert isinstance(role, Fold)
        return role

    def totals(self, node: Tensor) -> list[str]:
        """The registers in which sums grow."""
        role = self.fold(node)
        count = role.size // role.length
        return [self.register(node, place, count) for place in range(count)]

    def write_pieces(self, group: Group) -> None:
        for node in group.nodes:
            for piece in self.pieces(node, group):
                value, parts = self.value(node, piece, group)
                if self.is_taken_in(node, piece, value):
                    self.values[node, piece] = value
                    self.taken_in[id(value)] = [*parts, (node, piece)]
                    continue
                text = written(value, self.words)
                if value.op == "select":
                    text = text[1:-1]
                self.write_line(node, piece, group, value, text)
                if len(self.script.lines[-1]) > WIDTH and parts:
                    self.too_long = max(parts, key=lambda part: len(written(self.values[part], self.words)))[0]

    def is_taken_in(self, node: Tensor, piece: int, value: Value) -> bool:
        """Whether a number has no line: nobody named it, and it is read once, or only brought elsewhere."""
        if is_named(node) or node in self.kernel.stored or isinstance(self.roles[node], Fold):
            return False
        once = self.uses.get((node, piece), 0) == 1 and node not in self.apart | self.read_elsewhere
        return once or value.op in ("operand", "constant")

    def write_line(self, node: Tensor, piece: int, group: Group, value: Value, text: str) -> None:
        role, script, key = self.roles[node], self.script, (node, piece)
        if isinstance(role, Fold):
            total = self.totals(node)[piece * group.width // role.length]
            if role.op == "maximum":
                script.functions.update({"inf", "maximum"})
                script.write(f"{total} = maximum({total}, {text})")
                return
            sign = "-" if value.op == "negative" else "+"
            script.write(f"{total} {sign}= {text.removeprefix('-') if sign == '-' else text}")
            return
        count, width = len(self.pieces(node, group)), self.width(node, group)
        if node not in self.kernel.stored:
            places = [self.register(node, piece, count)]
        else:
            places = [self.kernel.element(node, piece * width, width)]
            is_read = key in self.uses and value.op not in ("operand", "constant") and places[0].endswith("]")
            if is_read or self.names.has_own_name(node):
                places.insert(0, self.register(node, piece, count))
        script.write(" = ".join([*places, text]))
        self.values[key] = value if places[0].endswith("]") else self.named(places[0], node)

    def register(self, node: Tensor, piece: int, count: int) -> str:
        """The name of the register of a piece of a node, one of so many."""
        names, is_stored = self.names, node in self.kernel.stored
        width = row_size(node, self.rows) // count
        if count > 1:
            view = self.kernel.view_names.get((node, piece * width, width))
            found = view or names.register(node, piece, f"{names.own[node]}_{piece}")
        elif is_stored and not names.has_own_name(node):
            found = names.register(node, piece, f"{names.array(node)}_{names.t}")
        else:
            found = names.own[node]
        if not is_stored:
            self.kernel.registers[found] = None
        return found

    # --- expressions ---

    def named(self, name: str, node: Tensor) -> Value:
        """A name as a value."""
        self.words.append(name)
        return Value("operand", (len(self.words) - 1,), node.dtype)

    def value(self, node: Tensor, piece: int, group: Group) -> tuple[Value, list[Piece]]:
        """The expression of a piece, and what it takes in."""
        role = self.roles[node]
        operands: dict[int, Value] = {}
        parts: list[Piece] = []
        for i, read in self.reads(node, piece, group):
            register = self.register_read(read, node, piece, group)
            if register is None:
                operands[i] = self.named(self.memory_read(read, node, piece, group), read.operand)
            else:
                operands[i] = self.values[register]
                parts += self.taken_in.get(id(self.values[register]), [])
        if isinstance(role, Element):
            return self.in_terms_of(operands, role.expression), parts
        if not operands:
            return plain(Value("constant", (0.0,), node.dtype)), parts
        return next(iter(operands.values())), parts

    def in_terms_of(self, operands: dict[int, Value], value: Value) -> Value:
        """An expression with others in place of its operands."""
        if value.op == "operand":
            return operands[value.args[0]]
        if value.op == "constant":
            value = plain(value)
            self.script.functions.update({"inf", "nan"} & {repr(abs(value.args[0]))})
            return value
        self.script.functions.update({str(value.dtype) if value.op == "cast" else value.op} & set(FUNCTIONS))
        args = tuple(self.in_terms_of(operands, each) for each in value.args)
        if value.op == "add" and args[1].op == "negative":
            return Value("subtract", (args[0], args[1].args[0]), value.dtype)
        return Value(value.op, args, value.dtype)
