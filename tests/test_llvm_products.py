"""The products as machine code against NumPy in float64: all remainders of sizes, and memory around them untouched."""

import ctypes
import functools
import platform
import re
from itertools import product

import numpy as np
import pytest

from microgrid.execute.llvm import machine, products

pytest.importorskip("llvmlite")

DTYPES = {"float": np.float32, "double": np.float64}
CONFIGURATIONS = [
    ("float", 8, 16),
    ("float", 1, 16),
    ("float", 4, 32),
    ("float", 16, 32),
    ("double", 4, 16),
    ("double", 1, 32),
    ("double", 8, 32),
]

INT, POINTER, FLAG = ctypes.c_int64, ctypes.c_void_p, ctypes.c_bool
ARGUMENTS = {
    "pack": (POINTER, INT, INT, INT, INT, POINTER),
    "product": (INT, INT, INT, POINTER, INT, POINTER, POINTER, INT, FLAG),
    "row_product": (INT, INT, POINTER, POINTER, INT, POINTER, FLAG),
    "row_product_transposed": (INT, INT, POINTER, POINTER, INT, POINTER, FLAG),
    "contract": (INT, INT, INT, POINTER, INT, POINTER, INT, POINTER, INT, POINTER),
    "column_sums": (INT, INT, POINTER, INT, POINTER),
    "dot": (INT, POINTER, POINTER),
}


class Matrix:
    """A matrix of drawn numbers whose rows are further apart than long; all memory around its elements is NaN."""

    def __init__(self, rows, columns, dtype, seed=0, apart=3):
        self.stride = columns + apart
        self.memory = np.full((rows + 2, self.stride), np.nan, dtype)
        self.array = self.memory[1:-1, :columns]
        self.array[:] = np.random.default_rng([seed, rows, columns]).normal(size=(rows, columns))
        self.wide = self.array.astype(np.float64)

    def at(self, row, column):
        return self.memory.ctypes.data + ((row + 1) * self.stride + column) * self.memory.itemsize

    @property
    def address(self):
        return self.at(0, 0)

    def check(self, expected, size):
        """Element by element as close as rounding allows, given the sum of the magnitudes that were added."""
        error = np.abs(self.array - expected)
        assert (error <= 4 * np.finfo(self.memory.dtype).eps * (size + np.abs(expected)) + 1e-30).all()
        around = self.memory.copy()
        around[1:-1, : self.array.shape[1]] = np.nan
        assert np.isnan(around).all()


class Library:
    def __init__(self, dtype, lanes, registers):
        self.sizes = lanes, registers
        self.dtype = DTYPES[dtype]
        self.tile = products.tile(lanes, registers)
        self.module = machine.load(products.source(dtype, lanes, registers))
        for name, arguments in ARGUMENTS.items():
            result = {"float": ctypes.c_float, "double": ctypes.c_double}[dtype] if name == "dot" else None
            address = self.module.address(f"mg_{name}{products.SUFFIX[dtype]}")
            setattr(self, name, ctypes.CFUNCTYPE(result, *arguments)(address))

    def matrix(self, rows, columns, seed=0):
        return Matrix(rows, columns, self.dtype, seed)

    def packed(self, b):
        k, n = b.array.shape
        found = np.full(products.packed_size(k, n, *self.sizes), np.nan, self.dtype)
        self.pack(b.address, b.stride, 1, k, n, found.ctypes.data)
        return found

    def contracted(self, a, g):
        """C = AᵀG in new memory."""
        (p, k), n = a.array.shape, g.array.shape[1]
        c = self.matrix(k, n)
        scratch = np.full(products.contract_scratch(k, n, *self.sizes) + 1, np.nan, self.dtype)
        self.contract(p, k, n, a.address, a.stride, g.address, g.stride, c.address, c.stride, scratch.ctypes.data)
        assert np.isnan(scratch[-1])
        return c


@functools.cache
def built(*configuration):
    return Library(*configuration)


@pytest.fixture(params=CONFIGURATIONS, ids=lambda parameter: "{}x{}, {} registers".format(*parameter))
def library(request):
    return built(*request.param)


def around(*sizes):
    return [size + more for size in sizes for more in (-1, 0, 1)]


# --- products with a packed matrix ---------------------------------------------------------------------


