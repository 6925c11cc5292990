"""equations: a network as mathematics, in Unicode and in LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from microgrid.errors import OperandTypeError
from microgrid.explain.adjoint import Gradients, read_again, swept
from microgrid.explain.expression import Expression, number, symbol
from microgrid.explain.lines import Line, Lines, forward_lines, given_name, start_of
from microgrid.explain.typeset import printable
from microgrid.explain.writing import Latex, Text, is_condition
from microgrid.graph import Graph
from microgrid.leaves import Input, Parameter
from microgrid.names import kind_of
from microgrid.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Equation:
    """One line: `left` = `right` in Unicode, and the whole line in LaTeX with & before the sign of equality."""

    left: str
    right: str
    aligned: str

    @property
    def latex(self) -> str:
        """The line in LaTeX by itself."""
        return self.aligned.replace(" &= ", " = ", 1)

    def __str__(self) -> str:
        return f"{self.left} = {self.right}"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a symbol stands for, such as an input and its shape."""

    symbol: str
    meaning: str
    aligned: str

    def __str__(self) -> str:
        return f"{self.symbol}: {self.meaning}"


@dataclass(frozen=True, slots=True)
class Equations:
    """A network as mathematics; `str` and notebooks show all of it.

    Attributes
    ----------
    forward : tuple of Equation
        What computes the outputs at timestep t.
    adjoint : tuple of Equation
        What computes the gradients, ∂v being that by v; empty where nothing has one.
    where : tuple of Equation and Meaning
        The leaves, and the values before the first and after the last timestep.
    """

    forward: tuple[Equation, ...]
    adjoint: tuple[Equation, ...]
    where: tuple[Equation | Meaning, ...]

    def __str__(self) -> str:
        parts = [[str(line) for line in lines] for lines in (self.forward, self.adjoint) if lines]
        if self.where:
            parts.append(["where", *(f"    {line}" for line in self.where)])
        return "\n\n".join("\n".join(lines) for lines in parts)

    @property
    def latex(self) -> str:
        """All lines as an `aligned` environment, for LaTeX's mathematics with amsmath, and for MathJax."""
        parts = [[line.aligned for line in lines] for lines in (self.forward, self.adjoint) if lines]
        if self.where:
            parts.append([r"& \text{where}", *(line.aligned for line in self.where)])
        lines = " \\\\[1ex]\n".join(" \\\\\n".join(part) for part in parts)
        return f"\\begin{{aligned}}\n{lines}\n\\end{{aligned}}"

    def _repr_latex_(self) -> str:
        return f"$${self.latex}$$"


def equations(net: Graph | Tensor) -> Equations:
    """A network as the equations of a textbook, those of its gradients included.

    A line of its own have the states, the nodes with a name, the outputs, and what several others read; all else
    is written where it is read. What varies carries the timestep as an index, and what a state reads that of the
    timestep before. How an operation is written is part of its declaration: see `mg.primitive`.

    Parameters
    ----------
    net : Graph or Tensor
        Of an output that is one number for the whole sequence, ∂v is its gradient by v. Of any other, the
        gradients start from a given ∂ of each output.

    Returns
    -------
    Equations
        With `.forward`, `.adjoint` and `.where`, `str()` and `.latex`.

    Raises
    ------
    OperandTypeError
        If `net` is neither a Graph nor a Tensor.
    OperandError
        If the notation that a user's primitive declares is no formula of its operands.

    Examples
    --------
    >>> from microgrid.explain import equations
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = mg.tanh(u * h + x)
    >>> print(equations(mg.Graph(loss=mg.time_sum(h.next**2))))
    h_t = tanh(u · h_{t−1} + x_t)
    loss = Σ_t h_t²
    <BLANKLINE>
    ∂h_t = 2 h_t + δ_{t+1} · u
    δ_t = ∂h_t · (1 − h_t²)
    ∂u = Σ_t δ_t · h_{t−1}
    <BLANKLINE>
    where
        x_t: input
        u: parameter
        h_{−1} = 0
        δ_T = 0
        ∂v: the gradient of loss by v
    """
    if not isinstance(net, Graph | Tensor):
        raise OperandTypeError(f"equations takes a Graph or a Tensor, not {type(net).__name__}")
    graph = net if isinstance(net, Graph) else Graph(net)
    forward, sweep = forward_lines(graph), swept(graph)
    if sweep is not None:
        forward = forward_lines(graph, read_again(forward, sweep))
    symbols = forward.symbols
    gradients = None if sweep is None else Gradients(forward, sweep)
    adjoint = [] if gradients is None else gradients.lines()
    text, latex = Text(symbols.t, symbols.T), Latex(symbols.t, symbols.T)

    def equation(line: Line) -> Equation:
        right = Expression("holds", parts=(line.right,)) if is_condition(line.right) else line.right
        return Equation(text.write(line.left), text.write(right), f"{latex.write(line.left)} &= {latex.write(right)}")

    def meaning(left: Expression, *told: str | Expression) -> Meaning:
        words, formula = (
            "".join(writer.words(part) if isinstance(part, str) else writer.write(part) for part in told)
            for writer in (text, latex)
        )
        return Meaning(text.write(left), words, rf"& {latex.write(left)} \text{{: }} {formula}")

    where: list[Equation | Meaning] = []
    for node, left in leaves_of(forward):
        is_fixed_number = type(node) is Tensor and not node.shape
        where.append(
            equation(Line(left, number(node.item()))) if is_fixed_number else meaning(left, *role(node, graph, left))
        )
    where += [equation(Line(*start_of(state, forward))) for state in graph.states]
    if gradients is not None:
        where += [equation(line) for line in gradients.ends(adjoint)]
        where += [
            meaning(left, "the gradient that ", forward.lined[node], " is given") for left, node in gradients.given
        ]
        if not gradients.given:
            v = symbol("v")
            where.append(meaning(symbol("∂v"), "the gradient of ", forward.lined[graph.output], " by ", v))
    return Equations(tuple(map(equation, forward.lines)), tuple(map(equation, adjoint)), tuple(where))


def leaves_of(forward: Lines) -> list[tuple[Tensor, Expression]]:
    """The leaves that have a symbol: inputs, parameters, then all others."""
    leaves = [(node, left) for node, left in forward.lined.items() if node.primitive is None]
    return sorted(
        leaves, key=lambda leaf: 0 if isinstance(leaf[0], Input) else 1 if isinstance(leaf[0], Parameter) else 2
    )


def role(node: Tensor, net: Graph, left: Expression) -> list[str | Expression]:
    """What a leaf is, its whole name if its symbol is shorter, and its shape."""
    told: list[str | Expression] = [kind_of(node)]
    name = printable(given_name(net, node) or left.word)
    if name != left.word:
        told += [" ", Expression("raw", name)]
    if node.shape:
        told += [", ", Expression("raw", " × ".join(map(str, node.shape)))]
    return told
