"""Ctrl-C: the first asks for an end after the batch at hand, the second ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Within `with`, whether somebody pressed Ctrl-C; pressed again, it interrupts as usual."""

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None
        self.here = threading.current_thread() is threading.main_thread()  # only there may a signal be handled

    def __enter__(self) -> Interrupt:
        if self.here:
            self.before = signal.signal(signal.SIGINT, self.ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.here:
            signal.signal(signal.SIGINT, self.before if self.before is not None else signal.default_int_handler)

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
