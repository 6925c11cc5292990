"""What is written on a node, and how much room it takes.

Widths are reckoned here, from Helvetica's own, so that a layout is the same on every machine.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from microgrid.leaves import Parameter, State
from microgrid.ops.index import Slot
from microgrid.tensor import PYTHON_NUMBERS, Tensor
from viz import theme


class Line(NamedTuple):
    """A line of text, and its font size in points."""

    text: str
    size: float

    @property
    def area(self) -> tuple[float, float]:
        return text_width(self.text, self.size), 1.2 * self.size


class Strip(NamedTuple):
    """An array as a row of coloured cells, of numbers from −1 to 1."""

    cells: tuple[float, ...]

    @property
    def area(self) -> tuple[float, float]:
        return len(self.cells) * self.cell_width + 2.0, theme.CELL_HEIGHT + 3.0

    @property
    def cell_width(self) -> float:
        return min(12.0, max(theme.CELL_WIDTH, 48.0 // len(self.cells)))


Array: TypeAlias = "np.ndarray[Any, Any]"

LONGEST = 28
"""Characters of a line; a longer name is cut in the picture and whole in its tooltip."""


LONGEST_OPERAND = 10
"""Characters of an operand's name written on the operation that reads it."""


LEADING = 2.0
"""Between two lines, in points: the tails of the upper one stay clear of the lower one."""

LID = 14.0
"""The room that the lid of a high cylinder takes, in points."""


@dataclass(frozen=True, slots=True)
class Content:
    """The lines of a node, the kind that decides its look, and its tooltip."""

    lines: tuple[Line | Strip, ...]
    kind: str
    tooltip: str

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in points, with room for the outline of the kind."""
        width = max(line.area[0] for line in self.lines)
        height = sum(line.area[1] for line in self.lines) + LEADING * (len(self.lines) - 1)
        if self.kind in {"input", "state"}:  # an ellipse around text, or around the corners of strips
            more = 1.3 if self.is_plain else 1.42
            return max(34.0, more * width + 12), max(30.0, more * height + 6)
        if self.kind == "reduction":  # slanted sides
            return max(44.0, width + 40), max(30.0, height + 16)
        if self.kind == "output":  # a double outline
            return max(44.0, width + 24), max(30.0, height + 18)
        if self.kind == "parameter":
            return max(36.0, width + 16), max(32.0, height + 21 + LID * (len(self.lines) > 2))
        if self.kind in {"cell", "part"}:
            return max(72.0, width + 28), max(46.0, height + 20)
        if self.kind in {"output cell", "output part"}:
            return max(80.0, width + 36), max(54.0, height + 28)
        return max(30.0, width + 14), max(24.0, height + 9)

    def markup(self, look: theme.Theme) -> str:
        """The lines as a Graphviz HTML-like label, with all text escaped."""
        rows = [marked_up(line, look) for line in self.lines]
        if len(rows) == 1 and self.is_plain:
            return f"<{rows[0]}>"
        first, *others = (f"<td>{row}</td>" for row in rows)
        cells = "".join(
            f"<tr>{row}</tr>" for row in [first, *(f'<td height="{LEADING:g}"></td></tr><tr>{x}' for x in others)]
        )
        if self.kind == "parameter" and len(self.lines) > 2:
            cells = f'<tr><td height="{LID:g}"></td></tr>{cells}'
        return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0">{cells}</table>>'

    @property
    def is_plain(self) -> bool:
        """Whether it is text alone."""
        return not any(isinstance(line, Strip) for line in self.lines)


def marked_up(line: Line | Strip, look: theme.Theme) -> str:
    """A line in Graphviz's HTML-like language."""
    if isinstance(line, Strip):
        width, height = line.area
        cell = f'<td fixedsize="true" width="{line.cell_width:g}" height="{theme.CELL_HEIGHT:g}" bgcolor="{{}}"></td>'
        cells = "".join(cell.format(look.signed(share)) for share in line.cells)
        return (
            f'<table border="1" color="{look.quiet_ink}" cellborder="0" cellspacing="0" cellpadding="0" '
            f'fixedsize="true" width="{width:g}" height="{height:g}">'
            f"<tr>{cells}</tr></table>"
        )
    escaped = html.escape(line.text).replace("\\", "\\\u2060")  # else Graphviz reads \\N as the node's id
    if line.size != theme.MAIN_SIZE:
        escaped = f'<font point-size="{line.size:g}" color="{look.quiet_ink}">{escaped}</font>'
    return escaped


