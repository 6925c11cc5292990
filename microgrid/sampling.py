"""mg.sample: a network that predicts the next token, run on its own predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.compiled.program import Compiled
from microgrid.errors import OperandError, OperandTypeError, SequenceError
from microgrid.graph import Graph
from microgrid.tensor import Tensor

Array = npt.NDArray[np.int64]
SMALLEST_TEMPERATURE = 1e-300
"""Below it, the likeliest token is always taken."""


def sample(
    logits: Tensor | Graph,
    start: npt.ArrayLike,
    steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: np.random.Generator | int | None = None,
    stop: int | None = None,
    forbid: Sequence[int] = (),
) -> Array:
    """Draw tokens one by one, each from what the network predicts after those before it.

    The network runs one timestep at a time, holding its states; nothing is dropped.

    Parameters
    ----------
    logits : Tensor or Graph
        What the network predicts of the next token at every timestep, (batch, tokens); its only input is the token
        before, (batch,).
    start : integers of shape (prompt,) or (batch, prompt)
        What each sequence begins with: at least one token, such as that for the start of a text.
    steps : int
        How many tokens to draw at most.
    temperature : float
        Logits are divided by it: below 1 likely tokens become likelier; 0 always takes the likeliest.
    top_k : int, optional
        Draw from the so many likeliest tokens only.
    top_p : float, optional
        Draw from the fewest tokens that together have at least this probability (nucleus sampling).
    seed : numpy.random.Generator or int, optional
        Of the draws.
    stop : int, optional
        The token at which a sequence ends; what follows it is `stop` too.
    forbid : sequence of int
        Tokens never drawn, such as padding.

    Returns
    -------
    integers of shape (drawn,) or (batch, drawn)
        Without the start. Fewer than `steps` where every sequence has ended.

    Raises
    ------
    OperandError
        If a setting is out of range, or the network's output is no row of logits.
    SequenceError
        If the network has another input than the token, or `start` holds no token.

    Source of nucleus sampling: A. Holtzman et al., The curious case of neural text degeneration (2020).

    Examples
    --------
    >>> token = mg.input(np.array([0]), name="token")
    >>> follows = mg.tensor(100.0 * np.eye(4)[[1, 2, 3, 3]])     # 0 → 1 → 2 → 3
    >>> mg.sample(mg.lookup(follows, token), start=[0], steps=10, stop=3).tolist()
    [1, 2, 3]
    """
    graph = Graph(logits) if isinstance(logits, Tensor) else logits
    if not isinstance(graph, Graph):
        raise OperandTypeError(f"mg.sample takes the logits, a Tensor or its Graph, not {type(logits).__name__}")
    output = graph.output
    given = [node for node in graph.inputs if not node.draws_itself]
    if len(given) != 1 or given[0].dtype.kind not in "iu":
        found = ", ".join(f"{graph.names[node]!r} ({node.dtype})" for node in given) or "none"
        raise SequenceError(
            f"mg.sample feeds tokens back, so the network has one input of whole numbers; it has {found}"
        )
    if output not in graph.varying or output.ndim != 2 or given[0].ndim != 1:
        raise OperandError(
            f"mg.sample needs logits at every timestep, (batch, tokens), of a token (batch,), but "
            f"{graph.names[output]!r} has shape {output.shape} and {graph.names[given[0]]!r} has shape {given[0].shape}"
        )
    try:
        prompt = np.asarray(start)
    except ValueError:
        raise SequenceError("the prompts in start differ in length: draw for them one by one") from None
    alone = prompt.ndim < 2
    prompts = np.atleast_2d(prompt)
    if prompts.ndim != 2 or not prompts.size or prompts.dtype.kind not in "iu":
        raise SequenceError(
            f"start holds at least one token, as whole numbers (prompt,) or (batch, prompt), not {prompt.dtype} of "
            f"shape {prompt.shape}"
        )
    check_settings(steps, temperature, top_k, top_p)
    count = output.shape[-1]
    if not isinstance(forbid, Iterable):
        raise OperandError(f"forbid is a sequence of tokens, such as [{forbid!r}], not {forbid!r}")
    if prompts.min() < 0 or prompts.max() >= count:
        wrong = prompts[(prompts < 0) | (prompts >= count)].flat[0]
        raise SequenceError(f"start holds {wrong}, but tokens go from 0 to {count - 1}")
    if count - 1 > np.iinfo(given[0].dtype).max:
        raise OperandError(f"there are {count} tokens, more than {given[0].dtype}, the dtype of the input, can number")
    never: list[Any] = list(forbid)
    for name, named in (("forbid", never), ("stop", [] if stop is None else [stop])):
        for token in named:
            if isinstance(token, bool) or not isinstance(token, int | np.integer) or not 0 <= token < count:
                raise OperandError(f"{name} is of tokens, from 0 to {count - 1}, not {token!r}")
    if len(set(never)) == count:
        raise OperandError(f"all {count} tokens are forbidden: nothing is left to draw")
    generator = np.random.default_rng(seed)
    stream = Compiled(graph, ()).stream()
    for column in prompts.T:
        predicted = stream({given[0]: column.astype(given[0].dtype)})
    drawn: list[Array] = []
    ended = np.zeros(len(prompts), np.bool_)
    while len(drawn) < steps and not ended.all():
        chances = probabilities(predicted, temperature, top_k, top_p, never)
        sums = chances.cumsum(axis=1)
        tokens = (sums > generator.random((len(chances), 1)) * sums[:, -1:]).argmax(axis=1)
        if stop is not None:
            tokens = np.where(ended, stop, tokens)
            ended |= tokens == stop
        drawn.append(tokens)
        if len(drawn) < steps:
            predicted = stream({given[0]: tokens.astype(given[0].dtype)})
    found_tokens = np.stack(drawn, axis=1)
    return found_tokens[0] if alone else found_tokens


def check_settings(steps: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise OperandError(f"steps is how many tokens to draw, at least 1, not {steps!r}")
    if not isinstance(temperature, Real) or not temperature >= 0:
        raise OperandError(f"the temperature is at least 0, not {temperature!r}")
    if top_k is not None and (not isinstance(top_k, int | np.integer) or top_k < 1):
        raise OperandError(f"top_k is a whole number, at least 1, not {top_k!r}")
    if top_p is not None and not (isinstance(top_p, Real) and 0 < top_p <= 1):
        raise OperandError(f"top_p is above 0 and at most 1, not {top_p!r}")


def probabilities(
    logits: npt.ArrayLike, temperature: float, top_k: int | None, top_p: float | None, forbid: Sequence[int] = ()
) -> npt.NDArray[np.float64]:
    """The chance of each token, (batch, tokens).

    >>> probabilities([[0.0, 1.0, 2.0]], temperature=1.0, top_k=2, top_p=None).round(3).tolist()
    [[0.0, 0.269, 0.731]]
    """
    scores = np.array(logits, np.float64)
    if np.any(np.isnan(scores) | (scores == np.inf)):
        raise OperandError("the network predicts NaN or infinite logits: look at its parameters")
    scores[:, list(forbid)] = -np.inf
    if not np.all(np.isfinite(scores).any(axis=1)):
        raise OperandError("no token is left to draw: all logits are −inf, or forbidden")
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    below = ranked - ranked[:, :1]
    if temperature < SMALLEST_TEMPERATURE:
        top_k, temperature = 1, 1.0
    with np.errstate(over="ignore"):
        chances = np.where(np.isfinite(below), np.exp(np.where(np.isfinite(below), below, 0.0) / temperature), 0.0)
    if top_k is not None:
        chances[:, top_k:] = 0.0
    chances /= chances.sum(axis=1, keepdims=True)
    if top_p is not None:
        chances[chances.cumsum(axis=1) - chances >= top_p] = 0.0
        chances /= chances.sum(axis=1, keepdims=True)
    found = np.zeros_like(chances)
    np.put_along_axis(found, order, chances, axis=1)
    return found
