"""Recurrent networks of every shape that pictures must cope with."""

from collections.abc import Callable

import numpy as np

import microgrid as mg


def weight(name: str, *shape: int) -> mg.Parameter:
    return mg.parameter(0.1 * np.arange(1.0, np.prod(shape) + 1).reshape(shape), name=name)


def scalar() -> mg.Graph:
    u, x, h = mg.parameter(0.5, name="u"), mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = u * h + x
    return mg.Graph(h.next)


def rnn() -> mg.Graph:
    x, target = mg.input(np.zeros((2, 3)), name="x"), mg.input(np.zeros((2, 1)), name="target")
    h = mg.state(np.zeros((2, 4)), name="h")
    h.next = mg.tanh(x @ weight("W", 3, 4) + h @ weight("U", 4, 4) + weight("b", 4))
    y = (h.next @ weight("V", 4, 1)).named("y")
    return mg.Graph(loss=mg.time_mean(mg.mean((y - target) ** 2)))


def lstm() -> mg.Graph:
    x = mg.input(np.zeros((2, 3)), name="x")
    h, c = mg.state(np.zeros((2, 4)), name="h"), mg.state(np.zeros((2, 4)), name="c")
    z = (x @ weight("W", 3, 16) + h @ weight("U", 4, 16) + weight("b", 16)).named("z")
    i, f, o = (mg.sigmoid(z[:, k : k + 4]).named(name) for k, name in ((0, "i"), (4, "f"), (8, "o")))
    c.next = f * c + i * mg.tanh(z[:, 12:]).named("g")
    h.next = o * mg.tanh(c.next)
    return mg.Graph(y=h.next @ weight("V", 4, 1))


def gru() -> mg.Graph:
    x, h = mg.input(np.zeros((1, 2)), name="x"), mg.state(np.zeros((1, 3)), name="h")
    z = mg.sigmoid(x @ weight("Wz", 2, 3) + h @ weight("Uz", 3, 3)).named("z")
    r = mg.sigmoid(x @ weight("Wr", 2, 3) + h @ weight("Ur", 3, 3)).named("r")
    n = mg.tanh(x @ weight("Wn", 2, 3) + (r * h) @ weight("Un", 3, 3)).named("n")
    h.next = (1 - z) * n + z * h
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next)))


def stacked() -> mg.Graph:
    x = mg.input(np.zeros((1, 2)), name="x")
    h1, h2 = mg.state(np.zeros((1, 3)), name="h1"), mg.state(np.zeros((1, 3)), name="h2")
    h1.next = mg.tanh(x @ weight("W1", 2, 3) + h1 @ weight("U1", 3, 3))
    h2.next = mg.tanh(h1.next @ weight("W2", 3, 3) + h2 @ weight("U2", 3, 3))
    return mg.Graph(h2.next)


def delay_line() -> mg.Graph:
    x = mg.input(0.5, name="x")
    first, second, third = (mg.state(0.0, name=f"d{k}") for k in (1, 2, 3))
    first.next, second.next, third.next = x, first, second
    return mg.Graph(y=x + 0.5 * first + 0.25 * third)


def coupled() -> mg.Graph:
    a, b, x = mg.state(0.5, name="a"), mg.state(0.1, name="b"), mg.input(1.0, name="x")
    a.next = mg.tanh(b + x)
    b.next = mg.sigmoid(a * 2.0)
    return mg.Graph(a.next + b.next)


def fed_back() -> mg.Graph:
    x, y, h = mg.input(0.5, name="x"), mg.state(0.0, name="y"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + y * mg.parameter(0.5, name="w") + h)
    y.next = mg.sigmoid(h.next * 2.0)
    return mg.Graph(y.next)


def learnable_start() -> mg.Graph:
    U, h = weight("U", 3, 3), mg.state(weight("h0", 1, 3), name="h")
    h.next = mg.tanh(h @ U)
    return mg.Graph(loss=mg.last(mg.sum(h.next)) + 0.01 * mg.sum(U**2))


