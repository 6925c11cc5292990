"""Batches for training: each timestep or item once per epoch, the same after a resumption, nothing read too early."""

import json
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgrid as mg
from microgrid import data
from microgrid.errors import SequenceError

FEW = st.integers(1, 12)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


def numbered(lengths, first=1):
    """Sequences of the given lengths in which every timestep has a number of its own, from `first` on."""
    ends = np.cumsum([first, *lengths])
    return [np.arange(a, b, dtype=float) for a, b in pairwise(ends)]


def same(batches, others):
    """Whether two lists of batches hold the same, bit by bit."""

    def content(batch):
        arrays = {name: (x.dtype, x.shape, x.tobytes()) for name, x in batch.inputs.items()}
        lengths = None if batch.lengths is None else batch.lengths.tolist()
        return arrays, lengths, batch.carried, batch.counted, batch.start

    return list(map(content, batches)) == list(map(content, others))


# --- Batch ----------------------------------------------------------------------------------------------


def test_a_batch_weighs_as_many_timesteps_as_count_in_its_loss():
    inputs = {"x": np.zeros((5, 3, 2))}
    assert data.Batch(inputs).timesteps == 15
    assert data.Batch(inputs, counted=2).timesteps == 6
    assert data.Batch(inputs, np.array([5, 4, 1])).timesteps == 10
    assert data.Batch(inputs, np.array([5, 4, 1]), counted=2).timesteps == 3


def test_a_batch_says_its_shapes_and_not_its_numbers():
    batch = data.Batch({"x": np.zeros((5, 2))}, np.array([5, 3]), carried=True, counted=1, start=7)
    assert repr(batch) == "Batch(x (5, 2), lengths 3 to 5, carried, counted 1, start 7)"
    assert (batch.steps, batch.size, batch.end) == (5, 2, 12)


def test_whatever_gives_batches_is_batches():
    x = np.zeros((4, 3))
    for each in data.Windows({"x": x}, 2), data.Minibatches({"x": x}, 2), data.Buckets({"x": list(x)}, 2):
        assert isinstance(each, data.Batches)
    assert not isinstance([x], data.Batches)


# --- Windows --------------------------------------------------------------------------------------------


@given(steps=st.integers(1, 40), every=FEW, more=st.integers(0, 10))
def test_windows_count_each_timestep_once_in_order(steps, every, more):
    x = np.arange(2.0 * steps).reshape(steps, 2)
    windows = data.Windows({"x": x}, every + more, every)
    batches = list(windows.epoch(0))
    assert len(batches) == len(windows)
    counted = [batch.inputs["x"][-(batch.counted or batch.steps) :] for batch in batches]
    np.testing.assert_array_equal(np.concatenate(counted), x)


@given(steps=st.integers(1, 40), every=FEW, more=st.integers(0, 10))
def test_windows_reach_back_over_length_timesteps_and_say_where_they_start(steps, every, more):
    x = np.arange(float(steps))[:, None]
    length = every + more
    batches = list(data.Windows({"x": x}, length, every).epoch(0))
    for i, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.inputs["x"], x[batch.start : batch.end])
        assert batch.carried == (batch.start > 0)
        assert batch.end == min((i + 1) * every, steps)
        if batch is not batches[-1]:
            assert batch.steps == min(length, batch.end)
    for before, batch in pairwise(batches):
        assert before.start <= batch.start <= before.end
        assert batch.start < before.end or more == 0


def test_a_window_longer_than_the_sequence_is_all_of_it():
    (batch,) = data.Windows({"x": np.ones((3, 2))}, 10).epoch(0)
    assert (batch.steps, batch.counted, batch.carried) == (3, None, False)


@pytest.mark.parametrize(("length", "every"), [(5, None), (7, 3), (6, 6), (8, 1), (50, None)])
def test_windows_with_the_states_carried_on_compute_what_the_whole_sequence_does(length, every):
    rng = np.random.default_rng(0)
    x = mg.input(np.zeros((1, 3)), name="x")
    h = mg.state(np.zeros((1, 4)), name="h")
    h.next = mg.tanh(x @ mg.parameter(rng.normal(size=(3, 4)), name="W") + h @ mg.parameter(rng.normal(size=(4, 4))))
    run = mg.compile(mg.Graph(h.next), wrt=())
    xs = rng.normal(size=(23, 2, 3))
    found, before = [], None
    for batch in data.Windows({"x": xs}, length, every).epoch(0):
        initial = None
        if batch.carried:  # the states that the window before has where this one starts
            reached = batch.start - before[0].start
            assert reached >= 1
            initial = run(x=before[0].inputs["x"][:reached], initial=before[1]).state
        found.append(run(batch.inputs, initial=initial).value[-(batch.counted or batch.steps) :])
        before = batch, initial
    np.testing.assert_allclose(np.concatenate(found), run(x=xs).value, rtol=1e-12)


