"""Symbols: what each line of the equations is called, so that no two look alike."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from microgrid.explain.typeset import latex_name, printable

SPARE = {
    "node": "agkmpqrsuvwz",  # without those that mathematics or the field have given away
    "output": "yo",
    "adjoint": "δεζηκλμνρ",
    "constant": "CDEF",
    "given": "GHJ",
}
TIMES = "tτsk"
LENGTHS = "TNLS"


def without_scopes(names: Collection[str], scoped: Iterable[str]) -> dict[str, str]:
    """The scoped names with no more of the parts of the network before them than tells them from all others.

    >>> without_scopes(["x", "lstm.W", "net.one.h", "net.two.h"], ["lstm.W", "net.one.h", "net.two.h"])
    {'lstm.W': 'W', 'net.one.h': 'one.h', 'net.two.h': 'two.h'}
    """
    ends = {name: [".".join(name.split(".")[i:]) for i in range(name.count("."), -1, -1)] for name in names}
    counts = Counter(end for each in ends.values() for end in each)
    shortest = {name: next((end for end in ends[name] if end and counts[end] == 1), name) for name in scoped}
    return {name: printable(end) for name, end in shortest.items()}


class Symbols:
    """The names in use, and new ones beside them.

    Parameters
    ----------
    names : collection of str
        The names that the user gave.
    scoped : iterable of str
        Those with the name of a part of the network before them.
    """

    def __init__(self, names: Collection[str], scoped: Iterable[str] = ()) -> None:
        self.short = without_scopes(names, scoped)
        self.plain: dict[str, str] = {}
        self.taken: set[str | tuple[str, str]] = set()
        for name in names:
            self.take(name)
        self.t = next((c for c in TIMES if c not in self.taken), "t")
        self.T = next((c for c in LENGTHS if c not in self.taken), "T")
        self.taken |= {self.t, self.T}
        self.spare = {kind: self.unused(letters) for kind, letters in SPARE.items()}

    def take(self, name: str) -> str:
        """A user's name as it is printed; with a prime where another, such as W_1 beside W1, looks the same."""
        if name not in self.plain:
            text = self.short.get(name) or printable(name)
            while text in self.taken or latex_name(text) in self.taken:
                text += "′"
            self.taken |= {text, latex_name(text)}
            self.plain[name] = text
        return self.plain[name]

    def unused(self, letters: str) -> Iterator[str]:
        numbered = (f"{letters[0]}{n}" for n in itertools.count(1))
        return (
            s for s in itertools.chain(letters, numbered) if s not in self.taken and latex_name(s) not in self.taken
        )

    def new(self, kind: str) -> str:
        """A short name that nothing else has."""
        name = next(self.spare[kind])
        self.taken |= {name, latex_name(name)}
        return name
