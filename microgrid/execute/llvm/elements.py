"""Scalar expressions: what an element-by-element primitive does to one element, found by tracing its forward rule.

A forward rule is written with operators and NumPy functions, so it computes as well on symbols that know
NumPy's protocols as on arrays. Nothing about an operation is declared a second time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from microgrid.ops import elementwise
from microgrid.primitive import Primitive, primitive_of
from microgrid.tensor import PYTHON_NUMBERS, Tensor, is_fixed_number

TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double", np.dtype(np.bool_): "i1"}
"""The dtypes that are computed here, and what LLVM calls them."""


class NoExpression(Exception):
    """An operation that has no scalar expression, or one on dtypes that are not computed here."""


@dataclass(frozen=True, eq=False)
class Value(NDArrayOperatorsMixin):
    """A symbol for one element: an operation on others, a constant, or an operand.

    Attributes
    ----------
    op : str
        A name from `OPERATIONS`, "operand", "constant" or "cast".
    args : tuple
        Values; for an operand its number, for a constant the number itself.
    dtype : np.dtype
    """

    op: str
    args: tuple[Any, ...]
    dtype: np.dtype[Any]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        rule = UFUNCS.get(ufunc)
        if method != "__call__" or kwargs or rule is None:
            raise NoExpression(ufunc.__name__)
        return rule(*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        rule = FUNCTIONS.get(function)
        if rule is None or kwargs:
            raise NoExpression(function.__name__)
        return rule(*args)

    def __pow__(self, exponent: Any) -> Any:
        return power(self, exponent)

    def __bool__(self) -> bool:
        raise NoExpression("a decision by value")


# --- building ------------------------------------------------------------------------------------------


def checked(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype)
    if found not in TYPES:
        raise NoExpression(str(found))
    return found


def constant(number: Any, dtype: np.dtype[Any]) -> Value:
    return Value("constant", (number,), checked(dtype))


def cast(x: Any, dtype: np.dtype[Any]) -> Value:
    """`x`, a value or a number, in another dtype."""
    if not isinstance(x, Value) or x.op == "constant":
        number = x.args[0] if isinstance(x, Value) else x
        return constant(float(number) if dtype.kind == "f" else bool(number), dtype)
    return x if x.dtype == dtype else Value("cast", (x,), checked(dtype))


def common_dtype(values: Sequence[Any]) -> np.dtype[Any]:
    """The dtype that NumPy computes these values and numbers in."""
    found: np.dtype[Any] = np.result_type(*(x.dtype if isinstance(x, Value) else x for x in values))
    return found


def of_floats(op: str) -> Callable[..., Value]:
    """A rule that computes in the operands' common dtype, a float."""

    def rule(*values: Any) -> Value:
        dtype = checked(common_dtype(values))
        if dtype.kind != "f":
            raise NoExpression(f"{op} of {dtype}")
        return Value(op, tuple(cast(x, dtype) for x in values), dtype)

    return rule


def comparison(op: str) -> Callable[..., Value]:
    def rule(*values: Any) -> Value:
        dtype = checked(common_dtype(values))
        if dtype.kind != "f":
            raise NoExpression(f"{op} of {dtype}")
        return Value(op, tuple(cast(x, dtype) for x in values), np.dtype(np.bool_))

    return rule


def truth(x: Any) -> Value:
    """Whether a value is not 0."""
    if isinstance(x, Value) and x.dtype.kind == "f":
        return Value("ne", (x, constant(0.0, x.dtype)), np.dtype(np.bool_))
    return cast(x, np.dtype(np.bool_))


def logic(op: str) -> Callable[..., Value]:
    return lambda *values: Value(op, tuple(map(truth, values)), np.dtype(np.bool_))


def bitwise(op: str) -> Callable[..., Value]:
    def rule(*values: Any) -> Value:
        if any(not isinstance(x, Value) or x.dtype.kind != "b" for x in values):
            raise NoExpression(f"{op} of bits")
        return logic(op)(*values)

    return rule


def select(condition: Any, x: Any, y: Any) -> Value:
    dtype = checked(common_dtype([x, y]))
    return Value("select", (truth(condition), cast(x, dtype), cast(y, dtype)), dtype)


def square(x: Any) -> Value:
    return of_floats("multiply")(x, x)


def sign(x: Value) -> Value:
    one = constant(1.0, x.dtype)
    return select(x > 0, one, select(x < 0, -one, x))


def power(x: Any, y: Any) -> Value:
    """x to a small whole or half power; any other one is left to NumPy."""
    number = y.args[0] if isinstance(y, Value) and y.op == "constant" else y
    if not isinstance(x, Value) or type(number) not in PYTHON_NUMBERS or x.dtype.kind != "f":
        raise NoExpression("power")
    if 2 * number != int(2 * number) or abs(number) > 8:
        raise NoExpression("power")
    factors = [x] * int(abs(number)) + [of_floats("sqrt")(x)] * (number % 1 == 0.5)
    result = functools.reduce(of_floats("multiply"), factors) if factors else constant(1.0, x.dtype)
    return of_floats("divide")(1.0, result) if number < 0 else result


def clip(x: Any, low: Any, high: Any) -> Value:
    return of_floats("minimum")(of_floats("maximum")(x, low), high)