def content(
    shown: Sequence[Tensor],
    name: str | None,
    kind: str,
    *,
    full_name: str | None = None,
    operation: str | None = None,
    follows: str | None = None,
    operands: Sequence[str | None] = (),
    values: bool = False,
    gradients: bool = False,
) -> list[Content]:
    """What to write on each copy of a node.

    `full_name` stands in its tooltip; `operation` is what it does, if its primitive alone does not tell; `follows`
    names the state whose next it is, `operands` are the names of what it reads; `values` and `gradients` add the
    numbers it holds.
    """
    node = shown[0]
    own = name or (f"{follows}′" if follows else None)
    if node.primitive is None or kind in {"input", "parameter", "state"}:
        first = own or constant_text(node)
        whole = full_name or first
    else:
        operation = operation or operation_text(node, operands)
        first = f"{own} = {operation}" if own else operation
        whole = f"{full_name} = {operation}" if full_name else first
    written = []
    for copy, numbers in zip(shown, numbers_on(shown, values=values, gradients=gradients), strict=True):
        shape = shape_text(copy)
        lines = [Line(shortened(first), theme.MAIN_SIZE), *([Line(shape, theme.SMALL_SIZE)] if shape else []), *numbers]
        told = printable(whole) + (f" : {shape}" if shape else " : scalar")
        written.append(Content(tuple(lines), kind, told))
    return written


def part_content(
    name: str,
    members: Sequence[Tensor],
    shown: Sequence[Tensor],
    kind: str,
    *,
    result: str | None,
    values: bool,
    gradients: bool,
) -> list[Content]:
    """What to write on each copy of a part of the network, of which `shown` are the results, called `result`."""
    inside = [node for node in members if isinstance(node, Parameter)]
    operations = sum(node.primitive is not None and not isinstance(node, State) for node in members)
    count = sum(node.size for node in inside)
    states = ", ".join(node._name.text for node in members if isinstance(node, State) and node._name is not None)
    weights = f"{count:,} {'shared ' * (len(shown) > 1)}weight{'s' if count != 1 else ''}"
    told = f"{printable(name)}: {operations} operation{'s' if operations != 1 else ''}"
    if inside:
        told += f", parameters {', '.join(printable(node.name or 'unnamed') for node in inside)}"
    written = []
    for copy, numbers in zip(shown, numbers_on(shown, values=values, gradients=gradients), strict=True):
        lines = [Line(shortened(f"{result} = {name}" if result not in (None, name) else name), theme.MAIN_SIZE)]
        about = [f"state {states}" * (states not in ("", name)), shape_text(copy), weights * bool(inside)]
        lines += [Line(shortened(text), theme.SMALL_SIZE) for text in about if text]
        written.append(Content((*lines, *numbers), kind, told))
    return written


def shape_text(node: Tensor) -> str:
    return " × ".join(map(str, node.shape)) if node.ndim != 1 else f"({node.shape[0]},)"


def numbers_on(shown: Sequence[Tensor], *, values: bool, gradients: bool) -> list[list[Line | Strip]]:
    """The values and gradients of the copies of a node, those of arrays on one scale for all copies."""
    found: list[list[Line | Strip]] = [[] for _ in shown]
    for word, wanted, held in (
        ("value", values, [copy.value for copy in shown]),
        ("grad", gradients, [copy.grad for copy in shown]),
    ):
        if not wanted:
            continue
        rows = [profile(number) if number is not None and np.ndim(number) else None for number in held]
        largest = max((float(np.max(np.abs(row))) for row in rows if row is not None and row.size), default=0.0) or 1.0
        for lines, number, row in zip(found, held, rows, strict=True):
            if number is not None:
                lines.append(Line(f"{word} {number_text(number)}", theme.SMALL_SIZE))
            if row is not None and row.size > 1:
                lines.append(Strip(tuple((row / largest).tolist())))
    return found


