"""LayerNorm: features with mean 0 and deviation 1, scaled and shifted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.counts import whole_number
from microgrid.leaves import Parameter, parameter
from microgrid.nn.arguments import float_dtype
from microgrid.nn.module import Module, TakeTorch, as_dtype, check_features
from microgrid.ops.elementwise import sqrt, square
from microgrid.ops.reduce import mean
from microgrid.tensor import Tensor


class LayerNorm(Module, called="layernorm"):
    """(x − mean) / √(variance + eps) · gain + bias along the last axis: (..., features) → (..., features).

    Parameters
    ----------
    features : int
    eps : float
        Added to the variance.
    dtype : float dtype

    Attributes
    ----------
    gain, bias : Parameter, (features,)
        PyTorch's `weight` and `bias`; they start at 1 and 0.

    Source: J. L. Ba, J. R. Kiros and G. E. Hinton, Layer normalization (2016).

    Examples
    --------
    >>> mg.nn.LayerNorm(4, dtype=np.float64)(np.arange(4.0)).value.round(3).tolist()
    [-1.342, -0.447, 0.447, 1.342]
    """

    def __init__(self, features: int, *, eps: float = 1e-5, dtype: npt.DTypeLike = np.float32) -> None:
        self.features, self.eps = whole_number("features", features), eps
        dtype = float_dtype(dtype)
        self.gain = parameter(np.ones(features, dtype))
        self.bias = parameter(np.zeros(features, dtype))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        check_features(self, x, self.features)
        x = as_dtype(x, self.gain)
        centred = x - mean(x, axis=-1, keepdims=True)
        deviation = sqrt(mean(square(centred), axis=-1, keepdims=True) + self.eps)
        return centred / deviation * self.gain + self.bias

    def read_torch(self, prefix: str, take: TakeTorch) -> Iterator[tuple[Parameter, np.ndarray[Any, Any]]]:
        yield self.gain, take(f"{prefix}weight", self.gain.shape)
        yield self.bias, take(f"{prefix}bias", self.bias.shape)

    def write_torch(self, prefix: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        yield f"{prefix}weight", np.array(self.gain.value)
        yield f"{prefix}bias", np.array(self.bias.value)
