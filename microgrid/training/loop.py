"""The loop itself: batch after batch, epoch after epoch, from wherever a run stands."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.data.batch import Batch, Batches
from microgrid.errors import NotFiniteError
from microgrid.optim import Optimiser, clip_grad_norm
from microgrid.tensor import Tensor
from microgrid.training import checkpoint
from microgrid.training.health import Health
from microgrid.training.history import History, Row
from microgrid.training.interrupt import Interrupt
from microgrid.training.position import Position
from microgrid.training.program import Programs
from microgrid.training.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What `mg.fit` was asked for; its arguments say what each means."""

    data: Batches
    validation: Batches | None
    epochs: int
    schedule: Callable[[int], float] | None
    clip_norm: float | None
    patience: int | None
    checkpoint: str | os.PathLike[str] | None
    save_every: float
    health: bool


class Training:
    """A run of training: where it stands, and what it does next."""

    def __init__(self, plan: Plan, programs: Programs, optimiser: Optimiser) -> None:
        self.plan, self.programs, self.optimiser = plan, programs, optimiser
        self.position = Position()
        generators = [node.generator for node in programs.graph.inputs if hasattr(node, "generator")]
        self.parts = checkpoint.Parts(
            {programs.names[node]: node for node in programs.names},
            {programs.graph.names[state]: state for state in programs.carried},
            optimiser,
            list({id(generator): generator for generator in generators}.values()),
            len(plan.data),
        )
        self.health = Health(programs.graph) if plan.health else None
        self.warned: set[str] = set()
        self.began = self.saved = time.monotonic()
        self.unsaved = False
        self.trouble: str | None = None

    # --- epochs ---

    def run(self, progress: Progress, loggers: list[Any]) -> History:
        """Train until the last epoch, or until there is a reason to stop."""
        self.began = self.saved = time.monotonic()
        with Interrupt() as interrupt:
            while True:
                stopped = self.why_stop(interrupt)
                if stopped:
                    break
                if self.train_epoch(progress, interrupt):
                    row = self.finish_epoch(progress)
                    for logger in loggers:
                        logger.add(row)
                    self.save_if_due(progress)
            self.save(progress)
        if stopped == "interrupted":
            where = f", saved in {os.fspath(self.plan.checkpoint)!r}" if self.plan.checkpoint is not None else ""
            progress.say(f"stopped in epoch {self.position.epoch + 1}, before batch {self.position.batch + 1}{where}")
        elif self.plan.patience is not None and self.position.best_values:
            for name, value in self.position.best_values.items():
                checkpoint.take_value(self.parts.parameters[name], value)
        return History(self.position.rows, stopped, self.position.best_epoch)

    def why_stop(self, interrupt: Interrupt) -> str:
        """The reason to stop between two batches; empty if there is none."""
        if interrupt.asked:
            return "interrupted"
        if self.plan.patience is not None and self.position.since_best >= self.plan.patience:
            return "patience"
        return "epochs" if self.position.epoch >= self.plan.epochs else ""

    def train_epoch(self, progress: Progress, interrupt: Interrupt) -> bool:
        """The batches that are left of an epoch; returns whether all of them are done."""
        position, batches = self.position, with_next(self.plan.data.epoch(self.position.epoch, self.position.batch))
        for batch, following in batches:
            self.step(batch, following, progress)
            self.save_if_due(progress)
            if interrupt.asked and following is not None:
                return False
        return position.batch == len(self.plan.data)

    def finish_epoch(self, progress: Progress) -> Row:
        """Validate, keep the best parameters, and begin the next epoch; returns what the epoch gave."""
        position = self.position
        row: Row = {
            "epoch": position.epoch + 1,
            "step": position.steps,
            "loss": position.total / max(position.weight, 1.0),
            "gradient norm": position.norms / max(position.norm_count, 1),
            "learning rate": self.optimiser.lr * self.optimiser.factor,
        }
        row |= self.validated()
        row["seconds"] = round(position.seconds + time.monotonic() - self.began, 3)
        watched = row.get("validation loss", row["loss"])
        if self.plan.validation is not None or self.plan.patience is not None:
            if position.best is None or watched < position.best:
                position.best, position.best_epoch, position.since_best = watched, position.epoch + 1, 0
                if self.plan.patience is not None:
                    position.best_values = {name: np.array(p.value) for name, p in self.parts.parameters.items()}
            else:
                position.since_best += 1
        position.rows.append(row)
        position.epoch += 1
        position.begin_epoch()
        self.unsaved = True
        return row

    def validated(self) -> Row:
        """The loss and the metrics on the validation data."""
        if self.plan.validation is None:
            return {}
        totals: dict[str, float] = {}
        weight = 0
        states: dict[Tensor, Any] = {}
        for batch, following in with_next(self.plan.validation.epoch(0)):
            sequences = self.programs.sequences(batch, training=False)
            initial = states if batch.carried else {}
            values, after = self.programs.evaluated(batch, sequences, initial)
            weight += self.programs.weight(batch)
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value * self.programs.weight(batch)
            if following is not None and following.carried:
                states = self.programs.states_at(following.start - batch.start, batch, sequences, initial, after)
        return {f"validation {name}": total / max(weight, 1) for name, total in totals.items()}

    # --- one batch ---

    def step(self, batch: Batch, following: Batch | None, progress: Progress) -> None:
        """One step of the optimiser."""
        position, programs = self.position, self.programs
        sequences = programs.sequences(batch, training=True)
        initial = position.states if batch.carried else {}
        if self.health is not None and self.health.is_due():
            self.look(batch, sequences, initial, progress)
        run, after = programs.steps.run(batch, sequences, initial)
        loss = float(run.value)
        self.optimiser.zero_grad()
        run.backward()
        try:
            norm = clip_grad_norm(self.optimiser.parameters, self.plan.clip_norm or math.inf)
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss}")
        except NotFiniteError as error:
            self.optimiser.zero_grad()
            raise self.explained(error, batch, sequences, initial) from None
        if self.plan.schedule is not None:
            self.optimiser.factor = self.plan.schedule(position.steps)
        self.optimiser.step()
        weight = programs.weight(batch)
        position.steps += 1
        position.batch += 1
        position.total += loss * weight
        position.weight += weight
        position.norms += norm
        position.norm_count += 1
        carries = following is not None and following.carried
        if carries:
            assert following is not None
            position.states = programs.states_at(following.start - batch.start, batch, sequences, initial, after)
        else:
            position.states = {}
        self.unsaved = True
        progress.step(position.epoch, self.numbers(norm))

    def numbers(self, norm: float) -> Mapping[str, str]:
        """What the bar shows."""
        position = self.position
        found = {"loss": f"{position.total / max(position.weight, 1.0):.4f}"}
        if position.rows and "validation loss" in position.rows[-1]:
            found["validation"] = f"{position.rows[-1]['validation loss']:.4f}"
        found["gradient"] = f"{norm:.2g}"
        if self.health is not None and self.health.flows:
            found["∂h per timestep"] = " ".join(f"×{flow.per_timestep:.2f}" for flow in self.health.flows[:3])
        return found

    def look(
        self, batch: Batch, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any], progress: Progress
    ) -> None:
        """Measure how gradients flow through the cycles; warn once of each that vanishes or explodes."""
        assert self.health is not None
        for flow in self.health.look(batch, sequences, initial):
            warning = flow.warning()
            if warning and flow.cycle not in self.warned:
                self.warned.add(flow.cycle)
                progress.say(f"warning: {warning}")

    def explained(
        self, error: NotFiniteError, batch: Batch, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any]
    ) -> NotFiniteError:
        """The error of a number that is not finite, with the node and the timestep where the first appeared."""
        try:
            self.programs.steps.run(batch, sequences, initial, check=True)
            found = str(error)
        except NotFiniteError as first:
            found = str(first)
        kept = ""
        if checkpoint.exists(self.plan.checkpoint):
            kept = f" The checkpoint {os.fspath(self.plan.checkpoint)!r} is from before."  # type: ignore[arg-type]
        return NotFiniteError(
            f"training stopped in epoch {self.position.epoch + 1}, batch {self.position.batch + 1}: {found}. The "
            "parameters are those before this batch. Lower the learning rate, clip (clip_norm=1.0), or check the data."
            f"{kept}"
        )

    # --- checkpoints ---

    def resume(self) -> None:
        """Go on where the checkpoint stands."""
        assert self.plan.checkpoint is not None
        self.position = checkpoint.load(self.plan.checkpoint, self.parts)

    def save_if_due(self, progress: Progress) -> None:
        if time.monotonic() - self.saved >= self.plan.save_every:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write the checkpoint; where that fails, training goes on and the older one stays."""
        if self.plan.checkpoint is None or not self.unsaved:
            return
        now = time.monotonic()
        self.position.seconds += now - self.began
        self.began = self.saved = now
        try:
            checkpoint.save(self.plan.checkpoint, self.parts, self.position)
            self.unsaved = False
            self.trouble = None
        except OSError as error:
            if self.trouble != str(error):
                self.trouble = str(error)
                older = "the older checkpoint stays" if checkpoint.exists(self.plan.checkpoint) else "there is none yet"
                progress.say(f"warning: no checkpoint could be saved ({error}); training goes on, {older}")


def with_next(batches: Iterator[Batch]) -> Iterator[tuple[Batch, Batch | None]]:
    """Each batch with the one after it."""
    before: Batch | None = None
    for batch in batches:
        if before is not None:
            yield before, batch
        before = batch
    if before is not None:
        yield before, None
