"""Training: `mg.fit`, a loop that people can watch, stop, resume and trust."""

from microgrid.training.evaluate import evaluate
from microgrid.training.fit import fit
from microgrid.training.history import History

__all__ = ["History", "evaluate", "fit"]
