"""The compiled program against the unrolled graph: the same values, gradients and final states, and whose they are."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS
from random_networks import RandomNetwork
from test_time_axis import every_primitive

import microgrid as mg
from microgrid.errors import (
    CausalityError,
    GradientError,
    MicrogridError,
    OperandError,
    SequenceError,
    UnknownNameError,
)
from microgrid.execute import on_llvm, on_numpy
from microgrid.ops.pick import add_rows, place

pytestmark = pytest.mark.usefixtures("both_executors")

# --- the reference --------------------------------------------------------------------------------------


def reduced(net):
    """One number of all outputs, which each element enters by another slope, to differentiate."""
    if len(net.outputs) == 1 and net.output.shape == () and net.output not in net.varying:
        return net
    total = 0.0
    for k, output in enumerate(net.outputs):
        number = mg.sum(mg.sin(output + 0.3 * k))
        total = total + (mg.time_sum(number) if output in net.varying else number)
    return mg.Graph(total)


def differentiable(net):
    """All that the equivalence suite differentiates by: parameters, and inputs that require it."""
    return [*net.parameters, *(x for x in net.inputs if x.requires_grad)]


def reference(net, sequences=None, steps=None, initial=None, wrt=None):
    """(outputs, gradients by name, final states) by unrolling; gradients for `wrt`, none by default."""
    net.zero_grad()
    dag = net.unroll(sequences, steps=steps, initial=initial)
    outputs = {
        net.names[output]: dag.values(output) if output in net.varying else dag[output].value for output in net.outputs
    }
    gradients = {}
    if wrt:
        dag.backward()
        for node in wrt:
            if node in net.varying:
                gradients[net.names[node]] = dag.grads(node)
            else:
                gradients[net.names[node]] = np.zeros(node.shape) if node.grad is None else np.array(node.grad)
        net.zero_grad()
    return outputs, gradients, dag.state


def assert_same(found, expected, rtol=1e-12, least=1e-3):
    """Two dicts of arrays of the same shapes, each to `rtol` of its largest entry, or of `least` if that is larger."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        assert np.shape(found[name]) == value.shape, name
        assert np.all(np.isfinite(value)), name
        largest = float(np.max(np.abs(value), initial=least))
        np.testing.assert_allclose(found[name], value, rtol=0, atol=rtol * largest, err_msg=name)


def sequences_for(net, steps, rng):
    """Sequences of the dtype of each input, of integers such as its example's."""
    found = {}
    for node in net.inputs:
        shape = (steps, *node.shape)
        if node.dtype.kind == "f":
            found[net.names[node]] = rng.normal(size=shape).astype(node.dtype)
        elif node.dtype.kind == "b":
            found[net.names[node]] = rng.random(shape) < 0.5
        else:
            found[net.names[node]] = rng.integers(0, int(np.max(node.value)) + 1, size=shape)
    return found


def assert_compiled_is_unrolled(net, sequences, steps, initial=None, rtol=1e-12, least=1e-3):
    """Values alone, then values and all gradients."""
    outputs, _, state = reference(net, sequences, steps, initial)
    run = mg.compile(net, wrt=())(sequences, steps=steps, initial=initial)
    assert_same(run.outputs, outputs, rtol, least)
    assert_same(run.state, state, rtol, least)
    assert len(run.grads) == 0

    loss = reduced(net)
    by = differentiable(loss)
    if not by:
        return
    outputs, gradients, state = reference(loss, sequences, steps, initial, by)
    run = mg.compile(loss, wrt=by)(sequences, steps=steps, initial=initial)
    assert_same(run.outputs, outputs, rtol, least)
    assert_same(run.state, state, rtol, least)
    assert_same(run.grads, gradients, rtol, least)


# --- every network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_network_equals_the_unrolled_one(name, steps):
    net = NETWORKS[name]()
    assert_compiled_is_unrolled(net, sequences_for(net, steps, np.random.default_rng(steps)), steps)


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_network_equals_the_unrolled_one_from_other_starts(name):
    net, rng = NETWORKS[name](), np.random.default_rng(0)
    starts = {net.names[s]: rng.normal(size=s.shape).astype(s.dtype) for s in net.states if s.dtype.kind == "f"}
    if starts:
        assert_compiled_is_unrolled(net, sequences_for(net, 3, rng), 3, initial=starts)
        some = dict([next(iter(starts.items()))])  # and of one state alone: the others start as recorded
        assert_compiled_is_unrolled(net, sequences_for(net, 3, rng), 3, initial=some)


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("seed", range(200))
def test_compiled_random_graph_equals_the_unrolled_one(seed):
    network = RandomNetwork(seed, both_directions=seed % 4 > 0)
    net, leaves = network.tensors(numbers_as_floats=bool(seed % 2))
    by = differentiable(net)
    sequences = network.sequences(net, leaves)
    outputs, gradients, state = reference(net, sequences, network.steps, wrt=by)
    run = mg.compile(net, wrt=by)(sequences, steps=network.steps)
    assert_same(run.outputs, outputs)
    assert_same(run.grads, gradients)
    assert_same(run.state, state)


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_values_of_every_node_of_a_random_graph_are_the_same(seed):
    network = RandomNetwork(seed, both_directions=True)
    net, leaves = network.tensors(numbers_as_floats=False)
    every = mg.Graph(*net.nodes)
    sequences = network.sequences(net, leaves)
    outputs, _, state = reference(every, sequences, network.steps)
    run = mg.compile(every, wrt=())(sequences, steps=network.steps)
    assert_same(run.outputs, outputs)
    assert_same(run.state, state)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(1000, 2**32 - 1), steps=st.integers(1, 9), directions=st.booleans(), floats=st.booleans())
def test_compiled_drawn_graph_equals_the_unrolled_one(seed, steps, directions, floats):
    network = RandomNetwork(seed, directions, steps)
    net, leaves = network.tensors(floats)
    by = differentiable(net)
    sequences = network.sequences(net, leaves)
    outputs, gradients, state = reference(net, sequences, steps, wrt=by)
    run = mg.compile(net, wrt=by)(sequences, steps=steps)
    assert_same(run.outputs, outputs)
    assert_same(run.grads, gradients)
    assert_same(run.state, state)


