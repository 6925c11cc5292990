"""The adjoint as a graph: unrolled it gives the gradients of the unrolled graph, and it can be differentiated again."""

import numpy as np
import pytest
from networks import NETWORKS
from random_networks import RandomNetwork
from test_compiled import assert_same, differentiable, reduced, reference, rnn, sequences_for

import microgrid as mg
import viz
from microgrid.errors import GradientError, UnknownNameError


def gradients_of_adjoint(net, by, sequences, steps, compiled=False):
    """What the adjoint graph computes, by the name of the node in `net`."""
    adjoint = mg.differentiate(net, by)
    read = {name: sequences[name] for name in sequences if name in adjoint}
    found = {}
    run = mg.compile(adjoint, wrt=())(read, steps=steps) if compiled else adjoint.unroll(read, steps=steps)
    for node, output in zip(by, adjoint.outputs, strict=True):
        name = net.names[node]
        assert adjoint[f"{name}.grad"] is output
        assert output.shape == node.shape
        assert output.dtype == node.dtype
        if compiled:
            found[name] = run.outputs[adjoint.names[output]]
        else:
            found[name] = run.values(output) if output in adjoint.varying else run[output].value
        if node in net.varying and output not in adjoint.varying:  # the same at all timesteps
            found[name] = np.repeat(np.asarray(found[name])[None], steps, axis=0)
    return found


def has_rows_of_time(net):
    """Whether a network stacks timesteps: its adjoint is another for every length."""
    return any(
        node.primitive is not None and node.primitive.name in ("time_stack", "time_unstack") for node in net.nodes
    )


# --- the adjoint is the gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_adjoint_unrolled_equals_backward_of_the_unrolled_graph(name, steps):
    net = reduced(NETWORKS[name]())
    by = differentiable(net)
    if not by:
        return
    if has_rows_of_time(net):
        with pytest.raises(GradientError, match=r"mg\.compile differentiates it"):
            mg.differentiate(net, by)
        return
    sequences = sequences_for(net, steps, np.random.default_rng(steps))
    _, gradients, _ = reference(net, sequences, steps, wrt=by)
    assert_same(gradients_of_adjoint(net, by, sequences, steps), gradients)
    assert_same(gradients_of_adjoint(net, by, sequences, steps, compiled=True), gradients)


@pytest.mark.parametrize("seed", range(36))
def test_adjoint_of_a_random_graph_unrolled_equals_backward(seed):
    network = RandomNetwork(seed, both_directions=seed % 3 > 0, stacks=False)
    net, leaves = network.tensors(numbers_as_floats=bool(seed % 2))
    by, sequences = differentiable(net), network.sequences(net, leaves)
    _, gradients, _ = reference(net, sequences, network.steps, wrt=by)
    assert_same(gradients_of_adjoint(net, by, sequences, network.steps), gradients)


# --- what it looks like ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "stacked", "coupled", "computed_start", "bidirectional"])
def test_every_cycle_has_an_adjoint_that_runs_the_other_way(name):
    net = reduced(NETWORKS[name]())
    by = differentiable(net)
    directions = [cycle.reverse for cycle in net.cycles]
    adjoint = mg.differentiate(net, by)
    found = [cycle.reverse for cycle in adjoint.cycles]
    assert sorted(found) == sorted([*directions, *(not reverse for reverse in directions)])
    states = {state.name: state.reverse for state in adjoint.states if state.name}
    assert all(states[f"{state.name}.grad⁺"] != state.reverse for state in net.states)


