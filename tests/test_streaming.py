"""A network one timestep at a time, and the search for the first value that is not finite."""

import numpy as np
import pytest
from networks import NETWORKS, weight
from test_compiled import sequences_for

import microgrid as mg
from microgrid.errors import CausalityError, MicrogridError, NotFiniteError, SequenceError, UnknownNameError

pytestmark = pytest.mark.usefixtures("both_executors")

STEPS = 6
ONE_BY_ONE = ["scalar", "lstm", "stacked", "delay_line", "coupled", "fed_back", "odd_delays"]


def one_by_one(stream, sequences, steps=STEPS):
    """What the stream gives for each timestep, stacked."""
    found = [stream({name: sequence[t] for name, sequence in sequences.items()}) for t in range(steps)]
    if isinstance(found[0], dict):
        return {name: np.stack([each[name] for each in found]) for name in found[0]}
    return np.stack(found)


# --- stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_stream_gives_what_the_whole_run_gives(name):
    net = NETWORKS[name]()
    sequences = sequences_for(net, STEPS, np.random.default_rng(0))
    dag = net.unroll(sequences)
    stream = mg.compile(net, wrt=()).stream()
    np.testing.assert_allclose(one_by_one(stream, sequences), dag.values(net.output), rtol=1e-12, atol=1e-13)
    assert set(stream.state) == set(dag.state)
    for key, value in dag.state.items():
        np.testing.assert_allclose(stream.state[key], value, rtol=1e-12, atol=1e-13)


def test_stream_of_several_outputs_gives_each_by_its_name():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    U = weight("U", 4, 4)
    h.next = mg.tanh(x @ weight("W", 3, 4) + h @ U)
    net = mg.Graph(h=h.next, y=mg.sum(h.next, axis=1), before=h, fixed=mg.sum(U))
    xs = np.random.default_rng(0).normal(size=(STEPS, 2, 3))
    stream = mg.compile(net, wrt=()).stream()
    whole = mg.compile(net, wrt=())(x=xs)
    found = one_by_one(stream, {"x": xs})
    assert set(found) == {"h", "y", "before", "fixed"} or set(found) == set(whole.outputs)
    for name, value in whole.outputs.items():
        expected = np.broadcast_to(value, (STEPS, *np.shape(value))) if np.shape(value) == () else value
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def test_stream_of_a_network_that_was_compiled_with_gradients():
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.parameter(0.5, name="u") * h + x
    net = mg.Graph(loss=mg.sum(weight("W", 2)), y=h.next)
    stream = mg.compile(net).stream()
    assert float(stream(x=1.0)["y"]) == 1.0
    assert float(stream(x=1.0)["y"]) == 1.5


def test_stream_of_another_batch_from_a_start_of_its_size():
    net = NETWORKS["lstm"]()
    rng = np.random.default_rng(0)
    start = {"h": rng.normal(size=(5, 4)), "c": rng.normal(size=(5, 4))}
    xs = rng.normal(size=(STEPS, 5, 3))
    step = mg.compile(net, wrt=())
    found = one_by_one(step.stream(initial=start), {"x": xs})
    np.testing.assert_allclose(found, net.unroll(x=xs, initial=start).values("y"), rtol=1e-12, atol=1e-13)
    with pytest.raises(MicrogridError, match="initial="):
        step.stream()(x=xs[0])


def test_states_of_one_number_that_are_equal_at_first():
    """A run from other numbers must not be taken for one from these."""
    x, a, b = mg.input(0.0, name="x"), mg.state(0.0, name="a"), mg.state(0.0, name="b")
    a.next, b.next = x, a
    step = mg.compile(mg.Graph(a + 10.0 * b), wrt=())
    assert float(step(x=[1.0], initial={"a": 0.0, "b": 0.0}).value[0]) == 0.0
    assert float(step(x=[1.0], initial={"a": 5.0, "b": 7.0}).value[0]) == 75.0
    stream = step.stream()
    assert [float(stream(x=value)) for value in (1.0, 2.0, 3.0, 4.0)] == [0.0, 1.0, 12.0, 23.0]


def test_stream_from_a_start_by_node_or_by_name():
    net = NETWORKS["scalar"]()
    step = mg.compile(net, wrt=())
    for initial in ({"h": 4.0}, {net["h"]: 4.0}):
        assert float(step.stream(initial)(x=1.0)) == 3.0
    assert float(step.stream()(x=1.0)) == 1.0


