"""Chapter 6: backpropagation through time.

You will see every term of it for h[t] = tanh(u h[t-1] + w x[t]) over three timesteps: the delta that
travels backwards, and what each timestep contributes to dL/du and dL/dw, by hand and by the engine.
Then the same over two windows, truncated at the border: what is lost there, to the last digit.
"""

from math import tanh
from pathlib import Path

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

U, W = 0.9, 0.5
XS = [1.0, -0.5, 0.8]
TARGETS = [0.3, 0.4, -0.2]


def record(u: mg.Tensor, w: mg.Tensor) -> mg.Graph:
    x = mg.input(0.0, name="x")
    target = mg.input(0.0, name="target")
    h = mg.state(0.0, name="h")
    a = (u * h + w * x).named("a")
    h.next = mg.tanh(a)
    loss = mg.time_sum(0.5 * (h.next - target) ** 2)
    return mg.Graph(loss=loss)


def bptt_by_hand() -> tuple[list[float], list[float], list[float]]:
    """Deltas, and the contributions to dL/du and dL/dw, each with one number per timestep.

    L = Σ ½ (h[t] − target[t])², a[t] = u h[t−1] + w x[t], h[t] = tanh(a[t]), delta[t] = dL/da[t].
    """
    steps = len(XS)
    before, after = [], []
    h = 0.0
    for x in XS:
        before.append(h)
        h = tanh(U * h + W * x)
        after.append(h)

    deltas = [0.0] * steps
    from_the_future = 0.0
    for t in reversed(range(steps)):
        from_its_own_loss = after[t] - TARGETS[t]
        deltas[t] = (1 - after[t] ** 2) * (from_its_own_loss + from_the_future)
        from_the_future = U * deltas[t]

    to_u = [deltas[t] * before[t] for t in range(steps)]
    to_w = [deltas[t] * XS[t] for t in range(steps)]
    return deltas, to_u, to_w


def term_by_term() -> None:
    u, w = mg.parameter(U, name="u"), mg.parameter(W, name="w")
    dag = record(u, w).unroll(x=XS, target=TARGETS)
    dag.backward()

    # A parameter holds the sum over time. An input holds one number per timestep, so u and w recorded
    # as inputs, with the same number at each, show the terms of that sum.
    apart = record(mg.input(U, name="u"), mg.input(W, name="w"))
    steps = len(XS)
    terms = apart.unroll(x=XS, target=TARGETS, u=[U] * steps, w=[W] * steps)
    terms.backward()

    deltas, to_u, to_w = bptt_by_hand()
    print("   delta[t] = (1 − h[t]²) × (h[t] − target[t] + u × delta[t+1])      (right to left in time)")
    print("   dL/du = Σ delta[t] × h[t−1]      dL/dw = Σ delta[t] × x[t]\n")
    print(f"   {'':4} {'delta[t]':^19} {'to dL/du':^19} {'to dL/dw':^19}")
    print(f"   {'t':4}" + f" {'by hand':>9} {'engine':>9}" * 3)
    for t in reversed(range(steps)):
        pairs = [
            (deltas[t], dag["a", t].grad),
            (to_u[t], terms["u", t].grad),
            (to_w[t], terms["w", t].grad),
        ]
        print(f"   {t:<4}" + "".join(f" {hand:9.5f} {engine:9.5f}" for hand, engine in pairs))
        assert all(abs(hand - engine) < 1e-12 for hand, engine in pairs)
    print(f"   {'sum':23} {sum(to_u):9.5f} {u.grad:9.5f} {sum(to_w):9.5f} {w.grad:9.5f}")
    assert abs(sum(to_u) - u.grad) < 1e-12
    assert abs(sum(to_w) - w.grad) < 1e-12

    viz.draw(dag, values=True, gradients=True).save(OUT / "06_bptt.svg")
    print("   wrote examples/out/06_bptt.svg (delta is the grad of a, the sums are the grads of u and w)")


def truncated() -> None:
    xs = [1.0, -0.5, 0.8, 0.2, -1.0, 0.6]
    targets = [0.3, 0.4, -0.2, 0.1, 0.0, -0.5]
    u, w = mg.parameter(U, name="u"), mg.parameter(W, name="w")
    net = record(u, w)

    net.unroll(x=xs, target=targets).backward()
    full = u.grad

    # The state is carried over as a number: the second window starts where the first one ended, but
    # no gradient goes back over the border.
    u.zero_grad()
    first = net.unroll(x=xs[:3], target=targets[:3])
    first.backward()
    from_first = u.grad
    u.zero_grad()
    second = net.unroll(x=xs[3:], target=targets[3:], initial=first.state)
    second.backward()
    from_second = u.grad

    # What the border stopped: the gradient that the second window has for its first state. Sent on
    # into the first window, it is what was lost.
    stopped = second["h", 0].grad
    u.zero_grad()
    last_h = first[net["h"].next, 2]
    last_h.backward(stopped)
    lost = u.grad

    print(f"   dL/du over all 6 timesteps                        {full:9.6f}")
    print(f"   window 1 (t = 0, 1, 2) alone                      {from_first:9.6f}")
    print(f"   window 2 (t = 3, 4, 5) alone, h carried over      {from_second:9.6f}")
    print(f"   sum: the truncated gradient                       {from_first + from_second:9.6f}")
    print(f"   missing                                           {full - from_first - from_second:9.6f}")
    print(f"   gradient stopped at the border, dL₂/dh            {stopped:9.6f}")
    print(f"   sent on through window 1, it is worth             {lost:9.6f}")
    print("   What is lost is how u, before the border, shaped the losses after it.")
    assert abs(full - (from_first + from_second + lost)) < 1e-12


def main() -> None:
    print("1. Three timesteps, term by term")
    term_by_term()
    print("\n2. Truncated: two windows of three timesteps")
    truncated()


if __name__ == "__main__":
    main()
