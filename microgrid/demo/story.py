"""The main job, told in the terminal as it goes."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import microgrid as mg
import viz
from microgrid.demo import plots
from microgrid.demo.data import (
    FIRST_TEST_YEAR,
    Floats,
    autoregressive_forecast,
    last_value_forecast,
    load_sunspots,
    rmse,
)
from microgrid.demo.network import check_bptt, forecast, network, train

CHECKED_STEPS = 6
DRAWN_STEPS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asked for; `steps` is the BPTT window, None for the whole training series."""

    steps: int | None
    epochs: int
    hidden: int
    seed: int
    out: Path


def heading(text: str) -> None:
    print(f"\n{text}\n{'─' * len(text)}")


def say(text: str) -> None:
    print(textwrap.fill(" ".join(text.split()), width=100))


def tell(job: Job) -> float:
    """Do the whole job; returns the test RMSE in sunspots."""
    began = time.perf_counter()
    data = load_sunspots()
    series = data.standardised()
    train_series = series[: data.train_length]
    net = network(job.hidden, job.seed)
    window = min(job.steps or len(train_series) - 1, len(train_series) - 1)

    heading("1. A recurrent network is a graph with a cycle")
    say(f"Recorded once, for one year: {len(net)} nodes, {parameter_count(net)} numbers to learn in {names(net)}.")
    for cycle in net.cycles:
        print(f"Cycle found:  {cycle}")

    heading("2. Plain backpropagation is refused")
    loss = net.output
    try:
        loss.backward()
    except mg.errors.CyclicGraphError as refusal:
        say(f"loss.backward() says: {refusal}")

    heading("3. Unrolled through time, the cycle is gone")
    dag = net.unroll(x=train_series[:window], target=train_series[1 : window + 1])
    say(
        f"{dag.steps} timesteps × {len(dag.copies)} nodes, and {len(dag.static)} shared ones. The "
        f"{len(net.parameters)} parameters are the same objects in every timestep: "
        f'dag["U", 0] is dag["U", {dag.steps - 1}] → {dag["U", 0] is dag["U", dag.steps - 1]}.'
    )
    dag.backward()
    reaching = np.linalg.norm(dag.grads("h"), axis=(1, 2))
    say(
        f"dag.backward() is backpropagation through time. The gradient of the loss that reaches h has norm "
        f"{reaching[-1]:.1e} at the last year and {reaching[0]:.1e} at the first."
    )
    unrolled_gradients = {net.names[p]: np.asarray(p.grad) for p in net.parameters}
    net.zero_grad()

    heading("4. The gradients are right")
    worst = check_bptt(net, series, CHECKED_STEPS)
    say(
        f"BPTT over {CHECKED_STEPS} years against central differences, all {parameter_count(net)} entries of "
        f"{names(net)}: largest relative difference {worst:.1e}."
    )

    heading("5. The same numbers, fast: only the cycle runs step by step")
    tell_compiled(net, train_series[: window + 1], unrolled_gradients)

    heading(f"6. Training on {data.years[0]:.0f}–{FIRST_TEST_YEAR - 1}")
    if window < len(train_series) - 1:
        say(
            f"Truncated BPTT: windows of {window} years, the state carried on from window to window, the gradient "
            "stopped at the border."
        )
    else:
        say(f"Full BPTT: every epoch runs through all {window} years, with a gradient from each year to all before it.")
    losses, norms = [], []
    bar = tqdm(
        train(net, train_series, epochs=job.epochs, window=window),
        total=job.epochs,
        unit="epoch",
        desc="train",
        mininterval=0.1 if sys.stderr.isatty() else 5,  # seconds; a log file wants few lines
    )
    for epoch in bar:
        losses.append(epoch.loss)
        norms.append(epoch.gradient_norm)
        bar.set_postfix(loss=f"{epoch.loss:.4f}", gradient=f"{epoch.gradient_norm:.2f}", refresh=False)
    say(f"Mean squared error {losses[0]:.3f} → {losses[-1]:.3f}, in squared standard deviations.")

    heading(f"7. Forecasting {FIRST_TEST_YEAR}–{data.years[-1]:.0f}, one year ahead")
    forecasts = {
        "last year's value": last_value_forecast(data),
        "AR(2), least squares": autoregressive_forecast(data, 2),
        "AR(9), least squares": autoregressive_forecast(data, 9),
        f"microgrid RNN, {job.hidden} units": data.in_sunspots(forecast(net, series))[data.train_length - 1 :],
    }
    errors = {name: rmse(values, data.test) for name, values in forecasts.items()}
    print(f"{'':24}test RMSE (sunspots)")
    for name, error in errors.items():
        print(f"{name:24}{error:6.1f}  {'▇' * round(error)}")

    heading("8. Pictures")
    for path in draw(job.out, net) + plots.draw(job.out, data, losses, forecasts):
        print(f"wrote {path}")
    if not plots.available():
        say("(The loss curve and the forecast need matplotlib: pip install 'microgrid-autodiff[plots]'.)")
    print(f"\nDone in {time.perf_counter() - began:.0f} s.")
    return errors[f"microgrid RNN, {job.hidden} units"]


def tell_compiled(net: mg.Graph, series: Floats, unrolled: Mapping[str, Floats]) -> None:
    """Compile the network, compare its gradients with those of the unrolled graph, and time both."""
    step = mg.compile(net)
    run = step(x=series[:-1], target=series[1:])
    worst = max(np.max(np.abs(run.grads[name] - g)) / np.max(np.abs(g)) for name, g in unrolled.items())
    schedule = step.schedule
    say(
        f"mg.compile(loss) found that {schedule.operations('loop')} operations recur, forwards and backwards; "
        f"{schedule.operations('all')} others run once for all timesteps and {schedule.operations('once')} once. Its "
        f"gradients differ from those of the unrolled graph by {worst:.1e} at most, relative to the largest."
    )

    def unrolled_epoch() -> None:
        net.unroll(x=series[:-1], target=series[1:]).backward()

    slow, fast = seconds(unrolled_epoch, 1), seconds(lambda: step(x=series[:-1], target=series[1:]), 5)
    net.zero_grad()
    say(
        f"One pass over {len(series) - 1} years, forwards and backwards: unrolled {1e3 * slow:.0f} ms, compiled "
        f"{1e3 * fast:.1f} ms, {slow / fast:.0f} times faster."
    )


def seconds(work: Callable[[], object], times: int) -> float:
    """How long the fastest of a few runs took."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def names(net: mg.Graph) -> str:
    return ", ".join(net.names[parameter] for parameter in net.parameters)


def parameter_count(net: mg.Graph) -> int:
    return sum(parameter.size for parameter in net.parameters)


def draw(out: Path, net: mg.Graph) -> list[Path]:
    """The network before and after unrolling, and both side by side."""
    return [
        viz.draw(net).save(out / "rolled.svg"),
        viz.draw(net.unroll(steps=DRAWN_STEPS)).save(out / "unrolled.svg"),
        viz.before_after(net, steps=DRAWN_STEPS).save(out / "before_after.svg"),
    ]
