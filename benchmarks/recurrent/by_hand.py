"""BPTT written by hand in NumPy, as fast as we can: the yardstick; and its matrix products alone, the floor.

All buffers are made once and used again, every operation writes into one of them, and the views of each timestep
are made once, too. At batch 1 the rows are vectors, for which BLAS has less to do than for matrices of one row.
Which of the remaining choices (`Variant`) is fastest depends on the size: `numpy_by_hand` measures, and keeps that one.

The cotangents are those of N/2 times the loss (N elements of h), so that h itself is what each step adds to
them; the gradients are scaled at the end, where they are small.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .cases import Array, Arrays, Case, Program, Step

Key = TypeVar("Key")

HALF = np.array(0.5, np.float32)
ONE = np.array(1.0, np.float32)
TUNING_SECONDS = 0.05  # for each turn of a variant
TUNING_TURNS = 6
HOPELESS = 1.3  # times the record: no further turns


@dataclass(frozen=True)
class Variant:
    """What may be done in one way or another.

    Attributes
    ----------
    joined : bool
        One product [x, 1, h] @ [W; b; U] per timestep, or x @ W of all timesteps at once and h @ U per timestep.
    exponential : bool
        Gates as 1 / (1 + exp(-z)), or all four gates with one tanh, as sigmoid(z) = (1 + tanh(z / 2)) / 2.
    block : int
        Of how many timesteps the local derivatives are computed at a time, just before they are used.
    """

    joined: bool
    exponential: bool
    block: int


def rows(array: Array) -> list[Array]:
    """What each timestep has of an array (time, batch, columns): a vector at batch 1, a matrix otherwise."""
    return [step[0] if len(step) == 1 else step for step in array]


def by_gate(array: Array, hidden: int) -> list[Array]:
    """The rows of an array (time, batch, gates·hidden) as (…, gates, hidden), without a copy."""
    time_steps, batch, columns = array.shape
    strides = (*array.strides[:2], hidden * array.itemsize, array.itemsize)
    shape = (time_steps, batch, columns // hidden, hidden)
    return rows(np.lib.stride_tricks.as_strided(array, shape, strides))


def blocks(time_steps: int, length: int) -> Iterable[slice]:
    """The timesteps in blocks of `length`, the last block first."""
    for start in reversed(range(0, time_steps, length)):
        yield slice(start, min(start + length, time_steps))


class Projection:
    """The products with the weights: z of each timestep on the way forward, all gradients of weights at the end."""

    def __init__(self, weights: Arrays, inputs: Array, joined: bool, column_scale: Array | None) -> None:
        steps, batch, features = inputs.shape
        hidden, columns = weights["U"].shape
        self.weights, self.inputs, self.joined, self.column_scale = weights, inputs, joined, column_scale
        self.gradient_scale = np.float32(2 / (steps * batch * hidden))
        self.z = rows(np.empty((1, batch, columns), np.float32))[0]
        if joined:
            self.left = np.zeros((steps + 1, batch, features + 1 + hidden), np.float32)
            self.left[:, :, features] = 1
            self.h = self.left[:, :, features + 1 :]
            self.right, self.gradient = (np.empty((features + 1 + hidden, columns), np.float32) for _ in range(2))
            self.parts = {"W": slice(0, features), "b": features, "U": slice(features + 1, None)}
            self.added: Sequence[Array | None] = [None] * steps
        else:
            self.h = self.left = np.zeros((steps + 1, batch, hidden), np.float32)
            projected = np.empty((steps, batch, columns), np.float32)
            self.projected, self.added = projected.reshape(-1, columns), rows(projected)
            self.scaled = {name: np.empty_like(array) for name, array in weights.items()}
            self.gradients = {name: np.empty_like(array) for name, array in weights.items()}
            self.ones = np.ones(steps * batch, np.float32)
        self.h_next = rows(self.h[1:])
        self.lefts = rows(self.left[:steps])
        self.U_transposed = np.empty((columns, hidden), np.float32)

    def begin(self) -> Array:
        """Copy or project the inputs; the matrix that each timestep's left row is multiplied with."""
        features = self.inputs.shape[-1]
        weights, scale = self.weights, self.column_scale
        if self.joined:
            self.left[:-1, :, :features] = self.inputs
            for name, part in self.parts.items():
                if scale is None:
                    self.right[part] = weights[name]
                else:
                    np.multiply(weights[name], scale, out=self.right[part])
            return self.right
        if scale is not None:
            for name, array in weights.items():
                np.multiply(array, scale, out=self.scaled[name])
            weights = self.scaled
        np.dot(self.inputs.reshape(-1, features), weights["W"], out=self.projected)
        np.add(self.projected, weights["b"], out=self.projected)
        return weights["U"]

    def turned(self) -> Array:
        """U transposed, for the way back: a copy that products of matrices read faster, or a view for vectors."""
        if self.z.ndim == 1:
            return self.weights["U"].T
        np.copyto(self.U_transposed, self.weights["U"].T)
        return self.U_transposed

    def loss(self) -> float:
        """The mean of h²."""
        h = self.h[1:]
        rows_of_h = h if self.joined else h.reshape(len(h), -1)
        return float(np.vecdot(rows_of_h, rows_of_h).sum()) / h.size  # in one long product float32 would lose digits

    def all_gradients(self, dz: Array) -> Arrays:
        """Every parameter's gradient, from the cotangents of z, (time·batch, gates·hidden)."""
        left = self.left[:-1].reshape(len(dz), -1)
        if self.joined:
            np.dot(left.T, dz, out=self.gradient)
            np.multiply(self.gradient, self.gradient_scale, out=self.gradient)
            return {name: self.gradient[part] for name, part in self.parts.items()}
        np.dot(self.inputs.reshape(len(dz), -1).T, dz, out=self.gradients["W"])
        np.dot(left.T, dz, out=self.gradients["U"])
        np.dot(self.ones, dz, out=self.gradients["b"])
        for gradient in self.gradients.values():
            np.multiply(gradient, self.gradient_scale, out=gradient)
        return self.gradients


