"""Checkpoints: a training run on disk, whole at any moment, from which it goes on bit for bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microgrid.data.batch import Batch
from microgrid.errors import FileFormatError, MicrogridError
from microgrid.files.arrays import Arrays, naming, read_arrays, write_arrays
from microgrid.files.fields import Fields
from microgrid.optim import Optimiser
from microgrid.optim.state import read as read_optimiser
from microgrid.tensor import Tensor
from microgrid.training.generators import read, written
from microgrid.training.history import History, Row
from microgrid.training.position import Position

KIND = "checkpoint"
COLUMNS = ("epoch", "step", "loss", "gradient norm", "learning rate", "seconds")
"""What every row of a history has."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a run is made of.

    Attributes
    ----------
    parameters, states : dict of str → Tensor
        By the names in the network.
    optimiser : Optimiser
    generators : list of numpy.random.Generator
        Those from which inputs draw, each once.
    batches : int
        In an epoch.
    """

    parameters: Mapping[str, Tensor]
    states: Mapping[str, Tensor]
    optimiser: Optimiser
    generators: list[np.random.Generator]
    batches: int


def save(path: str | os.PathLike[str], parts: Parts, position: Position) -> None:
    """Write where a run stands; an older checkpoint is replaced once the new one is complete.

    Raises
    ------
    OSError
        If it cannot be written; the older one is as it was.
    """
    of_optimiser = parts.optimiser.state_dict()
    named = {tensor: name for name, tensor in parts.states.items()}
    arrays: dict[str, Any] = {f"parameter/{name}": np.asarray(p.value) for name, p in parts.parameters.items()}
    arrays |= {f"best/{name}": value for name, value in position.best_values.items()}
    arrays |= {f"state/{named[state]}": np.asarray(value) for state, value in position.states.items()}
    arrays |= {f"optimiser/{key}": array for key, array in of_optimiser["arrays"].items()}
    header = {
        "batches": parts.batches,
        "epoch": position.epoch,
        "batch": position.batch,
        "steps": position.steps,
        "sums": [number(each) for each in (position.total, position.weight, position.norms)],
        "norm_count": position.norm_count,
        "best": None if position.best is None else number(position.best),
        "best_epoch": position.best_epoch,
        "since_best": position.since_best,
        "seconds": position.seconds,
        "columns": (columns := History(position.rows).columns),
        "rows": [[number(row[name]) if name in row else None for name in columns] for row in position.rows],
        "optimiser": of_optimiser["settings"],
        "size": position.size,
        "carried": sorted(named[state] for state in position.states),
        "generators": [written(generator) for generator in parts.generators],
    }
    write_arrays(path, arrays, KIND, header)


def load(path: str | os.PathLike[str], parts: Parts, batch_at: Callable[[int, int], Batch | None]) -> Position:
    """Put a run where a checkpoint says it stood; nothing changes unless all of it fits.

    `batch_at` gives the batch of the run at a place in the data.

    Raises
    ------
    FileFormatError
        If the file is no checkpoint, is damaged, or is one of another network, optimiser or data: it says what
        does not fit.
    OSError
        If it cannot be read.
    """
    arrays, header = read_arrays(path, KIND)
    with naming(path):
        fields = Fields(header, "the checkpoint")
        parameters = fitting("parameter", arrays, parts.parameters)
        best = fitting("best", arrays, parts.parameters) if any(key.startswith("best/") for key in arrays) else {}
        states = part_of("state", arrays)
        batches = fields.take("batches", int)
        if batches != parts.batches:
            raise other(f"it is of a run with {batches} batches in an epoch, but this one has {parts.batches}")
        known = sum(len(part_of(kind, arrays)) for kind in ("parameter", "best", "state", "optimiser"))
        if known < len(arrays):
            raise FileFormatError("it holds arrays that belong to nothing")
        if states and sorted(states) != sorted(parts.states):
            raise other(f"it carries the states {sorted(states)}, and this network {sorted(parts.states)}")
        size = count(fields, "size")
        if fields.take("carried", list) != sorted(states):
            raise FileFormatError("states are missing from it")
        for name, array in sorted(states.items()):
            tensor = parts.states[name]
            alike = array.dtype == tensor.dtype and array.ndim == tensor.ndim and array.shape[1:] == tensor.shape[1:]
            if not alike or (tensor.ndim and array.shape[0] not in (size, tensor.shape[0])):
                raise other(f"its state {name!r} is {array.shape}, but that of this network {tensor.shape}")
        position = Position(
            epoch=count(fields, "epoch"),
            batch=count(fields, "batch"),
            steps=count(fields, "steps"),
            norm_count=count(fields, "norm_count"),
            since_best=count(fields, "since_best"),
            seconds=real(fields.take("seconds", object)),
            rows=rows_of(fields.take("columns", list), fields.take("rows", list)),
            best_values=best,
            states={parts.states[name]: array for name, array in states.items()},
        )
        position.size = size
        if position.batch > batches:
            raise FileFormatError(f"it stands at batch {position.batch} of {batches}")
        if len(position.rows) != position.epoch:
            raise FileFormatError(f"it stands after {position.epoch} epochs, but its history has {len(position.rows)}")
        if not 0 <= position.seconds < 1e12:
            raise FileFormatError(f"it says that it took {position.seconds} seconds")
        following = batch_at(position.epoch, position.batch) if 0 < position.batch < batches else None
        if following is not None:
            carries = following.carried and bool(parts.states)
            if carries != bool(states) or (carries and following.size != size):
                raise other(
                    f"it carries the states of {size if states else 'no'} sequences, and the next batch of this run "
                    f"takes those of {following.size if carries else 'none'}"
                )
        sums = [real(each) for each in fields.take("sums", list)]
        if len(sums) != 3:
            raise FileFormatError("its sums are not three numbers")
        position.total, position.weight, position.norms = sums
        found, epoch = fields.take("best", object), fields.take("best_epoch", object)
        position.best = None if found is None else real(found)
        if epoch is not None and not (type(epoch) is int and 1 <= epoch <= position.epoch):
            raise FileFormatError(f"its best epoch is {epoch!r:.60}")
        if (epoch is None) != (found is None) or (epoch is not None) != bool(best):
            raise FileFormatError("its best epoch and the parameters of that epoch do not go together")
        position.best_epoch = epoch
        settings, generators = fields.take("optimiser", dict), fields.take("generators", list)
        fields.end()
        generator_states = check_generators(generators, parts.generators)
        take_optimiser(parts.optimiser, {"arrays": part_of("optimiser", arrays), "settings": settings})
    for generator, state in zip(parts.generators, generator_states, strict=True):
        generator.bit_generator.state = state
    for name, array in parameters.items():
        take_value(parts.parameters[name], array)
    return position


def take_value(parameter: Tensor, array: Any) -> None:
    """Give a parameter a value, in the array that it has."""
    if isinstance(parameter.value, np.ndarray) and parameter.value.flags.writeable:
        parameter.value[...] = array
    else:
        parameter.value = array.copy() if isinstance(parameter.value, np.ndarray) else type(parameter.value)(array)


def part_of(kind: str, arrays: Arrays) -> Arrays:
    """The arrays whose keys begin with a kind, by the rest of the key."""
    return {key.removeprefix(f"{kind}/"): array for key, array in arrays.items() if key.startswith(f"{kind}/")}


def fitting(kind: str, arrays: Arrays, parameters: Mapping[str, Tensor]) -> Arrays:
    """The values of all parameters, or an error that says which does not fit."""
    found = part_of(kind, arrays)
    for name in sorted(found):
        if name not in parameters:
            raise other(f"it has a parameter {name!r}, which this network does not have")
    for name, parameter in parameters.items():
        if name not in found:
            raise other(f"it has no parameter {name!r}, which this network has")
        array = found[name]
        if array.shape != parameter.shape or array.dtype != parameter.dtype:
            raise other(
                f"its {name!r} is {array.dtype} of shape {array.shape}, but that of this network {parameter.dtype} of "
                f"shape {parameter.shape}",
            )
    return found


def take_optimiser(optimiser: Optimiser, state: Mapping[str, Any]) -> None:
    """Let the optimiser go on from its state, with the learning rates that the program asks for now.

    Other settings must be the same: its buffers hold sums that were made with them.
    """
    now = [dict(group.settings) for group in optimiser.groups]
    try:
        saved = read_optimiser(optimiser, state).settings
    except MicrogridError as error:
        raise other(str(error)) from None
    for own, found in zip(now, saved, strict=True):
        for name, value in own.items():
            if name != "lr" and found[name] != value:
                raise other(f"its optimiser has {name}={found[name]!r:.40}, and that of this run {name}={value!r:.40}")
    optimiser.load_state_dict(state)
    for group, own in zip(optimiser.groups, now, strict=True):
        group.settings["lr"] = own["lr"]


def check_generators(states: list[Any], generators: list[np.random.Generator]) -> list[Any]:
    """The states of the random generators, if they fit those of this run."""
    if len(states) != len(generators):
        raise other(f"it holds {len(states)} random generators, but this network draws from {len(generators)}")
    found = []
    for state, generator in zip(states, generators, strict=True):
        try:
            found.append(read(generator, state))
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise other(f"a random generator of it does not fit ({str(error)[:100]})") from None
    return found


def other(what: str) -> FileFormatError:
    return FileFormatError(
        f"it does not fit this run: {what}. To start anew, pass resume=False, which replaces the file, or another "
        "checkpoint="
    )


def count(fields: Fields, name: str) -> int:
    found = fields.take(name, int)
    if not 0 <= found < 1 << 53:
        raise FileFormatError(f"its {name} is {found!r:.40}")
    return int(found)


def number(value: float) -> float | str:
    """A float as JSON holds it: it has no word for NaN and infinities."""
    return value if math.isfinite(value) else str(value)


def real(found: Any) -> float:
    """A number that `number` wrote."""
    if type(found) in (int, float):
        try:
            return float(found)
        except OverflowError:
            pass
    if found in ("nan", "inf", "-inf"):
        return float(found)
    raise FileFormatError(f"it holds {found!r:.40} where a number should be")


def rows_of(columns: list[Any], found: list[Any]) -> list[Row]:
    """The rows of a history from a table, in which null stands for what a row does not have."""
    known = all(type(name) is str for name in columns) and len(set(columns)) == len(columns)
    if not known or (found and not set(COLUMNS) <= set(columns)):
        raise FileFormatError("the columns of its history are none")
    rows = []
    for row in found:
        if type(row) is not list or len(row) != len(columns):
            raise FileFormatError(f"its history has {row!r:.40} for a row")
        values = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        rows.append({name: value if type(value) is int else real(value) for name, value in values.items()})
        if any(abs(value) >= 1 << 53 for value in rows[-1].values() if type(value) is int):
            raise FileFormatError("its history has a whole number that is too large")
        if not set(COLUMNS) <= set(rows[-1]):
            raise FileFormatError("its history has a row without its columns")
    return rows


def exists(path: str | os.PathLike[str] | None) -> bool:
    return path is not None and Path(path).exists()
