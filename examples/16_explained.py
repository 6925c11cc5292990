"""Chapter 16: one gradient, explained four ways.

You will see backpropagation through time of one small neuron as equations, as the chain rule with
its numbers, path by path, as a picture in which the gradient fades on its way back, and as a page
through which you can step with the arrow keys.
"""

from pathlib import Path

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

XS, TARGET = [1.0, 0.5, 0.0, -0.5], 0.6


def record() -> mg.Graph:
    u, w = mg.parameter(0.8, name="u"), mg.parameter(0.5, name="w")
    x, h = mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    return mg.Graph(loss=mg.last(mg.square(h.next - TARGET)))


def main() -> None:
    net = record()
    print("1. As equations. First the network, then its gradient: a recurrence that runs backwards.\n")
    print(mg.equations(net))
    print("\n   In a notebook mg.equations(net) is typeset; .latex is the source for a paper.")

    dag = net.unroll(x=XS)
    dag.backward()
    print("\n2. As the chain rule with its numbers. What h at timestep 2 does to the loss:\n")
    print(mg.explain(dag["h", 2]))
    print("\n   The weight u is read at every timestep, so its gradient is a sum of one term for each:\n")
    print(mg.explain(dag["u"], limit=2))
    by_hand = sum(term.contribution for term in mg.explain(dag["u"]).terms)
    print(f"\n   The terms add up to {by_hand:.6f}; backward gave {dag['u'].grad:.6f}.")

    print("\n3. As a picture: each edge is as dark and thick as the gradient that flows through it.")
    viz.draw(dag, values=True, gradients=True, flow=True).save(OUT / "16_flow.svg")
    print("   wrote examples/out/16_flow.svg")

    print("\n4. As a page to step through: open it in a browser and press the right arrow key.")
    viz.play(dag, OUT / "16_bptt.html")
    print("   wrote examples/out/16_bptt.html")


if __name__ == "__main__":
    main()
