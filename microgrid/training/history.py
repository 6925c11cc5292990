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
        The epoch, counted from 1, of the lowest validation loss, or loss where only `patience` asks; otherwise None.

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
        self.rows = list(rows)
        self.columns: list[str] = []

    def write_all(self) -> None:
        """Write the file anew, with the columns of all rows."""
        self.columns = History(self.rows).columns
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.columns:
            writer.writerow(self.columns)
            writer.writerows(self.cells(row) for row in self.rows)
        write_whole(self.path, text.getvalue().encode())

    def add(self, row: Row) -> None:
        """One more row; the first replaces an older file. Columns that are new are empty in rows before them."""
        self.rows.append(row)
        if not set(row) <= set(self.columns):
            self.write_all()
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(self.cells(row))

    def cells(self, row: Row) -> list[str]:
        found = [row.get(name, "") for name in self.columns]
        return [f"{value:.7g}" if isinstance(value, float) else str(value) for value in found]
