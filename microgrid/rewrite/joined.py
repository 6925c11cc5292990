"""One product per timestep for a batch of one sequence: [x, 1, h] @ [W; b; U] for x@W + b + h@U.

A product of one row costs little more than its call, so the input's part is not worth computing for all
timesteps at once and adding in every one. The state lives in the joined row, and is never copied.
"""

from __future__ import annotations

import numpy as np

from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.ops.linalg import matmul
from microgrid.ops.shape import concatenate, reshape, transpose
from microgrid.rebuild import Made, renamed
from microgrid.rewrite.reading import ADD, CONCATENATE, MATMUL, TRANSPOSE, has, zones_of
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.rewrite.slices import last_axis_slice
from microgrid.rewrite.sums import Readers, is_whole, terms_of
from microgrid.tensor import Tensor


@Rewrite
def join_single_rows(graph: Graph) -> Rule | None:
    """The graph in which a sum of products of single rows, one of them a state, is one product of the joined row."""
    readers, zones = graph.readers, zones_of(graph)
    taken: set[Tensor] = set()
    sums: dict[Tensor, tuple[list[Tensor], list[Tensor]]] = {}
    for node in graph.nodes:
        found = products_and_biases(node, readers, zones)
        if found is None:
            continue
        products, biases = found
        states = [each.operands[0] for each in products if isinstance(each.operands[0], State)]
        if len(states) == 1 and states[0] not in taken:
            taken.update(states)
            sums[node] = products, biases
    if not sums:
        return None

    def rule(node: Tensor, made: Made) -> Tensor | None:
        if node not in sums:
            return None
        products, biases = sums[node]
        products = sorted(products, key=lambda each: isinstance(each.operands[0], State))
        rows = [made[each.operands[0]] for each in products]
        weights = [made[each.operands[1]] for each in products]
        for bias in biases:
            rows.insert(-1, Tensor(np.ones((1, 1), node.dtype)))
            weights.insert(-1, reshape(made[bias], (1, node.shape[-1])))
        joined = matmul(concatenate(rows, axis=1), concatenate(weights, axis=0))
        return renamed(joined, node)

    return rule


def products_and_biases(
    node: Tensor, readers: Readers, zones: dict[Tensor, int]
) -> tuple[list[Tensor], list[Tensor]] | None:
    """The products with static weights, and the static rows, of which a sum in a cycle consists; None if of more."""
    if node.primitive is not ADD or not is_whole(node, readers) or zones[node] < 0 or node.shape[:-1] != (1,):
        return None
    products: list[Tensor] = []
    biases: list[Tensor] = []
    for term in terms_of(node, readers):
        if not term.depends_on_time() and term.shape in (node.shape, node.shape[-1:]) and term.dtype == node.dtype:
            biases.append(term)
            continue
        if term.primitive is not MATMUL or len(readers[term]) != 1:
            return None
        x, weight = term.operands
        recurs = zones[x] == zones[node]
        if x.ndim != 2 or weight.ndim != 2 or weight.depends_on_time() or not x.dtype == weight.dtype == node.dtype:
            return None
        if recurs != isinstance(x, State) or not x.depends_on_time():
            return None
        products.append(term)
    return products, biases


@Rewrite
def slice_weights(graph: Graph) -> Rule | None:
    """The graph in which columns of a product with joined weights are a product with the weights they come from."""
    if not has(graph, CONCATENATE):
        return None
    readers = graph.readers

    def rule(node: Tensor, made: Made) -> Tensor | None:
        found = last_axis_slice(node)
        sliced_only = found and all(reader is not None and last_axis_slice(reader) for reader in readers[found[0]])
        if found and found[0].primitive is MATMUL and sliced_only:
            product, start, stop = found
            x, turned = product.operands
            joined = turned.operands[0] if turned.primitive is TRANSPOSE else turned
            if turned is not joined and joined.primitive is CONCATENATE and joined.params["axis"] == 0:
                at = 0
                for part in joined.operands:
                    if (at, at + part.shape[0]) == (start, stop):
                        sliced = matmul(made[x], transpose(made[part]))
                        return renamed(sliced, node)
                    at += part.shape[0]
        return None

    return rule
