"""mg.fit: the steps that a loop written by hand would take, and everything around them that people rely on."""

import contextlib
import csv
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

import microgrid as mg
from microgrid.data import Batch, Buckets, Minibatches, Windows
from microgrid.errors import MicrogridError, NotFiniteError, OperandError, OperandTypeError, SequenceError
from microgrid.training import progress as progress_module
from microgrid.training.health import Health
from microgrid.training.progress import Bar, Lines, Silence, clock, progress_for

STILL = 1e-30
"""A learning rate that changes nothing."""


def sequences(steps=12, batch=1, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(steps, batch, 1)).astype(dtype) for name in ("x", "target")}


def regression(seed=0, *, batch=1, hidden=4, dropout=0.0, cell=mg.nn.RNN, dtype=np.float32, reduction="mean", **more):
    """The loss of a recurrent network of one input and one output."""
    x = mg.input(np.zeros((batch, 1), dtype), name="x")
    target = mg.input(np.zeros((batch, 1), dtype), name="target")
    h = cell(1, hidden, rng=seed, dtype=dtype, **more)(x)
    h = mg.nn.Dropout(dropout, rng=seed + 10)(h) if dropout else h
    return mg.nn.mse(mg.nn.Linear(h.shape[-1], 1, rng=seed + 1, dtype=dtype)(h), target, reduction=reduction)


def classification(seed=0, *, pooled=False, metrics=False, **settings):
    """The loss of a network that names the class, of three, of a whole sequence."""
    x, kind = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros(1, int), name="kind")
    h = mg.nn.RNN(1, 4, rng=seed)(x)
    logits = mg.nn.Linear(4, 3, rng=seed + 1)(mg.time_mean(h) if pooled else mg.last(h))
    loss = mg.nn.cross_entropy(logits, mg.last(kind), **settings)
    return (loss, mg.nn.accuracy(logits, mg.last(kind))) if metrics else loss


def parameters(loss):
    graph = mg.Graph(loss)
    return {graph.names[p]: p.value.tobytes() for p in graph.parameters}


def sgd(loss, lr=STILL):
    return mg.optim.SGD(mg.Graph(loss).parameters, lr=lr)


def quiet(loss, data, epochs=1, **settings):
    return mg.fit(loss, data, epochs=epochs, progress=False, **settings)


def by_hand(loss, data, epochs, optimiser, schedule=None, clip=math.inf, carried=lambda state: True):
    """The loop as the README writes it; returns the losses and norms of all steps."""
    step, graph, found = mg.compile(loss), mg.Graph(loss), []
    names = {graph.names[state] for state in graph.states if carried(state)}
    for epoch in range(epochs):
        state = {}
        for batch in data.epoch(epoch):
            run = step(batch.inputs, initial=state if batch.carried else None, lengths=batch.lengths)
            optimiser.zero_grad()
            run.backward()
            norm = mg.optim.clip_grad_norm(optimiser.parameters, clip)
            if schedule is not None:
                optimiser.factor = schedule(len(found))
            optimiser.step()
            state = {name: run.state[name] for name in names}
            found.append((float(run.value), norm))
    return np.array(found)


# --- the loop -------------------------------------------------------------------------------------------

LISTS = [np.random.default_rng(n).normal(size=(n, 1)) for n in (3, 9, 4, 4, 7, 2, 5)]
LOOPS = {
    "windows": (regression, Windows(sequences(22, 3), 5)),
    "windows with dropout": (lambda: regression(dropout=0.4, hidden=5), Windows(sequences(22, 3), 5)),
    "windows, LSTM": (lambda: regression(cell=mg.nn.LSTM), Windows(sequences(22, 2), 6)),
    "windows, GRU in float64": (lambda: regression(cell=mg.nn.GRU, dtype=np.float64), Windows(sequences(15), 4)),
    "windows, two layers with dropout between": (
        lambda: regression(num_layers=2, dropout=0.2),
        Windows(sequences(15, 2), 4),
    ),
    "minibatches with labels": (
        classification,
        Minibatches({"x": np.ones((11, 6, 1))}, 4, labels={"kind": np.arange(11) % 3}, seed=3),
    ),
    "buckets": (regression, Buckets({"x": LISTS, "target": [-each for each in LISTS]}, 2, seed=3)),
    "buckets with labels": (
        lambda: classification(pooled=True),
        Buckets({"x": LISTS}, 3, labels={"kind": np.arange(7) % 3}, seed=0),
    ),
    "one sequence per batch": (regression, Buckets({"x": LISTS, "target": LISTS}, 1)),
}


@pytest.mark.parametrize("case", LOOPS)
@pytest.mark.parametrize("with_all", [False, True], ids=["plain", "clip and schedule"])
def test_parameters_equal_those_of_a_loop_written_by_hand_bit_for_bit(case, with_all):
    make, data = LOOPS[case]
    fitted, written = make(), make()
    schedule = mg.optim.WarmUp(3, then=mg.optim.Cosine(20)) if with_all else None
    clip = 0.05 if with_all else None
    adam, other = (mg.optim.Adam(mg.Graph(each).parameters, lr=0.01) for each in (fitted, written))
    history = quiet(fitted, data, 3, optimiser=adam, schedule=schedule, clip_norm=clip)
    steps = by_hand(written, data, 3, other, schedule, clip or math.inf)
    assert parameters(fitted) == parameters(written)
    assert parameters(fitted) != parameters(make())
    assert adam.state_dict()["settings"] == other.state_dict()["settings"]
    assert history["step"].tolist() == [len(data), 2 * len(data), 3 * len(data)]
    assert np.allclose(history["gradient norm"], steps[:, 1].reshape(3, -1).mean(axis=1), rtol=1e-12)
    if with_all:
        assert steps[:, 1].max() > clip  # or nothing was clipped
        assert history["learning rate"].tolist() == [0.01 * schedule(n * len(data) - 1) for n in (1, 2, 3)]


def test_the_default_optimiser_is_adam_of_all_parameters():
    fitted, written = regression(), regression()
    quiet(fitted, sequences(), 5)
    by_hand(written, Windows(sequences(), 12), 5, mg.optim.Adam(mg.Graph(written).parameters, lr=0.001))
    assert parameters(fitted) == parameters(written)


def test_a_mapping_of_arrays_is_one_batch_and_full_backpropagation_through_time():
    fitted, written = regression(), regression()
    history = quiet(fitted, sequences(40, 3), 4, optimiser=mg.optim.Adam(mg.Graph(fitted).parameters, lr=0.01))
    step, adam = mg.compile(written), mg.optim.Adam(mg.Graph(written).parameters, lr=0.01)
    for _ in range(4):
        run = step(**sequences(40, 3))
        adam.zero_grad()
        run.backward()
        adam.step()
    assert parameters(fitted) == parameters(written)
    assert history["step"].tolist() == [1, 2, 3, 4]
    assert history[-1]["loss"] == float(run.value)


