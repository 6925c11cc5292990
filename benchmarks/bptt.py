"""Backpropagation through time: the compiled program against NumPy by hand, torch, JAX, PyTensor and autograd.

    python benchmarks/bptt.py                          # --rounds 5 for a quick look, --out DIR for files
    python benchmarks/bptt.py --cells LSTM --sizes 1 2 --engines microgrid numpy jax
    python benchmarks/bptt.py --memory                 # peak memory, beside NumPy by hand
    python benchmarks/bptt.py --lengths                # 100 to 10,000 timesteps: are time and memory linear?

One step is forward and backward: from the inputs (T, B, I) to the gradients of all parameters, in float32. The
cells are RNN (tanh), LSTM, GRU (torch's: reset after the recurrent product, two biases), and three that no library has
ready-made, so that every user writes them from primitives: an LSTM with peepholes, one with layer normalisation, and
two coupled states of different size. The loss is the mean of h².

microgrid, fused    mg.compile(..., executor="llvm") of the cell recorded once.
microgrid, NumPy    the same with the NumPy executor. The peephole LSTM is written with separate weights for every
                gate; all peers have the gates' weights in one matrix, which is faster for them.
NumPy by hand   the yardstick: recurrent/by_hand.py. Of its variants the fastest at each size counts.
GEMMs alone     its matrix products and nothing else: no program of NumPy calls is faster.
torch.nn        torch's own layers.
torch loop      a Python loop over the cell; torch.compile: the same loop over the compiled cell.
jax.lax.scan    under jit of value_and_grad.
PyTensor scan   one compiled function.
autograd loop   a Python loop over the cell.

Loss and every gradient must agree with an unrolled graph in float64, to 1e-5 of each gradient's largest entry,
before anything is timed. Every engine runs in a process of its own, with as many threads as it takes by itself. Each
round times each of them, one after the other in rotating order: a tenth of a second to warm up, the median of another
tenth. Times are medians over the rounds, and so are ratios, of two times of one round. Compilers find empty caches. An
engine that is not installed, or fails, is skipped and said so. Without `--all`, those that compile for half a minute
do so for a few cases only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recurrent import tables
from recurrent.cases import GATES, SIZES, Case, Size
from recurrent.engines import ENGINES, UNTUNED_NUMPY, Engine, installed, versions
from recurrent.measuring import Footprint, footprint, measure
from tqdm import tqdm

LENGTHS = (100, 300, 1_000, 3_000, 10_000)
LONG = Size(100_000, 16, 32, 64)
LENGTH_SIZE = Size(0, 16, 32, 64)


def main() -> None:
    """Check, measure, print; write the files where `--out` says."""
    chosen = options()
    if chosen.memory or chosen.lengths or chosen.checkpoint:
        text, numbers = footprints(chosen)
        print(text)
        write(chosen.out, text, numbers)
        return

    engines = available([ENGINES[key] for key in chosen.engines if chosen.torch_compile or key != "torch-compile"])
    used = {"python": platform.python_version(), **versions(engines)}
    head = ", ".join(f"{name} {version}" for name, version in used.items())
    head += f"; {os.cpu_count()} cores; medians of {chosen.rounds} rounds"
    print(head)

    planned = {
        case: [engine for engine in engines if engine.runs(case, everything=chosen.all)] for case in cases(chosen)
    }
    results: tables.Results = {}
    turns = sum(len(asked) + chosen.rounds + 1 for asked in planned.values())
    with tqdm(total=turns, unit="turn", mininterval=0.1 if sys.stderr.isatty() else 30) as bar:
        for case, asked in planned.items():
            bar.set_description(f"{case.cell} {case.size}")
            results[case] = measure(case, asked, chosen.rounds, bar.write, bar.update)
            write(chosen.out, f"{head}\n\n{tables.report(results)}", as_json(results, used, chosen.rounds))
    print(f"\n{tables.report(results)}")
    if chosen.out is not None:
        picture(results, chosen.out / "bptt.png")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Time backpropagation through time against other engines.")
    sizes = ", ".join(f"{number} = {size}" for number, size in enumerate(SIZES, start=1))
    numbers = range(1, len(SIZES) + 1)
    parser.add_argument("--cells", nargs="+", choices=list(GATES), default=list(GATES), help="default: all")
    parser.add_argument(
        "--sizes", nargs="+", type=int, choices=numbers, default=list(numbers), help=f"T,B,I,H: {sizes}"
    )
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="default: all")
    parser.add_argument("--rounds", type=int, default=30, help="how often each engine is timed (default: 30)")
    parser.add_argument("--all", action="store_true", help="also cases in which an engine compiles very long")
    parser.add_argument("--no-torch-compile", dest="torch_compile", action="store_false", help="leave it out")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--lengths", action="store_true", help="measure an LSTM over ever longer sequences instead")
    parser.add_argument(
        *("--checkpoint",),
        type=int,
        metavar="K",
        help=f"measure an LSTM over {LONG.time:,} timesteps instead, keeping every K-th state only",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write bptt.md, bptt.json and bptt.png there")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds takes a number of at least 1")
    return chosen


def cases(chosen: argparse.Namespace) -> list[Case]:
    """Every chosen cell at every chosen size."""
    return [Case(cell, SIZES[number - 1]) for cell in chosen.cells for number in chosen.sizes]


def available(engines: Sequence[Engine]) -> list[Engine]:
    """The engines that are installed; the others are said."""
    for package in dict.fromkeys(engine.package for engine in engines if not installed(engine)):
        print(f"{package} is not installed: skipped. To include it: pip install {package}")
    return [engine for engine in engines if installed(engine)]


def footprints(chosen: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Peak memory of microgrid and NumPy by hand: at the chosen sizes, over lengths, or of one very long sequence."""
    both = [ENGINES["fused"], ENGINES["microgrid"], UNTUNED_NUMPY]
    options: dict[str, Any] = {}
    show: Callable[[dict[Case, dict[str, Footprint]]], str] = tables.lengths_table
    if chosen.memory:
        planned, show = [case for case in cases(chosen) if case.cell in UNTUNED_NUMPY.cells], tables.memory_table
    elif chosen.lengths:
        planned = [Case("LSTM", LENGTH_SIZE._replace(time=length)) for length in LENGTHS]
    else:
        planned, both, options = [Case("LSTM", LONG)], both[:2], {"checkpoint_every": chosen.checkpoint}
    asked = [engine for engine in both if engine.key in chosen.engines]
    found: dict[Case, dict[str, Footprint]] = {case: {} for case in planned}
    with tqdm(total=len(planned) * len(asked), unit="process") as bar:
        for case in planned:
            for engine in asked:
                try:
                    found[case][engine.title] = footprint(engine, case, count_arrays=chosen.memory, **options)
                except RuntimeError as failure:
                    bar.write(f"{engine.title}, {case.cell} {case.size}: not available: {failure}")
                bar.update()
    numbers = {
        f"{case.cell} {case.size}": {title: vars(print_) for title, print_ in prints.items()}
        for case, prints in found.items()
    }
    return show(found), numbers


def as_json(results: tables.Results, used: dict[str, str], rounds: int) -> dict[str, Any]:
    """Every number measured, in seconds."""
    seconds = {
        f"{case.cell} {case.size}": {key: found.as_json() for key, found in measured.items()}
        for case, measured in results.items()
    }
    return {"versions": used, "rounds": rounds, "seconds": seconds}


def write(folder: Path | None, text: str, numbers: dict[str, Any]) -> None:
    """The tables and the numbers, if a folder is wanted."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bptt.md").write_text(text + "\n", encoding="utf-8")
        (folder / "bptt.json").write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def picture(results: tables.Results, path: Path) -> None:
    """The plot, if matplotlib is there."""
    try:
        tables.plot(results, path)
    except ImportError:
        print("matplotlib is not installed: no picture. To include it: pip install matplotlib")


if __name__ == "__main__":
    main()
