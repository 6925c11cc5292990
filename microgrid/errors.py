"""Every error a user can meet, each also the built-in exception that fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MicrogridError(Exception):
    """Base of all errors raised by microgrid and viz."""


class OperandError(MicrogridError, ValueError):
    """An operation cannot compute with the shapes or values it was given."""


class OperandTypeError(MicrogridError, TypeError):
    """An operation was given something that is no array of numbers, or that NumPy cannot combine."""


class OperandIndexError(MicrogridError, IndexError):
    """An index or axis lies outside the array."""


class UnsupportedFunctionError(MicrogridError, TypeError):
    """A NumPy function was called on a Tensor and microgrid has no primitive for it."""


class GradientError(MicrogridError, ValueError):
    """A gradient was asked for where none exists, or with a seed that does not fit."""


class CyclicGraphError(MicrogridError, RuntimeError):
    """Plain backpropagation was asked for on a graph with a cycle."""


class CausalityError(MicrogridError, ValueError):
    """A step would need a value that is only known once the whole sequence has run."""


class StateError(MicrogridError, ValueError):
    """A state has no `next`, a second `next`, or a `next` of another shape or dtype."""


class NameClashError(MicrogridError, ValueError):
    """Two different nodes of one graph carry the same name."""


class UnknownNameError(MicrogridError, KeyError):
    """No node, input or state of that name exists in the graph."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class SequenceError(MicrogridError, ValueError):
    """The sequences given to a graph do not fit it or each other."""


class TimestepError(MicrogridError, IndexError):
    """A timestep outside the unrolled graph was asked for."""


class NotFiniteError(MicrogridError, ArithmeticError):
    """A NaN or an infinity appeared in a value or a gradient."""


class GradientCheckError(MicrogridError, AssertionError):
    """A gradient disagrees with central differences."""


class MissingExtraError(MicrogridError, ImportError):
    """Something was asked for that an optional package does, which is not installed."""


class FileFormatError(MicrogridError, ValueError):
    """A file is not what it should be, or something cannot be held by a file."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known name, or lists the known ones.

    >>> did_you_mean("targe", ["x", "target"])
    "Did you mean 'target'?"
    >>> did_you_mean("q", ["x", "target"])
    "Known: 'x', 'target'."
    """
    names = list(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    if nearest:
        return f"Did you mean {nearest[0]!r}?"
    shown = ", ".join(repr(name) for name in names[:12])
    return f"Known: {shown}{', …' if len(names) > 12 else ''}." if names else "There are none."
