"""The loss curve and the forecast, with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microgrid.demo.data import FIRST_TEST_YEAR, Floats, Sunspots
from microgrid.files.whole import write_whole


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(out: Path, data: Sunspots, losses: Sequence[float], forecasts: Mapping[str, Floats]) -> list[Path]:
    """Write loss_curve.png and forecast.png; nothing where matplotlib is missing."""
    if not available():
        return []
    return [
        save(loss_curve(losses), out / "loss_curve.png"),
        save(forecast(data, forecasts), out / "forecast.png"),
    ]


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def loss_curve(losses: Sequence[float]) -> Any:
    from viz.over_time import loss_curve as curve

    figure = curve({"epoch": range(1, len(losses) + 1), "loss": losses})
    figure.axes[0].set(ylabel="mean squared error (standardised)", title="Training by backpropagation through time")
    return figure


def forecast(data: Sunspots, forecasts: Mapping[str, Floats]) -> Any:
    figure, axes = new_figure(10, 4.5)
    since = data.years >= FIRST_TEST_YEAR - 30
    test_years = data.years[data.train_length :]
    axes.plot(data.years[since], data.numbers[since], color="#1f2933", label="observed", lw=2)
    axes.axvline(FIRST_TEST_YEAR - 0.5, color="#5b6875", ls=":", lw=1)
    axes.text(FIRST_TEST_YEAR, axes.get_ylim()[1], " not seen in training →", va="top", color="#5b6875")
    (rnn, values), (ar9, ar_values) = list(forecasts.items())[-1], list(forecasts.items())[-2]
    axes.plot(test_years, ar_values, color="#33659e", ls="--", lw=1.3, label=ar9)
    axes.plot(test_years, values, color="#c46a00", marker="o", ms=3.5, lw=1.6, label=rnn)
    axes.set(xlabel="year", ylabel="sunspots", title="Next year's sunspot number, forecast from the years before")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def save(figure: Any, path: Path) -> Path:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    write_whole(path, data.getvalue())
    return path
