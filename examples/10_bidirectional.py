"""Chapter 10: there and back.

You will see a network that reads its sequence from both ends: one state runs forwards in time, one
backwards (reverse=True), and both meet in the answer. It fills in what is missing in the middle of a
sequence, where a network that only looks back must guess. Sequences of different lengths share a
batch, and each is read from its own end.

Source: M. Schuster and K. K. Paliwal, Bidirectional recurrent neural networks (1997).
"""

from pathlib import Path

import numpy as np

import microgrid as mg
import viz

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

LONGEST, SHORTEST, BATCH, EPOCHS = 16, 8, 32, 600
GAP = 3  # numbers that are hidden
MEMORY = 0.9  # each number is 0.9 times the one before it plus noise, with variance 1


def record(rng: np.random.Generator, forward: int, backward: int) -> mg.Graph:
    """A network with so many units that run forwards in time, and backwards; no backward ones if 0."""
    x = mg.input(np.zeros((BATCH, 2)), name="x", requires_grad=False)
    hidden = mg.input(np.ones((BATCH, 1)), name="hidden", requires_grad=False)
    target = mg.input(np.zeros((BATCH, 1)), name="target", requires_grad=False)

    def reader(size: int, name: str, reverse: bool) -> mg.Tensor:
        W = mg.parameter(rng.normal(size=(2, size)) / 2, name=f"W{name}")
        U = mg.parameter(rng.normal(size=(size, size)) / (2 * np.sqrt(size)), name=f"U{name}")
        V = mg.parameter(rng.normal(size=(size, 1)) / np.sqrt(size), name=f"V{name}")
        h = mg.state(np.zeros((BATCH, size)), name=name, reverse=reverse)
        h.next = mg.tanh(x @ W + h @ U)
        return h.next @ V

    answer = reader(forward, "f", reverse=False)
    if backward:
        answer = answer + reader(backward, "b", reverse=True)
    answer = answer.named("answer")
    errors = mg.time_sum(mg.sum(hidden * (answer - target) ** 2))
    return mg.Graph(answer=answer, loss=errors / mg.time_sum(mg.sum(hidden)))


