"""Operations on each element by itself, with NumPy's broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microgrid.errors import OperandTypeError
from microgrid.numpy_functions import NUMPY_FUNCTIONS
from microgrid.primitive import primitive
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Tensor


@primitive(np.add, vjp=(lambda g, out, x, y: g, lambda g, out, x, y: g), label="+", notation="x + y")
def add(x: Any, y: Any) -> Any:
    """Sum of two arrays, elementwise.

    >>> mg.add(mg.tensor([1.0, 2.0]), 3).value.tolist()
    [4.0, 5.0]
    """
    return x + y


@primitive(np.subtract, vjp=(lambda g, out, x, y: g, lambda g, out, x, y: -g), label="−", notation="x − y")
def subtract(x: Any, y: Any) -> Any:
    """Difference of two arrays, elementwise.

    >>> mg.subtract(mg.tensor(5.0), 3.0).value
    2.0
    """
    return x - y


@primitive(np.multiply, vjp=(lambda g, out, x, y: g * y, lambda g, out, x, y: g * x), label="×", notation="x ⊙ y")
def multiply(x: Any, y: Any) -> Any:
    """Product of two arrays, elementwise.

    >>> mg.multiply(mg.tensor(5.0), 3.0).value
    15.0
    """
    return x * y


@primitive(np.divide, vjp=(lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y), label="÷", notation="x / y")
def divide(x: Any, y: Any) -> Any:
    """Quotient of two arrays, elementwise.

    >>> mg.divide(mg.tensor(6.0), 3.0).value
    2.0
    """
    return x / y


@primitive(np.negative, vjp=lambda g, out, x: -g, label="−(·)", notation="−x")
def negative(x: Any) -> Any:
    """Each element with the other sign.

    >>> mg.negative(mg.tensor(2.0)).value
    -2.0
    """
    return -x


def python_power(x: float, y: float) -> float:
    """`x ** y` on Python numbers; never complex, as in NumPy."""
    return math.pow(x, y) if x < 0 and type(y) is float else x**y


def power_vjp_x(g: Any, out: Any, x: Any, y: Any) -> Any:
    base = x + ((x == 0) & (y == 0))  # so that 0 · 0 ** −1 is 0
    is_python = type(base) is float and type(y) in PYTHON_NUMBERS
    return g * y * (python_power(base, y - 1) if is_python else base ** (y - 1))


@primitive(
    np.power,
    vjp=(
        power_vjp_x,
        lambda g, out, x, y: g * np.where(x > 0, out, 0.0) * np.log(np.where(x > 0, x, 1.0)),
    ),
    scalar=python_power,
    label="^",
    notation="x^y",
)
def power(x: Any, y: Any) -> Any:
    """`x` to the power `y`, elementwise.

    The gradient with respect to `y` is taken as 0 where `x` is not positive.

    >>> x = mg.tensor(3.0)
    >>> mg.power(x, 2).backward(); x.grad
    6.0
    """
    return x**y


@primitive(np.positive, vjp=lambda g, out, x: g, label="=", notation="x")
def positive(x: Any) -> Any:
    """The same value as a node of its own.

    >>> mg.positive(mg.tensor(2.0)).value
    2.0
    """
    return +x


def astype(x: ArrayLike, dtype: Any = np.float64) -> Tensor:
    """The same values in another dtype; the gradient comes back in the dtype of `x`.

    Nothing flows through integers and booleans.

    >>> mg.astype(mg.tensor([1.0, 2.0]), np.float32).dtype
    dtype('float32')
    """
    return to_floats(x, dtype) if np.issubdtype(dtype, np.floating) else to_others(x, dtype)


@primitive(
    vjp=lambda g, out, x, *, dtype: g, label="astype", elementwise=True, notation="x"
)  # the gradient takes its operand's dtype by itself
def to_floats(x: Any, dtype: Any = np.float64) -> Any:
    return np.asarray(x).astype(dtype)


@primitive(label="astype", elementwise=True, notation=lambda dtype: f"{np.dtype(dtype)}(x)")
def to_others(x: Any, dtype: Any = np.int64) -> Any:
    return np.asarray(x).astype(dtype)


@primitive(np.exp, vjp=lambda g, out, x: g * out, scalar=math.exp, notation="exp(x)")
def exp(x: Any) -> Any:
    """e to the power of each element.

    >>> mg.exp(mg.tensor(0.0)).value
    1.0
    """
    return np.exp(x)


@primitive(np.log, vjp=lambda g, out, x: g / x, scalar=math.log, notation="log(x)")
def log(x: Any) -> Any:
    """Natural logarithm of each element.

    >>> mg.log(mg.tensor(1.0)).value
    0.0
    """
    return np.log(x)


@primitive(np.log1p, vjp=lambda g, out, x: g / (1 + x), scalar=math.log1p, notation="log(1 + x)")
def log1p(x: Any) -> Any:
    """log(1 + x), exact for small x.

    >>> mg.log1p(mg.tensor(0.0)).value
    0.0
    """
    return np.log1p(x)


@primitive(np.expm1, vjp=lambda g, out, x: g * (out + 1), scalar=math.expm1, notation="exp(x) − 1")
def expm1(x: Any) -> Any:
    """exp(x) − 1, exact for small x.

    >>> mg.expm1(mg.tensor(0.0)).value
    0.0
    """
    return np.expm1(x)


@primitive(np.sqrt, vjp=lambda g, out, x: g / (2 * out), scalar=math.sqrt, label="√", notation="√x")
def sqrt(x: Any) -> Any:
    """Square root of each element; its gradient at 0 is infinite.

    >>> mg.sqrt(mg.tensor(9.0)).value
    3.0
    """
    return np.sqrt(x)


@primitive(np.square, vjp=lambda g, out, x: g * (2 * x), label="(·)²", notation="x^2")
def square(x: Any) -> Any:
    """Square of each element.

    >>> mg.square(mg.tensor(3.0)).value
    9.0
    """
    return x * x


@primitive(np.absolute, np.fabs, vjp=lambda g, out, x: g * np.sign(x), scalar=abs, label="|·|", notation="|x|")
def absolute(x: Any) -> Any:
    """Absolute value of each element; its subgradient at 0 is taken as 0.

    >>> mg.absolute(mg.tensor(-3.0)).value
    3.0
    """
    return np.absolute(x)


@primitive(np.sign, scalar=lambda x: type(x)((x > 0) - (x < 0)) if x == x else x, notation="sign(x)")
def sign(x: Any) -> Any:
    """−1, 0 or 1 by the sign of each element. No gradient flows through it.

    >>> mg.sign(mg.tensor([-3.0, 0.0])).value.tolist()
    [-1.0, 0.0]
    """
    return np.sign(x)


@primitive(np.sin, vjp=lambda g, out, x: g * np.cos(x), scalar=math.sin, notation="sin(x)")
def sin(x: Any) -> Any:
    """Sine of each element, in radians.

    >>> mg.sin(mg.tensor(0.0)).value
    0.0
    """
    return np.sin(x)


@primitive(np.cos, vjp=lambda g, out, x: -g * np.sin(x), scalar=math.cos, notation="cos(x)")
def cos(x: Any) -> Any:
    """Cosine of each element, in radians.

    >>> mg.cos(mg.tensor(0.0)).value
    1.0
    """
    return np.cos(x)


@primitive(np.tanh, vjp=lambda g, out, x: g * (1 - out * out), scalar=math.tanh, notation="tanh(x)")
def tanh(x: Any) -> Any:
    """Hyperbolic tangent of each element.

    >>> mg.tanh(mg.tensor(0.0)).value
    0.0
    """
    return np.tanh(x)


def python_sigmoid(x: float) -> float:
    """The logistic function of a Python number, without overflow."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


