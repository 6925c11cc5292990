"""What a newcomer who knows PyTorch does first, and what it says."""

import numpy as np
import pytest

import microgrid as mg
from microgrid import nn

XS, TARGETS = np.ones((5, 16, 2), np.float32), np.ones((5, 16, 1), np.float32)


def network():
    x, target = mg.input(XS[0], name="x"), mg.input(TARGETS[0], name="target")
    model = nn.Sequential(nn.LSTM(2, 8, rng=0), nn.Linear(8, 1, rng=0))
    y = model(x)
    return model, y, nn.mse(y, target)


class Dictionaries:
    def __len__(self):
        return 1

    def epoch(self, number, start=0):
        yield {"x": XS, "target": TARGETS}


def own_forward():
    class Wrong(nn.Cell):
        def forward(self, x, h):
            return h


MISTAKES = {
    "a stream of an array": (lambda y, loss: mg.compile(y, wrt=()).stream()(XS[0]), "by the names of the inputs"),
    "a stream of a whole": (lambda y, loss: mg.compile(y, wrt=()).stream()(x=XS), "one timestep at a time"),
    "a loss of PyTorch": (lambda y, loss: nn.CrossEntropyLoss(), r"use nn.cross_entropy\(logits, target\)"),
    "something that is nowhere": (lambda y, loss: nn.Nowhere, "no attribute 'Nowhere'$"),
    "a cell's forward": (lambda y, loss: own_forward(), r"Wrong says one timestep in step\(self, x, h\)"),
    "dictionaries for batches": (
        lambda y, loss: mg.fit(loss, Dictionaries(), epochs=1, progress=False),
        "mg.data.Batch",
    ),
    "an optimiser of a loss": (lambda y, loss: mg.optim.Adam(loss), "mg.Graph"),
    "an optimiser of a module": (lambda y, loss: mg.optim.Adam(network()[0]), r"model.parameters\(\)"),
    "modes": (lambda y, loss: network()[0].eval(), "no modes to switch"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_with_what_to_do(name):
    attempt, words = MISTAKES[name]
    _, y, loss = network()
    with pytest.raises((mg.MicrogridError, AttributeError), match=words):
        attempt(y, loss)


def test_a_frozen_parameter_stays_and_the_others_move():
    model, _, loss = network()
    frozen, *others = model.parameters()
    frozen.requires_grad = False
    before = [parameter.numpy() for parameter in model.parameters()]
    for optimiser in (None, mg.optim.Adam(model.parameters())):
        mg.fit(loss, {"x": XS, "target": TARGETS}, epochs=2, optimiser=optimiser, progress=False)
    np.testing.assert_array_equal(frozen.value, before[0])
    assert all(np.any(parameter.value != old) for parameter, old in zip(others, before[1:], strict=True))


def test_a_nan_in_the_validation_data_is_said_once(capsys):
    _, _, loss = network()
    holes = XS.copy()
    holes[2, 3, 1] = np.nan
    data = {"x": XS, "target": TARGETS}
    mg.fit(loss, data, epochs=3, validation={**data, "x": holes}, progress=False)
    assert capsys.readouterr().err.count("validation loss is nan") == 1


def test_a_nan_in_the_data_is_not_blamed_on_the_learning_rate():
    _, _, loss = network()
    holes = XS.copy()
    holes[2, 3, 1] = np.nan
    with pytest.raises(mg.errors.NotFiniteError, match="'x' is nan at timestep 2") as refusal:
        mg.fit(loss, {"x": holes, "target": TARGETS}, epochs=1, progress=False)
    assert "learning rate" not in str(refusal.value)


def test_a_run_that_is_finished_says_so(tmp_path, capsys):
    _, _, loss = network()
    for _ in range(2):
        mg.fit(loss, {"x": XS, "target": TARGETS}, epochs=2, checkpoint=tmp_path / "run")
    assert "there is nothing to do" in capsys.readouterr().err
