"""Losses against PyTorch, and by hand: over time, with lengths, with targets that are ignored."""

import numpy as np
import pytest
from torch_values.make_values import FILE, LOSSES, REDUCTIONS, operands, slopes

import microgrid as mg
from microgrid import nn
from microgrid.errors import GradientError, MicrogridError, OperandError, OperandIndexError, OperandTypeError

TORCH = np.load(FILE)
REGRESSION = {"mse": nn.mse, "mae": nn.mae, "huber": nn.huber, "binary_cross_entropy": nn.binary_cross_entropy}
CLASSIFICATION = {"cross_entropy": nn.cross_entropy, "accuracy": nn.accuracy}


def recorded(first, second):
    """Inputs for predictions and targets given as (time, batch, ...)."""
    return mg.input(first[0], name="prediction"), mg.input(second[0], name="target")


def by_hand(logits, target):
    """−log softmax(logits)[target], row by row."""
    rows = logits.reshape(-1, logits.shape[-1])
    losses = [np.log(np.sum(np.exp(row - row[t]))) for row, t in zip(rows, np.ravel(target), strict=True)]
    return np.reshape(losses, np.shape(target))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- PyTorch ----------------------------------------------------------------------------------------------


def assert_like_torch(name, value, gradient):
    for found, expected in (value, TORCH[f"{name}/value"]), (gradient, TORCH[f"{name}/grad"]):
        assert np.shape(found) == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_its_gradient_are_those_of_pytorch(name, reduction):
    case, given = LOSSES[name], operands()
    first, second = (given[key] for key in case.operands)
    loss_of = getattr(nn, case.microgrid)

    whole = mg.tensor(first)  # time and batch are axes like others
    loss = loss_of(whole, second, reduction=reduction, **case.settings)
    mg.sum(loss * slopes(*loss.shape)).backward()
    assert_like_torch(f"{name}, {reduction}", loss.value, whole.grad)

    prediction, target = recorded(first, second)
    loss = loss_of(prediction, target, reduction=reduction, **case.settings)
    sequences = {"prediction": first, "target": second}
    if reduction == "none":
        slope = mg.input(np.zeros(loss.shape), name="slope")
        sequences["slope"] = slopes(len(first), *loss.shape)
        number, value = mg.time_sum(mg.sum(loss * slope)), mg.time_stack(loss)
    else:
        number, value = loss * float(slopes()), loss * 1.0
    net = mg.Graph(number=number, value=value)
    dag = net.unroll(sequences)
    dag["number"].backward()
    assert_like_torch(f"{name}, {reduction}", dag["value"].value, dag.grads("prediction"))
    values = mg.compile(net, wrt=())(sequences).outputs["value"]
    gradient = mg.compile(mg.Graph(number), wrt="prediction")(sequences).grads["prediction"]
    assert_like_torch(f"{name}, {reduction}", values, gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_the_precision_of_its_predictions(name, dtype):
    case, given = LOSSES[name], operands()
    first, second = (given[key] for key in case.operands)
    prediction = mg.tensor(first.astype(dtype))
    loss = getattr(nn, case.microgrid)(prediction, second, **case.settings)
    loss.backward()
    assert loss.dtype == prediction.grad.dtype == dtype
    np.testing.assert_allclose(loss.value, TORCH[f"{name}, mean/value"], rtol=2e-6)


@pytest.mark.parametrize("name", ["cross entropy extreme", "binary cross entropy extreme"])
def test_extreme_logits_neither_overflow_nor_warn(name):
    case, given = LOSSES[name], operands()
    first, second = (given[key] for key in case.operands)
    prediction, target = recorded(first.astype(np.float32), second)
    step = mg.compile(getattr(nn, case.microgrid)(prediction, target), wrt="prediction")
    run = step(prediction=first.astype(np.float32), target=second)  # warnings are errors here
    assert np.isfinite(run.value)
    assert np.all(np.isfinite(run.grads["prediction"]))
    assert run.value > 100  # and the loss of a certain mistake is large, not cut off


# --- shapes and kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGRESSION)
def test_predictions_and_targets_of_other_shapes_are_refused_with_both_names(name):
    prediction, target = mg.input(np.zeros((4, 1)), name="forecast"), mg.input(np.zeros(4), name="truth")
    with pytest.raises(OperandError, match=rf"{name} .*'forecast' has shape \(4, 1\).*'truth' has shape \(4,\)"):
        REGRESSION[name](prediction, target)
    with pytest.raises(OperandError, match=rf"{name} .*'truth' has shape \(4,\)"):
        REGRESSION[name](1.0, target)


@pytest.mark.parametrize("name", REGRESSION)
def test_integer_targets_are_taken_and_integer_predictions_are_not(name):
    loss = REGRESSION[name](np.array([0.5, 0.25], np.float32), [0, 1])
    assert loss.value == REGRESSION[name](np.array([0.5, 0.25], np.float32), [0.0, 1.0]).value
    with pytest.raises(OperandTypeError, match=f"{name} needs predictions in floats.*int64"):
        REGRESSION[name]([0, 1], [0.5, 0.25])


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 4), ()])
def test_targets_that_are_not_one_per_row_are_refused_with_names_and_the_shape_to_have(name, shape):
    logits, target = mg.input(np.zeros((2, 4)), name="scores"), mg.input(np.zeros(shape, int), name="tags")
    with pytest.raises(OperandError, match=r"'scores' has shape \(2, 4\).*\(2,\).*'tags' has shape"):
        CLASSIFICATION[name](logits, target)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("dtype", [float, bool, np.float32])
