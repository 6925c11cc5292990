"""The cells of the literature: tanh and ReLU RNN, LSTM, GRU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from microgrid.counts import whole_number
from microgrid.errors import OperandError
from microgrid.leaves import Parameter, parameter
from microgrid.nn.arguments import Random, float_dtype, generator
from microgrid.nn.cell import Cell
from microgrid.nn.init import glorot, orthogonal
from microgrid.nn.module import TakeTorch
from microgrid.ops.elementwise import relu, sigmoid, tanh
from microgrid.ops.shape import split
from microgrid.tensor import Tensor

FromTorch = Iterator[tuple[Parameter, np.ndarray[Any, Any]]]
ToTorch = Iterator[tuple[str, np.ndarray[Any, Any]]]


class GatedCell(Cell):
    """What the cells here share: W for the input, U for the state and b, the columns of all gates side by side."""

    gates: ClassVar[int]
    torch_order: ClassVar[Sequence[int]] = ()
    """Which of PyTorch's gates each own one is, where the order is another; its own inverse."""

    def set_up(self, input_size: int, hidden_size: int, rng: Random, dtype: npt.DTypeLike) -> None:
        self.input_size, self.hidden_size = (
            whole_number("input_size", input_size),
            whole_number("hidden_size", hidden_size),
        )
        source, columns, dtype = generator(rng), self.gates * hidden_size, float_dtype(dtype)
        self.W = parameter(glorot((input_size, columns), source, dtype, self.gates))
        self.U = parameter(orthogonal((hidden_size, columns), source, dtype, self.gates))
        self.b = parameter(np.zeros(columns, dtype))

    def from_input(self, x: Tensor) -> Tensor:
        """What the input gives to all gates."""
        return x @ self.W + self.b

    def read_torch_layer(self, prefix: str, suffix: str, take: TakeTorch) -> FromTorch:
        """The parameters from PyTorch's of one layer and direction, whose keys end in `suffix`."""
        rows = self.gates * self.hidden_size
        yield self.W, self.reordered(take(f"{prefix}weight_ih{suffix}", (rows, self.input_size)).T)
        yield self.U, self.reordered(take(f"{prefix}weight_hh{suffix}", (rows, self.hidden_size)).T)
        bias = take(f"{prefix}bias_ih{suffix}", (rows,)) + take(f"{prefix}bias_hh{suffix}", (rows,))
        yield self.b, self.reordered(bias)

    def write_torch_layer(self, prefix: str, suffix: str) -> ToTorch:
        yield f"{prefix}weight_ih{suffix}", np.array(self.reordered(self.W.value).T)
        yield f"{prefix}weight_hh{suffix}", np.array(self.reordered(self.U.value).T)
        yield f"{prefix}bias_ih{suffix}", np.array(self.reordered(self.b.value))
        yield f"{prefix}bias_hh{suffix}", np.zeros_like(self.b.value)

    def reordered(self, columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The columns of the gates from PyTorch's order to the own, or back."""
        if not self.torch_order:
            return columns
        parts = np.split(columns, self.gates, axis=-1)
        return np.concatenate([parts[gate] for gate in self.torch_order], axis=-1)

    def read_torch(self, prefix: str, take: TakeTorch) -> FromTorch:
        yield from self.read_torch_layer(prefix, "", take)

    def write_torch(self, prefix: str) -> ToTorch:
        yield from self.write_torch_layer(prefix, "")


class RNNCell(GatedCell, called="rnncell"):
    """h′ = tanh(x W + h U + b), or relu(...).

    Parameters
    ----------
    input_size, hidden_size : int
    nonlinearity : "tanh" or "relu"
    rng : numpy.random.Generator, seed or None
        W starts by `init.glorot`, U by `init.orthogonal`, b at 0.
    dtype : float dtype

    Source: J. L. Elman, Finding structure in time (1990).

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> mg.nn.RNNCell(3, 16, rng=0)(x).shape
    (8, 16)
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise OperandError(f"the nonlinearity of an RNN is 'tanh' or 'relu', not {nonlinearity!r}")
        self.activation = tanh if nonlinearity == "tanh" else relu
        self.set_up(input_size, hidden_size, rng, dtype)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return self.activation(self.from_input(x) + h @ self.U)


class LSTMCell(GatedCell, called="lstmcell"):
    """Long short-term memory: a cell state c behind an input, a forget and an output gate.

    With z = x W + h U + b, cut into four: c′ = σ(z_f) c + σ(z_i) tanh(z_g), h′ = σ(z_o) tanh(c′).

    Parameters
    ----------
    input_size, hidden_size : int
    forget_bias : float
        Where the bias of the forget gate starts; with 1 the cell remembers at first.
    peepholes : bool
        Let the gates see the cell state: P_i and P_f times c are added to z_i and z_f, P_o times c′ to z_o.
    rng : numpy.random.Generator, seed or None
        W starts by `init.glorot`, U by `init.orthogonal`, the other biases and the peepholes at 0.
    dtype : float dtype

    Attributes
    ----------
    W : Parameter, (input_size, 4 · hidden_size)
        The columns of the gates i, f, o and of g, in this order: with the three sigmoids side by side, a compiled
        network computes them in one sweep. PyTorch's order is i, f, g, o.
    U : Parameter, (hidden_size, 4 · hidden_size)
    b : Parameter, (4 · hidden_size,)
    P_i, P_f, P_o : Parameter, (hidden_size,), with peepholes

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory (1997); the forget gate and peepholes:
    F. A. Gers, N. N. Schraudolph and J. Schmidhuber, Learning precise timing with LSTM recurrent networks
    (2002); its bias: R. Jozefowicz, W. Zaremba and I. Sutskever, An empirical exploration of recurrent network
    architectures (2015).

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> h = mg.nn.LSTMCell(3, 16, peepholes=True, rng=0)(x)
    >>> [state.name for state in mg.Graph(h).states]
    ['lstmcell.h', 'lstmcell.c']
    """

    gates = 4
    torch_order = (0, 1, 3, 2)
    states = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        peepholes: bool = False,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.set_up(input_size, hidden_size, rng, dtype)
        self.b.value[hidden_size : 2 * hidden_size] = forget_bias
        self.peepholes = peepholes
        if peepholes:
            self.P_i, self.P_f, self.P_o = (parameter(np.zeros(hidden_size, dtype)) for _ in range(3))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> Sequence[Tensor]:  # type: ignore[override]
        z_i, z_f, z_o, z_g = split(self.from_input(x) + h @ self.U, 4, axis=-1)
        if self.peepholes:
            z_i, z_f = z_i + self.P_i * c, z_f + self.P_f * c
        i, f, g = sigmoid(z_i).named("i"), sigmoid(z_f).named("f"), tanh(z_g).named("g")
        c_next = f * c + i * g
        if self.peepholes:
            z_o = z_o + self.P_o * c_next
        return sigmoid(z_o).named("o") * tanh(c_next), c_next

    def read_torch_layer(self, prefix: str, suffix: str, take: TakeTorch) -> FromTorch:
        self.refuse_peepholes()
        yield from super().read_torch_layer(prefix, suffix, take)

    def write_torch_layer(self, prefix: str, suffix: str) -> ToTorch:
        self.refuse_peepholes()
        yield from super().write_torch_layer(prefix, suffix)

    def refuse_peepholes(self) -> None:
        if self.peepholes:
            raise OperandError("PyTorch has no LSTM with peepholes: make the layer without them")


class GRUCell(GatedCell, called="grucell"):
    """Gated recurrent unit: h′ = (1 − z) n + z h, with an update gate z, a reset gate r and new content n.

    With `reset_after`, as in PyTorch and cuDNN, n = tanh(x W_n + b_n + r (h U_n + b_h)); without, as in the first
    paper, n = tanh(x W_n + b_n + (r h) U_n).

    Parameters
    ----------
    input_size, hidden_size : int
    reset_after : bool
    update_bias : float
        Where the bias of the update gate starts; above 0 the cell remembers at first.
    rng : numpy.random.Generator, seed or None
        W starts by `init.glorot`, U by `init.orthogonal`, the biases at 0.
    dtype : float dtype

    Attributes
    ----------
    W : Parameter, (input_size, 3 · hidden_size)
        The columns of r, z, n, in this order, which is PyTorch's.
    U : Parameter, (hidden_size, 3 · hidden_size)
    b : Parameter, (3 · hidden_size,)
    b_h : Parameter, (hidden_size,), with reset_after

    Source: K. Cho et al., Learning phrase representations using RNN encoder–decoder for statistical machine
    translation (2014).

    Examples
    --------
    >>> x = mg.input(np.zeros((8, 3)), name="x")
    >>> mg.nn.GRUCell(3, 16, reset_after=False, rng=0)(x).shape
    (8, 16)
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset_after: bool = True,
        update_bias: float = 0.0,
        rng: Random = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.set_up(input_size, hidden_size, rng, dtype)
        self.b.value[hidden_size : 2 * hidden_size] = update_bias
        self.reset_after = reset_after
        if reset_after:
            self.b_h = parameter(np.zeros(hidden_size, dtype))

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        count = self.hidden_size
        given = self.from_input(x)
        if self.reset_after:
            of_state = h @ self.U
            gates = sigmoid(given[..., : 2 * count] + of_state[..., : 2 * count])
            r, z = (gate.named(name) for gate, name in zip(split(gates, 2, axis=-1), "rz", strict=True))
            n = tanh(given[..., 2 * count :] + r * (of_state[..., 2 * count :] + self.b_h))
        else:
            gates = sigmoid(given[..., : 2 * count] + h @ self.U[:, : 2 * count])
            r, z = (gate.named(name) for gate, name in zip(split(gates, 2, axis=-1), "rz", strict=True))
            n = tanh(given[..., 2 * count :] + (r * h) @ self.U[:, 2 * count :])
        return (1 - z) * n.named("n") + z * h

    def read_torch_layer(self, prefix: str, suffix: str, take: TakeTorch) -> FromTorch:
        self.refuse_reset_before()
        count = self.hidden_size
        (*weights, (_, bias)) = super().read_torch_layer(prefix, suffix, take)
        inner = take(f"{prefix}bias_hh{suffix}", (3 * count,))[2 * count :]
        yield from weights
        yield self.b, np.concatenate([bias[: 2 * count], take(f"{prefix}bias_ih{suffix}", (3 * count,))[2 * count :]])
        yield self.b_h, inner

    def write_torch_layer(self, prefix: str, suffix: str) -> ToTorch:
        self.refuse_reset_before()
        for key, array in super().write_torch_layer(prefix, suffix):
            if key == f"{prefix}bias_hh{suffix}":
                array[2 * self.hidden_size :] = self.b_h.value
            yield key, array

    def refuse_reset_before(self) -> None:
        if not self.reset_after:
            raise OperandError("PyTorch's GRU applies the reset gate after the product: make it with reset_after=True")
