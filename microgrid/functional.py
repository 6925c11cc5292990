"""Gradients of functions: grad, value_and_grad and jacobian, each of which can be nested."""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from microgrid import backward, recording
from microgrid.errors import GradientError
from microgrid.leaves import set_up_leaf, tensor
from microgrid.ops.elementwise import positive
from microgrid.ops.shape import reshape, stack
from microgrid.tensor import Tensor

Function = Callable[..., Tensor]


def value_and_grad(f: Function, argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that returns the value of `f` and its gradient.

    Parameters
    ----------
    f : callable
        Takes Tensors, returns a scalar Tensor.
    argnums : int or tuple of int
        Which positional arguments to differentiate by; a tuple gives a tuple of gradients.

    Returns
    -------
    callable
        Called with numbers or arrays it returns numbers or arrays; called with Tensors, as inside
        another `grad`, it returns Tensors that can be differentiated again.

    Raises
    ------
    GradientError
        When called: if `f` returns no scalar, or an argument holds integers.

    >>> value, slope = mg.value_and_grad(lambda x: x * x)(3.0)
    >>> value, slope
    (9.0, 6.0)
    """
    single = hasattr(argnums, "__index__")
    wanted = (operator.index(argnums),) if single else tuple(argnums)  # type: ignore[arg-type]

    @functools.wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        with differentiating(args, checked(wanted, args, f)) as nested:
            variables, result = call_with_variables(f, args, kwargs, wanted)
            if result.shape != ():
                raise GradientError(
                    f"grad needs a scalar, but {name_of(f)} returned shape {result.shape}; see mg.jacobian"
                )
            order = order_behind(result, variables)
            found = tuple(gradients_of(order, variables, np.ones((), result.dtype), nested))
        gradient = found[0] if single else found
        return (result if nested else result.value), gradient

    return differentiated


def grad(f: Function, argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that returns the gradient of a scalar function. See `value_and_grad`.

    >>> mg.grad(mg.tanh)(0.0)
    1.0
    >>> mg.grad(mg.grad(lambda x: x**3))(2.0)    # the second derivative, 6 x
    12.0
    """
    both = value_and_grad(f, argnums)

    @functools.wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return differentiated


def jacobian(f: Function, argnums: int = 0) -> Callable[..., Any]:
    """A function that returns all partial derivatives: shape (*shape of f(x), *shape of x).

    One backward sweep per element of the result. Nested over `grad` it gives the Hessian.

    >>> import numpy as np
    >>> mg.jacobian(lambda x: x * x)(np.array([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    >>> mg.jacobian(mg.grad(lambda x: mg.sum(x**3)))(np.array([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """

    @functools.wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        with differentiating(args, checked((argnums,), args, f)) as nested:
            (variable,), result = call_with_variables(f, args, kwargs, (argnums,))
            order = order_behind(result, [variable])
            rows = []
            for index in np.ndindex(result.shape):
                seed = np.zeros(result.shape, result.dtype)
                seed[index] = 1
                rows.extend(gradients_of(order, [variable], seed, nested))
            shape = result.shape + variable.shape
            if not rows:
                return Tensor(np.zeros(shape, variable.dtype)) if nested else np.zeros(shape, variable.dtype)
            return reshape(stack(rows), shape) if nested else np.reshape(np.stack(rows), shape)

    return differentiated


_here = threading.local()


@contextlib.contextmanager
def differentiating(args: tuple[Any, ...], wanted: tuple[int, ...]) -> Iterator[bool]:
    """Record; yields whether the gradient itself must be recorded, to be differentiated again.

    That is so for Tensor arguments, and inside another gradient function, whose variables may
    reach this one through a closure.
    """
    depth = getattr(_here, "depth", 0)
    _here.depth = depth + 1
    try:
        with recording.always():
            yield depth > 0 or any(isinstance(args[i], Tensor) for i in wanted)
    finally:
        _here.depth = depth


def checked(wanted: tuple[int, ...], args: tuple[Any, ...], f: Function) -> tuple[int, ...]:
    for i in wanted:
        if not -len(args) <= i < len(args):
            raise GradientError(f"argnums asks for argument {i}, but {name_of(f)} was called with {len(args)}")
    return wanted


def name_of(f: Function) -> str:
    return getattr(f, "__name__", repr(f))


def call_with_variables(
    f: Function, args: tuple[Any, ...], kwargs: dict[str, Any], wanted: tuple[int, ...]
) -> tuple[list[Tensor], Tensor]:
    """`f` called with a node of its own for each argument in `wanted`."""
    given = list(args)
    for i in wanted:
        if isinstance(given[i], Tensor):
            given[i] = positive(given[i])
            set_up_leaf(given[i], None, requires_grad=True)
        else:
            given[i] = tensor(given[i], requires_grad=True)
    result = f(*given, **kwargs)
    if not isinstance(result, Tensor):
        raise GradientError(f"{name_of(f)} returned {type(result).__name__}, not a Tensor: compute with Tensors inside")
    return [given[i] for i in wanted], result


def order_behind(result: Tensor, variables: list[Tensor]) -> list[Tensor]:
    """The nodes between `variables` and `result`, in the order of a backward sweep; none without a gradient."""
    if not result.requires_grad:
        return []
    order = backward.reverse_topological(result, frozenset(variables))
    backward.refuse_where_forbidden(result, order, lambda: "the function's result")
    return order


def gradients_of(order: list[Tensor], variables: list[Tensor], seed: Any, nested: bool) -> list[Any]:
    """The gradient of the first node of `order` by each variable: Tensors if `nested`, else numbers or arrays."""
    found: dict[Tensor, Any] = {}
    if order:
        stop = frozenset(variables)
        seed = backward.fit(seed, order[0].value)
        if nested:
            found = backward.gradients(order, Tensor(seed), lambda node: node, recorded_fit, stop)
        else:
            found = backward.gradients(order, seed, operator.attrgetter("value"), computed_fit, stop)
    return [gradient_or_zero(found.get(variable), variable, nested) for variable in variables]


def recorded_fit(cotangent: Any, operand: Tensor) -> Any:
    """A cotangent, as a Tensor, in the shape and dtype of its operand."""
    cotangent = backward.unbroadcast(cotangent, operand.shape)
    return cotangent if cotangent.dtype == operand.dtype else cotangent.astype(operand.dtype)


def computed_fit(cotangent: Any, operand: Tensor) -> Any:
    """A cotangent, as numbers, in the shape and dtype of its operand."""
    return backward.fit(cotangent, operand.value)


def gradient_or_zero(gradient: Any, variable: Tensor, nested: bool) -> Any:
    if gradient is None:
        zero = backward.fit(0.0, variable.value)
        return Tensor(zero) if nested else np.array(zero) if variable.ndim else zero
    if nested:
        return gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    gradient = backward.fit(gradient, variable.value)
    return np.array(gradient) if isinstance(gradient, np.ndarray) else gradient
