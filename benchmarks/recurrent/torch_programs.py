"""torch: its own recurrent layers, a loop over a cell, and the same loop over the compiled cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .cases import NORM_EPS, Array, Arrays, Case, Program, Step, named

Cell = Callable[..., tuple[torch.Tensor, ...]]


def torch_nn(case: Case) -> Program:
    """torch.nn.RNN, LSTM or GRU."""
    _, _, features, hidden = case.size
    layer = getattr(torch.nn, case.cell)(features, hidden)
    x = torch.from_numpy(case.inputs)
    weights = case.weights
    torch_order = columns(case.cell, hidden)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(weights["W"].T[torch_order]))
        layer.weight_hh_l0.copy_(torch.from_numpy(weights["U"].T[torch_order]))
        if case.cell == "GRU":
            layer.bias_ih_l0.copy_(torch.from_numpy(weights["b_ih"]))
            layer.bias_hh_l0.copy_(torch.from_numpy(weights["b_hh"]))
        else:  # the layer adds two biases; each has the gradient of the one that the others have
            layer.bias_ih_l0.copy_(torch.from_numpy(weights["b"][torch_order]))
            layer.bias_hh_l0.zero_()
    case_order = np.argsort(torch_order)

    def step() -> torch.Tensor:
        for parameter in layer.parameters():
            parameter.grad = None
        h, _ = layer(x)
        loss = (h**2).mean()
        loss.backward()
        return loss.detach()

    def gradients(loss: torch.Tensor) -> Arrays:
        ih, hh = (array.grad.numpy()[case_order].T for array in (layer.weight_ih_l0, layer.weight_hh_l0))
        biases = [bias.grad.numpy()[case_order] for bias in (layer.bias_ih_l0, layer.bias_hh_l0)]
        names = ["b_ih", "b_hh"] if case.cell == "GRU" else ["b"]
        return {"loss": loss.numpy(), "W": ih, "U": hh, **dict(zip(names, biases, strict=False))}

    return Program(lambda: step, gradients)


def columns(cell: str, hidden: int) -> Array:
    """The columns of `Case.weights` in torch's order: an LSTM's gates are i, f, g, o there."""
    gates = {"RNN": (0,), "LSTM": (0, 1, 3, 2), "GRU": (0, 1, 2)}[cell]
    return np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in gates])


def rnn(p: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (torch.tanh(functional.linear(x, p["W"], p["b"]) + functional.linear(h, p["U"])),)


def lstm(p: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    i, f, o, g = (functional.linear(x, p["W"], p["b"]) + functional.linear(h, p["U"])).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(p: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a_r, a_z, a_n = functional.linear(x, p["W"], p["b_ih"]).chunk(3, dim=1)
    q_r, q_z, q_n = functional.linear(h, p["U"], p["b_hh"]).chunk(3, dim=1)
    z = torch.sigmoid(a_z + q_z)
    n = torch.tanh(a_n + torch.sigmoid(a_r + q_r) * q_n)
    return ((1 - z) * n + z * h,)


def peephole(p: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    i, f, o, g = (functional.linear(x, p["W"], p["b"]) + functional.linear(h, p["U"])).chunk(4, dim=1)
    c_next = torch.sigmoid(f + p["p_f"] * c) * c + torch.sigmoid(i + p["p_i"] * c) * torch.tanh(g)
    return torch.sigmoid(o + p["p_o"] * c_next) * torch.tanh(c_next), c_next


def layer_norm(
    p: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    columns, units = p["W"].shape[:1], c.shape[1:]
    zx = functional.layer_norm(functional.linear(x, p["W"]), columns, p["s_x"], eps=NORM_EPS)
    zh = functional.layer_norm(functional.linear(h, p["U"]), columns, p["s_h"], p["b"], eps=NORM_EPS)
    i, f, o, g = (zx + zh).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(functional.layer_norm(c, units, p["s_c"], p["b_c"], eps=NORM_EPS)), c


def coupled(p: dict[str, torch.Tensor], x: torch.Tensor, a: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = functional.linear(x, p["W"], p["b"]) + functional.linear(a, p["U"]) + functional.linear(s, p["V"])
    k, n = z.chunk(2, dim=1)
    a = a + torch.sigmoid(k) * (torch.tanh(n) - a)
    s = functional.linear(x, p["P"], p["d"]) + functional.linear(a, p["R"]) + functional.linear(s, p["Q"])
    return a, torch.tanh(s)


CELLS: dict[str, Cell] = {
    "RNN": rnn,
    "LSTM": lstm,
    "GRU": gru,
    "peephole": peephole,
    "layer-norm": layer_norm,
    "coupled": coupled,
}


def looped(case: Case, prepare: Callable[[Cell], Cell]) -> Program:
    """A Python loop over the timesteps; `prepare` is what becomes of the cell before it is first called."""
    inputs = torch.from_numpy(case.inputs)
    starts = [torch.from_numpy(start) for start in case.starts()]
    weights = {  # matrices transposed, as torch's layers hold them
        name: torch.from_numpy(np.ascontiguousarray(array.T)).requires_grad_() for name, array in case.weights.items()
    }

    def start() -> Step:
        cell = prepare(CELLS[case.cell])

        def step() -> Any:
            for weight in weights.values():
                weight.grad = None
            now: tuple[torch.Tensor, ...] = tuple(starts)
            hidden = []
            for x in inputs:
                now = cell(weights, x, *now)
                hidden.append(now[0])
            loss = (torch.stack(hidden) ** 2).mean()
            loss.backward()
            return loss.detach(), [weight.grad for weight in weights.values()]

        return step

    def gradients(result: Any) -> Arrays:
        loss, found = result
        return named(case)((loss, [gradient.numpy().T for gradient in found]))

    return Program(start, gradients)


def torch_loop(case: Case) -> Program:
    """The loop as written."""
    return looped(case, lambda cell: cell)


def torch_compile(case: Case) -> Program:
    """The loop over torch.compile of the cell."""
    return looped(case, lambda cell: torch.compile(cell, dynamic=False))
