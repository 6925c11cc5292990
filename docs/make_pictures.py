"""Draw every picture of README.md and of the gallery, and write the gallery: `python docs/make_pictures.py`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from networks import GALLERY, bidirectional, delay_line, leaky_neuron, lstm, rnn, stacked

import microgrid as mg
import viz

DOCS = Path(__file__).parent
PICTURES, IN_GALLERY = DOCS / "pictures", DOCS / "gallery"


def chain_rule() -> viz.Picture:
    a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    y = mg.tanh((a * b).named("product") + 6.5).named("y")
    y.backward()
    return viz.draw(y, values=True, gradients=True)


def vanishing() -> viz.Picture:
    """The gradient of the last state's loss on its way back through eight timesteps, each of which halves it."""
    rng = np.random.default_rng(0)
    x = mg.input(np.zeros((1, 3)), name="x")
    with mg.scope("rnn"):
        h = mg.state(np.zeros((1, 12)), name="h")
        W = mg.parameter(rng.normal(size=(3, 12)) / 2, name="W")
        U = mg.parameter(rng.normal(size=(12, 12)) / 7, name="U")
        h.next = mg.tanh(x @ W + h @ U)
    dag = mg.Graph(loss=mg.last(mg.sum(mg.square(h.next)))).unroll(x=rng.normal(size=(8, 1, 3)))
    dag.backward()
    return viz.draw(dag, level="cell", values=True, gradients=True, flow=True)


def gradients_through_time() -> viz.Picture:
    u, x, h = mg.parameter(0.8, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + x)
    dag = mg.Graph(loss=mg.last(mg.square(h.next))).unroll(x=[1.0, 0.0, 0.0, 0.0])
    dag.backward()
    return viz.draw(dag, values=True, gradients=True)


README: dict[str, Callable[[], viz.Picture]] = {
    "rnn_before_after": lambda: viz.before_after(rnn(), steps=3),
    "cells": lambda: viz.before_after(rnn(), steps=3, level="cell"),
    "chain_rule": chain_rule,
    "lstm_rolled": lambda: viz.draw(lstm()),
    "lstm_unrolled": lambda: viz.draw(lstm().unroll(steps=4)),
    "lstm_folded": lambda: viz.draw(lstm().unroll(steps=1000), level="cell", fold=2),
    "two_layers": lambda: viz.before_after(stacked(), steps=3),
    "delay_line": lambda: viz.before_after(delay_line(), steps=3),
    "adjoint": lambda: viz.draw(mg.differentiate(leaky_neuron())),
    "bidirectional": lambda: viz.before_after(bidirectional(), steps=3),
    "gradients": gradients_through_time,
    "vanishing": vanishing,
    "repeated": lambda: viz.draw(rnn().unroll(steps=3), weights="repeated"),
}


def gallery() -> str:
    """Draw each network rolled and unrolled at both levels, and write the page that shows them."""
    page = ["# Gallery\n", "Made by `python docs/make_pictures.py` from the networks in [networks.py](networks.py).\n"]
    for name, make in GALLERY.items():
        page.append(f"## {name.replace('_', ' ').capitalize() if len(name) > 4 else name.upper()}\n\n{make.__doc__}\n")
        net = make()
        for level, said in (("cell", "One box for each part"), ("op", "Every operation")):
            rolled, unrolled = f"{name}_{level}.svg", f"{name}_{level}_unrolled.svg"
            viz.draw(net, level=level).save(IN_GALLERY / rolled)
            viz.draw(net.unroll(steps=3), level=level).save(IN_GALLERY / unrolled)
            page.append(f"{said}, as it is written and over three timesteps:\n")
            page.append(f"![{name}, rolled](gallery/{rolled}) ![{name}, unrolled](gallery/{unrolled})\n")
    adjoint = mg.differentiate(leaky_neuron())
    viz.draw(adjoint).save(IN_GALLERY / "adjoint.svg")
    viz.draw(adjoint.unroll(steps=3)).save(IN_GALLERY / "adjoint_unrolled.svg")
    page.append("## Adjoint\n\nThe graph that computes the gradients of a leaky neuron: a recurrence that runs back.\n")
    page.append("![adjoint, rolled](gallery/adjoint.svg) ![adjoint, unrolled](gallery/adjoint_unrolled.svg)\n")
    return "\n".join(page)


def main() -> None:
    for folder in (PICTURES, IN_GALLERY):
        folder.mkdir(exist_ok=True)
    for name, make in README.items():
        make().save(PICTURES / f"{name}.svg")
    (DOCS / "gallery.md").write_text(gallery(), encoding="utf-8")
    for path in sorted([*PICTURES.glob("*.svg"), *IN_GALLERY.glob("*.svg"), DOCS / "gallery.md"]):
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
