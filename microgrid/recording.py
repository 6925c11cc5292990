"""Whether operations record what they do, and compute it: no_grad and outlines, per thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

special_anywhere = 0
"""In how many places recording is not the usual; read first: a plain global costs an operation next to nothing."""
_lock = threading.Lock()
_here = threading.local()


def is_recording() -> bool:
    """Whether operations in this thread record what they do.

    >>> import microgrid as mg
    >>> with mg.no_grad():
    ...     mg.is_recording()
    False
    """
    return not special_anywhere or not getattr(_here, "blocks", 0)


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
    with special("blocks"):
        yield


@contextlib.contextmanager
def outlines() -> Iterator[None]:
    """Record without computing, in this thread: large values are of the right shape and dtype, and no more."""
    with special("outlines"):
        yield


def is_outlining() -> bool:
    return bool(getattr(_here, "outlines", 0))


@contextlib.contextmanager
def special(mode: str) -> Iterator[None]:
    """Enter a mode in this thread, in which every operation asks how it is to be recorded."""
    count_special(1)
    setattr(_here, mode, getattr(_here, mode, 0) + 1)
    try:
        yield
    finally:
        setattr(_here, mode, getattr(_here, mode) - 1)
        count_special(-1)


def count_special(change: int) -> None:
    """One place more, or less, in which recording is not the usual."""
    global special_anywhere
    with _lock:
        special_anywhere += change


@contextlib.contextmanager
def always() -> Iterator[None]:
    """Record in this thread, also inside `no_grad`: a gradient function needs the record it makes."""
    blocks = getattr(_here, "blocks", 0)
    _here.blocks = 0
    try:
        yield
    finally:
        _here.blocks = blocks