def test_adjoint_of_a_pure_delay_is_a_delay_the_other_way_and_no_cycle():
    x, past = mg.input(0.0, name="x"), mg.state(0.0, name="past")
    past.next = mg.sin(x)
    adjoint = mg.differentiate(mg.Graph(mg.time_sum(past * past)), wrt="x")
    assert adjoint.cycles == []
    assert [state.reverse for state in adjoint.states] in ([False, True], [True, False])
    dag = adjoint.unroll(x=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(dag.values("x.grad"), [np.sin(2), np.sin(4), 0], rtol=1e-14)


def test_adjoint_shares_the_leaves_of_the_network_and_leaves_it_alone():
    net = rnn()
    before = [(id(node), node.operands, node.grad, node.value) for node in net.nodes]
    adjoint = mg.differentiate(net)
    assert set(adjoint.parameters) <= set(net.parameters)
    assert set(adjoint.inputs) == set(net.inputs)
    assert net["h"] in adjoint
    for node, (_, operands, grad, value) in zip(net.nodes, before, strict=True):
        assert list(map(id, node.operands)) == list(map(id, operands))
        assert node.grad is grad
        assert node.value is value
    assert [cycle.states[0].name for cycle in net.cycles] == ["h"]


def test_gradients_are_named_after_what_they_are_gradients_of():
    adjoint = mg.differentiate(rnn())
    assert [adjoint.names[output] for output in adjoint.outputs] == ["W.grad", "U.grad", "b.grad", "V.grad"]
    assert "h.grad⁺" in adjoint


@pytest.mark.parametrize("name", ["rnn", "lstm", "scalar", "delay_line", "bidirectional"])
def test_adjoint_can_be_drawn(name):
    net = reduced(NETWORKS[name]())
    adjoint = mg.differentiate(net, differentiable(net))
    rolled = viz.draw(adjoint).source
    assert "t+1" in rolled
    assert viz.draw(adjoint.unroll(steps=2)).source


# --- by what ----------------------------------------------------------------------------------------------


def test_wrt_by_name_by_node_one_or_several():
    net = rnn()
    for wrt, names in (
        *(("W", ["W"]), (net["x"], ["x"]), (["x", net["U"]], ["x", "U"]), (None, ["W", "U", "b", "V"])),
        *(((name for name in ("b", "V")), ["b", "V"]), (net.parameters, ["W", "U", "b", "V"])),
    ):
        adjoint = mg.differentiate(net, wrt)
        assert [adjoint.names[output] for output in adjoint.outputs] == [f"{name}.grad" for name in names]


def test_wrt_of_operations_and_states():
    x, w, h = mg.input(0.0, name="x"), mg.parameter(0.7, name="w"), mg.state(0.0, name="h")
    a = (w * h + x).named("a")
    h.next = mg.tanh(a)
    net = mg.Graph(mg.time_sum(h.next**2))
    xs = [0.3, -0.5, 0.8]
    dag = net.unroll(x=xs)
    dag.backward()
    adjoint = mg.differentiate(net, ["a", "h", "x"])
    unrolled = adjoint.unroll(x=xs)
    for name in ("a", "h", "x"):
        np.testing.assert_allclose(unrolled.values(f"{name}.grad"), dag.grads(name), rtol=1e-13)


def test_gradient_by_an_input_of_a_sum_over_time_of_it_is_static():
    x = mg.input(np.zeros(2), name="x")
    adjoint = mg.differentiate(mg.Graph(mg.time_sum(mg.sum(3.0 * x))), wrt="x")
    output = adjoint["x.grad"]
    assert output not in adjoint.varying
    assert adjoint.unroll(steps=3)[output].value.tolist() == [3, 3]


def test_gradient_by_what_the_loss_reads_without_its_gradient_is_zero():
    x, W = mg.input(np.ones(2), name="x"), mg.parameter(np.ones(2), name="W")
    net = mg.Graph(mg.time_sum(mg.sum(x * mg.sign(W))))
    assert mg.differentiate(net, "W").unroll(steps=2).output.value.tolist() == [0, 0]


@pytest.mark.parametrize("reduction", ["time_sum", "time_mean", "first", "last"])
@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_adjoint_of_every_reduction_over_time(reduction, varies, steps):
    rng = np.random.default_rng(0)
    x, W = mg.input(np.zeros(2), name="x"), mg.parameter(rng.normal(size=2), name="W")
    y = mg.tanh(x * W) if varies else mg.tanh(W)
    net = mg.Graph(mg.sum(mg.sin(getattr(mg, reduction)(y))) + mg.time_sum(mg.sum(x)))
    sequences = {"x": rng.normal(size=(steps, 2))}
    by = [net["W"], net["x"]]
    _, gradients, _ = reference(net, sequences, steps, wrt=by)
    assert_same(gradients_of_adjoint(net, by, sequences, steps), gradients)
    assert_same(gradients_of_adjoint(net, by, sequences, steps, compiled=True), gradients)


def test_learnable_and_computed_starts_receive_their_gradient():
    h0, x = mg.parameter(np.array([0.3, -0.2]), name="h0"), mg.input(np.zeros(2), name="x")
    f, b = mg.state(mg.sin(h0), name="f"), mg.state(h0, name="b", reverse=True)
    f.next, b.next = mg.tanh(f + x), mg.tanh(b * f + x)
    net = mg.Graph(mg.time_sum(mg.sum(b.next)) + mg.sum(mg.last(f.next)))
    sequences = {"x": np.random.default_rng(0).normal(size=(4, 2))}
    _, gradients, _ = reference(net, sequences, wrt=[h0, x])
    assert_same(gradients_of_adjoint(net, [h0, x], sequences, 4), gradients)


# --- what is refused ----------------------------------------------------------------------------------------


def test_adjoint_of_what_is_no_scalar_is_refused():
    x, W = mg.input(np.zeros(2), name="x"), mg.parameter(np.ones(2), name="W")
    with pytest.raises(GradientError, match=r"'y' has shape \(2,\)"):
        mg.differentiate(mg.Graph(y=mg.time_sum(x * W)))
    with pytest.raises(GradientError, match=r"'y' has one value per timestep.*mg\.time_mean"):
        mg.differentiate(mg.Graph(y=mg.sum(x * W)))
    with pytest.raises(UnknownNameError, match="2 outputs"):
        mg.differentiate(mg.Graph(mg.time_sum(mg.sum(x * W)), mg.sum(W)))


def test_wrt_that_is_refused():
    net = rnn()
    with pytest.raises(UnknownNameError, match="no node 'Ww'"):
        mg.differentiate(net, "Ww")
    with pytest.raises(UnknownNameError, match="no node of this graph"):
        mg.differentiate(net, mg.parameter(1.0, name="other"))
    with pytest.raises(GradientError, match="'token' needs no gradient"):
        mg.differentiate(NETWORKS["embedding"](), "token")
    x = mg.input(0.0, name="x")
    with pytest.raises(GradientError, match=r"no parameters.*wrt='x'"):
        mg.differentiate(mg.Graph(mg.time_sum(x * x)))
    with pytest.raises(GradientError, match="'total' depends on nothing that needs a gradient"):
        mg.differentiate(mg.Graph(total=mg.time_sum(mg.input(0, name="n"))), [])


def test_network_that_stacks_time_is_refused_with_the_ways_out():
    x = mg.input(0.0, name="x")
    net = mg.Graph(mg.sum(mg.time_stack(x).named("rows")))
    with pytest.raises(GradientError, match=r"'rows' has as many rows as there are timesteps.*mg\.compile.*unroll"):
        mg.differentiate(net, "x")


# --- differentiated again -------------------------------------------------------------------------------------


def directional_slope(gradient, point, direction, step=1e-4):
    """d/ds gradient(point + s direction) at 0, by central differences of fourth order."""
    values = [gradient(point + distance * step * direction) for distance in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def small_rnn(dims=3):
    rng = np.random.default_rng(4)
    x, h = mg.input(np.zeros((2, 2)), name="x"), mg.state(np.zeros((2, dims)), name="h")
    W, U = mg.parameter(rng.normal(size=(2, dims)), name="W"), mg.parameter(rng.normal(size=(dims, dims)), name="U")
    h.next = mg.tanh(x @ W + h @ U)
    return mg.Graph(loss=mg.time_mean(mg.sum(h.next**2)) + mg.sum(mg.last(h.next) ** 3)), rng.normal(size=(5, 2, 2))


def small_lstm():
    rng = np.random.default_rng(5)
    x = mg.input(np.zeros((1, 2)), name="x")
    h, c = mg.state(np.zeros((1, 2)), name="h"), mg.state(np.zeros((1, 2)), name="c")
    U = mg.parameter(0.8 * rng.normal(size=(2, 8)), name="U")
    z = x @ mg.parameter(rng.normal(size=(2, 8)), name="W") + h @ U
    i, f, o, g = mg.split(z, 4, axis=1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next**2))), rng.normal(size=(4, 1, 2))


