"""Derive the coefficients of the LLVM executor's elementary functions: `python docs/derive_functions.py`.

Each function is a polynomial after its argument is reduced to a short interval. The polynomial is the minimax one,
found by the exchange algorithm of E. Ya. Remez, "Sur la détermination des polynômes d'approximation de degré donnée"
(1934); see J.-M. Muller, "Elementary Functions" (3rd ed., 2016), chapter 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import groupby
from typing import Any

import numpy as np

DIGITS = 60
GRID = 600
DTYPES: dict[str, type[np.floating[Any]]] = {"float": np.float32, "double": np.float64}
EXPONENT_BITS = {"float": 8, "double": 11}

TANH_SEAM = Decimal("0.55")
"""Where tanh(x) is a little more than ½, from which on 1 - 2 / (1 + e^2x) loses nothing by the subtraction."""


@dataclass(frozen=True)
class Problem:
    """Approximate `target` by a polynomial of `degree`; an error in it is `weight` times as large in the function."""

    target: Callable[[Decimal], Decimal]
    weight: Callable[[Decimal], Decimal]
    low: Decimal
    high: Decimal
    degree: dict[str, int]


def series(term: Callable[[int], Decimal], x: Decimal) -> Decimal:
    """The power series with the coefficients term(0), term(1), ... at x, |x| < 1."""
    total, power, k = Decimal(0), Decimal(1), 0
    while abs(power) > Decimal(10) ** -DIGITS:
        total, power, k = total + term(k) * power, power * x, k + 1
    return total


def exponential(r: Decimal) -> Decimal:
    """Q in e^r - 1 = r + r² Q(r)."""
    return series(lambda k: 1 / Decimal(math.factorial(k + 2)), r)


def tangent(z: Decimal) -> Decimal:
    """P in tanh(x) = x + x z P(z), z = x²."""
    x = z.sqrt()
    return ((1 - 2 / ((2 * x).exp() + 1)) / x - 1) / z


def logarithm(z: Decimal) -> Decimal:
    """W in log((1 + s) / (1 - s)) = 2 s + s z W(z), z = s²."""
    return series(lambda k: Decimal(2) / (2 * k + 3), z)


# Every weight makes the error one relative to the function itself.
PROBLEMS = {
    "EXP": Problem(
        exponential,
        lambda r: abs(r / (1 + r * exponential(r))),
        low=-Decimal(2).ln() / 2,
        high=Decimal(2).ln() / 2,
        degree={"float": 4, "double": 9},
    ),
    "TANH": Problem(
        tangent,
        lambda z: z / (1 + z * tangent(z)),
        low=Decimal(0),
        high=TANH_SEAM**2,
        degree={"float": 3, "double": 9},
    ),
    "LOG": Problem(
        logarithm,
        lambda z: z / (2 + z * logarithm(z)),
        low=Decimal(0),
        high=(Decimal(2).sqrt() - 1) ** 4,  # s = (m - 1) / (m + 1) at m = √2
        degree={"float": 2, "double": 6},
    ),
}


def horner(coefficients: list[Decimal], x: Decimal) -> Decimal:
    total = Decimal(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def solve(rows: list[list[Decimal]]) -> list[Decimal]:
    """The solution of the linear equations whose right-hand sides end the rows, by Gauss-Jordan elimination."""
    rows = [row[:] for row in rows]
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(len(rows)):
            if k != i:
                rows[k] = [b - rows[k][i] * a for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def minimax(problem: Problem, degree: int) -> tuple[list[Decimal], Decimal]:
    """The coefficients, lowest first, of the polynomial whose largest weighted error is smallest, and that error."""
    nodes = [Decimal(f"{math.cos(math.pi * (k + 0.5) / GRID):.9f}") for k in range(GRID)]
    middle, half = (problem.high + problem.low) / 2, (problem.high - problem.low) / 2
    grid = [middle + half * node for node in nodes]
    target, weight = [problem.target(x) for x in grid], [problem.weight(x) for x in grid]
    reference = [round(k * (GRID - 1) / (degree + 1)) for k in range(degree + 2)]
    while True:
        # On the reference, the error is to have one size and alternating signs.
        rows = [
            [*(grid[i] ** k for k in range(degree + 1)), (-1) ** sign / weight[i], target[i]]
            for sign, i in enumerate(reference)
        ]
        *coefficients, level = solve(rows)
        error = [w * (f - horner(coefficients, x)) for x, f, w in zip(grid, target, weight, strict=True)]
        worst = max(map(abs, error))
        if worst <= abs(level) * Decimal("1.001"):
            return coefficients, worst
        # The next reference: the largest error of every stretch of one sign.
        stretches = [list(run) for _, run in groupby(range(GRID), key=lambda i: error[i] > 0)]
        reference = [max(run, key=lambda i: abs(error[i])) for run in stretches]
        while len(reference) > degree + 2:
            reference.pop(0 if abs(error[reference[0]]) < abs(error[reference[-1]]) else -1)


def coefficients(name: str, dtype: str) -> tuple[tuple[float, ...], float]:
    """The coefficients as functions.py holds them, rounded to dtype, and their largest error before that."""
    with localcontext(prec=DIGITS):
        exact, error = minimax(PROBLEMS[name], PROBLEMS[name].degree[dtype])
    return tuple(float(DTYPES[dtype](c)) for c in exact), float(error)


def log_of_two(dtype: str) -> tuple[float, float]:
    """log(2) as a sum; the last bits of the first part are zeros, so that its product with any exponent is exact."""
    with localcontext(prec=DIGITS):
        ln2, unit = Decimal(2).ln(), Decimal(2) ** (EXPONENT_BITS[dtype] - np.finfo(DTYPES[dtype]).nmant - 1)
        high = ln2 // unit * unit
        return float(high), float(DTYPES[dtype](ln2 - high))


def table(name: str, columns: dict[str, tuple[float, ...]], said: dict[str, str]) -> str:
    lines = [f"{name} = {{"]
    for dtype, numbers in columns.items():
        lines += [f'    "{dtype}": (  # {said[dtype]}', *(f"        {number!r}," for number in numbers), "    ),"]
    return "\n".join([*lines, "}"])


def main() -> None:
    print(f"TANH_SEAM = {TANH_SEAM}")
    print(table("LN2", {dtype: log_of_two(dtype) for dtype in DTYPES}, dict.fromkeys(DTYPES, "exact")))
    for name in PROBLEMS:
        found = {dtype: coefficients(name, dtype) for dtype in DTYPES}
        errors = {dtype: f"relative error {error:.1e}" for dtype, (_, error) in found.items()}
        print(table(name, {dtype: rounded for dtype, (rounded, _) in found.items()}, errors))


if __name__ == "__main__":
    main()
