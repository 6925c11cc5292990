"""Tensor: a value, its gradient, and the operation and operands that made it.

Everything a program records is a chain of these; ops/ makes them and backward.py reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from microgrid import backward
from microgrid.errors import GradientError, OperandTypeError, UnsupportedFunctionError
from microgrid.numpy_functions import NUMPY_FUNCTIONS, unsupported
from microgrid.scope import Scope, current_scope

if TYPE_CHECKING:
    from microgrid.primitive import Primitive

ArrayLike: TypeAlias = "Tensor | npt.ArrayLike"
"""What operations accept: a Tensor, or anything `np.asarray` makes an array of numbers of."""

NO_PARAMS: Mapping[str, Any] = {}
PYTHON_NUMBERS = frozenset({float, int, bool})


class Name(NamedTuple):
    """What a node is called; without a `place`, as a copy is, it gives way to another node of that name."""

    text: str
    place: str | None = None
    scope: Scope | None = None

    def __str__(self) -> str:
        within = str(self.scope) if self.scope is not None else ""
        return f"{within}.{self.text}" if within else self.text


class Tensor:
    """An array or a Python scalar that remembers how it was computed.

    Make one with `tensor`, `parameter`, `input` or `state`; operations on it make the others.

    Attributes
    ----------
    value : float or np.ndarray
        The number or array itself. Operations never change it.
    grad : float, np.ndarray or None
        The gradient of what `backward` was last called on; same shape and dtype as `value`.
        On a leaf it accumulates over calls until `zero_grad`.
    primitive : Primitive or None
        The operation that made it; None for a leaf.
    params : mapping
        The operation's settings, such as `axis`.
    requires_grad : bool
        Whether `backward` computes a gradient for it.
    scope : Scope or None
        The part of the network in which it was recorded, which a picture may draw as one box.

    Examples
    --------
    >>> import microgrid as mg
    >>> a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    >>> c = mg.tanh(a * b + 7)
    >>> c.backward()
    >>> round(a.grad, 4), round(b.grad, 4)
    (-1.2599, 0.8399)
    """

    __slots__ = (
        "__weakref__",
        "_name",
        "_timed",
        "first",
        "grad",
        "others",
        "params",
        "primitive",
        "requires_grad",
        "scope",
        "second",
        "value",
    )

    def __init__(
        self,
        value: Any,
        primitive: Primitive | None = None,
        first: Tensor | None = None,
        second: Tensor | None = None,
        params: Mapping[str, Any] = NO_PARAMS,
        requires_grad: bool = False,
    ) -> None:
        self.value = value
        self.primitive = primitive
        self.first = first  # operands are not held in a tuple: garbage collection then visits half as many
        self.second = second  # objects, and a program of scalars takes three quarters of the time
        self.others: tuple[Tensor, ...] = ()
        self.params = params
        self.requires_grad = requires_grad
        self.grad: Any = None
        self._timed: bool | None = None  # what depends_on_time found; operands never change
        self._name: Name | None = None
        self.scope: Scope | None = None

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """What the operation was given; empty for a leaf."""
        if self.second is not None:
            return (self.first, self.second, *self.others)  # type: ignore[arg-type]
        return () if self.first is None else (self.first,)

    @operands.setter
    def operands(self, operands: Sequence[Tensor]) -> None:
        self.first = operands[0] if operands else None
        self.second = operands[1] if len(operands) > 1 else None
        self.others = tuple(operands[2:])

    # --- names -------------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """The name its user gave it, or None; set it on any node to see it in pictures and errors."""
        return str(self._name) if self._name else None

    @name.setter
    def name(self, name: str | None) -> None:
        self.rename(name, caller_place(2))

    def rename(self, name: str | None, place: str) -> None:
        """Take `name`, given at `place` ("file:line")."""
        if name is not None and not isinstance(name, str):
            raise OperandTypeError(f"a name is a string, not {type(name).__name__} {name!r}")
        self._name = None if name is None else Name(name, place, current_scope())

    def named(self, name: str) -> Tensor:
        """Give this node a name and return it, for use inside an expression.

        >>> import microgrid as mg
        >>> (mg.tensor(1.0) + 1).named("y")
        Tensor(2.0, name='y', op=add)
        """
        self.rename(name, caller_place(2))
        return self

    @property
    def place(self) -> str | None:
        """Where in the user's program the name was given, as "file:line"; None for a copy in an unrolled graph."""
        return self._name.place if self._name else None

    # --- gradients ---------------------------------------------------------------------------

    def backward(self, gradient: Any = None) -> None:
        """Fill `.grad` of every node this one depends on with the gradient of this one.

        Parameters
        ----------
        gradient : array, same shape as this Tensor, optional
            The cotangent to start from; may be left out for a scalar, where it is 1.

        Raises
        ------
        GradientError
            If this Tensor is no scalar and `gradient` is missing, or has another shape; or if
            nothing it depends on needs a gradient.
        CyclicGraphError
            If it depends on a state that feeds itself: unroll the graph first.
        """
        if not self.requires_grad:
            dtype = "" if np.issubdtype(self.dtype, np.floating) else f"(it holds {self.dtype}) "
            raise GradientError(
                f"{describe(self, 2)} {dtype}depends on nothing that needs a gradient. Gradients flow to float tensors "
                "made by mg.tensor, mg.parameter, mg.input or mg.state, outside mg.no_grad()."
            )
        seed = self._seed(gradient)
        order = backward.reverse_topological(self)
        backward.refuse_where_forbidden(self, order, lambda: describe(self, 5))
        backward.accumulate_gradients(order, seed)
        backward.remember(self)

    def _seed(self, gradient: Any) -> Any:
        if gradient is None:
            if self.shape != ():
                raise GradientError(
                    f"{describe(self, 3)} has shape {self.shape}: only a scalar has a gradient without a seed. "
                    "Reduce it (mg.sum, mg.mean) or call .backward(gradient) with an array of its shape."
                )
            gradient = 1.0
        elif isinstance(gradient, Tensor):
            gradient = gradient.value
        if np.shape(gradient) != self.shape:
            raise GradientError(
                f"the seed gradient has shape {np.shape(gradient)}, but {describe(self, 3)} has shape {self.shape}"
            )
        return backward.fit(gradient, self.value)

    @classmethod
    def _check_backward(cls, root: Tensor, order: list[Tensor], called: Callable[[], str]) -> None:
        """Raise if a node of this class forbids backpropagation from `root`, which its user knows as `called()`."""

    def zero_grad(self) -> None:
        """Forget the gradient held so far."""
        self.grad = None

    is_new_at_every_timestep = False
    """Whether nodes of this class bring a new value into every timestep, as inputs and states do."""

    def depends_on_time(self) -> bool:
        """Whether an input or a state is behind it, so that it is computed anew when the network runs."""
        if self._timed is None:
            seen: set[Tensor] = {self}
            stack = [self]
            while stack:
                node = stack.pop()
                spread = node.primitive is not None and node.primitive.at_timestep is not None
                if node.is_new_at_every_timestep or spread or node._timed:
                    self._timed = True
                    return True
                new = [x for x in node.operands if x not in seen and x._timed is not False]
                seen.update(new)
                stack += new
            for node in seen:
                node._timed = False
        return bool(self._timed)

    # --- what an array tells about itself ----------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.value)

    @property
    def ndim(self) -> int:
        return np.ndim(self.value)

    @property
    def size(self) -> int:
        return int(np.size(self.value))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(type(self.value)) if type(self.value) in PYTHON_NUMBERS else self.value.dtype

    @property
    def T(self) -> Tensor:
        """The transpose: all axes in reverse order."""
        return self.transpose()

    def item(self) -> float:
        """The one number in it, as a Python number."""
        return self.value if type(self.value) in PYTHON_NUMBERS else self.value.item()  # type: ignore[no-any-return]

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy of the value as an array."""
        return np.array(self.value)

    def __format__(self, specification: str) -> str:
        """A scalar formats as its number: f"{loss:.3f}"."""
        return format(self.item(), specification) if specification and self.size == 1 else str(self)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise OperandTypeError(
                f"{describe(self)} has {self.size} elements and is neither true nor false. "
                "Use mg.where for a choice per element, or compare .value with np.all."
            )
        return bool(self.value)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise OperandTypeError(f"{describe(self)} is a scalar and has no length")
        return self.shape[0]

    __hash__ = object.__hash__  # == compares elements, so sets and dictionaries go by identity

    def __repr__(self) -> str:
        if self.shape == ():
            shown = repr(self.item())
        else:
            shown = np.array2string(np.asarray(self.value), precision=4, threshold=20, separator=", ", prefix="Tensor(")
            shown += f", shape={self.shape}"
        if self.dtype not in (np.float64, np.int64, np.bool_):
            shown += f", dtype={self.dtype}"
        if self.name is not None:
            shown += f", name={self.name!r}"
        if self.primitive is not None:
            shown += f", op={self.primitive.name}"
        return f"{type(self).__name__}({shown})"

    # --- the NumPy protocols -----------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            raise UnsupportedFunctionError(
                f"np.{ufunc.__name__}(..., out=...) would change a recorded value. "
                "Write `array = array + tensor`, which makes a new one."
            )
        if method != "__call__":
            raise unsupported(f"{ufunc.__name__}.{method}")
        function = NUMPY_FUNCTIONS.get(ufunc)
        if function is None:
            raise unsupported(ufunc.__name__)
        return function(*inputs, **kwargs)

    def __array_function__(self, numpy_function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        function = NUMPY_FUNCTIONS.get(numpy_function)
        if function is None:
            raise unsupported(numpy_function.__name__)
        return function(*args, **kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OperandTypeError(
            f"making a NumPy array of {describe(self)} would lose its history. "
            "Use .value for the numbers, or mg.stack([...]) to join Tensors."
        )

    if TYPE_CHECKING:  # bound in ops/methods.py, from the functions of the same name

        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __add__(self, other: ArrayLike) -> Tensor: ...
        def __radd__(self, other: ArrayLike) -> Tensor: ...
        def __sub__(self, other: ArrayLike) -> Tensor: ...
        def __rsub__(self, other: ArrayLike) -> Tensor: ...
        def __mul__(self, other: ArrayLike) -> Tensor: ...
        def __rmul__(self, other: ArrayLike) -> Tensor: ...
        def __truediv__(self, other: ArrayLike) -> Tensor: ...
        def __rtruediv__(self, other: ArrayLike) -> Tensor: ...
        def __pow__(self, other: ArrayLike) -> Tensor: ...
        def __rpow__(self, other: ArrayLike) -> Tensor: ...
        def __matmul__(self, other: ArrayLike) -> Tensor: ...
        def __rmatmul__(self, other: ArrayLike) -> Tensor: ...
        def __lt__(self, other: ArrayLike) -> Tensor: ...
        def __le__(self, other: ArrayLike) -> Tensor: ...
        def __gt__(self, other: ArrayLike) -> Tensor: ...
        def __ge__(self, other: ArrayLike) -> Tensor: ...
        def __eq__(self, other: ArrayLike) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: ArrayLike) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def detach(self) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def square(self) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def relu(self) -> Tensor: ...
        def clip(self, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor: ...
        def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def std(self, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def cumsum(self, axis: int | None = None) -> Tensor: ...
        def softmax(self, axis: int = -1) -> Tensor: ...
        def log_softmax(self, axis: int = -1) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def permute(self, *axes: Any) -> Tensor: ...
        def swapaxes(self, axis1: int, axis2: int) -> Tensor: ...
        def squeeze(self, axis: Axis = None) -> Tensor: ...
        def flatten(self) -> Tensor: ...


Axis: TypeAlias = int | tuple[int, ...] | None
"""One axis, several, or all of them."""


# --- operands that are not Tensors yet ---------------------------------------------------------------


def constant(value: ArrayLike) -> Tensor:
    """A raw operand as a leaf without gradient; a Tensor as it is.

    An array is not copied, so it must not change between an operation and its `backward`.
    """
    if isinstance(value, Tensor):
        return value
    return Tensor(value if type(value) in PYTHON_NUMBERS else number_array(value))


def is_number(node: Tensor) -> bool:
    """Whether a node is a plain number written in an expression."""
    return (
        type(node) is Tensor
        and node.primitive is None
        and not node.requires_grad
        and node._name is None
        and type(node.value) in PYTHON_NUMBERS
    )


def is_fixed_number(node: Tensor) -> bool:
    """Whether a node is a number of Python or NumPy, which cannot change and of which nobody asks the gradient."""
    return is_number(node) or (
        type(node) is Tensor
        and node.primitive is None
        and not node.requires_grad
        and node._name is None
        and isinstance(node.value, np.generic)
    )


def number_array(value: Any) -> Any:
    """`value` as an array of numbers, or an error that says what was found."""
    if isinstance(value, np.ndarray | np.generic):
        array = value
    else:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise OperandTypeError(f"expected a number or an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise OperandTypeError(
            f"expected real numbers, found {type(value).__name__} {str(value)[:60]!r} with dtype {array.dtype}"
        )
    return array


# --- words for errors ----------------------------------------------------------------------------


def caller_place(depth: int) -> str:
    """The "file:line" that called, `depth` calls up."""
    frame = sys._getframe(depth)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def describe(node: Tensor, depth: int | None = None) -> str:
    """The node as its user knows it: its name, the caller's variable that holds it, or what it is.

    With `depth`, the variables of the frame that many calls up are searched for it. For errors only:
    reading a frame's variables can keep them alive.
    """
    if node.name is not None:
        return repr(node.name)
    if depth is not None:
        for variable, held in sys._getframe(depth).f_locals.items():
            if held is node and variable.isidentifier():
                return repr(variable)
    if type(node) is not Tensor:
        return f"the unnamed {type(node).__name__.lower()} of shape {node.shape}"
    if node.primitive is not None:
        return f"the result of {node.primitive.name}"
    return f"a tensor of shape {node.shape}" if node.shape else f"the number {node.value!r}"
