"""How each node is called in formulas: "h₂" at timestep 2, "u", "u × h₂" for what has no name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microgrid.graph import Graph
from microgrid.leaves import Input, Parameter, State
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.labels import is_folded, number_text, shortened
from viz.play.formulas import Place, expression

LONGEST_INLINE = 22
"""Characters of an expression that stands for its result."""

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

WORDS = {"add": "sum", "subtract": "difference", "multiply": "product", "matmul": "product", "divide": "quotient"}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A node's name in a formula; one that is an expression needs brackets inside another."""

    text: str
    is_expression: bool = False


def named_nodes(graph: Graph) -> dict[Tensor, str]:
    """The nodes of a recorded graph that have a name to be called by, as the pictures write them."""
    names: dict[Tensor, str] = {}
    for node in graph.nodes:
        own = graph.aliases.get(node, node.name)
        if own is None and isinstance(node, Input | Parameter | State):
            own = graph.names[node]
        if own is not None:
            names[node] = shortened(own)
    for state in graph.states:
        names.setdefault(state.next, f"{names[state]}′")
    return names


def unrolled_symbols(dag: Unrolled, order: Sequence[Tensor]) -> dict[Tensor, Symbol]:
    """The symbols of an unrolled graph, whose nodes come in `order`, operands first."""
    names = named_nodes(dag.graph)
    base: dict[Tensor, str] = {}
    when: dict[Tensor, str] = {}
    for node, copies in dag.copies.items():
        for t, copy in enumerate(copies):
            when[copy] = str(t).translate(SUBSCRIPTS)
            if node in names:
                base.setdefault(copy, names[node] + when[copy])
    base |= {copy: names[node] for node, copy in dag.static.items() if node in names}
    for state in dag.graph.states:
        for copy in dag.copies[state]:
            for start in copy.operands:
                if start not in when and start not in base:
                    base[start] = f"the initial {names[state]}"
    return symbols(order, base, when)


def acyclic_symbols(graph: Graph) -> dict[Tensor, Symbol]:
    """The symbols of an ordinary graph."""
    return symbols(graph.nodes, named_nodes(graph), {})


def symbols(order: Sequence[Tensor], base: Mapping[Tensor, str], when: Mapping[Tensor, str]) -> dict[Tensor, Symbol]:
    """A symbol for each node: its name, or its expression if that is short, or what it is."""
    found: dict[Tensor, Symbol] = {}
    for node in order:
        if node in base:
            found[node] = Symbol(base[node])
        elif is_folded(node):
            found[node] = Symbol(number_text(node.value))
        elif node.primitive is None:
            found[node] = Symbol("a constant")
        else:
            text = inline(node, found)
            word = WORDS.get(node.primitive.name, shortened(node.primitive.name))
            found[node] = (
                Symbol(text, has_signs(text)) if len(text) <= LONGEST_INLINE else Symbol(word + when.get(node, ""))
            )
    return found


def has_signs(text: str) -> bool:
    """Whether an expression has a sign outside all brackets, so that it needs some inside another."""
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c in " −√" and depth == 0:
            return True
    return False


def inline(node: Tensor, known: Mapping[Tensor, Symbol]) -> str:
    """The expression of a node with the symbols of its operands."""
    text = ""
    for piece in expression(node):
        if isinstance(piece, Place):
            symbol = known[piece.node]
            piece = f"({symbol.text})" if piece.brackets and symbol.is_expression else symbol.text
        text += piece
    return text
