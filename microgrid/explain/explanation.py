"""What `explain` finds, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.explain.typeset import number_text, printable
from microgrid.tensor import Tensor

ENDS = 4
"""Nodes shown at either end of a long path, factors of a long product."""

MANY = 12
"""Terms shown one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """What one reader contributes to a gradient.

    Attributes
    ----------
    reader : Tensor
    index : int
        Which of the reader's operands the node is.
    local : float or None
        The derivative of the reader by the node, where both are single numbers.
    incoming : float or np.ndarray
        The gradient that the reader has, of its shape.
    contribution : float or np.ndarray
        What it sends to the node, of the node's shape.
    """

    reader: Tensor
    index: int
    local: float | None
    incoming: Any
    contribution: Any


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """One way from a node to the output.

    Attributes
    ----------
    nodes : tuple of Tensor
        From the node to the output, both included.
    locals : tuple of float
        The derivative of each by the one before, where all are single numbers; else empty.
    contribution : float or np.ndarray
        The product along the path, of the node's shape.
    """

    nodes: tuple[Tensor, ...]
    locals: tuple[float, ...]
    contribution: Any


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The gradient of one node as the chain rule; `print` tells it.

    Attributes
    ----------
    node, of : Tensor
        What is explained, and what is differentiated.
    value, gradient : float or np.ndarray
        The value of the node, and the gradient of `of` by it. A leaf's `.grad` may hold more: what it held before.
    terms : tuple of Term
        One per reader and operand; their contributions add up to the gradient.
    paths : tuple of Path
        The shortest ways from the node to `of`.
    path_count : int
        How many ways there are.
    """

    node: Tensor
    of: Tensor
    value: Any
    gradient: Any
    terms: tuple[Term, ...]
    paths: tuple[Path, ...]
    path_count: int

    @property
    def rest(self) -> Any:
        """What all paths together contribute that are not in `paths`: the gradient less those that are."""
        rest = self.gradient
        for path in self.paths:
            rest = rest - path.contribution
        return rest

    def __str__(self) -> str:
        derivative = partial(self.of, self.node)
        lines = [f"{derivative} = {amount(self.gradient)}    at {label(self.node)} = {amount(self.value)}"]
        if self.terms:
            lines += ["", f"{counted(len(self.terms), 'term')}, one for each time it is read:", *self.term_lines()]
        lines += ["", f"{counted(self.path_count, 'path')} from {label(self.node)} to {label(self.of)}:"]
        lines += [f"  {trace(path)}\n      {product(path)}" for path in self.paths]
        missing = self.path_count - len(self.paths)
        if missing:
            rounding = 1e-12 * sum(np.abs(path.contribution) for path in self.paths)
            rest = self.rest if np.any(np.abs(self.rest) > rounding) else 0 * self.rest
            lines.append(f"  and {counted(missing, 'more path')}, together {amount(rest)}")
        if self.path_count > 1:
            lines.append(f"  sum: {derivative} = {amount(self.gradient)}")
        return "\n".join(lines)

    def term_lines(self) -> list[str]:
        lines = [f"  {told(term, self)}" for term in self.terms]
        if len(lines) > MANY:
            left_out = self.terms[ENDS:-ENDS]
            between = sum(term.contribution for term in left_out[1:]) + left_out[0].contribution
            lines[ENDS:-ENDS] = [f"  … {len(left_out)} more, together {amount(between)}"]
        return lines


def told(term: Term, explanation: Explanation) -> str:
    """One reader's term: derivative · gradient = contribution."""
    own, incoming = partial(term.reader, explanation.node), partial(explanation.of, term.reader)
    if term.local is None:
        return f"by {label(term.reader)}: {amount(term.contribution)}, from {incoming} = {amount(term.incoming)}"
    numbers = f"{number_in_product(term.local)} · {number_in_product(scalar(term.incoming))}"
    return f"{own} · {incoming} = {numbers} = {amount(term.contribution)}"


def product(path: Path) -> str:
    """The numbers along a path; factors of 1, such as an addition's, go without saying."""
    if not path.locals:
        return amount(path.contribution)
    factors = [number_in_product(local) for local in path.locals if local != 1] or ["1"]
    start = scalar(path.contribution) if len(path.nodes) == 1 else None
    if len(factors) > 2 * ENDS + 1:
        factors[ENDS:-ENDS] = [f"… ({len(factors) - 2 * ENDS} factors) …"]
    written = " · ".join(factors)
    return (
        written
        if start is not None or written == amount(path.contribution)
        else f"{written} = {amount(path.contribution)}"
    )


def trace(path: Path) -> str:
    """The nodes of a path, those in the middle of a long one left out."""
    names = (
        [label(node) for node in path.nodes]
        if len(path.nodes) <= 2 * ENDS + 6
        else [
            *map(label, path.nodes[:ENDS]),
            f"… {len(path.nodes) - 2 * ENDS} more …",
            *map(label, path.nodes[-ENDS:]),
        ]
    )
    return " → ".join(names)


def label(node: Tensor) -> str:
    """The name of a node, or its operation."""
    if node.name is not None:
        return printable(node.name)
    if node.primitive is not None:
        return node.primitive.name
    return type(node).__name__.lower() if node.shape else number_text(scalar(node.value))


def partial(of: Tensor, by: Tensor) -> str:
    return f"∂{label(of)}/∂{label(by)}"


def scalar(value: Any) -> float:
    return float(np.sum(value))


def amount(value: Any) -> str:
    """A number; of an array its shape and Euclidean norm."""
    if np.size(value) == 1:
        return number_text(scalar(value))
    shape = " × ".join(map(str, np.shape(value)))
    return f"[{shape}, norm {number_text(float(np.linalg.norm(np.asarray(value, dtype=float))))}]"


def number_in_product(value: float) -> str:
    text = number_text(value)
    return f"({text})" if text.startswith("−") else text


def counted(count: int, word: str) -> str:
    """A number with a noun; a large one by its order of magnitude."""
    if count.bit_length() > 60:
        return f"about 10^{int(count.bit_length() * np.log10(2))} {word}s"
    return f"{count:,} {word}" + ("" if count == 1 else "s")
