"""executor="auto": a network that runs on NumPy at once, and as machine code as soon as that is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from microgrid.compiled.segments import Segments
from microgrid.compiled.whole import Whole

Parts = tuple[list[Any], list[Any], list[Any]]


class Moving:
    """A program that another one replaces when it has been made.

    Parameters
    ----------
    first : Whole or Segments
    make : callable
        Makes the other, in a thread of its own.
    """

    def __init__(self, first: Whole | Segments, make: Callable[[], Whole | Segments]) -> None:
        self.now = first
        self.ready = threading.Event()
        """Set when the other has taken over, or could not be made."""
        self.error: Exception | None = None
        threading.Thread(target=self.replace, args=(make,), name="microgrid compiler", daemon=True).start()

    def replace(self, make: Callable[[], Whole | Segments]) -> None:
        try:
            self.now = make()
        except Exception as error:  # whatever it is: there is a program that works
            self.error = error
        self.ready.set()

    def run(self, length: int, sequences: Mapping[str, Any], starts: Mapping[str, Any]) -> Parts:
        """The values of the outputs, of the gradients, and of the states after the last timestep."""
        return self.now.run(length, sequences, starts)
