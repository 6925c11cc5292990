"""Recurrent: cells stacked in layers and run in one direction or both; RNN, LSTM and GRU are such."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from microgrid.counts import whole_number
from microgrid.errors import OperandError, OperandTypeError
from microgrid.leaves import Parameter
from microgrid.nn.arguments import Random, generator
from microgrid.nn.cell import Cell
from microgrid.nn.cells import FromTorch, GatedCell, GRUCell, LSTMCell, RNNCell, ToTorch
from microgrid.nn.dropout import Dropout
from microgrid.nn.module import Module, TakeTorch, check_varies
from microgrid.ops.shape import concatenate
from microgrid.tensor import Tensor


class Recurrent(Module, called="recurrent"):
    """Layers of a cell, stacked and, if asked for, in both directions of time.

    Parameters
    ----------
    cell : callable (input_size, hidden_size, rng=..., **settings) → Cell
        A subclass of `nn.Cell`, such as one's own.
    input_size, hidden_size : int
    num_layers : int
        Each layer above the first is given what the one below puts out.
    bidirectional : bool
        Run a second cell from the last timestep to the first beside each, and put out both, one after the other.
    dropout : float
        The rate of dropout between layers.
    rng : numpy.random.Generator, seed or None
        For the weights and the dropout masks.
    **settings
        For the cell.

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> lstm = mg.nn.LSTM(3, 16, num_layers=2, rng=0)
    >>> h = lstm(x)                             # (batch, hidden) at every timestep
    >>> h.shape, len(mg.Graph(h).cycles)
    ((8, 16), 2)
    >>> list(lstm.state_dict())
    ['lstm.0.W', 'lstm.0.U', 'lstm.0.b', 'lstm.1.W', 'lstm.1.U', 'lstm.1.b']
    """

    def __init__(
        self,
        cell: Callable[..., Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Random = None,
        **settings: Any,
    ) -> None:
        if isinstance(cell, Cell) or not callable(cell):
            raise OperandTypeError(f"nn.Recurrent takes a class of cells, such as nn.LSTMCell, not {cell!r:.60}")
        source = generator(rng)
        self.input_size, self.hidden_size = (
            whole_number("input_size", input_size),
            whole_number("hidden_size", hidden_size),
        )
        if dropout and whole_number("num_layers", num_layers) == 1:
            raise OperandError("dropout is between layers, and there is only one: use nn.Dropout after it")
        directions = ("forwards", "backwards") if bidirectional else ("",)
        self.cells: list[list[Cell]] = []
        for layer in range(whole_number("num_layers", num_layers)):
            inputs = self.input_size if layer == 0 else len(directions) * self.hidden_size
            row = [cell(inputs, self.hidden_size, rng=source, **settings) for _ in directions]
            for direction, each in zip(directions, row, strict=True):
                path = ([str(layer)] if num_layers > 1 else []) + ([direction] if direction else [])
                each.belong_to(self, ".".join(path) or None)
            self.cells.append(row)
        self.dropout = Dropout(dropout, rng=source)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:  # type: ignore[override]
        if more:
            raise OperandTypeError(
                f"{type(self).__name__} is called on its input alone: states start at 0, or where a run says, as in "
                "step(x=..., initial=run.state)"
            )
        check_varies(self, x)
        for number, row in enumerate(self.cells):
            if number:
                x = self.dropout(x)
            outputs = [cell(x, reverse=reverse) for cell, reverse in zip(row, (False, True), strict=False)]
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, axis=-1)
        return x

    def torch_layers(self) -> Iterator[tuple[GatedCell, str]]:
        """Each cell and the ending of its keys in PyTorch."""
        for layer, row in enumerate(self.cells):
            for cell, direction in zip(row, ("", "_reverse"), strict=False):
                if not isinstance(cell, GatedCell):
                    raise OperandError(f"PyTorch has no layer of {type(cell).__name__}")
                yield cell, f"_l{layer}{direction}"

    def read_torch(self, prefix: str, take: TakeTorch) -> Iterator[tuple[Parameter, np.ndarray[Any, Any]]]:
        for cell, suffix in self.torch_layers():
            found: FromTorch = cell.read_torch_layer(prefix, suffix, take)
            yield from found

    def write_torch(self, prefix: str) -> ToTorch:
        for cell, suffix in self.torch_layers():
            yield from cell.write_torch_layer(prefix, suffix)


class RNN(Recurrent, called="rnn"):
    """Layers of `nn.RNNCell`, h′ = tanh(x W + h U + b) or relu(...): (batch, input_size) → (batch, hidden_size).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
    nonlinearity : "tanh" or "relu"
    bidirectional, dropout, rng
        See `nn.Recurrent`.
    dtype : float dtype

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> mg.Graph(mg.nn.RNN(3, 16, rng=0)(x)).cycles
    [Cycle(rnn.h → matmul → add → tanh → rnn.h)]
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            *(RNNCell, input_size, hidden_size, num_layers),
            bidirectional=bidirectional,
            dropout=dropout,
            rng=rng,
            nonlinearity=nonlinearity,
            dtype=dtype,
        )


class LSTM(Recurrent, called="lstm"):
    """Layers of `nn.LSTMCell`, long short-term memory: (batch, input_size) → (batch, hidden_size).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
    forget_bias : float
    peepholes : bool
        See `nn.LSTMCell`.
    bidirectional, dropout, rng
        See `nn.Recurrent`.
    dtype : float dtype

    Examples
    --------
    >>> tokens = mg.input(np.array([3, 7]), name="tokens")
    >>> h = mg.nn.LSTM(32, 64)(mg.nn.Embedding(50, 32)(tokens))
    >>> sorted(mg.Graph(h).names[state] for state in mg.Graph(h).states)
    ['lstm.c', 'lstm.h']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        forget_bias: float = 1.0,
        peepholes: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            *(LSTMCell, input_size, hidden_size, num_layers),
            bidirectional=bidirectional,
            dropout=dropout,
            rng=rng,
            forget_bias=forget_bias,
            peepholes=peepholes,
            dtype=dtype,
        )


class GRU(Recurrent, called="gru"):
    """Layers of `nn.GRUCell`, the gated recurrent unit: (batch, input_size) → (batch, hidden_size).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
    reset_after : bool
    update_bias : float
        See `nn.GRUCell`.
    bidirectional, dropout, rng
        See `nn.Recurrent`.
    dtype : float dtype

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> mg.nn.GRU(3, 16, bidirectional=True, rng=0)(x).shape
    (8, 32)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        update_bias: float = 0.0,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            *(GRUCell, input_size, hidden_size, num_layers),
            bidirectional=bidirectional,
            dropout=dropout,
            rng=rng,
            reset_after=reset_after,
            update_bias=update_bias,
            dtype=dtype,
        )
