"""The main job, told in the terminal as it goes."""

from __future__ import annotations

import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import microgrid as mg
import viz
from microgrid.demo import plots
from microgrid.demo.data import (
    FIRST_TEST_YEAR,
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
    net.zero_grad()

    heading("4. The gradients are right")
    worst = check_bptt(net, series, CHECKED_STEPS)
    say(
        f"BPTT over {CHECKED_STEPS} years against central differences, all {parameter_count(net)} entries of "
        f"{names(net)}: largest relative difference {worst:.1e}."
    )

    heading(f"5. Training on {data.years[0]:.0f}–{FIRST_TEST_YEAR - 1}")
    if window < len(train_series) - 1:
        say(
            f"Truncated BPTT: windows of {window} years, the state carried on from window to window, the gradient "
            "stopped at the border."
        )
    else:
        say(f"Full BPTT: every epoch unrolls all {window} years, with a gradient from each year to all before it.")
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

    heading(f"6. Forecasting {FIRST_TEST_YEAR}–{data.years[-1]:.0f}, one year ahead")
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

    heading("7. Pictures")
    for path in draw(job.out, net) + plots.draw(job.out, data, losses, forecasts):
        print(f"wrote {path}")
    if not plots.available():
        say("(The loss curve and the forecast need matplotlib: pip install 'microgrid-autodiff[plots]'.)")
    print(f"\nDone in {time.perf_counter() - began:.0f} s.")
    return errors[f"microgrid RNN, {job.hidden} units"]


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