ARITHMETIC = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.divide: "divide",
    np.negative: "negative",
    np.absolute: "absolute",
    np.fabs: "absolute",
    np.sqrt: "sqrt",
    np.maximum: "maximum",
    np.minimum: "minimum",
    np.exp: "exp",
    np.log: "log",
    np.log1p: "log1p",
    np.expm1: "expm1",
    np.tanh: "tanh",
}
COMPARISONS = {
    np.less: "lt",
    np.less_equal: "le",
    np.greater: "gt",
    np.greater_equal: "ge",
    np.equal: "eq",
    np.not_equal: "ne",
}
UFUNCS: Mapping[Any, Callable[..., Any]] = {
    **{ufunc: of_floats(op) for ufunc, op in ARITHMETIC.items()},
    **{ufunc: comparison(op) for ufunc, op in COMPARISONS.items()},
    np.logical_and: logic("and"),
    np.logical_or: logic("or"),
    np.logical_not: logic("not"),
    np.bitwise_and: bitwise("and"),
    np.bitwise_or: bitwise("or"),
    np.invert: bitwise("not"),
    np.positive: lambda x: x,
    np.square: square,
    np.sign: sign,
    np.power: power,
}
FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    np.where: select,
    np.clip: clip,
    np.ones_like: lambda x: constant(1.0, x.dtype),
    np.zeros_like: lambda x: constant(0.0, x.dtype),
}
"""NumPy's functions as rules on symbols."""

CASTS = (primitive_of(elementwise.to_floats), primitive_of(elementwise.to_others))
SIGMOID = primitive_of(elementwise.sigmoid)


# --- tracing -------------------------------------------------------------------------------------------


def expression(node: Tensor) -> Value:
    """What an element of a node is, in terms of its operands' elements; numbers among them are constants.

    Raises
    ------
    NoExpression
        If the node's rule cannot be followed.
    """
    primitive = node.primitive
    if primitive is None or not primitive.elementwise:
        raise NoExpression("not element by element")
    operands = tuple(operand.value if is_fixed_number(operand) else operand.dtype for operand in node.operands)
    if node.params and primitive not in CASTS:
        raise NoExpression("settings")
    return traced(primitive, operands, repr(operands), node.dtype)


@functools.lru_cache(maxsize=1024)
def traced(primitive: Primitive, operands: tuple[Any, ...], as_text: str, dtype: Any) -> Value:
    """The expression of a primitive on operands of these dtypes and numbers, of which 1, 1.0 and True differ."""
    values = [Value("operand", (i,), checked(x)) if isinstance(x, np.dtype) else x for i, x in enumerate(operands)]
    if primitive is SIGMOID:  # an elementary function, though NumPy has none
        found: Any = of_floats("sigmoid")(*values)
    elif primitive in CASTS:
        found = cast(values[0], checked(dtype))
    else:
        try:
            found = primitive.compute(values, {})
        except NoExpression:
            raise
        except Exception as error:  # a user's rule may do anything
            raise NoExpression(str(error)) from None
    if not isinstance(found, Value) and np.ndim(found) == 0:
        found = constant(found, dtype)
    if not isinstance(found, Value) or found.dtype != dtype:
        raise NoExpression(f"a result of {getattr(found, 'dtype', None)}")
    return found


# --- looking -------------------------------------------------------------------------------------------

WRITTEN = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
WRITTEN |= {"eq": "==", "ne": "!=", "and": "and", "or": "or"}
TIGHT = {"or": 0, "and": 1, "lt": 2, "le": 2, "gt": 2, "ge": 2, "eq": 2, "ne": 2, "add": 3, "subtract": 3}
TIGHT |= {"multiply": 4, "divide": 4, "negative": 5}


def written(value: Value, operands: Sequence[str]) -> str:
    """The expression as Python would have it.

    >>> x = Value("operand", (0,), np.dtype(np.float32))
    >>> written(0.5 * (1.0 + x) - x / 2, ["x"])
    '0.5 * (1.0 + x) - x / 2.0'
    """

    def text(x: Value, outer: int, is_right: bool = False) -> str:
        if x.op == "operand":
            return str(operands[x.args[0]])
        if x.op == "constant":
            number = x.args[0]
            return f"({number!r})" if type(number) is not bool and number < 0 and outer > 0 else repr(number)
        own = TIGHT.get(x.op, 9)
        if x.op in WRITTEN:
            left, right = x.args
            found = f"{text(left, own)} {WRITTEN[x.op]} {text(right, own, True)}"
            return f"({found})" if own < outer or (own == outer and is_right) else found
        if x.op == "negative":
            return f"-{text(x.args[0], own)}"
        if x.op == "select":
            condition, yes, no = (text(each, 0) for each in x.args)
            return f"({yes} if {condition} else {no})"
        name = str(x.dtype) if x.op == "cast" else {"absolute": "abs"}.get(x.op, x.op)
        return f"{name}({', '.join(text(each, 0) for each in x.args)})"

    return text(value, 0)


def as_hex(number: float, dtype: np.dtype[Any]) -> str:
    """A constant as LLVM reads it: the bits of a double, which holds every float exactly."""
    if dtype.kind == "b":
        return "true" if number else "false"
    value = float(dtype.type(number))
    bits = 0x7FF8000000000000 if math.isnan(value) else int(np.float64(value).view(np.uint64))
    return f"0x{bits:016X}"
