"""Gradient health: how much of a gradient each timestep of a recurrence passes on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.compiled.program import Compiled
from microgrid.cycles import Cycle
from microgrid.data.batch import Batch
from microgrid.errors import MicrogridError
from microgrid.graph import Graph
from microgrid.ops.reduce import sum as sum_along
from microgrid.ops.time import first, last
from microgrid.tensor import Tensor

EXPLODED = 1e3
"""Above which share of a gradient a window's first timestep is said to get too much."""
VANISHED = 0.01
"""At which share a gradient is said to be lost,"""
FAR = 3
"""where a window goes so many times as far back."""

SHARE_OF_TIME = 0.01
"""Of a run that may be spent on looking."""


@dataclass(frozen=True, slots=True)
class Flow:
    """How a gradient that enters a cycle at its last timestep comes back through it.

    Attributes
    ----------
    cycle : str
    per_timestep : float
        By what each timestep multiplies its norm, in the geometric mean over the window.
    steps : int
        How many timesteps it went back.
    """

    cycle: str
    per_timestep: float
    steps: int

    @property
    def left(self) -> float:
        """The share of the gradient that reaches the first timestep."""
        with np.errstate(all="ignore"):
            return float(np.float64(self.per_timestep) ** self.steps)

    def warning(self) -> str | None:
        """What to say of a gradient that vanishes or explodes."""
        if self.left > EXPLODED:
            return (
                f"the gradient through {self.cycle} explodes: each timestep multiplies it by {self.per_timestep:.3g}, "
                f"so one from {self.steps} timesteps later arrives {self.left:.0e} times as large; clip it "
                "(clip_norm=1.0), or start the recurrent weights smaller"
            )
        if self.horizon * FAR < self.steps:
            return (
                f"the gradient through {self.cycle} vanishes: each timestep multiplies it by {self.per_timestep:.3g}, "
                f"so after {self.horizon} timesteps less than {VANISHED:.0%} of it is left, and what lies much further "
                "back is not learned; an LSTM, a GRU or larger recurrent weights reach further"
            )
        return None

    @property
    def horizon(self) -> float:
        """After how many timesteps less than a hundredth of a gradient is left."""
        if not 0 < self.per_timestep < 1:
            return math.inf if self.per_timestep else 1
        return math.ceil(math.log(VANISHED) / math.log(self.per_timestep))


class Health:
    """Looks at the gradient through each cycle now and then, for at most a hundredth of a run's time.

    The gradient of random numbers times the states' last values, by the states at every timestep: what is left of
    it at the first is the product of all Jacobians ∂h_t/∂h_{t−1}.

    Source: Y. Bengio, P. Simard and P. Frasconi, Learning long-term dependencies with gradient descent is
    difficult (1994).
    """

    def __init__(self, graph: Graph) -> None:
        self.cycles: list[Cycle] = [
            cycle for cycle in graph.cycles if all(state.requires_grad and state.shape for state in cycle.states)
        ]
        self.names = {state: graph.names[state] for cycle in self.cycles for state in cycle.states}
        self.programs: dict[Cycle, Compiled] = {}
        self.began = time.monotonic()
        self.spent = 0.0
        self.cost = 0.0
        self.flows: list[Flow] = []

    def is_due(self) -> bool:
        """Whether another look would keep within its share of the time."""
        return bool(self.cycles) and self.spent + self.cost < SHARE_OF_TIME * (time.monotonic() - self.began)

    def look(self, batch: Batch, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any]) -> list[Flow]:
        """Measure on a batch; returns the flow through each cycle."""
        began = time.monotonic()
        steps = batch.steps if batch.lengths is None else int(batch.lengths.min())
        if steps > 1:
            found = [self.flow_or_none(cycle, steps, sequences, initial) for cycle in self.cycles]
            self.flows = [flow for flow in found if flow is not None]
        self.cost = time.monotonic() - began
        self.spent += self.cost
        return self.flows

    def flow_or_none(
        self, cycle: Cycle, steps: int, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any]
    ) -> Flow | None:
        """The flow; None for a cycle on which it cannot be measured, which is no reason to end a run."""
        try:
            return self.flow(cycle, steps, sequences, initial)
        except MicrogridError:
            self.cycles = [each for each in self.cycles if each is not cycle]
            return None

    def flow(
        self, cycle: Cycle, steps: int, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any]
    ) -> Flow | None:
        """How a gradient of the last states of one cycle alone comes back through it; None if it is not finite."""
        if cycle not in self.programs:
            self.programs[cycle] = compiled(cycle)
        program = self.programs[cycle]
        inputs = {node: sequences[node][:steps] for node in program.graph.inputs}
        starts = {node: value for node, value in initial.items() if node in program.graph}
        with np.errstate(all="ignore"):
            grads = program(inputs, steps=steps, initial=starts or None).grads
            squares = sum(
                np.sum(np.square(grads[state], dtype=np.float64), axis=tuple(range(1, state.ndim + 1)))
                for state in cycle.states
            )
            norms = np.sqrt(squares)
        norms = norms if cycle.reverse else norms[::-1]  # from where it enters, backwards
        if not np.isfinite(norms[0]):
            return None
        usable = np.flatnonzero(np.isfinite(norms) & (norms > np.finfo(np.float32).tiny))
        if len(usable) < 2 or usable[0] > 0:
            return Flow(self.called(cycle), 0.0, steps - 1)
        far = int(usable[-1])
        return Flow(self.called(cycle), float((norms[far] / norms[0]) ** (1 / far)), steps - 1)

    def called(self, cycle: Cycle) -> str:
        return "the cycle of " + ", ".join(repr(self.names[state]) for state in cycle.states)


def compiled(cycle: Cycle) -> Compiled:
    """The program of the gradient of random numbers times a cycle's last states, by the states at all timesteps."""
    rng = np.random.default_rng(0)
    total: Tensor | None = None
    for state in cycle.states:
        features = state.shape[-1:] if state.ndim > 1 else ()  # of (batch,) there are none
        signs = np.asarray(rng.choice([-1.0, 1.0], features), state.dtype)
        end = first(state.next) if state.reverse else last(state.next)
        term = sum_along(end * signs).astype(np.float64)
        total = term if total is None else total + term
    assert total is not None
    return Compiled(Graph(total), cycle.states)
