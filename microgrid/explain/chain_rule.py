"""explain: the gradient of one node as the chain rule, with its numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from microgrid import backward
from microgrid.counts import whole_number
from microgrid.errors import GradientError, OperandTypeError
from microgrid.explain.explanation import Explanation, Path, Term
from microgrid.explain.paths import Edge, path_count, shortest_paths
from microgrid.tensor import Tensor, describe


def explain(node: Tensor, of: Tensor | None = None, *, limit: int = 8) -> Explanation:
    """How a node's gradient comes about: by whom it is read, and by which paths it reaches the output.

    Parameters
    ----------
    node : Tensor
        A node of an ordinary graph, such as `dag["h", 2]` of an unrolled network.
    of : Tensor, optional
        What is differentiated; by default what `backward` was called on in this thread, the latest that depends on
        the node. One on which it was not is differentiated anew, from 1.
    limit : int, optional
        How many paths to show; of the others only their sum.

    Raises
    ------
    GradientError
        If no gradient of `of` reaches the node, or `backward` was not called.
    CyclicGraphError, StateError
        If `of` depends on a state: unroll the graph first.

    Examples
    --------
    >>> from microgrid.explain import explain
    >>> a = mg.tensor(3.0, name="a")
    >>> y = (mg.log(a) + 2 * a).named("y")
    >>> y.backward()
    >>> print(explain(a))
    ∂y/∂a = 2.333    at a = 3
    <BLANKLINE>
    2 terms, one for each time it is read:
      ∂log/∂a · ∂y/∂log = 0.3333 · 1 = 0.3333
      ∂multiply/∂a · ∂y/∂multiply = 2 · 1 = 2
    <BLANKLINE>
    2 paths from a to y:
      a → log → y
          0.3333
      a → multiply → y
          2
      sum: ∂y/∂a = 2.333
    """
    limit = whole_number("limit", limit, least=0)
    if not isinstance(node, Tensor):
        raise OperandTypeError(f"explain takes a node, such as dag['h', 2], not {type(node).__name__}")
    if of is not None and not isinstance(of, Tensor):
        raise OperandTypeError(f"explain takes as `of` what is differentiated, a Tensor, not {type(of).__name__}")
    latest = backward.latest_roots()
    root = of
    if root is None and latest:
        root = next((each for each in latest if depends_on(each, node)), latest[0])
    if root is None:
        raise GradientError(
            f"there is no gradient of {describe(node, 2)} to explain: call loss.backward() first, and keep the loss, "
            "or say of what, as in explain(node, of=loss)"
        )
    order = order_between(node, root)
    seed = start(root, latest)
    edges, cotangents = swept_back(order, seed)
    terms = tuple(
        Term(edge.reader, edge.position, local_derivative(edge, node), cotangents[edge.reader], sent)
        for edge, sent in edges.get(node, ())
    )
    between = {each: [edge for edge, _ in found] for each, found in edges.items()}
    locals_: dict[tuple[Tensor, Edge], float | None] = {}
    paths = tuple(
        along(node, path, seed, locals_) for path in itertools.islice(shortest_paths(order, between, node), limit)
    )
    gradient = cotangents.get(node)
    if gradient is None:
        gradient = backward.fit(0.0, node.value)
    return Explanation(node, root, node.value, gradient, terms, paths, path_count(order, between, node))


def order_between(node: Tensor, root: Tensor) -> list[Tensor]:
    """The nodes that lie on a path from `node` to `root`, both included, each after all of its readers."""
    name = describe(node, 3)
    of = describe(root, 3)
    order = backward.reverse_topological(root) if root.requires_grad else [root]
    backward.refuse_where_forbidden(root, order, lambda: of)
    on_path = {node}
    for each in reversed(order):
        if each not in on_path and any(operand in on_path for operand in each.operands):
            on_path.add(each)
    if root not in on_path or not node.requires_grad:
        why = f"{of} does not depend on it" if node.requires_grad else "it needs no gradient (requires_grad is False)"
        raise GradientError(
            f"there is no gradient of {of} by {name} to explain: {why}. backward() was last called on {of}: call it on "
            "the graph of this node, as in dag.backward(), or say of what to explain it, as in explain(node, of=loss)"
        )
    return [each for each in order if each in on_path]


def depends_on(root: Tensor, node: Tensor) -> bool:
    """Whether a gradient flows from `root` to `node`."""
    return root.requires_grad and node in set(backward.reverse_topological(root))


def start(root: Tensor, latest: Sequence[Tensor]) -> Any:
    """The cotangent from which the sweep starts: that of the last `backward` from there, or 1."""
    if any(root is each for each in latest) and root.grad is not None and root.first is not None:
        return root.grad
    return root._seed(None)


Sent = dict[Tensor, list[tuple[Edge, Any]]]
"""For each node its readers, and the cotangent that each sends."""


def swept_back(order: Sequence[Tensor], seed: Any) -> tuple[Sent, dict[Tensor, Any]]:
    """What every node sends to its operands among `order`, and the sum of what each receives, as `backward` has it."""
    inside = set(order)
    cotangents, sent = {order[0]: seed}, Sent()
    for reader in order:
        g = cotangents.get(reader)
        if g is None or reader.primitive is None:
            continue
        for index, (operand, cotangent) in enumerate(zip(reader.operands, backward.sent_back(reader, g), strict=True)):
            if cotangent is not None and operand in inside:
                sent.setdefault(operand, []).append((Edge(reader, index), cotangent))
                held = cotangents.get(operand)
                cotangents[operand] = cotangent if held is None else held + cotangent
    return sent, cotangents


def sent_along(edge: Edge, g: Any) -> Any:
    """The cotangent that a reader sends to one of its operands, given its own."""
    reader, position = edge
    primitive, operands = reader.primitive, reader.operands
    assert primitive is not None
    rule, values = primitive.rule(position), [x.value for x in operands]
    try:
        sent = rule(g, reader.value, *([values] if primitive.variadic else values), **reader.params)
    except (ArithmeticError, ValueError):  # Python scalars raise where arrays give inf or nan
        g, out, *values = map(backward.as_array_scalar, (g, reader.value, *values))
        sent = rule(g, out, *([values] if primitive.variadic else values), **reader.params)
    return backward.fit(0.0 if sent is None else sent, operands[position].value)


def local_derivative(edge: Edge, operand: Tensor) -> float | None:
    """The derivative of a reader by its operand, where both are numbers."""
    whole = edge.reader.value
    if type(whole) is float and type(operand.value) is float:
        return float(sent_along(edge, 1.0))
    if edge.reader.size != 1 or operand.size != 1:
        return None
    return float(np.sum(sent_along(edge, np.ones(np.shape(whole), edge.reader.dtype)[()])))


def along(node: Tensor, path: list[Edge], seed: Any, known: dict[tuple[Tensor, Edge], float | None]) -> Path:
    """What reaches a node by one path: its VJPs one after the other, from the cotangent at its end.

    `known` remembers the derivatives that other paths share.
    """
    nodes = (node, *(edge.reader for edge in path))
    found = []
    for operand, edge in zip(nodes, path, strict=False):
        if (operand, edge) not in known:
            known[operand, edge] = local_derivative(edge, operand)
        found.append(known[operand, edge])
    numbers = [each for each in found if each is not None]
    if len(numbers) == len(found) and type(seed) is float:
        return Path(nodes, tuple(numbers), backward.fit(math.prod(reversed(numbers), start=seed), node.value))
    g = seed
    for edge in reversed(path):
        g = sent_along(edge, g)
    return Path(nodes, tuple(numbers) if len(numbers) == len(found) else (), g)
