"""Chapter 1: the chain rule.

You will see tanh(a * b + 1) computed one operation at a time, then walked backwards: at each
operation the gradient that arrives is multiplied by one local derivative. Every product is worked
out by hand and printed beside what the engine found. A number that is used twice collects two
gradients, which is all that weight sharing through time will need later.
"""

from math import tanh
from pathlib import Path

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)


def main() -> None:
    print("1. Forward: one operation at a time")
    a = mg.tensor(0.5, name="a")
    b = mg.tensor(-3.0, name="b")
    product = (a * b).named("product")
    total = (product + 1).named("total")
    y = mg.tanh(total).named("y")
    print(f"   product = a * b       = {product.value:7.4f}")
    print(f"   total   = product + 1 = {total.value:7.4f}")
    print(f"   y       = tanh(total) = {y.value:7.4f}")

    print("\n2. Backward: gradient = gradient that arrives × local derivative")
    y.backward()
    dy_dy = 1.0
    dy_dtotal = dy_dy * (1 - tanh(-0.5) ** 2)
    dy_dproduct = dy_dtotal * 1
    dy_da = dy_dproduct * -3.0
    dy_db = dy_dproduct * 0.5
    rows = [
        (y, "1", dy_dy),
        (total, "dy/dy × (1 − y²)", dy_dtotal),
        (product, "dy/dtotal × 1", dy_dproduct),
        (a, "dy/dproduct × b", dy_da),
        (b, "dy/dproduct × a", dy_db),
    ]
    print(f"   {'node':10} {'by the chain rule':18} {'by hand':>9} {'engine':>9}")
    for node, rule, by_hand in rows:
        print(f"   dy/d{node.name:7} {rule:18} {by_hand:9.4f} {node.grad:9.4f}")
        assert abs(node.grad - by_hand) < 1e-12

    print("\n3. What a gradient means: nudge a by 0.001 and look")
    nudged = tanh((0.5 + 0.001) * -3.0 + 1)
    print(f"   y changes by {nudged - y.value:.6f}; the gradient predicts {0.001 * a.grad:.6f}.")

    print("\n4. Used twice, a number collects two gradients")
    c = mg.tensor(0.5, name="c")
    left = (c * 3).named("left")
    right = mg.tanh(c).named("right")
    both = (left + right).named("both")
    both.backward()
    through_left, through_right = 3.0, 1 - tanh(0.5) ** 2
    print(f"   through left  {through_left:.4f}")
    print(f"   through right {through_right:.4f}")
    print(f"   sum           {through_left + through_right:.4f}, engine {c.grad:.4f}")
    assert abs(c.grad - (through_left + through_right)) < 1e-12

    print("\n5. Pictures")
    for picture, name in [
        (viz.draw(y, values=True, gradients=True), "01_chain_rule.svg"),
        (viz.draw(both, values=True, gradients=True), "01_used_twice.svg"),
    ]:
        picture.save(OUT / name)
        print(f"   wrote examples/out/{name}")


if __name__ == "__main__":
    main()
