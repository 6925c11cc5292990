"""What an operation is: one declaration of how it computes, differentiates and is drawn.

ops/ declares them with the decorator `primitive`; graph, unroll and viz read the declaration.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import numpy as np

from microgrid import recording, time_axis
from microgrid.errors import MicrogridError, OperandError, OperandIndexError, OperandTypeError
from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.outline import ShapeRule, outlined
from microgrid.scope import current_scope
from microgrid.tensor import NO_PARAMS, PYTHON_NUMBERS, ArrayLike, Tensor, constant, describe
from microgrid.time_axis import TimeRule

COMPUTING_ERRORS = (ValueError, TypeError, IndexError, ArithmeticError)
"""What NumPy and Python raise for operands that they cannot compute with."""

Signature = ParamSpec("Signature")
Rule = Callable[..., Any]
"""A VJP rule: (cotangent of the result, result, *operands, **params) → cotangent of one operand.

Rules are written with operators and NumPy functions, so that they compute on arrays and record on
Tensors. None says that nothing flows. A rule need not undo broadcasting: backward.py does. The rules
of a variadic primitive take its operands as one list."""


Notation = str | Callable[..., str | None]
"""A formula of the operands x, y, z, such as "x + y" or "tanh(x)"; or a function from the params to one, of which None
says that the name and the arguments tell it best. See explain/notation.py."""


DECLARED: dict[str, Primitive] = {}
"""Every operation by its name, for who finds one named in a file. Microgrid's own keep their names from users'."""


@dataclass(frozen=True, slots=True, eq=False)
class Primitive:
    """An operation: its rules and its looks.

    Attributes
    ----------
    name : str
        The NumPy name, or the field's.
    forward : callable
        (*operand values, **params) → value. A variadic primitive takes its operands as one list.
    vjps : tuple of Rule
        One per operand; empty where there is no gradient.
    vjp_of : callable or None
        For a variadic primitive: operand number → Rule.
    scalar : callable
        `forward` for Python floats.
    label : str
        How pictures write it.
    over_time : callable or None
        For a time reduction, which has one value for the whole sequence: which of the timesteps it
        reads, as a function from all to those.
    at_timestep : callable or None
        For the opposite, which has a value per timestep though its operand has one for the whole
        sequence: (operand, timestep) → the value there, recorded.
    ufunc : np.ufunc or None
        What computes it into a given array.
    elementwise : bool
        Whether each element of the result depends on the operands' elements at its place only.
    view : callable or bool
        Whether the result shares the memory of the first operand; may depend on the params.
    batched : callable or None
        How it computes all timesteps at once; see time_axis.py.
    shape_of : ShapeRule or None
        For an operation that takes long, and whose result has the dtype that its operands have together.
    notation : Notation or None
        How equations write it; by default its name with its arguments.
    """

    name: str
    forward: Callable[..., Any]
    vjps: tuple[Rule, ...] = ()
    vjp_of: Callable[[int], Rule] | None = None
    scalar: Callable[..., Any] | None = None
    label: str = ""
    over_time: Callable[[list[Any]], list[Any]] | None = None
    at_timestep: Callable[[Tensor, int], Tensor] | None = None
    variadic: bool = False
    ufunc: np.ufunc | None = None
    elementwise: bool = False
    view: bool | Callable[..., bool] = False
    batched: TimeRule | None = None
    shape_of: ShapeRule | None = None
    notation: Notation | None = None
    differentiable: bool = field(init=False)
    """Whether any operand receives a gradient."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "differentiable", bool(self.vjps) or self.vjp_of is not None)
        known = DECLARED.get(self.name)
        if known is None or not known.is_own:
            DECLARED[self.name] = self

    @property
    def is_own(self) -> bool:
        """Whether microgrid declares it, and not a user."""
        return str(getattr(self.forward, "__module__", "")).startswith("microgrid.")

    def rule(self, index: int) -> Rule:
        """The VJP rule for operand `index`."""
        return self.vjp_of(index) if self.vjp_of is not None else self.vjps[index]

    def compute(self, values: Sequence[Any], params: Mapping[str, Any]) -> Any:
        """The value of the operation on raw numbers and arrays."""
        if self.variadic:
            return self.forward(values, **params)
        if (  # the first value alone rules out most arrays, without a loop
            self.scalar is not None
            and type(values[0]) in PYTHON_NUMBERS
            and all(type(value) in PYTHON_NUMBERS for value in values)
        ):
            return self.scalar(*values, **params)
        return self.forward(*values, **params)

    def compute_all(
        self, values: Sequence[Any], varies: Sequence[bool], shape: tuple[int, ...], params: Mapping[str, Any]
    ) -> Any:
        """The values at all timesteps, (time, *shape), from operands of which some vary."""
        rule = self.batched or time_axis.step_by_step(self.forward, self.variadic)
        return rule(values, varies, shape, **params)

    def __repr__(self) -> str:
        return f"Primitive({self.name})"


