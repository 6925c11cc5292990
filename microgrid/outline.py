"""What an operation's result looks like, without computing it: a compiler needs shapes and dtypes, not values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from microgrid.primitive import Primitive

ShapeRule = Callable[..., tuple[int, ...] | None]
"""(*shapes of the operands) → the shape of the result; None if they do not fit."""

SMALL = 64
"""Values of so many elements are computed also where only their shape is asked for."""
ZERO = bytes(64)


def outlined(primitive: Primitive, values: Sequence[Any], params: Mapping[str, Any]) -> Any:
    """A value of the shape and dtype of the operation's: itself if it is small, else zeros that take no memory."""
    shapes = [np.shape(value) for value in values]
    if primitive.elementwise and not primitive.variadic:
        shape = shapes[0] if shapes.count(shapes[0]) == len(shapes) else np.broadcast_shapes(*shapes)
        if math.prod(shape) > SMALL:
            one = primitive.compute([value[(0,) * value.ndim] if np.ndim(value) else value for value in values], params)
            return stand_in(shape, one.dtype)
    elif primitive.shape_of is not None:
        found = primitive.shape_of(*shapes)
        if found is not None and math.prod(found) > SMALL:
            return stand_in(found, np.result_type(*values))
    result = primitive.compute(values, params)
    return stand_in(result.shape, result.dtype) if np.size(result) > SMALL else result


def stand_in(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Zeros that share one element."""
    return np.ndarray(shape, dtype, ZERO, strides=(0,) * len(shape))
