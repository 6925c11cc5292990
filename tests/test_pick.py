"""lookup and pick: rows and elements by whole numbers; no gradient takes a table per timestep."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import assert_compiled_is_unrolled, assert_same, reference

import microgrid as mg
from microgrid import nn
from microgrid.errors import OperandError, OperandIndexError, OperandTypeError
from microgrid.ops.pick import add_rows, place

SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (2, 0), (2, 1, 2)])


def one_hot(index, count):
    return (np.asarray(index)[..., None] == np.arange(count)).astype(float)


# --- values and gradients ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    shape=SHAPES, features=st.sampled_from([(), (1,), (4,), (2, 3)]), rows=st.integers(1, 6), seed=st.integers(0, 99)
)
def test_lookup_and_its_adjoint_are_products_with_one_hot_rows(shape, features, rows, seed):
    rng = np.random.default_rng(seed)
    table, index = rng.normal(size=(rows, *features)), rng.integers(0, rows, shape)
    found = mg.lookup(table, index).value
    assert np.array_equal(found, np.tensordot(one_hot(index, rows), table, 1))
    spread = rng.normal(size=found.shape)
    expected = np.tensordot(one_hot(index, rows).reshape(-1, rows).T, spread.reshape(-1, *features), 1)
    np.testing.assert_allclose(add_rows(spread, index, rows).value, expected, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, count=st.integers(1, 6), seed=st.integers(0, 99))
def test_pick_and_its_adjoint_are_products_with_one_hot_rows(shape, count, seed):
    rng = np.random.default_rng(seed)
    x, index = rng.normal(size=(*shape, count)), rng.integers(0, count, shape)
    np.testing.assert_allclose(mg.pick(x, index).value, np.sum(x * one_hot(index, count), axis=-1), atol=1e-15)
    spread = rng.normal(size=shape)
    assert np.array_equal(place(spread, index, count).value, spread[..., None] * one_hot(index, count))


@pytest.mark.parametrize("index", [[0, 0, 3, 0], [[1, 2], [2, 1]], 2, []])
def test_gradients_are_those_of_central_differences_where_rows_repeat(index):
    index, rng = np.asarray(index, int), np.random.default_rng(0)
    mg.check_gradients(lambda table: mg.sum(mg.lookup(table, index) ** 3), rng.normal(size=(4, 2)))
    mg.check_gradients(lambda x: mg.sum(mg.pick(x, index) ** 3), rng.normal(size=(*index.shape, 4)))


def test_gradients_of_gradients():
    rng, index = np.random.default_rng(0), np.array([0, 2, 2])
    for function, x in (
        (lambda x: mg.sum(mg.lookup(x, index) ** 3), rng.normal(size=(4, 2))),
        (lambda x: mg.sum(mg.pick(x, index) ** 3), rng.normal(size=(3, 4))),
        (lambda x: mg.sum(add_rows(x, index, 4) ** 3), rng.normal(size=(3, 2))),
        (lambda x: mg.sum(place(x, index, 4) ** 3), rng.normal(size=3)),
    ):
        mg.check_gradients(lambda x, function=function: mg.sum(mg.grad(function)(x) ** 2), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tables_keep_their_dtype_and_gradients_theirs(dtype):
    table = mg.tensor(np.ones((3, 2), dtype))
    rows = mg.lookup(table, np.array([0, 2], np.uint8))
    mg.sum(mg.pick(rows, [1, 0])).backward()
    assert rows.dtype == table.grad.dtype == dtype


# --- numbers out of range ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 3, 2**40, -(2**40)])
def test_numbers_out_of_range_are_refused_and_named(bad):
    with pytest.raises(OperandIndexError, match=f"token {bad} is out of range: it must be from 0 to 2"):
        mg.lookup(np.ones((3, 2)), [0, bad])
    with pytest.raises(OperandIndexError, match=f"class {bad} is out of range: it must be from 0 to 2"):
        mg.pick(np.ones((2, 3)), [0, bad])


@pytest.mark.parametrize("index", [[0.0, 1.0], [True, False], [np.nan, 0.0]])
def test_numbers_that_are_not_whole_are_refused(index):
    with pytest.raises(OperandTypeError, match="whole numbers"):
        mg.lookup(np.ones((3, 2)), index)
    with pytest.raises(OperandTypeError, match="whole numbers"):
        mg.pick(np.ones((2, 3)), index)


def reader(rows=6, features=3, batch=2, **settings):
    """An embedding read by a recurrence, with a readout, and its loss."""
    rng = np.random.default_rng(0)
    tokens = mg.input(np.zeros(batch, int), name="tokens")
    embedding = nn.Embedding(rows, features, rng=rng, **settings)
    h = nn.RNN(features, 4, rng=rng, **settings)(embedding(tokens))
    return mg.Graph(loss=mg.time_mean(mg.mean(h * h)))


@pytest.mark.parametrize(("t", "bad"), [(0, 6), (0, -1), (1, -3), (2, 99)])
@pytest.mark.parametrize("run", ["fresh", "seen", "checkpoints", "lengths", "check", "wider"])
def test_a_run_names_the_input_timestep_and_sequence_of_a_token_out_of_range(t, bad, run):
    net, good = reader(), np.array([[0, 1], [2, 3], [5, 4]])
    step = mg.compile(net, checkpoint_every=2 if run == "checkpoints" else None)
    if run == "seen":
        step(tokens=good)
    if run == "wider":
        good = np.concatenate([good, good], axis=1)
    tokens = good.copy()
    tokens[t, 1] = bad
    given = {"lengths": [3, 3]} if run == "lengths" else {"check": True} if run == "check" else {}
    with pytest.raises(
        OperandIndexError, match=rf"'tokens' holds {bad} at timestep {t}, sequence 1.*6 rows of 'embedding.E'.*0 to 5"
    ):
        step(tokens=tokens, **given)
    assert np.isfinite(step(tokens=good).value)


def test_unrolling_names_the_input_and_timestep_of_a_token_out_of_range():
    with pytest.raises(OperandIndexError, match=r"(?s)tokens.*9|9.*tokens"):
        reader().unroll(tokens=np.array([[0, 1], [2, 9]]))


def test_a_stream_names_the_input_of_a_token_out_of_range():
    stream = mg.compile(mg.Graph(nn.Embedding(6, 3)(mg.input(np.zeros(2, int), name="tokens"))), wrt=()).stream()
    stream(tokens=np.array([0, 5]))
    with pytest.raises(OperandIndexError, match="'tokens' holds 6"):
        stream(tokens=np.array([0, 6]))


# --- compiled ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [[[3, 3], [3, 3]], [[0, 1], [2, 3]], [[5, 0], [0, 5]]])
def test_compiled_embedding_equals_the_unrolled_one_where_tokens_repeat(sequence):
    net = reader(dtype=np.float64)
    tokens = {"tokens": np.array(sequence)}
    assert_compiled_is_unrolled(net, tokens, 2)
    unread = [row for row in range(6) if row not in np.ravel(sequence)]
    assert not np.any(mg.compile(net)(tokens).grads["embedding.E"][unread])


@settings(deadline=None, max_examples=12)
@given(
    rows=st.integers(1, 5),
    batch=st.sampled_from([(), (1,), (3,), (2, 3)]),
    steps=st.integers(1, 5),
    table=st.sampled_from(["fixed", "computed", "varying"]),
    seed=st.integers(0, 99),
)
def test_compiled_lookup_equals_the_unrolled_one(rows, batch, steps, table, seed):
    rng = np.random.default_rng(seed)
    tokens = mg.input(np.zeros(batch, int), name="tokens")
    E, x = mg.parameter(rng.normal(size=(rows, 2)), name="E"), mg.input(np.zeros((rows, 2)), name="x")
    read = {"fixed": E, "computed": mg.tanh(E), "varying": mg.tanh(x * E)}[table]
    net = mg.Graph(mg.time_sum(mg.sum(mg.lookup(read, tokens) ** 2 + 0 * mg.sum(x))))
    sequences = {"tokens": rng.integers(0, rows, (steps, *batch)), "x": rng.normal(size=(steps, rows, 2))}
    _, gradients, _ = reference(net, sequences, wrt=[E, x])
    assert_same(mg.compile(net, wrt=[E, x])(sequences).grads, gradients)


@pytest.mark.parametrize("fixed", ["neither", "logits", "classes"])
def test_compiled_pick_equals_the_unrolled_one(fixed):
    rng = np.random.default_rng(0)
    logits, classes = mg.input(np.zeros((2, 4)), name="logits"), mg.input(np.zeros(2, int), name="classes")
    w, tags = mg.parameter(rng.normal(size=(2, 4)), name="w"), np.array([3, 3])
    picked = mg.pick(w if fixed == "logits" else w * logits, tags if fixed == "classes" else classes)
    net = mg.Graph(mg.time_sum(mg.sum(mg.sin(picked)) + 0 * mg.sum(classes) + 0 * mg.sum(logits)))
    assert_compiled_is_unrolled(net, {"logits": rng.normal(size=(5, 2, 4)), "classes": rng.integers(0, 4, (5, 2))}, 5)


def test_lookup_of_a_token_that_a_state_holds():
    """A token that stays until the input says otherwise."""
    given_token, held = mg.input(np.zeros(2, int), name="given"), mg.state(np.zeros(2, int), name="held")
    held.next = mg.where(mg.greater_equal(given_token, 0), given_token, held)
    E = mg.parameter(np.arange(6.0).reshape(3, 2), name="E")
    net = mg.Graph(mg.time_sum(mg.sum(mg.lookup(E, held.next) ** 2)))
    tokens = np.array([[1, 2], [-1, -1], [0, -1], [-1, 1]])
    assert_compiled_is_unrolled(net, {"given": tokens}, 4)
    counts = np.bincount([1, 2, 1, 2, 0, 2, 0, 1])
    run = mg.compile(net)(given=tokens)
    np.testing.assert_allclose(run.grads["E"], 2 * counts[:, None] * E.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_indexing_a_parameter_by_tokens_takes_negative_ones_from_the_end(dtype):
    E, tokens = mg.parameter(np.arange(8.0).reshape(4, 2).astype(dtype), name="E"), mg.input(np.zeros(3, int), name="i")
    net = mg.Graph(mg.time_sum(mg.sum(E[tokens] ** 2)))
    sequence = np.array([[-1, 3, 0], [-4, -1, -2]])
    assert_compiled_is_unrolled(net, {"i": sequence}, 2)
    assert_same(
        {"E": mg.compile(net)(i=sequence).grads["E"]},
        {"E": 2 * np.bincount(sequence.ravel() % 4, minlength=4)[:, None] * E.value},
    )
    with pytest.raises(IndexError):
        mg.compile(net)(i=np.array([[4, 0, 0]]))


# --- memory -----------------------------------------------------------------------------------------------


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [nn.Embedding.forward, lambda layer, tokens: layer.E[tokens]])
@pytest.mark.parametrize("lengths", [False, True])
def test_the_gradient_of_an_embedding_is_never_one_table_per_timestep(read, lengths):
    rows, features, steps = 4000, 8, 64
    layer, tokens = nn.Embedding(rows, features, rng=0), mg.input(np.zeros(2, int), name="tokens")
    h = nn.RNN(features, 4, rng=0)(read(layer, tokens))
    step = mg.compile(mg.time_mean(mg.mean(h * h)))
    sequence = np.random.default_rng(0).integers(0, rows, (steps, 2))
    given = {"lengths": np.full(2, steps)} if lengths else {}
    step(tokens=sequence, **given)
    table = layer.E.value.nbytes
    assert peak_of(lambda: step(tokens=sequence, **given)) < 5 * table  # one per timestep is 64


@pytest.mark.parametrize("every", [1, 8])
def test_checkpoints_of_a_run_with_an_embedding_add_up_to_the_same_gradient(every):
    net, tokens = reader(dtype=np.float64), np.random.default_rng(0).integers(0, 6, (20, 2))
    whole, parts = mg.compile(net)(tokens=tokens), mg.compile(net, checkpoint_every=every)(tokens=tokens)
    assert_same(dict(parts.grads), dict(whole.grads))


def test_the_gradient_of_a_loss_over_a_large_vocabulary_takes_a_few_arrays_of_the_logits():
    classes, steps, batch = 2000, 32, 4
    x, tags = mg.input(np.zeros((batch, 3), np.float32), name="x"), mg.input(np.zeros(batch, int), name="tags")
    step = mg.compile(nn.cross_entropy(nn.Linear(3, classes, rng=0)(x), tags))
    rng = np.random.default_rng(0)
    given = {
        "x": rng.normal(size=(steps, batch, 3)).astype(np.float32),
        "tags": rng.integers(0, classes, (steps, batch)),
    }
    step(given)
    logits = steps * batch * classes * 4
    assert peak_of(lambda: step(given)) < 8 * logits


def test_numbers_with_fewer_axes_than_the_rows_are_refused():
    x, i = mg.input(np.ones((4, 5)), name="x"), mg.input(np.int64(1), name="i")
    with pytest.raises(OperandError, match="give one for each"):
        mg.pick(x, i)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_tables_are_read_by_small_and_unsigned_numbers(dtype):
    E, token = mg.parameter(np.ones((200, 2)), name="E"), mg.input(np.array([1], dtype), name="token")
    for rows in (E[token], mg.lookup(E, token)):
        run = mg.compile(mg.time_sum(mg.sum(rows)))(token=np.array([[3], [199], [3]], dtype))
        expected = np.zeros((200, 2))
        expected[[3, 199]] = [[2.0], [1.0]]
        np.testing.assert_array_equal(run.grads["E"], expected)
    M = mg.state(np.ones((3, 2)), name="M")
    M.next = M * 0.5 + mg.parameter(np.ones((3, 2)), name="p")
    some = mg.input(np.array([1], dtype), name="some")
    run = mg.compile(mg.time_sum(mg.sum(mg.lookup(M.next, some))))(some=np.array([[0], [2]], dtype))
    np.testing.assert_allclose(run.grads["p"], [[1.0, 1.0], [0.0, 0.0], [1.5, 1.5]])
