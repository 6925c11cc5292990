"""PyTensor: scan over the cell, its gradient, one compiled function."""

from __future__ import annotations

import warnings
from typing import Any

import pytensor
import pytensor.tensor as pt

from .cases import Case, Program, Step, cell_step, named


def pytensor_scan(case: Case) -> Program:
    cell = cell_step(case.cell, case.size.hidden, pt.tanh, pt.sigmoid)
    weights = {name: pytensor.shared(array, name=name) for name, array in case.weights.items()}
    inputs = pt.tensor("x", shape=case.size[:3], dtype="float32")
    starts = [pt.as_tensor(start) for start in case.starts()]

    def body(x: Any, *rest: Any) -> list[Any]:
        now, arrays = rest[: len(starts)], rest[len(starts) :]
        return list(cell(dict(zip(weights, arrays, strict=True)), x, *now))

    with warnings.catch_warnings():  # its releases differ in what scan returns
        warnings.simplefilter("ignore", DeprecationWarning)
        result = pytensor.scan(body, sequences=[inputs], outputs_info=starts, non_sequences=list(weights.values()))
    outputs = result[0] if isinstance(result, tuple) else result
    h = outputs[0] if isinstance(outputs, list | tuple) else outputs
    loss = (h**2).mean()

    def start() -> Step:
        function = pytensor.function([inputs], [loss, *pytensor.grad(loss, list(weights.values()))])

        def step() -> Any:
            value, *found = function(case.inputs)
            return value, found

        return step

    return Program(start, named(case))
