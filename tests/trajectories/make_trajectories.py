"""Writes trajectories.json: where PyTorch's optimisers take two parameters in 100 steps, in many settings.

Run with a Python that has PyTorch: python tests/trajectories/make_trajectories.py
`tests/test_optim.py` follows the same cases with microgrid's optimisers and compares.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("trajectories.json")
STEPS, RECORDED_EVERY = 100, 10


@dataclass(frozen=True)
class Case:
    """An optimiser in one setting; `groups`, where given, has the own settings of W and of b."""

    optimiser: str
    settings: dict[str, Any] = field(default_factory=dict)
    groups: tuple[dict[str, Any], dict[str, Any]] | None = None
    max_norm: float | None = None
    max_value: float | None = None
    schedule: str | None = None


CASES = {
    "sgd": Case("SGD", {"lr": 0.05}),
    "sgd weight decay": Case("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "sgd momentum": Case("SGD", {"lr": 0.02, "momentum": 0.9}),
    "sgd dampening": Case("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.5, "weight_decay": 0.02}),
    "sgd nesterov": Case("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "sgd groups": Case("SGD", {"lr": 0.02, "momentum": 0.5}, ({"lr": 0.1}, {"momentum": 0.0, "weight_decay": 0.3})),
    "sgd clipped by norm": Case("SGD", {"lr": 0.1}, max_norm=0.3),
    "sgd clipped by value": Case("SGD", {"lr": 0.1, "momentum": 0.5}, max_value=0.1),
    "rmsprop": Case("RMSprop"),
    "rmsprop momentum": Case("RMSprop", {"lr": 0.003, "alpha": 0.9, "momentum": 0.7, "eps": 1e-3}),
    "rmsprop centered": Case("RMSprop", {"lr": 0.005, "alpha": 0.95, "centered": True, "eps": 1e-2}),
    "rmsprop all": Case("RMSprop", {"lr": 0.002, "momentum": 0.8, "centered": True, "weight_decay": 0.1}),
    "adam": Case("Adam", {"lr": 0.05}),
    "adam defaults": Case("Adam"),
    "adam weight decay": Case("Adam", {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    "adam groups": Case("Adam", {"lr": 0.01}, ({"lr": 0.03, "betas": (0.5, 0.9)}, {"weight_decay": 0.2})),
    "adam clipped by norm": Case("Adam", {"lr": 0.05}, max_norm=0.2),
    "adamw": Case("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
    "adamw defaults": Case("AdamW"),
    "sgd in steps": Case("SGD", {"lr": 0.1, "momentum": 0.5}, schedule="steps"),
    "adam cosine": Case("Adam", {"lr": 0.05}, ({}, {"lr": 0.01}), schedule="cosine"),
    "adamw warmed up": Case("AdamW", {"lr": 0.1, "weight_decay": 0.1}, schedule="warm up, then cosine"),
    "sgd warmed up": Case("SGD", {"lr": 0.1, "momentum": 0.9}, max_norm=0.5, schedule="warm up"),
}

FEATURES = np.sin(np.arange(1.0, 22.0)).reshape(7, 3)
TARGETS = 1.5 * np.cos(np.arange(1.0, 15.0) * 1.3).reshape(7, 2)
START = {"W": np.cos(np.arange(6.0) ** 2).reshape(3, 2), "b": np.array([0.5, -2.0])}


def gradient(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the mean over 7 rows of log cosh r, where r = features · tanh(W) + sinh(b) − targets."""
    slope = np.tanh(FEATURES @ np.tanh(W) + np.sinh(b) - TARGETS) / 7
    return (FEATURES.T @ slope) * (1 - np.tanh(W) ** 2), np.cosh(b) * slope.sum(0)


def follow(case: Case) -> list[dict[str, list[Any]]]:
    """W and b after every tenth step of PyTorch's optimiser."""
    import torch
    from torch.nn import utils
    from torch.optim import lr_scheduler

    W, b = (torch.nn.Parameter(torch.tensor(START[name])) for name in ("W", "b"))
    given: Any = [W, b]
    if case.groups is not None:
        given = [{"params": [each], **own} for each, own in zip((W, b), case.groups, strict=True)]
    optimiser = getattr(torch.optim, case.optimiser)(given, **case.settings)

    def warm_up() -> Any:
        return lr_scheduler.LinearLR(optimiser, start_factor=1 / 10, end_factor=1.0, total_iters=9)

    schedules: dict[str | None, Callable[[], Any]] = {
        "steps": lambda: lr_scheduler.StepLR(optimiser, step_size=30, gamma=0.3),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimiser, T_max=100),
        "warm up": warm_up,
        "warm up, then cosine": lambda: lr_scheduler.SequentialLR(
            optimiser, [warm_up(), lr_scheduler.CosineAnnealingLR(optimiser, T_max=90)], milestones=[10]
        ),
    }
    schedule = schedules[case.schedule]() if case.schedule else None
    recorded = []
    for step in range(1, STEPS + 1):
        for parameter, g in zip((W, b), gradient(W.detach().numpy(), b.detach().numpy()), strict=True):
            parameter.grad = torch.tensor(g)
        if case.max_norm is not None:
            norm = utils.get_total_norm([W.grad, b.grad])
            # PyTorch adds 1e-6 to the norm before it divides by it; the published algorithm does not
            utils.clip_grads_with_norm_([W, b], case.max_norm, norm - 1e-6)
        if case.max_value is not None:
            utils.clip_grad_value_([W, b], case.max_value)
        optimiser.step()
        if schedule is not None:
            schedule.step()
        if step % RECORDED_EVERY == 0:
            recorded.append({"W": W.tolist(), "b": b.tolist()})
    return recorded


def main() -> None:
    import torch

    lines = [f"  {json.dumps(name)}: {json.dumps(follow(case))}" for name, case in CASES.items()]
    made_by = json.dumps(f"PyTorch {torch.__version__}")
    FILE.write_text(f'{{\n  "made by": {made_by},\n' + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
