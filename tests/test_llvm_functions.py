"""The elementary functions as machine code: accuracy, order and exact values, in both types, with and without FMA.

With MICROGRID_EXHAUSTIVE set, every float32 is tried as well, which takes a quarter of an hour.
"""

import ctypes
import functools
import importlib.util
import os
import platform
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest

from microgrid.execute.llvm import functions

llvm = pytest.importorskip("llvmlite.binding")

NAMES = list(functions.FUNCTIONS)
DTYPES = {"float": np.float32, "double": np.float64}
BITS = {"float": np.uint32, "double": np.uint64}
WIDTHS = {"float": 8, "double": 4}

X86 = platform.machine().lower() in ("x86_64", "amd64")
FUSED = [True, pytest.param(False, marks=pytest.mark.skipif(not X86, reason="this CPU always has FMA"))]

LIMITS = {"tanh": 1.5, "sigmoid": 1.9, "exp": 1.1, "log": 0.9, "log1p": 1.5, "expm1": 1.8}
"""Units in the last place."""

DRIVER = """
define void @{name}(ptr noalias %in, ptr noalias %out, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %from = getelementptr {dtype}, ptr %in, i64 %i
  %to = getelementptr {dtype}, ptr %out, i64 %i
  %x = load {vector}, ptr %from, align {size}
  %y = call {vector} {symbol}({vector} %x)
  store {vector} %y, ptr %to, align {size}
  %next = add i64 %i, {lanes}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


class Library:
    """All functions of one type in one module, each in a loop over an array."""

    def __init__(self, dtype, lanes, fused):
        self.dtype, self.lanes = DTYPES[dtype], lanes
        definitions = {name: functions.definition(name, dtype, lanes) for name in NAMES}
        lines = sorted(set().union(*(definition.declares for definition in definitions.values())))
        for name, definition in definitions.items():
            vector = dtype if lanes == 1 else f"<{lanes} x {dtype}>"
            size = self.dtype().itemsize
            lines.append(definition.text)
            lines.append(
                DRIVER.format(name=name, dtype=dtype, vector=vector, size=size, lanes=lanes, symbol=definition.symbol)
            )
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        host = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        cpu, features = host if fused else ("x86-64", "")
        target = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
        module = llvm.parse_assembly("\n".join(lines))
        module.verify()
        passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
        passes.getModulePassManager().run(module, passes)
        self.assembly = target.emit_assembly(module)
        self.engine = llvm.create_mcjit_compiler(module, target)
        self.engine.finalize_object()

    def __call__(self, name, x):
        """The function of an array of any shape."""
        x = np.asarray(x, self.dtype)
        padded = np.zeros(-(-x.size // self.lanes) * self.lanes, self.dtype)
        padded[: x.size] = x.ravel()
        out = np.empty_like(padded)
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        run(self.engine.get_function_address(name))(padded.ctypes.data, out.ctypes.data, padded.size)
        return out[: x.size].reshape(x.shape)


@functools.cache
def library(dtype, lanes=8, fused=True):
    return Library(dtype, lanes, fused)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@np.errstate(all="ignore")
def reference(name, x):
    """In the next wider type."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    return sigmoid(wide) if name == "sigmoid" else getattr(np, name)(wide)


@np.errstate(all="ignore")
def units(y, exact):
    """How far y is from the exact values, in units in the last place of these; 0 where both are NaN or infinite."""
    narrow = np.abs(exact.astype(y.dtype))
    unit = np.spacing(np.minimum(narrow, np.finfo(y.dtype).max)).astype(exact.dtype)
    error = np.abs(y - exact) / unit
    same = (y == exact.astype(y.dtype)) & np.isinf(narrow) | np.isnan(y) & np.isnan(exact)
    return np.where(same, 0, error)


@functools.cache
def samples(dtype):
    """Sorted: bit patterns evenly spread over all numbers, and numbers of the size that networks have."""
    kind, rng = DTYPES[dtype], np.random.default_rng(0)
    bits, step = np.iinfo(BITS[dtype]).bits, {"float": 2001, "double": (1 << 46) - 12345}[dtype]
    patterns = np.arange(0, int(np.array(np.inf, kind).view(BITS[dtype])), step, dtype=BITS[dtype]).view(kind)
    usual = [rng.normal(size=1 << 17) * scale for scale in (0.3, 3, 30)]
    assert bits == kind().itemsize * 8
    return np.sort(np.concatenate([patterns, -patterns, *(values.astype(kind) for values in usual), [kind(np.inf)]]))


@functools.cache
def expected(name, dtype):
    return reference(name, samples(dtype))


@functools.cache
def seams(dtype):
    """Runs of neighbouring numbers around every place where a function changes its ways, one a row, ascending."""
    kind, format = DTYPES[dtype], functions.FORMATS[dtype]
    halves = (np.arange(-60, 60) + 0.5) * np.log(2)  # where the power of two in e^x changes
    roots = np.sqrt(0.5) * 2.0 ** np.arange(-20, 20)  # and in log(x)
    tiny = np.finfo(kind).tiny
    ends = [format.underflow, format.overflow, format.saturation, functions.TANH_SEAM, 0.5 ** (format.mantissa + 2)]
    ends += [np.log(np.finfo(kind).max), np.log(tiny), 0.5, 1, 2, tiny, 0.25, np.log(2) * format.mantissa]
    centres = np.concatenate([halves, halves / 2, roots, roots - 1, roots + 1, ends, np.negative(ends)]).astype(kind)
    centres = centres[np.abs(centres) > 0.6 * tiny]
    bits = centres.view(BITS[dtype])[:, None] + np.arange(-500, 500).astype(BITS[dtype])
    return np.sort(bits.view(kind), axis=1)


