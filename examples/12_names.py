"""Chapter 12: names that nobody has.

You will see an LSTM learn how names are spelled, one character at a time, and then invent some. Every
timestep it is given a letter and asked for the next; what it says is a probability for each letter, and
for the end of the name. How good that is has a number: the negative log likelihood of names it has not
seen, per character, beside that of a table of trigrams. Names of different length share a batch.

Source: A. Graves, Generating sequences with recurrent neural networks (2013).
"""

import argparse
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np

import microgrid as mg

HERE = Path(__file__).parent
OUT = HERE / "out"
OUT.mkdir(exist_ok=True)

SEED = 0
NAMES = (HERE / "data" / "first_names.txt").read_text(encoding="utf-8").split()
LETTERS = mg.data.Vocabulary.of_characters(NAMES, start="^", end="$", padding="_")
START, END = LETTERS.number("^"), LETTERS.number("$")


def buckets(names: list[str], seed: int | None = None) -> mg.data.Buckets:
    """Names in batches of like length: at every timestep a character, and the one that follows it as target."""
    encoded = [LETTERS.encode(name) for name in names]  # with ^ before and $ after
    sequences = {"letter": [each[:-1] for each in encoded], "following": [each[1:] for each in encoded]}
    return mg.data.Buckets(sequences, 64, seed=seed)


def record(units: int) -> tuple[mg.Tensor, mg.Tensor]:
    """The logits of the next character, and the loss."""
    rng = np.random.default_rng(SEED)
    letter, following = mg.input(np.zeros(1, int), name="letter"), mg.input(np.zeros(1, int), name="following")
    network = mg.nn.Sequential(
        mg.nn.Embedding(len(LETTERS), 32, rng=rng),
        mg.nn.LSTM(32, units, rng=rng),
        mg.nn.Dropout(0.4, rng=rng),
        mg.nn.Linear(units, len(LETTERS), rng=rng),
    )
    logits = network(letter).named("logits")
    return logits, mg.nn.cross_entropy(logits, following).named("loss")


def trigram_loss(train: list[str], held_out: list[str]) -> float:
    """Nats per character when each is predicted from the two before it, by counts with one added to each."""
    pairs, triples = Counter[str](), Counter[str]()
    for name in train:
        text = f"^^{name}$"
        triples.update(text[i : i + 3] for i in range(len(name) + 1))
        pairs.update(text[i : i + 2] for i in range(len(name) + 1))
    choices = len({letter for name in NAMES for letter in name}) + 1  # a letter, or the end
    texts = [f"^^{name}$" for name in held_out]
    found = [text[i : i + 3] for text in texts for i in range(len(text) - 2)]
    return -float(np.mean([np.log((triples[each] + 1) / (pairs[each[:2]] + choices)) for each in found]))


def invent(logits: mg.Tensor, count: int, temperature: float) -> list[str]:
    """So many names side by side in one batch, drawn letter by letter, each letter being the next input."""
    start = np.full((count, 1), START)
    never = [START, LETTERS.number("_")]
    drawn = mg.sample(logits, start, steps=20, temperature=temperature, seed=SEED, stop=END, forbid=never)
    return [LETTERS.decode(each) for each in drawn]


def plot(history: mg.History, trigram: float) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no picture of the learning curves: it needs matplotlib)")
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(trigram, color="#5b6875", ls="--", lw=1.3, label="trigrams, held-out names")
    axes.plot(history["epoch"], history["loss"], color="#33659e", label="LSTM, training names, with dropout")
    axes.plot(history["epoch"], history["validation loss"], color="#c46a00", marker="o", ms=3.5, label="held-out names")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    axes.set(xlabel="epoch", ylabel="nats per character", title="Learning to spell: negative log likelihood")
    figure.savefig(OUT / "12_learning.png", dpi=130)
    print("   wrote examples/out/12_learning.png")
    print("   The LSTM passes below the dashed line, the trigrams, while it still learns quickly. Then the loss of the")
    print("   names it learns from goes on falling, and that of the others levels out: more epochs would gain nothing.")