def test_windows_side_by_side_start_where_the_one_before_ends():
    batches = list(data.Windows({"x": np.ones((11, 2))}, 4).epoch(0))
    assert all(before.end == batch.start for before, batch in pairwise(batches))


@given(steps=st.integers(1, 60), batch=FEW, features=st.sampled_from([(), (2,)]))
def test_folded_stretches_follow_each_other(steps, batch, features):
    sequence = np.random.default_rng(0).normal(size=(steps + batch, *features))
    folded = data.folded(sequence, batch)
    assert folded.shape == (len(sequence) // batch, batch, *features)
    whole = np.concatenate([folded[:, i] for i in range(batch)])
    np.testing.assert_array_equal(whole, sequence[: len(whole)])
    assert np.shares_memory(folded, sequence)


# --- Minibatches ----------------------------------------------------------------------------------------


@given(count=st.integers(1, 30), size=FEW, seed=st.none() | st.integers(0, 5), drop_last=st.booleans())
def test_an_epoch_of_minibatches_has_each_item_once(count, size, seed, drop_last):
    size = min(size, count)
    x = np.arange(count * 3.0).reshape(count, 3)
    minibatches = data.Minibatches({"x": x}, size, labels={"y": x[:, 0]}, seed=seed, drop_last=drop_last)
    batches = list(minibatches.epoch(3))
    assert len(batches) == len(minibatches)
    assert all(batch.size == size for batch in batches[: None if drop_last else -1])
    items = np.concatenate([batch.inputs["x"] for batch in batches], axis=1)
    order = items[0] // 3
    assert len(order) == (count - count % size if drop_last else count)
    assert len(set(order)) == len(order)
    np.testing.assert_array_equal(items.T, x[order.astype(int)])
    labels = np.concatenate([batch.inputs["y"] for batch in batches], axis=1)
    np.testing.assert_array_equal(labels, np.broadcast_to(items[0], items.shape))
    if seed is None:
        np.testing.assert_array_equal(order, np.arange(len(order)))


def test_epochs_and_seeds_differ_in_their_order_and_no_seed_keeps_it():
    def order(seed, epoch):
        minibatches = data.Minibatches({"x": np.arange(50.0)[:, None]}, 50, seed=seed)
        return next(minibatches.epoch(epoch)).inputs["x"][0].tolist()

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4
    assert order(None, 0) == order(None, 1) == list(range(50))


def test_a_label_is_given_at_each_timestep_without_a_copy():
    (batch,) = data.Minibatches({"x": np.zeros((2, 100, 1))}, 2, labels={"y": np.array([[1.0, 2], [3, 4]])}).epoch(0)
    y = batch.inputs["y"]
    assert (y.shape, y.strides[0]) == ((100, 2, 2), 0)
    node = mg.input(np.zeros((1, 2)), name="y")
    total = mg.compile(mg.Graph(mg.time_sum(node)), wrt=())
    np.testing.assert_array_equal(total(y=y).value, [[100, 200], [300, 400]])


# --- Buckets --------------------------------------------------------------------------------------------


@given(lengths=LENGTHS, features=st.sampled_from([(), (2,), (2, 1)]), value=st.sampled_from([0, -1, 9.5, np.nan]))
def test_padding_can_be_undone(lengths, features, value):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, *features)) for n in lengths]
    padded, found = data.pad(sequences, value)
    assert padded.shape == (max(lengths), len(lengths), *features)
    assert found.tolist() == lengths
    for i, sequence in enumerate(sequences):
        np.testing.assert_array_equal(padded[: found[i], i], sequence)
        np.testing.assert_array_equal(padded[found[i] :, i], np.full_like(padded[found[i] :, i], value))


def test_padding_keeps_the_dtype():
    assert data.pad([np.ones(2, np.float32), np.ones(1, np.float32)], 0.1)[0].dtype == np.float32
    assert data.pad([np.ones(2, np.uint8), np.ones(1, np.uint8)], 255)[0].dtype == np.uint8
    assert data.pad([np.ones(2, int), np.ones(1)])[0].dtype == np.float64


