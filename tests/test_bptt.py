"""Backpropagation through time: the gradients of unrolled networks against independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import RandomNetwork, sigmoid

import microgrid as mg
from microgrid.errors import CyclicGraphError, GradientError


def differences(f, arrays, step=1e-3):
    """The gradient of f(*arrays) by central differences of fourth order, one array per argument."""
    points = [np.array(array, dtype=float) for array in arrays]
    gradients = []
    for point in points:
        gradient = np.zeros_like(point)
        for index in np.ndindex(point.shape):
            centre = point[index]
            values = []
            for distance in (-2, -1, 1, 2):
                point[index] = centre + distance * step
                values.append(f(*points))
            point[index] = centre
            gradient[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        gradients.append(gradient)
    return gradients


def assert_close(found, expected, rtol=1e-6):
    """Entry by entry, to `rtol` of the largest entry."""
    found = np.zeros(np.shape(expected)) if found is None else np.asarray(found)
    assert found.shape == np.shape(expected)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * max(1e-3, float(np.max(np.abs(expected)))))


# --- what plain backward refuses --------------------------------------------------------------------


def tanh_rnn(x=0.5, w=0.8, u=0.6, h0=0.1):
    """The parts of a scalar RNN: h ← tanh(w x + u h)."""
    x, w, u = mg.input(x, name="x"), mg.parameter(w, name="w"), mg.parameter(u, name="u")
    h = mg.state(mg.parameter(h0, name="h0"), name="h")
    h.next = mg.tanh(w * x + u * h)
    return x, w, u, h


def test_plain_backward_on_a_cycle_is_refused_with_the_cycle_and_the_way_out():
    *_, h = tanh_rnn()
    loss = h.next * h.next
    with pytest.raises(CyclicGraphError) as caught:
        loss.backward()
    message = str(caught.value)
    assert "'loss' depends on 'h', which feeds itself: h → multiply → add → tanh → h" in message
    assert "mg.Graph(loss).unroll(" in message
    with pytest.raises(RuntimeError):
        loss.backward()


def test_refused_backward_changes_nothing():
    x, w, _, h = tanh_rnn()
    loss = h.next * h.next
    (w * w).backward()
    h.next.grad = 123.0
    nodes = mg.Graph(loss).nodes
    before = [(node.grad, node.value, node.operands, node.requires_grad) for node in nodes]
    with pytest.raises(CyclicGraphError):
        loss.backward()
    after = [(node.grad, node.value, node.operands, node.requires_grad) for node in nodes]
    for (grad, value, operands, requires_grad), now in zip(before, after, strict=True):
        assert (now[0], now[1], now[3]) == (grad, value, requires_grad)
        assert list(map(id, now[2])) == list(map(id, operands))
    assert w.grad == 1.6
    assert x.grad is None


def test_backward_on_a_cycle_behind_a_pure_delay_is_refused():
    *_, h = tanh_rnn()
    past = mg.state(0.0, name="past")
    past.next = h.next
    with pytest.raises(CyclicGraphError, match="'h', which feeds itself"):
        mg.tanh(past).backward()


def test_backward_on_a_cycle_with_a_start_without_gradient_is_refused():
    u = mg.parameter(0.5, name="u")
    h = mg.state(mg.tensor(1.0, requires_grad=False), name="h")
    h.next = mg.tanh(u * h)
    with pytest.raises(CyclicGraphError, match="'h', which feeds itself"):
        h.next.backward()
    assert u.grad is None


def test_gradient_function_of_a_cycle_is_refused():
    def recur(u):
        h = mg.state(0.5, name="h")
        h.next = mg.tanh(u * h)
        return h.next

    with pytest.raises(CyclicGraphError, match="h → multiply → tanh → h"):
        mg.grad(recur)(0.5)


def test_unrolled_graph_of_the_refused_one_is_not_refused():
    *_, u, h = tanh_rnn()
    mg.Graph(mg.last(h.next)).unroll(x=[1.0, 2.0])["tanh_1", 1].backward()
    assert u.grad is not None


def test_detach_inside_a_cycle_stops_the_gradient_but_not_the_values():
    x, u, h = mg.input(0.0, name="x"), mg.parameter(0.5, name="u"), mg.state(1.0, name="h")
    h.next = u * h.detach() + x
    dag = mg.Graph(mg.last(h.next)).unroll(x=[1.0, 1.0, 1.0])
    assert dag.values("h").tolist() == [1, 1.5, 1.75]
    dag.backward()
    assert u.grad == 1.75
    assert dag.grads("x").tolist() == [0, 0, 1]


def test_detach_of_an_input_takes_its_value_at_every_timestep():
    x, w = mg.input(0.0, name="x"), mg.parameter(2.0, name="w")
    dag = mg.Graph(mg.time_sum(w * x.detach())).unroll(x=[1.0, 2.0, 3.0])
    dag.backward()
    assert dag.output.value == 12
    assert w.grad == 6


# --- derived by hand --------------------------------------------------------------------------------


def test_three_steps_of_a_scalar_tanh_rnn_equal_the_hand_derived_terms():
    xs, w, u, h0 = [0.5, -1.2, 0.7], 0.8, 0.6, 0.1
    *_, h = tanh_rnn(w=w, u=u, h0=h0)
    net = mg.Graph(loss=mg.time_sum(h.next * h.next))
    dag = net.unroll(x=xs)
    dag.backward()

    h1 = np.tanh(w * xs[0] + u * h0)
    h2 = np.tanh(w * xs[1] + u * h1)
    h3 = np.tanh(w * xs[2] + u * h2)
    d1, d2, d3 = 1 - h1**2, 1 - h2**2, 1 - h3**2
    # L = h1² + h2² + h3²; ∂h(t)/∂a(t) = d(t), ∂a(t)/∂h(t−1) = u
    to_h3 = 2 * h3
    to_h2 = 2 * h2 + 2 * h3 * d3 * u
    to_h1 = 2 * h1 + 2 * h2 * d2 * u + 2 * h3 * d3 * u * d2 * u
    to_a = [to_h1 * d1, to_h2 * d2, to_h3 * d3]

    assert dag.output.value == pytest.approx(h1**2 + h2**2 + h3**2, rel=1e-14)
    assert dag.grads("tanh_1") == pytest.approx([to_h1, to_h2, to_h3], rel=1e-13)
    assert dag.grads("add_1") == pytest.approx(to_a, rel=1e-13)
    assert dag.grads("h") == pytest.approx([to_a[0] * u, to_a[1] * u, to_a[2] * u], rel=1e-13)
    assert dag.grads("x") == pytest.approx([to_a[0] * w, to_a[1] * w, to_a[2] * w], rel=1e-13)
    assert net["w"].grad == pytest.approx(to_a[0] * xs[0] + to_a[1] * xs[1] + to_a[2] * xs[2], rel=1e-13)
    assert net["u"].grad == pytest.approx(to_a[0] * h0 + to_a[1] * h1 + to_a[2] * h2, rel=1e-13)
    assert net["h0"].grad == pytest.approx(to_a[0] * u, rel=1e-13)


@pytest.mark.parametrize("u", [0.5, -0.9, 1.0, 1.1])
def test_linear_rnn_forgets_as_the_power_of_its_weight(u):
    steps = 30
    x, weight, h = mg.input(0.0, name="x"), mg.parameter(u, name="u"), mg.state(0.0, name="h")
    h.next = weight * h + x
    dag = mg.Graph(mg.last(h.next)).unroll(x=np.linspace(-1, 1, steps))
    dag.backward()
    np.testing.assert_allclose(dag.grads("x"), [u ** (steps - 1 - t) for t in range(steps)], rtol=1e-12)
    np.testing.assert_allclose(weight.grad, np.sum(dag.values("h") * dag.grads("x")), rtol=1e-12)


def test_delayed_input_receives_its_gradient_k_steps_earlier():
    x, u = mg.input(0.0, name="x"), mg.parameter(0.5, name="u")
    one, two, h = mg.state(0.0, name="one"), mg.state(0.0, name="two"), mg.state(0.0, name="h")
    one.next, two.next = x, one
    h.next = u * h + two
    dag = mg.Graph(mg.last(h.next)).unroll(x=np.ones(6))
    dag.backward()
    assert dag.grads("x").tolist() == [0.125, 0.25, 0.5, 1, 0, 0]


# --- tied weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_unrolled_rnn_is_the_feedforward_network_with_tied_weights(steps):
    rng = np.random.default_rng(steps)
    xs, W, U = rng.normal(size=(steps, 2, 3)), 0.5 * rng.normal(size=(3, 4)), 0.5 * rng.normal(size=(4, 4))
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    recurrent = mg.parameter(W, name="W"), mg.parameter(U, name="U")
    h.next = mg.tanh(x @ recurrent[0] + h @ recurrent[1])
    dag = mg.Graph(mg.time_mean(mg.sum(h.next**2))).unroll(x=xs)
    dag.backward()

    layered = mg.tensor(W), mg.tensor(U)
    inputs = [mg.tensor(value) for value in xs]
    layer, losses = mg.tensor(np.zeros((2, 4))), []
    for value in inputs:
        layer = mg.tanh(value @ layered[0] + layer @ layered[1])
        losses.append(mg.sum(layer**2))
    loss = losses[0]
    for each in losses[1:]:
        loss = loss + each
    loss = loss / steps
    loss.backward()

    np.testing.assert_allclose(dag.output.value, loss.value, rtol=1e-13)
    for one, other in zip(recurrent, layered, strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(dag.grads("x"), [value.grad for value in inputs], rtol=1e-11, atol=1e-14)

    separate = [(mg.tensor(W), mg.tensor(U)) for _ in xs]  # untied: the tied gradient is the sum over the layers
    layer, total = mg.tensor(np.zeros((2, 4))), 0.0
    for value, (w, u) in zip(xs, separate, strict=True):
        layer = mg.tanh(value @ w + layer @ u)
        total = total + mg.sum(layer**2) / steps
    total.backward()
    for k in range(2):
        np.testing.assert_allclose(recurrent[k].grad, sum(each[k].grad for each in separate), rtol=1e-11, atol=1e-14)


# --- BPTT written by hand in NumPy ------------------------------------------------------------------


def numpy_rnn(xs, targets, W, U, b, V, h0):
    """Loss and gradients of h ← tanh(x W + h U + b), loss = mean over t of the mean of (h V − target)²."""
    steps = len(xs)
    hs, errors, loss = [h0], [], 0.0
    for x, target in zip(xs, targets, strict=True):
        hs.append(np.tanh(x @ W + hs[-1] @ U + b))
        errors.append(hs[-1] @ V - target)
        loss += np.mean(errors[-1] ** 2) / steps
    dW, dU, db, dV = (np.zeros_like(p) for p in (W, U, b, V))
    dxs, dh = np.zeros_like(xs), np.zeros_like(h0)
    for t in reversed(range(steps)):
        dy = 2 * errors[t] / errors[t].size / steps
        dV += hs[t + 1].T @ dy
        da = (dh + dy @ V.T) * (1 - hs[t + 1] ** 2)
        dW += xs[t].T @ da
        dU += hs[t].T @ da
        db += da.sum(axis=0)
        dxs[t] = da @ W.T
        dh = da @ U.T
    return loss, {"W": dW, "U": dU, "b": db, "V": dV, "h0": dh, "x": dxs}


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (3, 4), (20, 2)])
def test_rnn_gradients_equal_bptt_written_in_numpy(steps, batch):
    rng = np.random.default_rng(10 * steps + batch)
    xs, targets = rng.normal(size=(steps, batch, 3)), rng.normal(size=(steps, batch, 2))
    arrays = {"W": (3, 5), "U": (5, 5), "b": (5,), "V": (5, 2), "h0": (batch, 5)}
    arrays = {name: 0.6 * rng.normal(size=shape) for name, shape in arrays.items()}
    loss, expected = numpy_rnn(xs, targets, **arrays)

    p = {name: mg.parameter(value, name=name) for name, value in arrays.items()}
    x, target = mg.input(xs[0], name="x"), mg.input(targets[0], name="target")
    h = mg.state(p["h0"], name="h")
    h.next = mg.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    dag = mg.Graph(loss=mg.time_mean(mg.mean((h.next @ p["V"] - target) ** 2))).unroll(x=xs, target=targets)
    dag.backward()
    np.testing.assert_allclose(dag.output.value, loss, rtol=1e-12)
    np.testing.assert_allclose(dag.grads("x"), expected.pop("x"), rtol=1e-9, atol=1e-13)
    for name, gradient in expected.items():
        np.testing.assert_allclose(p[name].grad, gradient, rtol=1e-9, atol=1e-13, err_msg=name)


def numpy_lstm(xs, W, U, b, h0, c0):
    """Loss and gradients of an LSTM with gates (i, f, o, g); loss = Σ over t of Σ h²/2, plus Σ c³/3 at the end."""
    hs, cs, tapes, loss = [h0], [c0], [], 0.0
    for x in xs:
        i, f, o, g = np.split(x @ W + hs[-1] @ U + b, 4, axis=1)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
        cs.append(f * cs[-1] + i * g)
        hs.append(o * np.tanh(cs[-1]))
        tapes.append((i, f, o, g))
        loss += np.sum(hs[-1] ** 2) / 2
    loss += np.sum(cs[-1] ** 3) / 3
    dW, dU, db = (np.zeros_like(p) for p in (W, U, b))
    dxs, dh, dc = np.zeros_like(xs), np.zeros_like(h0), cs[-1] ** 2
    for t in reversed(range(len(xs))):
        i, f, o, g = tapes[t]
        dh = dh + hs[t + 1]
        squashed = np.tanh(cs[t + 1])
        dc = dc + dh * o * (1 - squashed**2)
        da = np.concatenate(
            [dc * g * i * (1 - i), dc * cs[t] * f * (1 - f), dh * squashed * o * (1 - o), dc * i * (1 - g**2)], axis=1
        )
        dW += xs[t].T @ da
        dU += hs[t].T @ da
        db += da.sum(axis=0)
        dxs[t] = da @ W.T
        dh, dc = da @ U.T, dc * f
    return loss, {"W": dW, "U": dU, "b": db, "h0": dh, "c0": dc, "x": dxs}


def lstm(x, p):
    """The states of an LSTM whose gates are one product, split."""
    h, c = mg.state(p["h0"], name="h"), mg.state(p["c0"], name="c")
    i, f, o, g = mg.split(x @ p["W"] + h @ p["U"] + p["b"], 4, axis=-1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    return h, c


LSTM_SHAPES = {"W": (3, 16), "U": (4, 16), "b": (16,), "h0": (2, 4), "c0": (2, 4)}


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_lstm_gradients_equal_bptt_written_in_numpy(steps):
    rng = np.random.default_rng(steps)
    xs = rng.normal(size=(steps, 2, 3))
    arrays = {name: 0.6 * rng.normal(size=shape) for name, shape in LSTM_SHAPES.items()}
    loss, expected = numpy_lstm(xs, **arrays)
    p = {name: mg.parameter(value, name=name) for name, value in arrays.items()}
    h, c = lstm(mg.input(xs[0], name="x"), p)
    total = mg.time_sum(mg.sum(h.next**2) / 2) + mg.sum(mg.last(c.next) ** 3) / 3
    dag = mg.Graph(total).unroll(x=xs)
    dag.backward()
    np.testing.assert_allclose(dag.output.value, loss, rtol=1e-12)
    np.testing.assert_allclose(dag.grads("x"), expected.pop("x"), rtol=1e-9, atol=1e-13)
    for name, gradient in expected.items():
        np.testing.assert_allclose(p[name].grad, gradient, rtol=1e-9, atol=1e-13, err_msg=name)


# --- central differences ----------------------------------------------------------------------------


def rnn_loss(xs, W, U, h0):
    x, h = mg.input(np.zeros((2, 2)), name="x"), mg.state(h0, name="h")
    h.next = mg.tanh(x @ W + h @ U)
    return mg.Graph(mg.time_mean(mg.sum(h.next**2))).unroll(x=xs).output


def lstm_loss(xs, W, U, b, h0, c0):
    h, c = lstm(mg.input(np.zeros((2, 3)), name="x"), {"W": W, "U": U, "b": b, "h0": h0, "c0": c0})
    return mg.Graph(mg.time_sum(mg.sum(h.next * c))).unroll(x=xs).output


def gru_loss(xs, W, U, R, h0):
    x, h = mg.input(np.zeros((2, 2)), name="x"), mg.state(h0, name="h")
    r, z = mg.split(mg.sigmoid(mg.split(x @ W, [4], axis=1)[0] + h @ U), 2, axis=1)
    candidate = mg.tanh(mg.split(x @ W, [4], axis=1)[1] + (r * h) @ R)
    h.next = (1 - z) * candidate + z * h
    return mg.Graph(mg.time_mean(mg.sum(h.next**2)) + mg.sum(mg.last(h.next))).unroll(x=xs).output


NETWORKS = {
    "RNN": (rnn_loss, [(3, 2, 2), (2, 3), (3, 3), (2, 3)]),
    "LSTM": (lstm_loss, [(3, 2, 3), *LSTM_SHAPES.values()]),
    "GRU": (gru_loss, [(3, 2, 2), (2, 6), (2, 4), (2, 2), (2, 2)]),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_textbook_networks_pass_check_gradients(network):
    loss, shapes = NETWORKS[network]
    rng = np.random.default_rng(5)
    assert mg.check_gradients(loss, *(0.7 * rng.normal(size=shape) for shape in shapes)) < 1e-8


@pytest.mark.parametrize("network", NETWORKS)
def test_textbook_networks_equal_central_differences(network):
    loss, shapes = NETWORKS[network]
    rng = np.random.default_rng(6)
    leaves = [mg.parameter(0.7 * rng.normal(size=shape)) for shape in shapes]
    loss(*leaves).backward()
    expected = differences(lambda *arrays: loss(*map(mg.tensor, arrays)).item(), [leaf.value for leaf in leaves])
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert_close(leaf.grad, gradient, rtol=1e-8)


# --- random cyclic graphs against an interpreter of their meaning ------------------------------------


def test_random_networks_are_as_various_as_they_should_be():
    nets = [RandomNetwork(seed).tensors(False)[0] for seed in range(50)]
    assert sum(bool(net.cycles) for net in nets) > 30
    assert sum(len(net.cycles) > 1 for net in nets) > 5
    assert sum(any(len(cycle.states) > 1 for cycle in net.cycles) for net in nets) > 4
    in_cycles = [{state for cycle in net.cycles for state in cycle.states} for net in nets]
    assert sum(len(net.states) > len(cyclic) for net, cyclic in zip(nets, in_cycles, strict=True)) > 20  # pure delays
    assert sum(any(isinstance(state.initial, mg.Parameter) for state in net.states) for net in nets) > 40
    assert sum(any(state.initial.operands for state in net.states) for net in nets) > 4


def test_random_networks_of_both_directions_are_as_various_as_they_should_be():
    nets = [RandomNetwork(seed, both_directions=True).tensors(False)[0] for seed in range(50)]
    directions = [{state.reverse for state in net.states} for net in nets]
    assert sum(True in found for found in directions) > 25
    assert sum(len(found) == 2 for found in directions) > 15
    assert sum(len({cycle.reverse for cycle in net.cycles}) == 2 for net in nets) > 8
    in_cycles = [{state for cycle in net.cycles for state in cycle.states} for net in nets]
    reverse_delays = [
        any(state.reverse and state not in cyclic for state in net.states)
        for net, cyclic in zip(nets, in_cycles, strict=True)
    ]
    assert sum(reverse_delays) > 15


@pytest.mark.parametrize("both_directions", [False, True], ids=["forwards", "both"])
@pytest.mark.parametrize("seed", range(50))
def test_random_cyclic_graph_equals_its_meaning_and_its_gradients(seed, both_directions):
    network = RandomNetwork(seed, both_directions)
    net, leaves = network.tensors(numbers_as_floats=bool(seed % 2))
    dag = net.unroll(network.sequences(net, leaves), steps=network.steps)
    dag.backward()
    np.testing.assert_allclose(dag.output.value, network.loss(network.arrays), rtol=1e-11)

    def gradient(i):
        leaf = leaves[i]
        if leaf not in net:
            return np.zeros(network.arrays[i].shape)
        return dag.grads(leaf) if isinstance(leaf, mg.Input) else leaf.grad

    exact = network.gradients()
    largest = max(np.abs(each).max() for each in exact.values())
    assert largest > 1e-3
    for i, expected in exact.items():
        assert_close(gradient(i), expected, rtol=1e-9)

    for i, array in network.arrays.items():  # and by central differences, along one random direction a leaf
        direction = np.random.default_rng(seed).normal(size=array.shape)
        (slope,) = differences(lambda s: network.loss({**network.arrays, i: array + s * direction}), [0.0])  # noqa: B023
        found = gradient(i)
        assert np.sum((0.0 if found is None else found) * direction) == pytest.approx(slope, rel=1e-6, abs=1e-8)


# --- truncated BPTT ---------------------------------------------------------------------------------


def lstm_network(seed=0):
    """A recorded LSTM with its loss, a sequence of 12 timesteps for it, and its parameters by name."""
    rng = np.random.default_rng(seed)
    p = {name: mg.parameter(0.6 * rng.normal(size=shape), name=name) for name, shape in LSTM_SHAPES.items()}
    h, _ = lstm(mg.input(np.zeros((2, 3)), name="x"), p)
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next**2))), rng.normal(size=(12, 2, 3)), p


def gradients_of(p):
    return {name: np.zeros(leaf.shape) if leaf.grad is None else np.array(leaf.grad) for name, leaf in p.items()}


def windows(net, xs, borders):
    """The dags of consecutive windows, each started from the values at the end of the one before."""
    dags, state = [], None
    for start, end in zip([0, *borders], [*borders, len(xs)], strict=True):
        dags.append(net.unroll(x=xs[start:end], initial=state))
        state = dags[-1].state
    return dags


@settings(deadline=None, max_examples=20)
@given(borders=st.sets(st.integers(1, 11)).map(sorted))
def test_windows_with_the_state_carried_on_give_the_values_of_the_whole(borders):
    net, xs, _ = lstm_network()
    whole, parts = net.unroll(x=xs), windows(net, xs, borders)
    for node in net.varying:
        joined = np.concatenate([dag.values(node) for dag in parts])
        np.testing.assert_allclose(joined, whole.values(node), rtol=1e-13)
    assert sum(dag.output.value for dag in parts) == pytest.approx(whole.output.value, rel=1e-13)
    for name, value in whole.state.items():
        np.testing.assert_allclose(parts[-1].state[name], value, rtol=1e-13)


def eager_loss(p, xs, detached_before):
    """The LSTM of `lstm`, run eagerly over all timesteps; h and c are detached before some of them."""
    h, c, loss = p["h0"], p["c0"], 0.0
    for t, x in enumerate(xs):
        if t in detached_before:
            h, c = h.detach(), c.detach()
        i, f, o, g = mg.split(x @ p["W"] + h @ p["U"] + p["b"], 4, axis=-1)
        c = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
        h = mg.sigmoid(o) * mg.tanh(c)
        loss = loss + mg.sum(h**2)
    return loss


@pytest.mark.parametrize("borders", [[], [6], [4, 8], [1, 2, 11]], ids=str)
def test_gradients_of_windows_equal_those_of_the_whole_with_detached_borders(borders):
    net, xs, p = lstm_network()
    for dag in windows(net, xs, borders):
        dag.backward()
    truncated = gradients_of(p)

    eager = {name: mg.tensor(leaf.value) for name, leaf in p.items()}
    eager_loss(eager, xs, borders).backward()
    for name, gradient in gradients_of(eager).items():
        np.testing.assert_allclose(truncated[name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)

    for leaf in p.values():
        leaf.zero_grad()
    net.unroll(x=xs).backward()
    full = gradients_of(p)
    apart = max(np.abs(full[name] - truncated[name]).max() for name in p)
    assert apart > 1e-3 if borders else apart == 0  # truncation is an approximation, and seen to be one


@pytest.mark.parametrize("border", [1, 5, 11])
def test_window_started_from_the_nodes_of_the_one_before_is_the_whole(border):
    net, xs, p = lstm_network()
    one = net.unroll(x=xs[:border])
    ends = {state: one[state.next, -1] for state in net.states}
    two = net.unroll(x=xs[border:], initial=ends)
    (one.output + two.output).backward()
    joined = gradients_of(p)
    for leaf in p.values():
        leaf.zero_grad()
    net.unroll(x=xs).backward()
    for name, gradient in gradients_of(p).items():
        np.testing.assert_allclose(joined[name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)


def test_overlapping_windows_need_only_the_state_at_their_start():
    net, xs, _ = lstm_network()
    whole = net.unroll(x=xs)
    for start in (2, 4, 6):
        part = net.unroll(x=xs[start : start + 6], initial={"h": whole["h", start].value, "c": whole["c", start].value})
        np.testing.assert_allclose(part.values("h"), whole.values("h")[start : start + 6], rtol=1e-13)


def test_windows_of_pure_delays_carry_on_what_is_under_way():
    x, one, two = mg.input(0.0, name="x"), mg.state(-1.0, name="one"), mg.state(-2.0, name="two")
    one.next, two.next = x, one
    net = mg.Graph(two)
    parts = windows(net, [1.0, 2.0, 3.0, 4.0, 5.0], [1, 3])
    assert [float(value) for dag in parts for value in dag.values("two")] == [-2, -1, 1, 2, 3]
    assert parts[0].state == {"one": 1.0, "two": -1.0} or parts[0].state == {"two": -1.0, "one": 1.0}


# --- accumulation -----------------------------------------------------------------------------------


def test_gradients_of_two_dags_add_up_in_the_shared_parameters():
    net, xs, p = lstm_network()
    alone = []
    for part in (xs[:5], xs[5:]):
        net.unroll(x=part).backward()
        alone.append(gradients_of(p))
        net.zero_grad()
        assert all(leaf.grad is None for leaf in p.values())
    for part in (xs[:5], xs[5:]):
        net.unroll(x=part).backward()
    for name, gradient in gradients_of(p).items():
        np.testing.assert_allclose(gradient, alone[0][name] + alone[1][name], rtol=1e-12, atol=1e-15)


def test_backward_twice_doubles_the_leaves_and_not_what_lies_between():
    net, xs, p = lstm_network()
    dag = net.unroll(x=xs)
    dag.backward()
    once, between = gradients_of(p), dag.grads("h")
    dag.backward()
    for name, gradient in gradients_of(p).items():
        np.testing.assert_allclose(gradient, 2 * once[name], rtol=1e-12)
    np.testing.assert_allclose(dag.grads("h"), between, rtol=1e-13)


def test_zero_grad_of_a_dag_forgets_every_timestep_and_the_parameters():
    net, xs, p = lstm_network()
    dag = net.unroll(x=xs)
    dag.backward()
    expected = gradients_of(p)
    assert np.abs(dag.grads("x")).max() > 0
    dag.zero_grad()
    assert all(node.grad is None for node in dag.nodes)
    assert all(leaf.grad is None for leaf in p.values())
    dag.backward()
    for name, gradient in gradients_of(p).items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_gradient_of_one_dag_leaves_the_timesteps_of_another_alone():
    net, xs, _ = lstm_network()
    one, two = net.unroll(x=xs), net.unroll(x=xs)
    one.backward()
    assert all(copy.grad is None for copies in two.copies.values() for copy in copies)


def test_gradients_are_arrays_of_their_own():
    net, xs, p = lstm_network()
    dag = net.unroll(x=xs)
    dag.backward()
    grads = [leaf.grad for leaf in p.values()] + [dag["x", t].grad for t in range(12)]
    assert not any(np.shares_memory(one, other) for i, one in enumerate(grads) for other in grads[:i])


def test_backward_with_a_seed_of_the_shape_of_the_output():
    net, xs, _ = lstm_network()
    stacked = mg.Graph(mg.time_stack(net["loss"].operands[0])).unroll(x=xs)
    with pytest.raises(GradientError, match="seed"):
        stacked.backward()
    seed = np.zeros(12)
    seed[3] = 1.0
    stacked.backward(seed)
    assert np.abs(stacked.grads("x")[:4]).min() > 0
    assert np.abs(stacked.grads("x")[4:]).max() == 0


# --- gradients of gradients through the unrolled graph ------------------------------------------------


def cubed(w):
    h = mg.state(1.0, name="h")
    h.next = h * w
    return mg.Graph(mg.last(h.next)).unroll(steps=3).output


def test_second_derivative_through_unroll():
    assert mg.grad(cubed)(2.0) == pytest.approx(12.0)
    assert mg.grad(mg.grad(cubed))(2.0) == pytest.approx(12.0)
    assert float(mg.grad(cubed)(mg.tensor(2.0))) == pytest.approx(12.0)


def test_hessian_through_unroll_equals_that_of_a_plain_loop():
    U0, x = 0.3 * np.random.default_rng(0).normal(size=(2, 2)), np.array([[0.5, -1.0]])

    def unrolled(U):
        h = mg.state(np.zeros((1, 2)), name="h")
        h.next = mg.tanh(h @ U + x)
        return mg.Graph(mg.sum(mg.last(h.next) ** 2)).unroll(steps=4).output

    def loop(U):
        h = mg.tensor(np.zeros((1, 2)))
        for _ in range(4):
            h = mg.tanh(h @ U + x)
        return mg.sum(h**2)

    hessian = mg.jacobian(mg.grad(unrolled))(U0)
    assert np.abs(hessian).max() > 0.1
    np.testing.assert_allclose(hessian, mg.jacobian(mg.grad(loop))(U0), rtol=1e-10)


def test_static_operation_is_the_users_own_node_until_a_parameter_changes():
    W, x = mg.parameter(np.ones(2), name="W"), mg.input(np.ones(2), name="x")
    M = mg.tanh(W * 2.0).named("M")
    net = mg.Graph(mg.time_sum(mg.sum(x * M)))
    dag = net.unroll(steps=3)
    assert dag["M"] is M
    dag.backward()
    np.testing.assert_allclose(M.grad, [3.0, 3.0])
    W.value = np.full(2, 0.5)
    again = net.unroll(steps=3)
    assert again["M"] is not M
    np.testing.assert_allclose(again["M"].value, np.tanh([1.0, 1.0]))
