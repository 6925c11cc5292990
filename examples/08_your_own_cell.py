"""Chapter 8: your own cell.

You will see a recurrent cell, the minimal gated unit, written from primitives in four lines; its
gate named, so that the pictures show it; its gradients checked against finite differences; and how
it learns to remember the one number of a sequence that is marked, by opening a gate at the mark.
Change the four lines and run it again: everything else follows from the graph.

Source: G.-B. Zhou et al., Minimal gated unit for recurrent neural networks (2016).
"""

from pathlib import Path

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

HIDDEN, STEPS, BATCH, EPOCHS = 8, 10, 32, 150
NAMES = ["Wf", "Uf", "bf", "Wc", "Uc", "V"]


def initial_weights(rng: np.random.Generator, hidden: int) -> list[np.ndarray]:
    shapes = [(2, hidden), (hidden, hidden), (hidden,), (2, hidden), (hidden, hidden), (hidden, 1)]
    return [rng.normal(size=shape) / np.sqrt(hidden) for shape in shapes]


def record(weights: list[mg.Tensor], batch: int) -> mg.Graph:
    Wf, Uf, bf, Wc, Uc, V = weights
    x = mg.input(np.zeros((batch, 2)), name="x", requires_grad=False)
    target = mg.input(np.zeros((batch, 1)), name="target", requires_grad=False)
    h = mg.state(np.zeros((batch, Uf.shape[0])), name="h")

    # The cell: the forget gate decides, unit by unit, how much of the state gives way to the candidate.
    forget = mg.sigmoid(x @ Wf + h @ Uf + bf).named("forget")
    candidate = mg.tanh(x @ Wc + (forget * h) @ Uc).named("candidate")
    keep = (1 - forget).named("keep")
    h.next = keep * h + forget * candidate

    answer = (h.next @ V).named("answer")
    # Only the answer after the last timestep counts.
    loss = mg.last(mg.mean((answer - target) ** 2))
    return mg.Graph(loss=loss)


def sequences(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x of shape (STEPS, BATCH, 2), a random number and a mark; as targets the marked number, at every timestep."""
    numbers = rng.uniform(-1, 1, size=(STEPS, BATCH))
    marked_at = rng.integers(STEPS, size=BATCH)
    marks = (np.arange(STEPS)[:, None] == marked_at).astype(float)
    marked = (numbers * marks).sum(axis=0)
    return np.stack([numbers, marks], axis=2), np.broadcast_to(marked[:, None], (STEPS, BATCH, 1))


def main() -> None:
    rng = np.random.default_rng(1)
    weights = [mg.parameter(array, name=name) for array, name in zip(initial_weights(rng, HIDDEN), NAMES, strict=True)]
    net = record(weights, BATCH)

    print("1. The cell, recorded")
    print(f"   {net}")
    for cycle in net.cycles:
        print(f"   {len(cycle.nodes)} nodes recur; the shortest way round: {cycle}")

    print("\n2. Pictures")
    for picture, name in [
        (viz.draw(net), "08_rolled.svg"),
        (viz.draw(net.unroll(steps=3)), "08_unrolled.svg"),
        (viz.before_after(net, steps=3), "08_before_after.svg"),
    ]:
        picture.save(OUT / name)
        print(f"   wrote examples/out/{name}")

    print("\n3. Are the gradients right? A small copy against finite differences")
    small_xs = rng.normal(size=(4, 2, 2))
    small_targets = rng.normal(size=(4, 2, 1))

    def small_loss(*tensors: mg.Tensor) -> mg.Tensor:
        return record(list(tensors), batch=2).unroll(x=small_xs, target=small_targets).output

    small_weights = initial_weights(rng, hidden=3)
    worst = mg.check_gradients(small_loss, *small_weights)
    numbers = sum(w.size for w in small_weights)
    print(f"   {numbers} numbers in {len(small_weights)} weights, 4 timesteps: off by {worst:.0e}")

    print(f"\n4. Training: which of {STEPS} numbers was marked?")
    optimiser = mg.optim.Adam(weights, lr=0.05)
    guess = 1 / 3
    print(f"   answering 0 always has the mean squared error {guess:.3f}, the variance of the numbers")
    for epoch in range(1, EPOCHS + 1):
        optimiser.zero_grad()
        xs, targets = sequences(rng)
        dag = net.unroll(x=xs, target=targets)
        dag.backward()
        mg.optim.clip_grad_norm(weights, 1.0)
        optimiser.step()
        if epoch == 1 or epoch % 25 == 0:
            print(f"   epoch {epoch:3}: {float(dag.output):.4f}")

    print("\n5. Sequences it has not seen")
    xs, targets = sequences(rng)
    with mg.no_grad():
        dag = net.unroll(x=xs, target=targets)
    marks = xs[:, :, 1]
    answers = dag["answer", -1].value
    for i in range(4):
        at = marks[:, i].argmax()
        print(f"   {targets[0, i, 0]:6.3f} was marked at t = {at}   answer {answers[i, 0]:6.3f}")
    print(f"   mean squared error {float(dag.output):.4f}")
    gate = dag.values("forget")
    print("   forget gate of each unit, on average")
    at_the_mark, elsewhere = gate[marks == 1].mean(axis=0), gate[marks == 0].mean(axis=0)
    for where, openings in [("at the mark", at_the_mark), ("elsewhere", elsewhere)]:
        print(f"   {where:12}" + "".join(f"{opening:6.2f}" for opening in openings))
    print(f"   {(at_the_mark > 1.5 * elsewhere).sum()} of {HIDDEN} units open wide at the mark and let the number in")
    assert float(dag.output) < guess / 4


if __name__ == "__main__":
    main()
