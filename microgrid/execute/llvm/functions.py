"""The elementary functions as LLVM IR on vectors: straight lines, without a branch, a table or a call of the C library.

Each is within two units in the last place of the true value, with and without a fused multiply-add. In float32 none
ever decreases: every number was tried.
docs/derive_functions.py finds the numbers that stand here, and says how.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.execute.llvm.text import SUFFIX

Coefficients = dict[str, tuple[float, ...]]


LN2: Coefficients = {  # log(2) as a sum; any exponent times the first part is exact, for its last bits are zeros
    "float": (
        0.693145751953125,
        1.428606765330187e-06,
    ),
    "double": (
        0.6931471805598903,
        5.497923018708371e-14,
    ),
}

EXP: Coefficients = {  # Q in e^r = 1 + r + r² Q(r), |r| <= log(2) / 2
    "float": (  # relative error 1.3e-08
        0.4999999701976776,
        0.1666654348373413,
        0.04166720062494278,
        0.00836651399731636,
        0.0013882518978789449,
    ),
    "double": (  # relative error 1.8e-17
        0.5000000000000006,
        0.16666666666666588,
        0.04166666666657683,
        0.008333333333389472,
        0.0013888888931537556,
        0.00019841269719172302,
        2.4801505308428078e-05,
        2.7557407414032123e-06,
        2.762602348397147e-07,
        2.505380679308807e-08,
    ),
}

TANH: Coefficients = {  # P in tanh(x) = x + x z P(z), z = x² <= TANH_SEAM²
    "float": (  # relative error 3.7e-08
        -0.3333294689655304,
        0.13320724666118622,
        -0.05267181620001793,
        0.016437582671642303,
    ),
    "double": (  # relative error 2.0e-17
        -0.33333333333332316,
        0.13333333333168707,
        -0.053968253876080015,
        0.021869485974844748,
        -0.008863194504823653,
        0.0035917197040029143,
        -0.0014532167897433916,
        0.0005791371127703801,
        -0.00021030255341487406,
        5.1021580527531406e-05,
    ),
}

LOG: Coefficients = {  # W in log((1 + s) / (1 - s)) = 2 s + s z W(z), z = s², between √½ and √2
    "float": (  # relative error 8.0e-10
        0.6666677594184875,
        0.39977574348449707,
        0.29870936274528503,
    ),
    "double": (  # relative error 1.2e-18
        0.6666666666666734,
        0.39999999999416375,
        0.28571428742014354,
        0.222221986109487,
        0.18183562395177397,
        0.15314099110715798,
        0.1479547228090763,
    ),
}

TANH_SEAM = 0.55
"""Below it tanh is a polynomial, from it on 1 - 2 / (1 + e^2x)."""


@dataclass(frozen=True)
class Format:
    """A floating-point format, the integers of its width, and where its exponentials reach their ends."""

    kind: str
    integer: str
    mantissa: int
    bias: int
    number: type[np.floating[Any]]
    whole: type[np.signedinteger[Any]]
    underflow: float
    """e^x is 0 from here down."""
    overflow: float
    """e^x is infinite from here up."""
    saturation: float
    """1 - e^-x is 1 from here up, and so is 1 - 2 e^-x."""

    @property
    def rounder(self) -> float:
        """Added to a small number, it leaves that number rounded to a whole one in the last bits of the sum."""
        return 1.5 * 2.0**self.mantissa

    def bits(self, value: float) -> int:
        return int(self.number(value).view(self.whole))


FORMATS = {
    "float": Format("float", "i32", 23, 127, np.float32, np.int32, -104.0, 89.0, 20.0),
    "double": Format("double", "i64", 52, 1023, np.float64, np.int64, -746.0, 710.0, 40.0),
}


@dataclass(frozen=True)
class Definition:
    """A function in LLVM IR, and the declarations it needs, which several definitions may share."""

    symbol: str
    text: str
    declares: frozenset[str]


class Body:
    """The instructions of one function, as the values of it are computed with."""

    def __init__(self, format: Format, lanes: int) -> None:
        self.format = format
        self.lanes = lanes
        self.lines: list[str] = []
        self.declares: set[str] = set()

    def vector(self, kind: str) -> str:
        return kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"

    def operand(self, value: Value | float, kind: str) -> str:
        """The name of a value, or a constant in every lane."""
        if isinstance(value, Value):
            return value.name
        if kind == self.format.kind:  # the bits of a double, whatever the type
            written = f"0x{struct.unpack('>Q', struct.pack('>d', self.format.number(value)))[0]:016X}"
        else:
            written = str(int(value))
        return written if self.lanes == 1 else f"splat ({kind} {written})"

    def write(self, instruction: str, kind: str) -> Value:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return Value(self, name, kind)

    def call(self, intrinsic: str, kind: str, *arguments: Value | float) -> Value:
        vector = self.vector(kind)
        short = SUFFIX.get(kind, kind)
        symbol = f"@llvm.{intrinsic}.{short if self.lanes == 1 else f'v{self.lanes}{short}'}"
        self.declares.add(f"declare {vector} {symbol}({', '.join([vector] * len(arguments))})")
        given = ", ".join(f"{vector} {self.operand(argument, kind)}" for argument in arguments)
        return self.write(f"call {vector} {symbol}({given})", kind)


@dataclass(frozen=True)
class Value:
    """A value of the function being written: to compute with it is to write the instructions that will."""

    body: Body
    name: str
    kind: str

    def _write(self, operation: str, left: Value | float, right: Value | float, kind: str = "") -> Value:
        operands = ", ".join(self.body.operand(side, self.kind) for side in (left, right))
        return self.body.write(f"{operation} {self.body.vector(self.kind)} {operands}", kind or self.kind)

    @property
    def real(self) -> bool:
        return self.kind == self.body.format.kind

    def __add__(self, other: Value | float) -> Value:
        return self._write("fadd" if self.real else "add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self._write("fsub" if self.real else "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self._write("fsub" if self.real else "sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self._write("fmul", self, other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._write("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self._write("fdiv", other, self)

    def __and__(self, other: Value | int) -> Value:
        return self._write("and", self, other)

    def __or__(self, other: Value | int) -> Value:
        return self._write("or", self, other)

    def __lshift__(self, count: int) -> Value:
        return self._write("shl", self, count)

    def __rshift__(self, count: int) -> Value:
        """Zeros come in from the left."""
        return self._write("lshr", self, count)

    def compare(self, relation: str, other: Value | float) -> Value:
        return self._write(f"fcmp {relation}", self, other, "i1")

    def choose(self, yes: Value | float, no: Value | float) -> Value:
        kind = self.body.format.kind
        given = [f"{self.body.vector(kind)} {self.body.operand(value, kind)}" for value in (yes, no)]
        return self.body.write(f"select {self.body.vector('i1')} {self.name}, {', '.join(given)}", kind)

    def cast(self, kind: str) -> Value:
        """The same bits, read as of another kind."""
        return self.body.write(f"bitcast {self.body.vector(self.kind)} {self.name} to {self.body.vector(kind)}", kind)

    def as_bits(self) -> Value:
        return self.cast(self.body.format.integer)

    def as_number(self) -> Value:
        return self.cast(self.body.format.kind)


def fma(a: Value, b: Value | float, c: Value | float) -> Value:
    """a b + c, rounded once where that is fast."""
    return a.body.call("fmuladd", a.kind, a, b, c)


def absolute(x: Value) -> Value:
    return x.body.call("fabs", x.kind, x)


def at_most(limit: float, x: Value) -> Value:
    """The smaller of the two, and NaN for NaN."""
    return x.compare("ogt", limit).choose(limit, x)


def at_least(limit: float, x: Value) -> Value:
    """The larger of the two, and NaN for NaN."""
    return x.compare("olt", limit).choose(limit, x)


def horner(coefficients: Sequence[float], x: Value) -> Value | float:
    """c0 + x (c1 + x (...))."""
    first, *rest = coefficients
    return fma(x, horner(rest, x), first) if rest else first


def horner_in_pairs(coefficients: Sequence[float], x: Value, square: Value) -> Value | float:
    """c0 + c1 x + x² (c2 + c3 x + x² (...)): as many instructions, half as many in the longest chain of them."""
    pair = horner(coefficients[:2], x)
    rest = coefficients[2:]
    return fma(square, horner_in_pairs(rest, x, square), pair) if rest else pair


def halvings_to_remove(x: Value, sign: int, offset: int) -> tuple[Value, Value]:
    """sign x / log(2), rounded to a whole number n: as bits, the last of which are n + offset, and as a number."""
    shifted = x.body.format.rounder + offset
    n = fma(x, sign / math.log(2), shifted)
    return n.as_bits(), n - shifted


def expm1_of_rest(r: Value, sign: int = 1) -> Value:
    """t in e^(sign r) = 1 + sign t, for |r| <= log(2) / 2."""
    square = r * r
    signed = [c * sign ** (k + 1) for k, c in enumerate(EXP[r.kind])]
    return fma(square, horner_in_pairs(signed, r, square), r)


def power_of_two(exponent: Value) -> Value:
    """2^n, where the last bits of the exponent are n + bias."""
    return (exponent << exponent.body.format.mantissa).as_number()


def one_plus_exp(x: Value, sign: int, halvings: int, ln2: Sequence[float]) -> Value:
    """1 + e^(sign x), halved so many times.

    The 1 meets 2^n before t does: they are added without an error, and the sum is rounded once. Of a small sigmoid
    the 1 is the smaller part: what rounding takes from it is added to t.
    """
    format = x.body.format
    sign_bit = 2 * (format.bias + 1) if sign < 0 else 0
    n, whole = halvings_to_remove(x, sign, format.bias - halvings + sign_bit)
    r = x
    for part in ln2:
        r = fma(whole, -sign * part, r)
    scale = power_of_two(n)  # with the sign
    one = 0.5**halvings
    most = fma(scale, sign, one)
    if sign > 0:
        return fma(scale, expm1_of_rest(r, sign), most)
    lost = one - (most + scale)
    return fma(scale, expm1_of_rest(r, sign), lost) + most


def tanh(x: Value) -> Value:
    """A polynomial, or from where that stops 1 - 2 / (1 + e^2x), each step of which is monotone."""
    format = x.body.format
    sign = x.as_bits() & format.bits(-0.0)
    a = at_most(format.saturation / 2, absolute(x))
    z = a * a
    small = fma(a * z, horner(TANH[x.kind], z), a)
    # The larger e^2x, the less an error in it counts: one part of log(2) is enough.
    large = 1.0 - 1.0 / one_plus_exp(a + a, 1, halvings=1, ln2=[math.log(2)])
    return (a.compare("olt", TANH_SEAM).choose(small, large).as_bits() | sign).as_number()


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x), both halved so often that e^-x is finite where the result is not yet 0."""
    format = x.body.format
    halvings = format.mantissa + 1
    inside = at_least(format.underflow, at_most(format.saturation, x))
    return 0.5**halvings / one_plus_exp(inside, -1, halvings, LN2[x.kind])