def test_only_the_optimisers_parameters_move():
    loss = regression()
    before, chosen = parameters(loss), mg.Graph(loss).parameters[0]
    quiet(loss, sequences(), 2, optimiser=mg.optim.SGD([chosen], lr=0.1))
    changed = [name for name, held in parameters(loss).items() if held != before[name]]
    assert changed == [mg.Graph(loss).names[chosen]]


def test_gradients_of_before_do_not_count():
    fitted, other = regression(), regression()
    for parameter in mg.Graph(fitted).parameters:
        parameter.grad = np.full(parameter.shape, 1e3, parameter.dtype)
    for loss in fitted, other:
        quiet(loss, sequences(), 2)
    assert parameters(fitted) == parameters(other)


@pytest.mark.parametrize("batch", [1, 3])
def test_reverse_states_are_not_carried_from_window_to_window(batch):
    data = Windows(sequences(20, batch), 6)
    fitted, written, carrying = (regression(bidirectional=True) for _ in range(3))
    quiet(fitted, data, 3, optimiser=mg.optim.Adam(mg.Graph(fitted).parameters, lr=0.01))
    adam = mg.optim.Adam(mg.Graph(written).parameters, lr=0.01)
    by_hand(written, data, 3, adam, carried=lambda state: not state.reverse)
    by_hand(carrying, data, 3, mg.optim.Adam(mg.Graph(carrying).parameters, lr=0.01))
    assert parameters(fitted) == parameters(written) != parameters(carrying)


def test_states_start_anew_in_every_epoch_and_where_a_batch_is_not_carried():
    first = quiet(first_loss := regression(), Windows(sequences(20), 5), 1, optimiser=sgd(first_loss))
    both = quiet(both_loss := regression(), Windows(sequences(20), 5), 2, optimiser=sgd(both_loss))
    assert both["loss"].tolist() == [first["loss"][0]] * 2


def test_an_optimiser_goes_on_where_an_earlier_fit_left_it():
    once, twice = regression(), regression()
    adam = mg.optim.Adam(mg.Graph(twice).parameters, lr=0.01)
    for _ in range(2):
        quiet(twice, sequences(), 3, optimiser=adam)
    quiet(once, sequences(), 6, optimiser=mg.optim.Adam(mg.Graph(once).parameters, lr=0.01))
    assert parameters(once) == parameters(twice)


def test_a_batch_that_gives_a_dropout_mask_fixes_it():
    data = {**sequences(10), "dropout.mask": np.zeros((10, 1, 4), np.float32)}
    loss = regression(dropout=0.5)
    bias = next(p for p in mg.Graph(loss).parameters if p.shape == (1,))
    history = quiet(loss, data, optimiser=sgd(loss))
    expected = np.mean((data["target"] - bias.value) ** 2)  # all of h is dropped
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_training_in_a_thread_works():
    loss, found = regression(), []
    thread = threading.Thread(target=lambda: found.append(quiet(loss, sequences(), 2)))
    thread.start()
    thread.join()
    assert found[0].stopped == "epochs"


# --- overlapping windows --------------------------------------------------------------------------------


def per_timestep(seed=0, cell=mg.nn.RNN, **more):
    """The squared error of every timestep, in float64."""
    return mg.sum(regression(seed, cell=cell, dtype=np.float64, reduction="none", **more))


def overlapping_by_hand(error, data, epochs, lr):
    """BPTT(k2; k1) on unrolled graphs; returns losses, norms and parameters."""
    net, found = mg.Graph(error), []
    for epoch in range(epochs):
        batches, state = list(data.epoch(epoch)), None
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            initial = state if batch.carried else None
            dag = net.unroll(batch.inputs, initial=initial)
            counted = batch.counted or batch.steps
            total = dag[error, batch.steps - counted]
            for t in range(batch.steps - counted + 1, batch.steps):
                total = total + dag[error, t]
            for p in net.parameters:
                p.grad = None
            (total / counted).backward()
            if following is not None and following.carried:
                before = following.start - batch.start
                early = net.unroll({name: x[:before] for name, x in batch.inputs.items()}, initial=initial)
                state = {name: np.array(value) for name, value in early.state.items()}
            found.append(
                (float((total / counted).value), math.hypot(*[np.linalg.norm(p.grad) for p in net.parameters]))
            )
            for p in net.parameters:
                p.value = p.value - lr * p.grad
    return np.array(found), {net.names[p]: p.value for p in net.parameters}


OVERLAPS = [(20, 6, 4), (20, 6, 1), (17, 5, 3), (7, 7, 3), (10, 30, 4)]


@pytest.mark.parametrize(("steps", "length", "every"), OVERLAPS)
@pytest.mark.parametrize("cell", [mg.nn.RNN, mg.nn.LSTM])
def test_overlapping_windows_count_each_timestep_once_and_flow_back_k2_timesteps(steps, length, every, cell):
    data = Windows(sequences(steps), length, every)
    found, _ = overlapping_by_hand(per_timestep(cell=cell), data, 1, lr=0.0)
    loss = mg.time_mean(per_timestep(cell=cell))
    history = quiet(loss, data, optimiser=sgd(loss))
    new = np.array([batch.counted or batch.steps for batch in data.epoch(0)])
    assert new.sum() == steps
    assert history["loss"][0] == pytest.approx(np.sum(found[:, 0] * new) / steps, rel=1e-12)
    assert history["gradient norm"][0] == pytest.approx(found[:, 1].mean(), rel=1e-10)
    whole = mg.compile(mg.time_mean(per_timestep(cell=cell)), wrt=())(**sequences(steps)).value
    assert history["loss"][0] == pytest.approx(float(whole), rel=1e-12)  # states are those of the whole sequence


@pytest.mark.parametrize(("steps", "length", "every"), OVERLAPS[:3])
def test_a_window_starts_from_the_states_that_the_window_before_it_had(steps, length, every):
    data = Windows(sequences(steps), length, every)
    _, expected = overlapping_by_hand(per_timestep(), data, 2, lr=0.2)
    loss = mg.time_mean(per_timestep())
    quiet(loss, data, 2, optimiser=sgd(loss, 0.2))
    for p in mg.Graph(loss).parameters:
        assert np.allclose(p.value, expected[mg.Graph(loss).names[p]], rtol=1e-9, atol=1e-12)


def test_states_above_a_layer_that_reads_the_future_are_carried_as_they_were():
    def make():
        x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
        h = mg.nn.RNN(1, 2, rng=0, bidirectional=True, dtype=np.float64)(x)
        h = mg.nn.RNN(4, 2, rng=1, dtype=np.float64)(h)
        return mg.sum(mg.square(mg.nn.Linear(2, 1, rng=2, dtype=np.float64)(h) - target))

    error, given = make(), sequences(10)
    net, windows = mg.Graph(error), list(Windows(given, 6, 4).epoch(0))
    dag, state = net.unroll(windows[0].inputs), {}
    for own in net.states:
        if not own.reverse:
            state[net.names[own]] = dag.over_time(own.next)[windows[1].start - 1].value
    second = net.unroll(windows[1].inputs, initial=state)
    expected = np.mean([second[error, t].value for t in range(2, 6)])
    loss = mg.time_mean(make())
    two = {name: x[:8] for name, x in given.items()}
    first = np.mean([dag[error, t].value for t in range(4)])
    history = quiet(loss, Windows(two, 6, 4), optimiser=sgd(loss))
    assert history["loss"][0] == pytest.approx((first + expected) / 2, rel=1e-12)


