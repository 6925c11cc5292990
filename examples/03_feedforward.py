"""Chapter 3: a feedforward network.

You will see two layers, 2 inputs → 4 hidden → 1 output, learn exclusive or: the function that no
single neuron can compute. Nothing here is new except the arrays: all four examples are one matrix,
a layer is one product, and the gradient of a matrix is a matrix of the same shape.
"""

from pathlib import Path

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGET = np.array([[0.0], [1.0], [1.0], [0.0]])
EPOCHS = 300


def plot_loss(losses: list[float]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no loss curve: it needs matplotlib)")
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(losses, color="#c46a00")
    axes.grid(alpha=0.25)
    axes.set(xlabel="epoch", ylabel="mean squared error", title="A 2-4-1 network learns exclusive or")
    figure.savefig(OUT / "03_loss.png", dpi=130)
    print("   wrote examples/out/03_loss.png")


def main() -> None:
    rng = np.random.default_rng(0)
    W1 = mg.parameter(rng.normal(size=(2, 4)), name="W1")
    b1 = mg.parameter(np.zeros(4), name="b1")
    W2 = mg.parameter(rng.normal(size=(4, 1)), name="W2")
    b2 = mg.parameter(np.zeros(1), name="b2")
    parameters = [W1, b1, W2, b2]
    x = mg.tensor(X, name="x", requires_grad=False)
    target = mg.tensor(TARGET, name="target", requires_grad=False)

    def network() -> tuple[mg.Tensor, mg.Tensor]:
        hidden = mg.tanh(x @ W1 + b1).named("hidden")
        output = (hidden @ W2 + b2).named("output")
        return output, mg.mean((output - target) ** 2).named("loss")

    print("1. One pass forward, one backward")
    _, loss = network()
    loss.backward()
    print(f"   loss {loss.value:.4f}; a gradient has the shape of what it belongs to:")
    for parameter in parameters:
        print(f"   {parameter.name:3} shape {parameter.shape!s:7} gradient shape {parameter.grad.shape}")
    viz.draw(loss).save(OUT / "03_feedforward.svg")
    print("   wrote examples/out/03_feedforward.svg")

    print("\n2. Training")
    optimiser = mg.optim.Adam(parameters, lr=0.05)
    losses = []
    for epoch in range(1, EPOCHS + 1):
        optimiser.zero_grad()
        _, loss = network()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
        if epoch == 1 or epoch % 50 == 0:
            print(f"   epoch {epoch:3}: loss {losses[-1]:.1e}")

    print("\n3. What it learnt")
    output, loss = network()
    for inputs, answer, wanted in zip(X, output.value, TARGET, strict=True):
        print(f"   {inputs[0]:.0f} xor {inputs[1]:.0f} = {answer[0]:7.4f}   wanted {wanted[0]:.0f}")
    print(f"   final loss {float(loss):.1e}")
    assert float(loss) < 1e-4
    plot_loss(losses)


if __name__ == "__main__":
    main()