def test_start_computed_from_a_parameter_is_there_when_the_delay_begins():
    p, x = mg.parameter(0.5, name="p"), mg.input(0.0, name="x")
    past = mg.state(mg.tanh(p), name="past")
    past.next = mg.sin(x)
    run = mg.compile(mg.Graph(past), wrt=())(x=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(run.value, [np.tanh(0.5), np.sin(1.0), np.sin(2.0)], rtol=1e-14)


def test_start_of_a_delay_may_need_the_whole_of_what_it_delays():
    x = mg.input(0.0, name="x")
    y = mg.sin(x)
    past = mg.state(mg.time_sum(y), name="past")
    past.next = y
    assert_compiled_is_unrolled(mg.Graph(past * x), {"x": np.array([1.0, 2.0, 3.0])}, 3)


def test_state_whose_next_never_varies_writes_over_nothing_that_is_still_read():
    x, W = mg.input(0.0, name="x"), mg.parameter(2.0, name="W")
    y, k = mg.sin(mg.cos(x)), mg.state(0.5, name="k")
    k.next = W
    xs = np.array([1.0, 2.0, 3.0])
    run = mg.compile(mg.Graph(y * k), wrt=())(x=xs)
    np.testing.assert_allclose(run.value, np.sin(np.cos(xs)) * [0.5, 2.0, 2.0], rtol=1e-14)


def test_input_and_state_side_by_side():
    """The LSTM of textbooks: one product of [x, h] with all weights."""
    rng = np.random.default_rng(0)
    x = mg.input(np.zeros((2, 3)), name="x")
    h, c = mg.state(np.zeros((2, 4)), name="h"), mg.state(np.zeros((2, 4)), name="c")
    z = mg.concatenate([x, h], axis=1) @ mg.parameter(rng.normal(size=(7, 16)), name="W")
    i, f, o, g = mg.split(z, 4, axis=1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    assert_compiled_is_unrolled(mg.Graph(h.next), {"x": rng.normal(size=(5, 2, 3))}, 5)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_joined_parts_that_live_on_outside_the_cycle(axis):
    rng = np.random.default_rng(0)
    x = mg.input(np.zeros((2, 2)), name="x")
    h = mg.state(np.zeros((2, 2)), name="h")
    u, v = mg.tanh(x + h), mg.sin(h)
    h.next = mg.tanh(u + mg.mean(mg.sin(mg.concatenate([x, u, h, v, np.ones((2, 2)), x.T, u[:, ::-1]], axis=axis))))
    assert_compiled_is_unrolled(mg.Graph(u, v), {"x": rng.normal(size=(5, 2, 2))}, 5)


@pytest.mark.parametrize("inside", [False, True])
def test_part_of_two_joined_arrays(inside):
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((2, 2)), name="x"), mg.state(np.zeros((2, 2)), name="h")
    u = mg.tanh(x + h) if inside else mg.tanh(x)
    one, two = mg.concatenate([u, mg.sin(u)], axis=1), mg.concatenate([mg.cos(u), u, u], axis=1)
    h.next = mg.tanh(mg.mean(one) + mg.mean(mg.sin(two)) + x)
    assert_compiled_is_unrolled(mg.Graph(one, two, h.next), {"x": rng.normal(size=(4, 2, 2))}, 4)


@pytest.mark.parametrize("wrt", ["a", "b"])
def test_gradient_by_one_of_two_operations_that_are_the_same(wrt):
    x, W = mg.input(np.zeros(3), name="x"), mg.parameter(np.ones(3), name="W")
    a, b = (W * x).named("a"), (W * x).named("b")
    run = mg.compile(mg.time_sum(mg.sum(a * 3.0 + b)), wrt=wrt)(x=np.ones((2, 3)))
    assert np.all(run.grads[wrt] == {"a": 3, "b": 1}[wrt])


@pytest.mark.parametrize("wrt", ["a", "b"])
@pytest.mark.parametrize("squash", [mg.tanh, mg.sigmoid])
def test_gradient_by_one_of_two_operations_that_could_be_one(wrt, squash):
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    W, V = (mg.parameter(rng.normal(size=(3, 4)), name=name) for name in "WV")
    a, b = (x @ W).named("a"), (x @ V).named("b")
    h.next = squash(a) * squash(b) + 0.5 * h
    net, sequences = mg.Graph(mg.time_sum(mg.sum(h.next**2))), {"x": rng.normal(size=(3, 2, 3))}
    dag = net.unroll(sequences)
    dag.backward()
    assert_same(mg.compile(net, wrt=wrt)(sequences).grads, {wrt: dag.grads(wrt)})


@pytest.mark.parametrize("steps", [1, 4])
def test_values_spread_over_the_timesteps(steps):
    bias, x = mg.parameter(np.arange(2.0 * steps).reshape(steps, 2), name="bias"), mg.input(np.zeros(2), name="x")
    h = mg.state(np.zeros(2), name="h")
    h.next = mg.tanh(x + h + mg.time_unstack(bias))
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next * mg.time_unstack(mg.tanh(mg.time_stack(h))))))
    assert_compiled_is_unrolled(net, {"x": np.ones((steps, 2))}, steps)


def test_values_spread_over_other_timesteps_than_there_are_are_refused():
    bias = mg.parameter(np.arange(3.0), name="bias")
    step = mg.compile(mg.time_sum(mg.time_unstack(bias)))
    assert step(steps=3).value == 3
    with pytest.raises(MicrogridError, match=r"'bias'.*3 timesteps"):
        step(steps=2)
    with pytest.raises(MicrogridError, match=r"'bias'.*3 timesteps"):
        step(steps=4)


# --- networks to run -------------------------------------------------------------------------------------


def rnn(batch=2, dtype=np.float64, seed=0):
    """h ← tanh(x W + h U + b); the loss reads every step and the last."""
    rng = np.random.default_rng(seed)

    def weight(name, *shape):
        return mg.parameter((0.5 * rng.normal(size=shape)).astype(dtype), name=name)

    x, target = mg.input(np.zeros((batch, 3), dtype), name="x"), mg.input(np.zeros((batch, 2), dtype), name="target")
    h = mg.state(np.zeros((batch, 4), dtype), name="h")
    h.next = mg.tanh(0.9 * (x @ weight("W", 3, 4)) + h @ weight("U", 4, 4) + weight("b", 4))
    errors = mg.mean((h.next @ weight("V", 4, 2) - target) ** 2)
    return mg.Graph(loss=mg.time_mean(errors) + 0.1 * mg.mean(mg.last(h.next) ** 2))


def data(steps, batch=2, seed=0, dtype=np.float64):
    rng = np.random.default_rng([seed, steps, batch])
    return {
        "x": rng.normal(size=(steps, batch, 3)).astype(dtype),
        "target": rng.normal(size=(steps, batch, 2)).astype(dtype),
    }


def results(run):
    """All arrays of a run, by a name that says what each is."""
    kinds = {"value": run.outputs, "gradient": run.grads, "state": run.state}
    return {f"{kind} of {name}": value for kind, found in kinds.items() for name, value in found.items()}


def expected_results(net, sequences, initial=None, wrt=None):
    outputs, gradients, state = reference(net, sequences, initial=initial, wrt=wrt or net.parameters)
    kinds = {"value": outputs, "gradient": gradients, "state": state}
    return {f"{kind} of {name}": value for kind, found in kinds.items() for name, value in found.items()}


def starts(batch, seed=3):
    return {"h": np.random.default_rng(seed).normal(size=(batch, 4))}


# --- one program, any length and batch -------------------------------------------------------------------


def test_one_compiled_network_serves_lengths_and_batches_in_any_order():
    net = rnn()
    step = mg.compile(net)
    sizes = [(steps, batch) for steps in (1, 2, 3, 5, 8, 13, 21, 4, 6, 7, 9) for batch in (1, 2, 5)]
    np.random.default_rng(0).shuffle(sizes)
    for steps, batch in [*sizes, *sizes[:6]]:
        sequences, initial = data(steps, batch), starts(batch)
        assert_same(results(step(sequences, initial=initial)), expected_results(net, sequences, initial))


