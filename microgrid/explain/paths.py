"""Paths through a graph from a node to what depends on it: how many there are, and the shortest of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from microgrid.tensor import Tensor


class Edge(NamedTuple):
    """A node as the operand of a reader at a position."""

    reader: Tensor
    position: int


Edges = Mapping[Tensor, Sequence[Edge]]
"""For each node those who read it."""


class Trail(NamedTuple):
    """A path so far, its last edge and what came before: paths that begin alike share their beginnings."""

    last: Edge
    before: Trail | None


def path_count(order: Sequence[Tensor], edges: Edges, node: Tensor) -> int:
    """The number of paths from `node` to the first in `order`, which is reverse topological.

    A count is let go once nothing needs it: it may have as many digits as there are nodes.
    """
    operands: dict[Tensor, list[Tensor]] = {}
    for each in order:
        for edge in edges.get(each, ()):
            operands.setdefault(edge.reader, []).append(each)
    counts = {order[0]: 1}
    for each in order:
        count = counts.pop(each, 0)
        if each is node:
            return count
        for operand in operands.get(each, ()):
            counts[operand] = counts.get(operand, 0) + count
    return 0


def distances(order: Sequence[Tensor], edges: Edges) -> dict[Tensor, int]:
    """How many edges away the first in `order` is, by the shortest path, for each node that leads there."""
    found = {order[0]: 0}
    for node in order[1:]:
        lengths = [found[edge.reader] for edge in edges.get(node, ()) if edge.reader in found]
        if lengths:
            found[node] = 1 + min(lengths)
    return found


def shortest_paths(order: Sequence[Tensor], edges: Edges, node: Tensor) -> Iterator[list[Edge]]:
    """The paths from `node` to the first in `order`, each as its edges, shortest first.

    Best-first search with the true distance as its estimate, so that no step is in vain.

    Source: P. E. Hart, N. J. Nilsson and B. Raphael, A formal basis for the heuristic determination of minimum
    cost paths (1968).
    """
    root, left = order[0], distances(order, edges)
    if node not in left:
        return
    ties = itertools.count()
    heap: list[tuple[int, int, int, Tensor, Trail | None]] = [(left[node], 0, next(ties), node, None)]
    while heap:
        _, depth, _, here, trail = heapq.heappop(heap)
        if here is root:
            yield edges_of(trail)
            continue
        for edge in edges.get(here, ()):
            if edge.reader in left:
                length = 1 - depth + left[edge.reader]
                heapq.heappush(heap, (length, depth - 1, next(ties), edge.reader, Trail(edge, trail)))


def edges_of(trail: Trail | None) -> list[Edge]:
    found = []
    while trail is not None:
        found.append(trail.last)
        trail = trail.before
    return found[::-1]
