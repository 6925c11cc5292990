"""How much gradient flows through each edge of a picture, and the legend of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microgrid.backward import sent_back
from microgrid.errors import GradientError
from microgrid.tensor import Tensor
from viz.scene import Legend, Scene

DECADES_AT_LEAST = 1.0
"""Of the scale: gradients that are nearly equal look so."""


def with_gradient_flow(scene: Scene) -> Scene:
    """The scene with the strength of every edge that carries a gradient, on a logarithmic scale with its legend.

    Raises GradientError where no gradient was computed yet.
    """
    if all(reader.grad is None for wire in scene.wires for reader, _ in wire.carries):
        raise GradientError(
            "no gradient flows through this picture: call .backward() on what was drawn before flow=True"
        )
    known: dict[Tensor, list[Any]] = {}
    sizes = [through(wire.carries, known) if wire.carries else None for wire in scene.wires]
    flowing = [size for size in sizes if size and math.isfinite(size)] or [1.0]
    low, high = math.log10(min(flowing)), math.log10(max(flowing))
    if high - low < DECADES_AT_LEAST:
        low, high = (low + high - DECADES_AT_LEAST) / 2, (low + high + DECADES_AT_LEAST) / 2

    def strength(size: float | None) -> float | None:
        if size is None or not size:
            return None if size is None else -1.0
        return (math.log10(size) - low) / (high - low) if math.isfinite(size) else 1.0

    wires = [replace(wire, strength=strength(size)) for wire, size in zip(scene.wires, sizes, strict=True)]
    left, bottom, right, _ = scene.bounds
    width = 180.0
    legend = Legend(
        "size of the gradient through an edge, ‖∂loss/∂·‖; dotted: none",
        ticks(low, high),
        (left + right - width) / 2,
        bottom - 40,
        width,
    )
    return Scene(scene.boxes, wires, scene.frames, scene.captions, legend)


def through(carries: Sequence[tuple[Tensor, int]], known: dict[Tensor, list[Any]]) -> float:
    """The Euclidean norm of the cotangents that readers pass to what they read along one edge."""
    arriving: dict[Tensor, Any] = {}
    for reader, index in carries:
        if reader not in known:
            known[reader] = cotangents(reader)
        found = known[reader][index]
        if found is not None:
            operand = reader.operands[index]
            arriving[operand] = found if operand not in arriving else arriving[operand] + found
    return norm([np.asarray(each, dtype=float) for each in arriving.values()])


def norm(arrays: Sequence[Any]) -> float:
    """The Euclidean norm of all elements, of numbers whose squares are too large or too small for floats, too."""
    largest = max((float(np.max(np.abs(each))) for each in arrays if each.size), default=0.0)
    if not largest or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(sum(float(np.sum(np.square(each / largest))) for each in arrays))


def cotangents(reader: Tensor) -> list[Any]:
    """What a node's gradient becomes on each of its operands; None where nothing flows."""
    if reader.grad is None or reader.primitive is None:
        return [None] * len(reader.operands)
    return sent_back(reader, reader.grad)


def ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Up to five powers of ten along the scale, or its two ends where there are fewer than two."""
    powers = list(range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1))
    if len(powers) < 2:
        return (0.0, f"{10**low:.2g}"), (1.0, f"{10**high:.2g}")
    every = math.ceil(len(powers) / 5)
    return tuple(((power - low) / (high - low), power_text(power)) for power in powers[::every])


def power_text(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 3 else "10" + str(power).translate(SUPERSCRIPTS)


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