def test_more_shapes_than_are_kept():
    net = rnn()
    step = mg.compile(net)
    for batch in (*range(1, 21), 1, 2, 20):
        sequences, initial = data(2, batch), starts(batch)
        assert_same(results(step(sequences, initial=initial)), expected_results(net, sequences, initial))


def test_stack_over_time_at_several_lengths():
    net = NETWORKS["normalised"]()
    loss = reduced(net)
    step = mg.compile(loss)
    for steps in (3, 1, 5, 3):
        sequences = sequences_for(loss, steps, np.random.default_rng(steps))
        assert_same(results(step(sequences)), expected_results(loss, sequences))


def test_another_batch_size_without_starts_is_refused_with_the_way_out():
    step = mg.compile(rnn())
    with pytest.raises(MicrogridError, match=r"initial=\{'h': np\.zeros"):
        step(data(3, batch=5))
    assert step(data(3, batch=2)).value > 0  # and the program is as good as before


def test_a_state_without_a_batch_keeps_its_rows_in_every_batch():
    x, M = mg.input(np.ones((8, 3)), name="x"), mg.state(np.ones((8, 3)), name="M")  # eight slots of memory
    M.next = M * 0.9 + mg.mean(x)
    net = mg.Graph(mg.sum(M.next))
    found = mg.compile(net, wrt=())(x=np.ones((2, 4, 3))).value
    np.testing.assert_allclose(found, [45.6, 65.04], rtol=1e-12)
    np.testing.assert_allclose(net.unroll(x=np.ones((2, 4, 3))).values(net.output), [45.6, 65.04], rtol=1e-12)


def test_another_batch_size_needs_no_start_for_a_state_that_broadcasts():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros(3), name="h")
    h.next = mg.tanh(h + mg.mean(x, axis=0))
    net = mg.Graph(mg.time_sum(mg.sum(h.next * x)))
    assert_compiled_is_unrolled(net, {"x": np.random.default_rng(0).normal(size=(4, 7, 3))}, 4)


def test_network_without_states_or_inputs():
    W = mg.parameter(np.array([1.0, 2.0]), name="W")
    run = mg.compile(mg.Graph(loss=mg.sum(W * W)))(steps=3)
    assert run.value == 5
    assert run.grads["W"].tolist() == [2, 4]
    assert run.state == {}
    x = mg.input(np.zeros(2), name="x")
    assert_compiled_is_unrolled(mg.Graph(mg.time_mean(mg.sum(x * W))), {"x": np.arange(6.0).reshape(3, 2)}, 3)


def test_network_without_inputs_asks_for_the_number_of_timesteps_each_time():
    u, h = mg.parameter(0.5, name="u"), mg.state(1.0, name="h")
    h.next = u * h
    step = mg.compile(mg.last(h.next))
    assert step(steps=3).value == 0.125
    with pytest.raises(MicrogridError, match="how many timesteps"):
        step()
    assert step(steps=2).value == 0.25


def test_steps_alone_use_the_examples():
    net = rnn()
    net["x"].value[...], net["target"].value[...] = 0.5, -1.0
    outputs, gradients, state = reference(net, steps=4, wrt=net.parameters)
    run = mg.compile(net)(steps=4)
    assert_same(run.outputs, outputs)
    assert_same(run.grads, gradients)
    assert_same(run.state, state)


def test_steps_cut_the_sequences():
    net, sequences = rnn(), data(6)
    run = mg.compile(net)(sequences, steps=4)
    assert_same(results(run), expected_results(net, {name: values[:4] for name, values in sequences.items()}))


def test_long_sequence():
    net = rnn()
    sequences = data(400)
    assert_same(results(mg.compile(net)(sequences)), expected_results(net, sequences), rtol=1e-11)


# --- windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("borders", [[3], [1, 2, 5], [4, 8]], ids=str)
def test_truncated_backpropagation_over_windows_equals_that_of_unrolled_windows(borders):
    net, sequences = rnn(), data(9)
    step, carried, state = mg.compile(net), None, None
    for a, b in zip([0, *borders], [*borders, 9], strict=True):
        window = {name: values[a:b] for name, values in sequences.items()}
        run = step(window, initial=carried)
        assert_same(results(run), expected_results(net, window, state))
        carried, state = run.state, reference(net, window, initial=state)[2]


def test_start_that_is_given_stops_the_gradient_of_a_learnable_one():
    h0, x = mg.parameter(np.full((1, 2), 0.3), name="h0"), mg.input(np.zeros((1, 2)), name="x")
    h = mg.state(h0, name="h")
    h.next = mg.tanh(h + x)
    step = mg.compile(mg.time_sum(mg.sum(h.next)))
    xs = np.ones((3, 1, 2))
    assert np.all(step(x=xs).grads["h0"] > 0)
    stopped = step(x=xs, initial={"h": np.full((1, 2), 0.3)})
    assert stopped.value == step(x=xs).value
    assert np.all(stopped.grads["h0"] == 0)
    assert stopped.grads["h0"].shape == (1, 2)
    assert np.all(step(x=xs).grads["h0"] > 0)  # the next run starts from the parameter again


def test_starts_by_node_as_tensors_and_as_lists():
    net, sequences = rnn(), data(3)
    expected = expected_results(net, sequences, starts(2))
    step = mg.compile(net)
    for given_start in (starts(2)["h"], mg.tensor(starts(2)["h"]), starts(2)["h"].tolist()):
        assert_same(results(step(sequences, initial={"h": given_start})), expected)
    assert_same(results(step(sequences, initial={net["h"]: starts(2)["h"]})), expected)


def test_starts_of_another_value_each_run():
    net, sequences = rnn(), data(3)
    step = mg.compile(net)
    for seed in range(4):
        initial = starts(2, seed)
        assert_same(results(step(sequences, initial=initial)), expected_results(net, sequences, initial))
    assert_same(results(step(sequences)), expected_results(net, sequences))


def test_final_state_of_a_reverse_state_is_that_of_the_first_timestep():
    x, rest, total = mg.input(0.0, name="x"), mg.state(0.0, name="rest", reverse=True), mg.state(0.0, name="total")
    rest.next, total.next = rest + x, total + 2 * x
    run = mg.compile(mg.Graph(rest.next, total.next), wrt=())(x=[1.0, 2.0, 3.0], initial={"rest": 10.0})
    assert run.outputs["add_1"].tolist() == [16, 15, 13]
    assert (float(run.state["rest"]), float(run.state["total"])) == (16, 12)


# --- parameters ------------------------------------------------------------------------------------------


def test_parameters_are_read_at_each_run():
    net, sequences = rnn(), data(4)
    step = mg.compile(net)
    first = results(step(sequences))
    assert_same(first, expected_results(net, sequences))
    for p in net.parameters:
        p.value *= 1.5  # in place, as an optimiser does
    assert_same(results(step(sequences)), expected_results(net, sequences))
    for p in net.parameters:
        p.value = p.value / 1.5  # replaced
    assert_same(results(step(sequences)), first, rtol=1e-12)


