"""What training takes its batches from: long sequences, sequences of equal and of different length, and texts.

`Windows`, `Minibatches`, `Buckets` and `Drawn` give `Batch`es; anything else may that is as `Batches` says.
"""

from microgrid.data.batch import Batch, Batches
from microgrid.data.buckets import Buckets, pad
from microgrid.data.drawn import Drawn
from microgrid.data.minibatches import Minibatches
from microgrid.data.split import split, split_in_time
from microgrid.data.vocabulary import Vocabulary
from microgrid.data.windows import Windows, folded

__all__ = [
    "Batch",
    "Batches",
    "Buckets",
    "Drawn",
    "Minibatches",
    "Vocabulary",
    "Windows",
    "folded",
    "pad",
    "split",
    "split_in_time",
]