@given(lengths=LENGTHS, size=FEW, seed=st.none() | st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_of_buckets_has_each_item_once_beside_those_of_like_length(lengths, size, seed, epoch):
    size = min(size, len(lengths))
    sequences = numbered(lengths)
    buckets = data.Buckets(
        {"x": sequences, "y": [-each for each in sequences]},
        size,
        labels={"first": [s[0] for s in sequences]},
        seed=seed,
    )
    batches = list(buckets.epoch(epoch))
    assert len(batches) == len(buckets)
    found, padding, steps = [], 0, 0
    for batch in batches:
        x, y, first = (batch.inputs[name] for name in ("x", "y", "first"))
        assert batch.steps == batch.lengths.max()
        padding, steps = padding + int((x == 0).sum()), steps + x.size
        for i, n in enumerate(batch.lengths):
            found.append(x[:n, i].tolist())
            assert y[:n, i].tolist() == (-x[:n, i]).tolist()
            assert set(first[:, i]) == {x[0, i]}
            assert not x[n:, i].any()
    assert sorted(found) == [each.tolist() for each in sequences]
    assert buckets.padding == pytest.approx(padding / steps)
    shortest_first = sorted(batches, key=lambda batch: (batch.lengths.min(), batch.lengths.max()))
    for before, batch in pairwise(shortest_first):
        assert before.lengths.max() <= batch.lengths.min()


def test_buckets_draw_the_order_of_batches_and_who_of_equal_length_meets():
    lengths = np.repeat([2, 3, 4, 5], 4)
    buckets = data.Buckets({"x": numbered(lengths)}, 2, seed=0)
    epochs = [list(buckets.epoch(e)) for e in range(6)]
    assert len({tuple(int(batch.lengths[0]) for batch in epoch) for epoch in epochs}) > 1
    met = [{frozenset(batch.inputs["x"][0]) for batch in epoch} for epoch in epochs]
    assert any(each != met[0] for each in met)


def test_buckets_without_a_seed_start_with_the_shortest():
    batches = list(data.Buckets({"x": numbered([4, 2, 3, 2])}, 2).epoch(5))
    assert [batch.lengths.tolist() for batch in batches] == [[2, 2], [3, 4]]
    assert batches[0].inputs["x"][0].tolist() == [5.0, 10.0]


def test_buckets_of_mixed_dtypes_give_one_dtype():
    sequences = [np.ones(1, int), np.ones(1, int), np.ones(3), np.ones(3)]
    batches = data.Buckets({"x": sequences}, 2, pad_value=0.5).epoch(0)
    assert {batch.inputs["x"].dtype for batch in batches} == {np.dtype(float)}


def test_no_loss_depends_on_what_pads_a_bucket():
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    h = mg.state(np.zeros((1, 1)), name="h")
    h.next = mg.tanh(x + mg.parameter(np.array([[0.5]]), name="u") * h)
    step = mg.compile(mg.time_mean(mg.mean((h.next - target) ** 2)))
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 1)) for n in (3, 7, 4)]

    def loss(pad_value):
        (batch,) = data.Buckets({"x": sequences, "target": sequences}, 3, pad_value=pad_value).epoch(0)
        run = step(batch.inputs, lengths=batch.lengths)
        return float(run.value), float(run.grads["u"][0, 0])

    assert loss(0) == loss(1e6)
    alone = [float(step(x=s[:, None], target=s[:, None]).value) * len(s) for s in sequences]
    assert loss(0)[0] == pytest.approx(sum(alone) / 14)


# --- resumption -----------------------------------------------------------------------------------------


SOURCES = {
    "windows": lambda: data.Windows({"x": np.arange(26.0).reshape(13, 2)}, 5, 2),
    "minibatches": lambda: data.Minibatches({"x": np.arange(26.0).reshape(13, 2)}, 2, labels={"y": range(13)}, seed=3),
    "buckets": lambda: data.Buckets({"x": numbered([3, 1, 2, 5, 5, 5, 3, 3, 3, 1, 1, 4, 2])}, 2, seed=3),
}


@pytest.mark.parametrize("source", SOURCES)
@given(epoch=st.integers(0, 4), start=st.integers(0, 7))
def test_a_resumed_epoch_goes_on_with_the_same_batches(source, epoch, start):
    whole = list(SOURCES[source]().epoch(epoch))
    assert len(whole) == 7
    resumed = SOURCES[source]()
    list(resumed.epoch(1))  # what was asked before changes nothing
    assert same(resumed.epoch(epoch, start), whole[start:])
    assert same(SOURCES[source]().epoch(epoch, start=start), whole[start:])


@pytest.mark.parametrize("source", SOURCES)
def test_a_wrong_epoch_or_start_is_refused_at_once(source):
    batches = SOURCES[source]()
    with pytest.raises(SequenceError, match="start=8 lies past the end of an epoch of 7 batches"):
        batches.epoch(0, start=8)
    with pytest.raises(SequenceError, match="start is a whole number, at least 0, not -1"):
        batches.epoch(0, start=-1)
    with pytest.raises(SequenceError, match=r"number of an epoch is a whole number, at least 0, not 0\.5"):
        batches.epoch(0.5)


