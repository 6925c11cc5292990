"""Scopes: parts of a network, such as its layers, whose nodes carry the part's name."""

from __future__ import annotations

import threading
from typing import Any

from microgrid import recording
from microgrid.errors import OperandTypeError

_here = threading.local()


class Scope:
    """A part of a network: nodes that are named inside `with mg.scope(...)` carry its name, as in "encoder.h".

    All that is recorded inside belongs to the part: `viz.draw(net, level="cell")` draws it as one box. Two scopes of
    one name are two parts: a graph that holds both calls them "encoder_1" and "encoder_2".

    Parameters
    ----------
    name : str or None
        Without a name, a scope groups nodes but adds nothing to their names.

    Examples
    --------
    >>> with mg.scope("encoder"):
    ...     h = mg.state(0.0, name="h")
    >>> h.name
    'encoder.h'
    """

    __slots__ = ("_around", "name", "parent")

    def __init__(self, name: str | None) -> None:
        if name is not None and not isinstance(name, str):
            raise OperandTypeError(f"a scope's name is a string, not {type(name).__name__} {name!r}")
        self.name = name
        self.parent = current_scope()
        self._around: list[Scope | None] = []

    def __enter__(self) -> Scope:
        self._around.append(current_scope())
        recording.count_special(1)  # operations ask for their scope
        _here.scope = self
        return self

    def __exit__(self, *_: Any) -> None:
        _here.scope = self._around.pop()
        recording.count_special(-1)

    @property
    def path(self) -> list[Scope]:
        """The scopes from the outermost to this one."""
        found: list[Scope] = []
        scope: Scope | None = self
        while scope is not None and scope not in found:
            found.append(scope)
            scope = scope.parent
        return found[::-1]

    def __str__(self) -> str:
        return ".".join([scope.name for scope in self.path if scope.name])

    def __repr__(self) -> str:
        return f"Scope({str(self)!r})"


def current_scope() -> Scope | None:
    """The innermost scope in which this thread is."""
    found: Scope | None = getattr(_here, "scope", None)
    return found
