"""Checkpoints: a training run on disk, whole at any moment, from which it goes on bit for bit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microgrid.errors import FileFormatError, MicrogridError
from microgrid.files.arrays import Arrays, naming, read_arrays, write_arrays
from microgrid.files.fields import Fields
from microgrid.optim import Optimiser
from microgrid.tensor import Tensor
from microgrid.training.history import Row
from microgrid.training.position import Position

KIND = "checkpoint"


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
        "rows": [{name: number(value) for name, value in row.items()} for row in position.rows],
        "optimiser": of_optimiser["settings"],
        "generators": [generator.bit_generator.state for generator in parts.generators],
    }
    write_arrays(path, arrays, KIND, header)


def load(path: str | os.PathLike[str], parts: Parts) -> Position:
    """Put a run where a checkpoint says it stood; nothing changes unless all of it fits.

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
        for name, array in states.items():
            if name not in parts.states:
                raise other(f"it carries the state {name!r}, which this network does not have")
            tensor = parts.states[name]
            if array.dtype != tensor.dtype or array.ndim != tensor.ndim or array.shape[1:] != tensor.shape[1:]:
                raise other(f"its state {name!r} is {array.shape}, but that of this network {tensor.shape}")
        position = Position(
            epoch=count(fields, "epoch"),
            batch=count(fields, "batch"),
            steps=count(fields, "steps"),
            norm_count=count(fields, "norm_count"),
            since_best=count(fields, "since_best"),
            seconds=real(fields.take("seconds", object)),
            rows=rows_of(fields.take("rows", list)),
            best_values=best,
            states={parts.states[name]: array for name, array in states.items()},
        )
        if position.batch > batches:
            raise FileFormatError(f"it stands at batch {position.batch} of {batches}")
        sums = [real(each) for each in fields.take("sums", list)]
        if len(sums) != 3:
            raise FileFormatError("its sums are not three numbers")
        position.total, position.weight, position.norms = sums
        found, epoch = fields.take("best", object), fields.take("best_epoch", object)
        position.best = None if found is None else real(found)
        if epoch is not None and type(epoch) is not int:
            raise FileFormatError(f"its best epoch is {epoch!r:.60}")
        position.best_epoch = epoch
        settings, generators = fields.take("optimiser", dict), fields.take("generators", list)
        fields.end()
        check_generators(generators, parts.generators)
        take_optimiser(parts.optimiser, {"arrays": part_of("optimiser", arrays), "settings": settings})
    for generator, state in zip(parts.generators, generators, strict=True):
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
    for name in found:
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
    """Let the optimiser go on from its state, with the learning rates that the program asks for now."""
    rates = [group.settings["lr"] for group in optimiser.groups]
    try:
        optimiser.load_state_dict(state)
    except MicrogridError as error:
        raise other(str(error)) from None
    for group, lr in zip(optimiser.groups, rates, strict=True):
        group.settings["lr"] = lr


def check_generators(states: list[Any], generators: list[np.random.Generator]) -> None:
    if len(states) != len(generators):
        raise other(f"it holds {len(states)} random generators, but this network draws from {len(generators)}")
    for state, generator in zip(states, generators, strict=True):
        try:
            type(generator.bit_generator)().state = state
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise other(f"a random generator of it does not fit ({str(error)[:100]})") from None


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


def rows_of(found: list[Any]) -> list[Row]:
    rows = []
    for row in found:
        if type(row) is not dict:
            raise FileFormatError(f"its history has {row!r:.40} for a row")
        rows.append({name: int(value) if type(value) is int else real(value) for name, value in row.items()})
    return rows


def exists(path: str | os.PathLike[str] | None) -> bool:
    return path is not None and Path(path).exists()