def test_delays_are_carried_over_overlapping_windows_too():
    def delayed():
        x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
        w, past = mg.parameter(np.ones((1, 1)), name="w"), mg.state(np.zeros((1, 1)), name="past")
        past.next = x
        return mg.sum(mg.square(past @ w - target))

    data = Windows(sequences(20), 6, 4)
    found, _ = overlapping_by_hand(delayed(), data, 1, lr=0.0)
    loss = mg.time_mean(delayed())
    assert quiet(loss, data, optimiser=sgd(loss))["gradient norm"][0] == pytest.approx(found[:, 1].mean(), rel=1e-10)


def test_a_sum_over_time_and_a_last_value_count_the_new_timesteps_of_overlapping_windows():
    data = Windows(sequences(20), 6, 4)
    found, _ = overlapping_by_hand(per_timestep(), data, 1, lr=0.0)
    summed = mg.time_sum(per_timestep())
    new = np.array([batch.counted or batch.steps for batch in data.epoch(0)])
    assert quiet(summed, data, optimiser=sgd(summed))["loss"][0] == pytest.approx(np.mean(found[:, 0] * new), rel=1e-12)
    error = per_timestep()
    last = quiet(end := mg.last(error), data, optimiser=sgd(end))
    whole = mg.compile(mg.Graph(per_timestep()), wrt=())(**sequences(20)).value
    assert last["loss"][0] == pytest.approx(np.mean(whole[3::4]), rel=1e-12)


def test_overlapping_windows_refuse_a_loss_that_reads_what_does_not_count():
    with pytest.raises(SequenceError, match=r"overlap \(every < length\) need a loss"):
        quiet(mg.first(per_timestep()), Windows(sequences(20), 6, 4))


def test_a_network_may_have_an_input_called_counted():
    x, counted = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="counted")
    loss = mg.nn.mse(x * mg.parameter(np.ones((1, 1)), name="w"), counted)
    given = sequences(20)
    history = quiet(loss, Windows({"x": given["x"], "counted": given["target"]}, 6, 4), optimiser=sgd(loss))
    assert history["loss"][0] == pytest.approx(np.mean((given["x"] - given["target"]) ** 2))


def test_dropout_draws_one_mask_per_timestep_of_an_overlapping_window():
    losses = [regression(dropout=0.5) for _ in range(2)]
    histories = [quiet(loss, Windows(sequences(20), 6, 4), 2) for loss in losses]
    assert parameters(losses[0]) == parameters(losses[1])
    assert histories[0]["loss"].tolist() == histories[1]["loss"].tolist()


# --- the loss of an epoch -------------------------------------------------------------------------------


def test_the_loss_of_an_epoch_weighs_windows_by_their_timesteps():
    loss, data = regression(), Windows(sequences(22, 3), 8)
    found = by_hand(regression(), data, 1, sgd(other := regression()))[:, 0]
    assert other is not loss
    history = quiet(loss, data, optimiser=sgd(loss))
    assert history["loss"][0] == pytest.approx(np.average(found, weights=[8, 8, 6]), rel=1e-6)
    assert abs(history["loss"][0] - np.mean(found)) > 1e-4


def test_the_loss_of_an_epoch_weighs_buckets_by_the_timesteps_that_are_there():
    loss = regression()
    data = Buckets({"x": LISTS, "target": [-each for each in LISTS]}, 3)
    history = quiet(loss, data, optimiser=sgd(loss))
    each = [float(mg.compile(loss, wrt=())(x=x[:, None], target=-x[:, None]).value) for x in LISTS]
    assert history["loss"][0] == pytest.approx(np.average(each, weights=list(map(len, LISTS))), rel=1e-5)


@pytest.mark.parametrize("pooled", [False, True], ids=["last", "mean over time"])
def test_the_loss_of_an_epoch_weighs_sequences_alike_where_each_has_one_loss(pooled):
    loss = classification(pooled=pooled)
    kinds = np.arange(7) % 3
    history = quiet(loss, Buckets({"x": LISTS}, 3, labels={"kind": kinds}), optimiser=sgd(loss))
    program = mg.compile(loss, wrt=())
    each = [float(program(x=x[:, None], kind=np.full((len(x), 1), k)).value) for x, k in zip(LISTS, kinds, strict=True)]
    assert history["loss"][0] == pytest.approx(np.mean(each), rel=1e-5)


# --- validation -----------------------------------------------------------------------------------------


def test_validation_drops_nothing_and_draws_nothing():
    layer_rng = np.random.default_rng(5)
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    h = mg.nn.Dropout(0.5, rng=layer_rng)(mg.nn.RNN(1, 4, rng=0)(x))
    loss = mg.nn.mse(mg.nn.Linear(4, 1, rng=1)(h), target)
    plain = quiet(loss, sequences(), optimiser=sgd(loss), validation=sequences(30, seed=1))
    expected = mg.compile(mg.Graph(loss), wrt=())(**sequences(30, seed=1)).value
    assert plain["validation loss"][0] == pytest.approx(float(expected), rel=1e-6)
    after = layer_rng.bit_generator.state
    layer_rng.bit_generator.state = np.random.default_rng(5).bit_generator.state
    quiet(loss, sequences(), optimiser=sgd(loss))
    assert layer_rng.bit_generator.state == after


def test_validation_does_not_change_what_is_learned():
    losses = [regression(dropout=0.3) for _ in range(2)]
    quiet(losses[0], Windows(sequences(22), 5), 3)
    quiet(losses[1], Windows(sequences(22), 5), 3, validation=Windows(sequences(9, 4, seed=1), 4))
    assert parameters(losses[0]) == parameters(losses[1])


def test_the_validation_loss_is_that_of_the_parameters_after_the_epoch():
    loss = regression()
    history = quiet(loss, sequences(), 3, validation=sequences(30, seed=1))
    now = mg.compile(mg.Graph(loss), wrt=())(**sequences(30, seed=1)).value
    assert history["validation loss"][-1] == pytest.approx(float(now), rel=1e-6)


def long_file(tmp_path, steps, seed=3):
    found = {}
    for name, array in sequences(steps, 2, seed, np.float32).items():
        found[name] = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, array.shape)
        found[name][...] = array
    return found


def value_of(output, given):
    return float(mg.compile(mg.Graph(output), wrt=())(**given).value)


