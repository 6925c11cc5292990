"""The loop itself: batch after batch, epoch after epoch, from wherever a run stands."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgrid.data.batch import Batch, Batches
from microgrid.data.buckets import Buckets
from microgrid.data.drawn import Drawn
from microgrid.data.minibatches import Minibatches
from microgrid.data.windows import Windows
from microgrid.errors import NotFiniteError, SequenceError
from microgrid.optim import Optimiser, clip_grad_norm
from microgrid.tensor import Tensor
from microgrid.training import checkpoint
from microgrid.training.evaluate import evaluated
from microgrid.training.health import Health
from microgrid.training.history import History, Row
from microgrid.training.interrupt import Interrupt
from microgrid.training.neighbours import with_next
from microgrid.training.position import Position
from microgrid.training.program import Watch
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

    def __init__(
        self, plan: Plan, loss: Watch, parameters: Mapping[str, Tensor], watched: Watch, optimiser: Optimiser
    ) -> None:
        self.plan, self.loss, self.watched, self.optimiser = plan, loss, watched, optimiser
        self.program = loss.program
        self.position = Position()
        graph = self.program.graph
        generators = [node.generator for node in graph.inputs if hasattr(node, "generator")]
        self.parts = checkpoint.Parts(
            parameters,
            {graph.names[state]: state for state in self.program.carried},
            optimiser,
            list({id(generator): generator for generator in generators}.values()),
            len(plan.data),
        )
        self.file = "" if plan.checkpoint is None else os.fspath(plan.checkpoint)
        self.health = Health(graph) if plan.health else None
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
                    row = self.finish_epoch()
                    if math.isnan(row.get("validation loss", 0.0)) and "nan" not in self.warned:
                        self.warned.add("nan")
                        progress.warn("warning: the validation loss is nan: look for one in the validation data")
                    self.log(row, loggers, progress)
                    self.save_if_due(progress)
            self.save(progress)
        if stopped == "interrupted":
            where = f", saved in {self.file!r}" if self.file and not self.unsaved else ""
            progress.warn(f"stopped in epoch {self.position.epoch + 1}, before batch {self.position.batch + 1}{where}")
        elif self.plan.patience is not None and self.position.best_values:
            for name, value in self.position.best_values.items():
                checkpoint.take_value(self.parts.parameters[name], value)
        return History(self.position.rows, stopped, self.position.best_epoch)

    def why_stop(self, interrupt: Interrupt) -> str:
        """The reason to stop between two batches; empty if there is none."""
        if interrupt.asked:
            return "interrupted"
        if self.position.epoch >= self.plan.epochs:
            return "epochs"
        out_of_patience = self.plan.patience is not None and self.position.since_best >= self.plan.patience
        return "patience" if out_of_patience else ""

    def train_epoch(self, progress: Progress, interrupt: Interrupt) -> bool:
        """The batches that are left of an epoch; returns whether all of them are done."""
        position, batches = self.position, with_next(self.plan.data.epoch(self.position.epoch, self.position.batch))
        for batch, following in batches:
            if position.batch < len(self.plan.data):
                self.step(batch, following, progress)
            else:
                position.batch += 1  # more than there should be
            if interrupt.asked and following is not None:
                return False
            self.save_if_due(progress)
        if position.batch != len(self.plan.data):
            more = "more" if position.batch > len(self.plan.data) else f"{position.batch}"
            raise SequenceError(
                f"the data says that an epoch has {len(self.plan.data)} batches, but gave {more}: __len__ and "
                "epoch(...) have to agree"
            )
        return True

    def log(self, row: Row, loggers: list[Any], progress: Progress) -> None:
        """Write a row to the logs; where that fails, training goes on."""
        for logger in loggers:
            try:
                logger.add(row)
            except OSError as error:
                if str(error) not in self.warned:
                    self.warned.add(str(error))
                    progress.warn(f"warning: a row of the log could not be written ({error}); training goes on")

    def finish_epoch(self) -> Row:
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
            if not math.isnan(watched) and (position.best is None or watched < position.best):
                position.best, position.best_epoch, position.since_best = watched, position.epoch + 1, 0
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
        found = evaluated(self.watched, self.plan.validation)
        return {f"validation {name}": value for name, value in found.items()}

    # --- one batch ---

    def step(self, batch: Batch, following: Batch | None, progress: Progress) -> None:
        """One step of the optimiser."""
        position = self.position
        initial = position.states if batch.carried else {}
        sequences = self.program.sequences(batch, initial, dropping=True, others=self.watched.program.inputs)
        if self.health is not None and self.health.is_due():
            self.look(batch, sequences, initial, progress)
        with np.errstate(all="ignore"):  # what is not finite is explained below
            run, after = self.program.run(batch, sequences, initial)
        loss, weight = self.loss.values(run, batch)["loss"]
        states = self.states_for(following, batch, sequences, initial, after)
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
        with np.errstate(all="ignore"):
            self.optimiser.step()
        position.steps += 1
        position.batch += 1
        position.total += loss * weight if weight else 0.0
        position.weight += weight
        position.norms += norm
        position.norm_count += 1
        position.states = states
        position.size = batch.size
        self.unsaved = True
        progress.step(position.epoch, self.numbers(norm))

    def states_for(
        self,
        following: Batch | None,
        batch: Batch,
        sequences: Mapping[Tensor, Any],
        initial: Mapping[Tensor, Any],
        after: Mapping[Tensor, Any],
    ) -> dict[Tensor, Any]:
        """The states from which the next batch goes on; none if it starts anew."""
        if following is None or not following.carried:
            return {}
        steps = following.start - batch.start
        if not 1 <= steps <= batch.steps:
            raise SequenceError(
                f"a carried batch starts at timestep {following.start}, but the one before it covers {batch.start} to "
                f"{batch.end}: its start lies after the start of that one, and at its end at most"
            )
        return self.program.states_at(steps, batch, sequences, initial, after)

    def numbers(self, norm: float) -> Mapping[str, str]:
        """What the bar shows."""
        position = self.position
        mean = position.total / max(position.weight, 1.0)
        found = {"loss": f"{mean:.4f}" if abs(mean) < 1e4 else f"{mean:.3g}"}
        for name, value in (position.rows[-1] if position.rows else {}).items():
            if name.startswith("validation "):
                found["validation" if name == "validation loss" else name.removeprefix("validation ")] = f"{value:.4f}"
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
                progress.warn(f"warning: {warning}")

    def explained(
        self, error: NotFiniteError, batch: Batch, sequences: Mapping[Tensor, Any], initial: Mapping[Tensor, Any]
    ) -> NotFiniteError:
        """The error of a number that is not finite, with the node and the timestep where the first appeared."""
        try:
            with np.errstate(all="ignore"):
                self.program.run(batch, sequences, initial, check=True)
            found = str(error)
        except NotFiniteError as first:
            found = str(first)
        kept = ""
        if checkpoint.exists(self.plan.checkpoint):
            kept = f" The checkpoint {self.file!r} is from before."
        in_data = any(f"the value of {name!r} is" in found for name in self.program.inputs)
        advice = "" if in_data else " Lower the learning rate, clip (clip_norm=1.0), or look at the data."
        within = f" of a window that starts at {batch.start}" if batch.start and "timestep" in found else ""
        return NotFiniteError(
            f"training stopped in epoch {self.position.epoch + 1}, batch {self.position.batch + 1}: {found}{within}. "
            f"The parameters are those before it.{advice}"
            f"{kept}"
        )

    # --- checkpoints ---

    def check_data(self) -> None:
        """Refuse data that do not fit the network, before anything is done."""
        pairs = ((self.plan.data, self.program), (self.plan.validation, self.watched.program))
        for data, program in pairs:
            if type(data) in (Windows, Minibatches, Buckets, Drawn):  # what others do when asked is theirs to say
                assert data is not None
                first = next(iter(data.epoch(0)))
                program.sequences(first, {}, dropping=False, others=self.watched.program.inputs)

    def resume(self) -> None:
        """Go on where the checkpoint stands."""
        assert self.plan.checkpoint is not None
        self.position = checkpoint.load(self.plan.checkpoint, self.parts, self.batch_at)

    def batch_at(self, epoch: int, batch: int) -> Batch | None:
        """The batch at a place in the data; None after the last of an epoch."""
        return next(iter(self.plan.data.epoch(epoch, batch)), None)

    def save_if_due(self, progress: Progress) -> None:
        if time.monotonic() - self.saved >= self.plan.save_every:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write the checkpoint; where that fails, training goes on and the older one stays."""
        if self.plan.checkpoint is None or not self.unsaved:
            return
        for name, parameter in self.parts.parameters.items():
            if not np.all(np.isfinite(parameter.value)):
                raise NotFiniteError(
                    f"{name!r} is no longer finite after step {self.position.steps}: lower the learning rate or clip. "
                    "The checkpoint from before stays"
                )
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
                progress.warn(f"warning: no checkpoint could be saved ({error}); training goes on, {older}")
