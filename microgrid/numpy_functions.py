"""Which NumPy functions record on Tensors, and what to say of the others."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from microgrid.errors import UnsupportedFunctionError

NUMPY_FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""NumPy function → the microgrid function that records it; filled where primitives are declared."""


def unsupported(numpy_name: str) -> UnsupportedFunctionError:
    """The error for a NumPy function without a primitive, naming the nearest one that has."""
    known = {function.__name__ for function in NUMPY_FUNCTIONS}
    nearest = SYNONYMS.get(numpy_name) or " ".join(difflib.get_close_matches(numpy_name, known, n=1, cutoff=0.6))
    hint = f"the nearest is {nearest}" if nearest else "dir(microgrid) lists what there is"
    return UnsupportedFunctionError(
        f"np.{numpy_name} does not record on Tensors: {hint}. For numbers without a gradient, pass tensor.value."
    )


SYNONYMS = {
    "dot": "matmul",
    "inner": "einsum",
    "outer": "einsum",
    "tensordot": "einsum",
    "kron": "einsum",
    "norm": "sqrt(sum(square(x)))",
    "vstack": "concatenate",
    "hstack": "concatenate",
    "column_stack": "stack",
    "ravel": "reshape",
    "add.reduce": "sum",
    "multiply.reduce": "prod",
    "maximum.reduce": "max",
    "minimum.reduce": "min",
    "add.accumulate": "cumsum",
    "median": "mean",
    "tan": "tanh",
    "arctan": "tanh",
}