def test_targets_that_are_no_whole_numbers_are_refused_by_name(name, dtype):
    target = mg.input(np.zeros(2, dtype), name="tags")
    with pytest.raises(OperandTypeError, match=f"targets of {name} are classes.*'tags' holds {np.dtype(dtype)}"):
        CLASSIFICATION[name](np.zeros((2, 4)), target)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_every_dtype_of_whole_numbers_names_classes(name, dtype):
    logits, target = numbers(6, 4), np.array([0, 1, 2, 3, 3, 0])
    for settings in {}, {"ignore_index": -1}, {"ignore_index": 3}:
        found = CLASSIFICATION[name](logits, target.astype(dtype), **settings).value
        assert found == CLASSIFICATION[name](logits, target, **settings).value


@pytest.mark.parametrize("name", [*REGRESSION, "cross_entropy"])
def test_an_unknown_reduction_is_refused(name):
    operands = ([[1.0, 2.0]], [1]) if name == "cross_entropy" else ([1.0], [1.0])
    with pytest.raises(OperandError, match="'mean', 'sum' or 'none', not 'average'"):
        getattr(nn, name)(*operands, reduction="average")


@pytest.mark.parametrize("delta", [0, -1.0, float("nan"), "1"])
def test_huber_refuses_a_delta_that_is_no_positive_number(delta):
    with pytest.raises(MicrogridError, match="delta"):
        nn.huber([1.0], [0.0], delta=delta)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_label_smoothing_outside_0_to_1_is_refused(share):
    with pytest.raises(OperandError, match="label_smoothing is from 0 to 1"):
        nn.cross_entropy([[1.0, 2.0]], [1], label_smoothing=share)


# --- targets out of range ---------------------------------------------------------------------------------


def tagger(**settings):
    """A loss of 4 classes over a network without states, and sequences for 3 timesteps of 2."""
    x, tags = mg.input(np.zeros((2, 3)), name="x"), mg.input(np.zeros(2, int), name="tags")
    loss = nn.cross_entropy(nn.Linear(3, 4, rng=0)(x), tags, **settings)
    return loss, {"x": numbers(3, 2, 3), "tags": np.array([[0, 1], [2, 3], [1, 0]])}


@pytest.mark.parametrize("bad", [-1, 4, 400])
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_target_out_of_range_is_refused_where_it_is_written(name, bad):
    with pytest.raises(OperandIndexError, match=rf"{bad} is out of range: it must be from 0 to 3"):
        CLASSIFICATION[name](np.zeros((2, 4)), [0, bad])