LONG_LOSSES = {
    "mean": lambda y, target: mg.nn.mse(y, target),
    "sum": lambda y, target: mg.nn.mse(y, target, reduction="sum"),
    "root of the mean": lambda y, target: mg.sqrt(mg.nn.mse(y, target)),
    "of the mean over time": lambda y, target: mg.nn.mse(mg.time_mean(y), mg.time_mean(target)),
    "last": lambda y, target: mg.nn.mse(mg.last(y), mg.last(target)),
    "first": lambda y, target: mg.nn.mse(mg.first(y), mg.first(target)),
    "mean with a penalty": lambda y, target: mg.nn.mse(y, target) + 0.1 * mg.sum(mg.time_mean(y) * 0 + 2),
}


@pytest.mark.parametrize("kind", LONG_LOSSES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
def test_long_validation_data_in_windows_gives_what_all_at_once_gives(tmp_path, kind, bidirectional):
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    h = mg.nn.RNN(1, 4, rng=0, bidirectional=bidirectional)(x)
    loss = LONG_LOSSES[kind](mg.nn.Linear(h.shape[-1], 1, rng=1)(h), target)
    given = long_file(tmp_path, 2300)
    found = quiet(loss, sequences(), optimiser=sgd(loss), validation=given)["validation loss"][0]
    assert found == pytest.approx(value_of(loss, given), rel=1e-5)


def test_ignored_targets_have_no_weight_in_long_validation_data():
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros(1, int), name="target")
    logits = mg.nn.Linear(4, 3, rng=1)(mg.nn.RNN(1, 4, rng=0)(x))
    loss = mg.nn.cross_entropy(logits, target, ignore_index=-1)
    metrics = {"accuracy": mg.nn.accuracy(logits, target, ignore_index=-1)}
    kinds = np.random.default_rng(0).integers(0, 3, (2300, 1))
    kinds[100:990] = -1
    given = {"x": sequences(2300)["x"], "target": kinds}
    few = {"x": sequences()["x"], "target": np.zeros((12, 1), int)}
    row = quiet(loss, few, optimiser=sgd(loss), validation=given, metrics=metrics)[0]
    assert row["validation accuracy"] == pytest.approx(value_of(metrics["accuracy"], given), rel=1e-5)
    assert row["validation loss"] == pytest.approx(value_of(loss, given), rel=1e-5)


def test_metrics_are_those_of_the_whole_validation_data():
    loss, accuracy = classification(metrics=True)
    data = Minibatches({"x": np.random.default_rng(0).normal(size=(23, 6, 1))}, 5, labels={"kind": np.arange(23) % 3})
    history = quiet(loss, data, 2, validation=data, metrics={"accuracy": accuracy, "again": accuracy * 2})
    assert history.columns == [
        *("epoch", "step", "loss", "gradient norm", "learning rate"),
        *("validation loss", "validation accuracy", "validation again", "seconds"),
    ]
    whole = {"x": data.sequences["x"].swapaxes(0, 1), "kind": np.tile(np.arange(23) % 3, (6, 1))}
    assert history["validation accuracy"][-1] == pytest.approx(value_of(accuracy, whole), rel=1e-5)
    assert history["validation again"][-1] == pytest.approx(2 * history["validation accuracy"][-1])
    assert 0 < history["validation accuracy"][-1] < 1


def test_a_metric_may_read_an_input_and_a_state_that_the_loss_does_not_have():
    loss = regression()
    net = mg.Graph(loss)
    weight, trace = mg.input(np.zeros((1, 1)), name="weight"), mg.state(np.zeros((1, 1)), name="trace")
    trace.next = 0.999 * trace + weight * net["target"]
    metric = mg.time_mean(mg.mean(trace.next))
    given = {**sequences(2300, 2), "weight": np.random.default_rng(1).normal(size=(2300, 2, 1)) + 1}
    history = quiet(loss, sequences(), optimiser=sgd(loss), validation=given, metrics={"trace": metric})
    assert history["validation trace"][0] == pytest.approx(
        value_of(metric, {n: given[n] for n in ("target", "weight")})
    )


def test_a_metric_called_loss_does_not_take_the_place_of_the_loss():
    loss = regression()
    with contextlib.suppress(MicrogridError):  # to refuse the name is as good
        history = quiet(loss, sequences(), optimiser=sgd(loss), validation=sequences(), metrics={"loss": 100 + loss})
        assert history["validation loss"][0] < 50


class Drifting:
    """Validation data whose targets are other ones every time that it is asked for."""

    def __init__(self, levels):
        self.levels = list(levels)

    def __len__(self):
        return 1

    def epoch(self, number, start=0):
        yield Batch({"x": np.ones((2, 1, 1)), "target": np.full((2, 1, 1), self.levels.pop(0))})


def line():
    """w·x against a target: the validation loss of `Drifting` is about its level squared."""
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    return mg.nn.mse(x * mg.parameter(np.zeros((1, 1)), name="w"), target)


ONES = {"x": np.ones((3, 1, 1)), "target": np.ones((3, 1, 1))}


@pytest.mark.parametrize(
    ("levels", "patience", "epochs", "best"),
    [
        ([9, 5, 3, 6, 7, 1], 2, 5, 3),
        ([9, 5, 3, 6, 2.9, 7, 8, 9, 1], 2, 7, 5),
        ([5, 9, 9, 9, 1], 3, 4, 1),
        ([9, 8, 7, 6], 1, 4, 4),
        ([5, 5 + 1e-3, 4.5, 9], 1, 2, 1),
    ],
)
def test_patience_stops_and_gives_back_the_parameters_of_the_best_epoch(levels, patience, epochs, best):
    loss, same = line(), line()
    history = quiet(loss, ONES, len(levels), optimiser=sgd(loss, 1e-4), validation=Drifting(levels), patience=patience)
    quiet(same, ONES, best, optimiser=sgd(same, 1e-4))
    assert (len(history), history.best_epoch) == (epochs, best)
    assert history.stopped == ("patience" if epochs < len(levels) else "epochs")
    assert parameters(loss) == parameters(same)


def test_without_patience_the_parameters_are_the_last_ones_and_the_best_epoch_is_told():
    loss, same = line(), line()
    history = quiet(loss, ONES, 4, optimiser=sgd(loss, 0.01), validation=Drifting([5, 3, 6, 7]))
    quiet(same, ONES, 4, optimiser=sgd(same, 0.01))
    assert (history.best_epoch, history.stopped) == (2, "epochs")
    assert parameters(loss) == parameters(same)


def test_patience_without_validation_data_looks_at_the_loss():
    loss = line()
    history = quiet(loss, ONES, 9, optimiser=sgd(loss, 1.5), patience=2)  # each step overshoots: ×(1 − 3)
    assert (history.stopped, len(history)) == ("patience", 3)


def test_a_validation_loss_that_is_nan_once_is_never_the_best():
    loss = line()
    history = quiet(loss, ONES, 5, optimiser=sgd(loss), validation=Drifting([np.nan, 3, 2, 1, 4]), patience=3)
    assert (history.best_epoch, len(history)) == (4, 5)


