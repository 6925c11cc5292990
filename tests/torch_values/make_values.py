"""Writes torch_values.npz: what PyTorch's layers and losses give in float64, with the gradients of all parameters.

Run with a Python that has PyTorch: python tests/torch_values/make_values.py
`tests/test_nn.py` and `tests/test_losses.py` compute the same with microgrid and compare.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("torch_values.npz")
TIME, BATCH, INPUT, HIDDEN, TOKENS, CLASSES = 4, 2, 3, 4, 7, 5


@dataclass(frozen=True)
class Layer:
    """A recurrent layer of PyTorch in one setting, and microgrid's of the same name."""

    kind: str
    layers: int = 1
    bidirectional: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


RECURRENT = {
    f"{kind.lower()}{' relu' if settings else ''}, {layers} layers{', both ways' if both else ''}": Layer(
        kind, layers, both, settings
    )
    for kind, settings in (("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {}))
    for layers in (1, 2)
    for both in (False, True)
}
CELLS = ("RNNCell", "LSTMCell", "GRUCell")


@dataclass(frozen=True)
class Loss:
    """A loss of PyTorch on (time, batch, ...) taken as one batch, and microgrid's over time."""

    torch: str
    microgrid: str
    operands: tuple[str, str]
    torch_settings: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


REDUCTIONS = ("mean", "sum", "none")
CLASSIFY, REGRESS = ("logits", "classes"), ("prediction", "target")
LOSSES = {
    "cross entropy": Loss("cross_entropy", "cross_entropy", CLASSIFY),
    "cross entropy smoothed": Loss("cross_entropy", "cross_entropy", CLASSIFY, *[{"label_smoothing": 0.1}] * 2),
    "cross entropy all smooth": Loss("cross_entropy", "cross_entropy", CLASSIFY, *[{"label_smoothing": 1.0}] * 2),
    "cross entropy extreme": Loss("cross_entropy", "cross_entropy", ("extreme logits", "classes")),
    "cross entropy ignoring -100": Loss(
        "cross_entropy", "cross_entropy", ("logits", "some classes"), {}, {"ignore_index": -100}
    ),
    "cross entropy ignoring 2": Loss("cross_entropy", "cross_entropy", CLASSIFY, *[{"ignore_index": 2}] * 2),
    "cross entropy ignoring -1, smoothed": Loss(
        *("cross_entropy", "cross_entropy", ("logits", "classes or -1")),
        *[{"ignore_index": -1, "label_smoothing": 0.3}] * 2,
    ),
    "mse": Loss("mse_loss", "mse", REGRESS),
    "l1": Loss("l1_loss", "mae", REGRESS),
    "huber": Loss("huber_loss", "huber", REGRESS),
    "huber near": Loss("huber_loss", "huber", REGRESS, *[{"delta": 0.3}] * 2),
    "huber wide": Loss("huber_loss", "huber", REGRESS, *[{"delta": 30.0}] * 2),
    "binary cross entropy": Loss("binary_cross_entropy_with_logits", "binary_cross_entropy", ("prediction", "share")),
    "binary cross entropy extreme": Loss(
        "binary_cross_entropy_with_logits", "binary_cross_entropy", ("extreme prediction", "share")
    ),
}


def operands() -> dict[str, np.ndarray]:
    """What the losses are called on, by name, each of the same numbers every time."""
    rng = np.random.default_rng(7)
    classes = rng.integers(0, CLASSES, (TIME, BATCH))
    hidden = rng.random((TIME, BATCH)) < 0.4
    extreme = rng.choice([-1000.0, -30.0, 0.0, 0.5, 40.0, 1000.0], (TIME, BATCH, CLASSES))
    return {
        "logits": 2 * rng.normal(size=(TIME, BATCH, CLASSES)),
        "extreme logits": extreme,
        "classes": classes,
        "some classes": np.where(hidden, -100, classes),
        "classes or -1": np.where(hidden, -1, classes),
        "prediction": 2 * rng.normal(size=(TIME, BATCH, INPUT)),
        "extreme prediction": extreme[..., :INPUT],
        "target": rng.normal(size=(TIME, BATCH, INPUT)),
        "share": rng.choice([0.0, 0.25, 1.0], (TIME, BATCH, INPUT)),
    }


def sequence() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(TIME, BATCH, INPUT))


def slopes(*shape: int) -> np.ndarray:
    """What an output is multiplied by before it is summed up to be differentiated: another number for each element."""
    return np.cos(np.arange(np.prod(shape)) * 0.7 + 0.2).reshape(shape)


def main() -> None:
    import torch
    from torch import nn

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    found: dict[str, Any] = {"made by": np.array(f"PyTorch {torch.__version__}")}

    def keep(name: str, module: nn.Module, output: torch.Tensor) -> None:
        """The state dict, the output, and the gradients of a number made of it."""
        loss = (output.reshape(-1) * torch.from_numpy(slopes(output.numel()))).sum()
        loss.backward()
        found[f"{name}/output"] = output.detach().numpy()
        for key, parameter in module.named_parameters():
            found[f"{name}/state/{key}"] = parameter.detach().numpy()
            found[f"{name}/grad/{key}"] = parameter.grad.numpy()

    def shaken(module: nn.Module) -> nn.Module:
        """A module no parameter of which is 0 or 1, so that a wrong place is seen."""
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -0.9, 0.9)
        return module

    x = torch.from_numpy(sequence())
    for name, case in RECURRENT.items():
        module = shaken(
            getattr(nn, case.kind)(INPUT, HIDDEN, case.layers, bidirectional=case.bidirectional, **case.settings)
        )
        keep(name, module, module(x)[0])
    for kind in CELLS:
        module = shaken(getattr(nn, kind)(INPUT, HIDDEN))
        state, outputs = None, []
        for step in x:
            state = module(step, state)
            outputs.append(state[0] if kind == "LSTMCell" else state)
        keep(kind, module, torch.stack(outputs))
    for name, module in (
        ("linear", nn.Linear(INPUT, HIDDEN)),
        ("linear without bias", nn.Linear(INPUT, HIDDEN, bias=False)),
        ("layer norm", nn.LayerNorm(INPUT)),
        ("layer norm eps", nn.LayerNorm(INPUT, eps=0.1)),
        ("sequential", nn.Sequential(nn.Linear(INPUT, HIDDEN), nn.Tanh(), nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2))),
    ):
        keep(name, shaken(module), module(x))
    tokens = torch.from_numpy(operands()["classes"])
    module = shaken(nn.Embedding(TOKENS, HIDDEN))
    keep("embedding", module, module(tokens))

    class Tagger(nn.Module):
        """An embedding, a bidirectional LSTM and a norm in a module of their own, and a readout."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict(
                {
                    "embed": nn.Embedding(TOKENS, INPUT),
                    "lstm": nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True),
                    "norm": nn.LayerNorm(2 * HIDDEN),
                }
            )
            self.heads = nn.ModuleList([nn.Linear(2 * HIDDEN, CLASSES) for _ in range(2)])

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            h = self.body["norm"](self.body["lstm"](self.body["embed"](tokens))[0])
            return self.heads[0](h) + torch.tanh(self.heads[1](h))

    module = shaken(Tagger())
    keep("tagger", module, module(tokens))

    given = operands()
    for name, case in LOSSES.items():
        first, second = (given[key] for key in case.operands)
        for reduction in REDUCTIONS:
            prediction = torch.from_numpy(first.reshape(-1, first.shape[-1])).requires_grad_()
            target = torch.from_numpy(second.reshape(-1, *second.shape[2:]))
            loss = getattr(nn.functional, case.torch)(prediction, target, reduction=reduction, **case.torch_settings)
            (loss.reshape(-1) * torch.from_numpy(slopes(loss.numel()))).sum().backward()
            shape = (TIME, BATCH, *loss.shape[1:]) if reduction == "none" else ()
            found[f"{name}, {reduction}/value"] = loss.detach().numpy().reshape(shape)
            found[f"{name}, {reduction}/grad"] = prediction.grad.numpy().reshape(first.shape)
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {len(found)} arrays, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