def test_parameters_replaced_by_others_of_another_shape():
    rng = np.random.default_rng(0)
    x, W, V = (mg.input(np.zeros((2, 3)), name="x"), *(mg.parameter(np.ones((3, 4)), name=name) for name in "WV"))
    b = mg.parameter(np.zeros(4), name="b")
    net = mg.Graph(loss=mg.time_sum(mg.sum(mg.tanh(x @ W + x @ V + b))))
    step, sequences = mg.compile(net), {"x": rng.normal(size=(5, 2, 3))}
    for width in (4, 6, 1, 4):
        for p, shape in ((W, (3, width)), (V, (3, width)), (b, (width,))):
            p.value = rng.normal(size=shape)
        assert_same(results(step(sequences)), expected_results(net, sequences))


def test_penalty_on_a_parameter_follows_it():
    W, x = mg.parameter(np.ones((2, 2)), name="W"), mg.input(np.zeros(2), name="x")
    net = mg.Graph(loss=mg.time_sum(mg.sum(x @ mg.tanh(W))) + mg.sum(W**2))
    step, xs = mg.compile(net), {"x": np.arange(6.0).reshape(3, 2)}
    for scale in (1.0, 0.5, -2.0):
        W.value = np.full((2, 2), scale)
        assert_same(results(step(xs)), expected_results(net, xs))


def test_learnable_start_is_read_at_each_run():
    net = NETWORKS["learnable_start"]()
    step = mg.compile(net)
    for scale in (1.0, -0.3):
        net["h0"].value = net["h0"].value * scale
        run = step(steps=3)
        outputs, gradients, _ = reference(net, steps=3, wrt=net.parameters)
        assert_same(run.outputs, outputs)
        assert_same(run.grads, gradients)


def test_backward_adds_to_the_parameters_as_that_of_an_unrolled_graph():
    net, sequences = rnn(), data(4)
    expected = reference(net, sequences, wrt=net.parameters)[1]
    run = mg.compile(net, wrt=[*net.parameters, "x"])(sequences)
    run.backward()
    run.backward()
    assert_same({p.name: p.grad for p in net.parameters}, {name: 2 * g for name, g in expected.items()})
    assert net["x"].grad is None
    net["W"].grad[...] = 0.0  # its own array: not that of the run
    assert_same({"W": run.grads["W"]}, {"W": expected["W"]})


def test_backward_does_not_add_into_the_arrays_of_the_run_it_came_from():
    net, sequences = rnn(), data(4)
    step = mg.compile(net)
    first = step(sequences)
    before = {name: np.array(g) for name, g in first.grads.items()}
    first.backward()
    step(sequences).backward()
    net["U"].grad *= 100.0
    assert_same(first.grads, before, rtol=0)


def test_adam_trains_on_the_compiled_network_as_on_the_unrolled_one():
    sequences, losses = data(6), {}
    for way in ("compiled", "unrolled"):
        net = rnn()
        step, adam, losses[way] = mg.compile(net), mg.optim.Adam(net.parameters, lr=0.05), []
        for _ in range(15):
            adam.zero_grad()
            run = step(sequences) if way == "compiled" else net.unroll(sequences)
            run.backward()
            mg.optim.clip_grad_norm(net.parameters, 0.5)
            adam.step()
            losses[way].append(float(run.value if way == "compiled" else run.output))
    np.testing.assert_allclose(losses["compiled"], losses["unrolled"], rtol=1e-9)
    assert losses["compiled"][-1] < 0.8 * losses["compiled"][0]


def test_constants_with_a_name_are_read_at_each_run():
    x, w = mg.input(np.zeros(2), name="x"), mg.parameter(1.5, name="w")
    scale = mg.tensor(2.0, name="scale", requires_grad=False)
    mask = mg.tensor(np.ones(2), name="mask", requires_grad=False)
    net = mg.Graph(loss=mg.time_sum(mg.sum(mg.sin(w * x * scale) ** scale * mg.exp(scale) * mask)))
    step, sequences = mg.compile(net), {"x": np.ones((3, 2))}
    for value in (2.0, 3.0, 1.0):
        scale.value, mask.value = value, np.array([value, 0.0])
        assert_same(results(step(sequences)), expected_results(net, sequences))


# --- results are the user's own ----------------------------------------------------------------------------


def network_of_many_outputs():
    """Outputs that are views, states, inputs, parameters, constants, and one another."""
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(rng.normal(size=(2, 3)), name="h")
    W = mg.parameter(rng.normal(size=(3, 3)), name="W")
    past = mg.state(np.zeros((2, 3)), name="past")
    past.next = h
    h.next = mg.tanh(x + h @ W)
    loss = mg.time_sum(mg.sum(h.next * past))
    return mg.Graph(
        *(loss, x, h, past, h.next, W, h.next[:, 1:], h.next.T, mg.last(h.next), mg.first(x), mg.time_stack(h)),
        *(mg.transpose(W), mg.reshape(W, -1), mg.reshape(x, -1), mg.time_sum(W), mg.last(W), mg.positive(W)),
        *(mg.broadcast_to(mg.sum(x), (2, 2)), mg.last(mg.broadcast_to(x, (2, 2, 3))), h.next.detach()),
    )


def memory_of(values):
    return [value for value in values if isinstance(value, np.ndarray)]


def test_many_outputs_are_as_unrolled():
    net = network_of_many_outputs()
    assert_compiled_is_unrolled(net, sequences_for(net, 4, np.random.default_rng(0)), 4)


def test_results_share_memory_with_nothing():
    net = network_of_many_outputs()
    step = mg.compile(net, wrt=["W", "x"])
    sequences = sequences_for(net, 4, np.random.default_rng(1))
    initial = {"h": np.ones((2, 3))}
    one, two = (memory_of(results(step(sequences, initial=initial)).values()) for _ in range(2))
    assert len(one) > 20
    others = [*sequences.values(), *initial.values(), *memory_of(node.value for node in net.nodes)]
    everything = [*one, *two]
    for i, each in enumerate(everything):
        assert each.flags.writeable
        for other in (*everything[:i], *others):
            assert not np.shares_memory(each, other)


def test_results_of_a_run_outlive_later_runs_and_may_be_written_to():
    net = network_of_many_outputs()
    step = mg.compile(net, wrt=["W", "x"])
    rng = np.random.default_rng(2)
    given_sequences = [sequences_for(net, steps, rng) for steps in (4, 2, 4, 4)]
    runs = [step(each) for each in given_sequences]
    copies = [{name: np.array(value) for name, value in results(run).items()} for run in runs]
    for _ in range(2):
        for each in given_sequences:
            step(each)
    for run, copy in zip(runs, copies, strict=True):
        assert_same(results(run), copy, rtol=0)
    for run in runs:
        for value in memory_of(results(run).values()):
            value[...] = np.nan
    for each, copy in zip(given_sequences, copies, strict=True):
        assert_same(results(step(each)), copy, rtol=0)


def test_a_run_changes_nothing_that_it_was_given():
    net, sequences, initial = rnn(), data(4), starts(2)
    before = [np.array(value) for value in (*sequences.values(), *initial.values())]
    values = [np.array(node.value) for node in net.nodes]
    for value in (*sequences.values(), *initial.values()):
        value.flags.writeable = False
    mg.compile(net, wrt=[*net.parameters, "x"])(sequences, initial=initial)
    for value, old in zip((*sequences.values(), *initial.values()), before, strict=True):
        np.testing.assert_array_equal(value, old)
    for node, old in zip(net.nodes, values, strict=True):
        np.testing.assert_array_equal(node.value, old)
        assert node.grad is None


