"""The eager engine against its peers: the same program on the same numbers, in one process run.

    pip install -e '.[bench]'
    python benchmarks/eager.py                    # --rounds 5 for a quick look, --json PATH for the numbers

chain   tanh(h * w + x) applied 200 times to arrays of 8 float64 elements: 600 operations, forward and
        backward, so what counts is the cost of recording and traversing. Peers: torch (one thread),
        autograd, mygrad. The aim is at most 3 µs per operation where torch takes 5.3.
scalar  micrograd's own demo: 100 points of two moons, a 2-16-16-1 network of Python scalars, hinge loss
        and L2 regularisation, one step forward and backward over 65,818 nodes. Peer: micrograd. The aim is
        at least 6 times faster.

Values and all gradients must agree before anything is timed. Then every engine runs in a process of its own,
as its users have it: no engine pays, in garbage collection, for the objects of another. Every round times each
of them, one after the other in rotating order, so that drift of the machine meets them all; the median of the
rounds is shown. What is timed is a few steps in a row, as in training: it includes freeing the graphs. A peer
that is not installed is skipped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

for setting in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # leave the choice of kernels to OpenBLAS
    os.environ.pop(setting, None)

import numpy as np  # noqa: E402  (reads the environment when it loads)

import microgrid as mg  # noqa: E402

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Step: TypeAlias = Callable[[], "tuple[Any, Sequence[Any]]"]
"""One forward and backward pass: the value, and the gradient of every leaf that is trained."""

RELATIVE_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Case:
    """One program, written for several engines.

    Attributes
    ----------
    name : str
        What tables call it.
    unit : str
        What a time is divided by: "operation" or "node".
    units : int
        How many of them one step has.
    repeats : int
        How many steps in a row are timed together.
    makers : dict of str to callable
        Engine → what makes its step; microgrid first.
    ratios_to : tuple of str
        The engines that a table compares all others with.
    """

    name: str
    unit: str
    units: int
    repeats: int
    makers: dict[str, Callable[[], Step]]
    ratios_to: tuple[str, ...]


# --- chain: small arrays ---------------------------------------------------------------------------

CHAIN_LENGTH = 200
OPERATIONS_PER_LINK = 3  # multiply, add, tanh
ELEMENTS = 8


def chain(tanh: Callable[[Any], Any], h: Any, w: Any, x: Any) -> Any:
    """`tanh(h * w + x)` over and over: a recurrent network of elementwise weights, unrolled."""
    for _ in range(CHAIN_LENGTH):
        h = tanh(h * w + x)
    return h


def chain_arrays() -> tuple[Array, ...]:
    """h, w, x and the seed cotangent, each of shape (8,)."""
    rng = np.random.default_rng(0)
    return tuple(rng.uniform(0.5, 1.0, size=ELEMENTS) for _ in range(4))


def microgrid_chain() -> Step:
    *arrays, seed = chain_arrays()
    leaves = [mg.tensor(array) for array in arrays]

    def step() -> tuple[Any, Sequence[Any]]:
        for leaf in leaves:
            leaf.zero_grad()
        out = chain(mg.tanh, *leaves)
        out.backward(seed)
        return out.value, [leaf.grad for leaf in leaves]

    return step


def torch_chain() -> Step:
    import torch

    torch.set_num_threads(1)
    *arrays, seed_array = chain_arrays()
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    seed = torch.tensor(seed_array)

    def step() -> tuple[Any, Sequence[Any]]:
        for leaf in leaves:
            leaf.grad = None
        out = chain(torch.tanh, *leaves)
        out.backward(seed)
        return out.detach(), [leaf.grad for leaf in leaves]

    return step


def autograd_chain() -> Step:
    import autograd
    import autograd.numpy

    *arrays, seed = chain_arrays()
    vjp_of = autograd.make_vjp(lambda h, w, x: chain(autograd.numpy.tanh, h, w, x), argnum=(0, 1, 2))

    def step() -> tuple[Any, Sequence[Any]]:
        vjp, value = vjp_of(*arrays)
        return value, vjp(seed)

    return step


def mygrad_chain() -> Step:
    import mygrad

    *arrays, seed = chain_arrays()
    leaves = [mygrad.tensor(array) for array in arrays]

    def step() -> tuple[Any, Sequence[Any]]:
        for leaf in leaves:
            leaf.null_grad()
        out = chain(mygrad.tanh, *leaves)
        out.backward(seed)
        return out.data, [leaf.grad for leaf in leaves]

    return step


def chain_case() -> Case:
    """The case "chain" for the engines that are installed."""
    makers = {
        "microgrid": microgrid_chain,
        "torch": torch_chain,
        "mygrad": mygrad_chain,
        "autograd": autograd_chain,
    }
    return Case(
        name="chain",
        unit="operation",
        units=CHAIN_LENGTH * OPERATIONS_PER_LINK,
        repeats=10,
        makers=installed(makers),
        ratios_to=("microgrid", "torch"),
    )


# --- scalar: micrograd's demo ----------------------------------------------------------------------

Neuron: TypeAlias = tuple[list[Any], Any]
"""Its weights and its bias, as scalars of some engine."""

POINTS = 100
NOISE = 0.1
LAYER_SIZES = (2, 16, 16, 1)
ALPHA = 1e-4  # of the L2 regularisation


def two_moons() -> tuple[list[list[float]], list[float]]:
    """Points of two interleaved half circles, (points, 2), and their labels, −1 or 1."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, math.pi, POINTS // 2)
    outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = np.array([1.0, 0.5]) - outer
    points = np.concatenate([outer, inner]) + rng.normal(scale=NOISE, size=(POINTS, 2))
    return points.tolist(), [-1.0] * (POINTS // 2) + [1.0] * (POINTS // 2)


def initial_layers(leaf: Callable[[float], Any]) -> list[list[Neuron]]:
    """The network with its initial weights, the same for every engine; `leaf` makes an engine's scalar."""
    rng = np.random.default_rng(1)
    return [
        [([leaf(weight) for weight in rng.uniform(-1, 1, size=inputs).tolist()], leaf(0.0)) for _ in range(outputs)]
        for inputs, outputs in itertools.pairwise(LAYER_SIZES)
    ]


def parameters(layers: list[list[Neuron]]) -> list[Any]:
    """Every weight and bias."""
    return [scalar for layer in layers for weights, bias in layer for scalar in (*weights, bias)]


def activation(neuron: Neuron, inputs: Sequence[Any]) -> Any:
    """Weighted sum of the inputs, plus the bias."""
    weights, bias = neuron
    return sum((w * x for w, x in zip(weights, inputs, strict=False)), bias)


def score(layers: list[list[Neuron]], inputs: Sequence[Any]) -> Any:
    """The network's output for one point; relu in all layers but the last."""
    for layer in layers[:-1]:
        inputs = [activation(neuron, inputs).relu() for neuron in layer]
    return activation(layers[-1][0], inputs)


def demo_loss(
    leaf: Callable[[float], Any], layers: list[list[Neuron]], points: list[list[float]], labels: list[float]
) -> Any:
    """Mean hinge loss over the points, plus α times the sum of squared parameters."""
    scores = [score(layers, [leaf(coordinate) for coordinate in point]) for point in points]
    hinge = [(1 + -label * output).relu() for label, output in zip(labels, scores, strict=True)]
    data_loss = sum(hinge) * (1.0 / len(hinge))
    return data_loss + ALPHA * sum(p * p for p in parameters(layers))


def microgrid_demo() -> Step:
    points, labels = two_moons()
    layers = initial_layers(mg.tensor)
    trained = parameters(layers)

    def step() -> tuple[Any, Sequence[Any]]:
        for parameter in trained:
            parameter.zero_grad()
        loss = demo_loss(mg.tensor, layers, points, labels)
        loss.backward()
        return loss.value, [parameter.grad for parameter in trained]

    return step


def micrograd_demo() -> Step:
    from micrograd.engine import Value

    points, labels = two_moons()
    layers = initial_layers(Value)
    trained = parameters(layers)

    def step() -> tuple[Any, Sequence[Any]]:
        for parameter in trained:
            parameter.grad = 0
        loss = demo_loss(Value, layers, points, labels)
        loss.backward()
        return loss.data, [parameter.grad for parameter in trained]

    return step


def count_nodes(root: mg.Tensor) -> int:
    """How many nodes the graph behind `root` has, leaves and constants included."""
    seen = {root}
    stack = [root]
    while stack:
        unseen = set(stack.pop().operands) - seen
        seen |= unseen
        stack.extend(unseen)
    return len(seen)


def scalar_case() -> Case:
    """The case "scalar" for the engines that are installed."""
    makers = {"microgrid": microgrid_demo, "micrograd": micrograd_demo}
    nodes = count_nodes(demo_loss(mg.tensor, initial_layers(mg.tensor), *two_moons()))
    return Case(name="scalar", unit="node", units=nodes, repeats=3, makers=installed(makers), ratios_to=("microgrid",))


# --- measuring -------------------------------------------------------------------------------------


def installed(makers: dict[str, Callable[[], Step]]) -> dict[str, Callable[[], Step]]:
    """The engines that can be imported."""
    return {engine: make for engine, make in makers.items() if importlib.util.find_spec(engine) is not None}


CASES: dict[str, Callable[[], Case]] = {"chain": chain_case, "scalar": scalar_case}
PEERS = ("torch", "mygrad", "autograd", "micrograd")


def check_agreement(case: Case) -> None:
    """Raise AssertionError unless every engine finds microgrid's value and gradients."""
    value, gradients = case.makers["microgrid"]()()
    for engine, make in case.makers.items():
        found_value, found_gradients = make()()
        message = f"{case.name}: {engine} disagrees with microgrid"
        np.testing.assert_allclose(found_value, value, rtol=RELATIVE_TOLERANCE, err_msg=message)
        for found, gradient in zip(found_gradients, gradients, strict=True):
            np.testing.assert_allclose(found, gradient, rtol=RELATIVE_TOLERANCE, err_msg=message)


def rotations(engines: Sequence[str], rounds: int) -> Iterable[Sequence[str]]:
    """The order of the engines in each round: every one comes first, second, … equally often."""
    for i in range(rounds):
        first = i % len(engines)
        yield [*engines[first:], *engines[:first]]


def serve(case_name: str, engine: str, parent: Connection) -> None:
    """In a process of its own: time a few steps in a row, each time the parent asks."""
    case = CASES[case_name]()
    step = case.makers[engine]()
    step()  # imports and caches
    while parent.recv():
        start = time.perf_counter()
        for _ in range(case.repeats):
            step()
        parent.send((time.perf_counter() - start) / case.repeats)


def median_microseconds(case: Case, rounds: int) -> dict[str, float]:
    """Engine → median time per unit, in µs, over `rounds` interleaved rounds."""
    fresh = multiprocessing.get_context("spawn")
    asked: dict[str, Connection] = {}
    for engine in case.makers:
        asked[engine], other_end = fresh.Pipe()
        fresh.Process(target=serve, args=(case.name, engine, other_end), daemon=True).start()
    seconds: dict[str, list[float]] = {engine: [] for engine in case.makers}
    for number, order in enumerate(rotations(list(case.makers), rounds + 1)):
        for engine in order:
            asked[engine].send(True)
            found = asked[engine].recv()
            if number:  # the first round warms up
                seconds[engine].append(found)
    for connection in asked.values():
        connection.send(False)
    return {engine: 1e6 * statistics.median(times) / case.units for engine, times in seconds.items()}


# --- reporting -------------------------------------------------------------------------------------


def table(case: Case, medians: dict[str, float]) -> str:
    """A Markdown table: one row per engine, one column of ratios per engine compared with."""
    references = [engine for engine in case.ratios_to if engine in medians]
    lines = [
        f"| {case.name} | µs per {case.unit} | " + " | ".join(f"÷ {engine}" for engine in references) + " |",
        "| --- " + "| ---: " * (1 + len(references)) + "|",
    ]
    for engine, median in medians.items():
        ratios = " | ".join(f"{median / medians[reference]:.2f}" for reference in references)
        lines.append(f"| {engine} | {median:.2f} | {ratios} |")
    return "\n".join(lines)


def versions(engines: Iterable[str]) -> dict[str, str]:
    """The version of Python, NumPy, microgrid and every peer."""
    peers = {engine: importlib.metadata.version(engine) for engine in engines if engine != "microgrid"}
    return {"python": platform.python_version(), "numpy": np.__version__, "microgrid": mg.__version__, **peers}


def main() -> None:
    """Check, measure, print; write the numbers where `--json` says."""
    options = argparse.ArgumentParser(description="Time the eager engine against its peers.")
    options.add_argument("--rounds", type=int, default=30, help="how often each engine is timed (default: 30)")
    options.add_argument("--json", type=Path, metavar="PATH", help="also write the numbers to this file")
    chosen = options.parse_args()
    if chosen.rounds < 1:
        options.error("--rounds takes a number of at least 1")

    for peer in PEERS:
        if importlib.util.find_spec(peer) is None:
            print(f"{peer} is not installed: skipped. To include it: pip install {peer}")
    cases = [make() for make in CASES.values()]
    for case in cases:
        check_agreement(case)
    used = versions(dict.fromkeys(engine for case in cases for engine in case.makers))
    print(", ".join(f"{name} {version}" for name, version in used.items()))

    report: dict[str, Any] = {"versions": used, "rounds": chosen.rounds}
    for case in cases:
        medians = median_microseconds(case, chosen.rounds)
        report[case.name] = {"unit": f"µs per {case.unit}", f"{case.unit}s": case.units, "median": medians}
        print(f"\n{case.units:,} {case.unit}s, median of {chosen.rounds} rounds\n\n{table(case, medians)}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
