"""The network of the main job: a tanh RNN, written as the graph with a cycle that it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import microgrid as mg
from microgrid.demo.data import Floats

NAMES = ("W", "U", "b", "V", "c")


def initial_weights(hidden: int, seed: int) -> list[Floats]:
    """W (1, hidden), U (hidden, hidden), b (hidden,), V (hidden, 1), c (1,): uniform in ±1/√hidden."""
    bound = 1 / np.sqrt(hidden)
    shapes = [(1, hidden), (hidden, hidden), (hidden,), (hidden, 1), (1,)]
    generator = np.random.default_rng(seed)
    return [generator.uniform(-bound, bound, size=shape) for shape in shapes]


def record(weights: Sequence[mg.Tensor]) -> mg.Graph:
    """Record one timestep: this year's number in, next year's out, and the state that feeds itself."""
    W, U, b, V, c = weights
    x = mg.input(np.zeros((1, 1)), name="x", requires_grad=False)
    target = mg.input(np.zeros((1, 1)), name="target", requires_grad=False)
    h = mg.state(np.zeros((1, U.shape[0])), name="h")
    h.next = mg.tanh(x @ W + h @ U + b)
    y = (h.next @ V + c).named("y")
    loss = mg.time_mean(mg.mean(mg.square(y - target)))
    return mg.Graph(loss=loss)


def network(hidden: int, seed: int) -> mg.Graph:
    """The graph with its parameters."""
    arrays = initial_weights(hidden, seed)
    return record([mg.parameter(array, name=name) for array, name in zip(arrays, NAMES, strict=True)])


def check_bptt(net: mg.Graph, series: Floats, steps: int) -> float:
    """The largest relative difference between BPTT over `steps` years and central differences."""

    def loss(*weights: mg.Tensor) -> mg.Tensor:
        return record(weights).unroll(x=series[:steps], target=series[1 : steps + 1]).output

    return mg.check_gradients(loss, *(net[name].value for name in NAMES))


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training years gave."""

    loss: float
    gradient_norm: float


def train(net: mg.Graph, series: Floats, *, epochs: int, window: int, lr: float = 0.01) -> Iterator[Epoch]:
    """Train on a series (time, 1, 1), yielding after every epoch.

    A window as long as the series is full BPTT. A shorter one is truncated BPTT: the state is
    carried from window to window, the gradient stops at the border.
    """
    step = mg.compile(net)
    optimiser = mg.optim.Adam(net.parameters, lr=lr)
    x, target = series[:-1], series[1:]
    for _ in range(epochs):
        state: dict[str, Floats] | None = None
        losses, norms = [], []
        for start in range(0, len(x), window):
            optimiser.zero_grad()
            part = slice(start, start + window)
            run = step(x=x[part], target=target[part], initial=state)
            run.backward()
            norms.append(mg.optim.clip_grad_norm(net.parameters, 1.0))
            optimiser.step()
            state = run.state
            losses.append(float(run.value) * len(x[part]))
        yield Epoch(sum(losses) / len(x), max(norms))


def forecast(net: mg.Graph, series: Floats) -> Floats:
    """The network's output at every step of a series but the last, each made from the years before it."""
    outputs: Floats = mg.compile(mg.Graph(net["y"]), wrt=())(x=series[:-1]).value
    return outputs
