"""What an optimiser remembers between steps, written to arrays and JSON and read back with every part checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from microgrid.errors import OperandError, OperandTypeError
from microgrid.optim.settings import NOT_NEGATIVE, STEP_NUMBER, checked
from microgrid.tensor import describe

if TYPE_CHECKING:
    from microgrid.optim.optimiser import Optimiser


@dataclass(slots=True, eq=False)
class Memory:
    """What is remembered of one parameter: how often it moved, and arrays of its shape such as a momentum."""

    steps: int = 0
    buffers: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A state that fits the optimiser it was read for."""

    memories: list[Memory]
    settings: list[dict[str, Any]]
    factor: float


def written(optimiser: Optimiser) -> dict[str, Any]:
    """The state of an optimiser: {"arrays": copies of its buffers, "settings": what JSON can hold}."""
    arrays, groups = {}, []
    for number, (_, group, memory) in enumerate(optimiser.moved):
        for name in optimiser.buffers(group.settings):
            if name in memory.buffers:
                arrays[f"{number}.{name}"] = memory.buffers[name].copy()
    for group in optimiser.groups:
        settings = checked(optimiser.kinds, group.settings, type(optimiser).__name__)
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        groups.append({"parameters": len(group.parameters), **settings})
    return {
        "arrays": arrays,
        "settings": {
            "optimiser": type(optimiser).__name__,
            "factor": optimiser.factor,
            "steps": [memory.steps for _, _, memory in optimiser.moved],
            "groups": groups,
        },
    }


def read(optimiser: Optimiser, state: Any) -> Saved:
    """A state for `optimiser`, or an OperandError that names what does not fit; nothing is changed."""
    arrays, saved = part(state, "arrays", Mapping, "the state"), part(state, "settings", Mapping, "the state")
    kind = type(optimiser).__name__
    found = part(saved, "optimiser", str, "the state's settings")
    if found != kind:
        raise OperandError(f"the state is that of {found[:60]}, and this is {kind}")
    settings = read_groups(optimiser, part(saved, "groups", list, "the state's settings"))
    factor = NOT_NEGATIVE.take(part(saved, "factor", object, "the state's settings"), "factor", "the state")
    steps = part(saved, "steps", list, "the state's settings")
    if len(steps) != len(optimiser.parameters):
        raise OperandError(f"the state counts the steps of {len(steps)} parameters, not {len(optimiser.parameters)}")
    steps = [STEP_NUMBER.take(each, f"the steps of parameter {i}", "the state") for i, each in enumerate(steps)]
    settings_of = [own for own, group in zip(settings, optimiser.groups, strict=True) for _ in group.parameters]
    names = [optimiser.buffers(own) if moved else () for own, moved in zip(settings_of, steps, strict=True)]
    expected = {f"{number}.{name}" for number, buffers in enumerate(names) for name in buffers}
    for key in arrays:
        if key not in expected:
            raise OperandError(
                f"the state holds an array {repr(key)[:60]}, which is that of no parameter that has moved"
            )
    memories = [
        Memory(moved, {name: read_buffer(optimiser, arrays, number, name) for name in buffers})
        for number, (moved, buffers) in enumerate(zip(steps, names, strict=True))
    ]
    return Saved(memories, settings, factor)


def part(holder: Any, name: str, kind: type, called: str) -> Any:
    if not isinstance(holder, Mapping):
        raise OperandTypeError(f"{called} is what state_dict() gives, not {type(holder).__name__}")
    if name not in holder:
        raise OperandError(f"{called} has no {name!r}, which state_dict() gives")
    if not isinstance(holder[name], kind):
        raise OperandTypeError(f"{name!r} of {called} is no {kind.__name__} but {type(holder[name]).__name__}")
    return holder[name]


def read_groups(optimiser: Optimiser, groups: list[Any]) -> list[dict[str, Any]]:
    """The settings of each group, if there are as many groups, with as many parameters, as the optimiser has."""
    kind = type(optimiser).__name__
    sizes = [part(group, "parameters", int, f"group {i} of the state") for i, group in enumerate(groups)]
    own_sizes = [len(group.parameters) for group in optimiser.groups]
    if sizes != own_sizes:
        raise OperandError(
            f"the state is of {sum(sizes)} parameters in groups of {sizes}, "
            f"and this {kind} has {sum(own_sizes)} in groups of {own_sizes}"
        )
    found = []
    for i, group in enumerate(groups):
        called = f"group {i} of the state"
        given = {name: part(group, name, object, called) for name in optimiser.kinds}
        others = {name: value for name, value in group.items() if name not in {"parameters", *given}}
        settings = checked(optimiser.kinds, {**given, **others}, called)
        optimiser.check_together(settings)
        found.append(settings)
    return found


def read_buffer(optimiser: Optimiser, arrays: Mapping[str, Any], number: int, name: str) -> npt.NDArray[Any]:
    """A copy of one buffer, in the memory order of its parameter."""
    parameter = optimiser.parameters[number]
    called = f"{name!r} of parameter {number}, {describe(parameter)},"
    key = f"{number}.{name}"
    if key not in arrays:
        raise OperandError(f"the state lacks {called} which should stand under {key!r}")
    found = arrays[key]
    if not isinstance(found, np.ndarray):
        raise OperandTypeError(f"{called} is in the state no array but {type(found).__name__}")
    for what, there, own in (("shape", found.shape, parameter.shape), ("dtype", found.dtype, parameter.dtype)):
        if there != own:
            raise OperandError(f"{called} has {what} {there} in the state, and the parameter has {what} {own}")
    buffer = np.zeros_like(np.asarray(parameter.value))
    buffer[...] = found
    return buffer
