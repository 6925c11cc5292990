"""Chapter 11: a forecast, with layers and fit.

You will see the main job of this package, the sunspots, in fifteen lines: a recurrent layer and a linear
one, their loss, and mg.fit. It is backpropagation through 280 timesteps, as in chapter 6, and the network
is a graph with a cycle, as in chapter 4; only the writing is gone. Its forecasts of 29 years that it has
never seen stand beside those of straight lines fitted to the years before.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

import microgrid as mg
import viz

HERE = Path(__file__).parent
OUT = HERE / "out"
OUT.mkdir(exist_ok=True)

SEED, UNITS = 0, 16
FIRST_TEST_YEAR = 1980
YEARS, NUMBERS = np.loadtxt(HERE / "data" / "sunspots.csv", delimiter=",", skiprows=1).T
TRAIN = int(np.sum(YEARS < FIRST_TEST_YEAR))  # how many years there are to learn from


def fit_and_forecast(numbers: np.ndarray, epochs: int, quick: bool) -> tuple[mg.Graph, mg.History, np.ndarray]:
    """From the numbers to a trained network, and its forecast of each year but the first from those before it."""
    mean, deviation = numbers[:TRAIN].mean(), numbers[:TRAIN].std()
    series = ((numbers - mean) / deviation).reshape(-1, 1, 1)  # (time, batch, features)
    this_year, next_year = series[:-1], series[1:]

    rng = np.random.default_rng(SEED)
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    h = mg.nn.RNN(1, UNITS, rng=rng)(x)
    y = mg.nn.Linear(UNITS, 1, rng=rng)(h).named("y")
    loss = mg.nn.mse(y, target).named("loss")

    net = mg.Graph(y=y, loss=loss)
    adam = mg.optim.AdamW(net.parameters, lr=0.01, weight_decay=1.0)
    seen = {"x": this_year[: TRAIN - 1], "target": next_year[: TRAIN - 1]}
    cosine = mg.optim.Cosine(epochs)
    watched = {"progress": False if quick else None, "health": not quick}
    history = mg.fit(loss, seen, epochs=epochs, optimiser=adam, schedule=cosine, clip_norm=1.0, **watched)
    outputs = mg.compile(y, wrt=())(x=this_year).value
    return net, history, outputs.ravel() * deviation + mean


def autoregression(order: int) -> np.ndarray:
    """Forecasts of the test years by least squares on so many years before, fitted to the training years."""
    lagged = np.lib.stride_tricks.sliding_window_view(NUMBERS[:-1], order)
    design = np.concatenate([lagged, np.ones((len(lagged), 1))], axis=1)
    fitted = TRAIN - order
    weights, *_ = np.linalg.lstsq(design[:fitted], NUMBERS[order:TRAIN], rcond=None)
    return design[fitted:] @ weights


def plot(history: mg.History, forecasts: dict[str, np.ndarray]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("   (no picture of the forecast: it needs matplotlib)")
        return
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2.4])
    left.semilogy(history["epoch"], history["loss"], color="#c46a00")
    left.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
    left.minorticks_off()
    left.set(xlabel="epoch", ylabel="mean squared error (standardised)", title="Training on 1700–1979")
    shown = YEARS >= FIRST_TEST_YEAR - 30
    right.plot(YEARS[shown], NUMBERS[shown], color="#1f2933", lw=2, label="observed")
    right.axvline(FIRST_TEST_YEAR - 0.5, color="#5b6875", ls=":", lw=1)
    right.set_ylim(top=225)
    right.text(FIRST_TEST_YEAR, 220, "not seen in training →", va="top", color="#5b6875")
    styles = [{"color": "#33659e", "ls": "--", "lw": 1.3}, {"color": "#c46a00", "marker": "o", "ms": 3.5}]
    for (name, forecast), style in zip(list(forecasts.items())[-2:], styles, strict=True):
        right.plot(YEARS[TRAIN:], forecast, label=name, **style)
    right.set(xlabel="year", ylabel="sunspots", title="Next year's sunspot number, from the years before")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(OUT / "11_forecast.png", dpi=130)
    print("   wrote examples/out/11_forecast.png")
    print(
        "   On the left the loss falls, at the end slowly, for the learning rate goes to 0 along a cosine. On the right"
    )
    print("   look at 1990, where the dashed line overshoots, and at 2008, where both expect a rise that did not come.")


def main() -> None:
    began = perf_counter()
    parser = argparse.ArgumentParser(description="Sunspots forecast with mg.nn and mg.fit.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the epochs")
    quick = parser.parse_args().quick
    epochs = 80 if quick else 800
    print(f"Yearly sunspots: train an RNN on 1700–1979, forecast each of 1980–2008 a year ahead. Seed {SEED}.")
    if quick:
        print("--quick: a tenth of the epochs, so the numbers are not those of the full run.")

    print("\n1. The network")
    net, history, outputs = fit_and_forecast(NUMBERS, epochs, quick)
    print(f"   {sum(parameter.size for parameter in net.parameters)} numbers to learn in", end=" ")
    print(", ".join(net.names[parameter] for parameter in net.parameters))
    for cycle in net.cycles:
        print(f"   its cycle: {cycle}")
    viz.draw(net).save(OUT / "11_network.svg")
    print("   wrote examples/out/11_network.svg (nn.RNN recorded the dashed edge by itself)")

    print("\n2. Training")
    losses = history["loss"]
    print(f"   {epochs} epochs in {history['seconds'][-1]:.1f} s, each one pass through all {TRAIN - 1} years and back")
    print(f"   mean squared error {losses[0]:.3f} → {losses[-1]:.3f}, in squared standard deviations")
    print(f"   learning rate {history['learning rate'][0]:.3f} → {history['learning rate'][-1]:.0e}")
    print("   Where fit warns that the gradient vanishes: over 278 years it does, as in chapter 7. A forecast lives on")
    print("   the last decades.")

    print("\n3. Years it has not seen")
    forecasts = {
        "last year's value": NUMBERS[TRAIN - 1 : -1],
        "AR(2), least squares": autoregression(2),
        "AR(9), least squares": autoregression(9),
        f"RNN, {UNITS} units": outputs[TRAIN - 1 :],
    }
    errors = {name: float(np.sqrt(np.mean((each - NUMBERS[TRAIN:]) ** 2))) for name, each in forecasts.items()}
    print(f"   {'':24}test RMSE (sunspots)")
    for name, error in errors.items():
        print(f"   {name:24}{error:6.1f}  {'▇' * round(error)}")
    print("   The network of the main job (python -m microgrid), which writes out all of this, has 12.0. Weight decay")
    print("   and epochs are what was best on 1950–1979 with training on 1700–1949, where no test year is seen.")
    assert quick or errors[f"RNN, {UNITS} units"] < 13 < errors["AR(9), least squares"]
    plot(history, forecasts)
    print(f"\nDone in {perf_counter() - began:.1f} s.")


if __name__ == "__main__":
    main()