# --- the history ----------------------------------------------------------------------------------------


def test_the_history_has_a_row_per_epoch_and_columns_by_name():
    loss = regression()
    history = quiet(loss, Windows(sequences(22), 5), 3)
    assert history.columns == ["epoch", "step", "loss", "gradient norm", "learning rate", "seconds"]
    assert (len(history), history.stopped, history.best_epoch) == (3, "epochs", None)
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["step"].tolist() == [5, 10, 15]
    assert (np.diff(history["seconds"]) >= 0).all()
    assert history[-1] == list(history)[2] == {name: history[name][-1] for name in history.columns}
    with pytest.raises(KeyError, match=r"no column 'los'\. Did you mean 'loss'"):
        history["los"]
    assert "3 epochs" in repr(history)
    assert "no epoch" in repr(mg.History())


def test_the_log_is_whole_after_every_epoch(tmp_path):
    path, seen = tmp_path / "run.csv", []

    class Watching(Drifting):
        def epoch(self, number, start=0):
            with open(path, newline="") as file:
                seen.append(list(csv.DictReader(file)))
            return super().epoch(number, start)

    path.write_text("of an older run")
    loss = line()
    history = quiet(loss, ONES, 3, validation=Watching([1, 2, 3]), log=path)
    assert [len(rows) for rows in seen] == [0, 1, 2]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == history.columns
    for row, expected in zip(rows, history, strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(expected, rel=1e-6)
    assert rows[:2] == seen[2]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]


def test_a_log_keeps_all_digits_of_large_step_numbers(tmp_path):
    from microgrid.training.history import CsvLog

    log = CsvLog(tmp_path / "run.csv", [])
    log.add({"epoch": 1, "step": 123_456_789, "loss": 0.5})
    with open(tmp_path / "run.csv", newline="") as file:
        assert int(next(csv.DictReader(file))["step"]) == 123_456_789


