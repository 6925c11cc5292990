"""Long sequences in segments between checkpoints, and batches of sequences of different lengths."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, weight
from random_networks import RandomNetwork
from test_compiled import assert_same, differentiable, reduced, reference, sequences_for

import microgrid as mg
from microgrid.errors import CausalityError, NotFiniteError, SequenceError

pytestmark = pytest.mark.usefixtures("both_executors", "_all_quickly_compiled")

# --- checkpoint_every: the same numbers --------------------------------------------------------------------

NOT_IN_SEGMENTS = {"normalised", "bidirectional", "reverse_rnn", "forward_then_reverse"}
IN_SEGMENTS = [name for name in NETWORKS if name not in NOT_IN_SEGMENTS]
STEPS = 7


def assert_same_run(found, expected, rtol=1e-12):
    assert_same(found.outputs, expected.outputs, rtol)
    assert_same(dict(found.grads), dict(expected.grads), rtol)
    assert_same(found.state, expected.state, rtol)


def some_starts(net, seed=0):
    rng = np.random.default_rng(seed)
    return {net.names[s]: rng.normal(size=s.shape) for s in net.states if s.dtype.kind == "f"}


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("name", IN_SEGMENTS)
def test_network_in_segments_equals_the_network(name, every):
    net = NETWORKS[name]()
    sequences = sequences_for(net, STEPS, np.random.default_rng(0))
    if every == 3:
        values = mg.compile(net, wrt=(), checkpoint_every=every)(sequences, steps=STEPS)
        assert_same_run(values, mg.compile(net, wrt=())(sequences, steps=STEPS))
    loss = reduced(net)
    by = differentiable(loss)
    if by:
        expected = mg.compile(loss, wrt=by)(sequences, steps=STEPS)
        assert_same_run(mg.compile(loss, wrt=by, checkpoint_every=every)(sequences, steps=STEPS), expected)


@pytest.mark.parametrize("name", IN_SEGMENTS)
def test_network_in_segments_from_given_starts(name):
    net = NETWORKS[name]()
    starts = some_starts(net)
    sequences = sequences_for(net, STEPS, np.random.default_rng(0))
    loss = reduced(net)
    by = differentiable(loss)
    some = starts if len(name) % 2 else dict(list(starts.items())[:1])  # or of one state alone
    expected = mg.compile(loss, wrt=by)(sequences, steps=STEPS, initial=some)
    assert_same_run(mg.compile(loss, wrt=by, checkpoint_every=3)(sequences, steps=STEPS, initial=some), expected)


def can_run_in_segments(net):
    """Whether no timestep reads a reduction over time, and no state is reverse."""
    after, fixed = set(), set(net.nodes) - net.varying
    for node in net.nodes:
        reduces = node in fixed and any(x in net.varying for x in node.operands)
        if reduces or any(x in after for x in node.operands):
            after.add(node)
    readers = [(x, node) for node in net.nodes for x in (*node.operands, *([node.next] if node in net.states else []))]
    return not any(s.reverse for s in net.states) and not any(
        x in after & fixed and r in net.varying for x, r in readers
    )


def random_networks(count):
    """As many random networks, those that run in segments."""
    found, seed = [], 0
    while len(found) < count:
        random = RandomNetwork(seed, both_directions=seed % 2 > 0, steps=2 + seed % 5)
        net, leaves = random.tensors(numbers_as_floats=bool(seed % 3))
        if can_run_in_segments(net):
            found.append((random, net, leaves))
        seed += 1
    return found


def test_random_graphs_in_segments_equal_the_unrolled_ones():
    for number, (random, net, leaves) in enumerate(random_networks(18)):
        by, sequences = differentiable(net), random.sequences(net, leaves)
        outputs, grads, state = reference(net, sequences, random.steps, wrt=by)
        every = 1 + number % random.steps
        run = mg.compile(net, wrt=by, checkpoint_every=every)(sequences, steps=random.steps)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
        assert_same(run.state, state)


def test_random_graphs_that_cannot_run_in_segments_are_refused_and_no_others():
    refused = 0
    for seed in range(24):
        random = RandomNetwork(seed, both_directions=seed % 2 > 0)
        net, leaves = random.tensors(numbers_as_floats=False)
        step = mg.compile(net, wrt=(), checkpoint_every=2)
        if can_run_in_segments(net):
            step(random.sequences(net, leaves), steps=random.steps)
        else:
            refused += 1
            with pytest.raises(CausalityError, match="checkpoint_every"):
                step(random.sequences(net, leaves), steps=random.steps)
    assert 4 < refused < 20


def many_kinds():
    """Varying and static outputs, all reductions over time, learnable and computed starts, and what shares them."""
    x = mg.input(np.zeros((2, 3)), name="x")
    h0, w = weight("h0", 2, 3), weight("w", 3)
    h, k, d = mg.state(h0, name="h"), mg.state(mg.tanh(h0 * w), name="k"), mg.state(h0, name="d")
    h.next = mg.tanh(x * w + h @ weight("U", 3, 3))
    k.next, d.next = mg.sin(k + h.next), x
    ends = mg.sum(mg.last(k.next) * mg.first(h)) + mg.sum(mg.time_mean(d) * mg.time_sum(x)) + mg.sum(w**2)
    spread = mg.mean(mg.time_stack(mg.sum(k)) ** 2)
    loss = mg.tanh(0.1 * ends) + spread + mg.time_mean(mg.mean(h.next * k))
    return mg.Graph(loss=loss, y=h.next, z=mg.sum(k, axis=1), total=mg.time_sum(x), penalty=mg.sum(w**2, keepdims=True))


@pytest.mark.parametrize("every", [1, 5, 50])
def test_outputs_of_all_kinds_and_gradients_by_all_leaves_in_segments(every):
    net = many_kinds()
    by = [*net.parameters, *net.inputs]
    x = np.random.default_rng(0).normal(size=(STEPS, 2, 3))
    outputs, _, state = reference(net, {"x": x})
    _, grads, _ = reference(mg.Graph(net["loss"]), {"x": x}, wrt=by)
    run = mg.compile(net, wrt=by, checkpoint_every=every)(x=x)
    assert_same(run.outputs, outputs)
    assert_same(dict(run.grads), grads)
    assert_same(run.state, state)
    given_start = {"k": np.ones((2, 3))}
    expected = mg.compile(net, wrt=by)(x=x, initial=given_start)
    assert_same_run(mg.compile(net, wrt=by, checkpoint_every=every)(x=x, initial=given_start), expected)


GRU = NETWORKS["gru"]()
GRU_RUN = mg.compile(GRU, wrt=[*GRU.parameters, *GRU.inputs])


@settings(deadline=None, max_examples=12)
@given(steps=st.integers(1, 20), every=st.integers(1, 24))
def test_any_length_in_segments_of_any_length(steps, every):
    x = np.random.default_rng(steps).normal(size=(steps, 1, 2))
    parts = mg.compile(GRU, wrt=[*GRU.parameters, *GRU.inputs], checkpoint_every=every)
    assert_same_run(parts(x=x), GRU_RUN(x=x))


def test_one_program_in_segments_serves_lengths_batches_and_parameters_as_they_are_now():
    net = NETWORKS["rnn"]()
    whole, parts = mg.compile(net), mg.compile(net, checkpoint_every=4)
    rng = np.random.default_rng(0)
    for steps, batch in ((5, 2), (4, 3), (13, 2), (5, 2), (1, 1)):
        data = {"x": rng.normal(size=(steps, batch, 3)), "target": rng.normal(size=(steps, batch, 1))}
        start = {"h": rng.normal(size=(batch, 4))}
        assert_same_run(parts(data, initial=start), whole(data, initial=start))
        net["U"].value = net["U"].value + 0.1


def test_truncated_backpropagation_in_segments():
    net = NETWORKS["rnn"]()
    whole, parts = mg.compile(net), mg.compile(net, checkpoint_every=2)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(10, 2, 3)), "target": rng.normal(size=(10, 2, 1))}
    one = two = None
    for a, b in ((0, 4), (4, 9), (9, 10)):
        window = {name: array[a:b] for name, array in data.items()}
        run, expected = parts(window, initial=one), whole(window, initial=two)
        assert_same_run(run, expected)
        one, two = run.state, expected.state


def test_results_of_a_run_in_segments_belong_to_the_user():
    net = many_kinds()
    step = mg.compile(net, wrt=[*net.parameters, *net.inputs], checkpoint_every=3)
    rng = np.random.default_rng(0)
    run = step(x=rng.normal(size=(STEPS, 2, 3)))
    arrays = [*run.outputs.values(), *dict(run.grads).values(), *run.state.values()]
    copies = [np.array(array) for array in arrays]
    step(x=rng.normal(size=(STEPS, 2, 3)))
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
        np.asarray(array)[...] = 7.0
    assert all(np.all(node.value != 7.0) for node in net.parameters)
    again = step(x=rng.normal(size=(STEPS, 2, 3)))
    assert not any(np.any(np.asarray(value) == 7.0) for value in again.outputs.values())


@pytest.mark.parametrize("every", [1, 2, 3, 9])
def test_gradient_by_a_reduction_over_time_in_segments(every):
    x, h0 = mg.input(np.zeros(3), name="x"), mg.parameter(np.ones(3), name="h0")
    h = mg.state(h0, name="h")
    h.next = mg.tanh(x + h)
    total, end = mg.time_sum(h.next), mg.last(h.next)
    both = total * end
    net, wanted = mg.Graph(mg.sum(both**2) + mg.sum(h0 * total)), [total, h0, end, both, h.next]
    xs = np.random.default_rng(0).normal(size=(5, 3))
    expected = mg.compile(net, wrt=wanted)(x=xs).grads
    assert_same(dict(mg.compile(net, wrt=wanted, checkpoint_every=every)(x=xs).grads), dict(expected))
    dag = net.unroll(x=xs)
    dag.backward()
    np.testing.assert_allclose(expected[total], dag[total].grad, rtol=1e-12)


def test_float32_stays_float32_in_segments():
    x = mg.input(np.zeros((2, 3), np.float32), name="x")
    h, W = mg.state(np.zeros((2, 3), np.float32), name="h"), mg.parameter(np.ones((3, 3), np.float32), name="W")
    h.next = mg.tanh(x + h @ W)
    net = mg.Graph(loss=mg.time_mean(mg.mean(h.next**2)), y=h.next)
    run = mg.compile(net, checkpoint_every=2)(x=np.ones((5, 2, 3), np.float32))
    for value in (*run.outputs.values(), *run.state.values(), run.grads["W"]):
        assert np.asarray(value).dtype == np.float32


# --- checkpoint_every: what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NOT_IN_SEGMENTS))
def test_networks_that_need_the_whole_sequence_at_a_timestep_are_refused(name):
    net = NETWORKS[name]()
    sequences = sequences_for(net, 3, np.random.default_rng(0))
    words = "'m' depends on the whole sequence" if name == "normalised" else "is a reverse state"
    with pytest.raises(CausalityError, match=words):
        mg.compile(net, wrt=(), checkpoint_every=2)(sequences, steps=3)


def test_start_that_needs_the_whole_sequence_is_refused():
    x = mg.input(1.0, name="x")
    h = mg.state(mg.time_mean(x).named("mean"), name="h")
    h.next = h * 0.5 + x
    step = mg.compile(mg.Graph(loss=mg.last(h.next)), wrt=(), checkpoint_every=2)
    with pytest.raises(CausalityError, match="depends on the whole sequence"):
        step(x=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("every", [0, -3, True, False])
def test_segments_of_no_length_are_refused(every):
    with pytest.raises(SequenceError, match="at least 1"):
        mg.compile(NETWORKS["scalar"](), wrt=(), checkpoint_every=every)


@pytest.mark.parametrize("every", [2.0, 2.5, "3"])
def test_segments_of_no_whole_number_are_refused(every):
    with pytest.raises((SequenceError, TypeError), match="number"):
        mg.compile(NETWORKS["scalar"](), wrt=(), checkpoint_every=every)


def test_errors_of_a_run_in_segments_are_those_of_a_run():
    step = mg.compile(NETWORKS["rnn"](), checkpoint_every=2)
    with pytest.raises(SequenceError, match="target"):
        step(x=np.zeros((5, 2, 3)))
    x = np.zeros((5, 2, 3))
    x[3, 0, 0] = np.nan
    with pytest.raises(NotFiniteError, match=r"'x' is nan at timestep 3"):
        step(x=x, target=np.zeros((5, 2, 1)), check=True)


# --- checkpoint_every: memory -------------------------------------------------------------------------------


def wide_rnn(hidden=32):
    x, h = mg.input(np.zeros((4, 2)), name="x"), mg.state(np.zeros((4, hidden)), name="h")
    rng = np.random.default_rng(0)
    W, U = mg.parameter(rng.normal(size=(2, hidden)), name="W"), mg.parameter(np.eye(hidden) * 0.5, name="U")
    h.next = mg.tanh(x @ W + h @ U)
    return mg.Graph(loss=mg.time_mean(mg.mean(h.next**2)))


def peak_of(step, x):
    """The most memory, in bytes, that the first run holds."""
    gc.collect()
    tracemalloc.start()
    try:
        step(x=x)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_segments_need_far_less_memory():
    net, x = wide_rnn(), np.random.default_rng(0).normal(size=(4000, 4, 2))
    whole, parts = peak_of(mg.compile(net), x), peak_of(mg.compile(net, checkpoint_every=64), x)
    row = 4 * 32 * 8
    assert whole > 2 * 4000 * row  # what the gradient needs of every timestep: h, and its adjoint
    assert parts < whole / 4


def test_memory_in_segments_grows_as_checkpoints_and_one_segment():
    net, row = wide_rnn(), 4 * 32 * 8

    def peak(steps, every):
        return peak_of(mg.compile(net, checkpoint_every=every), np.zeros((steps, 4, 2)))

    at_once = peak(1024, 2048) / 1024  # of one timestep
    few, many = peak(512, 16), peak(2048, 16)
    assert many - few < 1.5 * (2048 - 512) / 16 * (row + 1000) + (2048 - 512) * 64  # checkpoints, T/k
    assert peak(1024, 256) - peak(1024, 64) < 2.5 * (256 - 64) * at_once  # the rows of one segment, k
    assert peak(1024, 64) < 0.35 * 1024 * at_once


# --- lengths: every sequence as if it were alone ------------------------------------------------------------

LENGTHS = [3, 1, 4]


def batched(cell, batch, reverse=False):
    """x, target and y of a network over `batch` sequences."""
    rng = np.random.default_rng(7)
    x, target = mg.input(np.zeros((batch, 3)), name="x"), mg.input(np.zeros((batch, 2)), name="target")

    def parameter(name, *shape):
        return mg.parameter(0.5 * rng.normal(size=shape), name=name)

    zeros = np.zeros((batch, 4))

    def recur(prefix, backwards):
        W, U, b = parameter(f"{prefix}W", 3, 4), parameter(f"{prefix}U", 4, 4), parameter(f"{prefix}b", 4)
        h = mg.state(zeros + 0.3, name=f"{prefix}h", reverse=backwards)
        h.next = mg.tanh(x @ W + h @ U + b)
        return h.next

    if cell == "rnn":
        out = recur("f", reverse)
    elif cell == "bidirectional":
        out = recur("f", False) + recur("r", True)
    elif cell == "stacked":
        one = recur("f", False)
        h = mg.state(zeros, name="top")
        h.next = mg.tanh(one @ parameter("T", 4, 4) + h * 0.5)
        out = h.next
    elif cell == "delays":
        d = mg.state(np.zeros((batch, 3)), name="d")
        d.next = x
        out = mg.tanh((d + 0.5 * x) @ parameter("fW", 3, 4)) + recur("f2", False)
    else:
        h, c = mg.state(zeros + 0.3, name="h"), mg.state(zeros, name="c")
        z = x @ parameter("W", 3, 16) + h @ parameter("U", 4, 16) + parameter("b", 16)
        i, f, o = (mg.sigmoid(z[:, k : k + 4]) for k in (0, 4, 8))
        c.next = f * c + i * mg.tanh(z[:, 12:])
        h.next = o * mg.tanh(c.next)
        out = h.next
    y = (out @ parameter("V", 4, 2)).named("y")
    return x, target, y


LOSSES = {
    "sum": lambda y, t: mg.time_sum(mg.sum((y - t) ** 2)),
    "mean": lambda y, t: mg.time_mean(mg.mean((y - t) ** 2)),
    "last": lambda y, t: mg.sum(mg.last(y) ** 2),
    "first": lambda y, t: mg.sum(mg.first(y - t) ** 2),
    "mean per sequence": lambda y, t: mg.sum(mg.time_mean((y - t) ** 2)),
    "sum, then mean over the batch": lambda y, t: mg.time_sum(mg.sum((y - t) ** 2, axis=1)),
}
CELLS = ["rnn", "lstm", "bidirectional", "stacked", "delays"]


def network(cell, loss, batch):
    _, target, y = batched(cell, batch)
    total = LOSSES[loss](y, target)
    return mg.Graph(loss=mg.sum(total) if total.ndim else total)


def data_for(lengths, seed=0, padding=0.0):
    rng, steps = np.random.default_rng(seed), max(lengths)
    found = {"x": rng.normal(size=(steps, len(lengths), 3)), "target": rng.normal(size=(steps, len(lengths), 2))}
    for array in found.values():
        for n, length in enumerate(lengths):
            array[length:, n] = padding
    return found


def alone(cell, loss, data, lengths, starts=None):
    """(loss, gradients by name, final states by name): each sequence run by itself, and added up."""
    total, grads, states = 0.0, {}, {}
    for n, length in enumerate(lengths):
        net = network(cell, loss, 1)
        by = [*net.parameters, *net.inputs]
        sequences = {name: data[name][:length, n : n + 1] for name in (net.names[i] for i in net.inputs)}
        start = {name: value[n : n + 1] for name, value in starts.items()} if starts else None
        outputs, found, state = reference(net, sequences, initial=start, wrt=by)
        share = length / sum(lengths) if loss == "mean" else 1.0
        total = total + share * outputs["loss"]
        for node in by:
            name = net.names[node]
            grad = share * found[name]
            if node in net.inputs:
                whole = grads.setdefault(name, np.zeros(data[name].shape))
                whole[:length, n : n + 1] = grad
            else:
                grads[name] = grads.get(name, 0) + grad
        for name, value in state.items():
            states.setdefault(name, []).append(value)
    return {"loss": total}, grads, {name: np.concatenate(values) for name, values in states.items()}


def assert_is_alone(cell, loss, data, lengths, starts=None, known=None, **options):
    """The batch with lengths against every sequence by itself; `known` are the data without bad padding."""
    net = network(cell, loss, len(lengths))
    by = [*net.parameters, *net.inputs]
    sequences = {name: data[name] for name in (net.names[i] for i in net.inputs)}
    run = mg.compile(net, wrt=by, **options)(sequences, lengths=lengths, initial=starts)
    outputs, grads, states = alone(cell, loss, known or data, lengths, starts)
    assert_same(run.outputs, outputs)
    assert_same(dict(run.grads), grads)
    assert_same(run.state, states)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cell", CELLS)
def test_batch_of_several_lengths_equals_every_sequence_alone(cell, loss):
    assert_is_alone(cell, loss, data_for(LENGTHS), LENGTHS)


@pytest.mark.parametrize(
    ("cell", "padding"), [("rnn", np.nan), ("rnn", np.inf), ("rnn", 1e300), *((cell, np.nan) for cell in CELLS[1:])]
)
def test_what_stands_in_the_padding_does_not_matter(cell, padding):
    known = data_for(LENGTHS)
    assert_is_alone(cell, "mean", data_for(LENGTHS, padding=padding), LENGTHS, known=known)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "bidirectional"])
def test_several_lengths_from_given_starts(cell):
    net = network(cell, "sum", 3)
    rng = np.random.default_rng(3)
    starts = {net.names[s]: rng.normal(size=(3, 4)) for s in net.states}
    assert_is_alone(cell, "sum", data_for(LENGTHS), LENGTHS, starts)


@pytest.mark.parametrize("loss", ["sum", "mean", "last", "mean per sequence"])
@pytest.mark.parametrize(("cell", "every"), [("rnn", 1), ("rnn", 2), ("lstm", 3), ("delays", 2), ("stacked", 9)])
def test_several_lengths_in_segments(cell, every, loss):
    assert_is_alone(cell, loss, data_for(LENGTHS), LENGTHS, checkpoint_every=every)


@settings(deadline=None, max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    cell=st.sampled_from(["rnn", "lstm", "bidirectional"]),
    loss=st.sampled_from(list(LOSSES)),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_lengths_equal_every_sequence_alone(lengths, cell, loss, seed):
    assert_is_alone(cell, loss, data_for(lengths, seed), lengths)


def test_one_program_serves_lengths_as_they_come():
    net = network("lstm", "mean", 3)
    step = mg.compile(net)
    for lengths in ([3, 1, 4], [4, 4, 4], [1, 1, 1], [2, 5, 1]):
        data = data_for(lengths)
        outputs, grads, _ = alone("lstm", "mean", data, lengths)
        run = step(data, lengths=np.array(lengths))
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), {name: grads[name] for name in run.grads})
    data = data_for([4, 4, 4])
    assert_same_run(step(data), step(data, lengths=[4, 4, 4]))  # and runs without lengths beside them


@pytest.mark.parametrize("lengths", [[4, 4, 4], [5]], ids=["full", "batch of one"])
@pytest.mark.parametrize(
    ("cell", "loss"), [("lstm", "mean"), ("bidirectional", "sum"), ("delays", "last"), ("rnn", "first")]
)
def test_full_lengths_are_as_none(cell, loss, lengths):
    net = network(cell, loss, len(lengths))
    sequences = {net.names[i]: data_for(lengths)[net.names[i]] for i in net.inputs}
    step = mg.compile(net, wrt=[*net.parameters, *net.inputs])
    assert_same_run(step(sequences, lengths=lengths), step(sequences))


def test_lengths_shorter_than_all_given_timesteps():
    """No sequence reaches the end of the array."""
    data = {name: np.concatenate([array, np.full_like(array, np.nan)]) for name, array in data_for(LENGTHS).items()}
    net = network("lstm", "mean", 3)
    run = mg.compile(net)(data, lengths=LENGTHS)
    outputs, grads, states = alone("lstm", "mean", data_for(LENGTHS), LENGTHS)
    assert_same(run.outputs, outputs)
    assert_same(run.state, states)
    assert_same(dict(run.grads), {name: grads[name] for name in run.grads})


def test_lengths_as_a_list_an_array_of_any_integers_or_a_tensor():
    net = network("rnn", "mean", 3)
    step, data = mg.compile(net), data_for(LENGTHS)
    expected = step(data, lengths=LENGTHS)
    for lengths in (tuple(LENGTHS), np.array(LENGTHS, np.uint8), np.array(LENGTHS, np.int32), mg.tensor(LENGTHS)):
        assert_same_run(step(data, lengths=lengths), expected)


def test_stack_over_time_holds_zeros_past_the_ends():
    _, _, y = batched("rnn", 3)
    net = mg.Graph(stack=mg.time_stack(y), per_step=mg.sum(y, axis=0))
    data = data_for(LENGTHS)
    run = mg.compile(net, wrt=())(x=data["x"], lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        assert np.all(run.outputs["stack"][length:, n] == 0)
        one = batched("rnn", 1)
        expected = mg.Graph(mg.time_stack(one[2])).unroll(x=data["x"][:length, n : n + 1]).output.value
        np.testing.assert_allclose(run.outputs["stack"][:length, n], expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(run.outputs["per_step"], run.outputs["stack"].sum(axis=1), rtol=1e-12)


def test_mean_over_the_batch_at_each_timestep_is_of_the_sequences_that_are_left():
    x = mg.input(np.zeros((3, 2)), name="x")
    net = mg.Graph(mg.mean(x, axis=0))
    array = np.random.default_rng(0).normal(size=(4, 3, 2))
    found = mg.compile(net, wrt=())(x=array, lengths=LENGTHS).value
    for t in range(4):
        left = [n for n in range(3) if LENGTHS[n] > t]
        np.testing.assert_allclose(found[t], array[t, left].mean(axis=0), rtol=1e-12)


def test_mean_of_a_product_of_means_is_over_the_timesteps_there_are():
    x, w = mg.input(np.zeros((3, 2)), name="x"), mg.parameter(0.5, name="w")
    net = mg.Graph(loss=mg.time_mean(w * mg.mean(x**2) + 1.0))
    array = np.random.default_rng(0).normal(size=(4, 3, 2))
    run = mg.compile(net)(x=array, lengths=LENGTHS)
    valid = np.concatenate([array[:length, n] for n, length in enumerate(LENGTHS)])
    np.testing.assert_allclose(run.value, 0.5 * np.mean(valid**2) + 1.0, rtol=1e-12)
    np.testing.assert_allclose(run.grads["w"], np.mean(valid**2), rtol=1e-12)


def test_batch_on_another_axis():
    U = weight("U", 2, 2)

    def net(batch):
        x, h = mg.input(np.zeros((batch, 2)), name="x"), mg.state(np.zeros((batch, 2)), name="h")
        h.next = mg.transpose(mg.tanh(mg.transpose(x) + U @ mg.transpose(h)))
        return mg.Graph(loss=mg.time_sum(mg.sum(mg.transpose(h.next) ** 2)))

    array = np.random.default_rng(0).normal(size=(4, 3, 2))
    run = mg.compile(net(3))(x=array, lengths=LENGTHS)
    found = [reference(net(1), {"x": array[:k, n : n + 1]}, wrt=[U]) for n, k in enumerate(LENGTHS)]
    np.testing.assert_allclose(run.value, sum(outputs["loss"] for outputs, _, _ in found), rtol=1e-12)
    np.testing.assert_allclose(run.grads["U"], sum(grads["U"] for _, grads, _ in found), rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("start", ["one for each", "one for all", "computed", "a row"])
def test_several_lengths_from_a_start_that_is_learned(start, reverse):
    """Of each sequence its own, or the same for all."""
    value = np.random.default_rng(5).normal(size=(3, 2))
    U = weight("U", 2, 2)

    def net(rows):
        batch = len(value[rows])
        learned = mg.parameter(value[rows] if start == "one for each" else value[0], name="start")
        x = mg.input(np.zeros((batch, 2)), name="x")
        begin = {
            "one for each": lambda: learned,
            "one for all": lambda: learned + np.zeros((batch, 2)),
            "computed": lambda: mg.tanh(mg.broadcast_to(learned, (batch, 2))),
            "a row": lambda: mg.reshape(learned, (1, 2)) * np.ones((batch, 1)),
        }[start]()
        h = mg.state(begin, name="h", reverse=reverse)
        h.next = mg.tanh(x + h @ U)
        return mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))

    array = np.random.default_rng(0).normal(size=(4, 3, 2))
    run = mg.compile(net(slice(None)))(x=array, lengths=LENGTHS)
    found = []
    for n, k in enumerate(LENGTHS):
        one = net(slice(n, n + 1))
        found.append(reference(one, {"x": array[:k, n : n + 1]}, wrt=one.parameters))
    grads = [each[1]["start"] for each in found]
    np.testing.assert_allclose(run.value, sum(outputs["loss"] for outputs, _, _ in found), rtol=1e-12)
    expected = np.concatenate(grads) if start == "one for each" else sum(grads)
    np.testing.assert_allclose(run.grads["start"], expected, rtol=1e-12)
    np.testing.assert_allclose(run.state["h"], np.concatenate([state["h"] for _, _, state in found]), rtol=1e-12)


def test_tokens_with_padding_that_is_no_token():
    token, E = mg.input(np.array([1, 2, 0]), name="token"), weight("E", 5, 2)
    h = mg.state(np.zeros((3, 2)), name="h")
    h.next = mg.tanh(E[token] + h)
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next)))
    tokens = np.array([[1, 2, 3], [4, -99, 0], [2, 77, 1], [-1, -1, 2]])
    harmless = np.where(np.abs(tokens) > 4, 0, tokens)
    run = mg.compile(net)(token=tokens, lengths=LENGTHS)
    assert_same_run(run, mg.compile(net)(token=harmless, lengths=LENGTHS))


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: mg.log(a),
        lambda a: 1.0 / a,
        lambda a: mg.sqrt(a),
        lambda a: a**0.5,
        lambda a: a / mg.sum(a, axis=1, keepdims=True),
    ],
    ids=["log", "reciprocal", "sqrt", "power", "share"],
)
def test_operation_that_is_not_defined_at_zero_has_no_say_past_the_end(operation):
    """The padding must not make a gradient NaN where all the data are fine."""

    def net(batch):
        x, w = mg.input(np.ones((batch, 2)), name="x"), mg.parameter(np.array([0.7, 1.3]), name="w")
        return mg.Graph(loss=mg.time_sum(mg.sum(mg.sin(operation(w * x)))))

    array = np.random.default_rng(0).uniform(1, 2, size=(4, 3, 2))
    expected = 0.0
    for n, length in enumerate(LENGTHS):
        one = net(1)
        expected = expected + reference(one, {"x": array[:length, n : n + 1]}, wrt=one.parameters)[1]["w"]
    run = mg.compile(net(3))(x=array, lengths=LENGTHS)
    np.testing.assert_allclose(run.grads["w"], expected, rtol=1e-12)


# --- lengths: what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([3, 1], "one whole number per sequence"),
        ([3, 1, 4, 2], r"shape \(3,\)"),
        ([[3, 1, 4]], r"shape \(3,\)"),
        (4, "one whole number per sequence"),
        ([3.0, 1.0, 4.0], "float64"),
        ([True, True, True], "bool"),
        ([0, 1, 4], "between 1 and the 4 timesteps"),
        ([-1, 1, 4], "from -1"),
        ([3, 1, 5], "to 5"),
    ],
    ids=str,
)
def test_lengths_that_are_wrong_are_refused(lengths, words):
    net = network("rnn", "mean", 3)
    step, data = mg.compile(net), data_for(LENGTHS)
    with pytest.raises(SequenceError, match=words):
        step(data, lengths=lengths)
    assert np.isfinite(step(data, lengths=LENGTHS).value)  # and the program is as good as before


def test_lengths_for_a_state_of_a_fixed_number_of_rows_are_refused():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 3)), name="h")
    h.next = mg.tanh(x + h)[:2]
    with pytest.raises(SequenceError, match="the state 'h' starts with shape"):
        mg.compile(mg.time_sum(mg.sum(h.next)), wrt=())(x=np.ones((4, 2, 3)), lengths=[2, 4])


def test_lengths_without_a_batch_are_refused():
    x = mg.input(1.0, name="x")
    with pytest.raises(SequenceError, match="batch axis"):
        mg.compile(mg.time_sum(x), wrt=())(x=[1.0, 2.0], lengths=[2])
    with pytest.raises(SequenceError, match="batch axis"):
        mg.compile(mg.Graph(mg.time_sum(1.0)), wrt=())(steps=3, lengths=[2])


def test_input_that_is_called_lengths_is_refused():
    x = mg.input(np.ones((3, 2)), name="lengths")
    with pytest.raises(SequenceError, match="rename it"):
        mg.compile(mg.time_sum(mg.sum(x)), wrt=())({"lengths": np.ones((4, 3, 2))}, lengths=LENGTHS)


MIXING = {
    "max": lambda a: mg.max(a, axis=0),
    "product of rows": lambda a: mg.transpose(a) @ a,
    "gram": lambda a: a @ mg.transpose(a),
    "one sequence": lambda a: a[0],
    "some sequences": lambda a: a[1:],
    "picked": lambda a: a[np.array([1, 0, 2])],
    "flip": lambda a: mg.flip(a, 0),
    "backwards": lambda a: a[::-1],
    "cumsum": lambda a: mg.cumsum(a, axis=0),
    "softmax": lambda a: mg.softmax(a, axis=0),
    "log_softmax": lambda a: mg.log_softmax(a, axis=0),
    "flat": lambda a: mg.reshape(a, (-1,)),
    "joined": lambda a: mg.concatenate([a, a], axis=0),
}


@pytest.mark.parametrize("name", MIXING)
def test_operations_that_mix_sequences_are_refused(name):
    x, h = mg.input(np.zeros((3, 2)), name="x"), mg.state(np.zeros((3, 2)), name="h")
    h.next = mg.tanh(x + h)
    loss = mg.time_sum(mg.sum(mg.sin(MIXING[name](h.next))))
    with pytest.raises(SequenceError, match="sequences"):
        mg.compile(loss, wrt=())(x=np.random.default_rng(0).normal(size=(4, 3, 2)), lengths=LENGTHS)


def test_last_of_a_reduction_that_no_longer_tells_sequences_apart_is_refused():
    x = mg.input(np.zeros((3, 2)), name="x")
    y = mg.sqrt(mg.sum(x**2) + 1.0).named("y")
    with pytest.raises(SequenceError, match=r"take mg\.last before"):
        mg.compile(mg.Graph(end=mg.last(y)), wrt=())(x=np.zeros((4, 3, 2)), lengths=LENGTHS)


def test_last_of_a_sum_over_the_batch_is_of_each_sequence_at_its_own_end():
    x = mg.input(np.zeros((3, 2)), name="x")
    array = np.random.default_rng(0).normal(size=(4, 3, 2))
    ends = np.array([array[length - 1, n] for n, length in enumerate(LENGTHS)])
    for reduce, expected in ((mg.sum, ends.sum()), (mg.mean, ends.mean())):
        run = mg.compile(mg.Graph(end=mg.last(reduce(x))), wrt=())(x=array, lengths=LENGTHS)
        np.testing.assert_allclose(run.value, expected, rtol=1e-12)