def test_stream_goes_on_from_the_state_of_a_run():
    net = NETWORKS["lstm"]()
    xs = np.random.default_rng(0).normal(size=(STEPS, 2, 3))
    step = mg.compile(net, wrt=())
    stream = step.stream(initial=step(x=xs[:4]).state)
    np.testing.assert_allclose(stream(x=xs[4]), step(x=xs).value[4], rtol=1e-12)
    np.testing.assert_allclose(step(x=xs[5:], initial=stream.state).value[0], step(x=xs).value[5], rtol=1e-12)


def test_state_of_a_stream_can_be_kept_and_set():
    net = NETWORKS["lstm"]()
    xs = np.random.default_rng(0).normal(size=(STEPS, 2, 3))
    stream = mg.compile(net, wrt=()).stream()
    expected = one_by_one(stream, {"x": xs})
    stream = mg.compile(net, wrt=()).stream()
    stream(x=xs[0])
    kept = stream.state
    copies = {name: np.array(value) for name, value in kept.items()}
    for t in (1, 2, 3):
        stream(x=xs[t])
    for name, value in kept.items():  # what was kept is not written over
        np.testing.assert_array_equal(value, copies[name])
    stream.state = kept
    np.testing.assert_allclose(stream(x=xs[1]), expected[1], rtol=1e-12)
    stream.state = {**stream.state, "h": np.zeros((2, 4)), "c": np.zeros((2, 4))}
    np.testing.assert_allclose(stream(x=xs[0]), expected[0], rtol=1e-12)


def test_streams_of_one_network_do_not_share_their_state():
    step = mg.compile(NETWORKS["scalar"](), wrt=())
    one, two = step.stream(), step.stream()
    assert [float(one(x=1.0)), float(two(x=3.0)), float(one(x=1.0)), float(two(x=0.0))] == [1.0, 3.0, 1.5, 1.5]


def test_results_of_a_stream_belong_to_the_user():
    step = mg.compile(NETWORKS["lstm"](), wrt=())
    stream, other = step.stream(), step.stream()
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.normal(size=(2, 3))
        one, two = stream(x=x), other(x=x)
        np.testing.assert_array_equal(one, two)
        one[...] = 7.0


def test_stream_reads_parameters_as_they_are_now():
    net = NETWORKS["scalar"]()
    stream = mg.compile(net, wrt=()).stream()
    stream(x=1.0)
    net["u"].value = 2.0
    assert float(stream(x=1.0)) == 3.0


def test_stream_takes_values_by_name_by_node_and_as_tensors():
    net = NETWORKS["scalar"]()
    step = mg.compile(net, wrt=())
    stream = step.stream()
    found = [stream({"x": 1.0}), stream({net["x"]: 1.0}), stream(x=mg.tensor(1.0)), stream(x=1)]
    assert [float(value) for value in found] == [1.0, 1.5, 1.75, 1.875]


def test_stream_that_feeds_on_its_own_output():
    """Generation: what comes out goes in."""
    x, h = mg.input(np.zeros((1, 2)), name="x"), mg.state(np.zeros((1, 2)), name="h")
    h.next = mg.tanh(x @ weight("W", 2, 2) + h @ weight("U", 2, 2) + 0.3)
    y = mg.sin(h.next)
    stream = mg.compile(mg.Graph(y), wrt=()).stream()
    fed, k = mg.state(np.zeros((1, 2)), name="fed"), mg.state(np.zeros((1, 2)), name="k")
    k.next = mg.tanh(fed @ weight("W", 2, 2) + k @ weight("U", 2, 2) + 0.3)
    fed.next = mg.sin(k.next)
    expected = mg.Graph(fed.next).unroll(steps=STEPS).values(fed.next)
    value = np.zeros((1, 2))
    for t in range(STEPS):
        value = stream(x=value)
        np.testing.assert_allclose(value, expected[t], rtol=1e-12)


def test_stream_without_inputs():
    h = mg.state(1.0, name="h")
    h.next = h * 2.0
    stream = mg.compile(mg.Graph(h.next), wrt=()).stream()
    assert [float(stream()) for _ in range(4)] == [2.0, 4.0, 8.0, 16.0]


def test_stream_of_integers():
    token, E, seen = mg.input(1, name="token"), weight("E", 5, 3), mg.state(0, name="seen")
    seen.next = seen + token
    stream = mg.compile(mg.Graph(E[token], seen.next), wrt=()).stream()
    first, second = stream(token=2), stream(token=4)
    np.testing.assert_array_equal(next(iter(first.values())), E.value[2])
    assert list(second.values())[1] == 6
    assert np.asarray(stream.state["seen"]).dtype.kind == "i"


