"""HIPS autograd: a Python loop over the cell."""

from __future__ import annotations

from typing import Any

import autograd
import autograd.numpy as anp

from .cases import Case, Program, cell_step, named


def autograd_loop(case: Case) -> Program:
    cell = cell_step(case.cell, case.size.hidden, anp.tanh, lambda z: 0.5 * (anp.tanh(0.5 * z) + 1.0))
    starts = case.starts()

    def loss(weights: dict[str, Any]) -> Any:
        now, hidden = tuple(starts), []
        for x in case.inputs:
            now = cell(weights, x, *now)
            hidden.append(now[0])
        return anp.mean(anp.array(hidden) ** 2)

    value_and_grad = autograd.value_and_grad(loss)

    def step() -> Any:
        value, found = value_and_grad(case.weights)
        return value, [found[name] for name in case.weights]

    return Program(lambda: step, named(case))