def profile(array: Any) -> Array:
    """An array as at most so many finite numbers as a strip has cells.

    Along the last axis; over the others, where there are several, the root mean square. Several neighbours that
    share a cell are shown by the largest of them.
    """
    rows = np.nan_to_num(np.asarray(array, dtype=float), posinf=0.0, neginf=0.0)
    rows = rows.reshape(-1, rows.shape[-1]) if rows.size else np.zeros((1, 0))
    row: Array = rows[0] if len(rows) == 1 else np.sqrt(np.mean(np.square(rows), axis=0))
    if row.size <= theme.MOST_CELLS:
        return row
    return np.array([part[np.argmax(np.abs(part))] for part in np.array_split(row, theme.MOST_CELLS)])


def is_folded(node: Tensor) -> bool:
    """Whether a node is an unnamed number, written on the operations that use it."""
    return node.primitive is None and type(node) is Tensor and node.name is None and node.ndim == 0


def operation_text(node: Tensor, names: Sequence[str | None] = ()) -> str:
    """The operation's sign, with plain numbers and short names of its operands: "+ 1", "h @ U", "tanh"."""
    primitive = node.primitive
    assert primitive is not None
    if "·" in primitive.label and len(node.operands) == 1 and names and names[0] and len(names[0]) <= LONGEST_OPERAND:
        return primitive.label.replace("(·)", names[0]).replace("·", names[0])
    if primitive.name == "getitem":
        return f"[{index_text(node.params['template'])}]"
    if len(node.operands) == 2 and not primitive.over_time:
        left, right = node.operands
        written = [operand_text(operand, name) for operand, name in zip(node.operands, names, strict=False)]
        if len(primitive.label) == 1 and len(written) == 2 and all(written):
            return f"{written[0]} {primitive.label} {written[1]}"
        unnamed = "(·) " if primitive.label in "−÷^" else ""  # the order matters: show where the other operand goes
        if is_folded(right) and not is_folded(left):
            return f"{unnamed}{primitive.label} {number_text(right.value)}"
        if is_folded(left) and not is_folded(right):
            return f"{number_text(left.value)} {primitive.label} {unnamed}".rstrip()
    return primitive.label


def operand_text(node: Tensor, name: str | None) -> str:
    """A short operand as it is written beside its operation's sign; nothing for a long or unnamed one."""
    if is_folded(node):
        return number_text(node.value)
    return name if name and len(name) <= LONGEST_OPERAND else ""


def index_text(template: Any) -> str:
    """An index as it is written: "0:4, :"."""
    if isinstance(template, tuple):
        return ", ".join(map(index_text, template))
    if isinstance(template, slice):
        ends = [template.start, template.stop] + ([template.step] if template.step is not None else [])
        return ":".join("" if end is None else str(end) for end in ends)
    if template is Ellipsis:
        return "…"
    if isinstance(template, Slot):
        return "·"
    if isinstance(template, np.ndarray | list):
        return f"{np.size(template)} indices"
    return str(template)


def constant_text(node: Tensor) -> str:
    return number_text(node.value) if node.ndim == 0 else "constant"


def number_text(value: Any) -> str:
    """A scalar as a short number; of an array, its Euclidean norm."""
    if np.ndim(value):
        return f"‖{np.linalg.norm(np.asarray(value, dtype=float)):.3g}‖"
    plain = value if type(value) in PYTHON_NUMBERS else np.asarray(value).item()
    return f"{plain:.4g}".replace("-", "−") if isinstance(plain, float) else str(plain)


def printable(text: str) -> str:
    """The text without characters that no picture or XML file can hold."""
    return "".join(" " if unicodedata.category(c) in {"Cc", "Cs", "Cn", "Zl", "Zp"} else c for c in text) or " "


def shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


NARROW, WIDE = frozenset("ijl.,:;!|'′ ()[]ft-/"), frozenset("mwMW@%—…")


def text_width(text: str, size: float) -> float:
    """About the width of a text in Helvetica, in points; a little generous."""
    units = 0.0
    for c in text:
        if unicodedata.east_asian_width(c) in "WF":
            units += 1.05
        elif c in NARROW:
            units += 0.34
        elif c in WIDE:
            units += 0.98
        else:
            units += 0.7 if c.isupper() else 0.6
    return math.ceil(units * size)