def test_sequences_may_change_after_a_run():
    net, sequences = rnn(), data(4)
    step = mg.compile(net)
    first = step(sequences)
    copy = {name: np.array(value) for name, value in results(first).items()}
    for values in sequences.values():
        values[...] = 7.0
    assert_same(results(first), copy, rtol=0)
    assert_same(results(step(sequences)), expected_results(net, sequences))


# --- threads and processes ---------------------------------------------------------------------------------


def test_several_threads_run_one_compiled_network():
    net = rnn()
    step = mg.compile(net)
    work = [
        (data(steps, batch, seed), starts(batch, seed)) for seed in range(8) for steps in (3, 7, 30) for batch in (2, 5)
    ]
    serial = [results(mg.compile(net)(sequences, initial=initial)) for sequences, initial in work]
    barrier = threading.Barrier(8)

    def run(k):
        if k < 8:
            barrier.wait()  # all meet the first, unspecialised, program at once
        sequences, initial = work[k % len(work)]
        return results(step(sequences, initial=initial))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, range(4 * len(work))))
    for k, each in enumerate(found):
        assert_same(each, serial[k % len(work)], rtol=0)


def test_threads_that_keep_their_results():
    net = rnn()
    step = mg.compile(net, wrt=())
    work = [data(5, seed=seed) for seed in range(6)]
    expected = [float(step(sequences).value) for sequences in work]

    def values(k):
        return [float(run.value) for run in [step(work[k]) for _ in range(50)]]

    with ThreadPoolExecutor(6) as pool:
        for k, found in enumerate(pool.map(values, range(6))):
            assert found == [expected[k]] * 50


def run_in_child(queue, step, sequences):
    queue.put(results(step(sequences)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # NumPy's own threads, from Python 3.12 on
def test_compiled_network_runs_in_forked_processes():
    net = rnn()
    step = mg.compile(net)
    before = results(step(data(5)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=run_in_child, args=(queue, step, data(steps))) for steps in (5, 8, 5)]
    for child in children:
        child.start()
    found = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    wanted = [expected_results(net, data(steps)) for steps in (5, 8, 5)]
    for each in found:
        (alike,) = {
            i for i, other in enumerate(wanted[:2]) if np.isclose(other["value of loss"], each["value of loss"])
        }
        assert_same(each, wanted[alike])
    assert_same(results(step(data(5))), before, rtol=0)
    assert_same(results(step(data(8))), wanted[1])


# --- kinds of numbers ----------------------------------------------------------------------------------------


def test_float32_stays_float32():
    net, sequences = rnn(dtype=np.float32), data(6, dtype=np.float32)
    by = [*net.parameters, net["x"]]
    found = results(mg.compile(net, wrt=by)(sequences))
    expected = expected_results(net, sequences, wrt=by)
    assert {name: np.asarray(value).dtype for name, value in found.items()} == dict.fromkeys(expected, np.dtype("f4"))
    assert_same(found, expected, rtol=1e-5)
    run = mg.compile(net)({name: values.astype(np.float64) for name, values in sequences.items()})
    assert run.value.dtype == np.float32  # sequences are taken in the dtype of their inputs
    np.testing.assert_allclose(run.value, expected["value of loss"], rtol=1e-5)


def test_float32_and_float64_side_by_side():
    x, h = mg.input(np.zeros((2, 3), np.float32), name="x"), mg.state(np.zeros((2, 3)), name="h")
    W, b = mg.parameter(0.3 * np.ones((3, 3), np.float32), name="W"), mg.parameter(np.ones(3), name="b")
    h.next = mg.tanh(x @ W + h * b)
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next)))
    sequences = {"x": np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)}
    by = differentiable(net)
    found, expected = results(mg.compile(net, wrt=by)(sequences)), expected_results(net, sequences, wrt=by)
    assert found["gradient of W"].dtype == found["gradient of x"].dtype == np.float32
    assert found["gradient of b"].dtype == found["value of loss"].dtype == np.float64
    assert_same(found, expected, rtol=1e-6)


def test_python_floats():
    u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(1.0, name="h")
    h.next = mg.tanh(u * h + x) * 2
    net = mg.Graph(loss=mg.time_sum(h.next**2 / 3))
    assert_compiled_is_unrolled(net, {"x": np.array([0.5, -1.0, 2.0])}, 3)
    run = mg.compile(net)(x=[0.5, -1.0, 2.0])
    assert type(run.grads["u"]) is float
    u.value = 0.25
    assert_same(results(mg.compile(net)(x=[1.0])), expected_results(net, {"x": [1.0]}))


@pytest.mark.parametrize("kind", [int, bool], ids=["integers", "booleans"])
def test_networks_that_count(kind):
    x, n = mg.input(kind(0), name="x"), mg.state(0, name="n")
    n.next = n + mg.where(x, 1, 0)
    net = mg.Graph(n.next, mg.time_sum(x), mg.time_mean(n), mg.last(n.next), mg.time_stack(n))
    run = mg.compile(net, wrt=())(x=[kind(1), kind(0), kind(1)])
    outputs, _, state = reference(net, {"x": [kind(1), kind(0), kind(1)]})
    assert_same(run.outputs, outputs, rtol=0)
    assert_same(run.state, state, rtol=0)
    assert run.outputs["add_1"].tolist() == [1, 1, 2]
    assert {name: np.asarray(v).dtype for name, v in run.outputs.items()} == {
        name: np.asarray(v).dtype for name, v in outputs.items()
    }


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_tokens_look_up_an_embedding(dtype):
    net, rng = NETWORKS["embedding"](), np.random.default_rng(0)
    tokens = rng.integers(0, 5, size=(6, 2))
    expected = expected_results(net, {"token": tokens})
    assert_same(results(mg.compile(net)(token=tokens.astype(dtype))), expected)


def test_token_outside_the_table_is_refused():
    net = NETWORKS["embedding"]()
    with pytest.raises(IndexError):
        mg.compile(net)(token=np.array([[1, 7]]))
    assert np.isfinite(mg.compile(net)(token=np.array([[1, 2]])).value)


def test_sequences_as_arrays_lists_tensors_and_views():
    net, sequences = rnn(), data(4)
    step, expected = mg.compile(net), expected_results(net, sequences)
    x, target = sequences["x"], sequences["target"]
    wide = np.zeros((8, 4, 6))
    wide[::2, ::2, ::2] = x
    for given_x in (
        *(x.tolist(), list(x), tuple(x), mg.tensor(x), [mg.tensor(row) for row in x], np.asfortranarray(x)),
        *(wide[::2, ::2, ::2], x[::-1].copy()[::-1], x.astype(">f8"), [row.tolist() for row in x]),
    ):
        assert_same(results(step(x=given_x, target=target)), expected)
    assert_same(results(step({net["x"]: x, "target": target})), expected)
    assert_same(results(step({"x": x}, target=target)), expected)


