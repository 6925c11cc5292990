"""History: what every epoch of a training run gave, in memory and as a file that a spreadsheet opens."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from microgrid.errors import UnknownNameError, did_you_mean
from microgrid.files.whole import write_whole

Row = dict[str, float]


class History(Sequence[Row]):
    """What every epoch gave: a sequence of rows, and each column by its name.

    Attributes
    ----------
    stopped : str
        Why training ended: "epochs" (all done), "patience" (no better for so many epochs) or "interrupted".
    best_epoch : int or None
        The epoch, counted from 1, of the lowest validation loss; None without validation data.

    Examples
    --------
    >>> history = mg.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> history["loss"], history[-1]["loss"], history.columns
    (array([0.5 , 0.25]), 0.25, ['epoch', 'loss'])
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = (), stopped: str = "", best_epoch: int | None = None):
        self.rows: list[Row] = [dict(row) for row in rows]
        self.stopped = stopped
        self.best_epoch = best_epoch

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.columns:
            raise UnknownNameError(f"the history has no column {key!r}. {did_you_mean(key, self.columns)}")
        return np.array([row.get(key, math.nan) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items()) if self.rows else "no epoch"
        best = f"; best epoch {self.best_epoch}" if self.best_epoch is not None else ""
        return f"History({len(self)} epochs, stopped by {self.stopped or '–'}; last: {last}{best})"


class CsvLog:
    """A file of comma-separated values with a row per epoch, whole after each; it begins with the rows given."""

    def __init__(self, path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
        self.path = Path(path)
        self.columns = list(rows[0]) if rows else []
        if rows:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(
                [self.columns, *([f"{value:.7g}" for value in row.values()] for row in rows)]
            )
            write_whole(self.path, text.getvalue().encode())
        else:
            write_whole(self.path, b"")

    def add(self, row: Row) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self.columns:
                self.columns = list(row)
                writer.writerow(self.columns)
            writer.writerow([f"{value:.7g}" for value in row.values()])