def rnn(weights: Arrays, inputs: Array, variant: Variant) -> Step:
    """BPTT of h = tanh(x W + h U + b)."""
    steps, batch, _ = inputs.shape
    hidden = len(weights["U"])
    dot, add, multiply, subtract, tanh = np.dot, np.add, np.multiply, np.subtract, np.tanh
    product = Projection(weights, inputs, variant.joined, None)
    z = product.z
    way_forward = list(zip(product.lefts, product.added, product.h_next, strict=True))

    length = min(variant.block, steps)
    slopes = np.empty((length, batch, hidden), np.float32)
    dz = np.empty((steps, batch, hidden), np.float32)
    dh = np.empty_like(z)
    dz_rows = rows(dz)
    way_back = []
    for part in blocks(steps, length):
        slope = slopes[: part.stop - part.start]
        inside = zip(product.h_next[part], rows(slope), dz_rows[part], [*dz_rows[1:], None][part], strict=True)
        way_back.append((product.h[1:][part], slope, list(inside)[::-1]))

    def step() -> tuple[float, Arrays]:
        right = product.begin()
        for left, added, h_next in way_forward:
            dot(left, right, z)
            if added is not None:
                add(z, added, z)
            tanh(z, h_next)
        U_transposed = product.turned()
        for h_block, slope, inside in way_back:
            multiply(h_block, h_block, slope)
            subtract(ONE, slope, slope)
            for h, slope_t, dz_t, dz_later in inside:
                if dz_later is None:
                    multiply(h, slope_t, dz_t)
                else:
                    dot(dz_later, U_transposed, dh)
                    add(dh, h, dh)
                    multiply(dh, slope_t, dz_t)
        return product.loss(), product.all_gradients(dz.reshape(steps * batch, hidden))

    return step