STOP_GRADIENT = Primitive(
    "stop_gradient",
    lambda x: x,
    label="stop ∂",
    elementwise=True,
    view=True,
    batched=time_axis.elementwise(lambda x: x),
)
"""The same value, through which no gradient flows: what `detach` and `no_grad` record inside a network."""


def record(primitive: Primitive, operands: Iterable[ArrayLike], params: Mapping[str, Any] = NO_PARAMS) -> Tensor:
    """Compute a primitive and remember how: the one way by which a Tensor comes to have operands.

    Raises OperandError, OperandTypeError or OperandIndexError, naming the operands, where NumPy
    cannot compute it.
    """
    nodes = tuple([x if isinstance(x, Tensor) else constant(x) for x in operands])
    compute = outlined if recording.special_anywhere and recording.is_outlining() else Primitive.compute
    try:
        value = compute(primitive, [node.value for node in nodes], params)
    except COMPUTING_ERRORS as error:
        value = value_after_error(primitive, nodes, params, error)
    if recording.special_anywhere and not recording.is_recording():
        result = unrecorded(value, primitive, nodes, params)
    else:
        requires_grad = primitive.differentiable and any(node.requires_grad for node in nodes)
        result = Tensor(value, primitive, params=params, requires_grad=requires_grad)
        result.operands = nodes
    if recording.special_anywhere:
        result.scope = current_scope()
    return result


def unrecorded(value: Any, primitive: Primitive, operands: tuple[Tensor, ...], params: Mapping[str, Any]) -> Tensor:
    """The result inside `no_grad`: without gradient, and without operands unless it depends on time.

    An operation on an input or a state belongs to the network even so: it has a value per timestep.
    """
    if not any(operand.depends_on_time() for operand in operands):
        return Tensor(value)
    result = Tensor(value, primitive, params=params)
    result.operands = [Tensor(operand.value, STOP_GRADIENT, operand) for operand in operands]
    return result


def value_after_error(
    primitive: Primitive, operands: tuple[Tensor, ...], params: Mapping[str, Any], error: Exception
) -> Any:
    """inf or nan where Python's scalar arithmetic raised; otherwise an error in the user's own words."""
    if isinstance(error, MicrogridError):
        raise error
    values = [operand.value for operand in operands]
    python_arithmetic = isinstance(error, ArithmeticError) or primitive.scalar is not None
    if python_arithmetic and not params and all(type(value) in PYTHON_NUMBERS for value in values):
        return float(primitive.forward(*map(np.float64, values)))
    found = ", ".join(f"{describe(operand)} {operand.shape}" for operand in operands[:6])
    settings = "".join(
        f", index {value!r}" if key == "template" else f", {key}={value!r}" for key, value in params.items()
    )
    kind: type[MicrogridError] = OperandError
    if isinstance(error, IndexError):
        kind = OperandIndexError
    elif isinstance(error, TypeError):
        kind = OperandTypeError
    cause = None if primitive.is_own else error  # in a user's primitive it may be a bug
    raise kind(f"{primitive.name}({found}{settings}): {error}") from cause


