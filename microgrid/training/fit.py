"""mg.fit: train a network on data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy.typing as npt

from microgrid.counts import whole_number
from microgrid.data.batch import Batches
from microgrid.errors import OperandError, OperandTypeError
from microgrid.files.whole import remove_leftovers
from microgrid.graph import Graph
from microgrid.optim import Adam, Optimiser
from microgrid.tensor import Tensor
from microgrid.training import checkpoint as checkpoints
from microgrid.training.evaluate import batches_of, window_of
from microgrid.training.history import CsvLog, History
from microgrid.training.loop import Plan, Training
from microgrid.training.program import Watch, watched_loss
from microgrid.training.progress import progress_for
from microgrid.training.tensorboard import EventFiles


def fit(
    loss: Tensor | Graph,
    data: Batches | Mapping[str, npt.ArrayLike],
    *,
    epochs: int,
    optimiser: Optimiser | None = None,
    schedule: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    validation: Batches | Mapping[str, npt.ArrayLike] | None = None,
    metrics: Mapping[str, Tensor] | None = None,
    patience: int | None = None,
    log: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: float = 30.0,
    resume: bool = True,
    progress: bool | None = None,
    health: bool = True,
    executor: str = "numpy",
) -> History:
    """Train a network: change its parameters so that a loss becomes small.

    The network is compiled once, and each batch is one step: forwards, backwards through time, clip, and a step of
    the optimiser. A bar shows the epoch, the loss, the validation loss, the norm of the gradient, what each timestep
    leaves of a gradient, and the time left; where nobody watches a terminal, a line every few seconds does.

    Ctrl-C ends the run after the batch at hand, with everything saved, and `fit` returns a history that was
    `stopped` by "interrupted"; pressed again, it interrupts at once. A NaN or infinity stops it before the parameters
    change, and names the node and the timestep where the first appeared.

    Parameters
    ----------
    loss : Tensor or Graph
        One number for all of a batch; see `nn.mse` and others.
    data : Batches, or mapping of input name → array (time, batch, *features)
        What `mg.data` makes: windows, minibatches, buckets. A mapping is one batch: full backpropagation through time.
    epochs : int
        How many times to go through the data, those of a resumed run included.
    optimiser : Optimiser, optional
        With the parameters it moves; by default `optim.Adam` of all parameters, with a learning rate of 0.001.
    schedule : callable step → factor, optional
        What the learning rate is multiplied by at each step; see `optim.Cosine` and others.
    clip_norm : float, optional
        The largest norm of a gradient; see `optim.clip_grad_norm`.
    validation : Batches or mapping, optional
        Evaluated after each epoch, without dropout; see `mg.evaluate`.
    metrics : mapping of str → Tensor, optional
        Further numbers of the network to evaluate on the validation data, such as `nn.accuracy`.
    patience : int, optional
        Stop after so many epochs without a lower validation loss (or loss, without validation data), and give the
        parameters back the values of the best epoch.
    log : path, optional
        A file of comma-separated values with a row per epoch.
    tensorboard : path, optional
        A folder for TensorBoard's event files; needs the extra `tensorboard`.
    checkpoint : path, optional
        A file that holds the run: parameters, optimiser, random generators and the place in the data. It is whole at
        any moment, and a run resumed from it ends with the same parameters, bit for bit, as one that was never stopped.
    save_every : float
        How many seconds lie between two checkpoints; one is always written at the end.
    resume : bool
        Go on from the checkpoint if the file is there; False starts anew and replaces it.
    progress : bool, optional
        True for a bar and False for silence; by default a bar in terminals and notebooks, and lines elsewhere.
    health : bool
        Measure, in a hundredth of the time, how fast gradients vanish or explode in each cycle, and say so with the
        progress.
    executor : "numpy", "llvm" or "auto"
        What runs the network; see `mg.compile`. Another one rounds differently, so a run that shall end bit for bit
        as one that was never stopped is resumed with the same.

    Returns
    -------
    History
        A row per epoch.

    Raises
    ------
    SequenceError
        If the data does not fit the network's inputs, or is empty.
    NotFiniteError
        If a NaN or infinity appears.
    FileFormatError
        If the checkpoint is damaged, or that of another network.

    Examples
    --------
    >>> x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    >>> h = mg.nn.RNN(1, 8, rng=0)(x)
    >>> loss = mg.nn.mse(mg.nn.Linear(8, 1, rng=1)(h), target)
    >>> wave = np.sin(np.arange(101.0) / 3).reshape(-1, 1, 1)
    >>> adam = mg.optim.Adam(mg.Graph(loss).parameters, lr=0.02)
    >>> history = mg.fit(loss, {"x": wave[:-1], "target": wave[1:]}, epochs=60, optimiser=adam, progress=False)
    >>> bool(history["loss"][-1] < 0.05 * history["loss"][0])
    True
    """
    if optimiser is not None and not isinstance(optimiser, Optimiser):
        raise OperandTypeError(f"optimiser is one of mg.optim, as mg.optim.Adam(parameters), not {optimiser!r:.40}")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise OperandTypeError(f"metrics maps names to numbers, as in {{'accuracy': ...}}, not {metrics!r:.40}")
    if "loss" in (metrics or {}):
        raise OperandError("a metric called 'loss' would stand where the loss does: call it otherwise")
    watch, names = watched_loss(loss, None if optimiser is None else optimiser.parameters, executor)
    watched = Watch({"loss": watch.outputs["loss"], **(metrics or {})}, executor=executor)
    epochs = whole_number("epochs", epochs)
    if clip_norm is not None and (isinstance(clip_norm, bool) or not isinstance(clip_norm, Real) or not clip_norm > 0):
        raise OperandError(f"clip_norm is above 0, not {clip_norm!r:.40}; without it nothing is clipped")
    if not isinstance(save_every, Real) or not save_every >= 0:
        raise OperandError(f"save_every is a number of seconds, at least 0, not {save_every!r:.40}")
    if patience is not None:
        patience = whole_number("patience", patience)
    if metrics and validation is None:
        raise OperandError("metrics are evaluated on validation data: give validation= too")
    if schedule is not None and not callable(schedule):
        raise OperandTypeError(f"schedule is a function of the step, such as optim.Cosine(1000), not {schedule!r:.40}")
    plan = Plan(
        batches_of(data, "data", None),
        None if validation is None else batches_of(validation, "validation", window_of(watched)),
        epochs=epochs,
        schedule=schedule,
        clip_norm=clip_norm,
        patience=patience,
        checkpoint=checkpoint,
        save_every=save_every,
        health=health and progress is not False,
    )
    for path, name in ((checkpoint, "checkpoint"), (log, "log")):
        if path is not None and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"{name}={os.fspath(path)!r}: its folder does not exist: make it first")
        if path is not None and Path(path).is_dir():
            raise IsADirectoryError(f"{name}={os.fspath(path)!r} is a folder: give the name of a file in it")
    parameters = {name: parameter for parameter, name in names.items()}
    training = Training(plan, watch, parameters, watched, optimiser or Adam(list(names)))
    training.check_data()
    loggers: list[Any] = [] if tensorboard is None else [EventFiles(tensorboard)]
    try:
        if checkpoint is not None:
            remove_leftovers(Path(checkpoint))
        if resume and checkpoints.exists(checkpoint):
            training.resume()
        done = training.position.epoch * len(plan.data) + training.position.batch
        if log is not None:
            loggers.append(CsvLog(log, training.position.rows))
        with progress_for(progress, epochs=epochs, batches=len(plan.data), done=done) as shown:
            if done and training.position.epoch >= epochs:
                shown.say(
                    f"{training.file!r} holds a run of {training.position.epoch} epochs, so there is nothing to do: "
                    "raise epochs=, or pass resume=False to start anew"
                )
            elif done:
                shown.say(f"going on from {training.file!r}, epoch {training.position.epoch + 1}")
            return training.run(shown, loggers)
    finally:
        for logger in loggers:
            if isinstance(logger, EventFiles):
                logger.close()
