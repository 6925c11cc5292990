"""Chapter 2: one neuron.

You will see a neuron, tanh(w1 * x1 + w2 * x2 + b), its error on one example, and the gradient of the
error for both weights and the bias, by hand and by the engine. One step of gradient descent lowers
the error by nearly as much as the gradient promises, and sixty steps remove it.
"""

from math import tanh
from pathlib import Path

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

X1, X2, TARGET = 1.0, -2.0, 0.5
LEARNING_RATE = 0.02


def squared_error(w1: mg.Tensor, w2: mg.Tensor, b: mg.Tensor) -> mg.Tensor:
    x1 = mg.tensor(X1, name="x1", requires_grad=False)
    x2 = mg.tensor(X2, name="x2", requires_grad=False)
    y = mg.tanh(w1 * x1 + w2 * x2 + b).named("y")
    return ((y - TARGET) ** 2).named("error")


def main() -> None:
    w1 = mg.parameter(0.4, name="w1")
    w2 = mg.parameter(0.3, name="w2")
    b = mg.parameter(0.1, name="b")

    print("1. The neuron and its error")
    error = squared_error(w1, w2, b)
    y = tanh(0.4 * X1 + 0.3 * X2 + 0.1)
    print(f"   it answers {y:.4f}, it should answer {TARGET}: error {error.value:.4f}")

    print("\n2. The gradient")
    error.backward()
    # Both weights and the bias share this factor: it is the gradient that arrives at their sum.
    arriving = 2 * (y - TARGET) * (1 - y**2)
    by_hand = {w1: arriving * X1, w2: arriving * X2, b: arriving}
    print(f"   arriving at the sum: 2 (y − target) × (1 − y²) = {arriving:.4f}")
    for parameter, gradient in by_hand.items():
        print(f"   d error / d {parameter.name:3} by hand {gradient:7.4f}   engine {parameter.grad:7.4f}")
        assert abs(gradient - parameter.grad) < 1e-12
    viz.draw(error, values=True, gradients=True).save(OUT / "02_neuron.svg")
    print("   wrote examples/out/02_neuron.svg")

    print("\n3. One step of gradient descent: parameter − learning rate × gradient")
    # Moving by −lr × gradient along the gradient changes the error by −lr × gradient², if the step is small.
    promised = -LEARNING_RATE * sum(parameter.grad**2 for parameter in (w1, w2, b))
    for parameter in (w1, w2, b):
        before = parameter.value
        parameter.value = before - LEARNING_RATE * parameter.grad
        print(f"   {parameter.name:3} {before:7.4f} → {parameter.value:7.4f}")
    after = squared_error(w1, w2, b)
    print(f"   error {error.value:.4f} → {after.value:.4f}")
    print(f"   change {after.value - error.value:.4f}, promised by the gradient {promised:.4f}")
    print("   (They differ because the slope changes along the step; a smaller step comes closer.)")
    assert after.value < error.value

    print("\n4. And again")
    for step in range(2, 61):
        for parameter in (w1, w2, b):
            parameter.zero_grad()
        after.backward()
        for parameter in (w1, w2, b):
            parameter.value = parameter.value - LEARNING_RATE * parameter.grad
        after = squared_error(w1, w2, b)
        if step % 10 == 0:
            print(f"   after {step:2} steps: error {after.value:.2e}")


if __name__ == "__main__":
    main()