def exp(x: Value) -> Value:
    """2^n (1 + t), with the power of two in two factors: 2^n alone can be too large or too small."""
    format = x.body.format
    high, low = LN2[x.kind]
    inside = at_least(format.underflow, at_most(format.overflow, x))
    n, whole = halvings_to_remove(inside, 1, 2 * format.bias)
    t = expm1_of_rest(fma(whole, -low, fma(whole, -high, inside)))
    some = n >> 1
    scale = power_of_two(some)
    return fma(scale, t, scale) * power_of_two(n - some)


def expm1(x: Value) -> Value:
    """2 (2^(n-1) t + (2^(n-1) - ½)): 2^n alone can be too large; x itself where halving could lose its last bit."""
    format = x.body.format
    high, low = LN2[x.kind]
    inside = at_least(-format.saturation, at_most(format.overflow, x))
    n, whole = halvings_to_remove(inside, 1, format.bias - 1)
    far = fma(whole, -high, inside)
    r = fma(whole, -low, far)
    lost = fma(whole, -low, far - r)  # by rounding r
    square = r * r
    t = fma(square, horner_in_pairs(EXP[x.kind], r, square), lost) + r
    scale = power_of_two(n)
    result = fma(scale, t, scale - 0.5) * 2.0
    return absolute(x).compare("olt", 0.5 ** (format.mantissa + 2)).choose(x, result)


