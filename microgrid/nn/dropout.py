"""Dropout, and the leaf that draws its masks."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from microgrid.errors import FileFormatError, OperandError, OperandTypeError
from microgrid.files.leaf_kinds import LEAF_KINDS, LeafKind
from microgrid.leaves import Input, Parameter
from microgrid.nn.arguments import Random, generator
from microgrid.nn.module import Module
from microgrid.ops.time import first, has_value_per_timestep
from microgrid.recording import is_recording
from microgrid.scope import current_scope
from microgrid.tensor import Name, Tensor, constant, describe


class DropoutMask(Input):
    """An input that draws its own sequence: what a run that gives it none multiplies by."""

    __slots__ = ("generator", "rate", "same_over_time")
    draws_itself = True

    rate: float
    generator: np.random.Generator
    same_over_time: bool

    def drawn(self, steps: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A mask for every timestep: 0 at the rate, else 1 / (1 − rate), so that the mean stays."""
        wide = (1 if self.same_over_time else steps, *shape)
        kept = self.generator.random(wide, dtype=np.float32) >= self.rate
        mask = kept.astype(self.dtype)
        mask *= self.dtype.type(1 / (1 - self.rate))
        return np.broadcast_to(mask, (steps, *shape))

    def without_drawing(self, steps: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Ones: nothing is dropped where no gradient is computed."""
        return np.broadcast_to(np.ones((), self.dtype), (steps, *shape))


def loaded_mask(value: Any, settings: Mapping[str, Any]) -> DropoutMask:
    """The leaf that a model file describes; it draws by a generator of its own, which starts anywhere."""
    rate, same_over_time = settings.get("rate"), settings.get("same_over_time")
    if type(rate) is not float or not 0 <= rate < 1 or type(same_over_time) is not bool or len(settings) != 2:
        raise FileFormatError(f"a dropout mask has a rate from 0 to below 1 and same_over_time, not {settings!r:.80}")
    leaf = DropoutMask(value)
    leaf.rate, leaf.same_over_time, leaf.generator = rate, same_over_time, np.random.default_rng()
    return leaf


LEAF_KINDS["dropout mask"] = LeafKind(
    DropoutMask, loaded_mask, lambda leaf: {"rate": leaf.rate, "same_over_time": leaf.same_over_time}
)


class Dropout(Module, called="dropout"):
    """Set a share of the features to 0 and scale the others up, where a gradient is computed: (...) → (...).

    There is no mode to switch. A compiled network that differentiates (`mg.compile(loss)`) draws masks, and
    so does an unrolled one; a network compiled for its values (`wrt=()`), a stream, and what happens inside
    `mg.no_grad()` drop nothing. The mask is an input of the graph that draws itself: give it a sequence by
    its name to fix it. What does not depend on time, as in a network without recurrence, is dropped at once, by a new
    mask at every call.

    Parameters
    ----------
    rate : float
        The probability of 0, from 0 to below 1.
    same_over_time : bool
        Draw one mask for all timesteps of a sequence instead of one for each.
    rng : numpy.random.Generator, seed or None

    Source: N. Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting (2014);
    for one mask over time, Y. Gal and Z. Ghahramani, A theoretically grounded application of dropout in
    recurrent neural networks (2016).

    Examples
    --------
    >>> x = mg.input(np.ones((1, 4)), name="x")
    >>> y = mg.nn.Dropout(0.5, rng=0)(x)
    >>> mg.Graph(y).unroll(x=np.ones((3, 1, 4))).values(y)[:, 0].tolist()
    [[2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 2.0]]
    >>> mg.compile(mg.Graph(y), wrt=())(x=np.ones((3, 1, 4))).value[:, 0].tolist()[0]
    [1.0, 1.0, 1.0, 1.0]
    """

    rate: float
    generator: np.random.Generator
    same_over_time: bool

    def __init__(self, rate: float, *, same_over_time: bool = False, rng: Random = None) -> None:
        if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
            raise OperandError(f"the rate of a dropout is from 0 to below 1, not {rate!r}")
        self.rate, self.same_over_time = float(rate), same_over_time
        self.generator = generator(rng)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if x.dtype.kind != "f":
            raise OperandTypeError(f"dropout scales what it keeps, so it takes floats, not {describe(x)} of {x.dtype}")
        if not self.rate:
            return x
        mask = self.mask(x)
        if has_value_per_timestep(x):
            return x * mask
        if x.depends_on_time() or isinstance(x, Parameter):
            return x * first(mask)
        return x * constant(mask.drawn(1, x.shape)[0]) if is_recording() else x

    def mask(self, x: Tensor) -> DropoutMask:
        """The leaf that draws masks for `x`; its example drops nothing."""
        leaf = DropoutMask(np.ones(x.shape, x.dtype))
        leaf.rate, leaf.generator, leaf.same_over_time = self.rate, self.generator, self.same_over_time
        leaf.scope = current_scope()
        leaf._name = Name("mask", None, leaf.scope)
        return leaf
