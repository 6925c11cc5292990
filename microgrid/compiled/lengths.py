"""Sequences of different lengths in one batch: the steps past each end are masked, in loss, state and gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from microgrid.errors import SequenceError
from microgrid.graph import Graph
from microgrid.leaves import Input, state
from microgrid.ops import reduce
from microgrid.ops.elementwise import maximum, where
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.shape import reshape
from microgrid.ops.time import LAST, TIME_MEAN, TIME_STACK, TIME_SUM, is_time_reduction, last, time_sum
from microgrid.primitive import record
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.tensor import Tensor

LENGTHS = "lengths"
"""The name of the input that says which sequences have not ended yet."""

SUM, MEAN = reduce.sum.primitive, reduce.mean.primitive  # type: ignore[attr-defined]


def mask_of(lengths: Any, steps: int, batch: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which sequences have not ended at which timestep: (time, batch).

    Raises SequenceError if there is not one length per sequence, each from 1 to the number of timesteps.
    """
    found = np.asarray(lengths)
    if found.shape != (batch,) or found.dtype.kind not in "iu":
        raise SequenceError(
            f"lengths takes one whole number per sequence, of shape ({batch},), not {found.dtype} of shape "
            f"{found.shape}"
        )
    if found.min() < 1 or found.max() > steps:
        raise SequenceError(
            f"lengths go from {found.min()} to {found.max()}, but each must be between 1 and the {steps} timesteps "
            "given"
        )
    mask: np.ndarray[Any, np.dtype[np.bool_]] = np.arange(steps)[:, None] < found
    return mask


def batch_axes(one: Graph, other: Graph) -> dict[Tensor, int]:
    """For each node of `one` its batch axis: where its shape is another in `other`, recorded with one more sequence."""
    axes = {}
    for node, twin in zip(one.nodes, other.nodes, strict=True):
        differing = [axis for axis, (n, m) in enumerate(zip(node.shape, twin.shape, strict=True)) if n != m]
        if len(differing) > 1:
            raise SequenceError(
                f"{one.names[node]!r}, of shape {node.shape}, has the batch on several axes: lengths= needs one axis "
                "of sequences that do not touch each other"
            )
        if differing:
            axes[node] = differing[0]
    return axes


def masked(graph: Graph, axes: dict[Tensor, int]) -> Graph:
    """The graph in which sequences end on their own: past its end a sequence keeps its states and adds to no sum.

    It has one more input, `lengths`: whether a sequence has not ended yet, (batch,). Means over batch and
    time are over the timesteps that there are. The batch axis of each node is in `axes`.

    Raises
    ------
    SequenceError
        If an operation mixes the sequences of a batch in a way that cannot be masked.
    """
    batched = [node for node in graph.inputs if node in axes]
    if not batched:
        raise SequenceError("lengths= needs an input with a batch axis")
    size = batched[0].shape[axes[batched[0]]]
    going = Input(np.ones(size, np.bool_))
    going._name = (LENGTHS, None)
    averaged: set[Tensor] = set()  # nodes made of means over the batch, whose weight in time is how many there are
    count: dict[Any, Tensor] = {}

    def still_going(node: Tensor) -> Tensor:
        """The mask in a shape that broadcasts against a node."""
        shape = tuple(size if axis == axes[node] else 1 for axis in range(node.ndim))
        return going if shape == (size,) else reshape(going, shape)

    def valid(node: Tensor, made: Made) -> Tensor:
        return where(still_going(node), made[node], np.zeros((), node.dtype)[()])

    def sequences_going(dtype: Any) -> Tensor:
        """How many sequences have not ended."""
        if dtype not in count:
            count[dtype] = sum_along(where(going, np.ones((), dtype)[()], np.zeros((), dtype)[()]))
        return count[dtype]

    def over_batch(node: Tensor, x: Tensor, made: Made) -> Tensor:
        """A sum or mean that adds up the sequences of a batch."""
        total = sum_along(valid(x, made), **node.params)
        if node.primitive is SUM:
            return total
        averaged.add(node)
        others = x.size // size // node.size
        return total / (maximum(sequences_going(node.dtype), np.ones((), node.dtype)[()]) * float(others))

    def over_time(node: Tensor, x: Tensor, made: Made) -> Tensor:
        if x in axes:
            if node.primitive in (TIME_SUM, TIME_STACK):
                assert node.primitive is not None
                return record(node.primitive, [valid(x, made)], node.params)
            if node.primitive is TIME_MEAN:
                ones = where(still_going(x), np.ones((), x.dtype)[()], np.zeros((), x.dtype)[()])
                return time_sum(valid(x, made)) / time_sum(ones)
            if node.primitive is LAST:
                return last(held(x, made))
        elif node.primitive is TIME_MEAN and x in averaged:
            weight = sequences_going(x.dtype)
            return time_sum(made[x] * weight) / time_sum(weight)
        elif node.primitive is LAST and x.primitive in (SUM, MEAN) and x.operands[0] in axes:
            assert x.primitive is not None
            return record(x.primitive, [last(held(x.operands[0], made))], x.params)
        elif node.primitive is LAST and any(operand in axes for operand in behind(x)):
            raise SequenceError(
                f"{graph.names[node]!r} takes the last timestep of {graph.names[x]!r}, which no longer tells the "
                "sequences of the batch apart: with lengths=, take mg.last before the reduction over the batch"
            )
        return kept(node, made)

    def held(x: Tensor, made: Made) -> Tensor:
        """`x`, which past the end of a sequence stays what it was at its end."""
        before = state(np.zeros(x.shape, x.dtype))
        before.next = where(still_going(x), made[x], before)
        return before.next

    def remake(node: Tensor, made: Made) -> Tensor:
        if isinstance(node, Input) and node in axes:
            return padded[node]
        varying = [operand for operand in node.operands if operand in axes and operand in graph.varying]
        averaged.update([node] if any(operand in averaged for operand in node.operands) else [])
        if is_time_reduction(node):
            averaged.discard(node)
            return over_time(node, node.operands[0], made)
        if varying and node not in axes:
            if node.primitive in (SUM, MEAN):
                return over_batch(node, varying[0], made)
            raise SequenceError(
                f"{graph.names[node]!r} mixes the sequences of a batch by {node.primitive}; with lengths=, only mg.sum "
                "and mg.mean may"
            )
        return kept(node, made)

    padded = {node: where(still_going(node), node, np.zeros((), node.dtype)[()]) for node in batched}
    copy = rebuilt(graph, remake)
    with_batch = {old.name: old for old in graph.states if old in axes}
    for node in copy.states:
        if node.name in with_batch:  # past its end a sequence keeps its state
            node._next = where(still_going(with_batch[node.name]), node.next, node)
    pairs = zip(graph.outputs, copy.outputs, strict=True)
    return Graph(*(old if isinstance(old, Input) else new for old, new in pairs))


def behind(node: Tensor) -> list[Tensor]:
    """The node and all it depends on in the same timestep."""
    found, stack = [], [node]
    seen: set[Tensor] = set()
    while stack:
        each = stack.pop()
        if each not in seen:
            seen.add(each)
            found.append(each)
            stack += each.operands
    return found
