"""Layers and losses: parts of a network with parameters of their own.

A layer called on a tensor that varies over time records its recurrence by itself, so what it gives is a graph with a
cycle: draw it, unroll it, compile it.
"""

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
