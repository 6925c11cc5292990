"""Recording: what the forward and the backward pass did to every node, step by step, in the engine's own numbers."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.backward import fit, operand_cotangents, reverse_topological, sent_back
from microgrid.errors import GradientError
from microgrid.tensor import Tensor, describe

Rank = Callable[[Tensor], tuple[int, ...]]
"""Which of the nodes that can be computed comes first."""


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What the gradient of one operand gains when a node passes its own on.

    Attributes
    ----------
    reader : Tensor
        The node that passes its gradient on.
    index : int
        Which of its operands receives it.
    local : number, array or None
        The local derivative, where it is a number per element of the operand.
    added : number or array
        What the VJP rule gives: the gradient of the reader times the local derivative.
    total : number or array
        The gradient of the operand so far, this included.
    """

    reader: Tensor
    index: int
    local: Any
    added: Any
    total: Any

    @property
    def operand(self) -> Tensor:
        return self.reader.operands[self.index]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Both passes over an acyclic graph.

    Attributes
    ----------
    given : nodes known before anything is computed
    forward : the other nodes, in an order in which they can be computed
    backward : the nodes that pass a gradient on, in the reverse of that order, and what they pass on
    root : the node whose gradient is computed, and `seed`, the gradient it starts from
    gradients : each node's gradient in the end
    earlier : what leaves held of earlier calls of `backward`, about
    """

    given: tuple[Tensor, ...]
    forward: tuple[Tensor, ...]
    backward: tuple[tuple[Tensor, tuple[Contribution, ...]], ...]
    root: Tensor
    seed: Any
    gradients: dict[Tensor, Any]
    earlier: dict[Tensor, Any]

    @property
    def has_gradients(self) -> bool:
        return self.seed is not None


def record_passes(nodes: Sequence[Tensor], root: Tensor, rank: Rank) -> Recording:
    """Recompute both passes; the backward one only if `backward` was called on `root`.

    Raises
    ------
    GradientError
        If a value has changed since `backward` was called, so that the gradients belong to others.
    """
    order = computation_order(nodes, rank)
    given = tuple(node for node in order if is_given(node, rank))
    forward = tuple(node for node in order if not is_given(node, rank))
    seed = root.grad if root.primitive is not None else None
    if seed is None:
        return Recording(given, forward, (), root, None, {}, {})
    with np.errstate(all="ignore"):
        passed, found = engine_pass(root, seed)
        earlier = left_over(found)
        backward = told_backwards(order, root, passed, found, earlier)
    held = {node: node.grad if node in earlier else gradient for node, gradient in found.items()}
    return Recording(given, forward, backward, root, seed, held, earlier)


def is_given(node: Tensor, rank: Rank) -> bool:
    """Whether a node is a leaf that no timestep brings along."""
    return node.primitive is None and rank(node)[0] < 0


def computation_order(nodes: Iterable[Tensor], rank: Rank) -> list[Tensor]:
    """The nodes, each after its operands; of those that can be computed, the one of lowest rank first.

    Source: A. B. Kahn, Topological sorting of large networks (1962), with a heap in place of the set.
    """
    nodes = list(nodes)
    number = {node: i for i, node in enumerate(nodes)}
    missing = {node: len({x for x in node.operands if x in number}) for node in nodes}
    readers: dict[Tensor, list[Tensor]] = {node: [] for node in nodes}
    for node in nodes:
        for operand in dict.fromkeys(node.operands):
            if operand in number:
                readers[operand].append(node)
    ready = [(rank(node), number[node]) for node in nodes if not missing[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        node = nodes[heapq.heappop(ready)[1]]
        order.append(node)
        for reader in readers[node]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (rank(reader), number[reader]))
    return order


def engine_pass(root: Tensor, seed: Any) -> tuple[dict[tuple[Tensor, int], Any], dict[Tensor, Any]]:
    """What each operand receives from each reader, and all gradients, summed in the engine's order."""
    passed: dict[tuple[Tensor, int], Any] = {}
    found: dict[Tensor, Any] = {root: seed}
    for node in reverse_topological(root):
        if node.primitive is None or node not in found:
            continue
        for index, (operand, cotangent) in enumerate(zip(node.operands, sent_back(node, found[node]), strict=True)):
            if cotangent is not None:
                passed[node, index] = cotangent
                held = found.get(operand)
                found[operand] = cotangent if held is None else held + cotangent
    return passed, found


def left_over(found: dict[Tensor, Any]) -> dict[Tensor, Any]:
    """What leaves held before `backward` was called, as far as their gradients tell."""
    earlier = {}
    for node, gradient in found.items():
        if node.grad is None or same(node.grad, gradient):
            continue  # cleared since, or just what this pass gives
        if node.primitive is not None:
            raise GradientError(
                f"the gradient of {describe(node)} is not what its values give: a value has changed since backward() "
                "was called, as an optimiser's step does. Unroll again, call backward(), and play that."
            )
        earlier[node] = node.grad - gradient
    return earlier


def same(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def told_backwards(
    order: Sequence[Tensor],
    root: Tensor,
    passed: dict[tuple[Tensor, int], Any],
    found: dict[Tensor, Any],
    earlier: dict[Tensor, Any],
) -> tuple[tuple[Tensor, tuple[Contribution, ...]], ...]:
    """The backward pass as the forward pass run backwards: timestep after timestep, last one first.

    The engine visits the nodes in another order that is as good. The numbers are its own; only the sums
    on the way to a gradient of three and more terms add these up in the order in which they are told, and
    the last of them is the engine's.
    """
    waiting: dict[Tensor, int] = {}
    for node, index in passed:
        waiting[node.operands[index]] = waiting.get(node.operands[index], 0) + 1
    so_far: dict[Tensor, Any] = dict(earlier)
    told = []
    for node in reversed(order):
        if node.primitive is None or node not in found:
            continue
        contributions = []
        local = local_derivatives(node)
        for index, operand in enumerate(node.operands):
            if (node, index) not in passed:
                continue
            added = passed[node, index]
            waiting[operand] -= 1
            total = so_far[operand] + added if operand in so_far else added
            if not waiting[operand]:
                total = operand.grad if operand in earlier else found[operand]
            so_far[operand] = total
            contributions.append(Contribution(node, index, local[index], added, total))
        if contributions or node is root:
            told.append((node, tuple(contributions)))
    return tuple(told)


def local_derivatives(node: Tensor) -> list[Any]:
    """What each operand's VJP rule makes of a cotangent of ones, where that is its local derivative."""
    primitive = node.primitive
    assert primitive is not None
    alike = [x.shape == node.shape and (primitive.elementwise or not node.shape) for x in node.operands]
    if not any(alike) or not np.issubdtype(node.dtype, np.floating):
        return [None] * len(alike)
    ones = 1.0 if type(node.value) is float else np.ones_like(node.value)
    values = [operand.value for operand in node.operands]
    found = operand_cotangents(node, ones, node.value, values)
    return [
        fit(local, operand.value) if is_alike and local is not None else None
        for local, operand, is_alike in zip(found, node.operands, alike, strict=True)
    ]