def primitive(
    *numpy_functions: Any,
    vjp: Rule | tuple[Rule | None, ...] = (),
    vjp_of: Callable[[int], Rule] | None = None,
    scalar: Callable[..., Any] | None = None,
    label: str | None = None,
    elementwise: bool = False,
    view: bool = False,
    batched: Callable[[Callable[..., Any]], TimeRule] | None = None,
    shape_of: ShapeRule | None = None,
    notation: Notation | None = None,
) -> Callable[[Callable[Signature, Any]], Callable[Signature, Tensor]]:
    """Declare the decorated forward function as a primitive.

    The function that comes back records: it takes Tensors, arrays or numbers where the forward
    function takes positional operands, and settings by position or keyword. It answers for
    `numpy_functions` when they are called on a Tensor.

    Parameters
    ----------
    vjp : Rule or tuple of Rule
        One per operand; None where an operand has no gradient. Without any, the result has none.
    vjp_of : callable
        Instead of `vjp`, for a function of one sequence of operands: operand number → Rule.
    scalar : callable, optional
        The forward function for Python floats.
    label : str, optional
        How pictures write it; by default its name.
    elementwise : bool, optional
        Whether it works on each element by itself, with broadcasting. NumPy's own ufuncs are known to.
    view : bool, optional
        Whether its result shares the memory of its first operand.
    batched : callable, optional
        From the forward function to a rule that computes all timesteps at once; without one, a
        compiled program computes them one by one. See time_axis.py.
    shape_of : callable, optional
        From the operands' shapes to the result's, None if they do not fit: for an operation that takes
        long, and whose result has the dtype that its operands have together. Compiling asks for shapes only.
    notation : str or callable, optional
        How `mg.equations` writes it, as a formula of the operands x, y, z: "x + y", "x^2", "tanh(x)"; or a function
        from the settings to one. By default its name with its arguments.

    Examples
    --------
    >>> @mg.primitive(np.cbrt, vjp=lambda g, out, x: g / (3 * out * out))
    ... def cbrt(x):
    ...     return np.cbrt(x)
    >>> x = mg.tensor(np.array(8.0))
    >>> np.cbrt(x).backward(); float(x.grad).__round__(6)
    0.083333
    """

    def declare(forward: Callable[Signature, Any]) -> Callable[Signature, Tensor]:
        names = list(inspect.signature(forward).parameters.values())
        operand_count = sum(p.default is p.empty for p in names)
        defaults = {p.name: p.default for p in names[operand_count:]}
        rules = vjp if isinstance(vjp, tuple) else (vjp,)
        ufunc = next((f for f in numpy_functions if isinstance(f, np.ufunc) and f.signature is None), None)
        by_element = elementwise or (ufunc is not None and not defaults)
        over_all = batched or (time_axis.elementwise if by_element else None)
        declared = Primitive(
            name=forward.__name__.rstrip("_"),
            forward=forward,
            vjps=tuple(rule or nothing_flows for rule in rules),
            vjp_of=vjp_of,
            scalar=scalar,
            label=label or forward.__name__.rstrip("_"),
            variadic=vjp_of is not None,
            ufunc=ufunc,
            elementwise=by_element,
            view=view,
            batched=over_all(forward) if over_all else None,
            shape_of=shape_of,
            notation=notation,
        )
        recorder: Callable[..., Tensor]
        if declared.variadic:
            recorder = sequence_recorder(declared, defaults)
        elif defaults:
            recorder = settings_recorder(declared, operand_count, defaults)
        elif operand_count == 1:
            recorder = unary_recorder(declared)
        elif operand_count == 2:
            recorder = binary_recorder(declared)
        else:
            recorder = settings_recorder(declared, operand_count, defaults)
        public = functools.wraps(forward)(recorder)
        public.primitive = declared  # type: ignore[attr-defined]
        for numpy_function in numpy_functions:
            NUMPY_FUNCTIONS[numpy_function] = public
        return public

    return declare


