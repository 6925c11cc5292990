"""Sums and products in another order, so that what does not recur is computed outside the cycle."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

from microgrid.graph import Graph
from microgrid.ops.elementwise import add, multiply, negative
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import ADD, MULTIPLY, NEGATIVE, fits, has, is_float, zones_of
from microgrid.rewrite.rule import Rewrite, Rule
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


@Rewrite
def hoist_terms(graph: Graph) -> Rule | None:
    """The graph in which the terms of each sum, and the factors of each product, are grouped by where they vary.

    Those that are static come first, then those outside the cycle, then the rest: of x@W + h@U + b the
    part x@W + b no longer waits for h.
    """
    readers, zones = graph.readers, zones_of(graph)
    ordered: dict[Tensor, list[Tensor]] = {}
    for node in graph.nodes:
        if is_whole(node, readers) and is_float(node):
            terms = terms_of(node, readers)
            if len(terms) < 3 or not all(fits(term, node) for term in terms):
                continue
            own = zones[node]
            ranked = sorted(terms, key=lambda term: (rank(zones[term], own), zones[term] < 0 and term.size))
            in_order = all(map(operator.is_, ranked, terms))
            if not in_order or not is_chain(node, readers):
                ordered[node] = ranked
    if not ordered:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in ordered:
            return None
        combine = add if node.primitive is ADD else multiply
        result = functools.reduce(combine, [made[term] for term in ordered[node]])
        return renamed(result, node) if (result.dtype, result.shape) == (node.dtype, node.shape) else None

    return rule


def is_chain(root: Tensor, readers: Readers) -> bool:
    """Whether a sum adds one term after the other: no second operand is a sum itself."""
    node = root
    while True:
        first, second = node.operands
        if is_inner(second, node, readers):
            return False
        if not is_inner(first, node, readers):
            return True
        node = first


def factors_of(product: Tensor, own: int, zones: Mapping[Tensor, int]) -> tuple[Tensor, Tensor] | None:
    """(what recurs, what does not) of a product in the cycle `own`; None for any other node."""
    if product.primitive is MULTIPLY and zones[product] == own and is_float(product):
        for one, two in (product.operands, product.operands[::-1]):
            if zones[one] == own != zones[two] and one.shape == product.shape:
                return (one, two) if fits(one, product) and fits(two, product) else None
    return None


@Rewrite
def factors_outside(graph: Graph) -> Rule | None:
    """The graph in which b·(a·x), where x recurs and a and b do not, is (b·a)·x, also where others read a·x."""
    zones = zones_of(graph)
    products: dict[Tensor, tuple[list[Tensor], Tensor]] = {}  # product → its factors from outside, what recurs
    for node in graph.nodes:
        found = factors_of(node, zones[node], zones) if zones[node] >= 0 else None
        outside: list[Tensor] = []
        while found is not None:
            recurring = found[0]
            outside.append(found[1])
            found = factors_of(recurring, zones[node], zones)
        if len(outside) > 1:
            products[node] = outside, recurring
    if not products:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in products:
            return None
        outside, recurring = products[node]
        product = multiply(functools.reduce(multiply, [made[factor] for factor in reversed(outside)]), made[recurring])
        return renamed(product, node) if (product.dtype, product.shape) == (node.dtype, node.shape) else None

    return rule


@Rewrite
def share_factors(graph: Graph) -> Rule | None:
    """The graph in which a·x + a·y is a·(x + y), where a recurs and x and y do not: one product in the loop."""
    readers, zones = graph.readers, zones_of(graph)

    def factors(term: Tensor, node: Tensor) -> tuple[Tensor, Tensor] | None:
        """(what recurs with the sum `node`, what does not) of a product that only this sum reads."""
        found = factors_of(term, zones[node], zones) if len(readers[term]) == 1 else None
        return found if found and found[1].shape == term.shape and all(fits(each, node) for each in found) else None

    sums: dict[Tensor, tuple[list[Tensor], dict[Tensor, list[Tensor | None]]]] = {}
    for node in graph.nodes:
        if node.primitive is ADD and zones[node] >= 0 and is_float(node) and is_whole(node, readers):
            shared: dict[Tensor, list[Tensor | None]] = {}  # what recurs → what multiplies it, None for 1
            rest: list[Tensor] = []
            for term in terms_of(node, readers):
                found = factors(term, node)
                if found is None:
                    rest.append(term)
                else:
                    shared.setdefault(found[0], []).append(found[1])
            for term in [term for term in rest if term in shared]:  # x + a·x is (1 + a)·x
                shared[term].append(None)
            rest = [term for term in rest if term not in shared]
            if any(len(others) > 1 for others in shared.values()):
                sums[node] = rest, shared
    if not sums:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in sums:
            return None
        rest, shared = sums[node]
        terms = [made[term] for term in rest]
        for recurring, others in shared.items():
            outside = [Tensor(1.0) if other is None else made[other] for other in others]
            terms.append(multiply(functools.reduce(add, outside), made[recurring]))
        return renamed(functools.reduce(add, terms), node)

    return rule


@Rewrite
def negate_outside(graph: Graph) -> Rule | None:
    """The graph in which −(a·x) is a·(−x), where a recurs and x does not; and then a sum may share a."""
    if not has(graph, NEGATIVE):
        return None
    zones = zones_of(graph)

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node.primitive is NEGATIVE and zones[node] >= 0:
            (product,) = node.operands
            if product.primitive is MULTIPLY:
                for one, two in (product.operands, product.operands[::-1]):
                    if zones[one] == zones[node] != zones[two]:
                        turned = multiply(made[one], negative(made[two]))
                        return renamed(turned, node)
        return None

    return rule


def rank(zone: int, own: int) -> int:
    """The order of grouping: static, elsewhere, in the same cycle."""
    return 2 if zone == own and own >= 0 else 0 if zone < -1 else 1
