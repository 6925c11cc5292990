"""Chapter 15: a tag for every timestep.

You will see names with letters hidden, and two LSTMs that tag each hidden letter with the one that stood
there: one reads from left to right, the other both ways (bidirectional=True). They have the same number
of parameters, and learn from the same names; a table of what stood between which neighbours is there to
be beaten. Only hidden letters count in the loss (ignore_index).

Source: A. Graves and J. Schmidhuber, Framewise phoneme classification with bidirectional LSTM (2005).
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

SEED, SHARE_HIDDEN = 0, 0.2
NAMES = (HERE / "data" / "first_names.txt").read_text(encoding="utf-8").split()
LETTERS = mg.data.Vocabulary.of_characters(NAMES, unknown="?")
HIDDEN = LETTERS.number("?")  # what stands for a hidden letter, and for "no question here" among the tags
Arrays = list[np.ndarray]


def hide(names: list[str], times: int, seed: int) -> tuple[Arrays, Arrays]:
    """Names with some letters hidden, at least one, and the tags of the hidden ones; each name so many times."""
    rng = np.random.default_rng(seed)
    seen, tags = [], []
    for name in names * times:
        letters = LETTERS.encode(name)
        hidden = rng.random(len(letters)) < SHARE_HIDDEN
        hidden[rng.integers(len(letters))] |= not hidden.any()
        seen.append(np.where(hidden, HIDDEN, letters))
        tags.append(np.where(hidden, letters, HIDDEN))
    return seen, tags


def record(units: int, both_ways: bool) -> mg.Graph:
    """The logits of every letter, and the loss and accuracy over the hidden ones."""
    rng = np.random.default_rng(SEED)
    letter, tag = mg.input(np.zeros(1, int), name="letter"), mg.input(np.zeros(1, int), name="tag")
    network = mg.nn.Sequential(
        mg.nn.Embedding(len(LETTERS), 24, rng=rng),
        mg.nn.LSTM(24, units, bidirectional=both_ways, rng=rng),
        mg.nn.Dropout(0.4, rng=rng),
        mg.nn.Linear(2 * units if both_ways else units, len(LETTERS), rng=rng),
    )
    logits = network(letter)
    return mg.Graph(logits=logits, loss=mg.nn.cross_entropy(logits, tag, ignore_index=HIDDEN))


def read(net: mg.Graph, seen: Arrays) -> Arrays:
    """The logarithm of the probability of each letter at each position of each name: (time, letters) a name."""
    letters, lengths = mg.data.pad(seen)
    found = mg.compile(mg.log_softmax(net["logits"]), wrt=())(letter=letters, lengths=lengths).value
    return [found[:length, i] for i, length in enumerate(lengths)]


def neighbours(letters: np.ndarray) -> list[tuple[int, int]]:
    """What stands left and right of each letter, −1 at the ends of a name."""
    around = np.concatenate([[-1], letters, [-1]]).tolist()
    return list(zip(around[:-2], around[2:], strict=True))


def table(train: tuple[Arrays, Arrays], seen: Arrays) -> Arrays:
    """As `read`, by counts of what was hidden between which neighbours, with one added in all for each pair."""
    overall = np.bincount(np.concatenate(train[1]), minlength=len(LETTERS)).astype(float)
    overall[HIDDEN] = 0
    overall /= overall.sum()
    counts: dict[tuple[int, int], Counter[int]] = {}
    for letters, tags in zip(*train, strict=True):
        for pair, tag in zip(neighbours(letters), tags.tolist(), strict=True):
            if tag != HIDDEN:
                counts.setdefault(pair, Counter())[tag] += 1

    def after_counting(pair: tuple[int, int]) -> np.ndarray:
        found = np.array([counts.get(pair, {}).get(tag, 0) for tag in range(len(LETTERS))]) + overall
        with np.errstate(divide="ignore"):
            return np.log(found / found.sum())

    known = {pair: after_counting(pair) for letters in seen for pair in neighbours(letters)}
    return [np.array([known[pair] for pair in neighbours(letters)]) for letters in seen]


def scores(said: Arrays, tags: Arrays) -> tuple[float, np.ndarray, np.ndarray]:
    """Nats per hidden letter; for each whether the likeliest is right; and its place in the name, from 0 to 1."""
    joined, wanted = np.concatenate(said), np.concatenate(tags)
    place = np.concatenate([np.linspace(0, 1, len(each)) for each in tags])
    asked = wanted != HIDDEN
    nats = -joined[asked, wanted[asked]].mean()
    return float(nats), joined[asked].argmax(axis=1) == wanted[asked], place[asked]


def plot(by_place: dict[str, list[float]], places: list[str], said: dict[str, np.ndarray], name: str) -> None:
    """Left: the share right by place. Right: probabilities (hidden letters, letters) for one name."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no picture of the answers: it needs matplotlib)")
        return
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
    axes = left.add_subplot()
    for (what, shares), colour in zip(by_place.items(), ["#5b6875", "#33659e", "#c46a00"], strict=True):
        axes.plot(places, shares, marker="o", color=colour, label=what)
    axes.set(ylabel="share of hidden letters restored", title="Where in the name the letter was hidden", ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    left.legend(loc="outside lower center", ncols=3, frameon=False)
    panels = right.subplots(len(said), 1)
    alphabet = [i for i in range(len(LETTERS)) if i != HIDDEN]
    rows = [i for i, letter in enumerate(name) if letter.isupper()]
    for axes, (what, values) in zip(panels, said.items(), strict=True):
        shades = axes.imshow(np.exp(values[np.ix_(rows, alphabet)]), cmap="Oranges", vmin=0, vmax=1, aspect="auto")
        axes.set(title=what, xticks=range(len(alphabet)), xticklabels=[LETTERS.symbols[i] for i in alphabet])
        axes.set(yticks=range(len(rows)), yticklabels=[f"{row + 1}. letter: {name[row].lower()}" for row in rows])
        truth = [LETTERS.symbols[alphabet[0] :].index(name[row].lower()) for row in rows]
        axes.plot(truth, range(len(rows)), "s", mfc="none", mec="#33659e", mew=1.5, ms=13)
    hidden = "".join("?" if letter.isupper() else letter for letter in name)
    right.suptitle(f"What stood in {hidden!r}?")
    right.colorbar(shades, ax=panels.tolist(), shrink=0.7, label="probability")
    figure.savefig(OUT / "15_tagger.png", dpi=130)
    print("   wrote examples/out/15_tagger.png")
    print("   Left: of a name's first letter the network that reads from the left has seen nothing yet; it loses")
    print("   least on the last. Right: blue squares stand at the truth; the darker in them, the better.")


def main() -> None:
    began = perf_counter()
    parser = argparse.ArgumentParser(description="Two LSTMs restore hidden letters: one reads one way, one both ways.")
    parser.add_argument("--quick", action="store_true", help="one epoch with a quarter of the names")
    quick = parser.parse_args().quick
    train_names, test_names = mg.data.split(NAMES, validation=0.1, seed=SEED)
    times, epochs = (2, 1) if quick else (4, 8)
    print(f"{len(NAMES)} given names with a fifth of the letters hidden: restore them. Seed {SEED}.")
    if quick:
        train_names = train_names[::4]
        print("--quick: one epoch with a quarter of the names, so the numbers are not those of the full run.")

    print("\n1. A tag for every timestep")
    train, test = hide(train_names, times, seed=SEED), hide(test_names, 4, seed=SEED + 1)
    for what, numbers in {"letter": train[0][0], "tag": train[1][0]}.items():
        print(f"   {what:7}" + " ".join(LETTERS.symbols[number] for number in numbers))
    print(f"   Training: {len(train_names)} names, {times} times each with other letters hidden.")
    print(f"   Test: the other {len(test_names)}, 4 times each. The tag ? where nothing is hidden does not count.")

    print("\n2. Training")
    networks = {"forwards only": record(73, both_ways=False), "both ways": record(48, both_ways=True)}
    data = mg.data.Buckets({"letter": train[0], "tag": train[1]}, 64, seed=SEED)
    for what, net in networks.items():
        directions = " and ".join("backwards" if cycle.reverse else "forwards" for cycle in net.cycles)
        history = mg.fit(
            net["loss"],
            data,
            epochs=epochs,
            optimiser=mg.optim.AdamW(net.parameters, lr=8e-3),
            schedule=mg.optim.Cosine(epochs * len(data)),
            clip_norm=1.0,
            progress=False if quick else None,
            health=not quick,
        )
        size = sum(parameter.size for parameter in net.parameters)
        print(f"   {what}: {size:,} numbers to learn, a cycle {directions}, {history['seconds'][-1]:.1f} s,", end=" ")
        print(f"loss {history['loss'][0]:.3f} → {history['loss'][-1]:.3f}")

    print("\n3. Names they have not seen")
    said = {"table of neighbours": table(train, test[0])} | {what: read(net, test[0]) for what, net in networks.items()}
    found = {what: scores(each, test[1]) for what, each in said.items()}
    commonest = Counter(np.concatenate(train[1]).tolist()) - Counter({HIDDEN: 10**9})
    ((common, _),) = commonest.most_common(1)
    wanted = np.concatenate(test[1])
    wanted = wanted[wanted != HIDDEN]
    print(f"   {len(wanted)} hidden letters{'':8}restored   nats per hidden letter")
    print(f"   always {LETTERS.symbols[common]!r:17}{np.mean(wanted == common):10.1%}")
    for what, (nats, right, _) in found.items():
        print(f"   {what:24}{right.mean():10.1%}{nats:12.3f}")
    nats = {what: each[0] for what, each in found.items()}
    assert quick or nats["both ways"] < nats["table of neighbours"] < nats["forwards only"]

    print("\n4. Where they know, and where they guess")
    places = ["first", "first half", "second half", "last"]
    by_place = {}
    for what, (_, right, place) in found.items():
        where = np.digitize(place, [1e-9, 0.5, 1 - 1e-9])
        by_place[what] = [float(right[where == i].mean()) for i in range(len(places))]
    print(f"   {'':24}" + "".join(f"{place:>14}" for place in places))
    for what, shares in by_place.items():
        print(f"   {what:24}" + "".join(f"{share:14.0%}" for share in shares))
    first = next(i for i, tags in enumerate(test[1]) if np.sum(tags != HIDDEN) == 3)
    pairs = zip(test[0][first], test[1][first], strict=True)
    name = "".join(LETTERS.symbols[b].upper() if a == HIDDEN else LETTERS.symbols[a] for a, b in pairs)
    print(f"   The first with three hidden letters, not a chosen one, is {LETTERS.decode(test[0][first])!r}:")
    for what in networks:
        best = np.where(test[0][first] == HIDDEN, said[what][first].argmax(axis=1), test[0][first])
        print(f"      {what:16}{LETTERS.decode(best)}")
    print(f"      {'truth':16}{name.lower()}")
    plot(by_place, places, {what: said[what][first] for what in networks}, name)
    print(f"\nDone in {perf_counter() - began:.1f} s.")


if __name__ == "__main__":
    main()
