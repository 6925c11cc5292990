"""Draw the pictures of README.md into docs/pictures: `python docs/make_pictures.py`."""

from pathlib import Path

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "pictures"


def weight(name: str, *shape: int) -> mg.Parameter:
    return mg.parameter(np.random.default_rng(len(name)).normal(size=shape) / 2, name=name)


def chain_rule() -> viz.Picture:
    a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    y = mg.tanh((a * b).named("product") + 6.5).named("y")
    y.backward()
    return viz.draw(y, values=True, gradients=True)


def rnn() -> mg.Graph:
    x, target = mg.input(np.zeros((1, 3)), name="x"), mg.input(np.zeros((1, 2)), name="target")
    h = mg.state(np.zeros((1, 16)), name="h")
    h.next = mg.tanh(x @ weight("W", 3, 16) + h @ weight("U", 16, 16))
    y = (h.next @ weight("V", 16, 2)).named("y")
    return mg.Graph(loss=mg.time_mean(mg.mean(mg.square(y - target))))


def lstm() -> mg.Graph:
    x = mg.input(np.zeros((1, 8)), name="x")
    h, c = mg.state(np.zeros((1, 16)), name="h"), mg.state(np.zeros((1, 16)), name="c")
    z = (x @ weight("W", 8, 64) + h @ weight("U", 16, 64) + weight("b", 64)).named("z")
    i, f, o = (mg.sigmoid(z[:, 16 * k : 16 * k + 16]).named(name) for k, name in enumerate("ifo"))
    c.next = f * c + i * mg.tanh(z[:, 48:]).named("g")
    h.next = o * mg.tanh(c.next)
    return mg.Graph(y=h.next @ weight("V", 16, 2))


def two_layers() -> mg.Graph:
    x = mg.input(np.zeros((1, 4)), name="x")
    low, high = mg.state(np.zeros((1, 8)), name="low"), mg.state(np.zeros((1, 8)), name="high")
    low.next = mg.tanh(x @ weight("W1", 4, 8) + low @ weight("U1", 8, 8))
    high.next = mg.tanh(low.next @ weight("W2", 8, 8) + high @ weight("U2", 8, 8))
    return mg.Graph(high.next)


def delay_line() -> mg.Graph:
    x = mg.input(0.0, name="x")
    d1, d2 = mg.state(0.0, name="d1"), mg.state(0.0, name="d2")
    d1.next, d2.next = x, d1
    return mg.Graph(y=x - 2 * d1 + d2)


def leaky_neuron() -> mg.Graph:
    u, x, h = mg.parameter(0.8, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = 0.9 * h + mg.tanh((u * h + x).named("a"))
    return mg.Graph(total=mg.time_sum(h.next))


def bidirectional() -> mg.Graph:
    x = mg.input(np.zeros((1, 3)), name="x")
    f, b = mg.state(np.zeros((1, 16)), name="f"), mg.state(np.zeros((1, 16)), name="b", reverse=True)
    f.next = mg.tanh(x @ weight("Wf", 3, 16) + f @ weight("Uf", 16, 16))
    b.next = mg.tanh(x @ weight("Wb", 3, 16) + b @ weight("Ub", 16, 16))
    return mg.Graph(y=f.next @ weight("Vf", 16, 2) + b.next @ weight("Vb", 16, 2))


def gradients_through_time() -> viz.Picture:
    u, x, h = mg.parameter(0.8, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + x)
    dag = mg.Graph(loss=mg.last(mg.square(h.next))).unroll(x=[1.0, 0.0, 0.0, 0.0])
    dag.backward()
    return viz.draw(dag, values=True, gradients=True)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    chain_rule().save(OUT / "chain_rule.svg")
    viz.before_after(rnn(), steps=3).save(OUT / "rnn_before_after.svg")
    viz.draw(lstm()).save(OUT / "lstm_rolled.svg")
    viz.draw(lstm().unroll(steps=4)).save(OUT / "lstm_unrolled.svg")
    viz.before_after(two_layers(), steps=3).save(OUT / "two_layers.svg")
    viz.before_after(delay_line(), steps=3).save(OUT / "delay_line.svg")
    viz.draw(mg.differentiate(leaky_neuron())).save(OUT / "adjoint.svg")
    viz.before_after(bidirectional(), steps=3).save(OUT / "bidirectional.svg")
    gradients_through_time().save(OUT / "gradients.svg")
    for path in sorted(OUT.glob("*.svg")):
        print(path.relative_to(OUT.parent.parent))


if __name__ == "__main__":
    main()