def exponent_fields(u: Value) -> Value:
    """The bits of a number 2^e with e + bias in the place of the exponent, where u = 2^e m and √½ <= m < √2."""
    format = u.body.format
    return u.as_bits() + (format.bits(1.0) - format.bits(math.sqrt(0.5)))


def logarithm(fields: Value, octaves: Value | float, f: Value) -> Value:
    """log(2^e (1 + f)) for e of the exponent fields less so many octaves, 1 + f of [√½, √2].

    With s = f / (2 + f) and h = f² / 2, log(1 + f) = 2 s + s z W(z) = f - (h - s (h + z W(z))), z = s².
    """
    format = f.body.format
    high, low = LN2[f.kind]
    e = ((fields >> format.mantissa) | format.bits(format.rounder)).as_number() - octaves
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    inner = fma(z, horner_in_pairs(LOG[f.kind], z, z * z), half)
    return fma(e, high, f - (half - fma(s, inner, e * low)))


def log(x: Value) -> Value:
    format = x.body.format
    lift = format.mantissa + 2
    subnormal = x.compare("olt", 2.0 ** (1 - format.bias))
    normal = subnormal.choose(x * 2.0**lift, x)
    fields = exponent_fields(normal)
    m = ((fields & ((1 << format.mantissa) - 1)) + format.bits(math.sqrt(0.5))).as_number()
    octaves = format.rounder + format.bias
    result = logarithm(fields, subnormal.choose(octaves + lift, octaves), m - 1.0)
    return where_defined(x, 0.0, x.compare("olt", math.inf).choose(result, x))


