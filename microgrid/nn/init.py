"""Where the weights of a layer start. Every function takes a random generator, so that runs repeat bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.nn.arguments import Random, generator

Array = npt.NDArray[Any]


def uniform(shape: tuple[int, ...], bound: float, rng: Random = None, dtype: npt.DTypeLike = np.float32) -> Array:
    """Evenly between −bound and bound.

    >>> mg.nn.init.uniform((2, 3), 0.1, rng=0).shape
    (2, 3)
    """
    return generator(rng).uniform(-bound, bound, shape).astype(dtype)


def normal(
    shape: tuple[int, ...], deviation: float = 1.0, rng: Random = None, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Normally distributed around 0.

    >>> mg.nn.init.normal((2, 3), 0.1, rng=0).dtype
    dtype('float32')
    """
    return generator(rng).normal(0.0, deviation, shape).astype(dtype)


def glorot(shape: tuple[int, int], rng: Random = None, dtype: npt.DTypeLike = np.float32, gates: int = 1) -> Array:
    """Uniform in ±√(6 / (fan in + fan out)): activations and gradients keep their size through the layer.

    With `gates`, the columns are so many matrices side by side, of which each is a layer of its own.

    Source: X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
    networks (2010).

    >>> bool(abs(mg.nn.init.glorot((4, 2), rng=0)).max() <= 1.0)
    True
    """
    rows, columns = shape
    return uniform(shape, float(np.sqrt(6 / (rows + columns // gates))), rng, dtype)


def orthogonal(shape: tuple[int, int], rng: Random = None, dtype: npt.DTypeLike = np.float32, gates: int = 1) -> Array:
    """A matrix whose rows or columns, whichever are fewer, are orthonormal: a recurrence that keeps lengths.

    With `gates`, the columns are so many such matrices side by side.

    Source: A. M. Saxe, J. L. McClelland and S. Ganguli, Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks (2014).

    >>> U = mg.nn.init.orthogonal((3, 3), rng=0, dtype=np.float64)
    >>> np.allclose(U @ U.T, np.eye(3))
    True
    """
    rows, columns = shape[0], shape[1] // gates
    source = generator(rng)
    parts = []
    for _ in range(gates):
        q, r = np.linalg.qr(source.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # QR leaves the signs open; so drawn, every rotation is as likely
        parts.append(q if rows >= columns else q.T)
    return np.concatenate(parts, axis=1).astype(dtype)