def primitive_of(function: Callable[..., Any]) -> Primitive:
    """The primitive that a public function records."""
    declared: Primitive = function.primitive  # type: ignore[attr-defined]
    return declared


def nothing_flows(*_: Any, **__: Any) -> None:
    """The VJP rule of an operand without gradient, such as the condition of `where`."""


def unary_recorder(declared: Primitive) -> Callable[..., Tensor]:
    """`record` for one operand and no settings, without the loops."""
    forward, scalar, differentiable = declared.forward, declared.scalar or declared.forward, declared.differentiable

    def operation(x: ArrayLike) -> Tensor:
        if not isinstance(x, Tensor):
            x = constant(x)
        if recording.special_anywhere:
            return record(declared, (x,))
        value = x.value
        try:
            value = scalar(value) if type(value) in PYTHON_NUMBERS else forward(value)
        except COMPUTING_ERRORS as error:
            value = value_after_error(declared, (x,), NO_PARAMS, error)
        return Tensor(value, declared, x, None, NO_PARAMS, differentiable and x.requires_grad)

    return operation


def binary_recorder(declared: Primitive) -> Callable[..., Tensor]:
    """`record` for two operands and no settings, without the loops."""
    forward, scalar, differentiable = declared.forward, declared.scalar, declared.differentiable

    def operation(x: ArrayLike, y: ArrayLike) -> Tensor:
        if not isinstance(x, Tensor):
            x = constant(x)
        if not isinstance(y, Tensor):
            y = constant(y)
        if recording.special_anywhere:
            return record(declared, (x, y))
        a, b = x.value, y.value
        try:
            if scalar is not None and type(a) in PYTHON_NUMBERS and type(b) in PYTHON_NUMBERS:
                value = scalar(a, b)
            else:
                value = forward(a, b)
        except COMPUTING_ERRORS as error:
            value = value_after_error(declared, (x, y), NO_PARAMS, error)
        return Tensor(value, declared, x, y, NO_PARAMS, differentiable and (x.requires_grad or y.requires_grad))

    return operation


def settings_recorder(declared: Primitive, operand_count: int, defaults: dict[str, Any]) -> Callable[..., Tensor]:
    """`record` for a function of `operand_count` operands and then settings."""
    names = tuple(defaults)
    signature = inspect.signature(declared.forward)

    def operation(*args: Any, **kwargs: Any) -> Tensor:
        surplus = len(args) - operand_count
        if 0 <= surplus <= len(names) and kwargs.keys() <= set(names[surplus:]):
            params = {**defaults, **dict(zip(names, args[operand_count:], strict=False)), **kwargs}
            return record(declared, args[:operand_count], params)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = ". NumPy's name is axis" if "dim" in kwargs else ""
            raise OperandTypeError(f"{declared.name}{signature}: {error}{hint}") from None
        bound.apply_defaults()
        given = list(bound.arguments.values())
        return record(declared, given[:operand_count], dict(zip(names, given[operand_count:], strict=True)))

    return operation


def sequence_recorder(declared: Primitive, defaults: dict[str, Any]) -> Callable[..., Tensor]:
    """`record` for a function of one sequence of operands and then settings."""
    names = tuple(defaults)

    def operation(operands: Iterable[ArrayLike], *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(operands, Tensor) and not operands.ndim:
            raise OperandTypeError(f"{declared.name} takes a sequence of tensors, not the scalar {describe(operands)}")
        if len(args) > len(names) or not kwargs.keys() <= set(names[len(args) :]):
            inspect.signature(declared.forward).bind(operands, *args, **kwargs)  # raises Python's own TypeError
        params = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        return record(declared, operands, params)

    return operation