def test_stream_in_float32():
    x, h = mg.input(np.zeros(2, np.float32), name="x"), mg.state(np.zeros(2, np.float32), name="h")
    h.next = mg.tanh(x + 0.5 * h)
    stream = mg.compile(mg.Graph(h.next), wrt=()).stream()
    assert stream(x=np.ones(2, np.float32)).dtype == np.float32
    assert stream.state["h"].dtype == np.float32


# --- stream: what is refused --------------------------------------------------------------------------------


def test_stream_refuses_inputs_that_it_does_not_know_or_get():
    stream = mg.compile(NETWORKS["lstm"](), wrt=()).stream()
    with pytest.raises(UnknownNameError, match=r"no input 'z'.*Known: 'x'"):
        stream(x=np.zeros((2, 3)), z=1.0)
    with pytest.raises(SequenceError, match="no value was given for the input 'x'"):
        stream()
    with pytest.raises(SequenceError, match=r"'x' has shape \(2, 3\)"):
        stream(x=np.zeros((2, 4)))
    with pytest.raises(UnknownNameError):
        stream({mg.input(1.0, name="other"): 1.0})
    x = np.ones((2, 3))  # and its state is as before
    np.testing.assert_array_equal(stream(x=x), mg.compile(NETWORKS["lstm"](), wrt=()).stream()(x=x))


@pytest.mark.parametrize("initial", [{"hh": 0.0}, {"h": np.zeros(3)}])
def test_stream_refuses_starts_that_do_not_fit(initial):
    step = mg.compile(NETWORKS["scalar"](), wrt=())
    with pytest.raises((UnknownNameError, SequenceError), match="state"):
        step.stream(initial)(x=1.0)


def test_stream_refuses_what_needs_the_whole_sequence():
    x = mg.input(1.0, name="x")
    unstacked = mg.time_unstack(mg.parameter(np.ones(3))).named("bias")
    for reduction in (mg.time_mean, mg.time_sum, mg.first, mg.last, mg.time_stack):
        with pytest.raises(CausalityError, match="'m' needs the whole sequence"):
            mg.compile(mg.Graph(reduction(x).named("m")), wrt=()).stream()
    with pytest.raises(CausalityError, match="'m' needs the whole sequence"):
        mg.compile(mg.Graph(x - mg.time_mean(x).named("m")), wrt=()).stream()
    with pytest.raises(CausalityError, match="'k' needs the whole sequence"):
        mg.compile(NETWORKS["reverse_rnn"](), wrt=()).stream()
    with pytest.raises(CausalityError, match="'bias' needs the whole sequence"):
        mg.compile(mg.Graph(unstacked * x), wrt=()).stream()


# --- check=True -----------------------------------------------------------------------------------------------


def checked(net, sequences=None, **options):
    """The words of the refusal."""
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError) as refusal:
        mg.compile(net, **options)(sequences, check=True)
    return str(refusal.value)


def exploding(reverse=False):
    """h doubles its exponent at every timestep: infinite after some."""
    x, h = mg.input(1.0, name="x"), mg.state(2.0, name="h", reverse=reverse)
    h.next = (h * h * x).named("y")
    return mg.Graph(h.next)


def test_first_infinity_of_a_cycle_is_found():
    words = checked(exploding(), {"x": np.ones(12)}, wrt=())
    assert words.startswith("the value of ")
    assert words.endswith("is inf at timestep 9")  # h is 2 to the power of 2 ** (t + 1), and floats end at 1024
    assert "multiply" in words  # h · h, before y


def test_first_infinity_of_a_reverse_cycle_is_found():
    words = checked(exploding(reverse=True), {"x": np.ones(12)}, wrt=())
    assert words.endswith("is inf at timestep 2")  # as far from the end as 9 from the beginning
    assert "multiply" in words


def test_nan_in_an_input_is_found_where_it_came_in():
    net = NETWORKS["rnn"]()
    sequences = sequences_for(net, 5, np.random.default_rng(0))
    sequences["x"][2, 1, 0] = np.nan
    sequences["x"][4] = np.inf
    assert checked(net, sequences) == "the value of 'x' is nan at timestep 2"


def test_infinity_in_a_parameter_is_found():
    net = NETWORKS["rnn"]()
    net["U"].value = np.where(np.eye(4) > 0, np.inf, 0.0)
    assert checked(net, sequences_for(net, 5, np.random.default_rng(0))) == "the value of 'U' is inf"


def test_nan_in_a_given_start_is_found():
    net = NETWORKS["rnn"]()
    sequences = sequences_for(net, 3, np.random.default_rng(0))
    with pytest.raises(NotFiniteError, match="'h'"):
        mg.compile(net)(sequences, initial={"h": np.full((2, 4), np.nan)}, check=True)


