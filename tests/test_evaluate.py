"""mg.evaluate: means over batches, each weighing what it holds."""

import numpy as np
import pytest

import microgrid as mg
from microgrid import nn
from microgrid.errors import OperandTypeError, SequenceError


def tagging(count=12, steps=6, seed=0):
    """Sequences whose targets are ignored where they are 0, most of them in the first half of the data."""
    rng = np.random.default_rng(seed)
    x, target = rng.normal(size=(count, steps, 2)), rng.integers(1, 4, (count, steps))
    target[: count // 2, 1:] = 0
    inputs = mg.input(np.zeros((1, 2)), name="x"), mg.input(np.zeros(1, int), name="target")
    logits = nn.Linear(3, 4, rng=0, dtype=np.float64)(nn.RNN(2, 3, rng=1, dtype=np.float64)(inputs[0]))
    loss = nn.cross_entropy(logits, inputs[1], ignore_index=0)
    return {"x": x, "target": target}, logits, loss, nn.accuracy(logits, inputs[1], ignore_index=0)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_what_is_ignored_weighs_nothing_in_any_batches(size):
    data, logits, loss, accuracy = tagging()
    outputs = mg.compile(logits, wrt=())(x=data["x"].swapaxes(0, 1)).value
    target = data["target"].T
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    scores = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    nll = -np.take_along_axis(scores, target[..., None], -1)[..., 0]
    counted = target != 0
    found = mg.evaluate({"nll": loss, "right": accuracy}, mg.data.Minibatches(data, size))
    np.testing.assert_allclose(found["nll"], nll[counted].mean(), rtol=1e-12)
    np.testing.assert_allclose(found["right"], (outputs.argmax(-1) == target)[counted].mean(), rtol=1e-12)


def test_a_mean_over_an_epoch_counts_targets_too():
    data, _, loss, _ = tagging()
    still = mg.optim.SGD(mg.Graph(loss).parameters, lr=1e-300)  # learns nothing, so that batches can be added up
    history = mg.fit(loss, mg.data.Minibatches(data, 4), epochs=1, optimiser=still, progress=False)
    np.testing.assert_allclose(history["loss"][0], mg.evaluate(loss, mg.data.Minibatches(data, 12)), rtol=1e-12)


def test_long_sequences_in_windows_are_the_whole():
    rng = np.random.default_rng(0)
    x, target = mg.input(np.zeros((1, 1)), name="x"), mg.input(np.zeros((1, 1)), name="target")
    y = nn.Linear(4, 1, rng=0, dtype=np.float64)(nn.LSTM(1, 4, rng=1, dtype=np.float64)(x))
    data = {name: rng.normal(size=(2_300, 2, 1)) for name in ("x", "target")}
    for what in (nn.mse(y, target), mg.last(nn.mse(y, target, reduction="none").mean()), mg.sqrt(nn.mse(y, target))):
        whole = float(mg.compile(what, wrt=())(data).value)
        np.testing.assert_allclose(mg.evaluate(what, data), whole, rtol=1e-12)


def test_nothing_is_dropped():
    x = mg.input(np.ones((1, 50)), name="x")
    assert mg.evaluate(mg.time_mean(mg.mean(nn.Dropout(0.5, rng=0)(x))), {"x": np.ones((3, 4, 50))}) == 1.0


def test_what_cannot_be_evaluated_is_refused():
    x = mg.input(np.ones((1, 2)), name="x")
    with pytest.raises(OperandTypeError, match="reduce it"):
        mg.evaluate(x, {"x": np.ones((3, 1, 2))})
    with pytest.raises(OperandTypeError, match="value per timestep"):
        mg.evaluate(mg.mean(x), {"x": np.ones((3, 1, 2))})
    with pytest.raises(SequenceError, match="'y', which is no input"):
        mg.evaluate(mg.time_mean(mg.mean(x)), {"y": np.ones((3, 1, 2))})
    with pytest.raises(OperandTypeError, match="nothing to evaluate"):
        mg.evaluate({}, {"x": np.ones((3, 1, 2))})
