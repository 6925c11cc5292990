"""Chapter 4: a network with a cycle.

You will see a recurrent neuron written as what it is: h.next = tanh(u * h + w * x), a node that
feeds itself one timestep later. The engine finds the cycle and refuses to backpropagate through it;
here you see what would happen if it did not. A delay that does not feed itself is no cycle.
"""

from math import tanh
from pathlib import Path
from textwrap import fill

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

U, W, X, TARGET = 0.8, 0.1, 1.0, 0.9
STEPS = 8


def loss_with(u: float) -> float:
    """The mean squared error over all timesteps, in plain Python."""
    h, total = 0.0, 0.0
    for _ in range(STEPS):
        h = tanh(u * h + W * X)
        total += (h - TARGET) ** 2
    return total / STEPS


def main() -> None:
    print("1. A neuron that remembers")
    u = mg.parameter(U, name="u")
    w = mg.parameter(W, name="w")
    x = mg.input(X, name="x")
    target = mg.input(TARGET, name="target")
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    loss = mg.time_mean((h.next - target) ** 2).named("loss")
    net = mg.Graph(loss)
    print(f"   recorded once, for one timestep: {net}")
    for cycle in net.cycles:
        print(f"   cycle found: {cycle}")
    viz.draw(net).save(OUT / "04_cycle.svg")
    print("   wrote examples/out/04_cycle.svg (the dashed edge is the cycle's way back)")

    print("\n2. Backpropagation refuses it")
    try:
        loss.backward()
    except mg.errors.CyclicGraphError as refusal:
        print(fill(f"CyclicGraphError: {refusal}", width=100, initial_indent="   ", subsequent_indent="   "))

    print("\n3. Why: the chain rule has no place to start")
    print("   Backpropagation visits a node once all that reads it has been visited. In a cycle every")
    print("   node waits for another: the gradient of tanh needs that of h, one timestep later, which")
    print("   needs that of multiply, which needs that of add, which needs that of tanh.")
    print("   Cut the cycle, so that each timestep takes h as a mere number, and the answer is wrong, because")
    print("   u also acts through all the timesteps before:")
    h_before = mg.tensor(0.0)
    cut = mg.tensor(0.0)
    for _ in range(STEPS):
        h_now = mg.tanh(u * h_before + w * X)
        cut = cut + (h_now - TARGET) ** 2 / STEPS
        h_before = h_now.detach()
    cut.backward()
    pretended = u.grad
    u.zero_grad()
    dag = net.unroll(x=[X] * STEPS, target=[TARGET] * STEPS)
    dag.backward()
    measured = (loss_with(U + 1e-6) - loss_with(U - 1e-6)) / 2e-6
    print(f"   d loss / du over {STEPS} timesteps, h cut off        {pretended:.5f}")
    print(f"   d loss / du measured: nudge u, run again       {measured:.5f}")
    print(f"   d loss / du through time (the next 2 chapters) {u.grad:.5f}")
    assert abs(u.grad - measured) < 1e-8

    print("\n4. A delay alone is no cycle")
    today = mg.input(20.0, name="today")
    yesterday = mg.state(20.0, name="yesterday")
    yesterday.next = today
    change = (today - yesterday).named("change")
    weather = mg.Graph(change)
    print(f"   yesterday.next = today: {len(weather.states)} state, cycles found: {weather.cycles}")
    temperatures = [21.0, 24.0, 19.0]
    changes = weather.unroll(today=temperatures).values("change")
    print(f"   temperatures {temperatures} after 20.0 change by {changes.tolist()}")
    viz.draw(weather).save(OUT / "04_delay.svg")
    print("   wrote examples/out/04_delay.svg (a dashed edge, but no way round)")


if __name__ == "__main__":
    main()
