"""Optimisers change parameters by their gradients; beside them, clipping of gradients and learning rate schedules."""

from microgrid.optim.adam import Adam, AdamW
from microgrid.optim.clip import clip_grad_norm, clip_grad_value
from microgrid.optim.optimiser import Optimiser
from microgrid.optim.rmsprop import RMSprop
from microgrid.optim.schedule import Cosine, Step, WarmUp
from microgrid.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "Optimiser",
    "RMSprop",
    "Step",
    "WarmUp",
    "clip_grad_norm",
    "clip_grad_value",
]