def normalised() -> mg.Graph:
    x, s = mg.input(np.zeros(3), name="x"), mg.state(np.zeros(3), name="s")
    s.next = mg.tanh((x - mg.time_mean(x).named("m")) @ (weight("W", 3, 3) * 2.0) + s)
    return mg.Graph(all=mg.time_stack(s.next), end=mg.sum(mg.last(s.next)))


def odd_delays() -> mg.Graph:
    """A state that is its own next, one whose next never varies, and two that share their next."""
    h, k, x = mg.state(1.0, name="h"), mg.state(0.0, name="k"), mg.input(0.1, name="x")
    a, b = mg.state(0.0, name="a"), mg.state(0.0, name="b")
    h.next, k.next = h, mg.parameter(2.0, name="W") * 3.0
    a.next = b.next = mg.tanh(x + a)
    return mg.Graph(out=h * k + a * b)


def embedding() -> mg.Graph:
    token, h = mg.input(np.array([1, 2]), name="token"), mg.state(np.zeros((2, 3)), name="h")
    E = weight("E", 5, 3)
    h.next = mg.tanh(E[token] + h @ weight("U", 3, 3))
    scores = mg.log_softmax(h.next @ mg.transpose(E))
    return mg.Graph(loss=-mg.time_mean(mg.mean(scores[np.arange(2), token])))


def static_operations() -> mg.Graph:
    """Operations on a weight that are the same in every timestep, and a penalty on it."""
    W, x = weight("W", 3, 3), mg.input(np.zeros((1, 3)), name="x")
    h = mg.state(np.zeros((1, 3)), name="h")
    h.next = mg.tanh(h @ mg.tanh(W) + x)
    return mg.Graph(loss=mg.time_mean(mg.sum(h.next @ W.T)) + 0.1 * mg.sum(W**2))


def computed_start() -> mg.Graph:
    h = mg.state(mg.tanh(weight("h0", 1, 3)), name="h")
    h.next = mg.tanh(h @ weight("U", 3, 3))
    return mg.Graph(loss=mg.time_sum(mg.sum(mg.square(h.next))))


def bidirectional() -> mg.Graph:
    x, target = mg.input(np.zeros((2, 3)), name="x"), mg.input(np.zeros((2, 1)), name="target")
    h, k = mg.state(np.zeros((2, 4)), name="h"), mg.state(np.zeros((2, 4)), name="k", reverse=True)
    h.next = mg.tanh(x @ weight("W", 3, 4) + h @ weight("U", 4, 4))
    k.next = mg.tanh(x @ weight("A", 3, 4) + k @ weight("B", 4, 4))
    y = (h.next @ weight("V", 4, 1) + k.next @ weight("C", 4, 1)).named("y")
    return mg.Graph(loss=mg.time_mean(mg.mean((y - target) ** 2)))


def reverse_rnn() -> mg.Graph:
    x, k = mg.input(np.zeros((2, 3)), name="x"), mg.state(weight("k0", 2, 4), name="k", reverse=True)
    k.next = mg.tanh(x @ weight("W", 3, 4) + k @ weight("U", 4, 4))
    return mg.Graph(y=k.next @ weight("V", 4, 1))


def forward_then_reverse() -> mg.Graph:
    """A reverse cycle that reads a forward one: the gradient of the loss by u, as one would write it by hand."""
    u, x = mg.parameter(0.5, name="u"), mg.input(1.0, name="x")
    h, g = mg.state(0.1, name="h"), mg.state(0.0, name="g", reverse=True)
    h.next = mg.tanh(u * h + x)
    g.next = (2 * h.next + u * g) * (1 - h.next**2)
    return mg.Graph(loss=mg.time_sum(h.next**2), du=mg.time_sum(h * g.next))


NETWORKS: dict[str, Callable[[], mg.Graph]] = {
    network.__name__: network
    for network in (
        *(scalar, rnn, lstm, gru, stacked, delay_line, coupled),
        *(fed_back, learnable_start, normalised, odd_delays, embedding),
        *(static_operations, computed_start),
        *(bidirectional, reverse_rnn, forward_then_reverse),
    )
}
