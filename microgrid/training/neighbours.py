"""Each batch with the one after it, which says where the states are to be taken."""

from __future__ import annotations

from collections.abc import Iterator

from microgrid.data.batch import Batch
from microgrid.errors import SequenceError


def with_next(batches: Iterator[Batch]) -> Iterator[tuple[Batch, Batch | None]]:
    """Each batch with the one after it."""
    before: Batch | None = None
    for batch in batches:
        if not isinstance(batch, Batch):
            raise SequenceError(
                f"the data gives one mg.data.Batch({{...}}) after the other, not {type(batch).__name__}"
            )
        if before is not None:
            yield before, batch
        before = batch
    if before is not None:
        yield before, None
