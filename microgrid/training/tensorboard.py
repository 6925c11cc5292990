"""Event files for TensorBoard, where the extra is installed."""

from __future__ import annotations

import os
from typing import Any

from microgrid.errors import MissingExtraError
from microgrid.training.history import Row


class EventFiles:
    """Every column of the history as a curve."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "tensorboard= writes event files by tensorboardX, which is not installed: pip install "
                "'microgrid-autodiff[tensorboard]'. log='run.csv' needs nothing"
            ) from None
        self.writer: Any = SummaryWriter(os.fspath(folder))

    def add(self, row: Row) -> None:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.writer.add_scalar(name, value, int(row["step"]))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
