"""Losses: how far predictions are from targets, as one number over all elements, sequences and timesteps."""

from __future__ import annotations

from numbers import Real

import numpy as np

from microgrid.errors import OperandError, OperandTypeError
from microgrid.ops.compare import equal, not_equal
from microgrid.ops.elementwise import absolute, maximum, minimum, softplus, square, where
from microgrid.ops.pick import pick
from microgrid.ops.reduce import logsumexp
from microgrid.ops.reduce import max as largest
from microgrid.ops.reduce import mean as mean_along
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import has_value_per_timestep, time_mean, time_sum
from microgrid.tensor import ArrayLike, Tensor, constant, describe


def mse(prediction: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> Tensor:
    """Mean squared error: the mean of (prediction − target)².

    Parameters
    ----------
    prediction, target : tensors of the same shape
    reduction : "mean", "sum" or "none"
        Over all elements and, where they vary, timesteps; "none" keeps each element's loss.

    Raises
    ------
    OperandError
        If the shapes differ: broadcasting here is nearly always a mistake.

    >>> float(mg.nn.mse([1.0, 2.0], [1.0, 4.0]))
    2.0
    """
    prediction, target = alike("mse", prediction, target)
    return reduced(square(prediction - target), reduction)


def mae(prediction: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> Tensor:
    """Mean absolute error: the mean of |prediction − target|. Parameters as of `mse`.

    >>> float(mg.nn.mae([1.0, 2.0], [1.0, 4.0]))
    1.0
    """
    prediction, target = alike("mae", prediction, target)
    return reduced(absolute(prediction - target), reduction)


def huber(prediction: ArrayLike, target: ArrayLike, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """½ e² where the error e is within ±delta, and delta (|e| − ½ delta) beyond. Other parameters as of `mse`.

    Source: P. J. Huber, Robust estimation of a location parameter (1964).

    >>> float(mg.nn.huber([0.0, 0.0], [0.5, 3.0]))
    1.3125
    """
    if not isinstance(delta, Real) or not delta > 0:
        raise OperandError(f"huber needs a number delta > 0, not {delta!r}")
    prediction, target = alike("huber", prediction, target)
    error = absolute(prediction - target)
    near = minimum(error, delta)
    return reduced(near * (error - 0.5 * near), reduction)


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The negative logarithm of the probability that softmax(logits) gives to the target, in nats.

    Parameters
    ----------
    logits : (..., classes)
    target : integers (...)
        From 0 to classes − 1.
    ignore_index : int, optional
        Targets of this value count in no sum and no mean.
    label_smoothing : float
        The share of the probability that is spread evenly over all classes.
    reduction : "mean", "sum" or "none"
        Over all that is not ignored, timesteps included; "none" keeps each element's loss, 0 where ignored.

    Raises
    ------
    OperandIndexError
        If a target is out of range, when recorded or run.
    OperandError
        If the shapes do not fit.

    Source of label smoothing: C. Szegedy et al., Rethinking the Inception architecture for computer vision (2016).

    >>> round(float(mg.nn.cross_entropy([[0.0, 0.0], [2.0, 0.0]], [1, 0])), 4)
    0.41
    """
    logits, target = classes("cross_entropy", logits, target)
    if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing <= 1:
        raise OperandError(f"label_smoothing is from 0 to 1, not {label_smoothing!r}")
    counted = None if ignore_index is None else not_equal(target, ignore_index)
    chosen = pick(logits, target if counted is None else where(counted, target, 0))
    if label_smoothing:
        chosen = chosen * (1 - label_smoothing) + mean_along(logits, axis=-1) * label_smoothing
    return reduced(logsumexp(logits, axis=-1) - chosen, reduction, counted)


def binary_cross_entropy(logits: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> Tensor:
    """The negative logarithm of the probability that sigmoid(logits) gives to targets between 0 and 1, in nats.

    It takes logits, as `binary_cross_entropy_with_logits` of PyTorch does, and never overflows. Parameters as of `mse`.

    >>> round(float(mg.nn.binary_cross_entropy([0.0, 100.0], [1.0, 1.0])), 4)
    0.3466
    """
    logits, target = alike("binary_cross_entropy", logits, target)
    return reduced(softplus(logits) - logits * target, reduction)


def accuracy(logits: ArrayLike, target: ArrayLike, *, ignore_index: int | None = None) -> Tensor:
    """The share of targets whose logit is the largest; of k that are equally large, each counts 1/k.

    A metric, without a gradient. Parameters as of `cross_entropy`.

    >>> float(mg.nn.accuracy([[0.0, 1.0], [2.0, 0.0]], [1, 1]))
    0.5
    """
    logits, target = classes("accuracy", logits, target)
    logits = logits.detach()
    counted = None if ignore_index is None else not_equal(target, ignore_index)
    chosen = pick(logits, target if counted is None else where(counted, target, 0))
    top = equal(logits, largest(logits, axis=-1, keepdims=True)).astype(logits.dtype)
    right = equal(chosen, largest(logits, axis=-1)).astype(logits.dtype)
    return reduced(right / sum_along(top, axis=-1), "mean", counted)


def reduced(losses: Tensor, reduction: str, counted: Tensor | None = None) -> Tensor:
    """One number over all elements and timesteps that count."""
    if reduction not in ("mean", "sum", "none"):
        raise OperandError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    if counted is not None:
        losses = where(counted, losses, np.zeros((), losses.dtype)[()])
    if reduction == "none":
        return losses
    varies = has_value_per_timestep(losses)
    if reduction == "mean" and counted is None:
        return time_mean(mean_along(losses)) if varies else mean_along(losses)
    total = time_sum(sum_along(losses)) if varies else sum_along(losses)
    if counted is None or reduction == "sum":
        return total
    count = sum_along(counted.astype(losses.dtype))
    if varies:
        count = time_sum(count)
    return total / maximum(count, np.ones((), losses.dtype)[()])


def alike(what: str, prediction: ArrayLike, target: ArrayLike) -> tuple[Tensor, Tensor]:
    """Predictions and targets of one shape, the targets in the predictions' dtype."""
    prediction, target = constant(prediction), constant(target)
    if prediction.dtype.kind != "f":
        raise OperandTypeError(
            f"{what} needs predictions in floats, but {describe(prediction)} holds {prediction.dtype}"
        )
    if prediction.shape != target.shape:
        raise OperandError(
            f"{what} compares like with like, but {describe(prediction)} has shape {prediction.shape} and "
            f"{describe(target)} has shape {target.shape}: reshape one of them"
        )
    return prediction, target if target.dtype == prediction.dtype else target.astype(prediction.dtype)


def classes(what: str, logits: ArrayLike, target: ArrayLike) -> tuple[Tensor, Tensor]:
    """Logits and the targets that name one class of each row."""
    logits, target = constant(logits), constant(target)
    if logits.dtype.kind != "f" or logits.ndim < 1:
        raise OperandTypeError(f"{what} needs logits in floats, (..., classes), not {logits.dtype} of {logits.shape}")
    if target.dtype.kind not in "iu":
        raise OperandTypeError(
            f"the targets of {what} are classes, which are whole numbers, but {describe(target)} holds {target.dtype}"
        )
    if target.shape != logits.shape[:-1]:
        raise OperandError(
            f"{what} needs one target for each row of logits: {describe(logits)} has shape {logits.shape}, so targets "
            f"have shape {logits.shape[:-1]}, but {describe(target)} has shape {target.shape}"
        )
    return logits, target
