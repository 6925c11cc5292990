"""The forward lines: which nodes are given a line of their own, and what stands on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from microgrid.explain.expression import Expression, When, number, symbol
from microgrid.explain.formulas import BROADCAST, constant, formula, read_state, spread
from microgrid.explain.symbols import Symbols
from microgrid.graph import Graph
from microgrid.leaves import Input, Parameter, State
from microgrid.tensor import Tensor

LONGEST_FORMULA = 20
"""Symbols and numbers in a formula, from which on a part of it is given a line of its own."""

ATOMS = frozenset({"symbol", "number", "raw", "index", "transpose"})
"""Kinds of expressions that are as short as a symbol would be."""


@dataclass(frozen=True, slots=True)
class Line:
    """left = right."""

    left: Expression
    right: Expression


@dataclass
class Lines:
    """The lines of a network, and how each of its nodes is written where it is read.

    Attributes
    ----------
    lines : list of Line
    written : dict of Tensor → Expression
        What stands for each node where another reads it.
    lined : dict of Tensor → Expression
        The left sides of the nodes that have a line, and the leaves.
    constants : dict of Tensor → Expression
        Leaves without a name that hold different numbers.
    """

    net: Graph
    symbols: Symbols
    also: frozenset[Tensor] = frozenset()
    lines: list[Line] = field(default_factory=list)
    written: dict[Tensor, Expression] = field(default_factory=dict)
    lined: dict[Tensor, Expression] = field(default_factory=dict)
    constants: dict[Tensor, Expression] = field(default_factory=dict)

    def add(self, left: Expression, right: Expression) -> None:
        self.lines.append(Line(left, right))

    def when(self, node: Tensor) -> When | None:
        return When() if node in self.net.varying else None


def given_name(net: Graph, node: Tensor) -> str | None:
    """The name by which the user knows a node; every leaf with a role in the network has one."""
    if node.name is not None or node in net.aliases or isinstance(node, Parameter | Input | State):
        return net.names[node]
    return None


def symbols_of(net: Graph) -> Symbols:
    """Symbols beside the names that the user gave."""
    names = {node: name for node in net.nodes if (name := given_name(net, node)) is not None}
    scoped = [name for node, name in names.items() if node._name and node._name.scope and node not in net.aliases]
    return Symbols([*names.values()], scoped)


def forward_lines(net: Graph, also: Collection[Tensor] = ()) -> Lines:
    """The lines that compute the outputs of a network, those that others read first; `also` are given one, too."""
    found = Lines(net, symbols_of(net), frozenset(also))
    follows: dict[Tensor, list[State]] = {}
    for state in net.states:
        follows.setdefault(state.next, []).append(state)
    for node in net.nodes:
        if node.primitive is None or isinstance(node, State):
            add_leaf(found, node)
        else:
            add_operation(found, node, follows.get(node, []))
    for node, alias in net.aliases.items():
        left = symbol(found.symbols.take(alias), found.when(node), node.shape)
        if found.written[node] != left:
            found.add(left, found.written[node])
    for state in net.states:
        left = symbol(found.symbols.take(net.names[state]), When(), state.shape)
        if found.lined.get(state.next) != left:
            found.add(left, found.written[state.next])
    return found


def add_leaf(found: Lines, node: Tensor) -> None:
    name = given_name(found.net, node)
    if isinstance(node, State):
        assert name is not None
        found.written[node] = read_state(found.symbols.take(name), node.reverse, node.shape)
        return
    if name is None:
        number_there = constant(node)
        if number_there is not None:
            found.written[node] = number_there
            return
    left = symbol(found.symbols.take(name) if name else found.symbols.new("constant"), found.when(node), node.shape)
    found.written[node] = found.lined[node] = left
    if name is None:
        found.constants[node] = left


def add_operation(found: Lines, node: Tensor, follows: list[State]) -> None:
    net = found.net
    operands = [found.written[x] for x in node.operands]
    right = formula(node, operands, [x in net.varying for x in node.operands])
    own = given_name(net, node) if node.name is not None or not follows else None  # not of an output's keyword only
    name = own or (net.names[follows[0]] if follows else None)
    if name is not None:
        text = found.symbols.take(name)
    elif any(node is output for output in net.outputs):
        text = found.symbols.new("output")
    elif node in found.also or deserves_line(right, len(set(net.readers[node]))):
        text = found.symbols.new("node")
    else:
        found.written[node] = right
        return
    left = symbol(text, found.when(node), node.shape)
    found.written[node] = found.lined[node] = left
    found.add(left, spread(right, node) if node.primitive is BROADCAST else right)


def deserves_line(formula: Expression, readers: int) -> bool:
    """Whether a formula is long, or is read by several and longer than a symbol."""
    return (readers > 1 and formula.kind not in ATOMS) or formula.size > LONGEST_FORMULA


def start_of(state: State, found: Lines) -> tuple[Expression, Expression]:
    """The value of a state before the first timestep, in a reverse state after the last: left and right side."""
    when = When("T", 0) if state.reverse else When("", -1)
    left = symbol(found.symbols.take(found.net.names[state]), when, state.shape)
    return left, found.written.get(state.initial, number(0))
