"""Small texts of a listing: shapes, indices, lists of words, and expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from microgrid.execute.llvm.elements import Value

WIDTH = 112
"""Characters of a line from which on it is divided."""


def shape_text(sizes: Sequence[Any]) -> str:
    """A shape as Python writes it.

    >>> shape_text((3, 4)), shape_text(("T",)), shape_text(())
    ('(3, 4)', '(T,)', '()')
    """
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(map(str, sizes))})"


def unravelled(shape: Sequence[int], first: int, column: str, width: int) -> list[str]:
    """The indices, axis by axis, of element `first` + column of an array, for columns below `width`.

    >>> unravelled((8,), 2, "k", 4), unravelled((2, 4), 4, "k", 4), unravelled((2, 4), 1, "", 1)
    (['k + 2'], ['1', 'k'], ['0', '1'])
    >>> unravelled((2, 4), 0, "k", 8)
    ['k // 4', 'k % 4']
    """
    found: list[str] = []
    last = first + width - 1
    for axis, size in enumerate(shape):
        apart = math.prod(shape[axis + 1 :])
        if first // apart == last // apart:
            found.append(str(first // apart % size))
            continue
        around = apart * size
        stays = first // around == last // around  # at one place along the axes before this one
        offset = first % around if stays else first
        text = f"{column} + {offset}" if offset else column
        if apart > 1:
            text = f"({text}) // {apart}" if offset else f"{text} // {apart}"
        found.append(text if stays else f"({text}) % {size}" if " + " in text else f"{text} % {size}")
    return found


def wrapped(start: str, words: Sequence[str], indent: str, width: int = WIDTH, end: str = "") -> list[str]:
    """Words in lines that are not too long, with commas between them."""
    lines = [start]
    for number, word in enumerate(words):
        if len(lines[-1]) + len(word) > width and lines[-1] not in (start, indent):
            lines.append(indent)
        lines[-1] += word if number == len(words) - 1 else f"{word}, "
    return [line.rstrip() for line in [*lines[:-1], lines[-1] + end]]


def plain(value: Value) -> Value:
    """An expression whose constants are numbers of Python."""
    if value.op == "constant":
        number = value.args[0]
        return Value("constant", (bool(number) if value.dtype.kind == "b" else float(number),), value.dtype)
    return value if value.op == "operand" else Value(value.op, tuple(map(plain, value.args)), value.dtype)


def occurrences(value: Value, operand: int) -> int:
    """How often an operand appears in an expression.

    >>> x = Value("operand", (0,), np.dtype(np.float64))
    >>> occurrences(x * x + 1.0, 0)
    2
    """
    if value.op == "operand":
        return int(value.args[0] == operand)
    return sum(occurrences(each, operand) for each in value.args) if value.op != "constant" else 0