@pytest.mark.parametrize("settings", [{}, {"ignore_index": -100}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize(("t", "bad"), [(0, 4), (0, -1), (1, 9), (2, -7)])
@pytest.mark.parametrize("seen_before", [True, False])
def test_a_run_names_the_input_timestep_and_sequence_of_a_target_out_of_range(settings, t, bad, seen_before):
    loss, sequences = tagger(**settings)
    step = mg.compile(loss)
    if seen_before:
        step(sequences)
    tags = sequences["tags"].copy()
    tags[t, 1] = bad
    with pytest.raises(OperandIndexError, match=rf"'tags' holds {bad} at timestep {t}, sequence 1 .* 4 classes"):
        step({**sequences, "tags": tags})
    assert np.isfinite(step(sequences).value)  # and the program is as good as before


def test_unrolling_names_the_input_and_timestep_of_a_target_out_of_range():
    loss, sequences = tagger()
    sequences["tags"][1, 1] = 7
    with pytest.raises(OperandIndexError, match=r"(?s)tags.*7|7.*tags"):
        mg.Graph(loss).unroll(sequences)


def test_a_target_out_of_range_past_the_end_of_its_sequence_is_padding():
    loss, sequences = tagger()
    step = mg.compile(loss)
    expected = step(sequences, lengths=[3, 1]).value
    sequences["tags"][1:, 1] = -1
    assert step(sequences, lengths=[3, 1]).value == expected


# --- over time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_regression_with_lengths_is_over_the_timesteps_that_there_are(name, reduction):
    first, second, lengths = numbers(5, 3, 2), np.abs(numbers(5, 3, 2, seed=1)) % 1, np.array([5, 2, 1])
    prediction, target = recorded(first, second)
    run = mg.compile(REGRESSION[name](prediction, target, reduction=reduction), wrt="prediction")(
        prediction=first, target=second, lengths=lengths
    )
    losses = REGRESSION[name](first, second, reduction="none").value
    there = np.concatenate([losses[:n, k] for k, n in enumerate(lengths)])
    np.testing.assert_allclose(run.value, np.mean(there) if reduction == "mean" else np.sum(there), rtol=1e-12)
    assert not np.any(run.grads["prediction"][1:, 2])


@pytest.mark.parametrize("settings", [{}, {"ignore_index": 1}, {"ignore_index": -1}])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("lengths", [None, [5, 2, 1], [1, 1, 1]])
def test_classification_counts_what_is_neither_ignored_nor_past_an_end(settings, reduction, lengths):
    logits, tags = numbers(5, 3, 4), np.random.default_rng(0).integers(0, 4, (5, 3))
    if settings.get("ignore_index") == -1:
        tags[[0, 1, 4], [0, 1, 2]] = -1
    counts = tags != settings.get("ignore_index", -5)
    if lengths is not None:
        counts &= np.arange(5)[:, None] < lengths
    losses = by_hand(logits, np.maximum(tags, 0))[counts]
    prediction, target = recorded(logits, np.maximum(tags, 0))
    loss = nn.cross_entropy(prediction, target, reduction=reduction, **settings)
    run = mg.compile(loss, wrt="prediction")(prediction=logits, target=tags, lengths=lengths)
    np.testing.assert_allclose(run.value, np.mean(losses) if reduction == "mean" else np.sum(losses), rtol=1e-12)
    assert np.array_equal(np.any(run.grads["prediction"] != 0, axis=-1), counts)
    share = mg.compile(mg.Graph(nn.accuracy(prediction, target, **settings)), wrt=())
    hits = (np.argmax(logits, axis=-1) == tags)[counts]
    np.testing.assert_allclose(share(prediction=logits, target=tags, lengths=lengths).value, np.mean(hits), rtol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("lengths", [None, [3, 1]])
def test_where_every_target_is_ignored_loss_and_gradient_are_0(reduction, lengths):
    logits, tags = numbers(3, 2, 4), np.full((3, 2), -100)
    prediction, target = recorded(logits, tags)
    loss = nn.cross_entropy(prediction, target, ignore_index=-100, reduction=reduction)
    run = mg.compile(mg.time_sum(mg.sum(loss)) if reduction == "none" else loss, wrt="prediction")(
        prediction=logits, target=tags, lengths=lengths
    )
    assert run.value == 0
    assert not np.any(run.grads["prediction"])
    share = mg.compile(mg.Graph(nn.accuracy(prediction, target, ignore_index=-100)), wrt=())
    assert share(prediction=logits, target=tags, lengths=lengths).value == 0
    assert nn.cross_entropy(logits, tags, ignore_index=-100).value == 0


@pytest.mark.parametrize("ignored", [None, 1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_targets_that_are_the_same_at_all_timesteps(ignored, reduction):
    logits, tags = numbers(5, 3, 4), np.array([0, 1, 2])
    prediction = mg.input(logits[0], name="prediction")
    loss = nn.cross_entropy(prediction, tags, ignore_index=ignored, reduction=reduction)
    losses = by_hand(logits, np.tile(tags, (5, 1)))[:, tags != ignored]
    expected = np.mean(losses) if reduction == "mean" else np.sum(losses)
    np.testing.assert_allclose(mg.Graph(loss).unroll(prediction=logits).output.value, expected, rtol=1e-12)
    np.testing.assert_allclose(mg.compile(loss, wrt="prediction")(prediction=logits).value, expected, rtol=1e-12)


@pytest.mark.parametrize("ignored", [None, 1])
def test_accuracy_with_targets_that_are_the_same_at_all_timesteps(ignored):
    logits, tags = numbers(5, 3, 4), np.array([0, 1, 2])
    share = nn.accuracy(mg.input(logits[0], name="prediction"), tags, ignore_index=ignored)
    expected = np.mean((np.argmax(logits, axis=-1) == tags)[:, tags != ignored])
    np.testing.assert_allclose(mg.compile(mg.Graph(share), wrt=())(prediction=logits).value, expected, rtol=1e-12)


@pytest.mark.parametrize("target_of", [mg.last, lambda target: target])
def test_logits_of_the_last_timestep_alone(target_of):
    logits, tags = numbers(5, 3, 4), np.random.default_rng(1).integers(0, 4, (5, 3))
    prediction, target = recorded(logits, tags)
    loss = nn.cross_entropy(mg.last(prediction), target_of(target))
    at = tags[-1:] if target_of is mg.last else tags  # targets that vary are each compared with the last logits
    expected = np.mean([by_hand(logits[-1], row) for row in at])
    np.testing.assert_allclose(mg.Graph(loss).unroll(prediction=logits, target=tags).output.value, expected, rtol=1e-12)
    run = mg.compile(loss, wrt="prediction")(prediction=logits, target=tags)
    np.testing.assert_allclose(run.value, expected, rtol=1e-12)
    assert not np.any(run.grads["prediction"][:-1])


def test_the_last_of_each_sequence_is_compared_with_lengths():
    logits, tags, lengths = numbers(5, 3, 4), np.random.default_rng(1).integers(0, 4, (5, 3)), np.array([5, 2, 1])
    prediction, target = recorded(logits, tags)
    run = mg.compile(nn.cross_entropy(mg.last(prediction), mg.last(target)), wrt="prediction")(
        prediction=logits, target=tags, lengths=lengths
    )
    ends = lengths - 1, np.arange(3)
    np.testing.assert_allclose(run.value, np.mean(by_hand(logits[ends], tags[ends])), rtol=1e-12)


def test_a_loss_of_each_element_varies_over_time_as_its_operands_do():
    prediction, target = recorded(np.zeros((3, 2)), np.zeros((3, 2)))
    for reduction, varies in (("none", True), ("mean", False), ("sum", False)):
        net = mg.Graph(nn.mse(prediction, target, reduction=reduction))
        assert (net.output in net.varying) == varies


def test_targets_of_more_axes_than_the_batch():
    logits, tags = numbers(3, 2, 5, 4), np.random.default_rng(0).integers(0, 4, (3, 2, 5))
    prediction, target = recorded(logits, tags)
    run = mg.compile(nn.cross_entropy(prediction, target, ignore_index=2), wrt="prediction")(
        prediction=logits, target=tags
    )
    np.testing.assert_allclose(run.value, np.mean(by_hand(logits, tags)[tags != 2]), rtol=1e-12)


# --- accuracy ---------------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 1.0], [0.0, 0.0, 9.0], [1.0, 2.0, 3.0]])
    assert nn.accuracy(logits, [1, 0, 2, 2]).value == 1
    assert nn.accuracy(logits, [1, 0, 2, 0]).value == 0.75
    assert nn.accuracy(logits, [1, 0, -1, 0], ignore_index=-1).value == pytest.approx(2 / 3)


def test_accuracy_is_no_loss():
    prediction, target = recorded(np.zeros((1, 2, 3)), np.zeros((1, 2), int))
    with pytest.raises(GradientError):
        mg.compile(nn.accuracy(prediction * mg.parameter(2.0, name="w"), target))


def test_losses_have_the_gradients_of_central_differences():
    prediction, target, logits, tags = numbers(3, 2), numbers(3, 2, seed=5), numbers(4, 3), np.array([0, 2, 1, -1])
    share = 1 / (1 + np.exp(-target))
    mg.check_gradients(nn.mse, prediction, target)
    mg.check_gradients(nn.mae, prediction, target)
    mg.check_gradients(lambda x: nn.huber(x, target, delta=0.7), prediction)
    mg.check_gradients(nn.binary_cross_entropy, prediction, share)
    mg.check_gradients(
        lambda x: nn.cross_entropy(x, tags, ignore_index=-1, label_smoothing=0.2, reduction="sum"), logits
    )


def test_a_network_that_says_the_same_of_all_classes_is_right_by_chance_only():
    assert float(nn.accuracy(np.zeros((4, 10)), np.arange(4))) == pytest.approx(0.1)
    assert float(nn.accuracy(np.array([[1.0, 1.0, 0.0]]), np.array([1]))) == 0.5