def main() -> None:
    began = perf_counter()
    parser = argparse.ArgumentParser(description="A character LSTM learns names and invents new ones.")
    parser.add_argument("--quick", action="store_true", help="two epochs with a quarter of the names")
    quick = parser.parse_args().quick
    train, held_out = mg.data.split(NAMES, validation=0.1, seed=SEED)
    print(
        f"{len(NAMES)} given names: learn to spell from {len(train)}, test on the other {len(held_out)}. Seed {SEED}."
    )
    if quick:
        train = train[::4]
        print("--quick: two epochs with a quarter of the names, so the numbers are not those of the full run.")
    units, epochs = (64, 2) if quick else (128, 20)

    print("\n1. A batch")
    data = buckets(train, seed=SEED)
    batch = next(data.epoch(0))
    name = LETTERS.decode(batch.inputs["letter"][:, 0])
    print(f"   {batch}; one of them is {name!r}:")
    for which in ("letter", "following"):
        print(f"   {which:10}" + " ".join(LETTERS.symbols[number] for number in batch.inputs[which][:, 0]))
    print(f"   Batches are of like length: {data.padding:.1%} of an epoch is padding.")

    print("\n2. Training")
    logits, loss = record(units)
    net = mg.Graph(loss)
    for cycle in net.cycles:
        print(f"   its cycle: {cycle}")
    print(
        f"   {sum(parameter.size for parameter in net.parameters):,} numbers to learn, {epochs} epochs of {len(data)}"
    )
    history = mg.fit(
        loss,
        data,
        epochs=epochs,
        optimiser=mg.optim.AdamW(net.parameters, lr=8e-3, weight_decay=0.01),
        schedule=mg.optim.Cosine(epochs * len(data)),
        clip_norm=1.0,
        validation=buckets(held_out),
        progress=False if quick else None,
        health=not quick,
    )
    print(f"   {'epoch':>5}{'training names':>17}{'held-out names':>17}   nats per character")
    for row in history:
        if row["epoch"] in (1, 2) or row["epoch"] % 5 == 0:
            print(f"   {row['epoch']:5}{row['loss']:17.3f}{row['validation loss']:17.3f}")
    print(f"   {history['seconds'][-1]:.1f} s. The first column is with dropout, so it is the higher one at first.")

    print("\n3. Names it has not seen")
    trigram, lstm = trigram_loss(train, held_out), float(history["validation loss"][-1])
    for what, nats in {"all letters alike": np.log(27), "trigrams": trigram, f"LSTM, {units} units": lstm}.items():
        print(f"   {what:20}{nats:6.3f} nats per character, as if from {np.exp(nats):4.1f} equally likely ones")
    print("   The end of a name counts as a character. A trigram looks two letters back, the LSTM to the beginning.")
    assert quick or lstm < 1.90 < trigram
    plot(history, trigram)

    print("\n4. Names that nobody has: mg.sample draws a letter from what the network says, and gives it back as input")
    known = set(NAMES)
    for temperature in (0.5, 1.0, 1.5):
        drawn = invent(logits, 200, temperature)
        new = [name for name in dict.fromkeys(drawn) if name and name not in known]
        copied = sum(name in known for name in drawn) / len(drawn)
        print(
            f"   temperature {temperature}: {copied:.0%} of 200 draws are names of the list; the first twenty others:"
        )
        for at in (0, 10):
            print("      " + " ".join(new[at : at + 10]))
    print("   Logits are divided by the temperature: below 1 the likely becomes likelier, and names repeat; above 1")
    print("   the unlikely gets its turn, and spelling goes. At 1 the draws are from what the network has learnt.")
    print(f"\nDone in {perf_counter() - began:.1f} s.")


if __name__ == "__main__":
    main()
