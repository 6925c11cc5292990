"""Chapter 9: only the cycle has to wait.

You will see what an unrolled graph hides: of all that a recurrent network computes, only its cycle has
to run step by step. mg.compile finds out what does, and runs the rest for all timesteps at once. The
way back is treated alike, for the adjoint of a network is a network too: a graph whose cycles run
backwards in time. It can be drawn, and differentiated once more.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from textwrap import fill
from time import perf_counter

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

STEPS, BATCH, FEATURES, HIDDEN = 60, 4, 8, 16


def lstm(rng: np.random.Generator) -> mg.Graph:
    def weight(name: str, *shape: int) -> mg.Parameter:
        return mg.parameter(rng.normal(size=shape) / np.sqrt(HIDDEN), name=name)

    x = mg.input(np.zeros((BATCH, FEATURES)), name="x", requires_grad=False)
    target = mg.input(np.zeros((BATCH, 1)), name="target", requires_grad=False)
    h, c = mg.state(np.zeros((BATCH, HIDDEN)), name="h"), mg.state(np.zeros((BATCH, HIDDEN)), name="c")
    z = x @ weight("W", FEATURES, 4 * HIDDEN) + h @ weight("U", HIDDEN, 4 * HIDDEN) + weight("b", 4 * HIDDEN)
    z_in, z_forget, z_out, z_new = mg.split(z, 4, axis=1)
    c.next = mg.sigmoid(z_forget) * c + mg.sigmoid(z_in) * mg.tanh(z_new)
    h.next = mg.sigmoid(z_out) * mg.tanh(c.next)
    y = (h.next @ weight("V", HIDDEN, 1)).named("y")
    return mg.Graph(loss=mg.time_mean(mg.mean((y - target) ** 2)))


def leaky_neuron() -> mg.Graph:
    u, x = mg.parameter(0.8, name="u"), mg.input(0.0, name="x")
    h = mg.state(0.0, name="h")
    h.next = 0.9 * h + mg.tanh((u * h + x).named("a"))
    return mg.Graph(total=mg.time_sum(h.next))


def milliseconds(work: Callable[[], object]) -> float:
    """The median of several runs."""
    times = []
    for _ in range(7):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return 1000 * median(times)


def print_schedule(schedule: mg.Schedule) -> None:
    for line in str(schedule).splitlines():
        print(fill(line, width=108, initial_indent="   ", subsequent_indent=" " * 28))


def print_cycles(graph: mg.Graph) -> None:
    for cycle in graph.cycles:
        states = " and ".join(state.name or "state" for state in cycle.states)
        print(f"   {'backwards' if cycle.reverse else 'forwards ':9}  {cycle}   ({states})")


def main() -> None:
    rng = np.random.default_rng(0)
    net = lstm(rng)
    data = {"x": rng.normal(size=(STEPS, BATCH, FEATURES)), "target": rng.normal(size=(STEPS, BATCH, 1))}

    print("1. The same numbers as unroll and backward")
    step = mg.compile(net)
    run = step(data)
    dag = net.unroll(data)
    dag.backward()
    differences = {p.name: float(np.abs(run.grads[p] - p.grad).max()) for p in net.parameters}
    print(f"   loss: unrolled {dag.output:.12f}, compiled {run.value:.12f}")
    print("   largest difference of a gradient: " + ", ".join(f"{name} {d:.0e}" for name, d in differences.items()))
    assert max(differences.values()) < 1e-12

    print("\n2. What has to wait, and what does not")
    schedule = step.schedule
    print_schedule(schedule)
    loops = [block for block in schedule.blocks if block.kind == "loop"]
    waiting = [node.primitive.name for block in loops for node in block.nodes]
    products = waiting.count("matmul")
    print(f"   Unrolled, {STEPS} timesteps are {len(dag)} nodes, forwards alone. Here, from top to bottom:")
    print("   - Once: what depends on no timestep. sigmoid(z) is (1 + tanh(z/2))/2, so W, U and b are halved where")
    print("     they belong to gates, and one tanh serves all four parts of z.")
    print("   - All timesteps at once: x @ W + b. It reads no state, so it is one large product for the sequence.")
    print("   - Step by step, forwards: h @ U and all that lies between it and the next h and c: the cycle.")
    print("   - All timesteps at once: y and its error; and the local derivatives, such as 1 − tanh²: they read")
    print("     the values of the forward cycle, which are known by now, and no gradient.")
    print("   - Step by step, backwards: the gradients of h and c at t need those at t+1, written h.grad⁺ and")
    print("     c.grad⁺: a cycle again. What is left in it is the chain rule: multiply by local derivatives, add,")
    print("     and one product with U transposed.")
    print("   - Once, at the end: the gradient of W is a sum over timesteps, Σₜ x[t]ᵀ @ z.grad[t]; with the")
    print("     timesteps stacked, that is one product (time_matmul). U and b alike.")
    print(f"   Of all matrix products, {products} are left in the loops: one on the way there, one on the way back.")
    assert products == waiting.count("tanh") == 2  # the second tanh is that of c.next

    print("\n3. What it gains on this machine")
    unrolled = milliseconds(lambda: net.unroll(data).backward())
    compiled = milliseconds(lambda: step(data))
    print(f"   {STEPS} timesteps, {BATCH} sequences, {HIDDEN} units: values and all gradients")
    print(
        f"   unroll and backward {unrolled:.1f} ms, compiled {compiled:.2f} ms, that is 1 : {unrolled / compiled:.0f}"
    )

    print("\n4. The adjoint is a graph")
    print("   The delay hands h on from t to t+1. The gradient takes the same way back, from t+1 to t: it is a")
    print("   state that runs backwards in time. mg.differentiate records it with the same operations as any net.")
    small = leaky_neuron()
    adjoint = mg.differentiate(small)
    print("   A neuron, h.next = 0.9 * h + tanh(u * h + x), and the sum of all h.next:")
    print_cycles(small)
    print(f"   and its adjoint, {adjoint}:")
    print_cycles(adjoint)
    viz.draw(adjoint).save(OUT / "09_adjoint.svg")
    print("   wrote examples/out/09_adjoint.svg (two dashed edges: t−1 goes forwards in time, t+1 backwards)")
    viz.draw(adjoint.unroll(steps=3)).save(OUT / "09_adjoint_unrolled.svg")
    print("   wrote examples/out/09_adjoint_unrolled.svg (values travel right, gradients left)")
    xs = [0.5, -1.0, 0.3]
    by_graph = float(adjoint.unroll(x=xs)["u.grad"])
    by_backward = small.unroll(x=xs)
    by_backward.backward()
    print(f"   d total / du: the adjoint unrolled {by_graph:.12f}, backward {small['u'].grad:.12f}")
    assert abs(by_graph - small["u"].grad) < 1e-12
    print("   The adjoint of the LSTM, whose cycles hold two states each (the way shown is a shortest one):")
    print_cycles(mg.differentiate(net))

    print("\n5. Truncated backpropagation through time")
    print("   run.state is where a run ended; given as initial=, the next window goes on from there. It is handed")
    print("   on as numbers, so values pass the border and gradients do not.")
    windows = [{name: array[at : at + 20] for name, array in data.items()} for at in range(0, STEPS, 20)]
    window_runs: list[mg.Run] = []
    for window in windows:
        window_runs.append(step(window, initial=window_runs[-1].state if window_runs else None))
    mean_loss = np.mean([float(each.value) for each in window_runs])
    print(f"   loss: {STEPS} timesteps {run.value:.12f}, mean of {len(windows)} windows {mean_loss:.12f}")
    truncated = np.mean([each.grads["U"] for each in window_runs], axis=0)
    lost = np.linalg.norm(truncated - run.grads["U"]) / np.linalg.norm(run.grads["U"])
    print(f"   gradient of U: what the borders cut off is {lost:.1%} of it")
    assert abs(mean_loss - run.value) < 1e-12

    print("\n6. The adjoint, differentiated again")
    print("   How does the gradient of U change if U moves a little in a direction v? That is the Hessian times v,")
    print("   and it is the gradient of the number ⟨gradient of U, v⟩: a graph like any other.")
    U = net["U"]
    v = rng.normal(size=U.shape)
    along_v = mg.sum(mg.differentiate(net)["U.grad"] * v)
    second = mg.compile(along_v, wrt=U)
    hessian_v = second(data).grads[U]
    start, small_move = U.value, 1e-5
    moved = []
    for sign in (1, -1):
        U.value = start + sign * small_move * v  # a compiled network reads its parameters at each run
        moved.append(step(data).grads[U])
    U.value = start
    measured = (moved[0] - moved[1]) / (2 * small_move)
    off = np.linalg.norm(hessian_v - measured) / np.linalg.norm(measured)
    loops = [block for block in second.schedule.blocks if block.kind == "loop"]
    print(f"   Hessian · v against a difference of two gradients: relative difference {off:.0e}")
    print("   its loops: " + ", ".join("backwards" if block.reverse else "forwards" for block in loops))
    assert off < 1e-6


if __name__ == "__main__":
    main()
