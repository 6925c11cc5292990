"""The products that all kernels call, compiled once for this CPU, and machine code as Python callables."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from microgrid.execute.llvm import machine, products

INT, POINTER = ctypes.c_int64, ctypes.c_void_p
KERNEL = (POINTER, INT, INT, INT, INT)
PACK = (POINTER,)
CONTRACT = (POINTER, INT, INT, INT)

BYTES = {"float": 4, "double": 8}
FUNCTIONS = ("pack", "product", "row_product", "row_product_transposed", "contract", "column_sums", "dot")


@functools.cache
def library(kind: str) -> machine.Module:
    """The products of one kind of number, known to all code that is loaded afterwards."""
    module = machine.load(products.source(kind, machine.lanes(kind), machine.cpu().registers))
    for name in FUNCTIONS:
        symbol = f"mg_{name}_{'f32' if kind == 'float' else 'f64'}"
        machine.define(symbol, module.address(symbol))
    return module


def packed_size(kind: str, inner: int, outer: int) -> int:
    """How many numbers a packed matrix takes."""
    return products.packed_size(inner, outer, machine.lanes(kind), machine.cpu().registers)


def function(address: int, arguments: tuple[Any, ...]) -> Callable[..., None]:
    """A function at an address. Calling it lets other Python threads run."""
    found: Callable[..., None] = ctypes.CFUNCTYPE(None, *arguments)(address)
    return found