@pytest.mark.parametrize("make", [small_rnn, small_lstm], ids=["rnn", "lstm"])
def test_hessian_vector_product_unrolled_and_compiled_equals_differences_of_the_gradient(make):
    net, xs = make()
    U, v = net["U"], np.random.default_rng(9).normal(size=net["U"].shape)
    adjoint = mg.differentiate(net)
    product = mg.differentiate(mg.Graph(mg.sum(adjoint["U.grad"] * v)), wrt=["U", "W"])
    step, second = mg.compile(net, wrt=["U", "W"]), mg.compile(mg.Graph(mg.sum(adjoint["U.grad"] * v)), wrt=["U", "W"])
    start = U.value

    def gradient(name):
        def at(point):
            U.value = point
            return np.array(step(x=xs).grads[name])

        return at

    for name in ("U", "W"):
        expected = directional_slope(gradient(name), start, v)
        U.value = start
        assert np.abs(expected).max() > 0.01
        for found in (
            product.unroll(x=xs)[f"{name}.grad"].value,
            mg.compile(product, wrt=())(x=xs).outputs[f"{name}.grad"],
            second(x=xs).grads[name],
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    dag = mg.Graph(mg.sum(adjoint["U.grad"] * v)).unroll(x=xs)
    U.zero_grad()
    dag.backward()
    np.testing.assert_allclose(product.unroll(x=xs)["U.grad"].value, U.grad, rtol=1e-10)


def test_hessian_vector_products_are_the_rows_of_the_hessian():
    net, xs = small_rnn(dims=2)
    adjoint = mg.differentiate(net, wrt="U")
    v = mg.tensor(np.zeros((2, 2)), name="v", requires_grad=False)
    second = mg.compile(mg.Graph(mg.sum(adjoint["U.grad"] * v)), wrt="U")
    rows = []
    for k in range(4):
        v.value = np.eye(4)[k].reshape(2, 2)
        rows.append(second(x=xs).grads["U"])

    def loss(U):
        h, total = mg.tensor(np.zeros((2, 2))), 0.0
        for x in xs:
            h = mg.tanh(x @ net["W"].value + h @ U)
            total = total + mg.sum(h**2) / len(xs)
        return total + mg.sum(h**3)

    hessian = mg.jacobian(mg.grad(loss))(net["U"].value)
    np.testing.assert_allclose(np.stack(rows), hessian.reshape(4, 2, 2), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(hessian.reshape(4, 4), hessian.reshape(4, 4).T, rtol=1e-10)


def test_hessian_vector_product_runs_four_ways_through_time():
    net, _ = small_rnn()
    adjoint = mg.differentiate(net, wrt="U")
    product = mg.differentiate(mg.Graph(mg.sum(adjoint["U.grad"] * np.ones((3, 3)))), wrt="U")
    directions = [cycle.reverse for cycle in product.cycles]
    assert directions.count(False) == directions.count(True) == 2


def test_third_derivative_of_a_recurrence():
    u, x, h = mg.parameter(1.3, name="u"), mg.input(0.0, name="x"), mg.state(1.0, name="h")
    h.next = u * h + x
    net = mg.Graph(mg.last(h.next))  # u⁴ with inputs 0
    for order, expected in ((1, 4 * 1.3**3), (2, 12 * 1.3**2), (3, 24 * 1.3)):
        net = mg.Graph(mg.differentiate(net, "u").output)
        assert net.unroll(x=np.zeros(4)).output.item() == pytest.approx(expected, rel=1e-12), order
        assert float(mg.compile(net, wrt=())(x=np.zeros(4)).value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_second_derivatives_of_random_graphs_compiled_equal_unrolled(seed):
    network = RandomNetwork(seed, both_directions=seed % 3 > 0, stacks=False)
    net, leaves = network.tensors(numbers_as_floats=False)
    rng, sequences = np.random.default_rng(seed), network.sequences(net, leaves)
    adjoint = mg.differentiate(net)
    total = 0.0
    for output in adjoint.outputs:
        total = total + mg.sum(output * rng.normal(size=output.shape))
    second = mg.Graph(total)
    by = [p for p in net.parameters if p in second]
    if not second.output.requires_grad or not by:
        return
    read = {name: sequences[name] for name in sequences if name in second}
    _, gradients, _ = reference(second, read, network.steps, wrt=by)
    run = mg.compile(second, wrt=by)(read, steps=network.steps)
    assert_same(run.grads, gradients, rtol=1e-11)