def sequences(rng: np.random.Generator, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Numbers that remember the one before them, a gap in each; and how many there are in each sequence."""
    lengths = rng.integers(SHORTEST, LONGEST + 1, size=batch)
    numbers = rng.normal(size=(LONGEST, batch, 1))
    for t in range(1, LONGEST):
        numbers[t] = MEMORY * numbers[t - 1] + np.sqrt(1 - MEMORY**2) * numbers[t]
    gap_at = rng.integers(1, lengths - GAP)  # a number at least on either side
    since = np.arange(LONGEST)[:, None] - gap_at
    hidden = ((since >= 0) & (since < GAP)).astype(float)[:, :, None]
    x = np.concatenate([numbers * (1 - hidden), hidden], axis=2)
    return {"x": x, "hidden": hidden, "target": numbers}, lengths


def starts(net: mg.Graph, batch: int) -> dict[str, np.ndarray]:
    """Where the states start in a batch of another size than the recorded one."""
    return {state.name: np.zeros((batch, state.shape[1])) for state in net.states}


def least_error(numbers: np.ndarray, hidden: np.ndarray, seen: list[int]) -> float:
    """The mean squared error in the gap of the best answer there is, given its neighbours `seen`.

    0 is the number before the gap and GAP + 1 that after it. Numbers further away tell nothing more.
    """
    covariance = MEMORY ** np.abs(np.subtract.outer(np.arange(GAP + 2), np.arange(GAP + 2)))
    gap = list(range(1, GAP + 1))
    weights = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, gap)])
    before = hidden[:, :, 0].argmax(axis=0) - 1
    around = numbers[before + np.arange(GAP + 2)[:, None], np.arange(numbers.shape[1]), 0]  # (GAP + 2, batch)
    return float(np.mean((around[seen].T @ weights - around[gap].T) ** 2))


def main() -> None:
    rng = np.random.default_rng(0)
    networks = {"forwards only": record(rng, 16, 0), "both ways": record(rng, 10, 10)}

    print("1. Two cycles, one in each direction of time")
    both = networks["both ways"]
    for cycle in both.cycles:
        print(f"   {'backwards' if cycle.reverse else 'forwards '}  {cycle}")
    picture = mg.Graph(both["answer"])
    viz.draw(picture).save(OUT / "10_rolled.svg")
    viz.draw(picture.unroll(steps=4)).save(OUT / "10_unrolled.svg")
    print("   wrote examples/out/10_rolled.svg (t−1 goes round one way, t+1 the other)")
    print("   wrote examples/out/10_unrolled.svg (every answer sees the whole sequence)")

    print("\n2. Different lengths in one batch")
    programs = {name: mg.compile(net) for name, net in networks.items()}
    fill_in = programs["both ways"]
    batch, lengths = sequences(rng, 4)
    together = fill_in(batch, lengths=lengths, initial=starts(both, 4)).outputs["answer"]
    print(f"   lengths {lengths.tolist()}, of {LONGEST} rows: the backward state starts at each sequence's own end")
    worst = 0.0
    for i, length in enumerate(lengths):
        one = {name: array[:length, i : i + 1] for name, array in batch.items()}
        alone = fill_in(one, initial=starts(both, 1)).outputs["answer"]
        worst = max(worst, float(np.abs(together[:length, i : i + 1] - alone).max()))
    print(f"   each sequence alone, without the rows past its end: the answers differ by {worst:.0e} at most")
    assert worst < 1e-12

    print(f"\n3. Training: fill in {GAP} numbers of {SHORTEST} to {LONGEST}")
    for name, net in networks.items():
        print(f"   {name}: {sum(parameter.size for parameter in net.parameters)} parameters")
    optimisers = {name: mg.optim.Adam(net.parameters, lr=0.01) for name, net in networks.items()}
    print(f"   {'epoch':>5}" + "".join(f"{name:>16}" for name in networks))
    for epoch in range(1, EPOCHS + 1):
        batch, lengths = sequences(rng, BATCH)
        losses = []
        for name, adam in optimisers.items():
            adam.zero_grad()
            run = programs[name](batch, lengths=lengths)
            run.backward()  # adds the gradients to .grad, where optimisers look
            mg.optim.clip_grad_norm(adam.parameters, 1.0)
            adam.step()
            losses.append(float(run.outputs["loss"]))
        if epoch == 1 or epoch % 150 == 0:
            print(f"   {epoch:5}" + "".join(f"{loss:16.3f}" for loss in losses))

    print("\n4. Sequences they have not seen")
    batch, lengths = sequences(rng, 1000)
    runs = {
        name: mg.compile(net, wrt=())(batch, lengths=lengths, initial=starts(net, len(lengths)))
        for name, net in networks.items()
    }
    errors = {name: float(run.outputs["loss"]) for name, run in runs.items()}
    numbers, hidden = batch["target"], batch["hidden"]
    past, around = least_error(numbers, hidden, [0]), least_error(numbers, hidden, [0, GAP + 1])
    print(f"   {'mean squared error in the gap':32}{'network':>9}{'best possible':>15}")
    print(f"   {'forwards only':32}{errors['forwards only']:9.3f}{past:15.3f}")
    print(f"   {'both ways':32}{errors['both ways']:9.3f}{around:15.3f}")
    print("   The best possible answers are known, for these numbers are drawn from a known distribution. The")
    print("   network that only looks back comes close to all that the past can tell, and no training would make")
    print("   it as good as the one that reads both ways.")
    assert errors["both ways"] < past
    assert around < errors["both ways"]
    assert past < errors["forwards only"]

    print("\n5. One gap, number by number (the first sequence, not a chosen one: noise stays noise)")
    before = int(hidden[:, 0, 0].argmax()) - 1
    rows = range(before, before + GAP + 2)
    print(f"   {'t':14}" + "".join(f"{t:8}" for t in rows))
    print(f"   {'truth':14}" + "".join(f"{numbers[t, 0, 0]:8.2f}" for t in rows))
    for name, found in runs.items():
        answers = found.outputs["answer"]
        print(f"   {name:14}" + "".join(f"{answers[t, 0, 0]:8.2f}" if hidden[t, 0, 0] else "    seen" for t in rows))


if __name__ == "__main__":
    main()