def test_batch_of_none():
    net = rnn()
    loss = mg.Graph(mg.time_sum(mg.sum(net["h"].next)))
    sequences = {"x": np.zeros((3, 0, 3))}
    run = mg.compile(loss)(sequences, initial={"h": np.zeros((0, 4))})
    assert run.value == 0
    assert np.all(run.grads["U"] == 0)
    assert run.state["h"].shape == (0, 4)


# --- what is refused -----------------------------------------------------------------------------------------


REFUSED_RUNS = {
    "unknown input": (
        lambda d: {"targe": d["target"], "x": d["x"]},
        UnknownNameError,
        "'targe'. Did you mean 'target'",
    ),
    "missing sequence": (lambda d: {"x": d["x"]}, SequenceError, "'target'"),
    "different lengths": (
        lambda d: {"x": d["x"], "target": d["target"][:2]},
        SequenceError,
        "'x' has 3 timesteps, 'target' has 2",
    ),
    "wrong features": (lambda d: {**d, "x": np.zeros((3, 2, 5))}, SequenceError, r"'x' has shape \(2, 3\).*\(2, 5\)"),
    "wrong rank": (lambda d: {**d, "x": np.zeros((3, 3))}, SequenceError, r"'x' has shape \(2, 3\)"),
    "complex numbers": (lambda d: {**d, "x": d["x"] * 1j}, SequenceError, "'x' holds complex128"),
    "ragged list": (lambda d: {**d, "x": [np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((2, 3))]}, SequenceError, "'x'"),
    "single number": (lambda d: {**d, "x": 3.0}, SequenceError, "'x' takes a sequence"),
    "words": (lambda d: {**d, "x": ["a", "b", "c"]}, MicrogridError, "'a'"),
    "empty sequence": (lambda d: {name: value[:0] for name, value in d.items()}, SequenceError, "'x' is empty"),
    "nothing": (lambda d: {}, SequenceError, "how many timesteps"),
    "another batch in one": (
        lambda d: {**d, "target": np.zeros((3, 5, 2))},
        (OperandError, SequenceError),
        r"\(5, 2\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED_RUNS)
def test_run_that_is_refused_says_what_and_leaves_the_program_good(name):
    change, error, words = REFUSED_RUNS[name]
    net = rnn()
    step = mg.compile(net)
    with pytest.raises(error, match=words):
        step(change(data(3)))
    assert_same(results(step(data(3))), expected_results(net, data(3)))


def test_floats_for_an_integer_input_are_refused():
    with pytest.raises(SequenceError, match=r"float64.*int64"):
        mg.compile(NETWORKS["embedding"]())(token=np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("steps", "words"),
    [(0, "at least 1"), (-1, "at least 1"), (5, "fewer than steps=5"), (1.5, "whole number"), (True, "whole number")],
)
def test_steps_that_are_refused(steps, words):
    with pytest.raises(SequenceError, match=words):
        mg.compile(rnn())(data(3), steps=steps)


def test_starts_that_are_refused():
    step = mg.compile(rnn())
    with pytest.raises(UnknownNameError, match="no state 'g'"):
        step(data(3), initial={"g": np.zeros((2, 4))})
    with pytest.raises(SequenceError, match=r"\(2, 5\)"):
        step(data(3), initial={"h": np.zeros((2, 5))})
    with pytest.raises(MicrogridError, match="complex"):
        step(data(3), initial={"h": 1j * np.zeros((2, 4))})
    with pytest.raises(SequenceError, match="initial maps"):
        step(data(3), initial=np.ones((2, 4)))


def test_output_that_is_no_scalar_is_refused_unless_only_values_are_asked_for():
    x, W = mg.input(np.zeros(2), name="x"), mg.parameter(np.ones(2), name="W")
    for output, words in (
        (mg.time_sum(x * W), r"shape \(2,\).*wrt=\(\)"),
        (mg.sum(x * W), r"one value per timestep.*wrt=\(\)"),
    ):
        with pytest.raises(GradientError, match=words):
            mg.compile(output.named("y"))
        assert mg.compile(output, wrt=())(x=np.ones((3, 2))).value.sum() == 6


def test_several_outputs_of_which_none_or_two_could_be_the_loss_are_refused():
    x, W = mg.input(np.zeros(2), name="x"), mg.parameter(np.ones(2), name="W")
    y = x * W
    one, two = mg.time_sum(mg.sum(y)), mg.time_mean(mg.sum(y))
    with pytest.raises(GradientError, match=r"several outputs, 'one', 'two'.*wrt=\(\)"):
        mg.compile(mg.Graph(one=one, two=two))
    with pytest.raises(GradientError, match="several outputs"):
        mg.compile(mg.Graph(y, mg.sum(y)))
    run = mg.compile(mg.Graph(one=one, y=y))(x=np.ones((3, 2)))  # one scalar: it is the loss
    assert run.grads["W"].tolist() == [3, 3]
    assert run.outputs["y"].shape == (3, 2)
    with pytest.raises(UnknownNameError, match=r"several outputs.*run\.outputs"):
        _ = run.value


def test_cycle_of_both_directions_or_with_its_own_future_is_refused():
    x = mg.input(0.0, name="x")
    a, b = mg.state(0.0, name="a"), mg.state(0.0, name="b", reverse=True)
    a.next, b.next = mg.tanh(b + x), mg.tanh(a)
    with pytest.raises(CausalityError, match="'a' runs forwards in time and 'b' backwards"):
        mg.compile(mg.Graph(a.next), wrt=())(x=[1.0])
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(x + mg.time_mean(h))
    with pytest.raises(CausalityError, match="inside the cycle"):
        mg.compile(mg.Graph(h.next), wrt=())(x=[1.0])


# --- by what to differentiate -----------------------------------------------------------------------------


def test_wrt_by_name_by_node_one_or_several():
    net, sequences = rnn(), data(3)
    expected = reference(net, sequences, wrt=[*net.parameters, net["x"]])[1]
    for wrt, names in (
        *(("W", ["W"]), (net["W"], ["W"]), (["x", net["U"]], ["x", "U"]), (None, ["W", "U", "b", "V"])),
        *((net.parameters, ["W", "U", "b", "V"]), ((name for name in ("b", "x")), ["b", "x"])),
    ):
        run = mg.compile(net, wrt=wrt)(sequences)
        assert sorted(run.grads) == sorted(names)
        assert len(run.grads) == len(names)
        assert_same(run.grads, {name: expected[name] for name in names})
        for name in names:
            np.testing.assert_array_equal(run.grads[net[name]], run.grads[name])


def test_wrt_that_is_refused():
    net = rnn()
    with pytest.raises(UnknownNameError, match="no node 'Wx'"):
        mg.compile(net, wrt="Wx")
    with pytest.raises(UnknownNameError, match="no node of this graph"):
        mg.compile(net, wrt=mg.parameter(1.0, name="other"))
    with pytest.raises(GradientError, match="'token' needs no gradient"):
        mg.compile(NETWORKS["embedding"](), wrt="token")


def test_gradient_that_was_not_computed_is_refused_with_the_nearest_name():
    net = rnn()
    run = mg.compile(net, wrt=["W", "U"])(data(2))
    with pytest.raises(UnknownNameError, match=r"'w'.*"):
        run.grads["w"]
    with pytest.raises(KeyError):
        run.grads[net["V"]]
    assert run.grads.get("V") is None
    assert "W" in run.grads
    assert "V" not in run.grads
    assert repr(run.grads) == "Gradients(W: (3, 4), U: (4, 4))"


def test_gradient_by_what_the_loss_does_not_read_is_zero():
    net = rnn()
    x2 = mg.input(np.zeros((2, 2)), name="x2")
    loss = mg.Graph(net.output, (x2 * 2.0).named("aside"))
    run = mg.compile(loss, wrt=["x2", "W"])(**data(3), x2=np.ones((3, 2, 2)))
    assert run.grads["x2"].shape == (3, 2, 2)
    assert np.all(run.grads["x2"] == 0)
    assert np.abs(run.grads["W"]).max() > 0


def test_gradient_that_is_the_same_at_every_timestep_has_one_for_each():
    x = mg.input(np.zeros(2), name="x")
    run = mg.compile(mg.time_sum(mg.sum(3.0 * x)), wrt="x")(x=np.ones((4, 2)))
    assert run.grads["x"].tolist() == [[3, 3]] * 4
    run.grads["x"][0] = 7.0
    assert run.grads["x"][1].tolist() == [3, 3]


def gradients_of_all(net, dag):
    """Of every node that the loss depends on, by name, from an unrolled graph."""
    found = {}
    for node in net.nodes:
        if not node.requires_grad:
            continue
        copies = dag.copies[node] if node in dag.copies else [dag.static[node]]
        grads = [np.zeros(node.shape) if copy.grad is None else np.asarray(copy.grad) for copy in copies]
        found[net.names[node]] = np.stack(grads) if node in dag.copies else grads[0]
    return found


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_gradients_by_every_node_of_a_random_graph(seed):
    network = RandomNetwork(seed, both_directions=True)
    net, leaves = network.tensors(numbers_as_floats=False)
    sequences = network.sequences(net, leaves)
    dag = net.unroll(sequences, steps=network.steps)
    net.zero_grad()
    dag.backward()
    by = [node for node in net.nodes if node.requires_grad]
    run = mg.compile(net, wrt=by)(sequences, steps=network.steps)
    assert_same(run.grads, gradients_of_all(net, dag), least=10.0)  # some are 0 but for rounding


# --- operations, inside cycles and outside --------------------------------------------------------------------


@mg.primitive(vjp=(lambda g, out, x, y: g * np.exp(y) * np.cos(x), None), label="own")
def own_first_only(x, y):
    """A user's primitive with a gradient by its first operand only."""
    return np.sin(x) * np.exp(y)


@mg.primitive(vjp=(lambda g, out, x, y: g[..., None] * y, lambda g, out, x, y: g[..., None] * x))
def own_dot(x, y):
    """A user's primitive of arrays, without a rule over time: the product of rows."""
    return np.sum(x * y, axis=-1)


@mg.primitive(vjp=lambda g, out, x, *, by: g * by)
def own_scaled(x, by=2.0):
    return np.asarray(x) * by


@mg.primitive(vjp_of=lambda index: lambda g, out, operands: g * (index + 1))
def own_weighted(operands):
    """A user's primitive of a sequence of operands."""
    return sum((k + 1) * np.asarray(x) for k, x in enumerate(operands))


def row(a):
    """The first row of an array of any rank, and the array itself if it has one axis."""
    return a if a.ndim == 1 else a[(0,) * (a.ndim - 1)]


def zero_or_one(a):
    """Integers that depend on `a`."""
    return mg.astype(2.0 * mg.absolute(mg.sin(a)), np.int64)


OPERATIONS = {
    "add": lambda a: a + row(a),
    "subtract": lambda a: row(a) - a,
    "multiply": lambda a: a * row(a),
    "divide": lambda a: row(a) / (2 + mg.sin(a)),
    "negative": lambda a: -a,
    "power": lambda a: (a * a + 1.0) ** (0.5 * mg.sin(row(a))),
    "positive": mg.positive,
    "exp": lambda a: mg.exp(mg.sin(a)),
    "log": lambda a: mg.log(a * a + 1.0),
    "log1p": lambda a: mg.log1p(a * a),
    "expm1": lambda a: mg.expm1(mg.sin(a)),
    "sqrt": lambda a: mg.sqrt(a * a + 1.0),
    "square": mg.square,
    "absolute": mg.absolute,
    "sign": lambda a: mg.sign(a) * a,
    "sin": mg.sin,
    "cos": mg.cos,
    "tanh": mg.tanh,
    "sigmoid": mg.sigmoid,
    "relu": mg.relu,
    "softplus": mg.softplus,
    "gelu": mg.gelu,
    "maximum": lambda a: mg.maximum(a, row(a) * 0.5),
    "minimum": lambda a: mg.minimum(a, row(a) * 0.5),
    "where": lambda a: mg.where(a > 0.1, a * 2.0, row(a)),
    "clip_between": lambda a: mg.clip(a, -0.4, 0.4),
    "to_floats": lambda a: mg.astype(mg.astype(a, np.float32), np.float64) * 0.0 + a,
    "to_others": lambda a: mg.astype(a * 10, np.int64) * a,
    "equal": lambda a: mg.where(mg.equal(a, row(a)), a, 2.0 * a),
    "not_equal": lambda a: mg.where(mg.not_equal(a, row(a)), a, 2.0 * a),
    "less": lambda a: mg.where(a < row(a), a, 2.0 * a),
    "less_equal": lambda a: mg.where(a <= row(a), a, 2.0 * a),
    "greater": lambda a: mg.where(a > row(a), a, 2.0 * a),
    "greater_equal": lambda a: mg.where(a >= row(a), a, 2.0 * a),
    "logical_and": lambda a: mg.where((a > 0) & (row(a) > 0), a, 2.0 * a),
    "logical_or": lambda a: mg.where((a > 0) | (row(a) > 0), a, 2.0 * a),
    "logical_not": lambda a: mg.where(~(a > 0), a, 2.0 * a),
    "stop_gradient": lambda a: a.detach() * a,
    "getitem": lambda a: a[..., 1:] * a[..., :1],
    "getitem of rows": lambda a: a[1:] + a[:1],
    "getitem of integers": lambda a: a[-1] * a[0],
    "getitem backwards": lambda a: a[::-1] * a[..., ::2][..., :1],
    "getitem of an array": lambda a: a[..., np.array([0, 2, 2])] * a,
    "getitem of two arrays": lambda a: a[np.array([1, 0]), ..., np.array([0, 2])] if a.ndim > 1 else a[[1, 0]],
    "getitem of a mask": lambda a: a[np.arange(a.shape[0]) != 0] * 2.0,
    "getitem of a mask over all": lambda a: a[np.arange(a.size).reshape(a.shape) % 2 == 0],
    "getitem of new axes": lambda a: a[None, ..., None],
    "getitem of what varies": lambda a: a[zero_or_one(row(a))],
    "getitem of what varies beside a slice": lambda a: a[..., zero_or_one(row(a))],
    "take": lambda a: mg.take(a, np.array([[1, 0], [1, 1]]), axis=-1),
    "take of all": lambda a: mg.take(a, np.array([1, 0, 1])),
    "take of what varies": lambda a: mg.take(a, zero_or_one(row(a)), axis=0),
    "lookup": lambda a: mg.lookup(a, np.array([[1, 0], [1, 1]])),
    "lookup of what varies": lambda a: mg.lookup(a, zero_or_one(row(a))),
    "lookup in what does not vary": lambda a: a * mg.lookup(mg.tensor([0.5, -0.3]), zero_or_one(a)),
    "add_rows": lambda a: add_rows(a, np.arange(len(a.value)) // 2, rows=4),
    "add_rows where it varies": lambda a: add_rows(a, zero_or_one(a[..., 0]) if a.ndim > 1 else zero_or_one(a), rows=3),
    "pick": lambda a: mg.pick(a, np.ones(a.shape[:-1], int)),
    "pick of what varies": lambda a: mg.pick(a, zero_or_one(a[..., 0])),
    "place": lambda a: place(a, zero_or_one(a), count=3) * row(a)[0],
    "matmul": lambda a: a @ a.T if a.ndim < 3 else a @ mg.swapaxes(a, -1, -2),
    "matmul with a vector": lambda a: a @ row(a),
    "matmul of a vector": lambda a: row(a) @ mg.swapaxes(a, -1, -2) if a.ndim > 1 else a @ a,
    "einsum": lambda a: mg.einsum("...i,i->...", a, row(a)),
    "einsum of a diagonal": lambda a: mg.einsum("ii->i", row(a)[:, None] * row(a)),
    "sum": mg.sum,
    "sum of one axis": lambda a: mg.sum(a, axis=-1) if a.ndim > 1 else mg.sum(a, axis=0),
    "sum that keeps": lambda a: a * mg.sum(a, axis=0, keepdims=True),
    "mean": lambda a: a - mg.mean(a, axis=-1, keepdims=True),
    "max": lambda a: mg.max(a, axis=-1),
    "min": lambda a: mg.min(a, axis=0),
    "var": lambda a: mg.var(a, axis=-1, ddof=1),
    "std": lambda a: mg.std(a),
    "prod": lambda a: mg.prod(a, axis=-1),
    "cumsum": lambda a: mg.cumsum(a, axis=-1),
    "cumsum of all": mg.cumsum,
    "logsumexp": lambda a: mg.logsumexp(a, axis=-1),
    "softmax": lambda a: mg.softmax(a) * row(a),
    "log_softmax": lambda a: mg.log_softmax(a, axis=0),
    "reshape": lambda a: mg.reshape(a, (-1, 1)),
    "reshape of a view": lambda a: mg.reshape(mg.transpose(a), -1) * mg.reshape(a, -1),
    "squeeze": lambda a: mg.squeeze(a[..., :1], axis=-1),
    "expand_dims": lambda a: mg.expand_dims(a, 1) * 2.0,
    "transpose": lambda a: mg.transpose(a) * mg.transpose(a, tuple(range(a.ndim))[::-1]),
    "swapaxes": lambda a: mg.swapaxes(a, 0, -1) * 1.0,
    "permute": lambda a: mg.permute(a, *range(a.ndim)[::-1]),
    "broadcast_to": lambda a: mg.broadcast_to(a, (2, 2, *a.shape)),
    "flip": lambda a: mg.flip(a, 0) * mg.flip(a),
    "pad": lambda a: mg.pad(a, 1) * 2.0,
    "concatenate": lambda a: mg.concatenate([a, mg.tanh(a), a[:1]], axis=0),
    "concatenate last": lambda a: mg.concatenate([mg.sin(a), np.ones(a.shape), 2.0 * a], axis=-1),
    "concatenate of all": lambda a: mg.concatenate([a, row(a)], axis=None),
    "stack": lambda a: mg.stack([a, np.ones(a.shape), a * a], axis=1),
    "split": lambda a: mg.concatenate([part * (k + 1) for k, part in enumerate(mg.split(a, 3, axis=-1))][::-1], -1),
    "unstack": lambda a: sum(k * part for k, part in enumerate(mg.unstack(a))),
    "own primitive": lambda a: own_first_only(a, row(a).detach()),
    "own primitive of rows": lambda a: own_dot(a, row(a)),
    "own primitive with a setting": lambda a: own_scaled(a, by=-3.0) + own_scaled(a),
    "own primitive of several": lambda a: own_weighted([a, row(a), a]),
}


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_inside_a_cycle_and_outside(name, shape):
    operation, rng = OPERATIONS[name], np.random.default_rng(0)
    example = rng.normal(size=shape)
    for inside in (True, False):
        x, W = mg.input(example, name="x"), mg.parameter(rng.normal(size=shape), name="W")
        h = mg.state(mg.parameter(rng.normal(size=shape), name="h0"), name="h")
        z = operation(x * W + h) if inside else operation(x * W)
        h.next = mg.tanh(0.3 * h + x + mg.mean(z)) if inside else mg.tanh(0.3 * h + x)
        loss = mg.time_sum(mg.sum(mg.sin(z))) + mg.sum(mg.last(h.next) * W)
        net = mg.Graph(loss)
        sequences, by = {"x": rng.normal(size=(4, *shape))}, differentiable(net)
        outputs, gradients, state = reference(net, sequences, wrt=by)
        run = mg.compile(net, wrt=by)(sequences)
        assert_same(run.outputs, outputs)
        assert_same(run.grads, gradients)
        assert_same(run.state, state)


def test_every_primitive_is_run_inside_a_cycle_and_outside():
    x = mg.input(np.ones((2, 3)), name="x")
    seen = {node.primitive.name for op in OPERATIONS.values() for node in mg.Graph(op(x)).nodes if node.primitive}
    assert {primitive.name for primitive in every_primitive()} - seen == {"scatter_add"}  # the adjoint of getitem


# --- in chunks of timesteps -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_random_graphs_in_chunks_of_timesteps(chunk, monkeypatch):
    for executor in (on_numpy, on_llvm):
        monkeypatch.setattr(executor, "chunk_length", lambda part, layout, steps: min(chunk, steps))
    for seed in range(8 * chunk, 8 * chunk + 8):
        network = RandomNetwork(seed, both_directions=True, steps=5)
        net, leaves = network.tensors(numbers_as_floats=False)
        by, sequences = differentiable(net), network.sequences(net, leaves)
        outputs, gradients, state = reference(net, sequences, 5, wrt=by)
        run = mg.compile(net, wrt=by)(sequences, steps=5)
        assert_same(run.outputs, outputs)
        assert_same(run.grads, gradients)
        assert_same(run.state, state)


@pytest.mark.usefixtures("_quickly_compiled")
@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_in_chunks_of_timesteps(name, chunk, monkeypatch):
    for executor in (on_numpy, on_llvm):
        monkeypatch.setattr(executor, "chunk_length", lambda part, layout, steps: min(chunk, steps))
    net = NETWORKS[name]()
    assert_compiled_is_unrolled(net, sequences_for(net, 7, np.random.default_rng(chunk)), 7)
