"""Chapter 5: unrolling.

You will see the recurrent neuron unrolled twice: by hand, as three lines of Python that use the same
u and w, and by the rewriter, from the graph with the cycle. Values and gradients agree, and u is not
copied: it is the same object in every timestep.
"""

from pathlib import Path

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

XS = [1.0, -0.5, 0.25]
TARGET = 0.6


def main() -> None:
    u = mg.parameter(0.8, name="u")
    w = mg.parameter(0.5, name="w")

    print("1. By hand: write the line once per timestep")
    h0 = 0.0
    h1 = mg.tanh(u * h0 + w * XS[0])
    h2 = mg.tanh(u * h1 + w * XS[1])
    h3 = mg.tanh(u * h2 + w * XS[2])
    loss_by_hand = (h3 - TARGET) ** 2
    loss_by_hand.backward()
    by_hand = {"u": u.grad, "w": w.grad}
    print("   h1 = tanh(u * h0 + w * x[0])")
    print("   h2 = tanh(u * h1 + w * x[1])")
    print("   h3 = tanh(u * h2 + w * x[2])       no cycle is left, and backward() works")

    print("\n2. By the rewriter: write the line once, as a cycle")
    x = mg.input(0.0, name="x")
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    loss = (mg.last(h.next) - TARGET) ** 2
    net = mg.Graph(loss=loss)
    dag = net.unroll(x=XS)
    print(f"   before: {net}, cycles {net.cycles}")
    print(f"   after:  {dag}")
    u.zero_grad()
    w.zero_grad()
    dag.backward()

    print("\n3. The same numbers")
    print(f"   {'':10} {'by hand':>11} {'rewriter':>11}")
    for t, node in enumerate([h1, h2, h3]):
        print(f"   h{t + 1:<9} {node.value:11.8f} {dag[h.next, t].value:11.8f}")
        assert node.value == dag[h.next, t].value
    print(f"   {'loss':10} {loss_by_hand.value:11.8f} {dag['loss'].value:11.8f}")
    for parameter in (u, w):
        print(f"   d loss/d{parameter.name}  {by_hand[parameter.name]:11.8f} {parameter.grad:11.8f}")
        assert abs(by_hand[parameter.name] - parameter.grad) < 1e-15

    print("\n4. The same weights")
    print(f'   dag["u", 0] is u and dag["u", 2] is u → {dag["u", 0] is u and dag["u", 2] is u}')
    print(f'   dag["h", 0] is dag["h", 2]            → {dag["h", 0] is dag["h", 2]}')
    print("   One object with three readers: its gradient is the sum of three, as in chapter 1.")

    print("\n5. Pictures")
    viz.before_after(net, steps=3).save(OUT / "05_before_after.svg")
    print("   wrote examples/out/05_before_after.svg")


if __name__ == "__main__":
    main()
