"""What was measured, as Markdown and as a picture, and whether the bounds that we set ourselves hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from .cases import SIZES, Case, Size
from .engines import ENGINES, TEXTBOOK
from .measuring import Footprint, Measured

Results: TypeAlias = dict[Case, dict[str, Measured]]
"""Case → engine's key → what it took."""

SMALL, LARGE = SIZES[:4], SIZES[4:]
NOTHING = "–"
Number: TypeAlias = Callable[[Measured], float]


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    names = list(header)
    rules = ["---", *["---:"] * (len(names) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rules, *map(list, lines)))


def milliseconds(seconds: float) -> str:
    """Three digits, as far as they are worth showing."""
    ms = 1e3 * seconds
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def cells_in(results: Results) -> list[str]:
    """The cells, in the order they were measured."""
    return list(dict.fromkeys(case.cell for case in results))


def keys_in(results: Results, cell: str) -> list[str]:
    """The engines that ran a cell at any size, in the order of the columns."""
    ran = {key for case, measured in results.items() if case.cell == cell for key in measured}
    return [key for key in ENGINES if key in ran]


def ratios(results: Results, cell: str, key: str, to: str, sizes: Iterable[Size] = SIZES) -> dict[Size, float]:
    """Size → an engine's time ÷ that of another, where both ran: the median over rounds, each of which compares times
    of the same second, for the machine is not equally fast at all times."""
    pairs = {size: results.get(Case(cell, size), {}) for size in sizes}
    return {size: ratio(m[key], m[to]) for size, m in pairs.items() if key in m and to in m}


def ratio(one: Measured, two: Measured) -> float:
    """The median over all rounds."""
    return statistics.median(a / b for a, b in zip(one.rounds, two.rounds, strict=True))


def geometric_mean(numbers: Mapping[Size, float]) -> float:
    """Over all sizes."""
    return statistics.geometric_mean(numbers.values())


def steady_table(results: Results, cell: str, to: str) -> str:
    """ms of one step, and in brackets how many times those of the engine `to`; geometric means below."""
    keys = keys_in(results, cell)
    relative = {key: ratios(results, cell, key, to) for key in keys}

    def shown(measured: dict[str, Measured], key: str, size: Size) -> str:
        if key not in measured:
            return NOTHING
        against = f" ({relative[key][size]:.2f})" if size in relative[key] and key != to else ""
        return milliseconds(measured[key].steady) + against

    lines = [
        [str(case.size), *(shown(measured, key, case.size) for key in keys)]
        for case, measured in results.items()
        if case.cell == cell
    ]
    means = [f"{geometric_mean(relative[key]):.2f}" if relative[key] else NOTHING for key in keys]
    header = [f"{cell}: T,B,I,H", *(ENGINES[key].title for key in keys)]
    return markdown(header, [*lines, [f"geometric mean ÷ {ENGINES[to].title}", *means]])


def plain_table(results: Results, cell: str, what: str, number: Number) -> str:
    """ms of something else than a step, for the engines that compute gradients."""
    keys = [key for key in keys_in(results, cell) if ENGINES[key].computes_gradients]
    lines = [
        [str(case.size), *(milliseconds(number(measured[key])) if key in measured else NOTHING for key in keys)]
        for case, measured in results.items()
        if case.cell == cell
    ]
    return markdown([f"{cell}: {what}", *(ENGINES[key].title for key in keys)], lines)


def beyond_one_run(measured: Measured) -> float:
    """Compilation and first run, less one run."""
    return measured.first - measured.steady


def report(results: Results) -> str:
    """All tables and the bounds."""
    parts = []
    for cell in cells_in(results):
        keys = keys_in(results, cell)
        if not keys:
            continue
        parts.append(f"## {cell}")
        compared = [key for key in ("fused", "microgrid", "numpy") if key in keys] or keys[:1]
        for to in compared:
            parts.append(f"ms of one step, forward and backward (÷ {ENGINES[to].title})")
            parts.append(steady_table(results, cell, to))
        parts.append("ms to the first gradient, from the written model, compilation included; then without one step")
        parts.append(plain_table(results, cell, "to the first gradient", lambda measured: measured.first))
        parts.append(plain_table(results, cell, "compile + first run − one run", beyond_one_run))
    parts.append("## Bounds\n\n" + "\n".join(bounds(results)))
    return "\n\n".join(parts)


