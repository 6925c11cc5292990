"""The functions that all kernels call, as Python callables, compiled once for this CPU."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from microgrid.execute.llvm import machine, products

INT, POINTER = ctypes.c_int64, ctypes.c_void_p
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "pack": (POINTER, INT, INT, INT, INT, POINTER),
    "product": (INT, INT, INT, POINTER, INT, POINTER, POINTER, INT, ctypes.c_bool),
    "row_product": (INT, INT, POINTER, POINTER, INT, POINTER, ctypes.c_bool),
    "row_product_transposed": (INT, INT, POINTER, POINTER, INT, POINTER, ctypes.c_bool),
    "contract": (INT, INT, INT, POINTER, INT, POINTER, INT, POINTER, INT, POINTER),
    "column_sums": (INT, INT, POINTER, INT, POINTER),
    "dot": (INT, POINTER, POINTER),
}
KERNEL = (POINTER, INT, INT, INT, INT)


class Library:
    """The products for one dtype.

    Attributes
    ----------
    pack, contract, column_sums, dot : callable
        As products.py describes them.
    columns : int
        How many columns a panel of a packed matrix has.
    """

    def __init__(self, dtype: str) -> None:
        lanes, registers = machine.lanes(dtype), machine.cpu().registers
        self.sizes = lanes, registers
        self.columns = products.tile(lanes, registers).columns
        self.module = machine.load(products.source(dtype, lanes, registers))
        suffix = {"float": "f32", "double": "f64"}[dtype]
        number = {"float": ctypes.c_float, "double": ctypes.c_double}[dtype]
        for name, arguments in SIGNATURES.items():
            address = self.module.address(f"mg_{name}_{suffix}")
            machine.define(f"mg_{name}_{suffix}", address)
            result = number if name == "dot" else None
            setattr(self, name, function(address, arguments, result))

    pack: Callable[..., None]
    contract: Callable[..., None]
    column_sums: Callable[..., None]
    dot: Callable[..., float]

    def packed_size(self, inner: int, outer: int) -> int:
        return products.packed_size(inner, outer, *self.sizes)

    def contract_scratch(self, inner: int, outer: int) -> int:
        return products.contract_scratch(inner, outer, *self.sizes)


def function(address: int, arguments: tuple[Any, ...], result: Any = None) -> Callable[..., Any]:
    """A function at an address. Calling it lets other Python threads run."""
    return ctypes.CFUNCTYPE(result, *arguments)(address)


@functools.cache
def library(dtype: str) -> Library:
    return Library(dtype)
