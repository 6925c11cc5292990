"""Chapter 7: vanishing and exploding gradients.

You will see how much of a gradient is left after travelling back through fifty timesteps, for
recurrent matrices of spectral radius 0.8, 1.0 and 1.2. In a linear network it is radius**steps
exactly: it vanishes, stays, or explodes. With tanh each timestep takes a further part away.
"""

from pathlib import Path

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

STEPS, HIDDEN = 50, 16
RADII = [0.8, 1.0, 1.2]
RNG = np.random.default_rng(0)
# An orthogonal matrix keeps the length of every vector; times radius, it scales all by the radius.
ORTHOGONAL, _ = np.linalg.qr(RNG.normal(size=(HIDDEN, HIDDEN)))
XS = 0.3 * RNG.normal(size=(STEPS, HIDDEN))
UNIT_VECTOR = np.ones(HIDDEN) / np.sqrt(HIDDEN)


def record(radius: float, activation: bool) -> mg.Graph:
    U = mg.parameter(radius * ORTHOGONAL, name="U")
    x = mg.input(np.zeros(HIDDEN), name="x")
    h = mg.state(np.zeros(HIDDEN), name="h")
    total = h @ U + x
    h.next = mg.tanh(total) if activation else total
    return mg.Graph(last_h=mg.last(h.next))


def gradient_norms(net: mg.Graph) -> np.ndarray:
    """The norm of the gradient of h at each timestep; entry t has travelled back through STEPS − t timesteps."""
    dag = net.unroll(x=XS)
    # Whatever the loss, its gradient arrives at the last h as some vector. This one has length 1.
    dag.backward(UNIT_VECTOR)
    return np.linalg.norm(dag.grads("h"), axis=1)


def plot(linear: dict[float, np.ndarray], with_tanh: dict[float, np.ndarray]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no plot: it needs matplotlib)")
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    back = STEPS - np.arange(STEPS)
    for radius, colour in zip(RADII, ["#33659e", "#5b6875", "#c46a00"], strict=True):
        axes.semilogy(back, linear[radius], color=colour, label=f"linear, radius {radius}")
        axes.semilogy(back, with_tanh[radius], color=colour, ls="--", label=f"tanh, radius {radius}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=3, loc="upper left")
    axes.set_ylim(top=1e8)
    axes.set(xlabel="timesteps travelled back", ylabel="norm of the gradient", title="What is left of a gradient")
    figure.savefig(OUT / "07_gradient_norms.png", dpi=130)
    print("   wrote examples/out/07_gradient_norms.png")


def main() -> None:
    linear = {radius: gradient_norms(record(radius, activation=False)) for radius in RADII}
    with_tanh = {radius: gradient_norms(record(radius, activation=True)) for radius in RADII}

    print("1. A linear network: h.next = h @ U + x")
    print("   The gradient passes the same matrix once per timestep, so its norm is radius**steps.")
    print(f"   {'steps':>5}" + "".join(f"{f'radius {radius}':>20}" for radius in RADII))
    print(f"   {'back':>5}" + f"{'engine':>10}{'formula':>10}" * len(RADII))
    for back in [1, 10, 20, 30, 40, 50]:
        row = "".join(f"{linear[radius][STEPS - back]:10.1e}{radius**back:10.1e}" for radius in RADII)
        print(f"   {back:5}{row}")
    for radius in RADII:
        formula = radius ** (STEPS - np.arange(STEPS))
        assert np.allclose(linear[radius], formula, rtol=1e-10)

    print("\n2. With tanh: h.next = tanh(h @ U + x)")
    print("   Its slope, 1 − h², is at most 1, so every timestep takes a further part away.")
    print(f"   {'back':>5}" + "".join(f"{f'radius {radius}':>12}" for radius in RADII))
    for back in [1, 10, 20, 30, 40, 50]:
        print(f"   {back:5}" + "".join(f"{with_tanh[radius][STEPS - back]:12.1e}" for radius in RADII))
    assert all(np.all(with_tanh[radius] <= linear[radius]) for radius in RADII)

    print("\n3. What it means")
    shrunk = 1 / linear[0.8][0]
    print(f"   At radius 0.8 the gradient is {shrunk:,.0f} times smaller after fifty timesteps: training hardly")
    print("   learns what an early input is good for. At 1.2 it is so large that one step of gradient descent")
    print("   overshoots; with tanh, the states here are large enough that it vanishes instead. Remedies: clip")
    print("   the gradient (mg.optim.clip_grad_norm), or give the state a way to the next timestep that")
    print("   multiplies it by nearly 1, which is what gates are for (chapter 8).")

    print("\n4. Pictures")
    viz.draw(record(1.0, activation=True).unroll(steps=4)).save(OUT / "07_unrolled.svg")
    print("   wrote examples/out/07_unrolled.svg (the path the gradient takes, right to left)")
    plot(linear, with_tanh)


if __name__ == "__main__":
    main()
