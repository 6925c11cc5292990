"""Whether operations record what they do: no_grad, per thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

blocks_anywhere = 0  # read first: a plain global costs an operation next to nothing
_lock = threading.Lock()
_here = threading.local()


def is_recording() -> bool:
    """Whether operations in this thread record what they do.

    >>> import microgrid as mg
    >>> with mg.no_grad():
    ...     mg.is_recording()
    False
    """
    return not blocks_anywhere or not getattr(_here, "blocks", 0)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Compute without recording, in this thread; also a decorator.

    >>> import microgrid as mg
    >>> x = mg.tensor(3.0)
    >>> with mg.no_grad():
    ...     y = x * x
    >>> y.requires_grad, y.operands
    (False, ())
    """
    global blocks_anywhere
    with _lock:
        blocks_anywhere += 1
    _here.blocks = getattr(_here, "blocks", 0) + 1
    try:
        yield
    finally:
        _here.blocks -= 1
        with _lock:
            blocks_anywhere -= 1


@contextlib.contextmanager
def always() -> Iterator[None]:
    """Record in this thread, also inside `no_grad`: a gradient function needs the record it makes."""
    blocks = getattr(_here, "blocks", 0)
    _here.blocks = 0
    try:
        yield
    finally:
        _here.blocks = blocks
