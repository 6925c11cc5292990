"""Linear and Embedding: one matrix, applied to features or looked up by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.counts import whole_number
from microgrid.errors import OperandTypeError
from microgrid.leaves import Parameter, parameter
from microgrid.nn.arguments import Random, float_dtype, generator
from microgrid.nn.init import glorot, normal
from microgrid.nn.module import Module, TakeTorch, as_dtype, check_features
from microgrid.ops.pick import lookup
from microgrid.tensor import Tensor


class Linear(Module, called="linear"):
    """x @ W + b: (..., input_size) → (..., output_size).

    Parameters
    ----------
    input_size, output_size : int
    bias : bool
    rng : numpy.random.Generator, seed or None
        Where the weights come from: `init.glorot`; the bias starts at 0.
    dtype : float dtype
        Of the parameters, and so of what the layer computes.

    Attributes
    ----------
    W : Parameter, (input_size, output_size)
        The transpose of PyTorch's `weight`.
    b : Parameter, (output_size,), or None

    Examples
    --------
    >>> mg.nn.Linear(3, 2, rng=0)(np.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        *,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.input_size, self.output_size = (
            whole_number("input_size", input_size),
            whole_number("output_size", output_size),
        )
        dtype = float_dtype(dtype)
        self.W = parameter(glorot((input_size, output_size), generator(rng), dtype))
        self.b = parameter(np.zeros(output_size, dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        check_features(self, x, self.input_size)
        product = as_dtype(x, self.W) @ self.W
        return product if self.b is None else product + self.b

    def read_torch(self, prefix: str, take: TakeTorch) -> Iterator[tuple[Parameter, np.ndarray[Any, Any]]]:
        yield self.W, take(f"{prefix}weight", self.W.shape[::-1]).T
        if self.b is not None:
            yield self.b, take(f"{prefix}bias", self.b.shape)

    def write_torch(self, prefix: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        yield f"{prefix}weight", np.array(self.W.value.T)
        if self.b is not None:
            yield f"{prefix}bias", np.array(self.b.value)


class Embedding(Module, called="embedding"):
    """A row of a table for each token: integers (...) → (..., features).

    Parameters
    ----------
    count : int
        How many tokens there are: 0 to count − 1.
    features : int
    rng : numpy.random.Generator, seed or None
        The rows start normally distributed with deviation 1.
    dtype : float dtype

    Attributes
    ----------
    E : Parameter, (count, features)
        PyTorch's `weight`.

    Raises
    ------
    OperandIndexError
        When called on, or run on, a token that is out of range.

    Examples
    --------
    >>> mg.nn.Embedding(50, 8, rng=0)(np.array([3, 7])).shape
    (2, 8)
    """

    def __init__(self, count: int, features: int, *, rng: Random = None, dtype: npt.DTypeLike = np.float32) -> None:
        self.count, self.features = whole_number("count", count), whole_number("features", features)
        self.E = parameter(normal((count, features), 1.0, generator(rng), float_dtype(dtype)))

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        if tokens.dtype.kind not in "iu":
            raise OperandTypeError(
                f"an embedding takes tokens, which are whole numbers, not {tokens.dtype}: record the input with an "
                "example of integers"
            )
        return lookup(self.E, tokens)

    def read_torch(self, prefix: str, take: TakeTorch) -> Iterator[tuple[Parameter, np.ndarray[Any, Any]]]:
        yield self.E, take(f"{prefix}weight", self.E.shape)

    def write_torch(self, prefix: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        yield f"{prefix}weight", np.array(self.E.value)
