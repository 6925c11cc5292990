"""Sequences of different lengths in one batch: the steps past each end are masked, in loss, state and gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microgrid.errors import SequenceError
from microgrid.graph import Graph
from microgrid.leaves import Input, State, state
from microgrid.ops import reduce
from microgrid.ops.elementwise import maximum, where
from microgrid.ops.index import GETITEM
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.shape import reshape
from microgrid.ops.time import LAST, TIME_MEAN, TIME_STACK, TIME_SUM, is_time_reduction, last, time_sum
from microgrid.primitive import primitive_of, record
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.tensor import Name, Tensor

LENGTHS = "lengths"
"""The name of the input that says which sequences have not ended yet."""

SUM, MEAN = primitive_of(reduce.sum), primitive_of(reduce.mean)


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


def padded(array: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A sequence whose steps past each end hold the sequence's first: numbers that the network can compute with."""
    if array.ndim < 2 or array.shape[:2] != mask.shape:
        return array
    return np.where(mask.reshape(*mask.shape, *(1,) * (array.ndim - 2)), array, array[0])


def batch_axes(graph: Graph, larger: Mapping[Tensor, Tensor]) -> dict[Tensor, int]:
    """For each node its batch axis: where its twin in `larger`, recorded with one more sequence, has one more.

    Raises
    ------
    SequenceError
        If an operation joins the sequences of a batch with one another.
    """
    axes = {}
    for node, twin in larger.items():
        differing = [axis for axis, (n, m) in enumerate(zip(node.shape, twin.shape, strict=True)) if n != m]
        grown = [twin.shape[axis] - node.shape[axis] for axis in differing]
        if len(differing) > 1 or grown not in ([], [1]):
            raise mixing(graph, node)
        if differing:
            axes[node] = differing[0]
    for node in graph.nodes:
        if node in axes and not keeps_apart(node, axes):
            raise mixing(graph, node)
    return axes


def mixing(graph: Graph, node: Tensor) -> SequenceError:
    return SequenceError(
        f"{graph.names[node]!r} mixes the sequences of a batch by {node.primitive}; with lengths=, only mg.sum and "
        "mg.mean may, and no other operation may work along the batch axis"
    )


def keeps_apart(node: Tensor, axes: Mapping[Tensor, int]) -> bool:
    """Whether an operation whose result has a batch axis works on each sequence by itself."""
    for operand in node.operands:
        if operand not in axes or node.primitive is None:
            continue
        axis = axes[operand]
        along = node.params.get("axis", ())
        if node.primitive.name in ("flip", "cumsum", "take", "prod") and along is None:
            return False
        if node.primitive.name not in ("stack", "expand_dims") and along is not None:
            numbers = (along,) if isinstance(along, int | np.integer) else tuple(along)
            if axis in [number % operand.ndim for number in numbers]:
                return False
        if node.primitive is GETITEM and not reads_all(node, axis):
            return False
    return True


def reads_all(node: Tensor, axis: int) -> bool:
    """Whether an index takes all of an axis as it is, or picks by indices of which there is one per sequence."""
    template = node.params["template"]
    parts = template if isinstance(template, tuple) else (template,)
    if Ellipsis in [part for part in parts if part is Ellipsis or part is None or isinstance(part, slice)]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        taken = sum(part is not None for part in parts) - 1
        parts = (*parts[:at], *[slice(None)] * (node.operands[0].ndim - taken), *parts[at + 1 :])
    real = [part for part in parts if part is not None]
    part = real[axis] if axis < len(real) else slice(None)
    return not isinstance(part, slice) or part == slice(None)


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
    going._name = Name(LENGTHS)
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
        varying = [operand for operand in node.operands if operand in axes and operand in graph.varying]
        averaged.update([node] if any(operand in averaged for operand in node.operands) else [])
        if is_time_reduction(node):
            averaged.discard(node)
            return over_time(node, node.operands[0], made)
        if varying and node not in axes:
            if node.primitive in (SUM, MEAN):
                return over_batch(node, varying[0], made)
            raise mixing(graph, node)
        return kept(node, made)

    made: dict[Tensor, Tensor] = {}
    copy = rebuilt(graph, remake, made=made)
    for old in graph.states:
        new = made[old]
        if old in axes and isinstance(new, State):  # past its end a sequence keeps its state
            new._next = where(still_going(old), new.next, new)
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
