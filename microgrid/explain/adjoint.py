"""The adjoint lines: the gradients of a network as a textbook writes them.

The rules are those of `differentiate`, whose graph is written here with ∂h for the gradient by h. What a state
brings back from the timestep after is written as what stands there: ∂h_{t+1}, δ_{t+1}, ….
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from microgrid import recording
from microgrid.differentiate import Adjoint
from microgrid.explain.expression import Expression, When, at, is_number, number, symbol, transformed
from microgrid.explain.formulas import adjoint_formula, constant
from microgrid.explain.lines import Line, Lines
from microgrid.explain.notation import leaves
from microgrid.explain.simplify import BACK, product, simplified
from microgrid.explain.writing import Text
from microgrid.graph import Graph, nodes_behind, varying_nodes
from microgrid.leaves import Input, State
from microgrid.ops.elementwise import add
from microgrid.primitive import primitive_of
from microgrid.tensor import Tensor
from microgrid.tensor import constant as constant_tensor

LONGEST = 40
"""Symbols and numbers in a formula, from which on a part of it is given a line of its own."""

MANY = 160
"""The same where the part is a term of a sum, which may yet become shorter."""

LONG = 12
"""Characters of a function that the gradients read several times, from which on it is given a line of its own."""

FARTHEST = 50
"""States that do nothing but pass a value on, one to the next, that a gradient is written through."""

SHORT = 3
"""Symbols and numbers in a formula that is written again wherever it is read."""


ADD = primitive_of(add)


class Sweep(Adjoint):
    """The sweep back through a network, which remembers the gradient of every node."""

    def __init__(self, net: Graph, seeds: Mapping[Tensor, Tensor], wanted: Iterable[Tensor]) -> None:
        self.totals: dict[Tensor, Tensor] = {}
        self.seeds = seeds
        super().__init__(net, seeds, wanted)
        self.wanted = [node for node in self.found if node in self.totals]
        self.behind = [g for g in nodes_behind([self.totals[node] for node in self.wanted]) if g not in net]

    def total(self, node: Tensor) -> Tensor:
        self.totals[node] = super().total(node)
        return self.totals[node]

    def pass_on(self, node: Tensor, g: Tensor) -> None:
        """As in a rolled graph; a reduction of an unrolled one reads every timestep by itself."""
        primitive = node.primitive
        if primitive is None or primitive.over_time is None or len(node.operands) == 1:
            super().pass_on(node, g)
            return
        for index, operand in enumerate(node.operands):
            if operand in self.on_path:
                self.send(constant_tensor(primitive.rule(index)(g, node, list(node.operands), **node.params)), operand)


def leaves_to_train(net: Graph) -> list[Tensor]:
    """The parameters, and the tensors that the user named."""
    return [
        node
        for node in net.nodes
        if node.primitive is None
        and node.requires_grad
        and not isinstance(node, Input)
        and (node in net.parameters or node.name is not None)
    ]


def starts_from_one(net: Graph) -> bool:
    """Whether the only output is one number for the whole sequence, so that its gradient by itself is 1."""
    return len(net.outputs) == 1 and net.output.shape == () and net.output not in net.varying


def seeds_of(net: Graph) -> dict[Tensor, Tensor]:
    """For each output a leaf that stands for the gradient that it is given."""
    return {
        output: (Input if output in net.varying else Tensor)(np.ones(output.shape, output.dtype))
        for output in dict.fromkeys(net.outputs)
        if output.requires_grad
    }


def swept(net: Graph) -> Sweep | None:
    """The sweep by all leaves to train; None where there is nothing to differentiate."""
    wanted, seeds = leaves_to_train(net), seeds_of(net)
    if not wanted or not seeds:
        return None
    with recording.always(), np.errstate(all="ignore"):
        return Sweep(net, seeds, wanted)


def read_again(forward: Lines, sweep: Sweep) -> set[Tensor]:
    """The nodes without a line that the gradients read several times and that take long to write."""
    counts = Counter(
        x for g in sweep.behind for x in set(g.operands) if x in forward.written and x not in forward.lined
    )
    text = Text()
    return {
        node
        for node, count in counts.items()
        if count > 1 and forward.written[node].kind == "call" and len(text.write(forward.written[node])) > LONG
    }


def is_long(e: Expression) -> bool:
    """Whether a formula is worth a symbol: not a short one, and not the number that a mean divides by."""
    return e.size >= SHORT and any(leaf.kind == "symbol" for leaf in leaves(e))


class Gradients:
    """The gradients that a sweep found, as lines."""

    def __init__(self, forward: Lines, sweep: Sweep) -> None:
        self.forward, self.sweep, self.wanted = forward, sweep, sweep.wanted
        self.order = sweep.behind
        self.given: list[tuple[Expression, Tensor]] = []
        self.varying = varying_nodes([*forward.net.nodes, *self.order])
        self.written: dict[Tensor, Expression] = dict(forward.written)
        self.back: dict[str, State] = {}
        self.inner: list[Line] = []
        for output, seed in sweep.seeds.items():
            self.written[seed] = number(1) if starts_from_one(forward.net) else self.seed(output, seed)

    def seed(self, output: Tensor, seed: Tensor) -> Expression:
        """The symbol for the gradient that an output is given: ∂ of it, where that is all it receives."""
        own = self.partial(output)
        if own is None or self.sweep.totals.get(output) is not seed:
            own = symbol(self.forward.symbols.new("given"), self.forward.when(output), output.shape)
        self.given.append((own, output))
        return own

    def partial(self, node: Tensor) -> Expression | None:
        """The symbol for the gradient by a node that has a line."""
        own = self.forward.lined.get(node)
        return None if own is None else replace(own, word=f"∂{own.word}")

    def lines(self) -> list[Line]:
        of_states = {g for node, g in self.sweep.totals.items() if isinstance(node, State)}
        trained = set(self.wanted)
        owner: dict[Tensor, Tensor] = {}
        for node, g in self.sweep.totals.items():
            if node in self.forward.lined and node not in trained:
                owner.setdefault(g, node)
        readers: dict[Tensor, set[Tensor]] = {}
        for g in self.order:
            for x in g.operands:
                readers.setdefault(x, set()).add(g)
        for g in self.order:
            if g in self.written:
                continue
            right = self.right(g)
            left = self.partial(owner[g]) if g in owner else None
            shared = len(readers.get(g, ())) > 1 and is_long(right) and g not in of_states
            summed = [reader.primitive for reader in readers.get(g, ())] == [ADD]  # blocks may yet be joined
            if left is None and (shared or right.size > (MANY if summed else LONGEST)):
                left = symbol(self.forward.symbols.new("adjoint"), When() if g in self.varying else None, g.shape)
            self.written[g] = right if left is None else left
            if left is not None:
                self.inner.append(Line(left, right))
        known = {line.left for line in self.inner}
        for node, g in self.sweep.totals.items():
            left = self.partial(node)
            if left is None or left in known or node in trained or g not in owner:
                continue
            if self.written[g] != left and not is_number(self.written[g]):  # it has the gradient of another
                self.inner.append(Line(left, self.written[g]))
        of_wanted = [
            Line(left, self.written[self.sweep.totals[node]]) for node in self.wanted if (left := self.partial(node))
        ]
        return [Line(line.left, self.resolved(line.right)) for line in [*self.inner, *of_wanted]]

    def right(self, g: Tensor) -> Expression:
        if isinstance(g, State):
            if is_number(self.constant_of(g.next), 0):  # it starts from a value and is 0 elsewhere
                there = tuple(Expression("time", when=w) for w in (When(), When("T", -1) if g.reverse else When("", 0)))
                holds = Expression("holds", parts=(Expression("infix", "=", there),))
                return product([holds, self.written[g.initial]])
            key = f"{BACK}{len(self.back)}"
            self.back[key] = g
            return symbol(key, When(), g.shape)
        if g.primitive is None:
            found = constant(g)
            return symbol(self.forward.symbols.new("constant"), None, g.shape) if found is None else found
        return adjoint_formula(g, [self.written[x] for x in g.operands], [x in self.varying for x in g.operands])

    def constant_of(self, node: Tensor) -> Expression:
        found = constant(node) if node.primitive is None and type(node) is Tensor else None
        return number(1) if found is None else found

    def resolved(self, expression: Expression, within: tuple[str, ...] = ()) -> Expression:
        """The expression with what comes back through the delays written out."""

        def change(part: Expression) -> Expression | None:
            if part.kind != "symbol" or part.word not in self.back:
                return None
            state, when = self.back[part.word], part.when or When()
            name = self.forward.symbols.take(str(state.name or "").removesuffix(".grad⁺"))
            if part.word in within or len(within) == FARTHEST:  # states that only pass values round, or on
                return symbol(f"∂{name}", when, part.shape)
            one_away = When(when.base, when.offset + (1 if state.reverse else -1))
            return at(self.resolved(self.written[state.next], (*within, part.word)), one_away)

        return simplified(transformed(expression, change))

    def ends(self, lines: list[Line]) -> list[Line]:
        """Gradients that are read beyond the last timestep, or before the first, where they are 0."""
        own = {left.word for left in (*(line.left for line in lines), *(g for g, _ in self.given)) if left.when}
        found: dict[Expression, None] = {}

        def look(part: Expression) -> None:
            if part.kind == "symbol" and part.word in own and part.when in (When("t", 1), When("t", -1)):
                end = When("T", 0) if part.when.offset > 0 else When("", -1)
                found[symbol(part.word, end, part.shape)] = None
            for inner in part.parts:
                look(inner)

        for line in lines:
            look(line.right)
        return [Line(left, number(0)) for left in found]