# --- bounds ----------------------------------------------------------------------------------------


def bounds(results: Results) -> list[str]:
    """One line per bound: what it says, what was measured, whether it holds."""

    def at_most(statement: str, found: Mapping[Size, float], limit: float) -> str:
        if not found:
            return f"- {statement}: not measured"
        worst = max(found, key=lambda size: found[size])
        return f"- {statement}: {verdict(found[worst] <= limit)}, worst {found[worst]:.2f} at {worst}"

    def at_least(statement: str, found: Mapping[Size, float], limit: float) -> str:
        if not found:
            return f"- {statement}: not measured"
        worst = min(found, key=lambda size: found[size])
        mean = geometric_mean(found)
        holds = verdict(found[worst] >= limit)
        return f"- {statement}: {holds}, worst {found[worst]:.2f} at {worst}, geometric mean {mean:.2f}"

    def mean_at_least(statement: str, found: Mapping[Size, float], limit: float) -> str:
        if not found:
            return f"- {statement}: not measured"
        mean = geometric_mean(found)
        return f"- {statement}: {verdict(mean >= limit)}, geometric mean {mean:.2f}"

    def speedup(cell: str, peer: str, sizes: Iterable[Size] = SIZES) -> dict[Size, float]:
        return ratios(results, cell, peer, "microgrid", sizes)

    lines = fused_bounds(results, at_least, at_most)
    for cell in ("RNN", "LSTM"):
        found = ratios(results, cell, "microgrid", "numpy")
        lines.append(at_most(f"{cell}: at most 1.05 × NumPy by hand, at every size", found, 1.05))
    names = " and ".join(map(str, LARGE))
    lines.append(
        at_least("RNN: 4 × as fast as torch.nn at the four smaller sizes", speedup("RNN", "torch.nn", SMALL), 4)
    )
    lines.append(at_least(f"RNN: 1.5 × as fast as torch.nn at {names}", speedup("RNN", "torch.nn", LARGE), 1.5))
    for cell in ("RNN", "LSTM", "GRU"):
        lines.append(mean_at_least(f"{cell}: ahead of jax.lax.scan in the geometric mean", speedup(cell, "jax"), 1))
    alone, batches = [size for size in SIZES if size.batch == 1], [size for size in SIZES if size.batch > 1]
    for cell in ("LSTM", "GRU"):
        lines.append(at_least(f"{cell}: ahead of torch.nn at batch 1", speedup(cell, "torch.nn", alone), 1))
        found = ratios(results, cell, "microgrid", "torch.nn", batches)
        lines.append(at_most(f"{cell}: within 1.8 × torch.nn at larger batches", found, 1.8))
    for peer in ("torch-loop", "torch-compile"):
        found = speedup("peephole", peer)
        lines.append(at_least(f"peephole: 3 × as fast as {ENGINES[peer].title}, at every size", found, 3))
        floor = ratios(results, "peephole", peer, "gemms")
        if floor:
            each = ", ".join(f"{ratio:.1f}" for ratio in floor.values())
            lines.append(f"- peephole: {ENGINES[peer].title} ÷ GEMMs alone, the most that is possible: {each}")
    for cell in cells_in(results):
        found = {
            case.size: 1e3 * beyond_one_run(measured["microgrid"])
            for case, measured in results.items()
            if case.cell == cell and "microgrid" in measured
        }
        lines.append(at_most(f"{cell}: compile + first run − one run at most 50 ms", found, 50))
    return lines


Bound: TypeAlias = Callable[[str, Mapping[Size, float], float], str]


