"""Whole training steps of a character LSTM: forward, backward, clip, Adam; against the same model in torch and JAX.

    python benchmarks/training.py                      # --rounds 5 for a quick look
    python benchmarks/training.py --engines microgrid torch --layers 1
    python benchmarks/training.py --loop               # what mg.fit adds to bare steps; the optimiser's share

The model: Embedding(65, 128), LSTM(128, 128) of one or two layers, Linear(128, 65), cross entropy; 50 timesteps, 32
sequences, float32; gradients clipped to norm 1, Adam. Weights and batches are the same for all. The losses of the
first steps must agree with those of microgrid in float64, to 1e-4, before anything is timed. Each engine runs in a
process of its own with as many threads as it takes by itself; each round times each, one after the other in rotating
order. Times are medians over the rounds, and so are ratios, of two times of one round.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from recurrent.measuring import (
    PAUSE_SECONDS,
    TURN_SECONDS,
    WARM_SECONDS,
    Worker,
    environment_of_engines,
    rotations,
    timed,
)
from tqdm import tqdm

import microgrid as mg
from microgrid import nn

STEPS, BATCH, VOCABULARY, HIDDEN = 50, 32, 65, 128
BATCHES = 16
CLIP, LR = 1.0, 2e-3
CHECKED = 5
"""The losses of so many first steps are compared."""
TOLERANCE = 1e-4

Step = Callable[[], float]
"""One step of training on the next batch; returns its loss."""


@functools.cache
def batches() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens and the tokens after them, each (batches, time, batch)."""
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (BATCHES, STEPS + 1, BATCH))
    return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def model(layers: int, dtype: Any = np.float32) -> tuple[nn.Sequential, mg.Tensor]:
    """The network and its loss."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Embedding(VOCABULARY, HIDDEN, rng=rng, dtype=dtype),
        nn.LSTM(HIDDEN, HIDDEN, layers, rng=rng, dtype=dtype),
        nn.Linear(HIDDEN, VOCABULARY, rng=rng, dtype=dtype),
    )
    x, target = (mg.input(np.zeros(BATCH, np.int64), name=name) for name in ("x", "target"))
    return net, nn.cross_entropy(net(x), target)


def in_microgrid(layers: int, dtype: Any = np.float32, executor: str = "numpy") -> Step:
    net, loss = model(layers, dtype)
    step = mg.compile(loss, executor=executor)
    adam = mg.optim.Adam(net.parameters(), lr=LR)
    xs, targets = batches()
    numbers = iter_forever()

    def train() -> float:
        i = next(numbers)
        run = step(x=xs[i], target=targets[i])
        adam.zero_grad()
        run.backward()
        mg.optim.clip_grad_norm(adam.parameters, CLIP)
        adam.step()
        return float(run.value)

    return train


def in_torch(layers: int) -> Step:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, HIDDEN)
            self.lstm = torch.nn.LSTM(HIDDEN, HIDDEN, layers)
            self.linear = torch.nn.Linear(HIDDEN, VOCABULARY)

        def forward(self, x: Any) -> Any:
            return self.linear(self.lstm(self.embedding(x))[0])

    net = Net()
    own, _ = model(layers)
    names = dict(zip("012", ("embedding", "lstm", "linear"), strict=True))
    net.load_state_dict({f"{names[key[0]]}{key[1:]}": torch.tensor(array) for key, array in own.to_torch().items()})
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("bias_hh" not in name)  # one bias, as the others have
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam(trained, lr=LR)
    xs, targets = (torch.tensor(array) for array in batches())
    numbers = iter_forever()

    def train() -> float:
        i = next(numbers)
        loss = torch.nn.functional.cross_entropy(net(xs[i]).reshape(-1, VOCABULARY), targets[i].reshape(-1))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        adam.step()
        return float(loss.detach())

    return train


def in_jax(layers: int) -> Step:
    import jax
    import jax.numpy as jnp

    own, _ = model(layers)
    weights = {name: jnp.asarray(array) for name, array in own.state_dict().items()}
    prefixes = [name.removesuffix(".U") for name in weights if name.endswith(".U")]
    start = (jnp.zeros((BATCH, HIDDEN)), jnp.zeros((BATCH, HIDDEN)))

    def layer(p: Any, prefix: str, inputs: Any) -> Any:
        def cell(now: Any, z: Any) -> Any:
            h, c = now
            i, f, o, g = jnp.split(z + h @ p[f"{prefix}.U"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jax.lax.scan(cell, start, inputs @ p[f"{prefix}.W"] + p[f"{prefix}.b"])[1]

    def loss_of(p: Any, x: Any, target: Any) -> Any:
        h = p["embedding.E"][x]
        for prefix in prefixes:
            h = layer(p, prefix, h)
        scores = jax.nn.log_softmax(h @ p["linear.W"] + p["linear.b"])
        return -jnp.take_along_axis(scores, target[..., None], -1).mean()

    @jax.jit
    def update(p: Any, first: Any, second: Any, count: Any, x: Any, target: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, target)
        norm = jnp.sqrt(sum(jnp.sum(each**2) for each in g.values()))
        g = {name: each * jnp.minimum(1.0, CLIP / norm) for name, each in g.items()}
        first = {name: 0.9 * first[name] + 0.1 * g[name] for name in p}
        second = {name: 0.999 * second[name] + 0.001 * g[name] ** 2 for name in p}
        size = LR * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        eps = 1e-8 * jnp.sqrt(1 - 0.999**count)
        p = {name: p[name] - size * first[name] / (jnp.sqrt(second[name]) + eps) for name in p}
        return p, first, second, loss

    xs, targets = (jnp.asarray(array) for array in batches())
    zeros = {name: jnp.zeros_like(array) for name, array in weights.items()}
    held = [weights, zeros, zeros]
    numbers, counts = iter_forever(), iter(range(1, 1 << 30))

    def train() -> float:
        i = next(numbers)
        *held[:], loss = update(*held, float(next(counts)), xs[i], targets[i])
        return float(loss)

    return train


def fused(layers: int) -> Step:
    return in_microgrid(layers, executor="llvm")


ENGINES: dict[str, Callable[[int], Step]] = {
    "fused": fused,
    "microgrid": in_microgrid,
    "torch": in_torch,
    "jax": in_jax,
}
"""Microgrid as machine code and on NumPy, and its peers."""
PACKAGES = {"fused": "llvmlite"}


def iter_forever() -> Any:
    """The numbers of the batches, again and again."""
    i = 0
    while True:
        yield i
        i = (i + 1) % BATCHES


def serve_steps(parent: Connection, engine: str, layers: int) -> None:
    """Send the first losses, then the time of a step each time the parent asks."""
    step = ENGINES[engine](layers)
    parent.send([step() for _ in range(CHECKED)])
    while parent.recv():
        timed(step, WARM_SECONDS)
        parent.send(statistics.median(timed(step, TURN_SECONDS)))


def measure(engines: list[str], layers: int, rounds: int) -> dict[str, list[float]]:
    """Engine → seconds of a step in each round; AssertionError if losses disagree."""
    reference_step = in_microgrid(layers, np.float64)
    reference = np.array([reference_step() for _ in range(CHECKED)])
    found: dict[str, list[float]] = {}
    with environment_of_engines():
        workers = {engine: Worker(serve_steps, engine, layers) for engine in engines}
        try:
            for engine, worker in workers.items():
                losses = np.array(worker.answer())
                apart = float(np.max(np.abs(losses - reference) / reference))
                assert apart <= TOLERANCE, f"{engine}: losses deviate by {apart:.1e}: {losses} from {reference}"
                found[engine] = []
            for number, order in enumerate(tqdm(rotations(engines, rounds + 1), total=rounds + 1, unit="round")):
                for engine in order:
                    time.sleep(PAUSE_SECONDS)
                    seconds = workers[engine].ask()
                    if number:  # the first round warms up
                        found[engine].append(seconds)
        finally:
            for worker in workers.values():
                worker.stop()
    return found


def serve_loop(parent: Connection, layers: int) -> None:
    """Send, each time the parent asks, the seconds of epochs by hand, of clipping and Adam in them, and of mg.fit."""
    xs, targets = batches()
    net, loss = model(layers)
    data = mg.data.Minibatches(
        {"x": xs.transpose(0, 2, 1).reshape(-1, STEPS), "target": targets.transpose(0, 2, 1).reshape(-1, STEPS)}, BATCH
    )
    step, adam = mg.compile(loss), mg.optim.Adam(net.parameters(), lr=LR)
    ready = [batch.inputs for batch in data.epoch(0)]

    def by_hand(epochs: int) -> tuple[float, float]:
        began, optimising = time.perf_counter(), 0.0
        for _ in range(epochs):
            for inputs in ready:
                run = step(inputs)
                adam.zero_grad()
                run.backward()
                before = time.perf_counter()
                mg.optim.clip_grad_norm(adam.parameters, CLIP)
                adam.step()
                optimising += time.perf_counter() - before
        return time.perf_counter() - began, optimising

    def by_fit(epochs: int) -> float:
        times: list[float] = []

        class Timed:  # leaves out what compiling takes: the first epoch
            def __len__(self) -> int:
                return len(data)

            def epoch(self, number: int, start: int = 0) -> Any:
                times.append(time.perf_counter())
                return data.epoch(number, start)

        mg.fit(loss, Timed(), epochs=epochs + 1, optimiser=adam, clip_norm=CLIP, progress=False)
        return time.perf_counter() - times[1]

    parent.send(True)
    while parent.recv():
        parent.send((*by_hand(4), by_fit(4)))


def loop(layers: int, rounds: int) -> str:
    """What mg.fit adds, and what share of a step clipping and Adam take."""
    with environment_of_engines():
        worker = Worker(serve_loop, layers)
        worker.answer()
        turns = [worker.ask() for _ in tqdm(range(rounds + 1), unit="round")][1:]
        worker.stop()
    added = statistics.median(fit / by_hand - 1 for by_hand, _, fit in turns)
    share = statistics.median(optimising / by_hand for by_hand, optimising, _ in turns)
    return f"{layers} layer{'s' if layers > 1 else ''}: mg.fit adds {added:+.1%}; clipping and Adam take {share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time whole training steps of a character LSTM.")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="default: all")
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--rounds", type=int, default=15, help="how often each engine is timed (default: 15)")
    parser.add_argument("--loop", action="store_true", help="measure mg.fit against bare steps instead")
    chosen = parser.parse_args()
    if chosen.loop:
        for layers in chosen.layers:
            print(loop(layers, chosen.rounds))
        return
    missing = [engine for engine in chosen.engines if importlib.util.find_spec(PACKAGES.get(engine, engine)) is None]
    for engine in missing:
        package = PACKAGES.get(engine, engine)
        print(f"{package} is not installed: {engine} is skipped. To include it: pip install {package}")
    engines = [engine for engine in chosen.engines if engine not in missing]
    print("| character LSTM, a step | " + " | ".join(f"{engine}, ms" for engine in engines), end=" | ")
    own = next((engine for engine in ("fused", "microgrid") if engine in engines), None)
    print(" | ".join(f"{engine} ÷ {own}" for engine in engines if own and engine != own) + " |")
    for layers in chosen.layers:
        found = measure(engines, layers, chosen.rounds)
        cells = [f"{1e3 * statistics.median(found[engine]):.1f}" for engine in engines]
        if own:
            for engine in engines:
                if engine != own:
                    pairs = zip(found[engine], found[own], strict=True)
                    cells.append(f"{statistics.median(other / ours for other, ours in pairs):.2f}")
        print(f"| {layers} layer{'s' if layers > 1 else ''} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
