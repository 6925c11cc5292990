"""Chapter 13: long memory.

You will see the three tests by which recurrent networks with gates made their name. An LSTM adds two
numbers that lie up to a hundred timesteps back, where a tanh RNN does no better than guessing, and you
see why in the gradients that reach each timestep. A GRU repeats ten symbols after a pause of twenty.
And an LSTM learns a grammar whose last but one symbol depends on the second. A minute or two;
--quick shows in seconds how it goes, but learns nothing.

Sources: S. Hochreiter and J. Schmidhuber, Long short-term memory (1997); the copy test in the form of
M. Arjovsky, A. Shah and Y. Bengio, Unitary evolution recurrent neural networks (2016).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import microgrid as mg

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)
BLUE, ORANGE, GREY = "#33659e", "#c46a00", "#5b6875"

Arrays = dict[str, np.ndarray]


def train(loss: mg.Tensor, data: mg.data.Batches, epochs: int, lr: float, **settings: Any) -> mg.History:
    """Adam whose learning rate falls along a cosine; gradients clipped to norm 1."""
    return mg.fit(
        loss,
        data,
        epochs=epochs,
        optimiser=mg.optim.Adam(mg.Graph(loss).parameters, lr=lr),
        schedule=mg.optim.Cosine(epochs * len(data), floor=0.02),
        clip_norm=1.0,
        progress=sys.stderr.isatty(),
        health=False,  # it would warn of what this chapter shows
        **settings,
    )


def count(network: mg.Graph) -> int:
    return sum(parameter.size for parameter in network.parameters)


def new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no picture: it needs matplotlib)")
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, name: str, what_to_see: str) -> None:
    figure.savefig(OUT / name, dpi=130)
    print(f"   wrote examples/out/{name} ({what_to_see})")


# --- 1. the adding problem ---

ADDING_STEPS = 100


def draw_adding(rng: np.random.Generator, size: int) -> Arrays:
    """Numbers from 0 to 1 and a mark beside two of them, one in each half; the target is the sum of these two."""
    numbers, marks = rng.random((ADDING_STEPS, size)), np.zeros((ADDING_STEPS, size))
    half, each = ADDING_STEPS // 2, np.arange(size)
    first, second = rng.integers(0, half, size), rng.integers(half, ADDING_STEPS, size)
    marks[first, each] = marks[second, each] = 1
    target = numbers[first, each] + numbers[second, each]
    x = np.stack([numbers, marks], axis=2).astype(np.float32)
    return {"x": x, "target": np.broadcast_to(target[:, None].astype(np.float32), (ADDING_STEPS, size, 1))}


def adding_network(layer: Callable[..., mg.nn.Module], hidden: int, seed: int) -> mg.Graph:
    rng = np.random.default_rng(seed)
    x = mg.input(np.zeros((1, 2), np.float32), name="x", requires_grad=False)
    target = mg.input(np.zeros((1, 1), np.float32), name="target", requires_grad=False)
    h = layer(2, hidden, rng=rng)(x)
    answer = mg.nn.Linear(hidden, 1, rng=rng)(mg.last(h))  # one answer, after the last timestep
    return mg.Graph(loss=mg.nn.mse(answer, mg.last(target)))


def gradient_norms(network: mg.Graph, sequences: Arrays) -> np.ndarray:
    """The norm of the gradient of the loss by all states, at each timestep, as a share of that at the last."""
    dag = network.unroll(sequences)
    dag.backward()
    squares = sum(np.sum(np.square(dag.grads(state.next), dtype=float), axis=(1, 2)) for state in network.states)
    return np.sqrt(squares / squares[-1])


def adding(seed: int, quick: bool) -> None:
    print(f"\n1. The adding problem, {ADDING_STEPS} timesteps")
    print("   Two of the numbers are marked. What is their sum? To know it at the end, a network must carry the")
    print("   first on, for up to 99 timesteps. Always to say 1 has a mean squared error of 1/6 = 0.167.")
    began = perf_counter()
    epochs, batches = (2, 10) if quick else (20, 100)
    networks = {
        "LSTM": adding_network(mg.nn.LSTM, 16, seed),
        "tanh RNN": adding_network(mg.nn.RNN, 16, seed),
        "wider tanh RNN": adding_network(mg.nn.RNN, 34, seed),  # with as many parameters as the LSTM
    }
    rates = {"LSTM": 0.02, "tanh RNN": 0.002, "wider tanh RNN": 0.002}
    unseen = draw_adding(np.random.default_rng([seed, 1_000_000]), 1000)
    few = draw_adding(np.random.default_rng([seed, 2_000_000]), 20)
    before, after, curves = {}, {}, {}
    chance = float(np.mean((unseen["target"] - 1) ** 2))
    print(f"   {'':40}{'gradient left at timestep 0':>34}")
    print(f"   {'':16}{'units':>6}{'parameters':>12}{'test error':>12}{'untrained':>14}{'trained':>14}{'seconds':>9}")
    print(f"   {'always 1':16}{'':18}{chance:12.4f}")
    for name, network in networks.items():
        start = perf_counter()
        before[name] = gradient_norms(network, few)
        data = mg.data.Drawn(lambda rng: draw_adding(rng, 20), batches, seed)
        curves[name] = train(network.outputs[0], data, epochs, rates[name], validation=unseen)["validation loss"]
        after[name] = gradient_norms(network, few)
        sizes = f"{network.states[0].shape[1]:6}{count(network):12,}"
        left = f"{before[name][0]:14.0e}{after[name][0]:14.0e}"
        print(f"   {name:16}{sizes}{curves[name][-1]:12.4f}{left}{perf_counter() - start:9.0f}")
    print(f"   All: {epochs * batches:,} batches of 20 sequences, each drawn for the occasion; tested on 1,000 others.")
    print("   Untrained, both lose the gradient on its way back. The LSTM finds in what is left that it pays to keep")
    print("   its forget gates open; from then on the gradient passes whole, and learning is quick. The RNN has no")
    print("   gates to open, and no training helps; learning rates of 0.0005 and 0.02 fare no better than this 0.002.")
    print(f"   {perf_counter() - began:.0f} seconds")
    if not quick:
        assert curves["LSTM"][-1] < 0.01
    figure = new_figure(10, 4.2)
    if figure is not None:
        learning, gradients = figure.subplots(1, 2)
        colours = {"LSTM": BLUE, "tanh RNN": ORANGE}
        steps = batches * np.arange(1, epochs + 1)
        learning.axhline(chance, color=GREY, ls=":", label="always 1")
        for name, colour in colours.items():
            learning.semilogy(steps, curves[name], color=colour, label=name)
            gradients.semilogy(before[name], color=colour, ls="--", label=f"{name}, untrained")
            gradients.semilogy(after[name], color=colour, label=f"{name}, trained")
        learning.set(xlabel="batches", ylabel="mean squared error, unseen sequences", title="Learning to add")
        gradients.set(xlabel="timestep", ylabel="share of the last timestep's", title="Norm of the gradient")
        for axes in (learning, gradients):
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
        save(
            figure,
            "13_adding.png",
            "how long the LSTM waits before it learns; where its error is felt",
        )


# --- 2. copy memory ---

DELAY, SYMBOLS, KINDS = 20, 10, 8
BLANK, GO = KINDS, KINDS + 1


def draw_copy(rng: np.random.Generator, size: int) -> Arrays:
    """Ten symbols, blanks, and the signal to repeat them; the target is blank until then."""
    symbols = rng.integers(0, KINDS, (SYMBOLS, size))
    x = np.full((DELAY + 2 * SYMBOLS, size), BLANK)
    target = x.copy()
    x[:SYMBOLS], x[-SYMBOLS - 1] = symbols, GO
    target[-SYMBOLS:] = symbols
    return {"x": x, "target": target}


def copying(seed: int, quick: bool) -> None:
    print(f"\n2. Copy memory: {SYMBOLS} symbols of {KINDS} kinds, a delay of {DELAY} timesteps, and then from memory")
    example = draw_copy(np.random.default_rng(seed), 1)
    show = "abcdefgh.!"
    print(f"   in  {''.join(show[token] for token in example['x'][:, 0])}")
    print(f"   out {''.join(show[token] for token in example['target'][:, 0])}")
    memoryless = SYMBOLS * np.log(KINDS) / (DELAY + 2 * SYMBOLS)
    print("   Who knows when to answer but remembers nothing has a cross-entropy of 10·log(8)/(20 + 20)")
    print(f"   = {memoryless:.3f}, and one symbol of {KINDS} right.")
    began = perf_counter()
    hidden = 128
    rng = np.random.default_rng(seed)
    gru = mg.nn.GRU(32, hidden, reset_after=False, rng=rng)
    gru.named_parameters()["gru.b"].value[hidden : 2 * hidden] = 2  # the update gate: to begin with, keep the state
    x, target = mg.input(np.zeros(1, int), name="x"), mg.input(np.zeros(1, int), name="target")
    h = gru(mg.nn.Embedding(KINDS + 2, 32, rng=rng)(x))
    logits = mg.nn.Linear(hidden, KINDS + 1, rng=rng)(h)
    loss = mg.nn.cross_entropy(logits, target)
    recalled = mg.nn.accuracy(logits, target, ignore_index=BLANK)  # only symbols count
    epochs, batches = (2, 5) if quick else (30, 100)
    unseen = draw_copy(np.random.default_rng([seed, 1_000_000]), 1000)
    data = mg.data.Drawn(lambda rng: draw_copy(rng, 20), batches, seed)
    history = train(loss, data, epochs, 0.01, validation=unseen, metrics={"recalled": recalled})
    print(f"   GRU, {hidden} units, {count(mg.Graph(loss)):,} parameters, {epochs * batches:,} batches of 20")
    print("   On 1,000 unseen sequences:")
    print(f"   cross-entropy {history['validation loss'][-1]:.4f}")
    print(f"   symbols recalled {history['validation recalled'][-1]:.2%}")
    print(f"   {perf_counter() - began:.0f} seconds")
    if not quick:
        assert history["validation recalled"][-1] > 0.99
    figure = new_figure(10, 4.2)
    if figure is not None:
        learning, recall = figure.subplots(1, 2)
        steps = batches * np.arange(1, epochs + 1)
        learning.axhline(memoryless, color=GREY, ls=":", label="memoryless")
        learning.semilogy(steps, history["validation loss"], color=BLUE, label="GRU")
        learning.set(xlabel="batches", ylabel="cross-entropy, unseen sequences", title="Learning to copy")
        recall.axhline(100 / KINDS, color=GREY, ls=":", label="memoryless")
        recall.plot(steps, 100 * history["validation recalled"], color=BLUE, label="GRU")
        recall.set(xlabel="batches", ylabel="% of the symbols", title="Recalled", ylim=(0, 104))
        learning.legend(frameon=False)
        for axes in (learning, recall):
            axes.grid(alpha=0.25)
        save(figure, "13_copy.png", "below the dotted line it remembers, symbol after symbol")


# --- 3. the embedded Reber grammar ---

LETTERS = "BTPSXVE"
REBER = [  # from each node, the letters that may come and the nodes they lead to
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
]


def draw_string(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A string of the embedded grammar, and what may follow each of its letters but the last."""
    outer = "TP"[rng.integers(2)]
    string, legal, node = "B" + outer, ["TP", "B"], 0
    while node < len(REBER):
        choices = list(REBER[node])
        string += choices[rng.integers(len(choices))]
        node = REBER[node][string[-1]]
        legal.append("".join(REBER[node]) if node < len(REBER) else outer)
    return f"{string}{outer}E", [*legal, "E"]


