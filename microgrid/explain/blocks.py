"""Arrays that are 0 but for slices: the adjoints of reading slices, whose sum is the array that joins them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from microgrid.explain.expression import Expression, is_number, number


def blocks(pieces: Iterable[tuple[int, int, Expression]], axis: int, shape: tuple[int, ...]) -> Expression:
    """The array of a shape that is 0 but for pieces (start, stop, expression) along an axis."""
    cuts, parts = [0], []
    for start, stop, piece in sorted(pieces, key=lambda piece: piece[0]):
        if start > cuts[-1]:
            parts.append(number(0))
            cuts.append(start)
        parts.append(piece)
        cuts.append(stop)
    if cuts[-1] < shape[axis]:
        parts.append(number(0))
        cuts.append(shape[axis])
    if len(parts) == 1:
        return parts[0]
    return Expression("blocks", str(axis), tuple(parts), cuts=tuple(cuts), shape=shape)


def merge(a: Expression, b: Expression) -> Expression | None:
    """The sum of two arrays of blocks, where no piece of one lies over a piece of the other."""
    if a.kind != "blocks" or b.kind != "blocks" or (a.word, a.shape) != (b.word, b.shape):
        return None
    pieces = sorted([*pieces_of(a), *pieces_of(b)], key=lambda piece: piece[0])
    if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(pieces)):
        return None
    return blocks(pieces, int(a.word), a.shape)


def pieces_of(e: Expression) -> list[tuple[int, int, Expression]]:
    spans = zip(itertools.pairwise(e.cuts), e.parts, strict=True)
    return [(start, stop, part) for (start, stop), part in spans if not is_number(part, 0)]
