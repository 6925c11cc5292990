"""microgrid: the compiled program, and the unrolled graph that all engines are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import microgrid as mg

from .cases import Arrays, Case, Program, Step, cell_step

PEEPHOLE_GATES = "ifog"


def recorded(case: Case, dtype: type = np.float32) -> mg.Tensor:
    """The loss, over a cell recorded once."""
    step = cell_step(case.cell, case.size.hidden, mg.tanh, mg.sigmoid)
    if case.cell == "peephole":
        step = peephole
    weights = {
        name: mg.parameter(array.astype(dtype), name=name) for name, array in parameters_as_written(case).items()
    }
    x = mg.input(case.inputs[0].astype(dtype), name="x", requires_grad=False)
    states_now = [mg.state(start.astype(dtype), name=name) for start, name in zip(case.starts(), "hc", strict=False)]
    for state, state_next in zip(states_now, step(weights, x, *states_now), strict=True):
        state.next = state_next
    return mg.time_mean(mg.mean(states_now[0].next ** 2))


def peephole(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, ...]:
    """The peephole LSTM as its equations stand in a textbook: every gate has weights of its own."""
    i = mg.sigmoid(x @ p["W_i"] + h @ p["U_i"] + p["p_i"] * c + p["b_i"])
    f = mg.sigmoid(x @ p["W_f"] + h @ p["U_f"] + p["p_f"] * c + p["b_f"])
    g = mg.tanh(x @ p["W_g"] + h @ p["U_g"] + p["b_g"])
    c = f * c + i * g
    o = mg.sigmoid(x @ p["W_o"] + h @ p["U_o"] + p["p_o"] * c + p["b_o"])
    return o * mg.tanh(c), c


def parameters_as_written(case: Case) -> Arrays:
    """The parameters of the recorded cell: those of `Case.weights`, for the peephole LSTM one of each per gate."""
    if case.cell != "peephole":
        return case.weights
    hidden = case.size.hidden
    return {
        f"{name}_{gate}": array[..., k * hidden : (k + 1) * hidden].copy()
        for name, array in case.weights.items()
        if name in "WUb"
        for k, gate in enumerate(PEEPHOLE_GATES)
    } | {name: array for name, array in case.weights.items() if name.startswith("p_")}


def in_case_layout(case: Case, grad_of: Callable[[str], Any]) -> Arrays:
    """Gradients in the layout of `Case.weights`, from those of the parameters as written."""
    if case.cell != "peephole":
        return {name: np.asarray(grad_of(name)) for name in case.weights}
    return {
        name: np.concatenate([np.asarray(grad_of(f"{name}_{gate}")) for gate in PEEPHOLE_GATES], axis=-1)
        if name in "WUb"
        else np.asarray(grad_of(name))
        for name in case.weights
    }


def compiled(case: Case, **options: Any) -> Program:
    """`mg.compile`; `options` are handed on to it."""
    loss = recorded(case)
    inputs = case.inputs

    def start() -> Step:
        program = mg.compile(loss, **options)
        return lambda: program(x=inputs)

    def gradients(run: Any) -> Arrays:
        return {"loss": np.asarray(run.value), **in_case_layout(case, lambda name: run.grads[name])}

    return Program(start, gradients)


def fused(case: Case, **options: Any) -> Program:
    """The same as machine code."""
    return compiled(case, executor="llvm", **options)


def reference(case: Case) -> Arrays:
    """The loss and all gradients in float64, by the unrolled graph: no compiled program has a part in it."""
    graph = mg.Graph(loss=recorded(case, np.float64))
    dag = graph.unroll(x=case.inputs.astype(np.float64))
    dag.backward()
    return {"loss": np.asarray(dag.output.value), **in_case_layout(case, lambda name: graph[name].grad)}
