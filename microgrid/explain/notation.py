"""The notation that a primitive declares, read as an expression.

A notation is a formula of the operands x, y, z (or #0, #1, …): "x + y", "x^2", "log(1 + x)", "xᵀ", "|x|",
"Σ_{axis 0} x", "x[#1]". Two operands side by side are a product of matrices, … stands for all operands that are not
named, and x_{T−1} for the operand at a timestep.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace

from microgrid.explain.expression import STEPS, Expression, When, at, number

LEVELS = ("∨", "∧", "=≠<≤>≥", "+−", "⊙/")
"""Infix signs, from those that bind loosest."""

TOKEN = re.compile(r"\s*(_\{[^}]*\}|_t|#\d+|\d+(?:\.\d+)?|[^\W\d]\w*?(?=_\{|_t\b|ᵀ|\W|$)|\S)")
OPERANDS = {"x": 0, "y": 1, "z": 2}
REST = -1
"""The number of the operand … ."""


@functools.lru_cache(maxsize=1024)
def parsed(notation: str) -> Expression:
    """The expression that a notation writes, with leaves of kind "operand".

    Raises ValueError where it is no formula.

    >>> parsed("log(1 + x)").parts[0].word
    '+'
    """
    reader = Reader(notation)
    found = reader.level(0)
    if reader.peek():
        raise ValueError(f"the notation {notation!r} is no formula: {reader.peek()!r} is not expected")
    return found


class Reader:
    """Reads a notation from left to right, one level of binding per call."""

    def __init__(self, notation: str) -> None:
        self.notation = notation
        self.position = 0

    def peek(self) -> str:
        found = TOKEN.match(self.notation, self.position)
        return found.group(1) if found else ""

    def take(self, expected: str = "") -> str:
        found = TOKEN.match(self.notation, self.position)
        if found is None or (expected and found.group(1) != expected):
            raise ValueError(f"the notation {self.notation!r} is no formula: {expected or 'an operand'!r} is missing")
        self.position = found.end()
        return found.group(1)

    def level(self, depth: int) -> Expression:
        if depth == len(LEVELS):
            return self.product_of_matrices()
        left = self.level(depth + 1)
        while self.peek() and self.peek() in LEVELS[depth]:
            left = Expression("infix", self.take(), (left, self.level(depth + 1)))
        return left

    def product_of_matrices(self) -> Expression:
        left = self.signed()
        while self.peek() and (self.peek()[0] == "#" or self.peek()[0].isalpha()):
            left = Expression("infix", "@", (left, self.signed()))
        return left

    def signed(self) -> Expression:
        sign = self.peek()
        if sign in ("Σ", "∏"):
            self.take()
            under = self.subscript()
            return Expression("big", sign, (self.level(len(LEVELS) - 1),), under)
        if sign in ("−", "¬"):
            return Expression("prefix", self.take(), (self.product_of_matrices(),))
        if sign == "√":
            return Expression("prefix", self.take(), (self.powered(),))
        return self.powered()

    def subscript(self) -> str:
        return self.take().removeprefix("_").strip("{}") if self.peek().startswith("_") else ""

    def powered(self) -> Expression:
        found = self.primary()
        while self.peek() and self.peek() in ("ᵀ", "^", "["):
            sign = self.take()
            if sign == "ᵀ":
                found = Expression("transpose", parts=(found,))
            elif sign == "^":
                found = Expression("infix", "^", (found, self.primary()))
            else:
                found = Expression("index", parts=(found, *self.places()))
        return found

    def places(self) -> list[Expression]:
        """The parts of an index up to its bracket: operands, and what is written as it is."""
        end = self.notation.index("]", self.position)
        items = [item.strip() for item in self.notation[self.position : end].split(",")]
        self.position = end + 1
        return [place(item) for item in items]

    def listed(self, separator: str, end: str) -> tuple[Expression, ...]:
        found = [self.level(0)]
        while self.peek() == separator:
            self.take()
            found.append(self.level(0))
        self.take(end)
        return tuple(found)

    def primary(self) -> Expression:
        token = self.take()
        if token == "(":
            return self.listed(",", ")")[0]
        if token == "[":
            first = self.level(0)
            separator = self.peek() if self.peek() in (",", ";") else ","
            rest = self.listed(separator, "]") if self.peek() == separator and self.take() else (self.take("]"), ())[1]
            return Expression("join", separator, (first, *rest))
        if token == "|":
            inner = self.level(0)
            self.take("|")
            return Expression("fence", parts=(inner,))
        if token == "…":
            return Expression("operand", value=REST)
        if token[0] == "#" or token in OPERANDS:
            where = int(token[1:]) if token[0] == "#" else OPERANDS[token]
            return Expression("operand", value=where, when=timestep(self.subscript()))
        if token[0].isdigit():
            return number(float(token) if "." in token else int(token))
        if token == "T":
            return STEPS
        if not token[0].isalpha():
            raise ValueError(f"the notation {self.notation!r} is no formula: {token!r} is not expected")
        under = self.subscript()
        if self.peek() != "(":
            return Expression("raw", token)
        self.take()
        return Expression("call", token, self.listed(",", ")"), under)


def place(item: str) -> Expression:
    """One part of an index."""
    if item in OPERANDS or item.startswith("#"):
        return Expression("operand", value=OPERANDS[item] if item in OPERANDS else int(item[1:]))
    return Expression("time", when=When()) if item == "t" else Expression("raw", item.replace("-", "−"))


def timestep(subscript: str) -> When | None:
    """The timestep that a subscript of an operand says."""
    if not subscript:
        return None
    base, offset = re.fullmatch(r"([tT]?)(.*)", subscript).groups()  # type: ignore[union-attr]
    return When(base, int(offset.replace("−", "-") or 0))


def filled(notation: Expression, operands: list[Expression]) -> Expression:
    """A notation with the operands in their places.

    Raises IndexError if it speaks of an operand that is not there.
    """
    named = {int(part.value) for part in leaves(notation) if part.kind == "operand"}
    rest = [operand for i, operand in enumerate(operands) if i not in named]

    def fill(pattern: Expression) -> list[Expression]:
        if pattern.kind == "operand":
            if pattern.value == REST:
                return rest
            operand = operands[int(pattern.value)]
            return [operand if pattern.when is None else at(operand, pattern.when)]
        return [replace(pattern, parts=tuple(each for part in pattern.parts for each in fill(part)))]

    return fill(notation)[0]


def leaves(expression: Expression) -> list[Expression]:
    """The parts without parts."""
    return [leaf for part in expression.parts for leaf in leaves(part)] if expression.parts else [expression]
