"""Unrolling: one copy of the varying nodes per timestep, shared weights, checked sequences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microgrid as mg
from microgrid.errors import (
    CausalityError,
    GradientError,
    SequenceError,
    TimestepError,
    UnknownNameError,
)


def rnn(batch=2, features=3, hidden=4, dtype=np.float64):
    """A plain RNN with named parts, its loss the mean over time of the sum of squares."""
    rng = np.random.default_rng(0)
    x = mg.input(np.zeros((batch, features), dtype), name="x")
    W = mg.parameter(rng.normal(size=(features, hidden)).astype(dtype), name="W")
    U = mg.parameter(rng.normal(size=(hidden, hidden)).astype(dtype), name="U")
    h = mg.state(np.zeros((batch, hidden), dtype), name="h")
    h.next = mg.tanh(x @ W + h @ U)
    return mg.Graph(loss=mg.time_mean(mg.sum(h.next * h.next)))


def rnn_values(net, xs, start=None):
    """The hidden values of `rnn` by a plain loop."""
    W, U = net["W"].value, net["U"].value
    h = np.zeros((xs.shape[1], U.shape[0])) if start is None else start
    values = []
    for x in xs:
        h = np.tanh(x @ W + h @ U)
        values.append(h)
    return np.stack(values)


def accumulator(kind=float):
    """total(t) = total(t−1) + x(t), for scalars."""
    x, total = mg.input(kind(0), name="x"), mg.state(kind(0), name="total")
    total.next = total + x
    return total.next


def sequence(steps, batch=2, features=3, seed=1):
    return np.random.default_rng(seed).normal(size=(steps, batch, features))


# --- the shape of the unrolled graph ----------------------------------------------------------------


def test_every_varying_node_has_one_copy_per_timestep_named_after_it():
    net = rnn()
    dag = net.unroll(x=sequence(5))
    assert set(dag.copies) == set(net.varying)
    for node, copies in dag.copies.items():
        assert [copy.name for copy in copies] == [f"{net.names[node]}[{t}]" for t in range(5)]
        assert len(set(copies)) == 5
    assert dag["h", 3].name == "h[3]"
    assert dag["tanh_1", 0].name == "tanh_1[0]"


def test_parameters_are_the_same_objects_in_every_timestep():
    net = rnn()
    dag = net.unroll(x=sequence(4))
    assert dag["W"] is net["W"]
    assert all(dag["matmul_1", t].operands[1] is net["W"] for t in range(4))
    assert all(dag["matmul_2", t].operands[1] is net["U"] for t in range(4))
    assert set(dag.parameters) == {net["W"], net["U"]}


def test_static_operations_are_computed_once_and_shared():
    x, W, h = mg.input(1.0, name="x"), mg.parameter(0.3, name="W"), mg.state(0.0, name="h")
    doubled = (W * 2).named("doubled")
    h.next = mg.tanh(doubled * h + x)
    dag = mg.Graph(mg.last(h.next)).unroll(x=[1.0, 2.0, 3.0])
    assert [node.name for node in dag.nodes].count("doubled") == 1
    assert all(dag["multiply_1", t].operands[0] is dag["doubled"] for t in range(3))
    assert sum(node.operands[:1] == (W,) for node in dag.nodes if node.operands and node.operands[0] is W) == 1


def test_delay_edges_run_from_next_to_the_state_one_timestep_later():
    net = rnn()
    dag = net.unroll(x=sequence(4))
    assert dag["h", 0].operands[0] is net["h"].initial
    for t in range(1, 4):
        assert dag["h", t].operands[0] is dag["tanh_1", t - 1]


def test_unrolled_graph_has_no_cycle_and_operands_first():
    dag = rnn().unroll(x=sequence(4))
    position = {node: i for i, node in enumerate(dag.nodes)}
    assert len(position) == len(dag.nodes)
    assert all(position[operand] < position[node] for node in dag.nodes for operand in node.operands)
    assert mg.Graph(dag["loss"]).cycles == []


def test_nodes_are_all_copies_and_all_shared_nodes():
    dag = rnn().unroll(x=sequence(4))
    assert set(dag.nodes) == {node for copies in dag.copies.values() for node in copies} | set(dag.static.values())


def test_rolled_graph_is_left_as_it_was():
    net = rnn()
    before = [(node, node.value, node.operands, node.name, node.grad) for node in net]
    net.unroll(x=sequence(3)).backward()
    for node, value, operands, name, grad in before:
        assert node.value is value
        assert len(node.operands) == len(operands)
        assert all(one is other for one, other in zip(node.operands, operands, strict=True))
        assert node.name == name
        assert node.grad is grad or not node.operands  # parameters and the initial value receive theirs
    assert net["W"].grad is not None


def test_first_timestep_on_the_example_is_the_recorded_run():
    net = rnn()
    dag = net.unroll(steps=1)
    for node in net.varying:
        np.testing.assert_array_equal(dag[node, 0].value, node.value)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_values_are_those_of_a_plain_loop(steps):
    net, xs = rnn(), sequence(steps)
    hs = rnn_values(net, xs)
    dag = net.unroll(x=xs)
    np.testing.assert_allclose(dag.values("tanh_1"), hs, rtol=1e-13)
    np.testing.assert_allclose(dag.values("h"), np.concatenate([np.zeros((1, 2, 4)), hs[:-1]]), rtol=1e-13)
    np.testing.assert_allclose(dag["loss"].value, np.mean(np.sum(hs * hs, axis=(1, 2))), rtol=1e-13)


def test_every_varying_node_is_reached_even_if_only_a_state_reads_it():
    x, past = mg.input(0.0, name="x"), mg.state(-1.0, name="past")
    past.next = (10 * x).named("ten")
    dag = mg.Graph(past).unroll(x=[1.0, 2.0, 3.0])
    assert dag.values("past").tolist() == [-1, 10, 20]
    assert {dag["ten", t] for t in range(3)} < set(dag.nodes)


# --- reading it -------------------------------------------------------------------------------------


def test_any_node_at_any_timestep_counted_from_either_end():
    dag = mg.Graph(accumulator()).unroll(x=[1.0, 2.0, 3.0, 4.0])
    assert [dag["total", t].value for t in range(4)] == [0, 1, 3, 6]
    assert dag["total", -1] is dag["total", 3]
    assert dag["total", -4] is dag["total", 0]
    assert dag["x", np.int64(2)].value == 3
    assert dag[dag.graph["total"], 2] is dag["total", 2]


@pytest.mark.parametrize("t", [4, -5, 100, 1.0, "2", None, slice(0, 2)])
def test_timestep_that_does_not_exist_is_refused_with_the_range(t):
    dag = mg.Graph(accumulator()).unroll(x=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(TimestepError, match=r"unrolled for 0 to 3"):
        dag["total", t]
    with pytest.raises(IndexError):
        dag["total", t]


def test_varying_node_without_a_timestep_says_how_to_ask():
    dag = mg.Graph(accumulator()).unroll(x=[1.0, 2.0])
    with pytest.raises(
        TimestepError, match=r"'total' has one value per timestep: dag\['total', t\] with t from 0 to 1"
    ):
        dag["total"]


def test_static_node_is_read_without_or_with_a_timestep():
    net = rnn()
    dag = net.unroll(x=sequence(3))
    assert dag["U"] is dag["U", 1] is net["U"]
    assert dag["loss"] is dag.output is dag["loss", 2]


def test_timestep_that_does_not_exist_is_refused_for_static_nodes_too():
    dag = rnn().unroll(x=sequence(3))
    with pytest.raises(TimestepError):
        dag["U", 3]


def test_unknown_node_suggests_the_nearest():
    dag = rnn().unroll(x=sequence(2))
    with pytest.raises(UnknownNameError, match="Did you mean 'tanh_1'"):
        dag["tanh", 0]
    with pytest.raises(UnknownNameError, match="no node 'lss'"):
        dag["lss"]


def test_membership_of_a_name_is_answered():
    dag = rnn().unroll(x=sequence(2))
    assert "h" in dag
    assert "q" not in dag


def test_values_and_grads_stack_over_time():
    dag = mg.Graph(mg.time_sum(accumulator() * 2)).unroll(x=[1.0, 2.0, 3.0])
    dag.backward()
    assert dag.values("total").tolist() == [0, 1, 3]
    assert dag.grads("x").tolist() == [6, 4, 2]
    assert dag.grads("total").tolist() == [6, 4, 2]


def test_grads_are_zero_where_none_arrived():
    x = mg.input(np.zeros(2), name="x")
    dag = mg.Graph(mg.first(mg.sum(x))).unroll(x=np.ones((3, 2)))
    dag.backward()
    assert dag.grads("x").tolist() == [[1, 1], [0, 0], [0, 0]]


def test_state_is_the_value_after_the_last_timestep():
    net, xs = rnn(), sequence(4)
    state = net.unroll(x=xs).state
    assert list(state) == ["h"]
    np.testing.assert_allclose(state["h"], rnn_values(net, xs)[-1], rtol=1e-13)


def test_repr_counts_steps_and_nodes():
    net = rnn()
    dag = net.unroll(x=sequence(3))
    assert repr(dag).startswith(f"Unrolled(3 steps × {len(net.varying)} nodes + {len(net) - len(net.varying)} shared")


# --- sequences --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        list,
        tuple,
        lambda xs: [x.tolist() for x in xs],
        lambda xs: mg.tensor(xs),
        lambda xs: list(mg.tensor(xs)),
    ],
    ids=["array", "list of arrays", "tuple", "nested lists", "Tensor", "list of Tensors"],
)
def test_sequence_forms_give_the_same_values(form):
    net, xs = rnn(), sequence(3)
    dag = net.unroll(x=form(xs))
    assert dag.steps == 3
    np.testing.assert_allclose(dag.values("x"), xs)
    np.testing.assert_allclose(dag.values("tanh_1"), rnn_values(net, xs), rtol=1e-13)


@pytest.mark.parametrize(
    "form",
    [np.array, list, tuple, lambda xs: range(1, 5), mg.tensor],
    ids=["array", "list", "tuple", "range", "Tensor"],
)
def test_scalar_sequence_forms_give_the_same_values(form):
    dag = mg.Graph(accumulator()).unroll(x=form([1.0, 2.0, 3.0, 4.0]))
    assert dag.values("add_1").tolist() == [1, 3, 6, 10]


def test_gradient_flows_into_a_tensor_sequence_and_beyond():
    net, xs = rnn(), sequence(4)
    leaf = mg.tensor(xs / 2)
    net.unroll(x=leaf * 2).backward()
    by_array = net.unroll(x=xs)
    by_array.backward()
    np.testing.assert_allclose(leaf.grad, 2 * by_array.grads("x"), rtol=1e-12)
    assert np.abs(leaf.grad).min() > 0


def test_gradient_flows_into_a_list_of_tensors():
    leaves = [mg.tensor(value) for value in (1.0, 2.0, 3.0)]
    mg.Graph(mg.time_sum(accumulator())).unroll(x=leaves).backward()
    assert [leaf.grad for leaf in leaves] == [3, 2, 1]


def test_sequences_by_mapping_serve_names_that_are_no_keywords():
    x, total = mg.input(0.0, name="steps"), mg.state(0.0, name="total")
    total.next = total + x
    net = mg.Graph(total.next)
    assert net.unroll({"steps": [1.0, 2.0]}).values("add_1").tolist() == [1, 3]
    assert net.unroll({"steps": [1.0, 2.0, 9.0]}, steps=2).values("add_1").tolist() == [1, 3]
    assert mg.unroll(net, {"steps": [5.0]}).values("add_1").tolist() == [5]


def test_unnamed_input_takes_its_sequence_by_its_made_up_name():
    x = mg.input(0.0)
    assert mg.Graph(mg.time_sum(x)).unroll(input_1=[1.0, 2.0]).output.value == 3


def test_steps_alone_repeats_the_example():
    x, total = mg.input(3.0, name="x"), mg.state(0.0, name="total")
    total.next = total + x
    dag = mg.Graph(total.next).unroll(steps=4)
    assert dag.values("add_1").tolist() == [3, 6, 9, 12]
    assert len({dag["x", t] for t in range(4)}) == 4


def test_steps_shorter_than_the_sequences_reads_their_start():
    assert mg.Graph(accumulator()).unroll(x=[1.0, 2.0, 50.0], steps=2).values("add_1").tolist() == [1, 3]


def test_network_without_inputs_unrolls_by_steps():
    h = mg.state(1.0, name="h")
    h.next = 2 * h
    assert mg.Graph(h.next).unroll(steps=5).values("h").tolist() == [1, 2, 4, 8, 16]


def test_sequences_of_different_length_are_refused_with_both_lengths():
    x, target = mg.input(0.0, name="x"), mg.input(0.0, name="target")
    net = mg.Graph(mg.time_sum(x - target))
    with pytest.raises(SequenceError, match="'x' has 3 timesteps, 'target' has 2 timesteps"):
        net.unroll(x=[1.0, 2.0, 3.0], target=[1.0, 2.0])


def test_sequence_shorter_than_steps_is_refused():
    with pytest.raises(SequenceError, match="'x' has 2 timesteps, fewer than steps=3"):
        mg.Graph(accumulator()).unroll(x=[1.0, 2.0], steps=3)


def test_missing_sequence_is_named():
    x, target = mg.input(0.0, name="x"), mg.input(0.0, name="target")
    with pytest.raises(SequenceError, match="no sequence was given for the input 'target' \\(given: x\\)"):
        mg.Graph(mg.time_sum(x - target)).unroll(x=[1.0])


def test_unknown_input_suggests_the_nearest():
    x, target = mg.input(0.0, name="x"), mg.input(0.0, name="target")
    net = mg.Graph(mg.time_sum(x - target))
    with pytest.raises(UnknownNameError, match=r"no input 'targets'\. Did you mean 'target'\?"):
        net.unroll(x=[1.0], targets=[1.0])


def test_parameter_and_state_are_no_inputs():
    net = rnn()
    for name in ("W", "h"):
        with pytest.raises(UnknownNameError, match=f"no input '{name}'"):
            net.unroll({"x": sequence(2), name: sequence(2)})


def test_sequence_may_be_keyed_by_the_input_itself_as_initial_values_by_the_state():
    x = mg.input(0.0, name="x")
    assert mg.Graph(mg.time_sum(x)).unroll({x: [1.0, 2.0]}).output.value == 3


@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 1, 2, 3)])
def test_sequence_of_another_rank_is_refused_with_both_shapes(shape):
    with pytest.raises(SequenceError, match=r"'x' has shape \(2, 3\) at each timestep") as caught:
        rnn().unroll(x=np.ones(shape))
    assert f"timestep 0 of its sequence has shape {shape[1:]}" in str(caught.value)


def test_tensor_sequence_of_another_rank_is_refused():
    with pytest.raises(SequenceError, match=r"'x' has shape \(2, 3\) at each timestep"):
        rnn().unroll(x=mg.tensor(np.ones((4, 3))))


def test_sequence_of_another_width_is_refused_with_both_shapes():
    with pytest.raises(SequenceError, match=r"'x' has shape \(2, 3\) at each timestep.*has shape \(2, 5\)"):
        rnn().unroll(x=np.ones((4, 2, 5)))


@pytest.mark.parametrize(
    "single", [3.0, np.float64(3.0), np.array(3.0), mg.tensor(3.0), None, iter([1.0])], ids=lambda v: type(v).__name__
)
def test_single_value_in_place_of_a_sequence_is_refused_by_name(single):
    with pytest.raises(SequenceError, match="'x'"):
        mg.Graph(accumulator()).unroll(x=single)


@pytest.mark.parametrize("item", [None, "one", 1j, object()])
def test_sequence_of_things_that_are_no_numbers_is_a_microgrid_error(item):
    with pytest.raises(mg.MicrogridError):
        mg.Graph(accumulator()).unroll(x=[1.0, item])


def test_sequence_of_strings_of_digits_is_not_taken_for_numbers():
    with pytest.raises(mg.MicrogridError):
        mg.Graph(accumulator()).unroll(x="123")


def test_timesteps_of_different_rank_are_refused_at_the_first_that_differs():
    with pytest.raises(SequenceError, match="timestep 1"):
        rnn().unroll(x=[np.ones((2, 3)), np.ones(3)])


def test_timesteps_of_different_batch_size_are_a_microgrid_error():
    with pytest.raises(mg.MicrogridError):
        rnn().unroll(x=[np.ones((2, 3)), np.ones((5, 3))])


@pytest.mark.parametrize(
    ("example", "values"),
    [
        (0, [0.5, 1.5]),
        (np.array(0), np.array([0.5, 1.5])),
        (np.array([0, 1]), np.array([[0.5, 1.0], [1.0, 1.0]])),
        (np.array([0, 1]), mg.tensor([[0.5, 1.0], [1.0, 1.0]])),
        (np.array([True]), np.array([[2], [0]])),
    ],
    ids=["Python int", "0-d", "array", "Tensor", "bool"],
)
def test_numbers_that_the_dtype_of_the_input_cannot_hold_are_refused(example, values):
    tokens = mg.input(example, name="tokens")
    net = mg.Graph(mg.time_stack(tokens * 1))
    with pytest.raises(SequenceError, match="'tokens' holds"):
        net.unroll(tokens=values)


@pytest.mark.parametrize("form", [np.asarray, list, mg.tensor], ids=["array", "list", "Tensor"])
def test_float64_sequence_for_a_float32_network_stays_in_float32_or_is_refused(form):
    net = rnn(dtype=np.float32)
    try:
        dag = net.unroll(x=form(sequence(3)))
    except SequenceError as error:
        assert "float32" in str(error)  # noqa: PT017
    else:
        assert {copy.dtype for copies in dag.copies.values() for copy in copies} == {np.dtype(np.float32)}


def test_integers_serve_a_float_input():
    x = mg.input(np.zeros(2), name="x")
    dag = mg.Graph(mg.time_sum(x)).unroll(x=np.array([[1, 2], [3, 4]]))
    assert dag.output.value.tolist() == [4, 6]
    assert dag["x", 0].dtype == np.float64


@pytest.mark.parametrize("steps", [0, -1])
def test_fewer_steps_than_one_are_refused(steps):
    with pytest.raises(SequenceError, match=f"at least 1, not {steps}"):
        mg.Graph(accumulator()).unroll(steps=steps)


def test_empty_sequence_is_refused():
    with pytest.raises(SequenceError):
        mg.Graph(accumulator()).unroll(x=[])


@pytest.mark.parametrize("steps", [2.0, "2", True, [2], np.float64(2)])
def test_steps_that_are_no_whole_number_are_refused(steps):
    with pytest.raises(SequenceError, match="whole number"):
        mg.Graph(accumulator()).unroll(steps=steps)


def test_neither_sequences_nor_steps_is_refused_with_what_to_write():
    with pytest.raises(SequenceError, match=r"unroll\(x=.*steps="):
        mg.Graph(accumulator()).unroll()


# --- where the states start -------------------------------------------------------------------------


def test_initial_array_sets_the_start_and_stops_the_gradient():
    net, xs, start = rnn(), sequence(3), np.full((2, 4), 0.3)
    dag = net.unroll(x=xs, initial={"h": start})
    np.testing.assert_allclose(dag.values("tanh_1"), rnn_values(net, xs, start), rtol=1e-13)
    dag.backward()
    assert net["h"].initial.grad is None
    assert start.tolist() == np.full((2, 4), 0.3).tolist()


def test_initial_tensor_sets_the_start_and_passes_the_gradient():
    net, xs = rnn(), sequence(3)
    half = mg.tensor(np.full((2, 4), 0.15))
    dag = net.unroll(x=xs, initial={"h": 2 * half})
    dag.backward()
    np.testing.assert_allclose(dag.values("tanh_1"), rnn_values(net, xs, 2 * half.value), rtol=1e-13)
    np.testing.assert_allclose(half.grad, 2 * dag["h", 0].grad, rtol=1e-13)
    assert np.abs(half.grad).max() > 1e-3


def test_initial_is_found_by_name_or_by_the_state_itself():
    h = mg.state(1.0)
    h.next = 2 * h
    net = mg.Graph(h.next)
    assert net.unroll(steps=2, initial={"state_1": 5.0}).values(h).tolist() == [5, 10]
    assert net.unroll(steps=2, initial={h: 7.0}).values(h).tolist() == [7, 14]


def test_initial_for_one_of_two_states_leaves_the_other():
    a, b = mg.state(1.0, name="a"), mg.state(10.0, name="b")
    a.next, b.next = a + b, 2 * b
    dag = mg.Graph(a.next, b.next).unroll(steps=2, initial={"b": 0.5})
    assert dag.values("a").tolist() == [1, 1.5]
    assert dag.values("b").tolist() == [0.5, 1]


def test_unknown_state_in_initial_suggests_the_nearest():
    h = mg.state(1.0, name="hidden")
    h.next = 2 * h
    net = mg.Graph(h.next)
    with pytest.raises(UnknownNameError, match=r"no state 'hiden'\. Did you mean 'hidden'\?"):
        net.unroll(steps=2, initial={"hiden": 0.0})
    with pytest.raises(UnknownNameError, match="no state 'multiply_1'"):
        net.unroll(steps=2, initial={"multiply_1": 0.0})
    with pytest.raises(UnknownNameError, match="no state"):
        net.unroll(steps=2, initial={mg.tensor(1.0): 0.0})


def test_initial_of_another_rank_is_refused_with_both_shapes():
    with pytest.raises(SequenceError, match=r"initial\['h'\] has shape \(4,\), but the state has shape \(2, 4\)"):
        rnn().unroll(x=sequence(2), initial={"h": np.zeros(4)})


@pytest.mark.parametrize(
    ("start", "given"),
    [(0, 0.5), (np.zeros(2, int), np.array([0.5, 1.0])), (np.zeros(2, int), mg.tensor([0.5, 1.0]))],
    ids=["Python int", "array", "Tensor"],
)
def test_initial_that_the_dtype_of_the_state_cannot_hold_is_refused_as_an_initial_value(start, given):
    count = mg.state(start, name="count")
    count.next = count + 1
    with pytest.raises(SequenceError, match="count") as caught:
        mg.Graph(count.next).unroll(steps=2, initial={"count": given})
    assert "sequence holds" not in str(caught.value)  # the user gave no sequence


def test_other_batch_size_needs_only_initial_values_of_that_batch():
    net, xs = rnn(batch=2), sequence(3, batch=7)
    dag = net.unroll(x=xs, initial={"h": np.zeros((7, 4))})
    np.testing.assert_allclose(dag.values("tanh_1"), rnn_values(net, xs), rtol=1e-13)
    dag.backward()
    assert net["W"].grad.shape == (3, 4)


def test_other_batch_size_without_initial_values_says_that_the_state_is_the_cause():
    with pytest.raises(mg.MicrogridError, match="initial"):
        rnn(batch=2).unroll(x=sequence(3, batch=7))


def test_start_of_batch_one_broadcasts_over_the_batch():
    net, xs = rnn(batch=1), sequence(3, batch=7)
    dag = net.unroll(x=xs)
    hs = rnn_values(net, xs)
    np.testing.assert_allclose(dag.values("tanh_1"), hs, rtol=1e-13)
    dag.backward()
    assert net["h"].initial.grad.shape == (1, 4)


def test_values_of_a_state_that_started_with_batch_one_are_given_or_refused_in_words():
    dag = rnn(batch=1).unroll(x=sequence(3, batch=7))
    try:
        values = dag.values("h")
    except mg.MicrogridError as error:
        assert "'h'" in str(error)  # noqa: PT017
    else:
        assert values.shape == (3, 7, 4)


def test_learnable_initial_value_receives_its_gradient():
    h0, x = mg.parameter(0.3, name="h0"), mg.input(0.0, name="x")
    h = mg.state(h0, name="h")
    h.next = 2 * h + x
    net = mg.Graph(mg.last(h.next))
    dag = net.unroll(x=[1.0, 1.0, 1.0])
    dag.backward()
    assert dag.output.value == pytest.approx(8 * 0.3 + 4 + 2 + 1)
    assert h0.grad == 8
    assert h0 in dag.parameters
    assert dag["h", 0].operands[0] is h0


def test_initial_value_computed_from_a_parameter_is_computed_anew():
    p = mg.parameter(1.0, name="p")
    h = mg.state(3 * p, name="h")
    h.next = 2 * h
    net = mg.Graph(mg.last(h.next))
    p.value = 5.0
    dag = net.unroll(steps=2)
    dag.backward()
    assert dag.output.value == 60
    assert p.grad == 12


# --- reductions over time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        (mg.time_sum, lambda xs: np.sum(xs, axis=0)),
        (mg.time_mean, lambda xs: np.mean(xs, axis=0)),
        (mg.first, lambda xs: xs[0]),
        (mg.last, lambda xs: xs[-1]),
        (mg.time_stack, lambda xs: xs),
    ],
    ids=["time_sum", "time_mean", "first", "last", "time_stack"],
)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_reduction_over_time_has_the_value_and_gradient_of_numpy(reduce, expected, steps, shape):
    rng = np.random.default_rng(3)
    xs = rng.normal(size=(steps, *shape))
    x = mg.input(np.zeros(shape), name="x")
    net = mg.Graph(reduce(x))
    dag = net.unroll(x=xs)
    np.testing.assert_allclose(dag.output.value, expected(xs), rtol=1e-13)
    seed = rng.normal(size=dag.output.shape)
    dag.backward(seed)
    for _ in range(3):  # all are linear: the gradient contracts with any direction to the change
        direction = rng.normal(size=xs.shape)
        change = np.sum(seed * expected(direction))
        np.testing.assert_allclose(np.sum(dag.grads("x") * direction), change, rtol=1e-12)
    assert net.cycles == []
    assert net.output not in net.varying


@pytest.mark.parametrize(("reduce", "expected"), [(mg.time_sum, 3), (mg.time_mean, 0.75)])
@pytest.mark.parametrize("example", [0.0, np.zeros(2)], ids=["number", "array"])
def test_reduction_of_booleans_counts_them(reduce, expected, example):
    x = mg.input(example, name="x")
    dag = mg.Graph(reduce(x > 0)).unroll(x=np.stack([np.full(np.shape(example), v) for v in (1.0, 1.0, -1.0, 1.0)]))
    np.testing.assert_allclose(dag.output.value, np.full(np.shape(example), expected))


def test_reduction_of_a_static_node_counts_the_timesteps():
    W, x = mg.parameter(3.0, name="W"), mg.input(0.0, name="x")
    net = mg.Graph(mg.time_sum(W) + mg.time_mean(W) + mg.last(x))
    dag = net.unroll(x=[0.0, 0.0, 0.0, 10.0])
    dag.backward()
    assert dag.output.value == 12 + 3 + 10
    assert W.grad == 4 + 1


def test_reduction_of_a_state_starts_with_its_initial_value():
    h = mg.state(1.0, name="h")
    h.next = 2 * h
    dag = mg.Graph(mg.time_sum(h), mg.first(h), mg.last(h)).unroll(steps=3)
    assert [dag[output].value for output in dag.graph.outputs] == [7, 1, 4]


def test_reduction_read_again_at_every_timestep():
    xs = np.random.default_rng(0).normal(size=(5, 2))
    x = mg.input(np.zeros(2), name="x")
    centred = x - mg.time_mean(x)
    dag = mg.Graph(mg.time_mean(mg.sum(centred**2))).unroll(x=xs)
    dag.backward()
    np.testing.assert_allclose(dag.output.value, np.sum(np.var(xs, axis=0)), rtol=1e-13)
    np.testing.assert_allclose(dag.grads("x"), 2 * (xs - xs.mean(axis=0)) / 5, rtol=1e-12)


def test_second_recurrence_may_read_and_start_from_a_reduction_of_the_first():
    x, a, total = mg.input(0.0, name="x"), mg.state(0.0, name="a"), None
    a.next = a + x
    total = mg.last(a.next)
    b = mg.state(total, name="b")
    b.next = 0.5 * b + total
    dag = mg.Graph(mg.last(b.next)).unroll(x=[1.0, 2.0, 3.0])
    dag.backward()
    assert dag.values("b").tolist() == [6, 9, 10.5]
    assert dag.output.value == 11.25
    assert dag.grads("x").tolist() == [11.25 / 6] * 3


def test_reduction_inside_a_cycle_is_refused_with_the_cycle():
    x, h = mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x - mg.time_mean(h))
    net = mg.Graph(mg.last(h.next))
    with pytest.raises(CausalityError, match="the result of time_mean stands inside the cycle h → ") as caught:
        net.unroll(x=[1.0, 2.0])
    assert "subtract → tanh → h" in str(caught.value)


def test_reduction_that_closes_a_cycle_through_an_initial_value_is_refused():
    h = mg.state(0.0, name="h")
    total = mg.time_sum(h).named("total")
    g = mg.state(total, name="g")
    g.next = 0.5 * g
    h.next = mg.tanh(h + g)
    with pytest.raises(CausalityError, match="'total'"):
        mg.Graph(mg.last(h.next)).unroll(steps=2)


def test_dag_backward_from_an_output_per_timestep_says_what_to_do():
    dag = mg.Graph(accumulator()).unroll(x=[1.0, 2.0])
    with pytest.raises(GradientError, match=r"'add_1' has one value per timestep.*mg\.time_mean.*dag\['add_1', t\]"):
        dag.backward()
    dag["add_1", 1].backward()
    assert [dag["x", t].grad for t in range(2)] == [1, 1]


# --- backwards in time ------------------------------------------------------------------------------


def complex_step(f, arrays):
    """The gradient of f(*arrays) by complex-step differentiation, which does not round: one array per argument."""
    gradients = []
    for number, array in enumerate(arrays):
        gradient = np.zeros(np.shape(array))
        for index in np.ndindex(gradient.shape):
            moved = [np.array(other, dtype=complex) for other in arrays]
            moved[number][index] += 1e-30j
            gradient[index] = np.imag(f(*moved)) / 1e-30
        gradients.append(gradient)
    return gradients


def run_forwards(xs, W, U, start):
    """The values of tanh(x W + h U) from the first timestep to the last."""
    values = []
    for x in xs:
        start = np.tanh(x @ W + start @ U)
        values.append(start)
    return np.stack(values)


def run_backwards(xs, W, U, start):
    """The same from the last timestep to the first, in the order of the timesteps."""
    return run_forwards(xs[::-1], W, U, start)[::-1]


BIDIRECTIONAL = {"W": (3, 4), "U": (4, 4), "h0": (2, 4), "A": (3, 4), "B": (4, 4), "k0": (2, 4), "V": (4, 1)}


def bidirectional(values):
    """A forward and a reverse RNN over one input, the loss of both; `values` by the names of BIDIRECTIONAL."""
    p = {name: mg.parameter(value, name=name) for name, value in values.items()}
    x = mg.input(np.zeros((2, 3)), name="x")
    h, k = mg.state(p["h0"], name="h"), mg.state(p["k0"], name="k", reverse=True)
    h.next = mg.tanh(x @ p["W"] + h @ p["U"])
    k.next = mg.tanh(x @ p["A"] + k @ p["B"])
    return mg.Graph(loss=mg.time_mean(mg.sum(((h.next * k + h * k.next) @ p["V"]) ** 2)))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_bidirectional_rnn_equals_numpy_in_values_and_gradients(steps):
    rng = np.random.default_rng(4)
    values = {name: 0.7 * rng.normal(size=shape) for name, shape in BIDIRECTIONAL.items()}
    xs = rng.normal(size=(steps, 2, 3))

    def loss(xs, W, U, h0, A, B, k0, V):
        h_next, k_next = run_forwards(xs, W, U, h0), run_backwards(xs, A, B, k0)
        h, k = np.concatenate([h0[None], h_next[:-1]]), np.concatenate([k_next[1:], k0[None]])
        return np.sum(((h_next * k + h * k_next) @ V) ** 2) / len(xs)

    net = bidirectional(values)
    dag = net.unroll(x=xs)
    dag.backward()
    k_next = run_backwards(xs, values["A"], values["B"], values["k0"])
    np.testing.assert_allclose(dag.values("k.next"), k_next, rtol=1e-13)
    np.testing.assert_allclose(dag.values("k"), np.concatenate([k_next[1:], values["k0"][None]]), rtol=1e-13)
    np.testing.assert_allclose(dag.output.value, loss(xs, *values.values()), rtol=1e-13)
    by_x, *by_parameter = complex_step(loss, [xs, *values.values()])
    np.testing.assert_allclose(dag.grads("x"), by_x, rtol=1e-10, atol=1e-13)
    for name, expected in zip(values, by_parameter, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(net[name].grad, expected, rtol=1e-10, atol=1e-13, err_msg=name)


def test_cycles_of_both_directions_may_read_one_another_in_turn():
    """Forwards, backwards over that, forwards over both, and a reduction of the second in the third."""
    xs, parameters = np.random.default_rng(5).normal(size=6), [0.7, -0.4, 0.9, 0.2, -0.3]

    def loss(xs, a, b, c, start, end):
        h, hs = 0.0, []
        for x in xs:
            h = np.tanh(a * h + x)
            hs.append(h)
        g, gs = end, []
        for h in hs[::-1]:
            g = np.sin(b * g + h)
            gs.insert(0, g)
        p, total = start, 0.0
        for h, g, later in zip(hs, gs, [*gs[1:], end], strict=True):
            p = np.tanh(c * p * g + sum(gs) * h + later)
            total = total + p * p
        return total

    a, b, c, start, end = (mg.parameter(v, name=n) for v, n in zip(parameters, "abcse", strict=True))
    x, h, p = mg.input(0.0, name="x"), mg.state(0.0, name="h"), mg.state(start, name="p")
    g = mg.state(end, name="g", reverse=True)
    h.next = mg.tanh(a * h + x)
    g.next = mg.sin(b * g + h.next)
    p.next = mg.tanh(c * p * g.next + mg.time_sum(g.next) * h.next + g)
    dag = mg.Graph(loss=mg.time_sum(p.next * p.next)).unroll(x=xs)
    dag.backward()
    np.testing.assert_allclose(dag.output.value, loss(xs, *parameters), rtol=1e-13)
    by_x, *by_parameter = complex_step(loss, [xs, *parameters])
    np.testing.assert_allclose(dag.grads("x"), by_x, rtol=1e-10)
    np.testing.assert_allclose([node.grad for node in (a, b, c, start, end)], by_parameter, rtol=1e-10)


def test_adjoint_written_as_a_reverse_state_is_what_backpropagation_finds():
    u, x = mg.parameter(0.6, name="u"), mg.input(0.0, name="x")
    h, g = mg.state(0.1, name="h"), mg.state(0.0, name="g", reverse=True)
    h.next = mg.tanh(u * h + x)
    g.next = (2 * h.next + u * g) * (1 - h.next**2)
    net = mg.Graph(loss=mg.time_sum(h.next**2), du=mg.time_sum(h * g.next))
    dag = net.unroll(x=[1.0, -0.5, 0.3, 0.8])
    dag["loss"].backward()
    np.testing.assert_allclose(dag["du"].value, u.grad, rtol=1e-13)
    np.testing.assert_allclose(dag.values(g.next), dag.grads("x"), rtol=1e-13)


def test_delay_edges_of_a_reverse_state_run_from_next_to_the_state_one_timestep_earlier():
    r = mg.state(0.5, name="r", reverse=True)
    r.next = mg.tanh(r).named("after")
    net = mg.Graph(r.next)
    dag = net.unroll(steps=4)
    assert dag["r", 3].operands[0] is r.initial
    for t in range(3):
        assert dag["r", t].operands[0] is dag["after", t + 1]
    for copies in dag.copies.values():
        assert len({id(copy) for copy in copies} | {id(node) for node in net}) == 4 + len(net)
    position = {node: i for i, node in enumerate(dag.nodes)}
    assert all(position[operand] < position[node] for node in dag.nodes for operand in node.operands)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chain_of_k_reverse_delays_shifts_by_k_timesteps_the_other_way(k):
    node = x = mg.input(0.0, name="x")
    for i in range(k):
        coming = mg.state(-float(i), name=f"coming{i}", reverse=True)
        coming.next = node
        node = coming
    xs = [1.0, 2.0, 3.0, 4.0]
    net = mg.Graph(mg.time_stack(node))
    dag = net.unroll(x=xs)
    assert net.cycles == []
    assert dag.output.value.tolist() == [*xs, *(-float(i) for i in range(k))][k : k + 4]
    dag.backward(np.array([1.0, 10.0, 100.0, 1000.0]))
    assert dag.grads(x).tolist() == [*[0.0] * k, *(10.0**t for t in range(4 - k))][:4]


def test_forward_and_reverse_delay_of_one_node_are_its_neighbours():
    x, past = mg.input(0.0, name="x"), mg.state(mg.parameter(-1.0, name="before"), name="past")
    coming = mg.state(mg.parameter(-2.0, name="after"), name="coming", reverse=True)
    past.next = coming.next = x
    net = mg.Graph(mg.time_sum((past + 10 * coming) * x))
    dag = net.unroll(x=[1.0, 2.0, 3.0])
    dag.backward()
    assert dag.values("past").tolist() == [-1, 1, 2]
    assert dag.values("coming").tolist() == [2, 3, -2]
    assert (net["before"].grad, net["after"].grad) == (1, 30)
    assert dag.grads("x").tolist() == [-1 + 20 + 2, 1 + 30 + 3 + 10, 2 - 20 + 20]


def test_reverse_delay_of_a_static_node_ends_with_its_initial_value():
    W, start = mg.parameter(3.0, name="W"), mg.parameter(-1.0, name="start")
    seen = mg.state(start, name="seen", reverse=True)
    seen.next = W * 2
    dag = mg.Graph(mg.time_sum(seen)).unroll(steps=4)
    dag.backward()
    assert dag.values("seen").tolist() == [6, 6, 6, -1]
    assert (W.grad, start.grad) == (6, 1)
    assert dag.state == {"seen": 6}


def test_reverse_state_that_keeps_its_value():
    x, start = mg.input(0.0, name="x"), mg.parameter(3.0, name="start")
    h = mg.state(start, name="h", reverse=True)
    h.next = h
    dag = mg.Graph(mg.time_sum(h * x)).unroll(x=[1.0, 2.0, 4.0])
    dag.backward()
    assert dag.values("h").tolist() == [3, 3, 3]
    assert dag.output.value == 21
    assert start.grad == 7
    assert dag["h", 2].operands[0] is start
    assert dag["h", 0].operands[0] is dag["h", 1]
    assert dag.state == {"h": 3}


def discounted():
    """r(t) = x(t) + 0.5 r(t+1), the discounted sum of what is to come."""
    x, r = mg.input(0.0, name="x"), mg.state(0.0, name="r", reverse=True)
    r.next = x + 0.5 * r
    return mg.Graph(first=mg.first(r.next), last=mg.last(r.next))


def test_state_of_a_reverse_state_is_the_value_of_next_at_the_first_timestep():
    dag = discounted().unroll(x=[1.0, 2.0, 4.0])
    assert dag.values("r.next").tolist() == [3, 4, 4]
    assert dag.state == {"r": 3}
    assert (dag["first"].value, dag["last"].value) == (3, 4)


def test_initial_of_a_reverse_state_is_its_value_at_the_last_timestep():
    half, net = mg.tensor(4.0), discounted()
    dag = net.unroll(x=[1.0, 2.0, 4.0], initial={"r": 2 * half})
    dag["first"].backward()
    assert dag.values("r").tolist() == [6, 8, 8]
    assert half.grad == 2 * 0.5**3
    assert net.unroll(x=[1.0, 2.0, 4.0], initial={"r": 8.0}).state == {"r": 4}


@pytest.mark.parametrize("border", [1, 3, 4])
def test_windows_of_a_reverse_state_from_the_last_to_the_first_are_the_whole(border):
    xs, net = np.random.default_rng(6).normal(size=5), discounted()
    whole = net.unroll(x=xs)
    later = net.unroll(x=xs[border:])
    earlier = net.unroll(x=xs[:border], initial=later.state)
    np.testing.assert_allclose([*earlier.values("r"), *later.values("r")], whole.values("r"), rtol=1e-15)


def test_states_of_both_directions_that_need_each_other_are_refused_with_the_path():
    h, k = mg.state(0.0, name="h"), mg.state(0.0, name="k", reverse=True)
    h.next = mg.tanh(h + k)
    k.next = (0.5 * h.next).named("half")
    with pytest.raises(CausalityError) as caught:
        mg.Graph(mg.time_sum(k.next)).unroll(steps=3)
    assert "'h' runs forwards in time and 'k' backwards" in str(caught.value)
    assert "each needs the other: h → add → tanh → half → k → add → tanh → h." in str(caught.value)


def test_states_of_both_directions_that_only_swap_are_refused():
    a, b = mg.state(1.0, name="a", reverse=True), mg.state(0.0, name="b")
    a.next, b.next = b, a
    with pytest.raises(CausalityError, match=r"'b' runs forwards in time and 'a' backwards, .*: b → a → b\."):
        mg.Graph(a).unroll(steps=2)


def test_reduction_inside_a_reverse_cycle_is_refused_with_the_cycle():
    r = mg.state(0.0, name="r", reverse=True)
    r.next = mg.tanh(r - mg.time_mean(r))
    with pytest.raises(CausalityError, match="time_mean stands inside the cycle r → subtract → tanh → r"):
        mg.Graph(mg.first(r.next)).unroll(steps=2)


def test_error_in_a_reverse_cycle_names_the_timestep_at_which_it_arises():
    x, r = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 3)), name="r", reverse=True)
    r.next = mg.tanh(x + r)
    with pytest.raises(mg.MicrogridError, match=r"at timestep 1: add.*shape"):
        mg.Graph(r.next).unroll(x=[np.ones((5, 3)), np.ones((4, 3)), np.ones((2, 3))])


@st.composite
def states_of_both_directions(draw):
    """Scalars: states of either direction, then tanh, mean and scaled difference of earlier nodes, then nexts.

    As data, by number: ("x",), ("state", initial, reverse, number of the next), ("tanh", a), ("mean", a, b).
    """
    count, operations = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    total = 1 + count + operations
    nodes = [("x",)]
    for i in range(count):
        nodes.append(("state", 0.3 * i - 0.4, draw(st.booleans()), draw(st.integers(0, total - 1))))
    for i in range(1 + count, total):
        a, b = draw(st.integers(0, i - 1)), draw(st.integers(0, i - 1))
        nodes.append(("tanh", a) if draw(st.booleans()) else ("mean", a, b))
    return nodes


def recorded(nodes):
    made, x = [], mg.input(0.0, name="x")
    for i, (kind, *details) in enumerate(nodes):
        if kind == "state":
            made.append(mg.state(mg.parameter(details[0], name=f"start{i}"), name=f"n{i}", reverse=details[1]))
        elif kind == "x":
            made.append(x)
        else:
            a, b = made[details[0]], made[details[-1]]
            made.append((mg.tanh(a) if kind == "tanh" else 0.5 * (a - 0.9 * b)).named(f"n{i}"))
    for node, (kind, *details) in zip(made, nodes, strict=True):
        if kind == "state":
            node.next = made[details[2]]
    return mg.Graph(loss=mg.time_sum(made[-1] * (1 + made[-1])))


def needs(nodes):
    """Number → the numbers it needs, directly or through others, at any timestep."""
    direct = {
        i: {details[2]} if kind == "state" else set(details) if kind != "x" else set()
        for i, (kind, *details) in enumerate(nodes)
    }
    found = {i: set(near) for i, near in direct.items()}
    for _ in nodes:
        found = {i: near.union(*(found[j] for j in near)) for i, near in found.items()}
    return found


def meaning(nodes, xs, starts):
    """The loss by the definition of each word, every value asked for on demand."""
    memo = {}

    def value(i, t):
        if (i, t) not in memo:
            kind, *details = nodes[i]
            if kind == "x":
                memo[i, t] = xs[t]
            elif kind == "state":
                source = t + 1 if details[1] else t - 1
                memo[i, t] = value(details[2], source) if 0 <= source < len(xs) else starts[i]
            elif kind == "tanh":
                memo[i, t] = np.tanh(value(details[0], t))
            else:
                memo[i, t] = 0.5 * (value(details[0], t) - 0.9 * value(details[1], t))
        return memo[i, t]

    ends = [value(len(nodes) - 1, t) for t in range(len(xs))]
    return sum(end * (1 + end) for end in ends)


@settings(deadline=None, max_examples=150)
@given(nodes=states_of_both_directions(), steps=st.integers(1, 4))
def test_random_networks_of_both_directions_are_refused_or_equal_their_meaning_and_its_gradients(nodes, steps):
    net, needed = recorded(nodes), needs(nodes)
    states = {i: details for i, (kind, *details) in enumerate(nodes) if kind == "state"}
    reached = needed[len(nodes) - 1] | {len(nodes) - 1}
    opposed = [
        (i, j) for i in states for j in states if states[i][1] != states[j][1] and j in needed[i] and i in needed[j]
    ]
    xs = np.linspace(-0.8, 1.1, steps)
    if any(i in reached for i, _ in opposed):
        with pytest.raises(CausalityError, match="runs forwards in time"):
            net.unroll(steps=steps)
        return
    dag = net.unroll({"x": xs} if "x" in net else {}, steps=steps)
    starts = {i: details[0] for i, details in states.items()}
    np.testing.assert_allclose(dag.output.value, meaning(nodes, xs, starts), rtol=1e-12, atol=1e-14)
    leaves = [i for i in states if f"start{i}" in net]
    if not leaves and "x" not in net:
        return
    dag.backward()
    by_x, *by_start = complex_step(
        lambda xs, *given: meaning(nodes, xs, {**starts, **dict(zip(leaves, given, strict=True))}),
        [xs, *(starts[i] for i in leaves)],
    )
    if "x" in net:
        np.testing.assert_allclose(dag.grads("x"), by_x, rtol=1e-10, atol=1e-13)
    for i, expected in zip(leaves, by_start, strict=True):
        grad = net[f"start{i}"].grad
        np.testing.assert_allclose(0.0 if grad is None else grad, expected, rtol=1e-10, atol=1e-13)


# --- values spread over the timesteps -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_time_unstack_has_a_row_per_timestep_and_its_gradient_is_the_rows(shape):
    rng = np.random.default_rng(7)
    rows, weights = rng.normal(size=(4, *shape)), rng.normal(size=(4, *shape))
    b, x = mg.parameter(rows, name="b"), mg.input(np.zeros(shape), name="x")
    spread = mg.time_unstack(b)
    net = mg.Graph(loss=mg.time_sum(mg.sum(spread * x)))
    dag = net.unroll(x=weights)
    dag.backward()
    assert spread in net.varying
    assert b not in net.varying
    assert spread.shape == shape
    np.testing.assert_array_equal(dag.values(spread), rows)
    np.testing.assert_allclose(dag.output.value, np.sum(rows * weights), rtol=1e-13)
    np.testing.assert_array_equal(b.grad, weights)
    np.testing.assert_array_equal(dag.grads(spread), weights)


def test_time_unstack_undoes_time_stack_and_its_gradients():
    x, xs = mg.input(np.zeros(2), name="x"), np.random.default_rng(8).normal(size=(3, 2))
    again = mg.time_unstack(mg.time_stack(x))
    dag = mg.Graph(loss=mg.time_sum(mg.sum(again**2))).unroll(x=xs)
    dag.backward()
    np.testing.assert_array_equal(dag.values(again), xs)
    np.testing.assert_allclose(dag.grads("x"), 2 * xs, rtol=1e-13)


def test_time_unstack_of_what_a_reduction_computes_reaches_every_timestep():
    """The softmax over time of an input, weighted by it again: attention over the timesteps."""
    x, xs = mg.input(0.0, name="x"), np.random.default_rng(9).normal(size=5)
    share = mg.time_unstack(mg.softmax(mg.time_stack(x)))
    dag = mg.Graph(loss=mg.time_sum(share * x)).unroll(x=xs)
    dag.backward()

    def pooled(xs):
        return np.sum(np.exp(xs) * xs) / np.sum(np.exp(xs))

    np.testing.assert_allclose(dag.output.value, pooled(xs), rtol=1e-13)
    np.testing.assert_allclose(dag.grads("x"), complex_step(pooled, [xs])[0], rtol=1e-10)


def test_time_unstack_sees_a_parameter_that_changed_after_recording():
    b = mg.parameter([1.0, 2.0], name="b")
    net = mg.Graph(mg.time_stack(mg.time_unstack(3 * b)))
    b.value = np.array([5.0, 7.0])
    assert net.unroll(steps=2).output.value.tolist() == [15, 21]


def test_cycles_of_either_direction_read_the_row_of_their_timestep():
    b = mg.parameter([1.0, 2.0, 4.0], name="b")
    h, r = mg.state(0.0, name="h"), mg.state(0.0, name="r", reverse=True)
    h.next, r.next = h + mg.time_unstack(b), r + mg.time_unstack(b)
    dag = mg.Graph(h.next, r.next).unroll(steps=3)
    assert dag.values(h.next).tolist() == [1, 3, 7]
    assert dag.values(r.next).tolist() == [7, 6, 4]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_time_unstack_of_another_number_of_rows_than_timesteps_is_refused_with_both(steps):
    b = mg.parameter(np.zeros((3, 2)), name="b")
    net = mg.Graph(mg.time_sum(mg.time_unstack(b).named("bias")))
    with pytest.raises(
        SequenceError, match=f"'bias' reads 'b', which has 3 timesteps, but the network runs for {steps}$"
    ):
        net.unroll(steps=steps)


# --- integers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [[2, 0, 2, 1], np.array([2, 0, 2, 1]), np.array([2, 0, 2, 1], np.int32)])
def test_integer_input_looks_up_an_embedding(tokens):
    E = mg.parameter(np.arange(6.0).reshape(3, 2), name="E")
    token, h = mg.input(0, name="token"), mg.state(np.zeros(2), name="h")
    h.next = 0.5 * h + E[token]
    dag = mg.Graph(mg.sum(mg.last(h.next))).unroll(token=tokens)
    dag.backward()
    expected = np.zeros(2)
    for token_value in tokens:
        expected = 0.5 * expected + E.value[token_value]
    assert dag.output.value == expected.sum()
    assert E.grad.tolist() == [[0.25] * 2, [1.0] * 2, [0.125 + 0.5] * 2]


def test_batch_of_integers_looks_up_an_embedding_and_repeats_add_up():
    E = mg.parameter(np.arange(6.0).reshape(3, 2), name="E")
    tokens = mg.input(np.array([0, 1, 2]), name="tokens")
    dag = mg.Graph(mg.time_sum(mg.sum(E[tokens]))).unroll(tokens=np.array([[1, 1, 1], [0, 2, 1]]))
    dag.backward()
    assert dag.output.value == 3 * 5 + 1 + 9 + 5
    assert E.grad.tolist() == [[1, 1], [4, 4], [1, 1]]


def test_integer_state_counts_timesteps():
    n, x = mg.state(0, name="n"), mg.input(1.0, name="x")
    n.next = n + 1
    dag = mg.Graph(mg.time_sum(x * n)).unroll(x=[1.0, 1.0, 1.0, 1.0])
    dag.backward()
    assert dag.values("n").tolist() == [0, 1, 2, 3]
    assert dag.grads("x").tolist() == [0, 1, 2, 3]
    assert dag.state == {"n": 4}


# --- after recording --------------------------------------------------------------------------------


def test_parameters_changed_after_recording_are_seen_by_the_next_unroll():
    net, xs = rnn(), sequence(3)
    old = net.unroll(x=xs)
    old_loss = old.output.value
    net["W"].value = net["W"].value * 0.5
    net["U"].value[:] = 0.1  # in place, as some optimisers do
    np.testing.assert_allclose(net.unroll(x=xs).values("tanh_1"), rnn_values(net, xs), rtol=1e-13)
    assert old.output.value == old_loss


def test_parameters_changed_after_recording_are_seen_through_static_operations():
    W, x, h = mg.parameter(1.0, name="W"), mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = (W * 2 + 1) * x + h
    net = mg.Graph(mg.last(h.next))
    assert net.unroll(x=[1.0, 1.0]).output.value == 6
    W.value = 10.0
    dag = net.unroll(x=[1.0, 1.0])
    assert dag.output.value == 42
    dag.backward()
    assert W.grad == 4


def test_no_grad_unroll_computes_the_values_and_keeps_no_history():
    net, xs = rnn(), sequence(4)
    with mg.no_grad():
        dag = net.unroll(x=xs)
    np.testing.assert_allclose(dag.values("tanh_1"), rnn_values(net, xs), rtol=1e-13)
    np.testing.assert_allclose(dag.state["h"], rnn_values(net, xs)[-1], rtol=1e-13)
    assert all(not copy.operands for node, copies in dag.copies.items() for copy in copies)
    with pytest.raises(GradientError):
        dag.backward()
    assert net["W"].grad is None


def test_nothing_needs_a_gradient_that_no_parameter_or_sequence_of_floats_reaches():
    n = mg.state(0, name="n")
    n.next = n + 1
    dag = mg.Graph(mg.last(n.next)).unroll(steps=3)
    with pytest.raises(GradientError, match="nothing that needs a gradient"):
        dag.backward()


# --- delays and long sequences ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chain_of_k_pure_delays_shifts_by_k_timesteps(k):
    x = mg.input(0.0, name="x")
    node = x
    for i in range(k):
        past = mg.state(-float(i), name=f"past{i}")
        past.next = node
        node = past
    xs = [1.0, 2.0, 3.0, 4.0]
    dag = mg.Graph(mg.time_stack(node)).unroll(x=xs)
    starts = [-float(i) for i in reversed(range(k))]
    assert dag.output.value.tolist() == [*starts, *xs][:4]
    dag.backward(np.array([1.0, 10.0, 100.0, 1000.0]))
    assert dag.grads("x").tolist() == [*[10.0**t for t in range(k, 4)], *[0.0] * k][:4]


def test_delay_of_a_static_node_starts_with_its_initial_value():
    W, seen = mg.parameter(3.0, name="W"), mg.state(-1.0, name="seen")
    seen.next = W * 2
    dag = mg.Graph(mg.time_sum(seen)).unroll(steps=4)
    dag.backward()
    assert dag.values("seen").tolist() == [-1, 6, 6, 6]
    assert W.grad == 6
    assert dag.state == {"seen": 6}


def test_states_that_swap_read_the_values_of_the_step_before():
    a, b = mg.state(1.0, name="a"), mg.state(2.0, name="b")
    a.next, b.next = b, a
    dag = mg.Graph(a, b).unroll(steps=4)
    assert dag.values("a").tolist() == [1, 2, 1, 2]
    assert dag.values("b").tolist() == [2, 1, 2, 1]


def test_fibonacci_by_two_states():
    a, b = mg.state(0, name="a"), mg.state(1, name="b")
    a.next, b.next = b, a + b
    assert mg.Graph(a).unroll(steps=10).values("a").tolist() == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_state_that_keeps_its_value():
    h, x = mg.state(3.0, name="h"), mg.input(0.0, name="x")
    h.next = h
    dag = mg.Graph(mg.time_sum(h * x)).unroll(x=[1.0, 2.0])
    assert dag.output.value == 9
    assert dag.state == {"h": 3}


def lstm(hidden):
    x = mg.input(np.zeros((1, hidden)), name="x")
    W = mg.parameter(np.full((hidden, 4 * hidden), 0.1), name="W")
    U = mg.parameter(np.full((hidden, 4 * hidden), 0.1), name="U")
    c, h = mg.state(np.zeros((1, hidden)), name="c"), mg.state(np.zeros((1, hidden)), name="h")
    i, f, o, g = mg.split(x @ W + h @ U, 4, axis=-1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    return mg.Graph(loss=mg.last(mg.sum(h.next)))


def test_10000_steps_of_an_lstm_unroll_into_a_linear_number_of_nodes():
    net = lstm(2)
    dag = net.unroll(steps=10_000)
    shared = len(net) - len(net.varying)
    assert len(dag.nodes) == 10_000 * len(net.varying) + shared
    assert np.isfinite(dag.output.value)
    assert dag["h", 9_999].name == "h[9999]"


def test_backward_through_6000_steps_needs_no_recursion():
    u, x, h = mg.parameter(1.0, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = u * h + x
    dag = mg.Graph(mg.last(h.next)).unroll(x=np.ones(6000))
    dag.backward()
    assert dag.output.value == 6000
    assert u.grad == 6000 * 5999 / 2  # Σ of h(t−1)
    assert dag["x", 0].grad == 1


def test_20000_steps_are_listed_and_freed_without_recursion():
    net = mg.Graph(accumulator())
    dag = net.unroll(steps=20_000)
    last = dag["add_1", -1]
    del dag
    assert len(mg.Graph(last)) == 3 * 20_000 + 1
    del last


# --- NaN and infinity ---------------------------------------------------------------------------------


def diverging():
    u, x, h = mg.parameter(1e200, name="u"), mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = (u * h).named("grown") + x
    return mg.Graph(loss=mg.last(h.next))


def test_first_value_that_is_not_finite_is_named_with_its_timestep():
    dag = diverging().unroll(x=[1.0] * 6)
    assert [math.isinf(value) for value in dag.values("grown")] == [False, False, True, True, True, True]
    with pytest.raises(mg.errors.NotFiniteError, match=r"the value of 'grown' is inf at timestep 2"):
        dag.check_finite()


def test_nan_in_an_input_is_named_as_such():
    x = np.ones((4, 2, 3))
    x[2, 1, 0] = np.nan
    with pytest.raises(mg.errors.NotFiniteError, match=r"the value of 'x' is nan at timestep 2"):
        rnn().unroll(x=x).check_finite()


def test_parameter_that_is_not_finite_is_named_without_a_timestep():
    net = rnn()
    net["W"].value[0, 0] = np.nan
    with pytest.raises(mg.errors.NotFiniteError, match=r"the value of 'W' is nan$"):
        net.unroll(x=sequence(2)).check_finite()


def test_gradient_that_is_not_finite_is_named_where_it_arises():
    x = mg.input(1.0, name="x")
    dag = mg.Graph(mg.time_sum(mg.sqrt(x).named("root"))).unroll(x=[4.0, 0.0, 1.0])
    dag.check_finite()
    with pytest.warns(RuntimeWarning, match="divide"):
        dag.backward()
    with pytest.raises(mg.errors.NotFiniteError, match=r"the gradient of 'x' is inf at timestep 1"):
        dag.check_finite()


def test_finite_networks_pass():
    dag = rnn().unroll(x=sequence(3))
    dag.backward()
    dag.check_finite()
