"""Rewrites: graph → graph of the same values that is cheaper to run. Each is one small function.

`network` is for the graph as a user recorded it, before it is differentiated, so that the adjoint
profits; `program` for the forward graph and its adjoint together. `CALLS` rewrites for an executor to
which every operation is a call, `PASSES` for one that fuses them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microgrid.graph import Graph
from microgrid.rewrite.constants import fold_constants
from microgrid.rewrite.joined import join_single_rows, slice_weights
from microgrid.rewrite.lower import (
    interpolations,
    means_as_sums,
    parts_of_softmax,
    sigmoid_by_tanh,
    squares,
    without_broadcasts,
)
from microgrid.rewrite.parts import distribute_over_parts, flat_joins, join_scatters, merge_products_by_one
from microgrid.rewrite.products import contract_over_time, merge_products, scale_weights, static_factors_last
from microgrid.rewrite.repeated import merge_repeated
from microgrid.rewrite.rule import together
from microgrid.rewrite.slices import flat_slices, merge_neighbours, scale_before_slicing
from microgrid.rewrite.sums import factors_outside, hoist_terms, negate_outside, share_factors

ROUNDS = 12
"""More than any network met needs; each round merges one layer of operations on slices."""


def network(graph: Graph) -> Graph:
    """Fewer and larger operations in every timestep."""
    graph = together(graph, merge_repeated, squares, means_as_sums, sigmoid_by_tanh)
    graph = hoist_terms(together(graph, merge_products, interpolations))
    for _ in range(ROUNDS):
        before = graph
        graph = scale_weights(scale_before_slicing(merge_neighbours(graph)))
        if graph is before:
            break
    return join_single_rows(together(graph, flat_slices, hoist_terms))


def program(graph: Graph) -> Graph:
    """As little as possible inside the loops."""
    graph = together(graph, fold_constants, join_scatters, slice_weights, without_broadcasts)
    graph = distribute_over_parts(graph)
    graph = factors_outside(together(graph, hoist_terms, negate_outside))
    graph = merge_products_by_one(factors_outside(share_factors(graph)))
    graph = contract_over_time(static_factors_last(graph))
    return together(graph, merge_repeated, fold_constants)


def fused_network(graph: Graph) -> Graph:
    """Fewer products in every timestep, and what does not recur apart."""
    graph = together(graph, merge_repeated, squares, means_as_sums)
    return hoist_terms(together(graph, merge_products, interpolations))


def fused_program(graph: Graph) -> Graph:
    """Few products over all timesteps, and nothing that only moves numbers."""
    graph = together(graph, fold_constants, join_scatters, slice_weights, without_broadcasts, parts_of_softmax)
    graph = contract_over_time(static_factors_last(flat_joins(graph)))
    return together(graph, merge_repeated, fold_constants)


@dataclass(frozen=True, slots=True)
class Rewrites:
    """What is rewritten before a graph is differentiated, and afterwards."""

    network: Callable[[Graph], Graph]
    program: Callable[[Graph], Graph]


CALLS = Rewrites(network, program)
PASSES = Rewrites(fused_network, fused_program)