# --- what is read ---------------------------------------------------------------------------------------


def test_of_a_memmap_only_what_is_due_is_read(tmp_path):
    on_disk = np.memmap(tmp_path / "x", np.float32, mode="w+", shape=(2**10, 2**10, 2**8))  # 1 GiB of nothing
    on_disk[7, 5] = 1
    tracemalloc.start()
    try:
        train, validation = data.split_in_time({"x": on_disk})
        windows = list(data.Windows(train, 10, 5).epoch(0))
        folded = data.folded(on_disk.reshape(-1, 2**8), 4)
        stretches = next(data.Windows({"x": folded}, 16).epoch(0))
        shuffled = next(data.Minibatches({"x": on_disk}, 4, seed=0).epoch(0))
        in_order = next(data.Minibatches({"x": on_disk}, 2).epoch(0, 3))
        bucket = next(data.Buckets({"x": [on_disk[0], on_disk[1, :10]]}, 2).epoch(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25
    assert all(np.shares_memory(each.inputs["x"], on_disk) for each in (*windows, stretches))
    assert np.shares_memory(validation["x"], on_disk)
    assert windows[1].inputs["x"][7, 5].all()
    assert in_order.inputs["x"][5, 1].all()
    assert (in_order.size, shuffled.size, bucket.size) == (2, 4, 2)


def test_arrays_of_minibatches_are_laid_out_with_time_first():
    (batch,) = data.Minibatches({"x": np.zeros((4, 5, 3))}, 4).epoch(0)
    assert batch.inputs["x"].flags.c_contiguous


# --- split ----------------------------------------------------------------------------------------------


@given(steps=st.integers(1, 60), validation=st.floats(0.01, 0.99), gap=st.integers(0, 20))
def test_a_split_in_time_validates_on_what_comes_later(steps, validation, gap):
    x = np.arange(steps)
    try:
        train, later = data.split_in_time(x, validation, gap)
    except SequenceError:
        wanted = round(steps * validation)
        assert wanted == 0 or steps - wanted - gap < 1
        return
    assert len(later) == round(steps * validation)
    assert (train[0], later[-1]) == (0, steps - 1)
    assert later[0] - train[-1] == gap + 1
    assert len(train) + gap + len(later) == steps


def test_a_split_in_time_takes_sequences_by_name_and_gives_views():
    sequences = {"x": np.zeros((10, 2, 3)), "y": np.zeros((10, 2))}
    train, validation = data.split_in_time(sequences, 0.3, gap=1)
    assert {name: each.shape for name, each in train.items()} == {"x": (6, 2, 3), "y": (6, 2)}
    assert {name: each.shape for name, each in validation.items()} == {"x": (3, 2, 3), "y": (3, 2)}
    assert all(np.shares_memory(part[name], sequences[name]) for part in (train, validation) for name in part)


@given(count=st.integers(2, 50), validation=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_a_split_puts_each_item_in_one_part(count, validation, seed):
    wanted = round(count * validation)
    if wanted in (0, count):
        with pytest.raises(SequenceError, match=f"leave {count - wanted} to train on and {wanted} to validate"):
            data.split(np.zeros(count), validation=validation, seed=seed)
        return
    items = {"x": np.arange(count), "names": [str(i) for i in range(count)]}
    train, later = data.split(items, validation=validation, seed=seed)
    assert len(later["x"]) == wanted
    assert sorted([*train["x"], *later["x"]]) == list(range(count))
    for part in train, later:
        assert part["names"] == [str(i) for i in part["x"]]
        assert part["x"].tolist() == sorted(part["x"])


def test_a_split_keeps_the_kind_and_splits_several_alike():
    numbers = np.arange(20)
    train, later, *lists = data.split(numbers, numbers.tolist(), tuple(numbers.tolist()), validation=0.25, seed=1)
    assert (len(train), len(later)) == (15, 5)
    assert lists == [train.tolist(), later.tolist(), tuple(train.tolist()), tuple(later.tolist())]
    again, _ = data.split(numbers, validation=0.25, seed=1)
    other, _ = data.split(numbers, validation=0.25, seed=2)
    assert again.tolist() == train.tolist() != other.tolist()


# --- Vocabulary -----------------------------------------------------------------------------------------

SPECIAL = st.fixed_dictionaries(
    {},
    optional={"padding": st.just("<pad>"), "start": st.just("<s>"), "end": st.just("</s>"), "unknown": st.just("<?>")},
)


@given(texts=st.lists(st.text(max_size=8), min_size=1).filter(any), special=SPECIAL)
def test_characters_come_back_from_their_numbers(texts, special):
    vocabulary = data.Vocabulary.of_characters(texts, **special)
    assert len(vocabulary) == len(set("".join(texts))) + len(special)
    assert vocabulary.symbols[len(special) :] == tuple(sorted(set("".join(texts))))
    for text in texts:
        numbers = vocabulary.encode(text)
        assert numbers.dtype == np.int64
        assert len(numbers) == len(text) + ("start" in special) + ("end" in special)
        assert all(0 <= number < len(vocabulary) for number in numbers)
        assert vocabulary.decode(numbers) == text
        assert all(symbol in vocabulary for symbol in text)


@given(texts=st.lists(st.lists(st.text("ab ", min_size=1), max_size=6), min_size=1).filter(any), special=SPECIAL)
def test_tokens_come_back_from_their_numbers(texts, special):
    vocabulary = data.Vocabulary.of_tokens(texts, **special)
    assert [vocabulary.decode(vocabulary.encode(text)) for text in texts] == texts


@given(texts=st.lists(st.lists(st.sampled_from("abcdef")), min_size=1).filter(any), special=SPECIAL)
def test_a_vocabulary_survives_json(texts, special):
    vocabulary = data.Vocabulary.of_tokens(texts, **special)
    found = data.Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert found == vocabulary
    assert found.numbers == vocabulary.numbers


def test_special_symbols_come_first_and_padding_is_zero():
    vocabulary = data.Vocabulary.of_characters("ab", unknown="<?>", end="</s>", start="<s>", padding="<pad>")
    assert vocabulary.symbols == ("<pad>", "<s>", "</s>", "<?>", "a", "b")
    assert vocabulary.encode("bza").tolist() == [1, 5, 3, 4, 2]
    assert vocabulary.decode([1, 5, 3, 4, 2, 0, 0]) == "b<?>a"
    assert "z" not in vocabulary


def test_the_most_frequent_tokens_are_kept():
    texts = [list("cbab"), [*"abcd", "<?>", "<?>"]]
    vocabulary = data.Vocabulary.of_tokens(texts, min_count=2, max_size=3, unknown="<?>")
    assert vocabulary.symbols == ("<?>", "b", "a")
    assert vocabulary.encode(["b", "c", "<?>"]).tolist() == [1, 0, 0]


# --- errors ---------------------------------------------------------------------------------------------

X = np.zeros((10, 4, 2))
RAGGED = [[1.0, 2.0], [3.0]]
LETTERS = data.Vocabulary.of_characters(["abc"], end=".")
WORDS = data.Vocabulary.of_tokens([["to", "be"]])

ERRORS = {
    "windows of an array": (lambda: data.Windows(X, 3), "{'x': ..., 'target': ...}, not as ndarray"),
    "windows of nothing": (lambda: data.Windows({}, 3), "Windows was given no sequences: name at least one"),
    "a name that is none": (lambda: data.Windows({0: X}, 3), "by the names of inputs, which are str, not 0"),
    "windows of one sequence": (
        lambda: data.Windows({"x": np.zeros(10)}, 3),
        "'x' has shape (10,), but Windows takes (time, batch, *features): of one long sequence, mg.data.folded makes",
    ),
    "an empty sequence": (lambda: data.Windows({"x": X[:0]}, 3), "'x' is empty: it has shape (0, 4, 2)"),
    "an empty batch": (lambda: data.Windows({"x": X[:, :0]}, 3), "'x' is empty: it has shape (10, 0, 2)"),
    "windows of other lengths": (
        lambda: data.Windows({"x": X, "target": X[1:]}, 3),
        "'x' has 10 timesteps, but 'target' has 9: they must agree",
    ),
    "windows of other batches": (
        lambda: data.Windows({"x": X, "target": X[:, 1:]}, 3),
        "'x' has 4 sequences, but 'target' has 3: they must agree",
    ),
    "a ragged list": (
        lambda: data.Windows({"x": RAGGED}, 3),
        "'x' is no array of numbers, but a list whose parts differ in shape or are no numbers. Sequences of different "
        "length: use mg.data.Buckets or mg.data.pad, and lengths=",
    ),
    "an object array": (lambda: data.Windows({"x": np.array([1, None])}, 3), "'x' is no array of numbers"),
    "text": (
        lambda: data.Windows({"x": [["a", "b"]]}, 3),
        "'x' holds text: turn it into numbers first, with mg.data.V",
    ),
    "complex numbers": (lambda: data.Windows({"x": X * 1j}, 3), "'x' holds complex128, but networks compute with real"),
    "a masked array": (lambda: data.Windows({"x": np.ma.masked_equal(X, 1)}, 3), "'x' is a masked array"),
    "a tensor": (lambda: data.Windows({"x": mg.tensor(X)}, 3), "Use .value for the numbers"),
    "windows of no timestep": (lambda: data.Windows({"x": X}, 0), "length is a whole number, at least 1, not 0"),
    "windows of half a timestep": (
        lambda: data.Windows({"x": X}, 2.5),
        "length is a whole number, at least 1, not 2.5",
    ),
    "windows of True": (lambda: data.Windows({"x": X}, True), "length is a whole number, at least 1, not True"),
    "windows every 0": (lambda: data.Windows({"x": X}, 3, 0), "every is a whole number, at least 1, not 0"),
    "windows with holes": (
        lambda: data.Windows({"x": X}, 3, 4),
        "every=4 is more than length=3, so the timesteps between two windows would never be seen",
    ),
    "folded too often": (lambda: data.folded(X, 11), "(10, 4, 2) cannot be folded into 11 stretches"),
    "folded not at all": (lambda: data.folded(X, 0), "batch is a whole number, at least 1, not 0"),
    "a folded number": (lambda: data.folded(1.0, 1), "a sequence of shape () cannot be folded"),
    "no batch at all": (lambda: data.Batch({}), "a batch was given no sequences"),
    "a batch of lists": (lambda: data.Batch({"x": [[1.0]]}), "'x' is list, but a batch takes arrays of shape (time, b"),
    "a batch without batch": (lambda: data.Batch({"x": np.zeros(3)}), "'x' has shape (3,), but a batch takes arrays"),
    "a batch of other lengths": (lambda: data.Batch({"x": X, "y": X[1:]}), "'x' has 10 timesteps, but 'y' has 9"),
    "a batch of other sizes": (lambda: data.Batch({"x": X, "y": X[:, 1:]}), "'x' has 4 sequences, but 'y' has 3"),
    "lengths of others": (
        lambda: data.Batch({"x": X}, np.array([1, 2])),
        "lengths is an array of 4 whole numbers, not array([1, 2])",
    ),
    "more counted than there are": (
        lambda: data.Batch({"x": X}, counted=11),
        "counted=11 is more than the 10 timesteps of the batch",
    ),
    "nothing counted": (lambda: data.Batch({"x": X}, counted=0), "counted is a whole number, at least 1, not 0"),
    "a start before time": (lambda: data.Batch({"x": X}, start=-1), "start is a whole number, at least 0, not -1"),
    "a large batch size": (
        lambda: data.Minibatches({"x": X}, 11),
        "batch_size=11 is more than the 10 sequences that there are",
    ),
    "a batch size of 0": (lambda: data.Minibatches({"x": X}, 0), "batch_size is a whole number, at least 1, not 0"),
    "minibatches without time": (
        lambda: data.Minibatches({"x": np.zeros(10)}, 2),
        "'x' has shape (10,), but Minibatches takes (count, time, *features)",
    ),
    "minibatches of other counts": (
        lambda: data.Minibatches({"x": X, "y": X[1:]}, 2),
        "'x' has 10 sequences, but 'y' has 9: they must agree",
    ),
    "minibatches of other lengths": (
        lambda: data.Minibatches({"x": X, "y": X[:, 1:]}, 2),
        "'x' has 4 timesteps, but 'y' has 3: they must agree",
    ),
    "ragged minibatches": (
        lambda: data.Minibatches({"x": RAGGED}, 1),
        "use mg.data.Buckets or mg.data.pad, and length",
    ),
    "labels of others": (
        lambda: data.Minibatches({"x": X}, 2, labels={"y": np.zeros(9)}),
        "'x' has 10 sequences, but 'y' has 9: they must agree",
    ),
    "a label of the same name": (
        lambda: data.Minibatches({"x": X}, 2, labels={"x": np.zeros(10)}),
        "'x' is among both sequences and labels",
    ),
    "a single label": (
        lambda: data.Minibatches({"x": X}, 2, labels={"y": 1}),
        "'y' has shape (), but labels takes (co",
    ),
    "labels without a name": (lambda: data.Minibatches({"x": X}, 2, labels=np.zeros(10)), "labels takes sequences by"),
    "a negative seed": (lambda: data.Minibatches({"x": X}, 2, seed=-1), "seed is a whole number, at least 0, not -1"),
    "buckets of no items": (lambda: data.Buckets({"x": []}, 1), "'x': the list of sequences is empty"),
    "buckets of a number": (
        lambda: data.Buckets({"x": 3}, 1),
        "'x': expected a list of arrays of shape (time, *featur",
    ),
    "buckets of a text": (lambda: data.Buckets({"x": "abc"}, 1), "'x': expected a list of arrays"),
    "buckets of texts": (lambda: data.Buckets({"x": ["abc"]}, 1), "item 0 of 'x' holds text"),
    "buckets of an array": (
        lambda: data.Buckets([X], 1),
        "Buckets takes sequences by the names of the network's inputs",
    ),
    "a bucket item without time": (
        lambda: data.Buckets({"x": [[1.0], []]}, 1),
        "item 1 of 'x' has shape (0,), but a seq",
    ),
    "buckets of other features": (
        lambda: data.Buckets({"x": [np.zeros((3, 2)), np.zeros((3, 1))]}, 1),
        "item 1 of 'x' has features of shape (1,), but item 0 of (2,): sequences may differ in length alone",
    ),
    "buckets of other lengths": (
        lambda: data.Buckets({"x": RAGGED, "target": [[1.0, 2.0], [3.0, 4.0]]}, 1),
        "item 1 has 1 timesteps in 'x', but 2 in 'target': they must agree",
    ),
    "buckets of other counts": (
        lambda: data.Buckets({"x": RAGGED, "target": RAGGED[:1]}, 1),
        "'x' has 2 sequences, but 'target' has 1: they must agree",
    ),
    "large buckets": (lambda: data.Buckets({"x": RAGGED}, 3), "batch_size=3 is more than the 2 sequences"),
    "integers padded with NaN": (
        lambda: data.Buckets({"x": [[1, 2], [3]]}, 1, pad_value=np.nan),
        "sequences of int64 cannot be padded with nan",
    ),
    "bytes padded with -1": (
        lambda: data.pad([np.ones(2, np.uint8)], -1),
        "sequences of uint8 cannot be padded with -1",
    ),
    "padded with an array": (lambda: data.pad([[1.0]], [0.0]), "sequences of float64 cannot be padded with [0.0]"),
    "nothing padded": (lambda: data.pad([]), "the sequences: the list of sequences is empty"),
    "no validation": (
        lambda: data.split_in_time(X, 0),
        "validation is a share of the data, more than 0 and less than 1",
    ),
    "all validation": (lambda: data.split_in_time(X, 1.0), "more than 0 and less than 1, not 1.0"),
    "validation by count": (lambda: data.split(X, validation=3), "more than 0 and less than 1, not 3"),
    "a negative gap": (lambda: data.split_in_time(X, 0.2, -1), "gap is a whole number, at least 0, not -1"),
    "a gap over all": (
        lambda: data.split_in_time(X, 0.2, gap=8),
        "10 timesteps with validation=0.2 and gap=8 leave 0 to train on and 2 to validate with",
    ),
    "too little validation": (lambda: data.split_in_time(X, 0.01), "leave 10 to train on and 0 to validate with"),
    "a split number": (lambda: data.split_in_time(1.0), "'the sequence' is the single number 1.0"),
    "a split of other lengths": (
        lambda: data.split_in_time({"x": X, "y": X[1:]}),
        "'x' has 10 timesteps, but 'y' has 9: they must agree",
    ),
    "a split of no names": (lambda: data.split_in_time({}), "split_in_time was given no sequences"),
    "a split of no items": (
        lambda: data.split([]),
        "0 items with validation=0.1 leave 0 to train on and 0 to validate",
    ),
    "a split of nothing": (lambda: data.split(), "split was given nothing to split"),
    "a split of empty names": (lambda: data.split({}), "split was given nothing to split"),
    "a split of a few": (
        lambda: data.split([1, 2]),
        "2 items with validation=0.1 leave 2 to train on and 0 to validate",
    ),
    "a split of a text": (
        lambda: data.split("abc"),
        "lists and tuples of items, and mappings of them, but the items is str",
    ),
    "a split of nothing by name": (lambda: data.split({"x": None}), "and mappings of them, but x is NoneType"),
    "a split of other mappings": (
        lambda: data.split({"x": X}, {"x": X[1:]}),
        "'x of argument 0' has 10 items, but 'x of argument 1' has 9: they must agree",
    ),
    "a split of other counts": (lambda: data.split(X, [1, 2]), "'argument 0' has 10 items, but 'argument 1' has 2"),
    "a split of other names": (
        lambda: data.split({"x": X, "y": X[1:]}),
        "'x' has 10 items, but 'y' has 9: they must ag",
    ),
    "no characters": (lambda: data.Vocabulary.of_characters([""]), "of_characters was given no characters"),
    "no texts": (lambda: data.Vocabulary.of_characters([["to"]]), "of_characters takes texts, but number 0 is ['to']"),
    "a text for tokens": (
        lambda: data.Vocabulary.of_tokens(["to be"]),
        "text 0 is 'to be', but a vocabulary of tokens",
    ),
    "tokens that are numbers": (
        lambda: data.Vocabulary.of_tokens([["to", 2]]),
        "text 0 has 2 at position 1, but tokens",
    ),
    "rare tokens": (
        lambda: data.Vocabulary.of_tokens([["to", "be"]], min_count=2),
        "none of the 2 different tokens was found at least min_count=2 times",
    ),
    "a size for special symbols alone": (
        lambda: data.Vocabulary.of_tokens([["to"]], max_size=1, unknown="<?>"),
        "max_size is a whole number, at least 2, not 1",
    ),
    "a special character among others": (
        lambda: data.Vocabulary.of_characters(["a.b"], end="."),
        "'.' is twice in the vocabulary: special symbols need names of their own",
    ),
    "a special symbol that is none": (
        lambda: data.Vocabulary.of_characters("ab", padding=0),
        "a symbol is a str of at least one character, not 0",
    ),
    "a special symbol that is not there": (
        lambda: data.Vocabulary(("a",), True, unknown="<?>"),
        "the special symbol '<?>' is not among the symbols",
    ),
    "an unknown character": (
        lambda: LETTERS.encode("abz"),
        "'z' at position 2 is not in the vocabulary of 4 symbols. Make the vocabulary of all texts, or with a symbol "
        "for such, as in unknown='<unk>'",
    ),
    "an end within": (
        lambda: LETTERS.encode("a.b"),
        "the text holds the special symbol '.' at position 1; encode adds",
    ),
    "tokens for characters": (lambda: LETTERS.encode(["a"]), "vocabulary of characters: encode takes a str, not list"),
    "characters for tokens": (lambda: WORDS.encode("to be"), "split it, as in text.split()"),
    "no such symbol": (lambda: WORDS.number("or"), "'or' is not in the vocabulary of 2 symbols"),
    "numbers of none": (
        lambda: WORDS.decode([0, 2]),
        "2 at position 1 is the number of no symbol: they go from 0 to 1",
    ),
    "negative numbers": (lambda: WORDS.decode([-1]), "-1 at position 0 is the number of no symbol"),
    "halves": (
        lambda: WORDS.decode([0.5]),
        "decode takes whole numbers of shape (time,) or (batch, time), not float64 of shape (1,)",
    ),
    "texts of texts": (
        lambda: WORDS.decode([[[0], [1]]]),
        "decode takes whole numbers of shape (time,) or (batch, time), not int64 of shape (1, 2",
    ),
    "no vocabulary": (
        lambda: data.Vocabulary.from_dict({"symbols": []}),
        "characters, padding, start, end, unknown, but",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_refused_with_its_name(case):
    attempt, message = ERRORS[case]
    with pytest.raises(mg.MicrogridError) as refusal:
        attempt()
    assert message in str(refusal.value)


def test_every_public_name_has_an_example():
    assert [name for name in data.__all__ if ">>> " not in getattr(data, name).__doc__] == []


# --- drawn ----------------------------------------------------------------------------------------------


def noise(rng):
    return {"x": rng.normal(size=(5, 3, 1))}


@given(st.integers(0, 3), st.integers(0, 4))
def test_drawn_batches_depend_on_their_place_alone(number, start):
    drawn = data.Drawn(noise, batches=4, seed=7)
    whole = [batch.inputs["x"] for batch in drawn.epoch(number)]
    rest = [batch.inputs["x"] for batch in data.Drawn(noise, 4, 7).epoch(number, start)]
    assert len(whole) == len(drawn) == 4
    assert [x.tobytes() for x in rest] == [x.tobytes() for x in whole[start:]]


def test_no_batch_is_drawn_twice():
    drawn = data.Drawn(noise, batches=4, seed=7)
    seen = {batch.inputs["x"].tobytes() for number in range(3) for batch in drawn.epoch(number)}
    assert len(seen) == 12
    assert data.Drawn(noise, 4, 8).batch(0, 0).inputs["x"].tobytes() not in seen


def test_a_function_may_draw_a_whole_batch():
    batch = data.Batch({"x": np.ones((2, 1))}, lengths=np.array([2]))
    assert next(data.Drawn(lambda rng: batch, 1).epoch(0)) is batch


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: data.Drawn(3, 4), "takes a function"),
        (lambda: data.Drawn(noise, 0), "batches"),
        (lambda: next(data.Drawn(lambda rng: None, 4).epoch(0)), "what draw gives"),
        (lambda: next(data.Drawn(lambda rng: {"x": np.ones(3)}, 4).epoch(0)), "'x'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(attempt, words):
    with pytest.raises(mg.MicrogridError, match=words):
        attempt()
