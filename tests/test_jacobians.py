"""mg.jacobians: against closed forms, central differences, and the gradients of the unrolled graph."""

import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, bidirectional, lstm, stacked, weight
from random_networks import RandomNetwork

import microgrid as mg
from microgrid.errors import GradientError, OperandIndexError, OperandTypeError, StateError, UnknownNameError
from microgrid.jacobians import jacobians


def flat(value, batch):
    array = np.asarray(value)
    return (array[batch] if array.ndim > 1 else array).reshape(-1)


def by_differences(dag, states, t, batch, step=1e-6):
    """The Jacobian of timestep t by running that timestep alone, from states moved by a little."""
    net = dag.graph
    starts = {net.names[state]: dag[state, t].value for state in net.states}
    sequences = {net.names[node]: [dag[node, t].value] for node in net.inputs}

    def after(moved):
        one = net.unroll(sequences, steps=1, initial=moved)
        return np.concatenate([flat(one[state.next, 0].value, batch) for state in states])

    columns = []
    for state in states:
        name, value = net.names[state], np.asarray(dag[state, t].value, np.float64)
        own = value[batch] if value.ndim > 1 else value
        for index in np.ndindex(own.shape):
            index = (batch, *index) if value.ndim > 1 else index
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                ends.append(after({**starts, name: moved}))
            columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


def knows_itself(net, cycle):
    """Whether one timestep alone gives the values it has among others: it reads no reduction over time."""
    stack, seen = [state.next for state in cycle.states], set()
    while stack:
        node = stack.pop()
        if node not in net.varying and node.depends_on_time():
            return False
        if node not in seen:
            seen.add(node)
            stack += () if isinstance(node, mg.State) else node.operands
    return True


def random_sequences(net, steps, seed=0):
    rng = np.random.default_rng(seed)
    return {
        net.names[node]: rng.normal(size=(steps, *node.shape))
        if node.dtype.kind == "f"
        else rng.integers(0, 5, (steps, *node.shape))
        for node in net.inputs
    }


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_linear_recurrence_has_the_transposed_matrix_at_every_timestep(hidden, steps, batch):
    rng = np.random.default_rng(hidden)
    U = mg.parameter(rng.normal(size=(hidden, hidden)), name="U")
    x, h = mg.input(np.zeros((batch, hidden)), name="x"), mg.state(np.zeros((batch, hidden)), name="h")
    h.next = h @ U + x
    dag = mg.Graph(h.next).unroll(x=rng.normal(size=(steps, batch, hidden)))
    for b in range(batch):
        np.testing.assert_array_equal(jacobians(dag, batch=b), np.broadcast_to(U.value.T, (steps - 1, hidden, hidden)))


def test_a_tanh_recurrence_is_scaled_by_its_slope():
    rng = np.random.default_rng(0)
    U, h = mg.parameter(rng.normal(size=(3, 3)), name="U"), mg.state(rng.normal(size=3), name="h")
    h.next = mg.tanh(h @ U)
    dag = mg.Graph(h.next).unroll(steps=5)
    expected = [(1 - dag["h", t + 1].value ** 2)[:, None] * U.value.T for t in range(4)]
    np.testing.assert_allclose(jacobians(dag), expected, rtol=1e-14)


WITH_CYCLES = [
    name
    for name, net in ((name, make()) for name, make in NETWORKS.items())
    if net.cycles and all(knows_itself(net, cycle) for cycle in net.cycles)
]


