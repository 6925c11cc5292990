"""What a rewrite is: a look at a graph that finds a rule, by which nodes are replaced as the graph is copied."""

from __future__ import annotations

import functools
from collections.abc import Callable

from microgrid import recording
from microgrid.graph import Graph
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.tensor import Tensor

Rule = Callable[[Tensor, Made], Tensor | None]
"""(a node of the old graph, those made before it) → a node of the same value that stands for it, or None: no change."""


class Rewrite:
    """Graph → graph of the same values.

    Parameters
    ----------
    find : callable
        Graph → Rule, or None where there is nothing to rewrite.
    """

    def __init__(self, find: Callable[[Graph], Rule | None]) -> None:
        self.find = find
        functools.update_wrapper(self, find)

    def __call__(self, graph: Graph) -> Graph:
        return together(graph, self)


def together(graph: Graph, *rewrites: Rewrite) -> Graph:
    """The graph rewritten by several rules in one copy: of those that match a node, the first is taken."""
    rules = [rule for rewrite in rewrites if (rule := rewrite.find(graph)) is not None]
    if not rules:
        return graph

    matched = False

    def remake(node: Tensor, made: Made) -> Tensor:
        nonlocal matched
        for rule in rules:
            new = rule(node, made)
            if new is not None:
                matched = True
                return new
        return kept(node, made)

    with recording.outlines():
        copy = rebuilt(graph, remake)
    return copy if matched else graph  # of which much is known already
