"""Layers and losses: parts of a network with parameters of their own.

A layer called on a tensor that varies over time records its recurrence by itself, so what it gives is a graph with a
cycle: draw it, unroll it, compile it.
"""

from typing import Any

from microgrid.nn import init
from microgrid.nn.cell import Cell
from microgrid.nn.cells import GRUCell, LSTMCell, RNNCell
from microgrid.nn.dropout import Dropout
from microgrid.nn.linear import Embedding, Linear
from microgrid.nn.losses import accuracy, binary_cross_entropy, cross_entropy, huber, mae, mse
from microgrid.nn.module import Module
from microgrid.nn.norm import LayerNorm
from microgrid.nn.recurrent import GRU, LSTM, RNN, Recurrent
from microgrid.nn.sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "Module",
    "RNNCell",
    "Recurrent",
    "Sequential",
    "accuracy",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "init",
    "mae",
    "mse",
]

ELSEWHERE = {
    "CrossEntropyLoss": "nn.cross_entropy(logits, target)",
    "MSELoss": "nn.mse(prediction, target)",
    "L1Loss": "nn.mae(prediction, target)",
    "HuberLoss": "nn.huber(prediction, target)",
    "BCEWithLogitsLoss": "nn.binary_cross_entropy(logits, target)",
    "Tanh": "mg.tanh, which nn.Sequential takes as it is",
    "ReLU": "mg.relu, which nn.Sequential takes as it is",
    "Sigmoid": "mg.sigmoid, which nn.Sequential takes as it is",
    "GELU": "mg.gelu, which nn.Sequential takes as it is",
    "Parameter": "mg.parameter(value)",
    "ModuleList": "a list of modules as an attribute",
    "functional": "the functions of mg and mg.nn",
}
"""What people who know PyTorch look for here, and what it is called."""


def __getattr__(name: str) -> Any:
    hint = f": use {ELSEWHERE[name]}" if name in ELSEWHERE else ""
    raise AttributeError(f"module 'microgrid.nn' has no attribute {name!r}{hint}")
