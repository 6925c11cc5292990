"""Reading parts of an array, and the scatter that is its adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.primitive import Primitive, primitive, record
from microgrid.tensor import ArrayLike, Tensor, constant


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in an index that an operand fills: operand `position` of those after the array."""

    position: int

    def __repr__(self) -> str:
        return f"#{self.position}"


def fill(template: Any, indices: tuple[Any, ...]) -> Any:
    """The index with its slots filled."""
    if isinstance(template, tuple):
        return tuple(indices[item.position] if isinstance(item, Slot) else item for item in template)
    return indices[template.position] if isinstance(template, Slot) else template


def scatter(g: Any, *indices: Any, shape: tuple[int, ...], template: Any) -> Any:
    out = np.zeros(shape, dtype=np.result_type(g))
    index = fill(template, indices)
    if reads_once(index):
        out[index] = g
    else:
        np.add.at(out, index, g)
    return out


def reads_once(index: Any) -> bool:
    """Whether an index is basic, so that it reads no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or type(part) in (slice, int) for part in parts)


def getitem_vjp(g: Any, out: Any, operands: Any, *, template: Any) -> Any:
    x, *indices = operands
    scattered = {"shape": np.shape(x), "template": template}
    if isinstance(g, Tensor):
        return record(SCATTER_ADD, (g, *indices), scattered)
    return SCATTER_ADD.compute((g, *indices), scattered)


def scatter_vjp(g: Any, out: Any, operands: Any, *, shape: tuple[int, ...], template: Any) -> Any:
    return g[fill(template, tuple(operands[1:]))]


def only_first(rule: Any) -> Any:
    """Operand number → rule, where only the first operand has a gradient and the others are indices."""
    return lambda index: rule if index == 0 else lambda *_, **__: None


GETITEM = Primitive(
    name="getitem",
    forward=lambda operands, template: np.asarray(operands[0])[fill(template, tuple(operands[1:]))],
    vjp_of=only_first(getitem_vjp),
    label="[ ]",
    variadic=True,
)
SCATTER_ADD = Primitive(
    name="scatter_add",
    forward=lambda operands, shape, template: scatter(*operands, shape=shape, template=template),
    vjp_of=only_first(scatter_vjp),
    label="scatter",
    variadic=True,
)


def getitem(x: ArrayLike, index: Any) -> Tensor:
    """`x[index]` with NumPy's basic and advanced indexing; an element read twice gets both gradients.

    Integer or boolean Tensors in `index` are operands of the graph: in an unrolled network they take
    a new value at every timestep.

    Raises
    ------
    OperandIndexError
        If the index lies outside the array.

    >>> x = mg.tensor([1.0, 2.0, 3.0])
    >>> mg.sum(mg.getitem(x, [0, 0, 2])).backward(); x.grad.tolist()
    [2.0, 0.0, 1.0]
    """
    operands = [constant(x)]

    def slot(item: Any) -> Any:
        if isinstance(item, np.ndarray | list):
            return np.array(item)  # the record's own: a later change of the user's array must not reach it
        if not isinstance(item, Tensor):
            return item
        operands.append(item)
        return Slot(len(operands) - 2)

    template = tuple(slot(item) for item in index) if isinstance(index, tuple) else slot(index)
    return record(GETITEM, operands, {"template": template})


def take_vjp(g: Any, out: Any, x: Any, indices: Any, *, axis: int | None) -> Any:
    if axis is None:
        return np.reshape(getitem_vjp(g, out, [np.reshape(x, -1), indices], template=Slot(0)), np.shape(x))
    before = (slice(None),) * (axis % np.ndim(x))
    return getitem_vjp(g, out, [x, indices], template=(*before, Slot(0)))


@primitive(np.take, vjp=(take_vjp, None))
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """The elements at integer `indices` along `axis`, or of the flattened array.

    With axis=0 on a table of shape (vocabulary, features) this is an embedding lookup.

    Raises
    ------
    OperandIndexError
        If an index lies outside the axis.

    >>> mg.take(mg.tensor([[1.0], [2.0]]), [1, 1, 0], axis=0).shape
    (3, 1)
    """
    return np.take(x, indices, axis=axis)


def concrete(function: Any) -> Any:
    """A NumPy function that asks about an array, answering for a Tensor's value."""
    return lambda x, *args, **kwargs: function(x.value if isinstance(x, Tensor) else x, *args, **kwargs)


ASKING: tuple[Any, ...] = (
    *(np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.full_like),
    *(np.argmax, np.argmin, np.argsort, np.isfinite, np.isnan, np.isinf),
)
for asks in ASKING:
    NUMPY_FUNCTIONS[asks] = concrete(asks)
