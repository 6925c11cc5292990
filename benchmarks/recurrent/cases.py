"""What is computed: the cells, the sizes, the arrays, and what an engine makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = dict[str, Array]
Step: TypeAlias = Callable[[], Any]
"""One forward and backward pass over the whole sequence; returns whatever the engine has it in."""


class Size(NamedTuple):
    """Timesteps, sequences in a batch, input features and hidden units."""

    time: int
    batch: int
    features: int
    hidden: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SIZES = (
    Size(25, 1, 65, 100),
    Size(50, 1, 16, 32),
    Size(100, 16, 32, 64),
    Size(100, 32, 64, 128),
    Size(200, 32, 128, 256),
    Size(35, 20, 200, 200),
)
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3, "peephole": 4, "layer-norm": 4, "coupled": 2}
"""Cell → how many blocks of H columns its weights have. LSTM: i, f, o, g. GRU: r, z, n, as in torch.

"layer-norm" is an LSTM whose products and whose c are normalised (Ba, Kiros and Hinton, 2016). "coupled" is a gated
unit of H, and beside it a slower one of H/2 that reads it and is read by it.
"""
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """One cell at one size. The loss is the mean of h² over time, batch and hidden units; h and c start at zero."""

    cell: str
    size: Size

    @functools.cached_property
    def weights(self) -> Arrays:
        """Parameter → its initial value: W (features, gates·hidden), U (hidden, gates·hidden), biases, peepholes."""
        _, _, features, hidden = self.size
        columns = GATES[self.cell] * hidden
        shapes: dict[str, tuple[int, ...]] = {"W": (features, columns), "U": (hidden, columns)}
        if self.cell == "GRU":  # n = tanh(x W + b_ih + r (h U + b_hh)) needs both
            shapes |= {"b_ih": (columns,), "b_hh": (columns,)}
        else:
            shapes |= {"b": (columns,)}
        if self.cell == "layer-norm":
            shapes |= {"s_x": (columns,), "s_h": (columns,), "s_c": (hidden,), "b_c": (hidden,)}
        if self.cell == "coupled":
            slow = hidden // 2
            shapes |= {"V": (slow, columns), "P": (features, slow), "R": (hidden, slow)}
            shapes |= {"Q": (slow, slow), "d": (slow,)}
        if self.cell == "peephole":
            shapes |= {"p_i": (hidden,), "p_f": (hidden,), "p_o": (hidden,)}
        rng = np.random.default_rng(0)
        bound = hidden**-0.5
        return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}

    @functools.cached_property
    def inputs(self) -> Array:
        """The sequences, (time, batch, features)."""
        return np.random.default_rng(1).normal(size=self.size[:3]).astype(np.float32)

    def starts(self) -> list[Array]:
        """What the states start from, each (batch, units)."""
        return [np.zeros((self.size.batch, self.size.hidden // part), np.float32) for part in STATES[self.cell]]


@dataclass(frozen=True)
class Program:
    """A case, written for one engine.

    Attributes
    ----------
    start : callable
        Compiles, where the engine compiles, and returns the step. Only what is needed beyond the written model.
    gradients : callable
        What a step returned → the loss as "loss" and every parameter's gradient, in the layout of `Case.weights`.
    """

    start: Callable[[], Step]
    gradients: Callable[[Any], Arrays]


def named(case: Case) -> Callable[[Any], Arrays]:
    """`Program.gradients` of an engine whose step returns (loss, gradients in the order of `Case.weights`)."""

    def gradients(result: Any) -> Arrays:
        loss, found = result
        arrays = zip(case.weights, found, strict=True)
        return {"loss": np.asarray(loss), **{name: np.asarray(array) for name, array in arrays}}

    return gradients


def cell_step(cell: str, hidden: int, tanh: Any, sigmoid: Any) -> Callable[..., tuple[Any, ...]]:
    """The cell in operators alone: (weights, x, *states) → the next states, h first.

    It serves every engine whose arrays know `@` and slices.
    """

    def gate(z: Any, k: int) -> Any:
        return z[:, k * hidden : (k + 1) * hidden]

    def rnn(p: dict[str, Any], x: Any, h: Any) -> tuple[Any, ...]:
        return (tanh(x @ p["W"] + h @ p["U"] + p["b"]),)

    def lstm(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, ...]:
        z = x @ p["W"] + h @ p["U"] + p["b"]
        i, f, o = (sigmoid(gate(z, k)) for k in range(3))
        c = f * c + i * tanh(gate(z, 3))
        return o * tanh(c), c

    def gru(p: dict[str, Any], x: Any, h: Any) -> tuple[Any, ...]:
        a, q = x @ p["W"] + p["b_ih"], h @ p["U"] + p["b_hh"]
        r, z = (sigmoid(gate(a, k) + gate(q, k)) for k in range(2))
        n = tanh(gate(a, 2) + r * gate(q, 2))
        return ((1.0 - z) * n + z * h,)

    def peephole(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, ...]:
        z = x @ p["W"] + h @ p["U"] + p["b"]
        i, f = sigmoid(gate(z, 0) + p["p_i"] * c), sigmoid(gate(z, 1) + p["p_f"] * c)
        c = f * c + i * tanh(gate(z, 3))
        o = sigmoid(gate(z, 2) + p["p_o"] * c)
        return o * tanh(c), c

    def normalised(z: Any) -> Any:
        away = z - z.mean(axis=-1, keepdims=True)
        return away * ((away * away).mean(axis=-1, keepdims=True) + NORM_EPS) ** -0.5

    def layer_norm(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, ...]:
        z = normalised(x @ p["W"]) * p["s_x"] + normalised(h @ p["U"]) * p["s_h"] + p["b"]
        i, f, o = (sigmoid(gate(z, k)) for k in range(3))
        c = f * c + i * tanh(gate(z, 3))
        return o * tanh(normalised(c) * p["s_c"] + p["b_c"]), c

    def coupled(p: dict[str, Any], x: Any, a: Any, s: Any) -> tuple[Any, ...]:
        z = x @ p["W"] + a @ p["U"] + s @ p["V"] + p["b"]
        k = sigmoid(gate(z, 0))
        a = (1.0 - k) * a + k * tanh(gate(z, 1))
        return a, tanh(x @ p["P"] + a @ p["R"] + s @ p["Q"] + p["d"])

    cells: dict[str, Callable[..., tuple[Any, ...]]] = {
        "RNN": rnn,
        "LSTM": lstm,
        "GRU": gru,
        "peephole": peephole,
        "layer-norm": layer_norm,
        "coupled": coupled,
    }
    return cells[cell]


STATES = {"RNN": (1,), "LSTM": (1, 1), "GRU": (1,), "peephole": (1, 1), "layer-norm": (1, 1), "coupled": (1, 2)}
"""Cell → its states, of H divided by this many units: h, or h and c."""