def log1p(x: Value) -> Value:
    """The exponent is that of 1 + x rounded, f = 2^-e x + (2^-e - 1) is rounded but once."""
    format = x.body.format
    one = format.bits(1.0)
    fields = exponent_fields(x + 1.0)
    shift = (fields & -(1 << format.mantissa)) - one
    inverse = x.body.call("smax", format.integer, one - shift, 0)  # of 2^e
    f = (x.as_bits() - shift).as_number() + (inverse.as_number() - 1.0)
    result = logarithm(fields, format.rounder + format.bias, f)
    ordinary = x.compare("one", 0.0) & x.compare("olt", math.inf)
    return where_defined(x, -1.0, ordinary.choose(result, x))


def where_defined(x: Value, pole: float, result: Value) -> Value:
    """The result above the pole and for NaN, -∞ at it, NaN below."""
    return x.compare("ugt", pole).choose(result, x.compare("oeq", pole).choose(-math.inf, math.nan))


FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    function.__name__: function for function in (tanh, sigmoid, exp, log, log1p, expm1)
}


@functools.cache
def definition(name: str, dtype: str, lanes: int) -> Definition:
    """The elementary function of that name, on vectors of `lanes` numbers of "float" or "double"; 1 is a scalar.

    name : "tanh", "sigmoid", "exp", "log", "log1p" or "expm1".

    >>> definition("tanh", "float", 8).symbol
    '@mg_tanh_f32x8'
    """
    body = Body(FORMATS[dtype], lanes)
    kind = body.vector(dtype)
    result = FUNCTIONS[name](Value(body, "%x", dtype))
    symbol = f"@mg_{name}_{SUFFIX[dtype]}x{lanes}"
    head = f"define internal {kind} {symbol}({kind} %x) alwaysinline nounwind {{"
    text = "\n".join([head, *body.lines, f"  ret {kind} {result.name}", "}", ""])
    return Definition(symbol, text, frozenset(body.declares))
