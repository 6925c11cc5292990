"""The networks of the gallery, each written by hand, its parts in scopes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import microgrid as mg

UNITS = 16


def weight(name: str, *shape: int) -> mg.Parameter:
    return mg.parameter(np.random.default_rng(len(name)).normal(size=shape) / 2, name=name)


def row(name: str, size: int) -> mg.Input:
    return mg.input(np.zeros((1, size)), name=name)


def memory(name: str, size: int = UNITS, *, reverse: bool = False) -> mg.State:
    return mg.state(np.zeros((1, size)), name=name, reverse=reverse)


def rnn() -> mg.Graph:
    """The plain recurrent network: its state is the tanh of what comes in and of what it was."""
    x, target = row("x", 3), row("target", 2)
    with mg.scope("rnn"):
        h = memory("h")
        h.next = mg.tanh(x @ weight("W", 3, 16) + h @ weight("U", 16, 16))
    with mg.scope("readout"):
        y = h.next @ weight("V", 16, 2)
    return mg.Graph(loss=mg.time_mean(mg.mean(mg.square(y - target))))


def lstm() -> mg.Graph:
    """Long short-term memory: gates decide what the cell c forgets, takes in and shows."""
    x = row("x", 8)
    with mg.scope("lstm"):
        h, c = memory("h"), memory("c")
        z = (x @ weight("W", 8, 64) + h @ weight("U", 16, 64) + weight("b", 64)).named("z")
        i, f, o = (mg.sigmoid(z[:, 16 * k : 16 * k + 16]).named(name) for k, name in enumerate("ifo"))
        c.next = f * c + i * mg.tanh(z[:, 48:]).named("g")
        h.next = o * mg.tanh(c.next)
    with mg.scope("readout"):
        y = h.next @ weight("V", 16, 2)
    return mg.Graph(y=y)


def gru() -> mg.Graph:
    """The gated recurrent unit: one gate weighs the old state against the new, another what of the old is read."""
    x = row("x", 8)
    with mg.scope("gru"):
        h = memory("h")
        r, z = (mg.sigmoid(x @ weight(f"W{name}", 8, 16) + h @ weight(f"U{name}", 16, 16)).named(name) for name in "rz")
        n = mg.tanh(x @ weight("Wn", 8, 16) + (r * h) @ weight("Un", 16, 16)).named("n")
        h.next = (1 - z) * n + z * h
    return mg.Graph(y=h.next)


def stacked() -> mg.Graph:
    """Two layers: the upper one reads what the lower one has just become."""
    x = row("x", 4)
    with mg.scope("layer 1"):
        low = memory("low", 8)
        low.next = mg.tanh(x @ weight("W1", 4, 8) + low @ weight("U1", 8, 8))
    with mg.scope("layer 2"):
        high = memory("high", 8)
        high.next = mg.tanh(low.next @ weight("W2", 8, 8) + high @ weight("U2", 8, 8))
    return mg.Graph(y=high.next)


def bidirectional() -> mg.Graph:
    """One network reads from the first timestep to the last, one from the last to the first."""
    x = row("x", 3)
    with mg.scope("forwards"):
        f = memory("f")
        f.next = mg.tanh(x @ weight("Wf", 3, 16) + f @ weight("Uf", 16, 16))
    with mg.scope("backwards"):
        b = memory("b", reverse=True)
        b.next = mg.tanh(x @ weight("Wb", 3, 16) + b @ weight("Ub", 16, 16))
    with mg.scope("readout"):
        y = f.next @ weight("Vf", 16, 2) + b.next @ weight("Vb", 16, 2)
    return mg.Graph(y=y)


def delay_line() -> mg.Graph:
    """States without a cycle: the second difference of a signal, from its last three values."""
    x = mg.input(0.0, name="x")
    d1, d2 = mg.state(0.0, name="d1"), mg.state(0.0, name="d2")
    d1.next, d2.next = x, d1
    return mg.Graph(y=x - 2 * d1 + d2)


def coupled() -> mg.Graph:
    """Two cells in one cycle: each reads what the other was."""
    x, fast, slow = row("x", 3), memory("a", 8), memory("b", 4)
    with mg.scope("fast"):
        fast.next = mg.tanh(x @ weight("Wa", 3, 8) + fast @ weight("Ua", 8, 8) + slow @ weight("Vb", 4, 8))
    with mg.scope("slow"):
        slow.next = 0.9 * slow + 0.1 * mg.tanh(fast @ weight("Va", 8, 4))
    return mg.Graph(y=fast.next)


def output_fed_back() -> mg.Graph:
    """What the network said last is part of what it reads next."""
    x, said, h = row("x", 3), memory("said", 2), memory("h", 8)
    with mg.scope("rnn"):
        h.next = mg.tanh(x @ weight("W", 3, 8) + h @ weight("U", 8, 8) + said @ weight("F", 2, 8))
    with mg.scope("readout"):
        said.next = mg.softmax(h.next @ weight("V", 8, 2))
    return mg.Graph(y=said.next)


GALLERY: dict[str, Callable[[], mg.Graph]] = {
    "rnn": rnn,
    "lstm": lstm,
    "gru": gru,
    "stacked": stacked,
    "bidirectional": bidirectional,
    "delay_line": delay_line,
    "coupled": coupled,
    "output_fed_back": output_fed_back,
}


def leaky_neuron() -> mg.Graph:
    u, x, h = mg.parameter(0.8, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = 0.9 * h + mg.tanh((u * h + x).named("a"))
    return mg.Graph(total=mg.time_sum(h.next))
