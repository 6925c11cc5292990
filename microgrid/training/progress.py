"""What people see while a network trains: a bar in a terminal or notebook, now and then a line in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Told of every step; shows what there is time for."""

    def step(self, epoch: int, numbers: Mapping[str, str]) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def __enter__(self) -> Progress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_for(wanted: bool | None, *, epochs: int, batches: int, done: int) -> Progress:
    """A bar where somebody can watch it, lines where not, silence if `wanted` is False."""
    if wanted is False or (sys.stderr is None and not wanted):
        return Silence()
    if wanted or in_notebook() or sys.stderr.isatty():
        return Bar(epochs, batches, done)
    return Lines(epochs, batches, done)


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    return found is not None and type(found).__name__ == "ZMQInteractiveShell"


class Silence:
    """No progress; only what must not be missed is said."""

    def step(self, epoch: int, numbers: Mapping[str, str]) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        if sys.stderr is not None:
            print(text, file=sys.stderr)

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class Bar:
    """A tqdm bar over all steps of all epochs."""

    def __init__(self, epochs: int, batches: int, done: int) -> None:
        from tqdm.auto import tqdm

        self.epochs = epochs
        self.latest: tuple[int, Mapping[str, str]] | None = None
        self.bar = tqdm(total=epochs * batches, initial=done, unit="step", dynamic_ncols=True, smoothing=0.1)
        self.shown = 0.0

    def step(self, epoch: int, numbers: Mapping[str, str]) -> None:
        now = time.monotonic()
        self.latest = epoch, numbers
        if now - self.shown > 0.1:  # seconds: words cost more than the count
            self.shown = now
            self.put_into_words()
        self.bar.update()

    def put_into_words(self) -> None:
        if self.latest is not None:
            epoch, numbers = self.latest
            self.bar.set_description_str(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str("  ".join(f"{name} {number}" for name, number in numbers.items()), refresh=False)

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        self.say(text)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.put_into_words()
        self.bar.refresh()
        self.bar.close()


class Lines:
    """A line every few seconds and at the end: what a log file can hold."""

    def __init__(self, epochs: int, batches: int, done: int) -> None:
        self.epochs, self.total, self.done, self.before = epochs, epochs * batches, done, done
        self.began = self.shown = time.monotonic()
        self.unsaid: tuple[int, Mapping[str, str]] | None = None

    def step(self, epoch: int, numbers: Mapping[str, str]) -> None:
        self.done += 1
        self.unsaid = epoch, numbers
        now = time.monotonic()
        if now - self.shown >= SECONDS_BETWEEN_LINES:
            self.put_into_words(now)

    def put_into_words(self, now: float) -> None:
        if self.unsaid is None:
            return
        epoch, numbers = self.unsaid
        self.unsaid = None
        self.shown = now
        rate = (self.done - self.before) / max(self.shown - self.began, 1e-9)
        left = (self.total - self.done) / rate
        shown = "  ".join(f"{name} {number}" for name, number in numbers.items())
        self.say(
            f"epoch {epoch + 1}/{self.epochs}  step {self.done}/{self.total}  {shown}  {rate:.3g} steps/s  "
            f"{clock(left)} left"
        )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.say(text)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        self.put_into_words(time.monotonic())


def clock(seconds: float) -> str:
    """Seconds as people read them.

    >>> clock(5), clock(65), clock(3700)
    ('5 s', '1:05 min', '1:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"
