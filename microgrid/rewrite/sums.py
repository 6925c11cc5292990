"""Sums and products in another order, so that what does not recur is computed outside the cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from microgrid.graph import Graph
from microgrid.ops.elementwise import add, multiply
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.rewrite.reading import ADD, MULTIPLY, is_float, readers_of, zones_of
from microgrid.tensor import Tensor

Readers = Mapping[Tensor, Sequence[Tensor | None]]


def is_inner(node: Tensor, reader: Tensor | None, readers: Readers) -> bool:
    """Whether a node is only a step of the sum, or product, that its one reader continues."""
    return (
        reader is not None
        and node.primitive is reader.primitive
        and node.primitive in (ADD, MULTIPLY)
        and is_float(node)
        and is_float(reader)
        and len(readers[node]) == 1
    )


def is_whole(node: Tensor, readers: Readers) -> bool:
    """Whether a node is a sum or product that no reader continues."""
    return node.primitive in (ADD, MULTIPLY) and not (readers[node] and is_inner(node, readers[node][0], readers))


def terms_of(root: Tensor, readers: Readers) -> list[Tensor]:
    """The terms of the sum, or factors of the product, that ends at `root`."""
    found: list[Tensor] = []
    stack = list(reversed(root.operands))
    while stack:
        node = stack.pop()
        if is_inner(node, root, readers):
            stack += reversed(node.operands)
        else:
            found.append(node)
    return found


def hoist_terms(graph: Graph) -> Graph:
    """The graph in which the terms of each sum, and the factors of each product, are grouped by where they vary.

    Those that are static come first, then those outside the cycle, then the rest: of x@W + h@U + b the
    part x@W + b no longer waits for h.
    """
    readers, zones = readers_of(graph), zones_of(graph)

    def remake(node: Tensor, made: Made) -> Tensor:
        if not is_whole(node, readers) or not is_float(node):
            return kept(node, made)
        terms = terms_of(node, readers)
        if len(terms) < 3:
            return kept(node, made)
        ranked = sorted(terms, key=lambda term: (rank(zones[term], zones[node]), zones[term] < 0 and term.size))
        combine = add if node.primitive is ADD else multiply
        total = made[ranked[0]]
        for term in ranked[1:]:
            total = combine(total, made[term])
        if total.dtype != node.dtype or total.shape != node.shape:
            return kept(node, made)
        total._name = node._name
        return total

    return rebuilt(graph, remake)


def rank(zone: int, own: int) -> int:
    """The order of grouping: static, elsewhere, in the same cycle."""
    return 2 if zone == own and own >= 0 else 0 if zone < -1 else 1