def fused_bounds(results: Results, at_least: Bound, at_most: Bound) -> list[str]:
    """What the LLVM executor was asked to reach; nothing where it was not measured."""
    if not any("fused" in measured for measured in results.values()):
        return []
    lines: list[str] = []
    alone, middle, large = SIZES[:2], SIZES[2:3], (SIZES[3], SIZES[5])

    def faster(cells: Iterable[str], peer: str, sizes: Iterable[Size], limit: float) -> None:
        names = ", ".join(map(str, sizes))
        for cell in cells:
            found = ratios(results, cell, peer, "fused", sizes)
            lines.append(at_least(f"fused {cell}: {limit} × as fast as {ENGINES[peer].title} at {names}", found, limit))

    faster(("RNN", "LSTM", "GRU"), "torch.nn", alone, 4)
    faster(("RNN", "LSTM", "GRU"), "jax", alone, 1.8)
    for peer in ("torch.nn", "jax"):
        faster(("LSTM", "GRU"), peer, middle, 2)
    faster(("LSTM", "GRU"), "torch.nn", large, 1.1)
    faster(("LSTM", "GRU"), "torch.nn", SIZES[4:5], 1)
    faster(("LSTM", "GRU"), "jax", SIZES, 1.5)
    for peer in ("microgrid", "numpy", "torch.nn", "torch-loop", "jax", "autograd"):
        faster(("RNN",), peer, SIZES, 1)
    for cell in TEXTBOOK:
        found = ratios(results, cell, "fused", "gemms", [size for size in SIZES if size.hidden >= 128])
        lines.append(at_most(f"fused {cell}: within 1.3 × of the GEMMs alone from H = 128 on", found, 1.3))
    for cell in ("peephole", "layer-norm", "coupled"):
        plain = {size: results.get(Case("LSTM", size), {}) for size in SIZES}
        own = {size: results.get(Case(cell, size), {}) for size in SIZES}
        beside = {
            size: own[size]["fused"].steady / plain[size]["fused"].steady
            for size in SIZES
            if "fused" in own[size] and "fused" in plain[size]
        }
        lines.append(at_most(f"fused {cell}: within 1.25 × of the plain LSTM", beside, 1.25))
        for peer in ("torch-loop", "torch-compile"):
            faster((cell,), peer, SIZES, 5)
    return lines


def verdict(holds: bool) -> str:
    """In bold what needs attention."""
    return "holds" if holds else "**does not hold**"


# --- other modes -----------------------------------------------------------------------------------


def mebibytes(size: int) -> str:
    """Bytes in MiB."""
    return f"{size / 2**20:,.1f}"


def memory_table(found: dict[Case, dict[str, Footprint]]) -> str:
    """Peak memory beyond model and inputs: of the process, and NumPy's arrays alone."""
    lines = [
        [f"{case.cell} {case.size}", title, mebibytes(print_.resident), mebibytes(print_.arrays)]
        for case, prints in found.items()
        for title, print_ in prints.items()
    ]
    return markdown(["case", "engine", "process, MiB", "arrays, MiB"], lines)


def lengths_table(found: dict[Case, dict[str, Footprint]]) -> str:
    """Time and memory over the length of the sequence; both per timestep, too."""
    lines = [
        [
            f"{case.size.time:,} {title}",
            milliseconds(print_.steady),
            f"{1e6 * print_.steady / case.size.time:.1f}",
            mebibytes(print_.resident),
            f"{print_.resident / 2**10 / case.size.time:.1f}",
        ]
        for case, prints in found.items()
        for title, print_ in prints.items()
    ]
    return markdown(["timesteps", "ms", "µs per timestep", "peak, MiB", "KiB per timestep"], lines)


def plot(results: Results, path: Path) -> None:
    """One panel per cell: every engine's time ÷ microgrid's (or else the first engine's), per size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    cells = cells_in(results)
    columns, rows = min(3, len(cells)), -(-len(cells) // 3)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.9 * rows + 0.6), sharey=True, squeeze=False)
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    colours = {key: f"C{number}" for number, key in enumerate(ENGINES)}
    for axis, cell in zip(axes.flat, cells, strict=False):
        keys = keys_in(results, cell)
        to = next((key for key in ("fused", "microgrid") if key in keys), keys[0])
        sizes = [case.size for case in results if case.cell == cell]
        for key in keys:
            found = ratios(results, cell, key, to)
            places = [sizes.index(size) for size in found]
            style = {"color": colours[key], "marker": "o", "markersize": 4, "label": ENGINES[key].title}
            axis.plot(places, list(found.values()), **style)
        axis.set_yscale("log")
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes], rotation=40, ha="right", fontsize=8)
        axis.set_title(f"{cell}: time ÷ {ENGINES[to].title}")
        axis.grid(alpha=0.3, which="both")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=7, frameon=False)
    figure.tight_layout(rect=(0, 0.1 / rows, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