def test_a_log_that_goes_on_with_more_columns_stays_readable(tmp_path):
    loss, where = line(), {"checkpoint": tmp_path / "run", "log": tmp_path / "run.csv"}
    quiet(loss, ONES, 1, **where)
    history = quiet(loss, ONES, 3, validation=ONES, **where)
    with open(tmp_path / "run.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert None not in rows[-1]
    assert float(rows[-1]["validation loss"]) == pytest.approx(history["validation loss"][-1], rel=1e-6)
    assert float(rows[-1]["seconds"]) == pytest.approx(history["seconds"][-1])


def test_a_call_that_is_refused_leaves_an_older_log_alone(tmp_path, monkeypatch):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss\n1,0.5\n")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError):
        quiet(regression(), sequences(), log=path, tensorboard=tmp_path / "events")
    with pytest.raises(SequenceError):
        quiet(regression(), {"x": np.zeros((3, 1, 1))}, log=path)
    assert path.read_text() == "epoch,loss\n1,0.5\n"


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()

    class Removing(Drifting):
        def epoch(self, number, start=0):
            if folder.exists():
                (folder / "run.csv").unlink(missing_ok=True)
                folder.rmdir()
            return super().epoch(number, start)

    history = quiet(line(), ONES, 3, validation=Removing([1, 2, 3]), log=folder / "run.csv")
    assert history.stopped == "epochs"
    assert capsys.readouterr().err.count("run.csv") == 1


def events_of(folder):
    """(tag, step, value) of every scalar in a folder of event files, and whether each record's length fits."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    return found


def test_tensorboard_gets_every_column_as_a_curve(tmp_path):
    history = quiet(line(), ONES, 3, validation=Drifting([1, 2, 3]), tensorboard=tmp_path / "events")
    found = events_of(tmp_path / "events")
    assert [step for tag, step, _ in found if tag == "loss"] == [1, 2, 3]
    assert np.allclose([value for tag, _, value in found if tag == "loss"], history["loss"])
    validation = [value for tag, _, value in found if tag.replace("_", " ") == "validation loss"]
    assert np.allclose(validation, history["validation loss"])


def test_without_tensorboardx_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    loss = line()
    before = parameters(loss)
    with pytest.raises(ImportError, match=r"pip install 'microgrid-autodiff\[tensorboard\]'") as refusal:
        quiet(loss, ONES, tensorboard=tmp_path / "events")
    assert isinstance(refusal.value, MicrogridError)
    assert parameters(loss) == before
    assert not (tmp_path / "events").exists()


# --- progress -------------------------------------------------------------------------------------------

TRAIN = """
import sys, time
import numpy as np
import microgrid as mg
import microgrid.training.progress as progress
progress.SECONDS_BETWEEN_LINES = 0.2
class Slow:
    wait = 0.04
    def __len__(self): return 10
    def epoch(self, number, start=0):
        for i in range(start, 10):
            time.sleep(self.wait)
            yield mg.data.Batch({"x": np.ones((5, 2, 1)), "target": np.zeros((5, 2, 1))})
x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
loss = mg.nn.mse(mg.nn.Linear(4, 1, rng=1)(mg.nn.RNN(1, 4, rng=0)(x)), target)
quick = Slow()
quick.wait = 0
print(mg.fit(loss, Slow(), epochs=3, validation=quick if "--validate" in sys.argv else None).stopped)
"""
ENVIRONMENT = {
    **os.environ,
    "OPENBLAS_NUM_THREADS": "1",
    "COLUMNS": "",
    "PYTHONPATH": str(Path(mg.__file__).parents[1]),
}


def test_where_nobody_watches_a_line_comes_every_few_seconds_and_at_the_end():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=True
    )
    assert done.stdout == "epochs\n"
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    lines = done.stderr.splitlines()
    shape = re.compile(r"epoch [123]/3  step \d+/30  loss [\d.]+  gradient \S+.*  [\d.]+ steps/s  \d+ s left")
    assert all(shape.fullmatch(each) for each in lines), lines
    assert 4 <= len(lines) <= (time.monotonic() - began) / 0.2 + 1  # in 1.2 seconds and more
    assert lines[-1].startswith("epoch 3/3  step 30/30")
    assert lines[-1].endswith("0 s left")


def test_in_a_terminal_a_bar_shows_epoch_loss_gradient_and_rate():
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", TRAIN, "--validate"], stdout=subprocess.PIPE, stderr=theirs, env=ENVIRONMENT
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert child.communicate(timeout=60)[0] == b"epochs\n"
    frames = shown.decode().split("\r")
    assert len(frames) > 10
    assert max(map(len, frames)) <= 161
    frame = frames[len(frames) // 2]
    for part in (r"epoch [123]/3", r"\d+/30", r"loss \d", r"gradient \d", r"step/s|s/step", "validation"):
        assert re.search(part, frame), frame
    assert "∂h per timestep ×" in shown.decode()
    last = [frame for frame in frames if frame.strip()][-1]
    assert "30/30" in last
    assert "epoch 3/3" in last


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_last_frame_of_a_bar_shows_the_last_epoch_however_fast_it_went(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    history = mg.fit(line(), ONES, epochs=8, health=False)
    last = shown.getvalue().split("\r")[-1]
    assert "epoch 8/8" in last
    assert f"loss {history[-1]['loss']:.4f}" in last


def test_progress_can_be_asked_for_or_silenced(capsys):
    mg.fit(line(), ONES, epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")
    mg.fit(line(), ONES, epochs=2)
    assert "\r" not in capsys.readouterr().err
    mg.fit(line(), ONES, epochs=2, progress=True)
    assert "\r" in capsys.readouterr().err


def test_the_last_line_comes_also_where_patience_ends_the_run(capsys):
    mg.fit(line(), ONES, epochs=50, validation=Drifting([1, 2, 3, 4, 5]), patience=2)
    assert "epoch 3/50  step 3/50" in capsys.readouterr().err.splitlines()[-1]


def notebook(monkeypatch, shell):
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", module)


def test_a_notebook_gets_a_bar_and_a_plain_shell_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    kind = {"epochs": 1, "batches": 2, "done": 0}
    assert isinstance(progress_for(None, **kind), Lines)
    notebook(monkeypatch, None)
    assert isinstance(progress_for(None, **kind), Lines)
    notebook(monkeypatch, type("TerminalInteractiveShell", (), {})())
    assert isinstance(progress_for(None, **kind), Lines)
    shell = type("ZMQInteractiveShell", (), {"config": {}})()
    notebook(monkeypatch, shell)
    with progress_for(None, **kind) as shown:
        assert isinstance(shown, Bar)
    assert isinstance(progress_for(False, **kind), Silence)
    with progress_for(True, **kind) as shown:
        assert isinstance(shown, Bar)


def test_a_program_without_a_standard_error_trains(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    assert mg.fit(line(), ONES, epochs=2).stopped == "epochs"


def test_lines_tell_the_time_left(monkeypatch, capsys):
    now = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(now))
    lines = Lines(epochs=3, batches=100, done=50)
    for _ in range(4):
        lines.step(0, {"loss": "0.5000"})
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/3  step 52/300  loss 0.5000  0.333 steps/s  12:24 min left",
        "epoch 1/3  step 54/300  loss 0.5000  0.333 steps/s  12:18 min left",
    ]
    assert [clock(59.4), clock(59.6), clock(3599.6), clock(36000)] == ["59 s", "1:00 min", "1:00 h", "10:00 h"]


# --- numbers that are not finite ------------------------------------------------------------------------


def gradient_only():
    """A loss of 0 whose gradient is 0 · ∞."""
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    root = mg.sqrt(mg.square(x * mg.parameter(np.zeros((1, 1)), name="w")))
    return mg.nn.mse(root, target)


@pytest.mark.parametrize("data", [lambda d: Windows(d, 5), lambda d: Windows(d, 5, 3)], ids=["windows", "overlapping"])
def test_a_nan_in_the_data_stops_before_the_parameters_change(data):
    given = sequences(20)
    given["x"][12] = np.nan
    loss, before = regression(dropout=0.2), regression(dropout=0.2)
    clean = list(data(given).epoch(0))
    first = next(i for i, batch in enumerate(clean) if np.isnan(batch.inputs["x"]).any())
    at = int(np.flatnonzero(np.isnan(clean[first].inputs["x"]))[0])

    class Until:
        def __len__(self):
            return first

        def epoch(self, number, start=0):
            return iter(list(data(given).epoch(0))[start:first])

    quiet(before, Until())
    with pytest.raises(NotFiniteError, match=f"epoch 1, batch {first + 1}: the value of 'x' is nan at timestep {at}"):
        quiet(loss, data(given))
    assert parameters(loss) == parameters(before)


def test_a_gradient_alone_that_is_not_finite_is_named_and_changes_nothing():
    loss = gradient_only()
    before = parameters(loss)
    words = r"epoch 1, batch 1: the value of '\w+' is -?(inf|nan) at timestep \d"
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError, match=words):
        quiet(loss, ONES)
    assert parameters(loss) == before
    assert all(p.grad is None for p in mg.Graph(loss).parameters)


@pytest.mark.parametrize("lr", [1e4, 1e12, 1e30])
def test_an_exploding_network_is_told_so_without_a_word_from_numpy(lr, recwarn):
    loss = regression()
    adam = sgd(loss, lr)
    with pytest.raises(NotFiniteError, match=r"epoch \d+, batch 1: .*Lower the learning rate, clip") as error:
        quiet(loss, sequences(20), 300, optimiser=adam, health=False)
    assert re.search(r"the (value|gradient) of '[\w.]+' is -?(inf|nan)", str(error.value))
    assert not recwarn.list
    for p in mg.Graph(loss).parameters:
        assert np.isfinite(p.value).all()


def test_a_nan_on_the_way_is_not_said_to_be_a_vanishing_gradient(capsys):
    given = sequences(20)
    given["x"][12] = np.nan
    with pytest.raises(NotFiniteError):
        quiet(regression(), given)
    assert "vanishes" not in capsys.readouterr().err


# --- the health of gradients ----------------------------------------------------------------------------


def rotation(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def linear_layer(x, matrix, name, *, reverse=False, batch=1):
    h = mg.state(np.zeros((batch, len(matrix))), name=name, reverse=reverse)
    h.next = x + h @ mg.parameter(matrix, name=f"{name}.U")
    return h.next


def wide(steps=30, batch=1):
    return {name: np.random.default_rng(1).normal(size=(steps, batch, 4)) for name in ("x", "target")}


def flows(make, steps=30, batch=1, lengths=None, initial=None):
    """What `Health` finds in a network made of an input of four features, by the name of the first state."""
    x, target = mg.input(np.zeros((1, 4)), name="x"), mg.input(np.zeros((1, 4)), name="target")
    graph = mg.Graph(mg.nn.mse(make(x), target))
    data = wide(steps, batch)
    given = {node: data[graph.names[node]] for node in graph.inputs}
    starts = {graph.find(name): value for name, value in (initial or {}).items()}
    found = Health(graph).look(Batch(data, lengths), given, starts)
    return {re.search(r"'(.*?)'", flow.cycle).group(1): flow for flow in found}


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9, 1.0, 1.5, 1e3])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scaled_rotation_passes_on_its_scale_at_every_timestep(scale, reverse):
    (flow,) = flows(lambda x: linear_layer(x, scale * rotation(4), "h", reverse=reverse)).values()
    assert flow.per_timestep == pytest.approx(scale, rel=1e-9)
    assert flow.steps == 29
    assert flow.left == pytest.approx(scale**29, rel=1e-6)


def test_the_rate_is_the_product_of_the_jacobians_of_a_network_that_is_not_linear():
    u = 0.8 * rotation(4) + 0.1

    def make(x):
        h = mg.state(np.zeros((1, 4)), name="h")
        h.next = mg.tanh(x + h @ mg.parameter(u, name="U"))
        return h.next

    flow = flows(make)["h"]
    h, jacobians = np.zeros(4), []
    for x in wide()["x"][:, 0]:
        h = np.tanh(x + h @ u)
        jacobians.append(u * (1 - h * h))  # ∂h_t/∂h_{t−1}, from rows
    row = np.random.default_rng(0).choice([-1.0, 1.0], 4)
    norms = []
    for jacobian in reversed(jacobians):
        row = jacobian @ row
        norms.append(np.linalg.norm(row))
    assert flow.per_timestep == pytest.approx((norms[-1] / norms[0]) ** (1 / 29), rel=1e-9)


@pytest.mark.parametrize(("below", "above"), [(0.5, 1.0), (1.0, 0.5), (1.3, 0.5), (0.9, 0.95)])
def test_each_of_two_cycles_has_a_rate_of_its_own(below, above):
    found = flows(lambda x: linear_layer(linear_layer(x, below * rotation(4), "a"), above * rotation(4, 1), "b"))
    assert found["a"].per_timestep == pytest.approx(below, rel=1e-6)
    assert found["b"].per_timestep == pytest.approx(above, rel=1e-6)


def test_the_two_directions_of_a_network_have_rates_of_their_own():
    found = flows(
        lambda x: linear_layer(x, 0.5 * rotation(4), "a") + linear_layer(x, 1.2 * rotation(4, 1), "b", reverse=True)
    )
    assert {name: round(flow.per_timestep, 9) for name, flow in found.items()} == {"a": 0.5, "b": 1.2}


def test_a_cycle_of_two_states_has_one_rate():
    def make(x):
        c, h = mg.state(np.zeros((1, 4)), name="c"), mg.state(np.zeros((1, 4)), name="h")
        c.next = 0.6 * h + 0 * c + x
        h.next = 0.6 * c + 0 * h
        return h.next

    (flow,) = flows(make).values()
    assert flow.per_timestep == pytest.approx(0.6, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_rate_does_not_depend_on_the_batch_nor_on_where_states_start(batch):
    make = lambda x: linear_layer(x, 0.7 * rotation(4), "h")  # noqa: E731
    assert flows(make, batch=batch)["h"].per_timestep == pytest.approx(0.7)
    started = flows(make, batch=batch, initial={"h": np.full((batch, 4), 9.0)})
    assert started["h"].per_timestep == pytest.approx(0.7)


def test_lengths_networks_without_cycles_and_single_timesteps_do_no_harm():
    make = lambda x: linear_layer(x, 0.7 * rotation(4), "h")  # noqa: E731
    assert flows(make, batch=2, lengths=np.array([10, 30]))["h"].steps == 9
    assert flows(make, batch=2, lengths=np.array([1, 30])) == {}
    assert flows(make, steps=1) == {}
    assert flows(lambda x: x * mg.parameter(np.ones(4), name="w")) == {}
    assert flows(lambda x: linear_layer(x, np.zeros((4, 4)), "h"))["h"].per_timestep == 0


@pytest.mark.parametrize(("scale", "word"), [(1.5, "explodes"), (0.5, "vanishes"), (1.0, None)])
def test_training_warns_once_of_a_gradient_that_explodes_or_vanishes(scale, word, capsys, monkeypatch):
    x, target = mg.input(np.zeros((1, 4)), name="x"), mg.input(np.zeros((1, 4)), name="target")
    loss = mg.nn.mse(linear_layer(x, scale * rotation(4), "h"), target)
    looks = []
    monkeypatch.setattr(Health, "is_due", lambda self: looks.append(1) or True)
    mg.fit(loss, wide(40), epochs=5, optimiser=sgd(loss))
    said = capsys.readouterr().err
    assert len(looks) == 5
    assert said.count("warning") == (word is not None)
    if word is not None:
        assert f"the gradient through the cycle of 'h' {word}: each timestep multiplies it by {scale}," in said
        assert ("39 timesteps" if scale > 1 else "after 7 timesteps") in said
    mg.fit(loss, wide(40), epochs=5, optimiser=sgd(loss), health=False)
    assert "warning" not in capsys.readouterr().err
    quiet(loss, wide(40), 5, optimiser=sgd(loss))  # silence looks at nothing
    assert capsys.readouterr().err == ""
    assert len(looks) == 5


@pytest.mark.parametrize("cell", [mg.nn.RNN, mg.nn.LSTM, mg.nn.GRU])
def test_looking_at_the_gradient_changes_nothing(cell, monkeypatch):
    losses = [regression(cell=cell, dropout=0.3) for _ in range(2)]
    monkeypatch.setattr(Health, "is_due", lambda self: True)
    for loss, health in zip(losses, (False, True), strict=True):
        quiet(loss, Windows(sequences(22, 3), 5), 3, health=health)
    assert parameters(losses[0]) == parameters(losses[1])


# --- what does not fit ----------------------------------------------------------------------------------


def classes(**settings):
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros(1, int), name="target")
    return mg.nn.cross_entropy(mg.nn.Linear(4, 3, rng=1)(mg.nn.RNN(1, 4, rng=0)(x)), target, **settings)


def train(loss=regression, data=None, epochs=2, **settings):
    loss = loss() if isinstance(loss, types.FunctionType) else loss
    return quiet(loss, sequences() if data is None else data, epochs, **settings)


class Claims(Drifting):
    """Says that it has more, or fewer, batches than it gives."""

    def __init__(self, claimed, given):
        self.claimed, self.given, self.asked = claimed, given, 0

    def __len__(self):
        return self.claimed

    def epoch(self, number, start=0):
        self.asked += 1
        if self.asked > 20:
            pytest.fail("the loop never ends")
        for _ in range(start, self.given):
            yield Batch(sequences(4))


class CarriesFrom(Drifting):
    """Carried batches that start somewhere."""

    def __init__(self, starts):
        self.starts = starts

    def __len__(self):
        return len(self.starts)

    def epoch(self, number, start=0):
        for i in range(start, len(self.starts)):
            yield Batch(sequences(4), carried=i > 0, start=self.starts[i])


BAD = {
    "an empty sequence": (
        lambda: train(data={n: x[:0] for n, x in sequences().items()}),
        SequenceError,
        "'x' is empty",
    ),
    "no sequences": (lambda: train(data={}), SequenceError, "no sequences"),
    "no batches": (lambda: train(data=Claims(0, 0)), SequenceError, "data is empty"),
    "no validation batches": (lambda: train(validation=Claims(0, 0)), SequenceError, "validation is empty"),
    "a name that is no input": (
        lambda: train(data={"x": np.ones((3, 1, 1)), "targets": np.ones((3, 1, 1))}),
        SequenceError,
        "'targets', which is no input of the network.*'target'",
    ),
    "an input without data": (
        lambda: train(data={"x": np.ones((3, 1, 1))}),
        SequenceError,
        "input 'target'.*it has 'x'",
    ),
    "sequences of other lengths": (
        lambda: train(data={"x": np.ones((3, 1, 1)), "target": np.ones((4, 1, 1))}),
        SequenceError,
        "'x' has 3 timesteps, but 'target' has 4",
    ),
    "sequences of other batches": (
        lambda: train(data={"x": np.ones((3, 2, 1)), "target": np.ones((3, 1, 1))}),
        SequenceError,
        "'x' has 2 sequences, but 'target' has 1",
    ),
    "a list of sequences of several lengths": (
        lambda: train(data={"x": [[1.0], [1.0, 2.0]], "target": [[1.0], [1.0, 2.0]]}),
        SequenceError,
        "Buckets or mg.data.pad",
    ),
    "another number of features": (
        lambda: train(data={"x": np.ones((3, 1, 2)), "target": np.ones((3, 1, 1))}),
        SequenceError,
        r"'x' has shape \(1, 1\) at each timestep, but .* shape \(1, 2\)",
    ),
    "floats for classes": (
        lambda: train(classes, {"x": np.ones((3, 1, 1)), "target": np.ones((3, 1))}),
        SequenceError,
        "target",
    ),
    "a class that is none": (
        lambda: train(classes, {"x": np.ones((3, 2, 1)), "target": np.array([[0, 1], [2, 0], [1, 3]])}),
        IndexError,
        "'target' holds 3 at timestep 2, sequence 1 .* 3 classes.*from 0 to 2",
    ),
    "a loss per timestep": (lambda: train(lambda: regression(reduction="none")), MicrogridError, "mg.time_mean"),
    "a loss that is no scalar": (
        lambda: train(lambda: mg.time_mean(regression(reduction="none"))),
        MicrogridError,
        r"scalar|one number",
    ),
    "several outputs": (
        lambda: train(lambda: mg.Graph(a=(loss := regression()), b=loss * 2)),
        MicrogridError,
        "several outputs, 'a', 'b', and not one of them alone is a scalar",
    ),
    "a loss without parameters": (
        lambda: train(lambda: mg.time_mean(mg.mean(mg.input(np.ones((1, 1)), name="x"))), {"x": np.ones((3, 1, 1))}),
        MicrogridError,
        "^(?!the optimiser).*no parameter",  # there is no optimiser
    ),
    "a module for a loss": (lambda: train(mg.nn.Linear(1, 1)), MicrogridError, "mg.fit takes the loss.*not Linear"),
    "an array for a loss": (lambda: train(np.float64(3)), OperandTypeError, "mg.fit takes the loss"),
    "data in a list": (lambda: train(data=[sequences()]), OperandTypeError, "mg.data.Windows, not list"),
    "an array for data": (lambda: train(data=np.ones((3, 1, 1))), OperandTypeError, "not ndarray"),
    "the class of an optimiser": (
        lambda: train(optimiser=mg.optim.Adam),
        OperandTypeError,
        r"mg.optim.Adam\(parameters\)",
    ),
    "the name of an optimiser": (lambda: train(optimiser="adam"), OperandTypeError, "not 'adam'"),
    "an optimiser of another network": (
        lambda: train(optimiser=sgd(regression())),
        OperandTypeError,
        "no parameter of this loss",
    ),
    "no epochs": (lambda: train(epochs=0), OperandError, "epochs is a whole number, at least 1, not 0"),
    "half an epoch": (lambda: train(epochs=0.5), OperandError, "epochs .* not 0.5"),
    "True for epochs": (lambda: train(epochs=True), OperandError, "epochs"),
    "no patience": (lambda: train(patience=0), OperandError, "patience"),
    "metrics without validation": (lambda: train(metrics={"a": mg.tensor(1.0)}), OperandError, "give validation="),
    "a metric that is a function": (
        lambda: train(validation=sequences(), metrics={"a": mg.nn.accuracy}),
        OperandTypeError,
        "metric 'a'.*not function",
    ),
    "a metric per timestep": (
        lambda: train(metrics={"a": mg.tanh(mg.input(np.zeros((1, 1)), name="z"))}, validation=sequences()),
        OperandTypeError,
        "metric 'a' is one number",
    ),
    "metrics in a list": (lambda: train(validation=sequences(), metrics=[regression()]), MicrogridError, "metrics"),
    "a number for a schedule": (lambda: train(schedule=0.1), OperandTypeError, "schedule is a function of the step"),
    "a schedule that gives nothing": (lambda: train(schedule=lambda step: None), MicrogridError, "factor.*None"),
    "a schedule below zero": (lambda: train(schedule=lambda step: -1.0), OperandError, "factor.*-1"),
    "a clip of 0": (lambda: train(clip_norm=0.0), OperandError, "clip_norm.*0"),
    "a clip below 0": (lambda: train(clip_norm=-1.0), OperandError, "clip_norm|max_norm"),
    "a clip that is no number": (lambda: train(clip_norm="1"), MicrogridError, "clip_norm|max_norm"),
    "seconds that are none": (lambda: train(save_every="30"), MicrogridError, "save_every"),
    "fewer batches than claimed": (lambda: train(data=Claims(5, 3)), SequenceError, "5.*3|3.*5"),
    "more batches than claimed": (lambda: train(data=Claims(2, 4)), SequenceError, "batches"),
    "carried from nowhere": (lambda: train(data=CarriesFrom([0, 0, 0])), SequenceError, "start"),
    "carried from the future": (lambda: train(data=CarriesFrom([0, 9, 18])), SequenceError, "start"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case):
    call, kind, words = BAD[case]
    with pytest.raises(kind, match=words) as error:
        call()
    assert isinstance(error.value, MicrogridError)


@pytest.mark.parametrize("number", [np.int64(2), np.int32(2)])
def test_numbers_of_epochs_may_be_those_of_numpy(number):
    assert len(quiet(line(), ONES, number, validation=ONES, patience=number)) == 2


@pytest.mark.parametrize(
    ("validation", "words"),
    [({"x": np.ones((3, 1, 1))}, "'target'"), ({**sequences(), "z": sequences()["x"]}, "'z'")],
)
def test_validation_data_that_does_not_fit_is_refused_before_training(validation, words):
    loss = regression()
    before = parameters(loss)
    with pytest.raises(SequenceError, match=words):
        quiet(loss, sequences(), 2, validation=validation)
    assert parameters(loss) == before


def test_missing_folders_are_an_error_before_training(tmp_path):
    loss = regression()
    before = parameters(loss)
    for name in "checkpoint", "log":
        with pytest.raises(FileNotFoundError, match=rf"{name}=.*its folder does not exist: make it first"):
            quiet(loss, sequences(), **{name: tmp_path / "none" / "file"})
    assert parameters(loss) == before


def test_an_error_of_the_data_comes_through_and_the_progress_is_closed(capsys):
    class Breaking(Claims):
        def epoch(self, number, start=0):
            yield Batch(sequences(4))
            raise ZeroDivisionError(textwrap.dedent("on the disk"))

    with pytest.raises(ZeroDivisionError, match="on the disk"):
        quiet(regression(), Breaking(3, 3))