def test_operation_on_finite_values_that_is_not_finite_is_named_with_its_timestep():
    x = mg.input(1.0, name="x")
    net = mg.Graph(mg.time_sum(mg.tanh(mg.log(x).named("logarithm"))))
    assert checked(net, {"x": [1.0, 2.0, -1.0, 0.0]}, wrt=()) == "the value of 'logarithm' is nan at timestep 2"
    assert checked(net, {"x": [1.0, 2.0, 3.0, 0.0]}, wrt=()) == "the value of 'logarithm' is -inf at timestep 3"


def test_earlier_timestep_is_named_before_a_later_one_of_an_earlier_node():
    x, h = mg.input(np.array([3.0]), name="x"), mg.state(np.zeros(1), name="h")
    h.next = (mg.log(x).named("one") + mg.log(x - 1.0).named("two") + 0.5 * h).named("y")
    words = checked(mg.Graph(h.next), {"x": [[3.0], [1.0], [0.0]]}, wrt=())
    assert words == "the value of 'two' is -inf at timestep 1"


def test_reduction_over_time_that_overflows_is_named_without_a_timestep():
    x = mg.input(1.0, name="x")
    words = checked(mg.Graph(mg.time_sum(x).named("total")), {"x": [1e308, 1e308]}, wrt=())
    assert words == "the value of 'total' is inf"


def test_gradient_that_is_not_finite_though_the_value_is():
    x, w = mg.input(1.0, name="x"), mg.parameter(1.0, name="w")
    net = mg.Graph(loss=mg.time_sum(mg.sqrt(w * x)))
    sequences = {"x": np.array([1.0, 4.0, 0.0, 9.0])}
    assert mg.compile(net, wrt=())(sequences, check=True).value == 6.0
    words = checked(net, sequences)
    assert words.startswith("the value of ")
    assert words.endswith("at timestep 2")


def test_gradient_that_overflows_on_its_way_back_through_a_cycle():
    u, h = mg.parameter(1e60, name="u"), mg.state(0.0, name="h")
    h.next = u * h
    net = mg.Graph(loss=mg.last(h.next))
    h0 = mg.compile(net, wrt=())(steps=9, check=True)
    assert h0.value == 0.0  # all values are 0, and du would be Σ λ · h = ∞ · 0
    words = checked_steps(net, 9)
    assert "timestep" in words
    assert "inf" in words


def checked_steps(net, steps):
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError) as refusal:
        mg.compile(net)(steps=steps, check=True)
    return str(refusal.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_finite_data_pass(name):
    net = NETWORKS[name]()
    sequences = sequences_for(net, 5, np.random.default_rng(0))
    step = mg.compile(net, wrt=())
    checked_run, run = step(sequences, steps=5, check=True), step(sequences, steps=5)
    for key, value in run.outputs.items():
        np.testing.assert_array_equal(checked_run.outputs[key], value)


def test_check_with_gradients_starts_and_lengths_passes_on_finite_data():
    net = NETWORKS["rnn"]()
    sequences = sequences_for(net, 5, np.random.default_rng(0))
    step = mg.compile(net)
    start = {"h": np.ones((2, 4))}
    run = step(sequences, initial=start, lengths=[3, 5], check=True)
    expected = step(sequences, initial=start, lengths=[3, 5])
    assert float(run.value) == float(expected.value)
    np.testing.assert_array_equal(run.grads["U"], expected.grads["U"])


def test_check_does_not_mind_padding():
    net = NETWORKS["rnn"]()
    sequences = sequences_for(net, 5, np.random.default_rng(0))
    for array in sequences.values():
        array[3:, 0] = np.nan
    assert np.isfinite(mg.compile(net)(sequences, lengths=[3, 5], check=True).value)


def test_check_agrees_with_the_unrolled_graph():
    """The same words, wherever a NaN comes in."""
    rng = np.random.default_rng(0)
    for name in ("rnn", "lstm", "bidirectional", "delay_line"):
        net = NETWORKS[name]()
        for t in (0, 2, 4):
            sequences = sequences_for(net, 5, rng)
            key = net.names[net.inputs[0]]
            sequences[key][t] = np.nan
            dag = net.unroll(sequences)
            with pytest.raises(NotFiniteError) as expected:
                dag.check_finite()
            assert (
                checked(net, sequences, wrt=()) == str(expected.value) == f"the value of {key!r} is nan at timestep {t}"
            )
