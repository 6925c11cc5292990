"""The yearly sunspot numbers, and what anybody could forecast without a network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST_TEST_YEAR = 1980


@dataclass(frozen=True, slots=True)
class Sunspots:
    """Years and mean sunspot numbers, each of shape (time,)."""

    years: Floats
    numbers: Floats

    @property
    def train_length(self) -> int:
        """How many years lie before the test years."""
        return int(np.sum(self.years < FIRST_TEST_YEAR))

    @property
    def train(self) -> Floats:
        return self.numbers[: self.train_length]

    @property
    def test(self) -> Floats:
        return self.numbers[self.train_length :]

    def standardised(self) -> Floats:
        """The numbers with mean 0 and deviation 1 over the training years: (time, batch=1, features=1)."""
        scaled: Floats = (self.numbers - self.train.mean()) / self.train.std()
        return scaled.reshape(-1, 1, 1)

    def in_sunspots(self, standardised: Floats) -> Floats:
        """The way back, as (time,)."""
        numbers: Floats = standardised.reshape(-1) * self.train.std() + self.train.mean()
        return numbers


def load_sunspots() -> Sunspots:
    """The file that comes with the package."""
    text = resources.files("microgrid.demo").joinpath("sunspots.csv").read_text(encoding="utf-8")
    rows = np.array([line.split(",") for line in text.split()[1:]], dtype=float)
    return Sunspots(rows[:, 0], rows[:, 1])


def rmse(forecast: Floats, truth: Floats) -> float:
    """Root mean squared error, in sunspots."""
    return float(np.sqrt(np.mean((forecast - truth) ** 2)))


def last_value_forecast(data: Sunspots) -> Floats:
    """Next year will be as this year."""
    return data.numbers[data.train_length - 1 : -1]


def autoregressive_forecast(data: Sunspots, order: int) -> Floats:
    """Least squares on the `order` years before, fitted to the training years.

    Source: G. U. Yule, On a method of investigating periodicities in disturbed series, with special
    reference to Wolfer's sunspot numbers (1927), which introduced AR(2) on these very data.
    """
    count = len(data.numbers)
    before = np.stack([data.numbers[order - 1 - lag : count - 1 - lag] for lag in range(order)], axis=1)
    design = np.concatenate([before, np.ones((len(before), 1))], axis=1)
    fitted = data.train_length - order
    weights, *_ = np.linalg.lstsq(design[:fitted], data.numbers[order : data.train_length], rcond=None)
    forecast: Floats = design[fitted:] @ weights
    return forecast
