"""Vocabulary: symbols of a text, characters or tokens, and the numbers that stand for them in a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.data.given import Array, number_array, whole_number
from microgrid.errors import SequenceError

Text = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Symbols and their numbers, 0 to len(vocabulary) − 1. Made by `of_characters` or `of_tokens`.

    Special symbols come first, in the order below, so that padding is 0, as in `pad`.

    Attributes
    ----------
    symbols : tuple of str
        By their numbers.
    characters : bool
        Whether a text is a str, of which each character is a symbol; otherwise it is a list of tokens.
    padding, start, end, unknown : str, optional
        Special symbols: what fills up a text, begins and ends each, and stands for those not in the vocabulary.

    Examples
    --------
    >>> vocabulary = mg.data.Vocabulary.of_characters(["hello", "world"], end="<end>")
    >>> vocabulary.symbols
    ('<end>', 'd', 'e', 'h', 'l', 'o', 'r', 'w')
    >>> vocabulary.encode("red")
    array([6, 2, 1, 0])
    >>> vocabulary.decode([6, 2, 1, 0])
    'red'
    >>> len(vocabulary), "d" in vocabulary, vocabulary.number("<end>")
    (8, True, 0)
    """

    symbols: tuple[str, ...]
    characters: bool
    padding: str | None = None
    start: str | None = None
    end: str | None = None
    unknown: str | None = None
    numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for symbol in self.symbols:
            if not isinstance(symbol, str) or not symbol:
                raise SequenceError(f"a symbol is a str of at least one character, not {symbol!r:.60}")
        object.__setattr__(self, "numbers", {symbol: i for i, symbol in enumerate(self.symbols)})
        repeated = [symbol for symbol, n in Counter(self.symbols).items() if n > 1]
        if repeated:
            raise SequenceError(f"{repeated[0]!r} is twice in the vocabulary: special symbols need names of their own")
        missing = [symbol for symbol in self.special if symbol not in self.numbers]
        if missing:
            raise SequenceError(f"the special symbol {missing[0]!r} is not among the symbols")

    @classmethod
    def of_characters(
        cls,
        texts: Iterable[str],
        *,
        padding: str | None = None,
        start: str | None = None,
        end: str | None = None,
        unknown: str | None = None,
    ) -> Vocabulary:
        """The characters of texts, sorted.

        Raises SequenceError if there are none, or a special symbol is among them.

        >>> mg.data.Vocabulary.of_characters(["to", "be"]).symbols
        ('b', 'e', 'o', 't')
        """
        special = given_symbols(padding, start, end, unknown)
        found: set[str] = set()
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise SequenceError(f"of_characters takes texts, but number {i} is {text!r:.60}: use of_tokens")
            found.update(text)
        if not found:
            raise SequenceError("of_characters was given no characters: the texts are empty")
        return cls((*special, *sorted(found)), True, padding, start, end, unknown)

    @classmethod
    def of_tokens(
        cls,
        texts: Iterable[Sequence[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        padding: str | None = None,
        start: str | None = None,
        end: str | None = None,
        unknown: str | None = None,
    ) -> Vocabulary:
        """The tokens of texts, the most frequent first.

        Of those seen at least `min_count` times, as many of the most frequent are taken as make a vocabulary of
        `max_size` symbols, the special ones included. Texts may hold the unknown symbol themselves.

        Raises SequenceError if there are none, or a special symbol is among them.

        >>> texts = [line.split() for line in ["the cat", "the dog and the cat"]]
        >>> mg.data.Vocabulary.of_tokens(texts, min_count=2, unknown="<unk>").symbols
        ('<unk>', 'the', 'cat')
        """
        special = given_symbols(padding, start, end, unknown)
        whole_number("min_count", min_count, least=1)
        counts: Counter[str] = Counter()
        for i, text in enumerate(texts):
            check_tokens(text, f"text {i}")
            counts.update(text)
        if unknown is not None:
            counts.pop(unknown, None)
        by_count = sorted(counts, key=lambda token: (-counts[token], token))
        frequent = [token for token in by_count if counts[token] >= min_count]
        if not frequent:
            raise SequenceError(f"none of the {len(counts)} different tokens was found at least {min_count=} times")
        if max_size is not None:
            frequent = frequent[: whole_number("max_size", max_size, least=len(special) + 1) - len(special)]
        return cls((*special, *frequent), False, padding, start, end, unknown)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary of which `to_dict` gave the entries."""
        known = [each.name for each in fields(cls) if each.init]
        if not isinstance(entries, Mapping) or set(entries) != set(known):
            found = ", ".join(map(str, entries)) if isinstance(entries, Mapping) else repr(entries)[:60]
            raise SequenceError(f"a vocabulary has the entries {', '.join(known)}, but found {found}")
        return cls(**{**entries, "symbols": tuple(entries["symbols"])})

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as lists and strings, for JSON.

        >>> vocabulary = mg.data.Vocabulary.of_characters("ab")
        >>> mg.data.Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary
        True
        """
        entries = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return {**entries, "symbols": list(self.symbols)}

    def __len__(self) -> int:
        """How many symbols there are, special ones included: the rows of an embedding."""
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self.numbers

    @property
    def special(self) -> tuple[str, ...]:
        """The special symbols that there are."""
        return given_symbols(self.padding, self.start, self.end, self.unknown)

    def number(self, symbol: str) -> int:
        """The number of a symbol. Raises SequenceError if it is not in the vocabulary."""
        if symbol not in self.numbers:
            raise SequenceError(f"{symbol!r} is not in the vocabulary of {len(self)} symbols")
        return self.numbers[symbol]

    def encode(self, text: Text) -> npt.NDArray[np.int64]:
        """The numbers of a text's symbols, between those of start and end where there are such: (time,).

        Raises SequenceError if the text is of the other kind, holds padding, start or end itself, or a symbol that
        is not in the vocabulary, where no unknown symbol stands for it.

        >>> mg.data.Vocabulary.of_tokens([["to", "be"]], start="<s>").encode(["be", "to"])
        array([0, 1, 2])
        """
        if not self.characters:
            check_tokens(text, "the text")
        elif not isinstance(text, str):
            raise SequenceError(f"this is a vocabulary of characters: encode takes a str, not {type(text).__name__}")
        reserved = given_symbols(self.padding, self.start, self.end)
        stand_in = None if self.unknown is None else self.numbers[self.unknown]
        numbers = []
        for position, symbol in enumerate(text):
            if symbol in reserved:
                raise SequenceError(
                    f"the text holds the special symbol {symbol!r} at position {position}; encode adds it by itself"
                )
            number = self.numbers.get(symbol, stand_in)
            if number is None:
                raise SequenceError(
                    f"{symbol!r} at position {position} is not in the vocabulary of {len(self)} symbols. Make the "
                    "vocabulary of all texts, or with a symbol for such, as in unknown='<unk>'"
                )
            numbers.append(number)
        before, after = ([self.numbers[each] for each in given_symbols(end)] for end in (self.start, self.end))
        return np.array([*before, *numbers, *after], np.int64)

    def decode(self, numbers: npt.ArrayLike) -> Any:
        """The text that numbers of shape (time,) stand for, without padding, start and end; a list for (batch, time).

        A text is a str from a vocabulary of characters, otherwise a list of tokens. Raises SequenceError for what is
        no number of a symbol.

        >>> mg.data.Vocabulary.of_tokens([["to", "be"]]).decode([1, 0])
        ['to', 'be']
        """
        array = number_array("the numbers to decode", numbers)
        if array.ndim == 2:
            return [self.decode(row) for row in array]
        found = self.checked(array)
        hidden = given_symbols(self.padding, self.start, self.end)
        symbols = [symbol for symbol in (self.symbols[i] for i in found) if symbol not in hidden]
        return "".join(symbols) if self.characters else symbols

    def checked(self, numbers: Array) -> Array:
        """Numbers of symbols: whole, in one row, and in range."""
        if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and numbers.size):
            raise SequenceError(
                f"decode takes whole numbers of shape (time,) or (batch, time), not {numbers.dtype} of shape "
                f"{numbers.shape}"
            )
        outside = np.flatnonzero((numbers < 0) | (numbers >= len(self)))
        if outside.size:
            raise SequenceError(
                f"{numbers[outside[0]]} at position {outside[0]} is the number of no symbol: they go from 0 to "
                f"{len(self) - 1}"
            )
        return numbers.astype(np.int64)


def given_symbols(*symbols: str | None) -> tuple[str, ...]:
    """Those of special symbols that are given.

    >>> given_symbols("<pad>", None)
    ('<pad>',)
    """
    return tuple(symbol for symbol in symbols if symbol is not None)


def check_tokens(text: Any, what: str) -> None:
    """Refuse a text that is no list of tokens."""
    if isinstance(text, str) or not isinstance(text, Iterable):
        raise SequenceError(
            f"{what} is {text!r:.60}, but a vocabulary of tokens takes lists of them: split it, as in text.split()"
        )
    for position, token in enumerate(text):
        if not isinstance(token, str):
            raise SequenceError(f"{what} has {token!r:.60} at position {position}, but tokens are str")