@pytest.mark.parametrize("name", WITH_CYCLES)
def test_every_cycle_agrees_with_central_differences(name):
    net = NETWORKS[name]()
    dag = net.unroll(random_sequences(net, 4), steps=4)
    for cycle in net.cycles:
        batch = cycle.states[0].shape[0] - 1 if cycle.states[0].ndim > 1 else 0
        found = jacobians(dag, *cycle.states, batch=batch)
        for t in range(3):
            at = t + 1 if cycle.reverse else t
            np.testing.assert_allclose(found[t], by_differences(dag, cycle.states, at, batch), atol=2e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_random_networks_agree_with_central_differences(seed):
    network = RandomNetwork(seed, both_directions=True, steps=3)
    net, leaves = network.tensors(numbers_as_floats=True)
    dag = net.unroll(network.sequences(net, leaves), steps=3)
    for cycle in net.cycles:
        found = jacobians(dag, *cycle.states)
        for t in range(2) if knows_itself(net, cycle) else ():
            at = t + 1 if cycle.reverse else t
            np.testing.assert_allclose(found[t], by_differences(dag, cycle.states, at, 0), atol=1e-7)


def test_the_product_is_the_gradient_of_the_last_states():
    net = lstm()
    dag = net.unroll(random_sequences(net, 6))
    product = np.linalg.multi_dot(jacobians(dag, "h", "c", batch=1)[::-1])
    dag["c", 5].backward(np.array([[0.0] * 4, [0.0, 0.0, 1.0, 0.0]]))  # the third of c is the seventh of both
    np.testing.assert_allclose(product[6], np.concatenate([dag["h", 0].grad[1], dag["c", 0].grad[1]]), rtol=1e-12)


def test_the_states_of_a_cycle_are_taken_together_and_may_be_named():
    net = lstm()
    dag = net.unroll(random_sequences(net, 3))
    both, other_way = jacobians(dag, "h", "c"), jacobians(dag, "c", "h")
    assert both.shape == (2, 8, 8)
    np.testing.assert_array_equal(np.roll(both, 4, axis=(1, 2)), other_way)
    np.testing.assert_array_equal(jacobians(dag, "c", "c", net["c"]), both[:, 4:, 4:])
    states = [net.names[state] for state in net.cycles[0].states]
    np.testing.assert_array_equal(jacobians(dag), jacobians(dag, *states))


def test_stacked_layers_together_are_block_triangular():
    net = stacked()
    dag = net.unroll(random_sequences(net, 3))
    together = jacobians(dag, "h1", "h2")
    np.testing.assert_array_equal(together[:, :3, :3], jacobians(dag))
    np.testing.assert_array_equal(together[:, 3:, 3:], jacobians(dag, "h2"))
    assert not together[:, :3, 3:].any()
    assert together[:, 3:, :3].all()
    for t in range(2):
        np.testing.assert_allclose(together[t], by_differences(dag, [net["h1"], net["h2"]], t, 0), atol=1e-9)


def test_a_reverse_state_runs_the_other_way():
    net = bidirectional()
    dag = net.unroll(random_sequences(net, 4))
    found = jacobians(dag, "k")
    slope = 1 - dag["k", 0].value[0] ** 2
    np.testing.assert_allclose(found[0], slope[:, None] * net["B"].value.T, rtol=1e-12)


def test_a_sequence_is_that_of_its_own_batch_also_where_they_share_a_start():
    x = mg.input(np.zeros((1, 2)), name="x")
    y = mg.nn.RNN(2, 3, rng=0, dtype=np.float64)(x)
    net = mg.Graph(y)
    xs = np.random.default_rng(0).normal(size=(4, 5, 2))
    for b in range(5):
        alone = jacobians(net.unroll(x=xs[:, b : b + 1]))
        np.testing.assert_allclose(jacobians(net.unroll(x=xs), batch=b), alone, rtol=1e-12)


def test_states_of_several_axes_are_flattened_and_numbers_are_one_feature():
    a, b = mg.state(np.ones((2, 2, 3)), name="a"), mg.state(0.5, name="b")
    a.next, b.next = a * 2.0 + b, b * mg.mean(a)
    found = jacobians(mg.Graph(mg.sum(a.next)).unroll(steps=3), "a", "b", batch=1)
    np.testing.assert_array_equal(found[0][:6, :6], 2 * np.eye(6))
    np.testing.assert_array_equal(found[0][:6, 6], np.ones(6))
    np.testing.assert_allclose(found[0][6], [0.5 / 12] * 6 + [1.0])  # the other sequence is held fixed


def test_delays_and_states_that_stay_are_zeros_and_ones():
    first, second = mg.state(np.zeros(2), name="first"), mg.state(np.zeros(2), name="second")
    first.next, second.next = mg.input(np.zeros(2), name="x"), first
    found = jacobians(mg.Graph(second).unroll(steps=3), "first", "second")
    np.testing.assert_array_equal(found, [np.kron([[0, 0], [1, 0]], np.eye(2))] * 2)
    kept = mg.state(np.zeros(2), name="kept")
    kept.next = kept
    np.testing.assert_array_equal(jacobians(mg.Graph(kept).unroll(steps=2)), [np.eye(2)])


def test_what_is_detached_passes_nothing_on():
    h = mg.state(np.ones(2), name="h")
    h.next = mg.tanh(h.detach())
    assert not jacobians(mg.Graph(h.next).unroll(steps=3)).any()


def test_one_timestep_has_no_jacobian_and_float32_stays():
    h = mg.state(np.ones((1, 3), np.float32), name="h")
    h.next = mg.tanh(h)
    assert jacobians(mg.Graph(h.next).unroll(steps=1)).shape == (0, 3, 3)
    assert jacobians(mg.Graph(h.next).unroll(steps=2)).dtype == np.float32


def test_many_rows_are_computed_in_parts(monkeypatch):
    net = lstm()
    dag = net.unroll(random_sequences(net, 3))
    whole = jacobians(dag)
    monkeypatch.setattr(sys.modules["microgrid.jacobians"], "LARGEST", 50)  # the package's own name is the function
    np.testing.assert_allclose(jacobians(dag), whole, rtol=1e-14)


def test_gradients_stay_as_they_are():
    net = NETWORKS["rnn"]()
    dag = net.unroll(random_sequences(net, 4))
    dag.backward()
    before = {node: None if node.grad is None else np.copy(node.grad) for node in dag}
    with mg.no_grad():
        jacobians(dag)
    for node, grad in before.items():
        np.testing.assert_array_equal(node.grad, grad)


def test_an_lstm_of_a_hundred_timesteps_takes_less_than_a_second():
    x = mg.input(np.zeros((4, 16), np.float32), name="x")
    net = mg.Graph(mg.nn.LSTM(16, 64, rng=0)(x))
    dag = net.unroll(x=np.zeros((100, 4, 16), np.float32))
    began = time.process_time()
    assert jacobians(dag).shape == (99, 128, 128)
    assert time.process_time() - began < 1.5


def test_errors_say_what_to_do():
    net = bidirectional()
    dag = net.unroll(steps=3)
    with pytest.raises(OperandTypeError, match=r"unrolled graph, as mg\.Graph"):
        jacobians(net)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        jacobians(dag, "hh")
    with pytest.raises(StateError, match=r"'x' is no state\. Known: 'h', 'k'"):
        jacobians(dag, "x")
    with pytest.raises(StateError, match="different directions"):
        jacobians(dag, "h", "k")
    for batch in (2, -1):
        with pytest.raises(OperandIndexError, match="'h' holds 2 sequences"):
            jacobians(dag, batch=batch)
    with pytest.raises(StateError, match="no cycle: name the states"):
        jacobians(NETWORKS["delay_line"]().unroll(steps=3))
    with mg.no_grad():
        blind = net.unroll(steps=3)
    with pytest.raises(GradientError, match=r"inside mg\.no_grad"):
        jacobians(blind)
    count = mg.state(0, name="count")
    count.next = count + 1
    dag = mg.Graph(count.next).unroll(steps=3)
    with pytest.raises(GradientError, match="hold integers"):
        jacobians(dag)
    with pytest.raises(GradientError, match="'count' holds int64"):
        jacobians(dag, "count")


def test_penalties_on_weights_do_not_matter():
    h = mg.state(np.zeros((1, 3)), name="h")
    h.next = mg.tanh(h @ weight("U", 3, 3))
    assert jacobians(mg.Graph(mg.sum(mg.last(h.next))).unroll(steps=2)).shape == (1, 3, 3)
