"""Reading parts of an array, and the scatter that is its adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.primitive import Primitive, primitive, record
from microgrid.tensor import ArrayLike, Tensor, constant
from microgrid.time_axis import TimeRule, aligned, every_step, later_axis, number_of_steps, step_by_step


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


def written(template: Any) -> str:
    """An index as it is typed, with the number of the operand for each slot: "0:4, #1"."""
    if isinstance(template, tuple):
        return ", ".join(map(written, template))
    if isinstance(template, Slot):
        return f"#{template.position + 1}"
    if isinstance(template, slice):
        ends = [template.start, template.stop] + ([template.step] if template.step is not None else [])
        return ":".join("" if end is None else str(end) for end in ends)
    if isinstance(template, np.ndarray) and template.ndim:
        return f"{template.size} places"
    return "…" if template is Ellipsis else str(template)


def scatter_notation(place: str) -> str:
    return "scatter(x, …)" if "#" in place else f"scatter_{{{place}}}(x)"


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


def index_over_time(template: Any, indices: Any, varies: Any, x_varies: bool, steps: int) -> Any:
    """The index that reads, or writes, all timesteps at once from an array with or without a time axis.

    None where NumPy has no such index: slices beside indices that vary, or several arrays apart.
    """
    parts = template if isinstance(template, tuple) else (template,)
    whole = fill(parts, tuple(indices))
    arrays = [part for part in whole if not (part is None or part is Ellipsis or isinstance(part, slice))]
    if not any(varies):  # a leading slice for time, before at most one array
        return (slice(None), *whole) if len(arrays) <= 1 or reads_once(whole) else None
    if len(arrays) < len(whole) or any(np.asarray(part).dtype == np.bool_ for part in arrays):
        return None
    moving = [isinstance(part, Slot) and varies[part.position] for part in parts]
    rank = max(np.ndim(part) - v for part, v in zip(whole, moving, strict=True))
    whole = tuple(aligned(np.asarray(part), v, rank) for part, v in zip(whole, moving, strict=True))
    return (np.arange(steps).reshape(steps, *(1,) * rank), *whole) if x_varies else whole


def getitem_over_time(values: Any, varies: Any, shape: tuple[int, ...], *, template: Any) -> Any:
    steps = number_of_steps(values, varies)
    index = index_over_time(template, values[1:], varies[1:], varies[0], steps)
    if index is None:
        return step_by_step(GETITEM.forward, True)(values, varies, shape, template=template)
    return values[0][index]


def scatter_over_time(
    values: Any, varies: Any, result: tuple[int, ...], /, *, shape: tuple[int, ...], template: Any
) -> Any:
    steps = number_of_steps(values, varies)
    index = index_over_time(template, values[1:], varies[1:], True, steps)
    if index is None:
        return step_by_step(SCATTER_ADD.forward, True)(values, varies, result, shape=shape, template=template)
    return scatter(every_step(values[0], varies[0], steps), shape=(steps, *shape), template=index)


GETITEM = Primitive(
    name="getitem",
    forward=lambda operands, template: np.asarray(operands[0])[fill(template, tuple(operands[1:]))],
    vjp_of=only_first(getitem_vjp),
    label="[ ]",
    notation=lambda template: f"x[{written(template)}]",
    variadic=True,
    view=lambda template: reads_once(template),
    batched=getitem_over_time,
)
SCATTER_ADD = Primitive(
    name="scatter_add",
    forward=lambda operands, shape, template: scatter(*operands, shape=shape, template=template),
    vjp_of=only_first(scatter_vjp),
    label="scatter",
    notation=lambda shape, template: scatter_notation(written(template)),
    variadic=True,
    batched=scatter_over_time,
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


def take_over_time(forward: Any) -> TimeRule:
    by_steps = step_by_step(forward, False)

    def rule(values: Any, varies: Any, shape: tuple[int, ...], *, axis: int | None) -> Any:
        x, indices = values
        if all(varies):
            return by_steps(values, varies, shape, axis=axis)
        if varies[0]:
            return np.take(x.reshape(len(x), -1), indices, 1) if axis is None else np.take(x, indices, later_axis(axis))
        return np.moveaxis(np.take(x, indices, axis), 0 if axis is None else axis % np.ndim(x), 0)

    return rule


@primitive(
    np.take, vjp=(take_vjp, None), batched=take_over_time, notation=lambda axis: "x[y]" if axis in (0, None) else None
)
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
