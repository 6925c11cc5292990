"""Reverse-mode differentiation of a directed acyclic graph of Tensors, by Tensor.backward and mg.grad.

Source: S. Linnainmaa, The representation of the cumulative rounding error of an algorithm (1970);
A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed. (2008), chapter 3.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

if TYPE_CHECKING:
    from microgrid.tensor import Tensor


_here = threading.local()


REMEMBERED = 8
"""On how many of the last calls of `backward` one may ask for an explanation without naming the root."""


def remember(root: Tensor) -> None:
    """Note on what `backward` is called in this thread, without keeping it alive."""
    try:
        _here.roots.appendleft(weakref.ref(root))
    except AttributeError:
        _here.roots = collections.deque([weakref.ref(root)], maxlen=REMEMBERED)


def latest_roots() -> list[Tensor]:
    """What `backward` was last called on in this thread, as far as it is still there, the latest first."""
    found = [reference() for reference in getattr(_here, "roots", ())]
    return [root for root in found if root is not None]


def reverse_topological(root: Tensor, stop: Collection[Tensor] = ()) -> list[Tensor]:
    """The nodes that `root` depends on and that need a gradient, each after all of its readers.

    What lies behind the nodes in `stop` is left out.

    A depth-first post-order, reversed. The stack is a list, so no chain is too deep for Python.

    Source: R. Tarjan, Edge-disjoint spanning trees and depth-first search (1976).
    """
    order = []
    seen = set()
    stack: list[Tensor | None] = [root]
    while stack:
        node = stack.pop()
        if node is None:  # everything below the node under this mark is done
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            stack.append(node)
            stack.append(None)
            if node in stop:
                continue
            for operand in (node.first, node.second, *node.others):
                if operand is not None and operand.requires_grad and operand not in seen:
                    stack.append(operand)
    order.reverse()
    return order  # type: ignore[return-value]


def refuse_where_forbidden(root: Tensor, order: list[Tensor], called: Callable[[], str]) -> None:
    """Ask each class of node in `order` whether it forbids backpropagation from `root`, its user's `called()`."""
    for kind in {type(node) for node in order}:
        kind._check_backward(root, order, called)


def accumulate_gradients(order: list[Tensor], seed: Any) -> None:
    """Fill `.grad` of every node in `order` (reverse topological); leaves add to what they hold.

    The VJP rules run on plain numbers and arrays: nothing is recorded. One and two operands are
    written out because they are nearly every node, and this loop is the cost of learning.
    """
    for node in order:
        if node.first is not None:
            node.grad = None
    root = order[0]
    root.grad = seed if root.grad is None else root.grad + seed
    for node in order:
        primitive = node.primitive
        g = node.grad
        if primitive is None:
            if type(g) is ndarray:
                node.grad = g.copy()  # a leaf's gradient is the user's: it shares memory with nobody
            continue
        if g is None:
            continue  # every reader's rule said that nothing flows here
        rules = primitive.vjps
        if len(rules) == 2 and not node.params:
            x, y = node.first, node.second
            assert x is not None
            assert y is not None
            rule_x, rule_y = rules
            try:
                to_x = rule_x(g, node.value, x.value, y.value) if x.requires_grad else None
                to_y = rule_y(g, node.value, x.value, y.value) if y.requires_grad else None
            except (ArithmeticError, ValueError):
                to_x, to_y = operand_cotangents(node, g, node.value, (x.value, y.value))
            deliver(to_x, x)
            deliver(to_y, y)
        elif len(rules) == 1 and not node.params:
            x = node.first
            assert x is not None
            try:
                to_x = rules[0](g, node.value, x.value)
            except (ArithmeticError, ValueError):
                (to_x,) = operand_cotangents(node, g, node.value, (x.value,))
            deliver(to_x, x)
        else:
            found = operand_cotangents(node, g, node.value, [x.value for x in node.operands])
            for operand, cotangent in zip(node.operands, found, strict=True):
                deliver(cotangent, operand)


def deliver(cotangent: Any, operand: Tensor) -> None:
    """Add a cotangent to the gradient of `operand`, in its shape, dtype and kind; None adds nothing."""
    if cotangent is None:
        return
    value = operand.value
    kind = type(value)
    if type(cotangent) is not kind or (
        kind is ndarray and (cotangent.shape != value.shape or cotangent.dtype is not value.dtype)
    ):
        cotangent = fit(cotangent, value)
    held = operand.grad
    operand.grad = cotangent if held is None else held + cotangent


