"""Expressions: formulas as trees, which formulas.py builds, simplify.py shortens and writing.py writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Kind = Literal[
    "symbol",  # word, at the time `when`
    "number",  # value
    "infix",  # word is the sign: + − ⊙ · / ^ = ≠ < ≤ > ≥ ∧ ∨, or @ for a product of matrices, written without one
    "prefix",  # word is − ¬ or √
    "big",  # word is Σ or ∏, over `under`
    "call",  # word(parts), with `under` as a subscript
    "transpose",
    "fence",  # |x|
    "holds",  # 1 where the part holds, 0 elsewhere: Iverson's bracket
    "join",  # [x, y]; word is what stands between the parts
    "blocks",  # an array that is 0 but for parts[i] from cuts[i] to cuts[i + 1] along an axis
    "index",  # parts[0], read at the other parts
    "raw",  # word, as it is
    "time",  # the timestep `when` itself
    "operand",  # in a notation: where the operand of number `value` stands, at the time `when`
]


@dataclass(frozen=True, slots=True)
class When:
    """A timestep: `offset` after a base, which is "t", "T" (the number of timesteps) or "" (step 0)."""

    base: str = "t"
    offset: int = 0

    def seen_from(self, other: When) -> When:
        """This timestep where the t it is reckoned from is `other`."""
        return When(other.base, other.offset + self.offset) if self.base == "t" else self

    def written(self, t: str = "t", T: str = "T") -> str:
        """In Unicode: "t−1".

        >>> When("t", -1).written(), When("T", -1).written(), When("", 0).written()
        ('t−1', 'T−1', '0')
        """
        base = {"t": t, "T": T}.get(self.base, "")
        if not base:
            return str(self.offset).replace("-", "−")
        return f"{base}{self.offset:+d}".replace("-", "−") if self.offset else base


@dataclass(frozen=True, slots=True)
class Expression:
    """A node of a formula; what it consists of depends on its `kind`.

    `shape` is that of the formula by itself, which broadcasting may have spread.
    """

    kind: Kind
    word: str = ""
    parts: tuple[Expression, ...] = ()
    under: str = ""
    when: When | None = None
    value: float = 0
    cuts: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many symbols and numbers it is made of."""
        return sum(part.size for part in self.parts) if self.parts else self.kind != "raw"

    @property
    def binds_time(self) -> bool:
        """Whether t is its own, as in Σ over t."""
        return self.under == "t"


def common_shape(*expressions: Expression) -> tuple[int, ...]:
    """The shape to which expressions broadcast; the longest where a change of shape between them is not written."""
    shapes = [e.shape for e in expressions]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return max(shapes, key=len)


STEPS = Expression("time", when=When("T"))
"""The number of timesteps."""


def symbol(name: str, when: When | None = None, shape: tuple[int, ...] = ()) -> Expression:
    return Expression("symbol", name, when=when, shape=shape)


def number(value: float) -> Expression:
    return Expression("number", value=value)


def is_number(expression: Expression, value: float | None = None) -> bool:
    return expression.kind == "number" and (value is None or expression.value == value)


def transformed(expression: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The tree with every subtree replaced for which `change` has another; what is replaced is not looked into."""
    changed = change(expression)
    if changed is not None:
        return changed
    if not expression.parts:
        return expression
    parts = tuple(transformed(part, change) for part in expression.parts)
    same = all(new is old for new, old in zip(parts, expression.parts, strict=True))
    return expression if same else replace(expression, parts=parts)


def at(expression: Expression, when: When) -> Expression:
    """The expression at another timestep: t replaced by `when` wherever it is free."""

    def moved(part: Expression) -> Expression | None:
        if part.binds_time:
            return part
        return replace(part, when=part.when.seen_from(when)) if part.when is not None else None

    return transformed(expression, moved)


def depends_on_time(expression: Expression) -> bool:
    """Whether t stands free in it."""
    if expression.binds_time:
        return False
    if expression.when is not None and expression.when.base == "t":
        return True
    return any(depends_on_time(part) for part in expression.parts)