def product_sizes(t):
    """Rows, columns and summed sizes: all remainders of each, with a few of the others."""
    yield from product(range(2 * t.rows + 2), [t.columns + 2], [1, 6])
    yield from product([1, t.rows + 1], range(1, 2 * t.columns + 2), [5])
    yield from product([t.rows + 3], [t.columns], [*range(1, 10), *around(products.DEPTH), 2 * products.DEPTH + 3])
    yield from product(around(products.HEIGHT), [t.columns + 1], [3, products.DEPTH + 1])


def test_a_product_is_that_of_numpy_and_nothing_beyond_it_is_written(library):
    for m, n, k in product_sizes(library.tile):
        a, b = library.matrix(m, k, 1), library.matrix(k, n, 2)
        packed = library.packed(b)
        for accumulate in (False, True):
            c = library.matrix(m, n)
            expected = a.wide @ b.wide + accumulate * c.wide
            library.product(m, n, k, a.address, a.stride, packed.ctypes.data, c.address, c.stride, accumulate)
            c.check(expected, np.abs(a.wide) @ np.abs(b.wide) + 1)


def test_packing_lays_columns_out_in_panels_and_pads_with_zeros(library):
    columns = library.tile.columns
    for k, n in [(1, 1), (17, columns), (7, columns + 1), (33, 2 * columns - 1), (products.LINE, 3 * columns)]:
        b, transposed = library.matrix(k, n), library.matrix(n, k)
        transposed.array[:] = b.array.T
        spread = np.full((2 * k, 3 * n), np.nan, library.dtype)
        spread[::2, ::3] = b.array
        panels = -(-n // columns)
        padded = np.zeros((k, panels * columns), library.dtype)
        padded[:, :n] = b.array
        expected = padded.reshape(k, panels, columns).swapaxes(0, 1)
        strides = (b.address, b.stride, 1), (transposed.address, 1, transposed.stride), (spread.ctypes.data, 6 * n, 3)
        for where in strides:
            found = np.full(expected.size + 1, np.nan, library.dtype)
            assert products.packed_size(k, n, *library.sizes) == expected.size
            library.pack(*where, k, n, found.ctypes.data)
            np.testing.assert_array_equal(found[:-1].reshape(expected.shape), expected)
            assert np.isnan(found[-1])


def test_parts_of_a_product_can_be_computed_apart(library):
    rows, columns = library.tile.rows, library.tile.columns
    m, n, k = 2 * rows + 1, 2 * columns + 3, 9
    a, b = library.matrix(m, k, 1), library.matrix(k, n, 2)
    packed, c = library.packed(b), library.matrix(m, n)
    for i, j in product((0, rows + 1), (0, columns)):
        here = packed[j * k :].ctypes.data
        size = (m - i if i else rows + 1), (n - j if j else columns), k
        library.product(*size, a.at(i, 0), a.stride, here, c.at(i, j), c.stride, False)
    c.check(a.wide @ b.wide, np.abs(a.wide) @ np.abs(b.wide))


def test_nan_and_infinity_reach_their_row_or_column_and_no_other(library):
    m, n, k = library.tile.rows + 1, library.tile.columns + 2, 7
    a, b = library.matrix(m, k, 1), library.matrix(k, n, 2)
    a.array[1, 3], b.array[2, n - 1], b.array[:, 0] = np.nan, np.inf, 0
    a.array[0, 2] = 0
    packed, c, transposed = library.packed(b), library.matrix(m, n), library.matrix(k, m)
    library.product(m, n, k, a.address, a.stride, packed.ctypes.data, c.address, c.stride, False)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(c.array, a.array @ b.array, rtol=1e-4, atol=1e-5)
    transposed.array[:] = a.array.T
    with np.errstate(invalid="ignore"):
        expected = transposed.array.T @ b.array
    np.testing.assert_allclose(library.contracted(transposed, b).array, expected, rtol=1e-4, atol=1e-5)


# --- contractions over rows ----------------------------------------------------------------------------


def contraction_sizes(t):
    yield from product([1, 3], range(1, 2 * t.rows + 2), [1, t.columns, t.columns + 1])
    yield from product([4], [t.rows + 1], range(1, 2 * t.columns + 2))
    yield from product(around(products.STRETCH), [t.rows, t.rows + 1], [t.columns + 3])
    large = products.UNPACKED // products.STRETCH
    yield from product([2 * products.STRETCH + 5], around(large), [1, t.columns + 5])


def test_a_contraction_is_that_of_numpy_and_nothing_beyond_it_is_written(library):
    for p, k, n in contraction_sizes(library.tile):
        a, g = library.matrix(p, k, 1), library.matrix(p, n, 2)
        library.contracted(a, g).check(a.wide.T @ g.wide, np.abs(a.wide).T @ np.abs(g.wide))


def test_parts_of_a_contraction_can_be_computed_apart(library):
    rows, columns = library.tile.rows, library.tile.columns
    p, k, n = 11, 2 * rows + 1, 2 * columns + 3
    a, g, c = library.matrix(p, k, 1), library.matrix(p, n, 2), library.matrix(k, n)
    scratch = np.empty(products.contract_scratch(k, n, *library.sizes), library.dtype)
    for i, j in product((0, rows - 1), (0, columns + 1)):
        size = (k - i if i else rows - 1), (n - j if j else columns + 1)
        factors = a.at(0, i), a.stride, g.at(0, j), g.stride
        library.contract(p, *size, *factors, c.at(i, j), c.stride, scratch.ctypes.data)
    c.check(a.wide.T @ g.wide, np.abs(a.wide).T @ np.abs(g.wide))


# --- single rows ---------------------------------------------------------------------------------------


def row_sizes(lanes):
    yield from product(range(1, 2 * lanes + 3), [1, 2, lanes, 4 * lanes + 3])
    yield from product([lanes + 1, 5 * lanes], range(1, 5 * lanes + 2))


def test_row_products_are_those_of_numpy(library):
    for n, k in row_sizes(library.sizes[0]):
        a, b, turned = library.matrix(1, k, 1), library.matrix(k, n, 2), library.matrix(n, k, 3)
        for accumulate in (False, True):
            c = library.matrix(1, n)
            expected = a.wide @ b.wide + accumulate * c.wide
            library.row_product(n, k, a.address, b.address, b.stride, c.address, accumulate)
            c.check(expected, np.abs(a.wide) @ np.abs(b.wide) + 1)
            c = library.matrix(1, n)
            expected = a.wide @ turned.wide.T + accumulate * c.wide
            library.row_product_transposed(n, k, a.address, turned.address, turned.stride, c.address, accumulate)
            c.check(expected, np.abs(a.wide) @ np.abs(turned.wide.T) + 1)


def test_column_sums_and_dots_are_those_of_numpy(library):
    for n, k in row_sizes(library.sizes[0]):
        a, b = library.matrix(k, n, 1), library.matrix(k, n, 2)
        c = library.matrix(1, n)
        library.column_sums(k, n, a.address, a.stride, c.address)
        c.check(a.wide.sum(0, keepdims=True), np.abs(a.wide).sum(0))
        error = abs(library.dot(n, a.address, b.address) - a.wide[0] @ b.wide[0])
        assert error <= 4 * np.finfo(library.dtype).eps * (np.abs(a.wide[0]) @ np.abs(b.wide[0]))


def test_single_rows_hand_nan_and_infinity_on(library):
    n = k = 2 * library.sizes[0] + 1
    a, b, c = library.matrix(1, k, 1), library.matrix(k, n, 2), library.matrix(1, n)
    b.array[k - 1, n - 1], b.array[0, 0] = np.inf, np.nan
    library.row_product(n, k, a.address, b.address, b.stride, c.address, False)
    np.testing.assert_allclose(c.array, a.array @ b.array, rtol=1e-4, atol=1e-5)
    library.row_product_transposed(n, k, a.address, b.address, b.stride, c.address, False)
    np.testing.assert_allclose(c.array, a.array @ b.array.T, rtol=1e-4, atol=1e-5)


# --- machine code --------------------------------------------------------------------------------------


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or "+fma" not in machine.cpu().features.split(","),
    reason="no x86 processor with FMA",
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_keeps_its_sums_in_vector_registers(dtype):
    lanes, registers = machine.lanes(dtype), machine.cpu().registers
    t = products.tile(lanes, registers)
    text = machine.assembly(products.source(dtype, lanes, registers))
    tile = re.search(rf"^_?tile_{t.rows}x3:(.*?)^\.?L?func_end|^_?tile_{t.rows}x3:(.*?)\bret", text, re.M | re.S)
    assert tile is not None
    assert len(re.findall(r"vfmadd\d+p[sd].*%[yz]mm", tile.group())) == 3 * t.rows
    assert not re.search(r"vmov[^\n]*\(%r[sb]p\)", tile.group())
