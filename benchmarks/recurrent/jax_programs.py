"""JAX: jax.lax.scan over the cell, under jit of value_and_grad."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .cases import Case, Program, Step, cell_step, named


def jax_scan(case: Case) -> Program:
    step = cell_step(case.cell, case.size.hidden, jnp.tanh, jax.nn.sigmoid)
    weights = {name: jnp.asarray(array) for name, array in case.weights.items()}
    inputs = jnp.asarray(case.inputs)
    starts = tuple(map(jnp.asarray, case.starts()))

    def loss(weights: dict[str, Any], inputs: Any) -> Any:
        def body(now: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], Any]:
            following = step(weights, x, *now)
            return following, following[0]

        _, h = jax.lax.scan(body, starts, inputs)
        return (h**2).mean()

    def start() -> Step:
        value_and_grad = jax.jit(jax.value_and_grad(loss))

        def run() -> Any:
            value, found = value_and_grad(weights, inputs)
            return jax.block_until_ready((value, [found[name] for name in weights]))

        return run

    return Program(start, named(case))
