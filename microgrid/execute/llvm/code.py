"""The products that all kernels call, compiled once for this CPU, and machine code as Python callables."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from microgrid.execute.llvm import machine, products
from microgrid.execute.llvm.text import SUFFIX

INT, POINTER = ctypes.c_int64, ctypes.c_void_p
KERNEL = (POINTER, INT, INT, INT, INT)
PACK = (POINTER,)
CONTRACT = (POINTER, INT, INT, INT)

FUNCTIONS = ("pack", "product", "row_product", "row_product_transposed", "contract", "column_sums", "dot")


@functools.cache
def library(kind: str) -> machine.Module:
    """The products of one kind of number, known to all code that is loaded afterwards."""
    module = machine.load(products.source(kind, machine.lanes(kind), machine.cpu().registers))
    for name in FUNCTIONS:
        symbol = f"mg_{name}_{SUFFIX[kind]}"
        machine.define(symbol, module.address(symbol))
    return module


def function(address: int, arguments: tuple[Any, ...]) -> Callable[..., None]:
    """A function at an address. Calling it lets other Python threads run."""
    found: Callable[..., None] = ctypes.CFUNCTYPE(None, *arguments)(address)
    return found