def lstm(weights: Arrays, inputs: Array, variant: Variant) -> Step:
    """BPTT of an LSTM whose weights hold the gates in the order o, i, f, g."""
    steps, batch, _ = inputs.shape
    hidden = len(weights["U"])
    dot, add, multiply, subtract, tanh = np.dot, np.add, np.multiply, np.subtract, np.tanh
    exp, reciprocal, copyto = np.exp, np.reciprocal, np.copyto
    exponential = variant.exponential
    column_scale = np.full(4 * hidden, -1.0 if exponential else 0.5, np.float32)
    column_scale[3 * hidden :] = 1
    product = Projection(weights, inputs, variant.joined, column_scale)
    z = product.z
    z_sigmoid, z_tanh = z[..., : 3 * hidden], z[..., 3 * hidden :]

    # In one row [o, i, f, g, c of the step before]: one product [i, f] · [g, c] serves both terms of the next c.
    slots = np.zeros((steps + 1, batch, 5 * hidden), np.float32)
    past = slots[:-1]
    o, i, f, g = (past[..., k * hidden : (k + 1) * hidden] for k in range(4))
    sigmoids, gates = past[..., : 3 * hidden], past[..., : 4 * hidden]
    i_f, g_c = past[..., hidden : 3 * hidden], past[..., 3 * hidden :]
    tanh_c = np.empty((steps, batch, hidden), np.float32)
    terms = rows(np.empty((1, batch, 2 * hidden), np.float32))[0]
    first_term, second_term = terms[..., :hidden], terms[..., hidden:]
    c_next = slots[1:, :, 4 * hidden :]
    ways = (gates, sigmoids, g, i_f, g_c, c_next, tanh_c, o)
    way_forward = list(zip(product.lefts, product.added, *map(rows, ways), product.h_next, strict=True))

    # Local derivatives in one row: [of c by h, of h by z_o, of c by z_i, z_f, z_g, of c by the c before].
    length = min(variant.block, steps)
    slopes = np.empty((length, batch, 6 * hidden), np.float32)
    dz = np.empty((steps, batch, 4 * hidden), np.float32)
    dz_rows, dz_o, dz_rest = rows(dz), rows(dz[..., :hidden]), by_gate(dz[..., hidden:], hidden)
    dh, dc, dc_before = (rows(np.empty((1, batch, hidden), np.float32))[0] for _ in range(3))
    dc_per_gate = dc[..., None, :]
    way_back = []
    for part in blocks(steps, length):
        slope = slopes[: part.stop - part.start]
        by_h, by_z_o, by_z_g, by_c = (slope[..., k * hidden : (k + 1) * hidden] for k in (0, 1, 4, 5))
        by_sigmoids, by_z_if = slope[..., hidden : 4 * hidden], slope[..., 2 * hidden : 4 * hidden]
        by_z_ifg = by_gate(slope[..., 2 * hidden : 5 * hidden], hidden)
        local_of_h = (sigmoids[part], by_sigmoids, by_z_o, tanh_c[part], by_z_if, g_c[part], by_h, o[part])
        local = (*local_of_h, by_z_g, g[part], i[part], by_c, f[part])
        slope_rows = (rows(by_h), rows(by_z_o), by_z_ifg, rows(by_c))
        dz_parts = (dz_o[part], dz_rest[part], [*dz_rows[1:], None][part])
        inside = zip(product.h_next[part], *slope_rows, *dz_parts, strict=True)
        way_back.append((local, list(inside)[::-1]))

    def forward() -> None:
        right = product.begin()
        for left, added, gates_t, sigmoids_t, g_t, i_f_t, g_c_t, c_t, tanh_c_t, o_t, h_next in way_forward:
            dot(left, right, z)
            if added is not None:
                add(z, added, z)
            if exponential:
                exp(z_sigmoid, sigmoids_t)
                add(sigmoids_t, ONE, sigmoids_t)
                reciprocal(sigmoids_t, sigmoids_t)
                tanh(z_tanh, g_t)
            else:
                tanh(z, gates_t)
                multiply(sigmoids_t, HALF, sigmoids_t)
                add(sigmoids_t, HALF, sigmoids_t)
            multiply(i_f_t, g_c_t, terms)
            add(first_term, second_term, c_t)
            tanh(c_t, tanh_c_t)
            multiply(o_t, tanh_c_t, h_next)

    def local_derivatives(*arrays: Array) -> None:
        s, by_s, by_z_o, tanh_c_b, by_z_if, g_c_b, by_h, o_b, by_z_g, g_b, i_b, by_c, f_b = arrays
        multiply(s, s, by_s)
        subtract(s, by_s, by_s)
        multiply(by_z_o, tanh_c_b, by_z_o)
        multiply(by_z_if, g_c_b, by_z_if)
        for by, value, factor in ((by_h, tanh_c_b, o_b), (by_z_g, g_b, i_b)):
            multiply(value, value, by)
            subtract(ONE, by, by)
            multiply(by, factor, by)
        copyto(by_c, f_b)  # in the loop this row is read next to its neighbours

    def step() -> tuple[float, Arrays]:
        forward()
        U_transposed = product.turned()
        dc_before[...] = 0
        for local, inside in way_back:
            local_derivatives(*local)
            for h, by_h, by_z_o, by_z_ifg, by_c, dz_o_t, dz_rest_t, dz_later in inside:
                if dz_later is None:
                    copyto(dh, h)
                else:
                    dot(dz_later, U_transposed, dh)
                    add(dh, h, dh)
                multiply(dh, by_z_o, dz_o_t)
                multiply(dh, by_h, dc)
                add(dc, dc_before, dc)
                multiply(dc_per_gate, by_z_ifg, dz_rest_t)
                multiply(dc, by_c, dc_before)
        return product.loss(), product.all_gradients(dz.reshape(steps * batch, 4 * hidden))

    return step