def tokens(string: str) -> np.ndarray:
    return np.array([LETTERS.index(letter) for letter in string])


def reber_network(layer: Callable[..., mg.nn.Module], hidden: int, seed: int) -> mg.Graph:
    rng = np.random.default_rng(seed)
    x, target = mg.input(np.zeros(1, int), name="x"), mg.input(np.zeros(1, int), name="target")
    one_hot = mg.tensor(np.eye(len(LETTERS), dtype=np.float32))
    h = layer(len(LETTERS), hidden, rng=rng)(one_hot[x])
    logits = mg.nn.Linear(hidden, len(LETTERS), rng=rng)(h)
    return mg.Graph(next=mg.softmax(logits), loss=mg.nn.cross_entropy(logits, target))


def reber(seed: int, quick: bool) -> None:
    print("\n3. The embedded Reber grammar: which letters may come next?")
    rng = np.random.default_rng(seed)
    training = [draw_string(rng)[0] for _ in range(100 if quick else 1000)]
    unseen: dict[str, list[str]] = {}
    while len(unseen) < 1000:
        string, legal = draw_string(rng)
        if string not in training:
            unseen[string] = legal
    first, legal = next(iter(unseen.items()))
    print(f"   {'string':11}" + "".join(f"{letter:>3}" for letter in first))
    print(f"   {'what may be':11}" + "".join(f"{letters:>3}" for letters in ["B", *legal]))
    print("   Inside is a walk through Reber's grammar; around it the same letter twice, T or P. To predict the")
    print("   last but one, a network must remember the second, however long the walk was.")

    length = [len(string) for string in unseen]
    print(f"   {len(training):,} strings to learn from, {len(set(training))} of them different; 1,000 different ones")
    print(f"   to be tested on, of {min(length)} to {max(length)} letters, none of which is among the former.")
    print("   A step is right if every letter that may come is more probable than every one that may not; a")
    print("   string, if all its steps are.")
    began = perf_counter()
    strings = [tokens(string) for string in training]
    data = mg.data.Buckets({"x": [s[:-1] for s in strings], "target": [s[1:] for s in strings]}, 20, seed=seed)
    x, lengths = mg.data.pad([tokens(string)[:-1] for string in unseen])
    may_come = np.zeros((*x.shape, len(LETTERS)), bool)
    for i, sets in enumerate(unseen.values()):
        for t, letters in enumerate(sets):
            may_come[t, i, tokens(letters)] = True
    past_end = np.arange(len(x))[:, None] >= lengths
    remembers = np.arange(len(x))[:, None] == lengths - 2
    epochs = 2 if quick else 20
    networks = {"LSTM": reber_network(mg.nn.LSTM, 32, seed), "tanh RNN": reber_network(mg.nn.RNN, 32, seed)}
    rates = {"LSTM": 0.02, "tanh RNN": 0.005}
    predicted, solved = {}, {}
    print(f"   {'':10}{'units':>6}{'parameters':>12}{'steps right':>13}{'last but one right':>20}{'strings right':>15}")
    for name, network in networks.items():
        train(network["loss"], data, epochs, rates[name])
        predicted[name] = mg.compile(network["next"], wrt=())(x=x, lengths=lengths).value
        least_legal = np.where(may_come, predicted[name], np.inf).min(axis=2)
        most_illegal = np.where(may_come, -np.inf, predicted[name]).max(axis=2)
        right = (least_legal > most_illegal) | past_end
        solved[name] = right.all(axis=0)
        steps, memory = right[~past_end].mean(), right[remembers].mean()
        sizes = f"{32:6}{count(network):12,}"
        print(f"   {name:10}{sizes}{steps:13.2%}{memory:20.1%}{solved[name].sum():8} / 1000")
    print(f"   {epochs} epochs of {len(data)} batches of 20 strings; {data.padding:.0%} of a batch is padding")
    print(f"   {perf_counter() - began:.0f} seconds")
    if not quick:
        assert solved["LSTM"].all()
    print("   Few strings are longer than 30 letters. Over such distances a tanh RNN that starts orthogonal can")
    print("   learn, too; what gates are worth shows over distances as in section 1.")
    figure = new_figure(10, 3.6)
    if figure is not None:
        chosen = int(np.flatnonzero(lengths == 24)[0])
        string, steps = list(unseen)[chosen], lengths[chosen]
        axes = figure.add_subplot()
        image = axes.imshow(predicted["LSTM"][:steps, chosen].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        t, letter = np.nonzero(may_come[:steps, chosen])
        axes.scatter(t, letter, s=130, facecolors="none", edgecolors=ORANGE, linewidths=1.5, label="may come")
        axes.set_xticks(range(steps), string[:-1])
        axes.set_yticks(range(len(LETTERS)), LETTERS)
        axes.set(xlabel="letter read", ylabel="letter predicted", title="An unseen string, letter by letter")
        figure.colorbar(image, ax=axes, label="probability")
        figure.legend(loc="outside lower right", frameon=False)
        save(figure, "13_reber.png", "the last column but one must be as the second letter: it is")


def main() -> None:
    parser = argparse.ArgumentParser(description="The long-memory tests of the LSTM papers.")
    parser.add_argument("--quick", action="store_true", help="a shortened form: seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default: 0)")
    given = parser.parse_args()
    print(f"Seed {given.seed}, for weights and data")
    if given.quick:
        print("Quick: too short to learn. The numbers and pictures are not those of the full run.")
    adding(given.seed, given.quick)
    copying(given.seed, given.quick)
    reber(given.seed, given.quick)


if __name__ == "__main__":
    main()