def wider_than(dtype):
    return dtype == "float" or np.finfo(np.longdouble).nmant >= 63


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_within_two_units_in_the_last_place_and_never_decreasing(name, dtype, fused):
    x = samples(dtype)
    y = library(dtype, fused=fused)(name, x)
    assert not np.any(y[1:] < y[:-1])
    if wider_than(dtype):
        error = units(y, expected(name, dtype))
        assert error.max() <= LIMITS[name], x[error.argmax()]


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_around_seams_keep_their_order(name, dtype, fused):
    x = seams(dtype)
    y = library(dtype, fused=fused)(name, x)
    assert not np.any(y[:, 1:] < y[:, :-1])
    if wider_than(dtype):
        assert units(y, reference(name, x)).max() <= LIMITS[name]


def in_decimal(name, x):
    e = x.exp()
    return {
        "tanh": lambda: (e - 1 / e) / (e + 1 / e),
        "sigmoid": lambda: 1 / (1 + 1 / e),
        "exp": lambda: e,
        "log": lambda: abs(x).ln(),
        "log1p": lambda: (1 + abs(x)).ln(),
        "expm1": lambda: e - 1,
    }[name]()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_arithmetic_of_fifty_digits(name, dtype):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=100) * scale for scale in (0.1, 2, 20)]).astype(DTYPES[dtype])
    x = np.abs(x) if name in ("log", "log1p") else x
    with localcontext(prec=50):
        for given, found in zip(x, library(dtype)(name, x), strict=True):
            exact = in_decimal(name, Decimal(float(given)))
            unit = Decimal(float(np.spacing(np.abs(DTYPES[dtype](exact)))))
            assert abs(Decimal(float(found)) - exact) <= unit * Decimal(LIMITS[name]), given


EXACT = {
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (30.0, 1.0), (-30.0, -1.0), (np.inf, 1.0), (-np.inf, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (100.0, 1.0), (-800.0, 0.0), (np.inf, 1.0), (-np.inf, 0.0)],
    "exp": [(0.0, 1.0), (-0.0, 1.0), (800.0, np.inf), (-800.0, 0.0), (np.inf, np.inf), (-np.inf, 0.0)],
    "log": [(1.0, 0.0), (0.0, -np.inf), (-0.0, -np.inf), (-1.0, np.nan), (np.inf, np.inf), (-np.inf, np.nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -np.inf), (-1.5, np.nan), (np.inf, np.inf), (-np.inf, np.nan)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (800.0, np.inf), (-100.0, -1.0), (np.inf, np.inf), (-np.inf, -1.0)],
}


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_exact_values_infinities_and_nan(name, dtype, fused):
    given, expected = np.array([*EXACT[name], (np.nan, np.nan)]).T
    found = library(dtype, fused=fused)(name, given)
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(expected[known]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd(dtype):
    x = samples(dtype)
    np.testing.assert_array_equal(library(dtype)("tanh", -x), -library(dtype)("tanh", x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_lanes_gives_the_same_bits(name, dtype):
    x = samples(dtype)[:: len(samples(dtype)) // 20_000]
    wide = library(dtype, 8)(name, x)
    for lanes in (1, 4):
        np.testing.assert_array_equal(library(dtype, lanes)(name, x), wide)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_machine_code_is_wide_and_calls_nothing(dtype):
    assembly = library(dtype).assembly
    if not (X86 and llvm.get_host_cpu_features().get("avx2")):
        pytest.skip("AVX2 is not here")
    assert "ymm" in assembly or "zmm" in assembly
    assert "call" not in assembly


def test_a_definition_is_made_once():
    assert functions.definition("exp", "float", 8) is functions.definition("exp", "float", 8)


def derivation():
    path = Path(__file__).parent.parent / "docs" / "derive_functions.py"
    spec = importlib.util.spec_from_file_location("derive_functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_coefficients_are_those_that_the_derivation_finds():
    derived = derivation()
    assert float(derived.TANH_SEAM) == functions.TANH_SEAM
    for dtype in DTYPES:
        assert derived.log_of_two(dtype) == functions.LN2[dtype]
        for name in derived.PROBLEMS:
            found, error = derived.coefficients(name, dtype)
            assert found == getattr(functions, name)[dtype]
            assert error < np.finfo(DTYPES[dtype]).eps / 3


@pytest.mark.skipif("MICROGRID_EXHAUSTIVE" not in os.environ, reason="tries all numbers")
@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("name", NAMES)
def test_every_float32(name, fused):
    numbers = np.arange(0, np.array(np.inf, np.float32).view(np.uint32) + 1, dtype=np.uint32).view(np.float32)
    for sign in (1, -1):
        last = None
        for start in range(0, numbers.size, 1 << 18):
            x = sign * numbers[start : start + (1 << 18)]
            y = library("float", fused=fused)(name, x)
            ascending = y if last is None else np.append(last, y)
            assert not np.any(sign * ascending[1:] < sign * ascending[:-1])
            last = y[-1]
            if y[0] == y[-1]:  # as all between: the worst stand at the ends
                x, y = x[[0, -1]], y[[0, -1]]
            assert units(y, reference(name, x)).max() <= LIMITS[name], x