def columns_of(gates: Sequence[int], hidden: int) -> Array:
    """The indices of these gates' columns, one gate after the other."""
    return np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in gates])


def variants(case: Case) -> Iterable[Variant]:
    """The choices that matter for this case."""
    sigmoids = (False, True) if case.cell == "LSTM" else (False,)
    for joined, exponential, block in itertools.product((False, True), sigmoids, (1, 8, case.size.time)):
        yield Variant(joined, exponential, block)


def programs(case: Case) -> dict[Variant, Program]:
    """Every variant, for the check of agreement."""
    hidden = case.size.hidden
    if case.cell == "RNN":
        cell, there, back = rnn, columns_of((0,), hidden), columns_of((0,), hidden)
    else:  # i, f, o, g become o, i, f, g
        cell, there, back = lstm, columns_of((2, 0, 1, 3), hidden), columns_of((1, 2, 0, 3), hidden)
    weights = {name: np.ascontiguousarray(array[..., there]) for name, array in case.weights.items()}

    def gradients(result: tuple[float, Arrays]) -> Arrays:
        loss, found = result
        return {"loss": np.asarray(loss), **{name: array[..., back] for name, array in found.items()}}

    return {
        variant: Program(start=functools.partial(cell, weights, case.inputs, variant), gradients=gradients)
        for variant in variants(case)
    }


def one_variant(case: Case) -> Program:
    """The variant of medium blocks, unmeasured: for modes in which the search would disturb."""
    return programs(case)[Variant(joined=False, exponential=False, block=8)]


def numpy_by_hand(case: Case) -> Program:
    """The variant that is fastest here."""
    candidates = programs(case)
    steps = {variant: program.start() for variant, program in candidates.items()}
    best = fastest(steps)
    return Program(start=lambda: steps[best], gradients=candidates[best].gradients)


def fastest(steps: dict[Key, Step]) -> Key:
    """The step whose best turn is the shortest, over a few interleaved turns of those that may still win."""
    shortest = dict.fromkeys(steps, float("inf"))
    for _ in range(TUNING_TURNS):
        record = min(shortest.values())
        for key, step in steps.items():
            if shortest[key] > HOPELESS * record:
                continue
            begin, count = time.perf_counter(), 0
            while (spent := time.perf_counter() - begin) < TUNING_SECONDS or not count:
                step()
                count += 1
            shortest[key] = min(shortest[key], spent / count)
    return min(shortest, key=lambda key: shortest[key])


def gemms_alone(case: Case) -> Program:
    """The matrix products of BPTT and nothing else, as one product per timestep, or with x @ W for all at once."""
    steps, batch, features, hidden = case.size
    W, U = case.weights["W"], case.weights["U"]
    columns = U.shape[1]
    x, h = case.inputs.reshape(-1, features), np.zeros((steps + 1, batch, hidden), np.float32)
    projected, dz = (np.empty((steps, batch, columns), np.float32) for _ in range(2))
    dz[...] = 0.1  # nothing denormal
    joined = np.zeros((steps, batch, features + 1 + hidden), np.float32)
    joined_weights = np.zeros((features + 1 + hidden, columns), np.float32)
    dW, dU, dJoined = np.empty_like(W), np.empty_like(U), np.empty_like(joined_weights)
    z, dh = (rows(np.empty((1, batch, width), np.float32))[0] for width in (columns, hidden))
    h_rows, joined_rows, dz_rows = rows(h[:-1]), rows(joined), rows(dz)[1:]
    U_transposed = U.T if batch == 1 else U.T.copy()

    def apart() -> None:
        np.dot(x, W, out=projected.reshape(-1, columns))
        for row in h_rows:
            np.dot(row, U, z)
        for row in dz_rows:
            np.dot(row, U_transposed, dh)
        np.dot(x.T, dz.reshape(-1, columns), out=dW)
        np.dot(h[:-1].reshape(-1, hidden).T, dz.reshape(-1, columns), out=dU)

    def together() -> None:
        for row in joined_rows:
            np.dot(row, joined_weights, z)
        for row in dz_rows:
            np.dot(row, U_transposed, dh)
        np.dot(joined.reshape(steps * batch, -1).T, dz.reshape(-1, columns), out=dJoined)

    steps_of = {"apart": apart}
    if case.cell != "GRU":  # whose reset gate stands between x W and h U
        steps_of["together"] = together
    best = fastest(steps_of)
    return Program(start=lambda: steps_of[best], gradients=lambda result: {})