def gradients(
    order: list[Tensor],
    seed: Any,
    read: Callable[[Tensor], Any],
    match: Callable[[Any, Tensor], Any],
    stop: Collection[Tensor],
) -> dict[Tensor, Any]:
    """The cotangent of every node in `order` that one reaches, leaving the nodes as they are.

    `read` says what the rules see of a node: its value, and the cotangents are numbers; or the node
    itself, and they are Tensors that can be differentiated again. `match` gives a cotangent the
    shape and dtype of the operand it belongs to. Nothing is passed on behind the nodes in `stop`.
    """
    found = {order[0]: seed}
    for node in order:
        if node.primitive is None or node not in found or node in stop:
            continue
        cotangents = operand_cotangents(node, found[node], read(node), map(read, node.operands))
        for operand, cotangent in zip(node.operands, cotangents, strict=True):
            if cotangent is not None:
                cotangent = match(cotangent, operand)
                held = found.get(operand)
                found[operand] = cotangent if held is None else held + cotangent
    return found


def operand_cotangents(node: Tensor, g: Any, out: Any, values: Iterable[Any]) -> list[Any]:
    """What each VJP rule of `node` says; None for an operand that needs no gradient."""
    values = list(values)
    primitive = node.primitive
    assert primitive is not None

    def apply(g: Any, out: Any, values: list[Any]) -> list[Any]:
        given = [values] if primitive.variadic else values
        return [
            primitive.rule(index)(g, out, *given, **node.params) if operand.requires_grad else None
            for index, operand in enumerate(node.operands)
        ]

    try:
        return apply(g, out, values)
    except (ArithmeticError, ValueError):  # Python scalars raise where arrays give inf or nan
        return apply(as_array_scalar(g), as_array_scalar(out), list(map(as_array_scalar, values)))


def sent_back(node: Tensor, g: Any) -> list[Any]:
    """What each operand of `node` receives where the gradient of `node` is `g`; None where nothing flows."""
    values = [operand.value for operand in node.operands]
    found = operand_cotangents(node, g, node.value, values)
    return [
        None if cotangent is None else fit(cotangent, value) for cotangent, value in zip(found, values, strict=True)
    ]


def unbroadcast(cotangent: Any, shape: tuple[int, ...]) -> Any:
    """Sum over the axes along which an operand of `shape` was broadcast; undoes NumPy's broadcasting.

    >>> import numpy as np
    >>> unbroadcast(np.ones((4, 3)), (3,)).tolist()
    [4.0, 4.0, 4.0]
    >>> unbroadcast(np.ones((4, 3)), (4, 1)).tolist()
    [[3.0], [3.0], [3.0], [3.0]]
    """
    found = np.shape(cotangent)
    if found == shape:
        return cotangent
    extra = len(found) - len(shape)
    if extra < 0:
        return np.broadcast_to(cotangent, shape)
    kept = tuple(1 if n == 1 else m for n, m in zip(shape, found[extra:], strict=False))
    summed = (*range(extra), *(extra + i for i, n in enumerate(kept) if n != found[extra + i]))
    if summed:
        cotangent = np.sum(cotangent, axis=summed).reshape(kept)
    return cotangent if np.shape(cotangent) == shape else np.broadcast_to(cotangent, shape)


def fit(cotangent: Any, value: Any) -> Any:
    """The cotangent in the shape, dtype and kind (Python float or array) of the value it belongs to."""
    if type(value) is float:
        return float(cotangent) if isinstance(cotangent, float) else float(np.sum(cotangent))
    shape = np.shape(value)
    cotangent = unbroadcast(cotangent, shape)
    if shape == ():
        return value.dtype.type(cotangent) if isinstance(value, np.generic) else np.asarray(cotangent, value.dtype)
    return np.asarray(cotangent, dtype=value.dtype)


def as_array_scalar(value: Any) -> Any:
    """A Python float as `np.float64`, whose arithmetic gives inf and nan instead of raising."""
    return np.float64(value) if type(value) is float else value