@primitive(
    vjp=lambda g, out, x: g * (out * (1 - out)), scalar=python_sigmoid, label="σ", elementwise=True, notation="σ(x)"
)
def sigmoid(x: Any) -> Any:
    """The logistic function 1 / (1 + exp(−x)) of each element, without overflow.

    >>> mg.sigmoid(mg.tensor(0.0)).value
    0.5
    """
    e = np.exp(-np.absolute(x))
    return np.where(x >= 0, np.ones_like(e), e) / (1 + e)


def where_true(condition: Any, g: Any) -> Any:
    """A cotangent where `condition` holds and 0 elsewhere; g × condition would make nan of inf × 0."""
    if type(condition) is bool:
        return g if condition else 0.0
    return np.where(condition, g, 0.0)


@primitive(
    vjp=lambda g, out, x: where_true(x > 0, g),
    scalar=lambda x: type(x)(0) if x <= 0 else x,
    elementwise=True,
    notation="relu(x)",
)
def relu(x: Any) -> Any:
    """The positive part max(x, 0) of each element; its subgradient at 0 is taken as 0.

    >>> mg.relu(mg.tensor([-1.0, 2.0])).value.tolist()
    [0.0, 2.0]
    """
    return np.maximum(x, 0)


@primitive(
    vjp=lambda g, out, x: g * np.exp(x - out),  # exp(x - softplus(x)) is sigmoid(x)
    scalar=lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    elementwise=True,
    notation="softplus(x)",
)
def softplus(x: Any) -> Any:
    """log(1 + exp(x)) of each element, a smooth relu, without overflow.

    >>> round(mg.softplus(mg.tensor(0.0)).value, 6)
    0.693147
    """
    return np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x)))


GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu_vjp(g: Any, out: Any, x: Any) -> Any:
    t = np.tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))
    inner = GELU_SCALE * (1 + 3 * GELU_CUBE * x * x)
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)


@primitive(
    vjp=gelu_vjp,
    scalar=lambda x: 0.5 * x * (1 + math.tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))),
    elementwise=True,
    notation="gelu(x)",
)
def gelu(x: Any) -> Any:
    """Gaussian error linear unit of each element, in its tanh form (free of erf).

    Source: D. Hendrycks and K. Gimpel, Gaussian Error Linear Units (2016), section 2.

    >>> mg.gelu(mg.tensor(0.0)).value
    0.0
    """
    return 0.5 * x * (1 + np.tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x)))


def python_maximum(x: float, y: float) -> float:
    """The larger of two Python numbers; nan wins, and a float among them makes a float, as in NumPy."""
    return with_kind(y if y > x or y != y else x, x, y)


def with_kind(chosen: float, x: float, y: float) -> float:
    """The one chosen of two Python numbers, a float if either is one."""
    return float(chosen) if float in (type(x), type(y)) else chosen


@primitive(
    np.maximum,
    vjp=(
        lambda g, out, x, y: np.where(x == y, g / 2, np.where(x > y, g, 0.0)),
        lambda g, out, x, y: np.where(x == y, g / 2, np.where(x > y, 0.0, g)),
    ),
    scalar=python_maximum,
    label="max",
    notation="max(x, y)",
)
def maximum(x: Any, y: Any) -> Any:
    """The larger of two arrays, elementwise; where they tie, each gets half of the gradient.

    >>> mg.maximum(mg.tensor([1.0, 5.0]), 3.0).value.tolist()
    [3.0, 5.0]
    """
    return np.maximum(x, y)


@primitive(
    np.minimum,
    vjp=(
        lambda g, out, x, y: np.where(x == y, g / 2, np.where(x < y, g, 0.0)),
        lambda g, out, x, y: np.where(x == y, g / 2, np.where(x < y, 0.0, g)),
    ),
    scalar=lambda x, y: -python_maximum(-x, -y),
    label="min",
    notation="min(x, y)",
)
def minimum(x: Any, y: Any) -> Any:
    """The smaller of two arrays, elementwise; where they tie, each gets half of the gradient.

    >>> mg.minimum(mg.tensor([1.0, 5.0]), 3.0).value.tolist()
    [1.0, 3.0]
    """
    return np.minimum(x, y)


@primitive(
    np.where,
    vjp=(
        None,
        lambda g, out, condition, x, y: np.where(condition, g, 0.0),
        lambda g, out, condition, x, y: np.where(condition, 0.0, g),
    ),
    scalar=lambda condition, x, y: with_kind(x if condition else y, x, y),
    elementwise=True,
    notation="where(x, y, z)",
)
def where(condition: Any, x: Any, y: Any) -> Any:
    """`x` where `condition` holds and `y` elsewhere; the condition has no gradient.

    >>> mg.where(mg.tensor([True, False]), 1.0, 2.0).value.tolist()
    [1.0, 2.0]
    """
    return np.where(condition, x, y)


def clip(x: ArrayLike, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
    """Each element held between `min` and `max`; a bound that is None does not bind.

    The gradient passes where `x` lies inside the bounds or on them; a bound receives no gradient.

    Raises
    ------
    OperandTypeError
        If both bounds are missing.

    >>> mg.clip(mg.tensor([-2.0, 0.5, 2.0]), -1, 1).value.tolist()
    [-1.0, 0.5, 1.0]
    """
    if min is None and max is None:
        raise OperandTypeError("clip needs at least one bound: mg.clip(x, min, max)")
    return clip_between(x, -math.inf if min is None else min, math.inf if max is None else max)


def numpy_clip(a: Any, a_min: Any = None, a_max: Any = None, **bounds: Any) -> Tensor:
    """`clip` by NumPy's names of the bounds."""
    return clip(a, bounds.pop("min", a_min), bounds.pop("max", a_max), **bounds)


NUMPY_FUNCTIONS[np.clip] = numpy_clip


@primitive(
    vjp=(lambda g, out, x, low, high: where_true((x >= low) & (x <= high), g), None, None),
    scalar=lambda x, low, high: type(x)(low if x < low else high if x > high else x),
    elementwise=True,
    notation="clip(x, y, z)",
)
def clip_between(x: Any, low: Any, high: Any) -> Any:
    return np.clip(x, low, high)
