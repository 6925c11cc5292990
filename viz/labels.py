"""What is written on a node, and how much room it takes.

Widths are reckoned here, from Helvetica's own, so that a layout is the same on every machine.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.ops.index import Slot
from microgrid.tensor import PYTHON_NUMBERS, Tensor
from viz import theme

Line = tuple[str, float]
"""Text and font size."""

LONGEST = 28
"""Characters of a line; a longer name is cut in the picture and whole in its tooltip."""


LONGEST_OPERAND = 10
"""Characters of an operand's name written on the operation that reads it."""


@dataclass(frozen=True, slots=True)
class Content:
    """The lines of a node, the kind that decides its look, and its tooltip."""

    lines: tuple[Line, ...]
    kind: str
    tooltip: str

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in points, with room for the outline of the kind."""
        width = max(text_width(text, size) for text, size in self.lines)
        height = sum(1.2 * size for _, size in self.lines)
        if self.kind in {"input", "state"}:  # text in an ellipse
            return max(34.0, 1.3 * width + 12), max(30.0, 1.3 * height + 6)
        if self.kind == "reduction":  # slanted sides
            return max(44.0, width + 40), max(30.0, height + 16)
        if self.kind == "output":  # a double outline
            return max(44.0, width + 24), max(30.0, height + 18)
        if self.kind == "parameter":
            return max(36.0, width + 16), max(32.0, height + 16)
        return max(30.0, width + 14), max(24.0, height + 9)

    @property
    def markup(self) -> str:
        """The lines as a Graphviz HTML-like label, with all text escaped."""
        parts = []
        for text, size in self.lines:
            escaped = html.escape(text).replace("\\", "\\\u2060")  # else Graphviz reads \\N as the node's id
            if size != theme.MAIN_SIZE:
                escaped = f'<font point-size="{size:g}" color="{theme.QUIET_INK}">{escaped}</font>'
            parts.append(escaped)
        return f"<{'<br/>'.join(parts)}>"


def content(
    node: Tensor,
    name: str | None,
    kind: str,
    *,
    operation: str | None = None,
    follows: str | None = None,
    operands: Sequence[str | None] = (),
    values: bool = False,
    gradients: bool = False,
) -> Content:
    """What to write on `node`.

    `operation` is what it does, if its primitive alone does not tell; `follows` names the state whose next
    it is, `operands` are the names of what it reads; `values` and `gradients` add the numbers it holds.
    """
    own = name or (f"{follows}′" if follows else None)
    if node.primitive is None or kind in {"input", "parameter", "state"}:
        first = own or constant_text(node)
    else:
        operation = operation or operation_text(node, operands)
        first = f"{own} = {operation}" if own else operation
    lines: list[Line] = [(shortened(first), theme.MAIN_SIZE)]
    shape = " × ".join(map(str, node.shape)) if node.ndim != 1 else f"({node.shape[0]},)"
    if shape:
        lines.append((shape, theme.SMALL_SIZE))
    if values:
        lines.append((f"value {number_text(node.value)}", theme.SMALL_SIZE))
    if gradients and node.grad is not None:
        lines.append((f"grad {number_text(node.grad)}", theme.SMALL_SIZE))
    told = printable(first) + (f" : {shape}" if shape else " : scalar")
    return Content(tuple(lines), kind, told)


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
